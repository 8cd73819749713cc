/* compute/host_quantize.c - rows in eight bits, on ref and cpu. */
#include "compute/backend.h"

#include <math.h>

#include "io/memory.h"

typedef struct job {
    const kn_tensor *rows, *codes, *scale;
} job;

enum { GRAIN = 64, WIDTH = 512 };

/* The largest code, and the smallest row maximum that is told from 0: its reciprocal is still finite in f32. */
static double most_code(kn_dtype t)
{
    return t == KN_F8 ? 448 : 127;
}
#define LEAST 0x1p-100

static void to_codes(const double *x, int64_t n, double inverse, kn_dtype t, void *codes)
{
    for (int64_t i = 0; i < n; i++)
        if (t == KN_F8)
            ((uint8_t *)codes)[i] = kn_f32_to_f8((float)(x[i] * inverse));
        else
            ((int8_t *)codes)[i] = (int8_t)nearbyint(x[i] * inverse);
}

static double value_of(const void *codes, int64_t i, kn_dtype t)
{
    return t == KN_F8 ? (double)kn_f8_to_f32(((const uint8_t *)codes)[i]) : (double)((const int8_t *)codes)[i];
}

static void *row_of(const kn_tensor *t, int64_t i)
{
    return (char *)t->data + i * t->dim[1] * (int64_t)kn_dtype_size(t->dtype);
}

static double largest(const job *j, int64_t row)
{
    double part[WIDTH], most = 0;
    int64_t width = j->rows->dim[1], size = (int64_t)kn_dtype_size(j->rows->dtype);
    for (int64_t at = 0; at < width; at += WIDTH) {
        int64_t n = width - at < WIDTH ? width - at : WIDTH;
        kn_load_f64((char *)row_of(j->rows, row) + at * size, j->rows->dtype, n, 1, part);
        for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(part[i]));
    }
    return most;
}

static void quantize_rows(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    double part[WIDTH];
    int64_t width = j->rows->dim[1], size = (int64_t)kn_dtype_size(j->rows->dtype);
    for (int64_t row = begin; row < end; row++) {
        kn_dtype t = j->codes->dtype;
        double most = largest(j, row), top = most_code(t), inverse = most > LEAST ? top / most : 0;
        char *codes = row_of(j->codes, row);
        ((float *)j->scale->data)[row] = most > LEAST ? (float)(most / top) : 0;
        for (int64_t at = 0; at < width; at += WIDTH) {
            int64_t n = width - at < WIDTH ? width - at : WIDTH;
            kn_load_f64((char *)row_of(j->rows, row) + at * size, j->rows->dtype, n, 1, part);
            to_codes(part, n, inverse, t, codes + at);
        }
    }
}

static void dequantize_rows(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    double part[WIDTH];
    int64_t width = j->rows->dim[1], size = (int64_t)kn_dtype_size(j->rows->dtype);
    for (int64_t row = begin; row < end; row++) {
        const char *codes = row_of(j->codes, row);
        double scale = ((const float *)j->scale->data)[row];
        for (int64_t at = 0; at < width; at += WIDTH) {
            int64_t n = width - at < WIDTH ? width - at : WIDTH;
            for (int64_t i = 0; i < n; i++) part[i] = value_of(codes + at, i, j->codes->dtype) * scale;
            kn_store_f64(part, n, (char *)row_of(j->rows, row) + at * size, j->rows->dtype, 1);
        }
    }
}

kn_status kn_host_quantize(kn_dev *d, const kn_tensor *x, const kn_tensor *codes,
                           const kn_tensor *scale)
{
    job j = {.rows = x, .codes = codes, .scale = scale};
    kn_parallel_for(d, x->dim[0], GRAIN, quantize_rows, &j);
    return KN_OK;
}

kn_status kn_host_dequantize(kn_dev *d, const kn_tensor *codes, const kn_tensor *scale,
                             const kn_tensor *out)
{
    job j = {.rows = out, .codes = codes, .scale = scale};
    kn_parallel_for(d, out->dim[0], GRAIN, dequantize_rows, &j);
    return KN_OK;
}

/* The specification of linear_f8: the codes of both factors as values, multiplied in double. */
kn_status kn_ref_linear_f8(kn_dev *d, const kn_eight_bits *x, const kn_weight *w, const kn_eight_bits *room,
                           const kn_tensor *bias, kn_activation act, const kn_tensor *out)
{
    kn_status st = KN_OK;
    kn_tensor values = x->codes;
    kn_weight rounded = {.kind = KN_WEIGHT_LINEAR, .t = w->t};
    values.dtype = rounded.t.dtype = KN_F64;
    values.data = rounded.t.data = NULL;
    KN_TRY_GOTO(kn_alloc(kn_tensor_bytes(&values), &values.data));
    KN_TRY_GOTO(kn_alloc(kn_tensor_bytes(&rounded.t), &rounded.t.data));
    KN_TRY_GOTO(kn_host_dequantize(d, &x->codes, &x->scale, &values));
    KN_TRY_GOTO(kn_host_quantize(d, &w->t, &room->codes, &room->scale));
    KN_TRY_GOTO(kn_host_dequantize(d, &room->codes, &room->scale, &rounded.t));
    KN_TRY_GOTO(d->ops.linear(d, &values, &rounded, bias, act, out));
done:
    kn_free(values.data);
    kn_free(rounded.t.data);
    return st;
}
