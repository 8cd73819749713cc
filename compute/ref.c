/* compute/ref.c - the specification: what every operation computes.
 *
 * Each operation converts its inputs to double, runs the loops of its formula on plain row-major
 * arrays and rounds once when it stores. Speed matters only as far as a small model must run.
 */
#include "compute/backend.h"

#include <math.h>
#include <string.h>

#include "io/memory.h"

/* ---- conversion ------------------------------------------------------------------------------ */

void kn_load_f64(const void *src, kn_dtype dtype, int64_t n, int64_t stride, double *dst)
{
    const float *f32 = src;
    const double *f64 = src;
    const uint16_t *u16 = src;
    switch (dtype) {
    case KN_F32:
        for (int64_t i = 0; i < n; i++) dst[i] = f32[i * stride];
        break;
    case KN_BF16:
        for (int64_t i = 0; i < n; i++) dst[i] = kn_bf16_to_f32(u16[i * stride]);
        break;
    case KN_F16:
        for (int64_t i = 0; i < n; i++) dst[i] = kn_f16_to_f32(u16[i * stride]);
        break;
    default:
        for (int64_t i = 0; i < n; i++) dst[i] = f64[i * stride];
        break;
    }
}

void kn_store_f64(const double *src, int64_t n, void *dst, kn_dtype dtype, int64_t stride)
{
    float *f32 = dst;
    double *f64 = dst;
    uint16_t *u16 = dst;
    switch (dtype) {
    case KN_F32:
        for (int64_t i = 0; i < n; i++) f32[i * stride] = (float)src[i];
        break;
    case KN_BF16:
        for (int64_t i = 0; i < n; i++) u16[i * stride] = kn_f32_to_bf16((float)src[i]);
        break;
    case KN_F16:
        for (int64_t i = 0; i < n; i++) u16[i * stride] = kn_f32_to_f16((float)src[i]);
        break;
    default:
        for (int64_t i = 0; i < n; i++) f64[i * stride] = src[i];
        break;
    }
}

/* Byte offset of row i, where the rows are all axes but the last, in row-major order. */
static int64_t row_offset(const kn_tensor *t, int64_t i)
{
    int64_t offset = 0;
    for (int a = t->rank - 2; a >= 0; a--) {
        offset += i % t->dim[a] * t->stride[a];
        i /= t->dim[a];
    }
    return offset * (int64_t)kn_dtype_size(t->dtype);
}

static int64_t row_width(const kn_tensor *t)
{
    return t->dim[t->rank - 1];
}
static int64_t row_count(const kn_tensor *t)
{
    return kn_tensor_count(t) / row_width(t);
}

/* A new row-major copy in double of a tensor with any strides; NULL for an absent one. */
static kn_status to_double(const kn_tensor *t, double **out)
{
    *out = NULL;
    if (t == NULL) return KN_OK;
    void *memory;
    KN_TRY(kn_alloc((size_t)kn_tensor_count(t) * sizeof(double), &memory));
    *out = memory;
    int64_t width = row_width(t), rows = row_count(t);
    for (int64_t i = 0; i < rows; i++)
        kn_load_f64((const char *)t->data + row_offset(t, i), t->dtype, width,
                    t->stride[t->rank - 1], *out + i * width);
    return KN_OK;
}

/* Row i of a tensor from doubles. */
static void put_row(const kn_tensor *t, int64_t i, const double *src)
{
    kn_store_f64(src, row_width(t), (char *)t->data + row_offset(t, i), t->dtype,
                 t->stride[t->rank - 1]);
}

static void put(const kn_tensor *t, const double *src)
{
    for (int64_t i = 0; i < row_count(t); i++) put_row(t, i, src + i * row_width(t));
}

static double activate(kn_activation act, double x)
{
    switch (act) {
    case KN_ACT_SILU: return x / (1 + exp(-x));
    case KN_ACT_GELU_TANH: /* torch gelu(approximate="tanh"): sqrt(2/pi), 0.044715 */
        return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case KN_ACT_GELU_ERF: return 0.5 * x * (1 + erf(x * 0.70710678118654752440));
    case KN_ACT_NONE: break;
    }
    return x;
}

/* ---- linear ---------------------------------------------------------------------------------- */

/* Everything that a loop over rows needs; each operation fills what it uses. */
typedef struct job {
    const double *x, *y, *w, *bias, *scale, *shift;
    double *result; /* row-major, shape of out */
    int64_t width, in_width;
    const kn_rmsnorm_params *rms;
    kn_activation act;
    double eps;
    int64_t in[4], out[4]; /* conv: T H W C */
    int kernel[3];
    const kn_conv_params *conv;
} job;

/* out[m,n] = act(sum_k x[m,k] w[n,k] + bias[n]); w is held transposed, [K,N]. */
static void linear_rows(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    int64_t N = j->width, K = j->in_width;
    for (int64_t m = begin; m < end; m++) {
        double *out = j->result + m * N;
        for (int64_t n = 0; n < N; n++) out[n] = j->bias ? j->bias[n] : 0;
        for (int64_t k = 0; k < K; k++) {
            double x = j->x[m * K + k];
            for (int64_t n = 0; n < N; n++) out[n] += x * j->w[k * N + n];
        }
        for (int64_t n = 0; n < N; n++) out[n] = activate(j->act, out[n]);
    }
}

static kn_status linear(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                        kn_activation act, const kn_tensor *out)
{
    kn_status st = KN_OK;
    double *xd = NULL, *wd = NULL, *bd = NULL;
    void *result = NULL;
    kn_tensor wt = kn_tensor_permute(&w->t, (int[]){1, 0});
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(to_double(&wt, &wd));
    KN_TRY_GOTO(to_double(bias, &bd));
    KN_TRY_GOTO(kn_alloc((size_t)kn_tensor_count(out) * sizeof(double), &result));
    job j = {.x = xd,
             .w = wd,
             .bias = bd,
             .result = result,
             .act = act,
             .width = w->t.dim[0],
             .in_width = w->t.dim[1]};
    kn_parallel_for(d, row_count(out), 4, linear_rows, &j);
    put(out, result);
done:
    kn_free(xd);
    kn_free(wd);
    kn_free(bd);
    kn_free(result);
    return st;
}

/* ---- conv ------------------------------------------------------------------------------------ */

/* out[t,h,w,co] += sum over taps and ci of x[t*st+i-pt, h*sh+j-ph, w*sw+k-pw, ci] w[i,j,k,ci,co];
 * places outside x count as zero. w is held as [kt,kh,kw,Ci,Co]. */
static void conv_pixel(const job *j, const int64_t at[3], double *out)
{
    int64_t Ci = j->in[3], Co = j->out[3];
    int64_t p[3];
    int i[3];
    for (i[0] = 0; i[0] < j->kernel[0]; i[0]++)
        for (i[1] = 0; i[1] < j->kernel[1]; i[1]++)
            for (i[2] = 0; i[2] < j->kernel[2]; i[2]++) {
                bool inside = true;
                for (int a = 0; a < 3; a++) {
                    p[a] = at[a] * j->conv->stride[a] + i[a] - j->conv->pad_lo[a];
                    inside = inside && p[a] >= 0 && p[a] < j->in[a];
                }
                if (!inside) continue;
                const double *x = j->x + ((p[0] * j->in[1] + p[1]) * j->in[2] + p[2]) * Ci;
                const double *w =
                    j->w + ((i[0] * j->kernel[1] + i[1]) * j->kernel[2] + i[2]) * Ci * Co;
                for (int64_t ci = 0; ci < Ci; ci++)
                    for (int64_t co = 0; co < Co; co++) out[co] += x[ci] * w[ci * Co + co];
            }
}

static void conv_lines(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    int64_t Co = j->out[3], W = j->out[2];
    for (int64_t line = begin; line < end; line++)
        for (int64_t w = 0; w < W; w++) {
            double *out = j->result + (line * W + w) * Co;
            for (int64_t co = 0; co < Co; co++) {
                out[co] = j->bias ? j->bias[co] : 0;
                if (j->y) out[co] += j->y[(line * W + w) * Co + co];
            }
            conv_pixel(j, (int64_t[]){line / j->out[1], line % j->out[1], w}, out);
        }
}

static kn_status conv(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                      const kn_tensor *residual, const kn_conv_params *p, const kn_tensor *out)
{
    kn_status st = KN_OK;
    double *xd = NULL, *wd = NULL, *bd = NULL, *rd = NULL;
    void *result = NULL;
    job j = {.conv = p};
    kn_conv_kernel(w, j.kernel);
    kn_tensor w5 = kn_tensor_of(w->t.data, w->t.dtype, w->t.dim[0], w->t.dim[1], j.kernel[0],
                                j.kernel[1], j.kernel[2]);
    w5 = kn_tensor_permute(&w5, (int[]){2, 3, 4, 1, 0});
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(to_double(&w5, &wd));
    KN_TRY_GOTO(to_double(bias, &bd));
    KN_TRY_GOTO(to_double(residual, &rd));
    KN_TRY_GOTO(kn_alloc((size_t)kn_tensor_count(out) * sizeof(double), &result));
    j.x = xd, j.w = wd, j.bias = bd, j.y = rd, j.result = result;
    memcpy(j.in, x->dim, sizeof j.in);
    memcpy(j.out, out->dim, sizeof j.out);
    kn_parallel_for(d, out->dim[0] * out->dim[1], 1, conv_lines, &j);
    put(out, result);
done:
    kn_free(xd);
    kn_free(wd);
    kn_free(bd);
    kn_free(rd);
    kn_free(result);
    return st;
}

/* ---- norms ----------------------------------------------------------------------------------- */

static void rmsnorm_rows(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    int64_t C = j->width;
    for (int64_t i = begin; i < end; i++) {
        const double *x = j->x + i * C;
        double sum = 0, factor;
        for (int64_t c = 0; c < C; c++) sum += x[c] * x[c];
        if (j->rms->l2_clamp)
            factor = sqrt((double)C) / fmax(sqrt(sum), j->eps);
        else
            factor = 1 / sqrt(sum / (double)C + j->eps);
        for (int64_t c = 0; c < C; c++)
            j->result[i * C + c] = activate(j->rms->act, x[c] * factor * (j->w ? j->w[c] : 1));
    }
}

static void layernorm_rows(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    int64_t C = j->width;
    for (int64_t i = begin; i < end; i++) {
        const double *x = j->x + i * C;
        double mean = 0, var = 0;
        for (int64_t c = 0; c < C; c++) mean += x[c];
        mean /= (double)C;
        for (int64_t c = 0; c < C; c++) var += (x[c] - mean) * (x[c] - mean);
        var /= (double)C;
        for (int64_t c = 0; c < C; c++) {
            double n = (x[c] - mean) / sqrt(var + j->eps);
            double factor = j->w ? j->w[c] : j->scale ? 1 + j->scale[c] : 1;
            double add = j->bias ? j->bias[c] : j->shift ? j->shift[c] : 0;
            j->result[i * C + c] = n * factor + add;
        }
    }
}

static kn_status rmsnorm(kn_dev *d, const kn_tensor *x, const kn_tensor *weight,
                         const kn_rmsnorm_params *p, const kn_tensor *out)
{
    kn_status st = KN_OK;
    double *xd = NULL, *wd = NULL;
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(to_double(weight, &wd));
    job j = {.x = xd, .w = wd, .result = xd, .width = row_width(x), .rms = p, .eps = p->eps};
    kn_parallel_for(d, row_count(x), 16, rmsnorm_rows, &j);
    put(out, xd);
done:
    kn_free(xd);
    kn_free(wd);
    return st;
}

static kn_status layernorm(kn_dev *d, const kn_tensor *x, const kn_tensor *weight,
                           const kn_tensor *bias, const kn_tensor *scale, const kn_tensor *shift,
                           float eps, const kn_tensor *out)
{
    kn_status st = KN_OK;
    double *xd = NULL, *v[4] = {0};
    const kn_tensor *vectors[4] = {weight, bias, scale, shift};
    KN_TRY_GOTO(to_double(x, &xd));
    for (int i = 0; i < 4; i++) KN_TRY_GOTO(to_double(vectors[i], &v[i]));
    job j = {.x = xd,
             .w = v[0],
             .bias = v[1],
             .scale = v[2],
             .shift = v[3],
             .result = xd,
             .width = row_width(x),
             .eps = eps};
    kn_parallel_for(d, row_count(x), 16, layernorm_rows, &j);
    put(out, xd);
done:
    kn_free(xd);
    for (int i = 0; i < 4; i++) kn_free(v[i]);
    return st;
}

/* ---- per element ----------------------------------------------------------------------------- */

static kn_status gate_add(kn_dev *d, const kn_tensor *x, const kn_tensor *y, const kn_tensor *gate,
                          const kn_tensor *out)
{
    (void)d;
    kn_status st = KN_OK;
    double *xd = NULL, *yd = NULL, *gd = NULL;
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(to_double(y, &yd));
    KN_TRY_GOTO(to_double(gate, &gd));
    int64_t C = row_width(x);
    for (int64_t i = 0; i < kn_tensor_count(x); i++) xd[i] += yd[i] * (gd ? gd[i % C] : 1);
    put(out, xd);
done:
    kn_free(xd);
    kn_free(yd);
    kn_free(gd);
    return st;
}

static kn_status rope(kn_dev *d, const kn_tensor *x, const kn_tensor *cos, const kn_tensor *sin,
                      const kn_tensor *out)
{
    (void)d;
    kn_status st = KN_OK;
    double *xd = NULL, *cd = NULL, *sd = NULL;
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(to_double(cos, &cd));
    KN_TRY_GOTO(to_double(sin, &sd));
    int64_t N = x->dim[1], half = x->dim[2] / 2;
    for (int64_t l = 0; l < x->dim[0]; l++)
        for (int64_t n = 0; n < N; n++)
            for (int64_t i = 0; i < half; i++) {
                double *pair = xd + (l * N + n) * 2 * half + 2 * i;
                double c = cd[l * half + i], s = sd[l * half + i], a = pair[0], b = pair[1];
                pair[0] = a * c - b * s;
                pair[1] = a * s + b * c;
            }
    put(out, xd);
done:
    kn_free(xd);
    kn_free(cd);
    kn_free(sd);
    return st;
}

static kn_status act_op(kn_dev *d, const kn_tensor *x, kn_activation act, const kn_tensor *out)
{
    (void)d;
    double *xd;
    KN_TRY(to_double(x, &xd));
    for (int64_t i = 0; i < kn_tensor_count(x); i++) xd[i] = activate(act, xd[i]);
    put(out, xd);
    kn_free(xd);
    return KN_OK;
}

static kn_status mul(kn_dev *d, const kn_tensor *x, kn_activation act, const kn_tensor *y,
                     const kn_tensor *out)
{
    (void)d;
    kn_status st = KN_OK;
    double *xd = NULL, *yd = NULL;
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(to_double(y, &yd));
    for (int64_t i = 0; i < kn_tensor_count(x); i++) xd[i] = activate(act, xd[i]) * yd[i];
    put(out, xd);
done:
    kn_free(xd);
    kn_free(yd);
    return st;
}

static kn_status axpby(kn_dev *d, float a, const kn_tensor *x, float b, const kn_tensor *y,
                       const kn_tensor *out)
{
    (void)d;
    kn_status st = KN_OK;
    double *xd = NULL, *yd = NULL;
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(to_double(y, &yd));
    for (int64_t i = 0; i < kn_tensor_count(x); i++) xd[i] = a * xd[i] + b * yd[i];
    put(out, xd);
done:
    kn_free(xd);
    kn_free(yd);
    return st;
}

/* ---- layout ---------------------------------------------------------------------------------- */

static kn_status copy(kn_dev *d, const kn_tensor *x, const kn_tensor *out)
{
    (void)d;
    if (kn_dtype_is_float(x->dtype)) {
        double *xd;
        KN_TRY(to_double(x, &xd));
        put(out, xd);
        kn_free(xd);
        return KN_OK;
    }
    size_t size = kn_dtype_size(x->dtype); /* integers: same dtype, moved as bytes */
    int64_t width = row_width(x);
    for (int64_t i = 0; i < row_count(x); i++)
        for (int64_t c = 0; c < width; c++)
            memcpy((char *)out->data + row_offset(out, i) +
                       (size_t)(c * out->stride[out->rank - 1]) * size,
                   (const char *)x->data + row_offset(x, i) +
                       (size_t)(c * x->stride[x->rank - 1]) * size,
                   size);
    return KN_OK;
}

static kn_status embed(kn_dev *d, const kn_weight *table, const int32_t *ids, int64_t count,
                       const kn_tensor *out)
{
    (void)d;
    void *row;
    int64_t width = table->t.dim[1];
    KN_TRY(kn_alloc((size_t)width * sizeof(double), &row));
    for (int64_t i = 0; i < count; i++) {
        kn_load_f64((const char *)table->t.data + row_offset(&table->t, ids[i]), table->t.dtype,
                    width, 1, row);
        put_row(out, i, row);
    }
    kn_free(row);
    return KN_OK;
}

static kn_status gather(kn_dev *d, const kn_tensor *x, const int32_t *index, const kn_tensor *out)
{
    for (int64_t i = 0; i < out->dim[0]; i++) {
        kn_tensor from = kn_tensor_slice(x, 0, index[i], 1), to = kn_tensor_slice(out, 0, i, 1);
        KN_TRY(copy(d, &from, &to));
    }
    return KN_OK;
}

static kn_status upsample2(kn_dev *d, const kn_tensor *x, const kn_tensor *out)
{
    (void)d;
    double *xd;
    KN_TRY(to_double(x, &xd));
    int64_t H = out->dim[1], W = out->dim[2], C = out->dim[3];
    for (int64_t line = 0; line < out->dim[0] * H; line++)
        for (int64_t w = 0; w < W; w++) {
            int64_t t = line / H, h = line % H;
            put_row(out, line * W + w, xd + ((t * (H / 2) + h / 2) * (W / 2) + w / 2) * C);
        }
    kn_free(xd);
    return KN_OK;
}

/* Offset in a [C,F,H,W] volume of value `i` (of c, pt, ph, pw with `channel_first`, of pt, ph, pw,
 * c otherwise) of the token at raster place `cell` of the patch grid. */
static int64_t patch_offset(const kn_tensor *volume, const int patch[3], int64_t cell, int64_t i,
                            bool channel_first)
{
    int64_t C = volume->dim[0], at[3], grid_h = volume->dim[2] / patch[1],
            grid_w = volume->dim[3] / patch[2];
    at[0] = cell / (grid_h * grid_w) * patch[0];
    at[1] = cell / grid_w % grid_h * patch[1];
    at[2] = cell % grid_w * patch[2];
    int64_t inner = (int64_t)patch[0] * patch[1] * patch[2];
    int64_t c = channel_first ? i / inner : i % C;
    int64_t p = channel_first ? i % inner : i / C;
    at[0] += p / (patch[1] * patch[2]);
    at[1] += p / patch[2] % patch[1];
    at[2] += p % patch[2];
    return ((c * volume->dim[1] + at[0]) * volume->dim[2] + at[1]) * volume->dim[3] + at[2];
}

static kn_status patchify(kn_dev *d, const kn_tensor *x, const int patch[3], const int32_t *order,
                          const kn_tensor *out)
{
    (void)d;
    kn_status st = KN_OK;
    double *xd = NULL;
    void *memory = NULL;
    int64_t width = row_width(out);
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(kn_alloc((size_t)width * sizeof(double), &memory));
    double *row = memory;
    for (int64_t l = 0; l < out->dim[0]; l++) {
        int64_t cell = order ? order[l] : l;
        for (int64_t i = 0; i < width; i++) row[i] = xd[patch_offset(x, patch, cell, i, true)];
        put_row(out, l, row);
    }
done:
    kn_free(xd);
    kn_free(memory);
    return st;
}

static kn_status unpatchify(kn_dev *d, const kn_tensor *x, const int patch[3], const int32_t *order,
                            const kn_tensor *out)
{
    (void)d;
    kn_status st = KN_OK;
    double *xd = NULL;
    void *memory = NULL;
    int64_t width = row_width(x);
    KN_TRY_GOTO(to_double(x, &xd));
    KN_TRY_GOTO(kn_alloc((size_t)kn_tensor_count(out) * sizeof(double), &memory));
    double *volume = memory;
    for (int64_t l = 0; l < x->dim[0]; l++) {
        int64_t cell = order ? order[l] : l;
        for (int64_t i = 0; i < width; i++)
            volume[patch_offset(out, patch, cell, i, false)] = xd[l * width + i];
    }
    put(out, volume);
done:
    kn_free(xd);
    kn_free(memory);
    return st;
}

/* ---- stats ----------------------------------------------------------------------------------- */

static kn_status stats(kn_dev *d, const kn_tensor *x, kn_tensor_stats *out)
{
    (void)d;
    double *xd, sum = 0, squares = 0;
    int64_t n = kn_tensor_count(x), finite = 0;
    KN_TRY(to_double(x, &xd));
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(xd[i])) continue; /* NOLINT(clang-analyzer-core.NullDereference): x is there, hence xd */
        out->min = finite && out->min < xd[i] ? out->min : xd[i];
        out->max = finite && out->max > xd[i] ? out->max : xd[i];
        sum += xd[i];
        squares += xd[i] * xd[i];
        finite++;
    }
    out->nonfinite = n - finite;
    if (finite) {
        out->mean = sum / (double)finite;
        out->rms = sqrt(squares / (double)finite);
    }
    kn_free(xd);
    return KN_OK;
}

void kn_ref_fill(kn_ops *ops)
{
    *ops = (kn_ops){
        .linear = linear,
        .conv = conv,
        .embed = embed,
        .rmsnorm = rmsnorm,
        .layernorm = layernorm,
        .gate_add = gate_add,
        .rope = rope,
        .norm_rope = kn_norm_then_rope,
        .gate_norm = kn_gate_then_norm,
        .act = act_op,
        .mul = mul,
        .axpby = axpby,
        .copy = copy,
        .upsample2 = upsample2,
        .patchify = patchify,
        .unpatchify = unpatchify,
        .gather = gather,
        .stats = stats,
        .quantize = kn_host_quantize,
        .dequantize = kn_host_dequantize,
        .linear_f8 = kn_ref_linear_f8,
    };
}
