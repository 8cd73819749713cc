/* compute/host_quantize.c - rows in eight bits, on ref and cpu. */
#include "compute/backend.h"

#include <math.h>


typedef struct job {
    const kn_tensor *rows, *codes, *scale;
} job;

enum { GRAIN = 64, WIDTH = 512 };

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
        double most = largest(j, row), inverse = most > 0 ? 127 / most : 0;
        int8_t *codes = row_of(j->codes, row);
        ((float *)j->scale->data)[row] = (float)(most / 127);
        for (int64_t at = 0; at < width; at += WIDTH) {
            int64_t n = width - at < WIDTH ? width - at : WIDTH;
            kn_load_f64((char *)row_of(j->rows, row) + at * size, j->rows->dtype, n, 1, part);
            for (int64_t i = 0; i < n; i++) codes[at + i] = (int8_t)nearbyint(part[i] * inverse);
        }
    }
}

static void dequantize_rows(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    double part[WIDTH];
    int64_t width = j->rows->dim[1], size = (int64_t)kn_dtype_size(j->rows->dtype);
    for (int64_t row = begin; row < end; row++) {
        const int8_t *codes = row_of(j->codes, row);
        double scale = ((const float *)j->scale->data)[row];
        for (int64_t at = 0; at < width; at += WIDTH) {
            int64_t n = width - at < WIDTH ? width - at : WIDTH;
            for (int64_t i = 0; i < n; i++) part[i] = codes[at + i] * scale;
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
