/* AVX-512 kernels of the CPU attention executor: panels of 32 queries, and of 16. See sparse_cpu.h.
 *
 * The two products keep 12 x 2 accumulators in registers: per step 2 vector loads and 12 broadcasts
 * feed 24 fused multiply-adds, so the multiply-add ports are the limit, not the load ports. Panels of
 * 16 have 13 loads for 12: about even where two of each are done in a cycle.
 * Every function is written once, for `halves` vectors side by side, a constant at every call.
 */
#include "attention/exp2_cpu.h"
#include "attention/sparse_cpu.h"

#if defined(__AVX512F__)

#include <immintrin.h>
#include <math.h>
#include <stddef.h>

enum { HALF = 16 };

#define INLINE static inline __attribute__((always_inline))

/* acc[r] += sum_i a[i*step + r*row] b[i,:], for r < rows (a constant at every call). Each step also
 * asks for one cache line at `ahead`, unless that is NULL. */
INLINE void product(int halves, int rows, const float *a, int64_t row, int64_t step, const float *b,
                    int64_t count, const char *ahead, __m512 acc[12][2])
{
    for (int64_t i = 0; i < count; i++) {
        if (ahead) _mm_prefetch(ahead + 64 * i, _MM_HINT_T1);
        __m512 b0 = _mm512_loadu_ps(b + i * halves * HALF), b1 = b0;
        if (halves > 1) b1 = _mm512_loadu_ps(b + i * halves * HALF + HALF);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512 x = _mm512_set1_ps(a[i * step + r * row]);
            acc[r][0] = _mm512_fmadd_ps(x, b0, acc[r][0]);
            if (halves > 1) acc[r][1] = _mm512_fmadd_ps(x, b1, acc[r][1]);
        }
    }
}

INLINE void store(int halves, int rows, float *out, __m512 acc[12][2])
{
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        _mm512_storeu_ps(out + r * halves * HALF, acc[r][0]);
        if (halves > 1) _mm512_storeu_ps(out + r * halves * HALF + HALF, acc[r][1]);
    }
}

INLINE void qk_rows(int halves, int rows, const float *k, int64_t ldk, const float *q, int64_t dim, float *s,
                    const char *ahead)
{
    __m512 acc[12][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    if (ahead)
        product(halves, rows, k, ldk, 1, q, dim, ahead, acc);
    else
        product(halves, rows, k, ldk, 1, q, dim, NULL, acc);
    store(halves, rows, s, acc);
}

INLINE void qk_any(int halves, const float *k, int64_t ldk, int64_t keys, const float *q,
                   int64_t dim, float *s, const void *ahead)
{
    const int64_t W = halves * HALF;
    int64_t j = 0;
    const char *line = ahead;
    for (; keys - j >= 12; j += 12) {
        qk_rows(halves, 12, k + j * ldk, ldk, q, dim, s + j * W, line);
        if (line) line += 64 * dim;
    }
    int64_t rest = keys - j;
    if (j > 0) {
        /* The rest by one kernel that reaches back over rows already done, which come out the same:
         * a row alone waits for each of its multiply-adds. */
        j = keys - (rest > 8 ? 12 : rest > 4 ? 8 : 4);
        if (rest > 8)
            qk_rows(halves, 12, k + j * ldk, ldk, q, dim, s + j * W, NULL);
        else if (rest > 4)
            qk_rows(halves, 8, k + j * ldk, ldk, q, dim, s + j * W, NULL);
        else if (rest > 0)
            qk_rows(halves, 4, k + j * ldk, ldk, q, dim, s + j * W, NULL);
        return;
    }
    for (; keys - j >= 4; j += 4) qk_rows(halves, 4, k + j * ldk, ldk, q, dim, s + j * W, NULL);
    for (; j < keys; j++) qk_rows(halves, 1, k + j * ldk, ldk, q, dim, s + j * W, NULL);
}

INLINE void pv_rows(int halves, int rows, const float *v, int64_t ldv, int64_t keys, const float *p,
                    __m512 a0, __m512 a1, float *o, const char *ahead)
{
    __m512 acc[12][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        const float *at = o + r * halves * HALF;
        acc[r][0] = _mm512_mul_ps(_mm512_loadu_ps(at), a0);
        if (halves > 1) acc[r][1] = _mm512_mul_ps(_mm512_loadu_ps(at + HALF), a1);
    }
    if (ahead)
        product(halves, rows, v, 1, ldv, p, keys, ahead, acc);
    else
        product(halves, rows, v, 1, ldv, p, keys, NULL, acc);
    store(halves, rows, o, acc);
}

INLINE void pv_any(int halves, const float *v, int64_t ldv, int64_t keys, const float *p,
                   const float *alpha, int64_t dim, float *o, const void *ahead)
{
    const char *line = ahead;
    const int64_t W = halves * HALF;
    __m512 a0 = alpha ? _mm512_loadu_ps(alpha) : _mm512_set1_ps(1.0f), a1 = a0;
    if (alpha && halves > 1) a1 = _mm512_loadu_ps(alpha + HALF);
    int64_t d = 0;
    for (; dim - d >= 12; d += 12) {
        pv_rows(halves, 12, v + d, ldv, keys, p, a0, a1, o + d * W, line);
        if (line) line += 64 * keys;
    }
    for (; dim - d >= 8; d += 8) pv_rows(halves, 8, v + d, ldv, keys, p, a0, a1, o + d * W, NULL);
    for (; dim - d >= 4; d += 4) pv_rows(halves, 4, v + d, ldv, keys, p, a0, a1, o + d * W, NULL);
    for (; d < dim; d++) pv_rows(halves, 1, v + d, ldv, keys, p, a0, a1, o + d * W, NULL);
}

INLINE void softmax_half(int64_t W, float *s, int64_t keys, float *m, float *l, float *alpha)
{
    /* Four chains each, so that latency does not bind. */
    __m512 top[4], sum[4];
    __m512 old = _mm512_loadu_ps(m);
    top[0] = top[1] = top[2] = top[3] = old;
    int64_t j = 0;
    for (; j + 4 <= keys; j += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            top[i] = _mm512_max_ps(top[i], _mm512_loadu_ps(s + (j + i) * W));
    for (; j < keys; j++) top[0] = _mm512_max_ps(top[0], _mm512_loadu_ps(s + j * W));
    __m512 now = _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
    _mm512_storeu_ps(m, now);
    /* Nothing visible yet: subtract 0, or -inf minus -inf would give NaN. */
    __mmask16 empty = _mm512_cmp_ps_mask(now, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ);
    now = _mm512_mask_mov_ps(now, empty, _mm512_setzero_ps());
    __m512 a = kn_exp2_avx512(_mm512_sub_ps(old, now));
    _mm512_storeu_ps(alpha, a);
    sum[0] = sum[1] = sum[2] = sum[3] = _mm512_setzero_ps();
    for (j = 0; j + 4 <= keys; j += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            float *at = s + (j + i) * W;
            __m512 p = kn_exp2_avx512(_mm512_sub_ps(_mm512_loadu_ps(at), now));
            _mm512_storeu_ps(at, p);
            sum[i] = _mm512_add_ps(sum[i], p);
        }
    for (; j < keys; j++) {
        __m512 p = kn_exp2_avx512(_mm512_sub_ps(_mm512_loadu_ps(s + j * W), now));
        _mm512_storeu_ps(s + j * W, p);
        sum[0] = _mm512_add_ps(sum[0], p);
    }
    sum[0] = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
    _mm512_storeu_ps(l, _mm512_fmadd_ps(_mm512_loadu_ps(l), a, sum[0]));
}

INLINE void softmax_any(int halves, float *s, int64_t keys, float *m, float *l, float *alpha)
{
    for (int h = 0; h < halves * HALF; h += HALF)
        softmax_half(halves * HALF, s + h, keys, m + h, l + h, alpha + h);
}

/* Lanes that see coordinate c on one axis. */
INLINE __mmask16 axis_visible(const kn_attn_lanes *b, int axis, int lane, int32_t c)
{
    /* One unsigned compare tests both ends: a coordinate below lo wraps to a huge value. */
    __m512i from = _mm512_sub_epi32(_mm512_set1_epi32(c), _mm512_loadu_si512(b->lo[axis] + lane));
    __mmask16 in = _mm512_cmplt_epu32_mask(from, _mm512_loadu_si512(b->len[axis] + lane));
    if (b->dilation[axis] > 1)
        in &= _mm512_cmpeq_epi32_mask(_mm512_set1_epi32(c % b->dilation[axis]),
                                      _mm512_loadu_si512(b->residue[axis] + lane));
    return in;
}

/* Neighbouring keys mostly share two coordinates: an axis is tested anew only where its own changes. */
INLINE void mask_any(int halves, float *s, int64_t keys, const int16_t *pos, const kn_attn_lanes *b)
{
    const __m512 hidden = _mm512_set1_ps(-INFINITY);
    __mmask16 in[3][2] = {{0}}; /* set at the first key */
    for (int64_t j = 0; j < keys; j++, pos += 3)
        for (int half = 0; half < halves; half++) {
            for (int axis = 0; axis < 3; axis++)
                if (j == 0 || pos[axis] != pos[axis - 3])
                    in[axis][half] = axis_visible(b, axis, half * HALF, pos[axis]);
            __mmask16 seen = in[0][half] & in[1][half] & in[2][half];
            _mm512_mask_storeu_ps(s + (j * halves + half) * HALF, (__mmask16)~seen, hidden);
        }
}

#define TABLE(name, halves)                                                                        \
    static void name##_qk(const float *k, int64_t ldk, int64_t keys, const float *q, int64_t dim,  \
                          float *s, const void *ahead)                                             \
    {                                                                                              \
        qk_any(halves, k, ldk, keys, q, dim, s, ahead);                                            \
    }                                                                                              \
    static void name##_softmax(float *s, int64_t keys, float *m, float *l, float *alpha)           \
    {                                                                                              \
        softmax_any(halves, s, keys, m, l, alpha);                                                 \
    }                                                                                              \
    static void name##_pv(const float *v, int64_t ldv, int64_t keys, const float *p,               \
                          const float *alpha, int64_t dim, float *o, const void *ahead)            \
    {                                                                                              \
        pv_any(halves, v, ldv, keys, p, alpha, dim, o, ahead);                                     \
    }                                                                                              \
    static void name##_mask(float *s, int64_t keys, const int16_t *pos, const kn_attn_lanes *b)    \
    {                                                                                              \
        mask_any(halves, s, keys, pos, b);                                                         \
    }                                                                                              \
    const kn_attn_cpu_kernels kn_attn_cpu_##name = {.panel = (halves) * HALF,                      \
                                                    .qk = name##_qk,                               \
                                                    .softmax = name##_softmax,                     \
                                                    .pv = name##_pv,                               \
                                                    .mask = name##_mask}

TABLE(avx512, 2);
TABLE(avx512_16, 1);

#endif
