/* compute/cpu_layout.c - operations that move values on the cpu: copy and conversion, embed,
 * gather, upsample2, patchify, unpatchify. */
#include "compute/cpu.h"

#include <string.h>

enum { PIECE_VALUES = 16 * 1024 };

static int64_t grain_of(int64_t width)
{
    return width >= PIECE_VALUES ? 1 : PIECE_VALUES / (width ? width : 1);
}

/* ---- copy ------------------------------------------------------------------------------------ */

typedef struct copy_job {
    const kn_cpu_kernels *kernels;
    kn_tensor x, out; /* axes in the order of out's strides, largest first */
} copy_job;

/* n values, dense on both sides. Integers and equal dtypes are moved as they are. */
static void convert(const kn_cpu_kernels *k, const void *src, kn_dtype from, void *dst, kn_dtype to,
                    int64_t n)
{
    if (from == to)
        memcpy(dst, src, (size_t)n * kn_dtype_size(to));
    else if (from == KN_BF16 && to == KN_F32)
        k->load_bf16(src, dst, n);
    else if (from == KN_F16 && to == KN_F32)
        k->load_f16(src, dst, n);
    else if (from == KN_F32 && to == KN_BF16)
        k->store_bf16(src, dst, n);
    else if (from == KN_F32 && to == KN_F16)
        k->store_f16(src, dst, n);
    else { /* f64, and between the 16-bit forms */
        double part[64];
        for (int64_t i = 0; i < n; i += 64) {
            int64_t m = n - i < 64 ? n - i : 64;
            kn_load_f64((const char *)src + (size_t)i * kn_dtype_size(from), from, m, 1, part);
            kn_store_f64(part, m, (char *)dst + (size_t)i * kn_dtype_size(to), to, 1);
        }
    }
}

/* n values with any steps, in elements. */
static void convert_strided(const copy_job *j, const char *src, int64_t src_step, char *dst,
                            int64_t dst_step, int64_t n)
{
    kn_dtype from = j->x.dtype, to = j->out.dtype;
    if (src_step == 1 && dst_step == 1) {
        convert(j->kernels, src, from, dst, to, n);
    } else if (from == to && kn_dtype_size(to) == 4) {
        for (int64_t i = 0; i < n; i++) memcpy(dst + 4 * i * dst_step, src + 4 * i * src_step, 4);
    } else {
        int64_t from_size = (int64_t)kn_dtype_size(from), to_size = (int64_t)kn_dtype_size(to);
        for (int64_t i = 0; i < n; i++)
            convert(j->kernels, src + i * src_step * from_size, from, dst + i * dst_step * to_size,
                    to, 1);
    }
}

static void copy_rows(void *user, int64_t begin, int64_t end)
{
    const copy_job *j = user;
    int last = j->out.rank - 1;
    for (int64_t i = begin; i < end; i++) {
        int64_t from = 0, to = 0, rest = i;
        for (int a = last - 1; a >= 0; a--) {
            from += rest % j->out.dim[a] * j->x.stride[a];
            to += rest % j->out.dim[a] * j->out.stride[a];
            rest /= j->out.dim[a];
        }
        convert_strided(j, (const char *)j->x.data + from * (int64_t)kn_dtype_size(j->x.dtype),
                        j->x.stride[last],
                        (char *)j->out.data + to * (int64_t)kn_dtype_size(j->out.dtype),
                        j->out.stride[last], j->out.dim[last]);
    }
}

/* Sorting axes by out's strides makes writes run forward whatever the view. */
static void sort_axes(copy_job *j)
{
    int order[KN_MAX_RANK];
    for (int a = 0; a < j->out.rank; a++) {
        int b = a;
        for (; b > 0 && j->out.stride[order[b - 1]] < j->out.stride[a]; b--)
            order[b] = order[b - 1];
        order[b] = a;
    }
    j->x = kn_tensor_permute(&j->x, order);
    j->out = kn_tensor_permute(&j->out, order);
}

static kn_status copy(kn_dev *d, const kn_tensor *x, const kn_tensor *out)
{
    copy_job j = {.kernels = kn_cpu_of(d), .x = *x, .out = *out};
    if (kn_tensor_contiguous(x) && kn_tensor_contiguous(out)) { /* one row, cut into pieces */
        int64_t count = kn_tensor_count(out), width = 4096;
        if (count > width) {
            kn_tensor head_x = kn_tensor_of(x->data, x->dtype, count / width, width);
            kn_tensor head = kn_tensor_of(out->data, out->dtype, count / width, width);
            j.x = head_x;
            j.out = head;
            kn_parallel_for(d, count / width, 4, copy_rows, &j);
        }
        int64_t done = count > width ? count / width * width : 0;
        convert(j.kernels, (const char *)x->data + (size_t)done * kn_dtype_size(x->dtype), x->dtype,
                (char *)out->data + (size_t)done * kn_dtype_size(out->dtype), out->dtype,
                count - done);
        return KN_OK;
    }
    sort_axes(&j);
    int64_t width = j.out.dim[j.out.rank - 1];
    kn_parallel_for(d, kn_tensor_count(out) / width, grain_of(width), copy_rows, &j);
    return KN_OK;
}

/* ---- rows by index --------------------------------------------------------------------------- */

static kn_status embed(kn_dev *d, const kn_weight *table, const int32_t *ids, int64_t count,
                       const kn_tensor *out)
{
    const kn_tensor *t = &table->t;
    kn_rows rows = kn_rows_of(out);
    size_t row_bytes = (size_t)t->dim[1] * kn_dtype_size(t->dtype);
    for (int64_t i = 0; i < count; i++)
        convert(kn_cpu_of(d), (const char *)t->data + (size_t)ids[i] * row_bytes, t->dtype,
                kn_row(&rows, i), out->dtype, t->dim[1]);
    return KN_OK;
}

typedef struct move_job {
    const kn_tensor *x, *out;
    const int32_t *index;
    const int *patch;
    bool channel_first;
} move_job;

static void gather_rows(void *user, int64_t begin, int64_t end)
{
    const move_job *j = user;
    for (int64_t i = begin; i < end; i++) {
        kn_tensor from = kn_tensor_slice(j->x, 0, j->index[i], 1),
                  to = kn_tensor_slice(j->out, 0, i, 1);
        kn_rows a = kn_rows_of(&from), b = kn_rows_of(&to);
        for (int64_t r = 0; r < a.count; r++)
            memcpy(kn_row(&b, r), kn_row(&a, r), (size_t)a.width * sizeof(float));
    }
}

static kn_status gather(kn_dev *d, const kn_tensor *x, const int32_t *index, const kn_tensor *out)
{
    move_job j = {.x = x, .out = out, .index = index};
    kn_parallel_for(d, out->dim[0], grain_of(kn_tensor_count(x) / x->dim[0]), gather_rows, &j);
    return KN_OK;
}

/* ---- volumes --------------------------------------------------------------------------------- */

/* One line of x becomes two lines of out. */
static void upsample_lines(void *user, int64_t begin, int64_t end)
{
    const move_job *j = user;
    const kn_tensor *x = j->x, *out = j->out;
    size_t bytes = (size_t)x->dim[3] * sizeof(float);
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / x->dim[1], h = i % x->dim[1];
        const float *src = (const float *)x->data + t * x->stride[0] + h * x->stride[1];
        float *dst = (float *)out->data + t * out->stride[0] + 2 * h * out->stride[1];
        for (int64_t w = 0; w < x->dim[2]; w++, src += x->stride[2])
            for (int k = 0; k < 4; k++)
                memcpy(dst + (k / 2) * out->stride[1] + (2 * w + k % 2) * out->stride[2], src,
                       bytes);
    }
}

static kn_status upsample2(kn_dev *d, const kn_tensor *x, const kn_tensor *out)
{
    move_job j = {.x = x, .out = out};
    kn_parallel_for(d, x->dim[0] * x->dim[1], grain_of(4 * x->dim[2] * x->dim[3]), upsample_lines,
                    &j);
    return KN_OK;
}

/* Tokens l of [begin, end): volume[c, cell*patch + p] <-> row[l][c, p] or row[l][p, c]. */
static void move_patches(const move_job *j, const kn_tensor *volume, const kn_tensor *tokens,
                         bool to_tokens, int64_t begin, int64_t end)
{
    const int *patch = j->patch;
    int64_t C = volume->dim[0], grid_h = volume->dim[2] / patch[1],
            grid_w = volume->dim[3] / patch[2];
    int64_t inner = (int64_t)patch[0] * patch[1] * patch[2];
    int64_t c_step = j->channel_first ? inner : 1, p_step = j->channel_first ? 1 : C;
    for (int64_t l = begin; l < end; l++) {
        int64_t cell = j->index ? j->index[l] : l;
        float *row = (float *)tokens->data + l * tokens->stride[0];
        float *corner = (float *)volume->data +
                        cell / (grid_h * grid_w) * patch[0] * volume->stride[1] +
                        cell / grid_w % grid_h * patch[1] * volume->stride[2] +
                        cell % grid_w * patch[2] * volume->stride[3];
        for (int64_t c = 0; c < C; c++)
            for (int64_t p = 0; p < inner; p++) {
                float *at =
                    corner + c * volume->stride[0] + p / (patch[1] * patch[2]) * volume->stride[1] +
                    p / patch[2] % patch[1] * volume->stride[2] + p % patch[2] * volume->stride[3];
                if (to_tokens)
                    row[c * c_step + p * p_step] = *at;
                else
                    *at = row[c * c_step + p * p_step];
            }
    }
}

static void patchify_tokens(void *user, int64_t begin, int64_t end)
{
    const move_job *j = user;
    move_patches(j, j->x, j->out, true, begin, end);
}

static void unpatchify_tokens(void *user, int64_t begin, int64_t end)
{
    const move_job *j = user;
    move_patches(j, j->out, j->x, false, begin, end);
}

static kn_status patchify(kn_dev *d, const kn_tensor *x, const int patch[3], const int32_t *order,
                          const kn_tensor *out)
{
    move_job j = {.x = x, .out = out, .index = order, .patch = patch, .channel_first = true};
    kn_parallel_for(d, out->dim[0], grain_of(out->dim[1]), patchify_tokens, &j);
    return KN_OK;
}

/* Tokens are written by their places, each once when order is a bijection. */
static kn_status unpatchify(kn_dev *d, const kn_tensor *x, const int patch[3], const int32_t *order,
                            const kn_tensor *out)
{
    move_job j = {.x = x, .out = out, .index = order, .patch = patch, .channel_first = false};
    kn_parallel_for(d, x->dim[0], grain_of(x->dim[1]), unpatchify_tokens, &j);
    return KN_OK;
}

void kn_cpu_layout_fill(kn_ops *ops)
{
    ops->copy = copy;
    ops->embed = embed;
    ops->gather = gather;
    ops->upsample2 = upsample2;
    ops->patchify = patchify;
    ops->unpatchify = unpatchify;
}
