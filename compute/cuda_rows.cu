/* compute/cuda_rows.cu - operations over rows: norms, rotary positions, per-element arithmetic.
 *
 * All are bound by memory: each reads its inputs once and writes its output once. A row of up to
 * 2048 elements belongs to a warp and stays in its registers between the two passes of a norm; a
 * longer one to a block.
 */
#include "compute/cuda_kernels.cuh"

/* ---- norms -------------------------------------------------------------------------------------*/
enum norm_kind { NORM_RMS, NORM_L2, NORM_LAYER };

struct norm_args {
    kn_krows x, out;
    kn_krows y, sum;                            /* added before and kept, in the dtype of sum */
    const float *gate;                          /* of y */
    const float *weight, *bias, *scale, *shift; /* NULL: absent */
    const float *cos, *sin;                     /* [rows, head / 2]: rotate pairs at the end */
    int head;
    float eps;
    int kind, act;
    int64_t rows;
    int width;
};

/* What turns x into the normalised row: (x - mean) * factor. v holds the row's part of a thread. */
template <int V, int G, int R>
__device__ static void moments(const norm_args &a, const float (&v)[R][V], int lane,
                               float *partial, float *mean, float *factor)
{
    float sum = 0, square = 0;
    *mean = 0;
    if (a.kind == NORM_LAYER) {
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int j = 0; j < V; j++) sum += v[r][j];
        *mean = kn_group_sum<G>(sum, partial) / (float)a.width;
    }
#pragma unroll
    for (int r = 0; r < R; r++)
        if ((lane + r * G) * V < a.width)
#pragma unroll
            for (int j = 0; j < V; j++) square += (v[r][j] - *mean) * (v[r][j] - *mean);
    square = kn_group_sum<G>(square, partial);
    if (a.kind == NORM_L2)
        *factor = sqrtf((float)a.width) / fmaxf(sqrtf(square), a.eps);
    else
        *factor = 1.0f / sqrtf(square / (float)a.width + a.eps);
}

template <int V>
__device__ static void finish(const norm_args &a, float (&v)[V], int at, float mean, float factor)
{
    float w[V], b[V];
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = (v[j] - mean) * factor;
    if (a.weight) {
        kn_load<V>((const char *)a.weight, KN_F32, at, w);
#pragma unroll
        for (int j = 0; j < V; j++) v[j] *= w[j];
    }
    if (a.scale) {
        kn_load<V>((const char *)a.scale, KN_F32, at, w);
#pragma unroll
        for (int j = 0; j < V; j++) v[j] *= 1.0f + w[j];
    }
    const float *add = a.bias ? a.bias : a.shift;
    if (add) {
        kn_load<V>((const char *)add, KN_F32, at, b);
#pragma unroll
        for (int j = 0; j < V; j++) v[j] += b[j];
    }
    if (a.act)
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = kn_activate(v[j], a.act);
}

/* x + y * gate in place of x, rounded to what memory keeps of it. */
template <int V>
__device__ static void add_gated(const norm_args &a, float (&v)[V], int64_t row, int at)
{
    float y[V], g[V];
    kn_load<V>(kn_krow(a.y, row), a.y.dtype, at, y);
    if (a.gate) kn_load<V>((const char *)a.gate, KN_F32, at, g);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] += a.gate ? y[j] * g[j] : y[j];
    kn_store<V>(kn_krow(a.sum, row), a.sum.dtype, at, v);
    if (a.sum.dtype == KN_BF16)
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = __bfloat162float(__float2bfloat16(v[j]));
}

template <int V>
__device__ static void rotate(const norm_args &a, float (&v)[V], int64_t row, int at)
{
    int pair = at % a.head / 2;
    const float *c = a.cos + row * (a.head / 2) + pair, *s = a.sin + row * (a.head / 2) + pair;
    float4 co = *(const float4 *)c, si = *(const float4 *)s;
    const float cs[4] = {co.x, co.y, co.z, co.w}, sn[4] = {si.x, si.y, si.z, si.w};
#pragma unroll
    for (int p = 0; p < V / 2; p++) {
        float re = v[2 * p], im = v[2 * p + 1];
        v[2 * p] = re * cs[p % 4] - im * sn[p % 4];
        v[2 * p + 1] = re * sn[p % 4] + im * cs[p % 4];
    }
}

/* G threads for a row, R vectors of V elements each in registers. */
template <int V, int G, int R> __global__ void __launch_bounds__(256) norm_kernel(norm_args a)
{
    __shared__ float partial[8];
    int lane = threadIdx.x % G;
    int64_t row = (int64_t)blockIdx.x * (256 / G) + threadIdx.x / G;
    if (row >= a.rows) return; /* whole warps, or whole blocks, leave */
    const char *x = kn_krow(a.x, row);
    float v[R][V], mean, factor;
#pragma unroll
    for (int r = 0; r < R; r++) {
        int at = (lane + r * G) * V;
        if (at < a.width)
            kn_load<V>(x, a.x.dtype, at, v[r]);
        else
#pragma unroll
            for (int j = 0; j < V; j++) v[r][j] = 0;
    }
    if (a.y.data)
#pragma unroll
        for (int r = 0; r < R; r++)
            if ((lane + r * G) * V < a.width) add_gated<V>(a, v[r], row, (lane + r * G) * V);
    moments<V, G, R>(a, v, lane, partial, &mean, &factor);
    char *out = kn_krow(a.out, row);
#pragma unroll
    for (int r = 0; r < R; r++) {
        int at = (lane + r * G) * V;
        if (at >= a.width) break;
        finish<V>(a, v[r], at, mean, factor);
        if (a.cos) rotate<V>(a, v[r], row, at);
        kn_store<V>(out, a.out.dtype, at, v[r]);
    }
}

/* The same where everything is bf16, as in a network: all of a thread's loads are under way
 * before the first is used, and rows stay packed: what unpacks them is volatile, so that a row
 * takes 4 registers a vector, not 12. Without a sum a group takes row after row and asks for the
 * next one before it works on the one at hand; with one, two rows of twice the registers would
 * leave too few groups (148 us became 167 at [32760, 1536]). */
template <int R, bool ADD> struct norm_row {
    uint4 x[R], y[ADD ? R : 1];
};

__device__ static __forceinline__ void unpack(const uint4 &in, float (&v)[8])
{
    const uint32_t w[4] = {in.x, in.y, in.z, in.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t lo, hi;
        asm volatile("shl.b32 %0, %2, 16; and.b32 %1, %2, 0xffff0000;"
                     : "=r"(lo), "=r"(hi)
                     : "r"(w[i]));
        v[2 * i] = __uint_as_float(lo), v[2 * i + 1] = __uint_as_float(hi);
    }
}

template <int G, int R, bool ADD>
__device__ static __forceinline__ void fetch(const norm_args &a, int64_t row, int lane,
                                             norm_row<R, ADD> *to)
{
    const uint4 *x = (const uint4 *)kn_krow(a.x, row), none = make_uint4(0, 0, 0, 0);
    int eights = a.width / 8;
#pragma unroll
    for (int r = 0; r < R; r++) to->x[r] = lane + r * G < eights ? x[lane + r * G] : none;
    if (!ADD) return;
    const uint4 *y = (const uint4 *)kn_krow(a.y, row);
#pragma unroll
    for (int r = 0; r < R; r++) to->y[ADD ? r : 0] = lane + r * G < eights ? y[lane + r * G] : none;
}

/* add_gated for a row of registers. */
template <int G, int R>
__device__ static __forceinline__ void add_row(const norm_args &a, int64_t row, int lane,
                                               norm_row<R, true> *in)
{
    uint4 *sum = (uint4 *)kn_krow(a.sum, row);
#pragma unroll
    for (int r = 0; r < R; r++) {
        int at = lane + r * G;
        float v[8], w[8], g[8];
        if (at >= a.width / 8) break;
        unpack(in->x[r], v), unpack(in->y[r], w);
        if (a.gate) kn_load<8>((const char *)a.gate, KN_F32, 8 * at, g);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] += a.gate ? w[j] * g[j] : w[j];
        kn_store<8>((char *)&in->x[r], KN_BF16, 0, v); /* rounded to what memory keeps */
        sum[at] = in->x[r];
    }
}

/* moments for a row of registers. */
template <int G, int R>
__device__ static __forceinline__ void moments_of_row(const norm_args &a, const uint4 (&x)[R],
                                                      int lane, float *partial, float *mean,
                                                      float *factor)
{
    float sum = 0, square = 0, v[8];
    *mean = 0;
    if (a.kind == NORM_LAYER) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            unpack(x[r], v);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += v[j];
        }
        *mean = kn_group_sum<G>(sum, partial) / (float)a.width;
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (lane + r * G >= a.width / 8) break;
        unpack(x[r], v);
#pragma unroll
        for (int j = 0; j < 8; j++) square += (v[j] - *mean) * (v[j] - *mean);
    }
    square = kn_group_sum<G>(square, partial);
    *factor = a.kind == NORM_L2 ? sqrtf((float)a.width) / fmaxf(sqrtf(square), a.eps)
                                : 1.0f / sqrtf(square / (float)a.width + a.eps);
}

template <int G, int R, bool ADD>
__global__ void __launch_bounds__(256, ADD ? 2 : 3) norm_bf16_kernel(norm_args a)
{
    __shared__ float partial[8];
    int lane = threadIdx.x % G;
    int64_t row = (int64_t)blockIdx.x * (256 / G) + threadIdx.x / G,
            step = (int64_t)gridDim.x * (256 / G);
    if (row >= a.rows) return; /* whole warps, or whole blocks, leave */
    norm_row<R, ADD> in, next;
    fetch<G, R, ADD>(a, row, lane, &next);
    for (; row < a.rows; row += step) {
        float mean, factor;
        in = next;
        if (!ADD && row + step < a.rows) fetch<G, R, ADD>(a, row + step, lane, &next);
        if constexpr (ADD) add_row<G, R>(a, row, lane, &in);
        moments_of_row<G, R>(a, in.x, lane, partial, &mean, &factor);
        uint4 *out = (uint4 *)kn_krow(a.out, row);
#pragma unroll
        for (int r = 0; r < R; r++) {
            int at = lane + r * G;
            float v[8];
            if (at >= a.width / 8) break;
            unpack(in.x[r], v);
            finish<8>(a, v, 8 * at, mean, factor);
            if (a.cos) rotate<8>(a, v, row, 8 * at);
            kn_store<8>((char *)&in.x[r], KN_BF16, 0, v);
            out[at] = in.x[r];
        }
    }
}

/* Rows of any width and alignment, a block each, read three times. */
__global__ void __launch_bounds__(256) norm_any_kernel(norm_args a)
{
    __shared__ float partial[8];
    const char *x = kn_krow(a.x, blockIdx.x);
    char *out = kn_krow(a.out, blockIdx.x);
    float sum = 0, square = 0, mean = 0, factor;
    if (a.kind == NORM_LAYER) {
        for (int i = threadIdx.x; i < a.width; i += 256) sum += kn_load1(x, a.x.dtype, i);
        mean = kn_group_sum<256>(sum, partial) / (float)a.width;
    }
    for (int i = threadIdx.x; i < a.width; i += 256) {
        float v = kn_load1(x, a.x.dtype, i) - mean;
        square += v * v;
    }
    square = kn_group_sum<256>(square, partial);
    if (a.kind == NORM_L2)
        factor = sqrtf((float)a.width) / fmaxf(sqrtf(square), a.eps);
    else
        factor = 1.0f / sqrtf(square / (float)a.width + a.eps);
    for (int i = threadIdx.x; i < a.width; i += 256) {
        float v[1] = {kn_load1(x, a.x.dtype, i)};
        finish<1>(a, v, i, mean, factor);
        kn_store1(out, a.out.dtype, i, v[0]);
    }
}

static bool aligned_vector(const float *v)
{
    return (uintptr_t)v % 16 == 0;
}

/* Rows that stay in registers: eights of elements, aligned. */
static bool fits_registers(const norm_args &a)
{
    return kn_krows_by_eight(&a.x, a.width) && kn_krows_by_eight(&a.out, a.width) &&
           kn_krows_by_eight(&a.y, a.width) && kn_krows_by_eight(&a.sum, a.width) &&
           aligned_vector(a.gate) && aligned_vector(a.weight) && aligned_vector(a.bias) &&
           aligned_vector(a.scale) && aligned_vector(a.shift) && aligned_vector(a.cos) &&
           aligned_vector(a.sin) && (!a.cos || a.head % 8 == 0) && a.width <= 8192;
}

static bool all_bf16(const norm_args &a)
{
    return a.x.dtype == KN_BF16 && a.out.dtype == KN_BF16 &&
           (!a.y.data || (a.y.dtype == KN_BF16 && a.sum.dtype == KN_BF16));
}

/* The VAE's norm, NORM_L2: rows of 24 G channels in bf16 at one pitch, three eights in each of G threads,
 * two rows at a time so that enough loads are under way. norm_bf16_kernel leaves 20 of 32 lanes idle at 96
 * channels and reached 0.8 TB/s of an H100's 3. */
struct l2_args {
    const uint4 *x;
    uint4 *out;
    const float *weight;
    int64_t rows, pitch_x, pitch_out; /* in eights */
    float eps;
};

template <int G, bool SILU> __global__ void __launch_bounds__(256) l2_kernel(l2_args a)
{
    enum { EIGHTS = 3, ROWS = 2 };
    const int lane = threadIdx.x % G;
    const float root = sqrtf(8.0f * EIGHTS * G);
    const int64_t step = (int64_t)gridDim.x * (256 / G);
    float w[EIGHTS][8];
#pragma unroll
    for (int i = 0; i < EIGHTS; i++) kn_load<8>((const char *)a.weight, KN_F32, 8 * (lane + i * G), w[i]);
    /* Whole warps stay to the end: the sums are shuffles. */
    for (int64_t first = blockIdx.x * (int64_t)(256 / G); first < a.rows; first += ROWS * step) {
        int64_t row[ROWS];
        uint4 in[ROWS][EIGHTS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            row[r] = first + r * step + threadIdx.x / G;
            const uint4 *x = a.x + row[r] * a.pitch_x + lane;
#pragma unroll
            for (int i = 0; i < EIGHTS; i++)
                in[r][i] = row[r] < a.rows ? x[i * G] : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float v[EIGHTS][8], square = 0;
#pragma unroll
            for (int i = 0; i < EIGHTS; i++) {
                kn_load<8>((const char *)&in[r][i], KN_BF16, 0, v[i]);
#pragma unroll
                for (int j = 0; j < 8; j++) square += v[i][j] * v[i][j];
            }
#pragma unroll
            for (int o = G / 2; o > 0; o >>= 1) square += __shfl_xor_sync(0xffffffffu, square, o);
            float factor = root / fmaxf(sqrtf(square), a.eps);
            uint4 *out = a.out + row[r] * a.pitch_out + lane;
#pragma unroll
            for (int i = 0; i < EIGHTS; i++) {
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    float y = v[i][j] * factor * w[i][j];
                    /* rounded to bf16 at once: the quick exponential and quotient are good enough */
                    v[i][j] = SILU ? __fdividef(y, 1.0f + __expf(-y)) : y;
                }
                kn_store<8>((char *)&in[r][i], KN_BF16, 0, v[i]);
                if (row[r] < a.rows) out[i * G] = in[r][i];
            }
        }
    }
}

/* Runs it where it fits. */
static bool run_l2(kn_dev *d, const norm_args &n)
{
    int group = n.width / 24;
    bool fits = n.kind == NORM_L2 && n.width % 24 == 0 && (group == 4 || group == 8 || group == 16) &&
                n.weight && n.x.axes == 1 && n.out.axes == 1 && n.rows > 0 &&
                (n.act == KN_ACT_NONE || n.act == KN_ACT_SILU);
    if (!fits) return false;
    l2_args a = {(const uint4 *)n.x.data, (uint4 *)n.out.data, n.weight, n.rows, n.x.pitch[0] / 16,
                 n.out.pitch[0] / 16, n.eps};
    int64_t want = (n.rows + 2 * (256 / group) - 1) / (2 * (256 / group)), most = 8 * kn_cuda_of(d)->sm_count;
    unsigned blocks = (unsigned)(want < most ? want : most);
    cudaStream_t s = kn_cuda_of(d)->stream;
    bool silu = n.act == KN_ACT_SILU;
    switch (group) {
    case 4: silu ? l2_kernel<4, true><<<blocks, 256, 0, s>>>(a) : l2_kernel<4, false><<<blocks, 256, 0, s>>>(a); break;
    case 8: silu ? l2_kernel<8, true><<<blocks, 256, 0, s>>>(a) : l2_kernel<8, false><<<blocks, 256, 0, s>>>(a); break;
    default:
        silu ? l2_kernel<16, true><<<blocks, 256, 0, s>>>(a) : l2_kernel<16, false><<<blocks, 256, 0, s>>>(a);
    }
    return true;
}

/* With a sum a row for each group; else as many blocks as run at a time, or fewer where rows are
 * few. */
template <int G, int R> static void launch_bf16(const kn_cuda *c, const norm_args &a)
{
    int64_t rows = (a.rows + 256 / G - 1) / (256 / G), most = 3 * (int64_t)c->sm_count;
    if (a.y.data)
        norm_bf16_kernel<G, R, true><<<(unsigned)rows, 256, 0, c->stream>>>(a);
    else
        norm_bf16_kernel<G, R, false>
            <<<(unsigned)(rows < most ? rows : most), 256, 0, c->stream>>>(a);
}

/* Sums and rotations: where fits_registers alone. */
static kn_status run_norm(kn_dev *d, const norm_args &a)
{
    cudaStream_t s = kn_cuda_of(d)->stream;
    if (!fits_registers(a))
        norm_any_kernel<<<(unsigned)a.rows, 256, 0, s>>>(a);
    else if (all_bf16(a) && run_l2(d, a))
        ; /* done */
    else if (all_bf16(a) && a.width <= 256)
        launch_bf16<32, 1>(kn_cuda_of(d), a);
    else if (all_bf16(a) && a.width <= 512)
        launch_bf16<32, 2>(kn_cuda_of(d), a);
    else if (all_bf16(a) && a.width <= 1536)
        launch_bf16<32, 6>(kn_cuda_of(d), a);
    else if (all_bf16(a) && a.width <= 4096)
        launch_bf16<256, 2>(kn_cuda_of(d), a);
    else if (all_bf16(a) && a.width <= 6144)
        launch_bf16<256, 3>(kn_cuda_of(d), a);
    else if (a.width <= 256)
        norm_kernel<8, 32, 1><<<kn_blocks(a.rows, 8), 256, 0, s>>>(a);
    else if (a.width <= 512)
        norm_kernel<8, 32, 2><<<kn_blocks(a.rows, 8), 256, 0, s>>>(a);
    else if (a.width <= 1536)
        norm_kernel<8, 32, 6><<<kn_blocks(a.rows, 8), 256, 0, s>>>(a);
    else
        norm_kernel<8, 256, 4><<<(unsigned)a.rows, 256, 0, s>>>(a);
    KN_CUDA_LAUNCHED("norm");
    return KN_OK;
}

static const float *vector_of(const kn_tensor *t)
{
    return t && t->rank ? (const float *)t->data : NULL;
}

static kn_status cuda_rmsnorm(kn_dev *d, const kn_tensor *x, const kn_tensor *weight,
                              const kn_rmsnorm_params *p, const kn_tensor *out)
{
    kn_rows r = kn_rows_of(x);
    norm_args a = {};
    a.x = kn_krows_of(x), a.out = kn_krows_of(out);
    a.weight = vector_of(weight);
    a.eps = p->eps;
    a.kind = p->l2_clamp ? NORM_L2 : NORM_RMS;
    a.act = p->act;
    a.rows = r.count, a.width = (int)r.width;
    return run_norm(d, a);
}

static kn_status cuda_layernorm(kn_dev *d, const kn_tensor *x, const kn_tensor *weight,
                                const kn_tensor *bias, const kn_tensor *scale,
                                const kn_tensor *shift, float eps, const kn_tensor *out)
{
    kn_rows r = kn_rows_of(x);
    norm_args a = {};
    a.x = kn_krows_of(x), a.out = kn_krows_of(out);
    a.weight = vector_of(weight), a.bias = vector_of(bias);
    a.scale = vector_of(scale), a.shift = vector_of(shift);
    a.eps = eps;
    a.kind = NORM_LAYER;
    a.rows = r.count, a.width = (int)r.width;
    return run_norm(d, a);
}

static kn_status cuda_norm_rope(kn_dev *d, const kn_tensor *x, const kn_tensor *weight, float eps,
                                const kn_tensor *cos, const kn_tensor *sin, const kn_tensor *out)
{
    norm_args a = {};
    a.x = kn_krows_of(x), a.out = kn_krows_of(out);
    kn_krows *both[2] = {&a.x, &a.out};
    for (int i = 0; i < 2; i++) { /* a token's heads as one row */
        const kn_tensor *t = i ? out : x;
        both[i]->axes = 1, both[i]->dim[0] = t->dim[0];
        both[i]->pitch[0] = t->stride[0] * (int64_t)kn_dtype_size(t->dtype);
    }
    a.weight = vector_of(weight), a.cos = vector_of(cos), a.sin = vector_of(sin);
    a.head = (int)x->dim[2];
    a.eps = eps;
    a.kind = NORM_RMS;
    a.rows = x->dim[0], a.width = (int)(x->dim[1] * x->dim[2]);
    if (fits_registers(a)) return run_norm(d, a);
    return kn_norm_then_rope(d, x, weight, eps, cos, sin, out);
}

static kn_status cuda_gate_norm(kn_dev *d, const kn_tensor *x, const kn_tensor *y,
                                const kn_tensor *gate, const kn_layernorm_params *p,
                                const kn_tensor *sum, const kn_tensor *out)
{
    kn_rows r = kn_rows_of(x);
    norm_args a = {};
    a.x = kn_krows_of(x), a.out = kn_krows_of(out);
    a.y = kn_krows_of(y), a.sum = kn_krows_of(sum);
    a.gate = vector_of(gate);
    a.weight = vector_of(&p->weight), a.bias = vector_of(&p->bias);
    a.scale = vector_of(&p->scale), a.shift = vector_of(&p->shift);
    a.eps = p->eps;
    a.kind = NORM_LAYER;
    a.rows = r.count, a.width = (int)r.width;
    if (fits_registers(a)) return run_norm(d, a);
    return kn_gate_then_norm(d, x, y, gate, p, sum, out);
}

/* ---- per element -------------------------------------------------------------------------------*/
enum map_kind { MAP_GATE_ADD, MAP_ACT, MAP_MUL, MAP_AXPBY };

struct map_args {
    kn_krows x, y, out;
    const float *gate;
    float a, b;
    int kind, act;
    int64_t items; /* rows * vectors */
    int vectors;   /* of a row */
};

template <int V> __global__ void __launch_bounds__(256) map_kernel(map_args m)
{
    int64_t item = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (item >= m.items) return;
    int64_t row = item / m.vectors;
    int at = (int)(item % m.vectors) * V;
    float x[V], y[V], g[V];
    kn_load<V>(kn_krow(m.x, row), m.x.dtype, at, x);
    if (m.kind != MAP_ACT) kn_load<V>(kn_krow(m.y, row), m.y.dtype, at, y);
    if (m.kind == MAP_GATE_ADD && m.gate) kn_load<V>((const char *)m.gate, KN_F32, at, g);
#pragma unroll
    for (int j = 0; j < V; j++) switch (m.kind) {
        case MAP_GATE_ADD: x[j] += m.gate ? y[j] * g[j] : y[j]; break;
        case MAP_ACT: x[j] = kn_activate(x[j], m.act); break;
        case MAP_MUL: x[j] = kn_activate(x[j], m.act) * y[j]; break;
        default: x[j] = m.a * x[j] + m.b * y[j]; break;
        }
    kn_store<V>(kn_krow(m.out, row), m.out.dtype, at, x);
}

/* One long row when nothing is strided and no vector runs along the columns. */
static void flatten(kn_krows *r)
{
    if (r->data) r->axes = 1, r->dim[0] = 1, r->pitch[0] = 0;
}

static kn_status run_map(kn_dev *d, map_args m, const kn_tensor *x, const kn_tensor *y,
                         const kn_tensor *out)
{
    kn_rows r = kn_rows_of(x);
    int64_t rows = r.count, width = r.width;
    m.x = kn_krows_of(x), m.y = kn_krows_of(y), m.out = kn_krows_of(out);
    bool flat = !m.gate && kn_tensor_contiguous(x) && kn_tensor_contiguous(out) &&
                (!y || kn_tensor_contiguous(y)) && rows * width < INT32_MAX;
    if (flat) {
        width *= rows, rows = 1;
        flatten(&m.x), flatten(&m.y), flatten(&m.out);
    }
    bool fast = kn_krows_by_eight(&m.x, width) && kn_krows_by_eight(&m.y, width) &&
                kn_krows_by_eight(&m.out, width) && aligned_vector(m.gate);
    m.vectors = (int)(fast ? width / 8 : width);
    m.items = rows * m.vectors;
    cudaStream_t s = kn_cuda_of(d)->stream;
    if (fast)
        map_kernel<8><<<kn_blocks(m.items, 256), 256, 0, s>>>(m);
    else
        map_kernel<1><<<kn_blocks(m.items, 256), 256, 0, s>>>(m);
    KN_CUDA_LAUNCHED("map");
    return KN_OK;
}

static kn_status cuda_gate_add(kn_dev *d, const kn_tensor *x, const kn_tensor *y,
                               const kn_tensor *gate, const kn_tensor *out)
{
    map_args m = {};
    m.kind = MAP_GATE_ADD;
    m.gate = vector_of(gate);
    return run_map(d, m, x, y, out);
}

static kn_status cuda_act(kn_dev *d, const kn_tensor *x, kn_activation act, const kn_tensor *out)
{
    map_args m = {};
    m.kind = MAP_ACT;
    m.act = act;
    return run_map(d, m, x, NULL, out);
}

static kn_status cuda_mul(kn_dev *d, const kn_tensor *x, kn_activation act, const kn_tensor *y,
                          const kn_tensor *out)
{
    map_args m = {};
    m.kind = MAP_MUL;
    m.act = act;
    return run_map(d, m, x, y, out);
}

static kn_status cuda_axpby(kn_dev *d, float a, const kn_tensor *x, float b, const kn_tensor *y,
                            const kn_tensor *out)
{
    map_args m = {};
    m.kind = MAP_AXPBY;
    m.a = a, m.b = b;
    return run_map(d, m, x, y, out);
}

/* ---- rotary positions --------------------------------------------------------------------------*/
struct rope_args {
    kn_krows x, out; /* rows (token, head) */
    const float *cos, *sin;
    int64_t items;
    int heads, dim;
};

/* V/2 pairs per thread. */
template <int V> __global__ void __launch_bounds__(256) rope_kernel(rope_args a)
{
    int64_t item = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (item >= a.items) return;
    int vectors = a.dim / V, half = a.dim / 2;
    int64_t row = item / vectors;
    int at = (int)(item % vectors) * V;
    const float *c = a.cos + row / a.heads * half + at / 2;
    const float *s = a.sin + row / a.heads * half + at / 2;
    const char *x = kn_krow(a.x, row);
    char *out = kn_krow(a.out, row);
    float v[V];
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = 0;
    if (V == 8) {
        float w[8];
        kn_load<8>(x, a.x.dtype, at, w);
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = w[j % 8];
    } else {
        for (int j = 0; j < V; j++) v[j] = kn_load1(x, a.x.dtype, at + j);
    }
#pragma unroll
    for (int p = 0; p < V / 2; p++) {
        float re = v[2 * p], im = v[2 * p + 1];
        v[2 * p] = re * c[p] - im * s[p];
        v[2 * p + 1] = re * s[p] + im * c[p];
    }
    if (V == 8) {
        float w[8];
#pragma unroll
        for (int j = 0; j < V; j++) w[j % 8] = v[j];
        kn_store<8>(out, a.out.dtype, at, w);
    } else {
        for (int j = 0; j < V; j++) kn_store1(out, a.out.dtype, at + j, v[j]);
    }
}

static kn_status cuda_rope(kn_dev *d, const kn_tensor *x, const kn_tensor *cos,
                           const kn_tensor *sin, const kn_tensor *out)
{
    rope_args a = {};
    a.x = kn_krows_of(x), a.out = kn_krows_of(out);
    a.cos = (const float *)cos->data, a.sin = (const float *)sin->data;
    a.heads = (int)x->dim[1], a.dim = (int)x->dim[2];
    bool fast = kn_krows_by_eight(&a.x, a.dim) && kn_krows_by_eight(&a.out, a.dim);
    cudaStream_t s = kn_cuda_of(d)->stream;
    a.items = x->dim[0] * a.heads * (a.dim / (fast ? 8 : 2));
    if (fast)
        rope_kernel<8><<<kn_blocks(a.items, 256), 256, 0, s>>>(a);
    else
        rope_kernel<2><<<kn_blocks(a.items, 256), 256, 0, s>>>(a);
    KN_CUDA_LAUNCHED("rope");
    return KN_OK;
}

extern "C" void kn_cuda_fill_rows(kn_ops *ops)
{
    ops->rmsnorm = cuda_rmsnorm;
    ops->layernorm = cuda_layernorm;
    ops->gate_add = cuda_gate_add;
    ops->rope = cuda_rope;
    ops->norm_rope = cuda_norm_rope;
    ops->gate_norm = cuda_gate_norm;
    ops->act = cuda_act;
    ops->mul = cuda_mul;
    ops->axpby = cuda_axpby;
}
