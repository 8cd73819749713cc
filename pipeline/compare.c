#include "pipeline/compare.h"

#include <math.h>

#include "io/memory.h"

enum { WINDOW = 11 };
static const double SIGMA = 1.5, C1 = 0.01 * 0.01, C2 = 0.03 * 0.03; /* (K L)^2 with L = 1 */

double kn_compare_psnr(const float *a, const float *b, int width_px, int height_px)
{
    int64_t n = (int64_t)width_px * height_px * 3;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        sum += d * d;
    }
    return sum > 0 ? -10 * log10(sum / (double)n) : INFINITY;
}

static float luma(const float *rgb) { return 0.2126F * rgb[0] + 0.7152F * rgb[1] + 0.0722F * rgb[2]; }

enum { MEAN_A, MEAN_B, SQUARE_A, SQUARE_B, PRODUCT, MOMENTS };

/* Moments of one row of pixels, blurred along it: out [MOMENTS][width - WINDOW + 1]. */
static void blur_row(const float *a, const float *b, int width, const double weight[WINDOW], float *out)
{
    int count = width - WINDOW + 1;
    for (int x = 0; x < count; x++) {
        double m[MOMENTS] = {0};
        for (int k = 0; k < WINDOW; k++) {
            double u = luma(a + 3 * (x + k)), v = luma(b + 3 * (x + k)), w = weight[k];
            m[MEAN_A] += w * u;
            m[MEAN_B] += w * v;
            m[SQUARE_A] += w * u * u;
            m[SQUARE_B] += w * v * v;
            m[PRODUCT] += w * u * v;
        }
        for (int i = 0; i < MOMENTS; i++) out[i * count + x] = (float)m[i];
    }
}

static double similarity(const double m[MOMENTS])
{
    double aa = m[MEAN_A] * m[MEAN_A], bb = m[MEAN_B] * m[MEAN_B], ab = m[MEAN_A] * m[MEAN_B];
    double va = m[SQUARE_A] - aa, vb = m[SQUARE_B] - bb, cov = m[PRODUCT] - ab;
    return (2 * ab + C1) * (2 * cov + C2) / ((aa + bb + C1) * (va + vb + C2));
}

kn_status kn_compare_ssim(const float *a, const float *b, int width_px, int height_px, double *ssim)
{
    if (width_px < WINDOW || height_px < WINDOW)
        return kn_fail(KN_ERR_ARG, "SSIM: expected frames of at least %d pixels on a side, found %dx%d", (int)WINDOW, width_px, height_px);
    int count = width_px - WINDOW + 1;
    size_t row = (size_t)count * MOMENTS;
    double weight[WINDOW], total = 0, sum = 0;
    float *rows; /* the last WINDOW blurred rows, in turn */
    KN_TRY(kn_alloc_array(WINDOW * row, sizeof *rows, (void **)&rows));
    for (int k = 0; k < WINDOW; k++) {
        int middle = WINDOW / 2;
        double d = k - middle;
        total += weight[k] = exp(-d * d / (2 * SIGMA * SIGMA));
    }
    for (int k = 0; k < WINDOW; k++) weight[k] /= total;
    for (int y = 0; y < height_px; y++) {
        size_t at = (size_t)y * (size_t)width_px * 3;
        blur_row(a + at, b + at, width_px, weight, rows + (size_t)(y % WINDOW) * row);
        if (y < WINDOW - 1) continue;
        for (int x = 0; x < count; x++) {
            double m[MOMENTS] = {0};
            for (int k = 0; k < WINDOW; k++) {
                const float *from = rows + (size_t)((y - WINDOW + 1 + k) % WINDOW) * row + x;
                for (int i = 0; i < MOMENTS; i++) m[i] += weight[k] * (double)from[i * count];
            }
            sum += similarity(m);
        }
    }
    kn_free(rows);
    *ssim = sum / ((double)count * (height_px - WINDOW + 1));
    return KN_OK;
}
