/* compute/cuda_layout.cu - operations that move elements: copies with conversion, patches, gathers,
 * upsampling; and statistics, conversion of weights, products of a few f32 rows. */
#include <math.h>

#include "compute/cuda_kernels.cuh"

/* ---- copy --------------------------------------------------------------------------------------*/
struct copy_rows {
    kn_krows x, out;
    const int32_t *index; /* source row of each output row; NULL: the same */
    int64_t items;
    int vectors;
};

template <int V> __global__ void __launch_bounds__(256) copy_rows_kernel(copy_rows c)
{
    int64_t item = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (item >= c.items) return;
    int64_t row = item / c.vectors, from = c.index ? c.index[row] : row;
    int at = (int)(item % c.vectors) * V;
    float v[V];
    kn_load<V>(kn_krow(c.x, from), c.x.dtype, at, v);
    kn_store<V>(kn_krow(c.out, row), c.out.dtype, at, v);
}

static kn_status run_copy_rows(kn_dev *d, copy_rows c, int64_t rows, int64_t width)
{
    cudaStream_t s = kn_cuda_of(d)->stream;
    bool fast = kn_krows_by_eight(&c.x, width) && kn_krows_by_eight(&c.out, width);
    c.vectors = (int)(fast ? width / 8 : width);
    c.items = rows * c.vectors;
    if (c.items == 0) return KN_OK;
    if (fast)
        copy_rows_kernel<8><<<kn_blocks(c.items, 256), 256, 0, s>>>(c);
    else
        copy_rows_kernel<1><<<kn_blocks(c.items, 256), 256, 0, s>>>(c);
    KN_CUDA_LAUNCHED("copy");
    return KN_OK;
}

/* Any strides, any dtypes; integers and doubles bit by bit. */
struct copy_any {
    const char *x;
    char *out;
    int64_t dim[KN_MAX_RANK], sx[KN_MAX_RANK], so[KN_MAX_RANK]; /* strides in elements */
    int rank, from, to, size;
    int64_t count;
};

__global__ void __launch_bounds__(256) copy_any_kernel(copy_any c)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= c.count) return;
    int64_t ox = 0, oo = 0, rest = i;
    for (int a = c.rank - 1; a >= 0; a--) {
        int64_t k = rest % c.dim[a];
        rest /= c.dim[a];
        ox += k * c.sx[a], oo += k * c.so[a];
    }
    if (c.from != c.to)
        kn_store1(c.out, c.to, oo, kn_load1(c.x, c.from, ox));
    else if (c.size == 8)
        ((uint64_t *)c.out)[oo] = ((const uint64_t *)c.x)[ox];
    else if (c.size == 4)
        ((uint32_t *)c.out)[oo] = ((const uint32_t *)c.x)[ox];
    else if (c.size == 2)
        ((uint16_t *)c.out)[oo] = ((const uint16_t *)c.x)[ox];
    else
        c.out[oo] = c.x[ox];
}

static bool f32_or_bf16(kn_dtype t)
{
    return t == KN_F32 || t == KN_BF16;
}

static bool dense_rows(const kn_tensor *t)
{
    return t->stride[t->rank - 1] == 1 || t->dim[t->rank - 1] == 1;
}

static kn_status cuda_copy(kn_dev *d, const kn_tensor *x, const kn_tensor *out)
{
    cudaStream_t s = kn_cuda_of(d)->stream;
    if (x->dtype == out->dtype && kn_tensor_contiguous(x) && kn_tensor_contiguous(out)) {
        KN_CUDA_TRY(cudaMemcpyAsync(out->data, x->data, kn_tensor_bytes(x),
                                    cudaMemcpyDeviceToDevice, s));
        return KN_OK;
    }
    if (dense_rows(x) && dense_rows(out) && f32_or_bf16(x->dtype) && f32_or_bf16(out->dtype)) {
        kn_rows r = kn_rows_of(x);
        copy_rows c = {};
        c.x = kn_krows_of(x), c.out = kn_krows_of(out);
        return run_copy_rows(d, c, r.count, r.width);
    }
    copy_any c = {};
    c.x = (const char *)x->data, c.out = (char *)out->data;
    c.rank = x->rank, c.from = x->dtype, c.to = out->dtype;
    c.size = (int)kn_dtype_size(x->dtype);
    c.count = kn_tensor_count(x);
    for (int i = 0; i < x->rank; i++)
        c.dim[i] = x->dim[i], c.sx[i] = x->stride[i], c.so[i] = out->stride[i];
    copy_any_kernel<<<kn_blocks(c.count, 256), 256, 0, s>>>(c);
    KN_CUDA_LAUNCHED("copy");
    return KN_OK;
}

/* ---- rows by index -----------------------------------------------------------------------------*/
static kn_status cuda_embed(kn_dev *d, const kn_weight *table, const int32_t *ids, int64_t count,
                            const kn_tensor *out)
{
    copy_rows c = {};
    c.x = kn_krows_of(&table->t), c.out = kn_krows_of(out);
    KN_TRY(kn_cuda_list(d, ids, count, &c.index));
    return run_copy_rows(d, c, count, out->dim[1]);
}

/* Entries of axis 0 as rows: entries must lie evenly, which views of a fused buffer do not. */
static kn_status cuda_gather(kn_dev *d, const kn_tensor *x, const int32_t *index,
                             const kn_tensor *out)
{
    const int32_t *list;
    KN_TRY(kn_cuda_list(d, index, out->dim[0], &list));
    int64_t inner = kn_tensor_count(out) / out->dim[0];
    kn_tensor from = kn_tensor_slice(x, 0, 0, 1), to = kn_tensor_slice(out, 0, 0, 1);
    if (kn_tensor_contiguous(&from) && kn_tensor_contiguous(&to)) {
        copy_rows c = {};
        int64_t dims_x[2] = {x->dim[0], inner}, dims_out[2] = {out->dim[0], inner};
        kn_tensor fx = kn_tensor_make(x->data, x->dtype, 2, dims_x);
        kn_tensor fo = kn_tensor_make(out->data, out->dtype, 2, dims_out);
        fx.stride[0] = x->stride[0], fo.stride[0] = out->stride[0];
        c.x = kn_krows_of(&fx), c.out = kn_krows_of(&fo);
        c.index = list;
        return run_copy_rows(d, c, out->dim[0], inner);
    }
    /* axes between: one of their entries at a time */
    for (int64_t i = 0; i < out->dim[1]; i++) {
        kn_tensor fx = kn_tensor_slice(x, 1, i, 1), fo = kn_tensor_slice(out, 1, i, 1);
        if (x->rank > 3)
            return kn_fail(KN_ERR_UNSUPPORTED, "cuda: gather of strided entries of rank %d",
                           x->rank);
        copy_rows c = {};
        c.x = kn_krows_of(&fx), c.out = kn_krows_of(&fo);
        c.index = list;
        KN_TRY(run_copy_rows(d, c, out->dim[0], out->dim[out->rank - 1]));
    }
    return KN_OK;
}

/* ---- upsampling --------------------------------------------------------------------------------*/
struct upsample_args {
    kn_krows x, out; /* rows are pixels */
    int64_t items, out_w, out_h;
    int vectors;
};

template <int V> __global__ void __launch_bounds__(256) upsample_kernel(upsample_args a)
{
    int64_t item = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (item >= a.items) return;
    int64_t pixel = item / a.vectors;
    int at = (int)(item % a.vectors) * V;
    int64_t w = pixel % a.out_w, h = pixel / a.out_w % a.out_h, t = pixel / a.out_w / a.out_h;
    int64_t from = (t * (a.out_h / 2) + h / 2) * (a.out_w / 2) + w / 2;
    float v[V];
    kn_load<V>(kn_krow(a.x, from), a.x.dtype, at, v);
    kn_store<V>(kn_krow(a.out, pixel), a.out.dtype, at, v);
}

static kn_status cuda_upsample2(kn_dev *d, const kn_tensor *x, const kn_tensor *out)
{
    upsample_args a = {};
    int64_t width = x->dim[3];
    a.x = kn_krows_of(x), a.out = kn_krows_of(out);
    a.out_h = out->dim[1], a.out_w = out->dim[2];
    bool fast = kn_krows_by_eight(&a.x, width) && kn_krows_by_eight(&a.out, width);
    a.vectors = (int)(fast ? width / 8 : width);
    a.items = out->dim[0] * a.out_h * a.out_w * a.vectors;
    cudaStream_t s = kn_cuda_of(d)->stream;
    if (fast)
        upsample_kernel<8><<<kn_blocks(a.items, 256), 256, 0, s>>>(a);
    else
        upsample_kernel<1><<<kn_blocks(a.items, 256), 256, 0, s>>>(a);
    KN_CUDA_LAUNCHED("upsample2");
    return KN_OK;
}

/* ---- patches -----------------------------------------------------------------------------------*/
struct patch_args {
    char *tokens;
    float *volume;
    int64_t pitch, items;              /* tokens: elements from row to row */
    int64_t sc, st, sh, sw;            /* volume strides in elements */
    int channels, pt, ph, pw, h, w;    /* h, w of the token grid */
    int dtype;
    const int32_t *order;
    bool to_tokens; /* else back to the volume, whose tokens have the channel fastest */
};

__global__ void __launch_bounds__(256) patch_kernel(patch_args a)
{
    int64_t item = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (item >= a.items) return;
    int width = a.channels * a.pt * a.ph * a.pw, j = (int)(item % width);
    int64_t token = item / width, at = a.order ? a.order[token] : token;
    int64_t gw = at % a.w, gh = at / a.w % a.h, gt = at / a.w / a.h;
    int c, k, pt, ph, pw;
    if (a.to_tokens) {
        pw = j % a.pw, ph = j / a.pw % a.ph, pt = j / a.pw / a.ph % a.pt;
        c = j / (a.pw * a.ph * a.pt);
    } else {
        c = j % a.channels, k = j / a.channels;
        pw = k % a.pw, ph = k / a.pw % a.ph, pt = k / a.pw / a.ph;
    }
    float *v = a.volume + c * a.sc + (gt * a.pt + pt) * a.st + (gh * a.ph + ph) * a.sh +
               (gw * a.pw + pw) * a.sw;
    if (a.to_tokens)
        kn_store1(a.tokens, a.dtype, token * a.pitch + j, *v);
    else
        *v = kn_load1(a.tokens, a.dtype, token * a.pitch + j);
}

static kn_status run_patches(kn_dev *d, const kn_tensor *volume, const int patch[3],
                             const int32_t *order, const kn_tensor *tokens, bool to_tokens)
{
    patch_args a = {};
    a.tokens = (char *)tokens->data, a.volume = (float *)volume->data;
    a.pitch = tokens->dim[0] > 1 ? tokens->stride[0] : tokens->dim[1];
    a.sc = volume->stride[0], a.st = volume->stride[1];
    a.sh = volume->stride[2], a.sw = volume->stride[3];
    a.channels = (int)volume->dim[0];
    a.pt = patch[0], a.ph = patch[1], a.pw = patch[2];
    a.h = (int)volume->dim[2] / patch[1], a.w = (int)volume->dim[3] / patch[2];
    a.dtype = tokens->dtype;
    a.to_tokens = to_tokens;
    a.items = kn_tensor_count(tokens);
    if (order) KN_TRY(kn_cuda_list(d, order, tokens->dim[0], &a.order));
    patch_kernel<<<kn_blocks(a.items, 256), 256, 0, kn_cuda_of(d)->stream>>>(a);
    KN_CUDA_LAUNCHED("patches");
    return KN_OK;
}

static kn_status cuda_patchify(kn_dev *d, const kn_tensor *x, const int patch[3],
                               const int32_t *order, const kn_tensor *out)
{
    return run_patches(d, x, patch, order, out, true);
}

static kn_status cuda_unpatchify(kn_dev *d, const kn_tensor *x, const int patch[3],
                                 const int32_t *order, const kn_tensor *out)
{
    return run_patches(d, out, patch, order, x, false);
}

/* ---- statistics --------------------------------------------------------------------------------*/
struct stat_part {
    double sum, square, lo, hi;
    long long bad, good;
};

enum { STAT_BLOCKS = 80 }; /* their parts fit into kn_cuda.scalars */
static_assert(STAT_BLOCKS * sizeof(stat_part) <= 4096, "kn_cuda.scalars is 4 KiB");

__device__ static void join(stat_part *a, const stat_part &b)
{
    a->sum += b.sum, a->square += b.square;
    a->lo = fmin(a->lo, b.lo), a->hi = fmax(a->hi, b.hi);
    a->bad += b.bad, a->good += b.good;
}

__global__ void __launch_bounds__(256) stats_kernel(kn_krows x, int64_t rows, int64_t width,
                                                    stat_part *out)
{
    __shared__ stat_part part[256];
    stat_part p = {0, 0, INFINITY, -INFINITY, 0, 0};
    int64_t count = rows * width;
    for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * 256) {
        float v = kn_load1(kn_krow(x, i / width), x.dtype, i % width);
        if (isfinite(v)) {
            p.sum += v, p.square += (double)v * v;
            p.lo = fmin(p.lo, (double)v), p.hi = fmax(p.hi, (double)v);
            p.good++;
        } else {
            p.bad++;
        }
    }
    part[threadIdx.x] = p;
    for (int step = 128; step > 0; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) join(&part[threadIdx.x], part[threadIdx.x + step]);
    }
    if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}

static kn_status cuda_stats(kn_dev *d, const kn_tensor *x, kn_tensor_stats *out)
{
    kn_cuda *c = kn_cuda_of(d);
    kn_rows r = kn_rows_of(x);
    stat_part part[STAT_BLOCKS];
    stats_kernel<<<STAT_BLOCKS, 256, 0, c->stream>>>(kn_krows_of(x), r.count, r.width,
                                                     (stat_part *)c->scalars);
    KN_CUDA_LAUNCHED("stats");
    KN_CUDA_TRY(
        cudaMemcpyAsync(part, c->scalars, sizeof part, cudaMemcpyDeviceToHost, c->stream));
    KN_CUDA_TRY(cudaStreamSynchronize(c->stream));
    stat_part all = {0, 0, INFINITY, -INFINITY, 0, 0};
    for (int i = 0; i < STAT_BLOCKS; i++) {
        all.sum += part[i].sum, all.square += part[i].square;
        all.lo = fmin(all.lo, part[i].lo), all.hi = fmax(all.hi, part[i].hi);
        all.bad += part[i].bad, all.good += part[i].good;
    }
    out->nonfinite = all.bad;
    if (all.good == 0) return KN_OK;
    out->min = all.lo, out->max = all.hi;
    out->mean = all.sum / (double)all.good;
    out->rms = sqrt(all.square / (double)all.good);
    return KN_OK;
}

/* ---- hash --------------------------------------------------------------------------------------*/
__global__ void __launch_bounds__(256) hash_kernel(kn_krows x, int64_t count, int64_t width,
                                                   int size, unsigned long long *out)
{
    unsigned long long sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * 256) {
        const char *row = kn_krow(x, i / width);
        uint64_t z = size == 2 ? ((const uint16_t *)row)[i % width]
                               : ((const uint32_t *)row)[i % width];
        z = (z + (uint64_t)i + 1) * 0x9e3779b97f4a7c15u; /* splitmix64, Steele et al. 2014 */
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        sum += z ^ z >> 27;
    }
    atomicAdd(out, sum); /* of integers: the order does not matter */
}

extern "C" kn_status kn_cuda_hash(kn_dev *d, const kn_tensor *t, uint64_t *hash)
{
    kn_cuda *c = kn_cuda_of(d);
    kn_rows r = kn_rows_of(t);
    KN_CUDA_TRY(cudaMemsetAsync(c->scalars, 0, sizeof *hash, c->stream));
    hash_kernel<<<(unsigned)(4 * c->sm_count), 256, 0, c->stream>>>(
        kn_krows_of(t), r.count * r.width, r.width, (int)kn_dtype_size(t->dtype),
        (unsigned long long *)c->scalars);
    KN_CUDA_LAUNCHED("hash");
    KN_CUDA_TRY(
        cudaMemcpyAsync(hash, c->scalars, sizeof *hash, cudaMemcpyDeviceToHost, c->stream));
    KN_CUDA_TRY(cudaStreamSynchronize(c->stream));
    return KN_OK;
}

/* ---- weights -----------------------------------------------------------------------------------*/
__global__ void __launch_bounds__(256) convert_kernel(const char *src, int from, char *dst, int to,
                                                      int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i < count) kn_store1(dst, to, i, kn_load1(src, from, i));
}

extern "C" kn_status kn_cuda_convert(kn_dev *d, const void *src, kn_dtype from, void *dst,
                                     kn_dtype to, int64_t count)
{
    cudaStream_t s = kn_cuda_of(d)->stream;
    if (from == to) {
        KN_CUDA_TRY(cudaMemcpyAsync(dst, src, (size_t)count * kn_dtype_size(to),
                                    cudaMemcpyDeviceToDevice, s));
        return KN_OK;
    }
    convert_kernel<<<kn_blocks(count, 256), 256, 0, s>>>((const char *)src, from, (char *)dst, to,
                                                         count);
    KN_CUDA_LAUNCHED("convert");
    return KN_OK;
}

__global__ void __launch_bounds__(256) convert_conv_kernel(const char *src, int from,
                                                           __nv_bfloat16 *dst, int64_t count,
                                                           int64_t ci, int64_t taps)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    int64_t c = i % ci, tap = i / ci % taps, o = i / ci / taps;
    dst[i] = __float2bfloat16(kn_load1(src, from, (o * ci + c) * taps + tap));
}

extern "C" kn_status kn_cuda_convert_conv(kn_dev *d, const void *src, kn_dtype from, void *dst,
                                          int64_t co, int64_t ci, int64_t taps)
{
    int64_t count = co * ci * taps;
    convert_conv_kernel<<<kn_blocks(count, 256), 256, 0, kn_cuda_of(d)->stream>>>(
        (const char *)src, from, (__nv_bfloat16 *)dst, count, ci, taps);
    KN_CUDA_LAUNCHED("convert conv");
    return KN_OK;
}

/* ---- products of f32 rows ----------------------------------------------------------------------*/
/* A warp per output; for the few rows of the time embedding, whose weights are read once. */
__global__ void __launch_bounds__(256) linear_f32_kernel(kn_krows x, const __nv_bfloat16 *w,
                                                         const float *bias, int act, kn_krows out,
                                                         int64_t rows, int64_t n, int64_t k)
{
    int64_t item = (int64_t)blockIdx.x * 8 + threadIdx.x / 32;
    if (item >= rows * n) return;
    int64_t row = item / n, col = item % n;
    const char *in = kn_krow(x, row);
    const __nv_bfloat16 *weight = w + col * k;
    float sum = 0;
    for (int64_t i = threadIdx.x % 32; i < k; i += 32)
        sum = fmaf(kn_load1(in, x.dtype, i), __bfloat162float(weight[i]), sum);
    sum = kn_warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        kn_store1(kn_krow(out, row), out.dtype, col,
                  kn_activate(bias ? sum + bias[col] : sum, act));
}

extern "C" kn_status kn_cuda_linear_f32(kn_dev *d, const kn_tensor *x, const void *w,
                                        const float *bias, kn_activation act, const kn_tensor *out)
{
    kn_rows rx = kn_rows_of(x), ro = kn_rows_of(out);
    linear_f32_kernel<<<kn_blocks(rx.count * ro.width, 8), 256, 0, kn_cuda_of(d)->stream>>>(
        kn_krows_of(x), (const __nv_bfloat16 *)w, bias, act, kn_krows_of(out), rx.count, ro.width,
        rx.width);
    KN_CUDA_LAUNCHED("linear f32");
    return KN_OK;
}

extern "C" void kn_cuda_fill_layout(kn_ops *ops)
{
    ops->copy = cuda_copy;
    ops->embed = cuda_embed;
    ops->gather = cuda_gather;
    ops->upsample2 = cuda_upsample2;
    ops->patchify = cuda_patchify;
    ops->unpatchify = cuda_unpatchify;
    ops->stats = cuda_stats;
}
