/* compute/cpu_strip.h - the inner product kernel of linear and conv, compiled once per instruction
 * set.
 *
 * Purpose   out[r, n] = sum[r, n] + sum over segments s and k of x[r*x_pitch + segment[s] + k] *
 *           w[s, k, n], for a strip of a few rows (tokens, or pixels of one line) and one panel of
 *           one or two vectors of columns. A convolution over channels-last data is such a product:
 *           for one kernel line (t, h) the values of kw neighbouring pixels lie side by side, so
 *           each (t, h) is one segment of kw*Ci values. A matrix product has one segment.
 * Order     Every output is one chain of multiply-adds over s, then k, from zero; then the sum so
 *           far, bias and residual are added. Tiling therefore never changes a bit.
 * Use       Included after the vector macros (see cpu_vector.h) and STRIP_ROWS are defined.
 */

/* Row r of the strip from three bases and two pitches: x86 addresses base + {1,2,4} * index, so 15
 * rows need five registers instead of fifteen. */
#define ROW_STEP(q) ((q) == 3 ? pitch3 : (size_t)(q)*pitch)
#define ROW_AT(r)   (*(const float *)(((r) < 5 ? p0 : (r) < 10 ? p1 : p2) + ROW_STEP((r) % 5)))

/* Constant `rows` and `vectors` make this straight-line code with all sums in registers. */
static inline __attribute__((always_inline)) void strip_sized(const kn_strip *s, const int rows,
                                                              const int vectors)
{
    VEC sum[STRIP_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = vec_zero();
    const size_t pitch = (size_t)s->x_pitch * sizeof(float), pitch3 = 3 * pitch;
    const float *w = s->w;
    for (int g = 0; g < s->segments; g++) {
        const char *p0 = (const char *)(s->x + s->segment[g]);
        const char *p1 = rows > 5 ? p0 + 5 * pitch : p0, *p2 = rows > 10 ? p1 + 5 * pitch : p0;
        for (int64_t k = 0; k < s->length; k++) {
            VEC w0 = vec_load(w), w1 = vectors > 1 ? vec_load(w + LANES) : w0;
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                VEC x = vec_set1(ROW_AT(r));
                sum[r][0] = vec_fma(x, w0, sum[r][0]);
                if (vectors > 1) sum[r][1] = vec_fma(x, w1, sum[r][1]);
            }
            w += vectors * LANES;
            p0 += sizeof(float);
            p1 += sizeof(float);
            p2 += sizeof(float);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            int n = s->cols - v * LANES < LANES ? s->cols - v * LANES : LANES;
            float *out = s->out + r * s->out_pitch + v * LANES;
            VEC y = sum[r][v];
            if (s->sum) y = vec_add(load_n(s->sum + r * s->sum_pitch + v * LANES, n), y);
            if (s->bias) y = vec_add(y, load_n(s->bias + v * LANES, n));
            if (s->residual)
                y = vec_add(y, load_n(s->residual + r * s->residual_pitch + v * LANES, n));
            store_n(out, y, n);
        }
}

#define STRIP_CASE(r)                                                                              \
    case r:                                                                                        \
        if (s->cols > LANES)                                                                       \
            strip_sized(s, r, 2);                                                                  \
        else                                                                                       \
            strip_sized(s, r, 1);                                                                  \
        break;

static void strip(const kn_strip *s)
{
    switch (s->rows) {
        STRIP_CASE(1)
        STRIP_CASE(2)
        STRIP_CASE(3)
        STRIP_CASE(4)
        STRIP_CASE(5)
        STRIP_CASE(6)
#if STRIP_ROWS > 6
        STRIP_CASE(7)
        STRIP_CASE(8)
        STRIP_CASE(9)
        STRIP_CASE(10)
        STRIP_CASE(11)
        STRIP_CASE(12)
        STRIP_CASE(13)
        STRIP_CASE(14)
#endif
    }
}
