/* AVX2 + FMA kernels of the CPU attention executor: panels of 16 queries. See sparse_cpu.h. Six
 * rows of two vectors fill the 16 registers: 12 accumulators, two operands, one broadcast.
 */
#include "attention/exp2_cpu.h"
#include "attention/sparse_cpu.h"

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>
#include <math.h>
#include <stddef.h>

enum { W = 16, HALF = 8 };

#define INLINE static inline __attribute__((always_inline))

/* acc[r] += sum_i a[i*step + r*row] b[i,:], for r < rows (a constant at every call). Each step also
 * asks for one cache line at `ahead`, unless that is NULL. */
INLINE void product(int rows, const float *a, int64_t row, int64_t step, const float *b,
                    int64_t count, const char *ahead, __m256 acc[6][2])
{
    for (int64_t i = 0; i < count; i++) {
        if (ahead) _mm_prefetch(ahead + 64 * i, _MM_HINT_T1);
        __m256 b0 = _mm256_loadu_ps(b + i * W);
        __m256 b1 = _mm256_loadu_ps(b + i * W + HALF);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m256 x = _mm256_broadcast_ss(a + i * step + r * row);
            acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
        }
    }
}

INLINE void store(int rows, float *out, __m256 acc[6][2])
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        _mm256_storeu_ps(out + r * W, acc[r][0]);
        _mm256_storeu_ps(out + r * W + HALF, acc[r][1]);
    }
}

INLINE void qk_rows(int rows, const float *k, int64_t ldk, const float *q, int64_t dim, float *s,
                    const char *ahead)
{
    __m256 acc[6][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    if (ahead)
        product(rows, k, ldk, 1, q, dim, ahead, acc);
    else
        product(rows, k, ldk, 1, q, dim, NULL, acc);
    store(rows, s, acc);
}

static void qk(const float *k, int64_t ldk, int64_t keys, const float *q, int64_t dim, float *s,
               const void *ahead)
{
    int64_t j = 0;
    const char *line = ahead;
    for (; keys - j >= 6; j += 6) {
        qk_rows(6, k + j * ldk, ldk, q, dim, s + j * W, line);
        if (line) line += 64 * dim;
    }
    int64_t rest = keys - j;
    if (j > 0) {
        /* The rest by one kernel that reaches back over rows already done, which come out the same:
         * a row alone waits for each of its multiply-adds. */
        j = keys - (rest > 4 ? 6 : 4);
        if (rest > 4)
            qk_rows(6, k + j * ldk, ldk, q, dim, s + j * W, NULL);
        else if (rest > 0)
            qk_rows(4, k + j * ldk, ldk, q, dim, s + j * W, NULL);
        return;
    }
    for (; keys - j >= 4; j += 4) qk_rows(4, k + j * ldk, ldk, q, dim, s + j * W, NULL);
    for (; j < keys; j++) qk_rows(1, k + j * ldk, ldk, q, dim, s + j * W, NULL);
}

INLINE void pv_rows(int rows, const float *v, int64_t ldv, int64_t keys, const float *p, __m256 a0,
                    __m256 a1, float *o, const char *ahead)
{
    __m256 acc[6][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        acc[r][0] = _mm256_mul_ps(_mm256_loadu_ps(o + r * W), a0);
        acc[r][1] = _mm256_mul_ps(_mm256_loadu_ps(o + r * W + HALF), a1);
    }
    if (ahead)
        product(rows, v, 1, ldv, p, keys, ahead, acc);
    else
        product(rows, v, 1, ldv, p, keys, NULL, acc);
    store(rows, o, acc);
}

static void pv(const float *v, int64_t ldv, int64_t keys, const float *p, const float *alpha,
               int64_t dim, float *o, const void *ahead)
{
    const char *line = ahead;
    __m256 a0 = alpha ? _mm256_loadu_ps(alpha) : _mm256_set1_ps(1.0f);
    __m256 a1 = alpha ? _mm256_loadu_ps(alpha + HALF) : _mm256_set1_ps(1.0f);
    int64_t d = 0;
    for (; dim - d >= 6; d += 6) {
        pv_rows(6, v + d, ldv, keys, p, a0, a1, o + d * W, line);
        if (line) line += 64 * keys;
    }
    for (; dim - d >= 4; d += 4) pv_rows(4, v + d, ldv, keys, p, a0, a1, o + d * W, NULL);
    for (; d < dim; d++) pv_rows(1, v + d, ldv, keys, p, a0, a1, o + d * W, NULL);
}

INLINE void softmax_half(float *s, int64_t keys, float *m, float *l, float *alpha)
{
    /* Four chains each, so that latency does not bind. */
    __m256 top[4], sum[4];
    __m256 old = _mm256_loadu_ps(m);
    top[0] = top[1] = top[2] = top[3] = old;
    int64_t j = 0;
    for (; j + 4 <= keys; j += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            top[i] = _mm256_max_ps(top[i], _mm256_loadu_ps(s + (j + i) * W));
    for (; j < keys; j++) top[0] = _mm256_max_ps(top[0], _mm256_loadu_ps(s + j * W));
    __m256 now = _mm256_max_ps(_mm256_max_ps(top[0], top[1]), _mm256_max_ps(top[2], top[3]));
    _mm256_storeu_ps(m, now);
    /* Nothing visible yet: subtract 0, or -inf minus -inf would give NaN. */
    now = _mm256_andnot_ps(_mm256_cmp_ps(now, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ), now);
    __m256 a = kn_exp2_avx2(_mm256_sub_ps(old, now));
    _mm256_storeu_ps(alpha, a);
    sum[0] = sum[1] = sum[2] = sum[3] = _mm256_setzero_ps();
    for (j = 0; j + 4 <= keys; j += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            float *at = s + (j + i) * W;
            __m256 p = kn_exp2_avx2(_mm256_sub_ps(_mm256_loadu_ps(at), now));
            _mm256_storeu_ps(at, p);
            sum[i] = _mm256_add_ps(sum[i], p);
        }
    for (; j < keys; j++) {
        __m256 p = kn_exp2_avx2(_mm256_sub_ps(_mm256_loadu_ps(s + j * W), now));
        _mm256_storeu_ps(s + j * W, p);
        sum[0] = _mm256_add_ps(sum[0], p);
    }
    sum[0] = _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]));
    _mm256_storeu_ps(l, _mm256_fmadd_ps(_mm256_loadu_ps(l), a, sum[0]));
}

static void softmax(float *s, int64_t keys, float *m, float *l, float *alpha)
{
    for (int h = 0; h < W; h += HALF) softmax_half(s + h, keys, m + h, l + h, alpha + h);
}

/* All ones in the lanes that do not see coordinate c on one axis. */
INLINE __m256i axis_hidden(const kn_attn_lanes *b, int axis, int lane, int32_t c)
{
    __m256i lo = _mm256_loadu_si256((const __m256i *)(b->lo[axis] + lane));
    __m256i len = _mm256_loadu_si256((const __m256i *)(b->len[axis] + lane));
    __m256i at = _mm256_set1_epi32(c);
    __m256i out = _mm256_or_si256(
        _mm256_cmpgt_epi32(lo, at),
        _mm256_cmpgt_epi32(at, _mm256_sub_epi32(_mm256_add_epi32(lo, len), _mm256_set1_epi32(1))));
    if (b->dilation[axis] > 1) {
        __m256i r = _mm256_loadu_si256((const __m256i *)(b->residue[axis] + lane));
        __m256i same = _mm256_cmpeq_epi32(r, _mm256_set1_epi32(c % b->dilation[axis]));
        out = _mm256_or_si256(out, _mm256_xor_si256(same, _mm256_set1_epi32(-1)));
    }
    return out;
}

static void mask(float *s, int64_t keys, const int16_t *pos, const kn_attn_lanes *b)
{
    const __m256 hidden = _mm256_set1_ps(-INFINITY);
    for (int64_t j = 0; j < keys; j++)
        for (int lane = 0; lane < W; lane += HALF) {
            __m256i out = _mm256_or_si256(axis_hidden(b, 0, lane, pos[3 * j]),
                                          _mm256_or_si256(axis_hidden(b, 1, lane, pos[3 * j + 1]),
                                                          axis_hidden(b, 2, lane, pos[3 * j + 2])));
            float *at = s + j * W + lane;
            _mm256_storeu_ps(
                at, _mm256_blendv_ps(_mm256_loadu_ps(at), hidden, _mm256_castsi256_ps(out)));
        }
}

const kn_attn_cpu_kernels kn_attn_cpu_avx2 = {
    .panel = W, .qk = qk, .softmax = softmax, .pv = pv, .mask = mask};

#endif
