/* attention/interval_kernels.h - inside attention/: the kernels of intervals_cpu.h, written once for
 * vectors of any width.
 *
 * The including file defines the macros INLINE, TABLE (the table's name) and TILE (1, 2 or 4: vectors
 * beside each other that the registers hold for KN_ATTN_BAND rows), the type `vec` of LANES floats, and on it
 *   vec_load vec_store   unaligned
 *   vec_set              one float in all lanes
 *   vec_fma(a, b, c)     a b + c
 *   vec_max vec_add vec_mul vec_sub
 *   vec_largest vec_sum  of all lanes
 *   vec_exp2             2^x for x <= 0, 0 below 2^-126, NaN for NaN
 *   vec_keep(x, n)       x in lanes below n, -inf in others
 */
#include "attention/intervals_cpu.h"

#include <math.h>

/* TILE_CALL with `rows` and `vecs` as constants. */
#if TILE == 1
#define FOR_VECS(rows) TILE_CALL(rows, 1)
#elif TILE == 2
#define FOR_VECS(rows)                                                                             \
    if (vecs == 1)                                                                                 \
        TILE_CALL(rows, 1);                                                                        \
    else                                                                                           \
        TILE_CALL(rows, 2)
#else
#define FOR_VECS(rows)                                                                             \
    switch (vecs) {                                                                                \
    case 1: TILE_CALL(rows, 1); break;                                                             \
    case 2: TILE_CALL(rows, 2); break;                                                             \
    case 3: TILE_CALL(rows, 3); break;                                                             \
    default: TILE_CALL(rows, 4); break;                                                            \
    }
#endif
#define FOR_TILE()                                                                                 \
    switch (rows) {                                                                                \
    case 1: FOR_VECS(1); break;                                                                    \
    case 2: FOR_VECS(2); break;                                                                    \
    case 3: FOR_VECS(3); break;                                                                    \
    case 4: FOR_VECS(4); break;                                                                    \
    case 5: FOR_VECS(5); break;                                                                    \
    default: FOR_VECS(6); break;                                                                   \
    }

INLINE void qk_tile(int rows, int vecs, const float *q, const float *kt, int64_t ldk, int64_t dim,
                    float *s, int64_t lds)
{
    vec acc[KN_ATTN_BAND][TILE], k[TILE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) acc[r][i] = vec_set(0.0f);
    for (int64_t d = 0; d < dim; d++, kt += ldk) {
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) k[i] = vec_load(kt + i * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            vec x = vec_set(q[r * dim + d]);
#pragma GCC unroll 4
            for (int i = 0; i < vecs; i++) acc[r][i] = vec_fma(x, k[i], acc[r][i]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) vec_store(s + r * lds + i * LANES, acc[r][i]);
}

/* Vectors of the next tile, of `left`: tiles of about equal size, as a narrow one waits for each of
 * its multiply-adds. */
INLINE int64_t tile_of(int64_t left)
{
    int64_t tiles = (left + TILE - 1) / TILE;
    return (left + tiles - 1) / tiles;
}

static void qk(const float *q, int rows, const float *kt, int64_t ldk, int64_t keys, int64_t dim,
               float *s, int64_t lds)
{
    int64_t all = (keys + LANES - 1) / LANES, vecs;
    for (int64_t at = 0; at < all; at += vecs) {
        vecs = tile_of(all - at);
#define TILE_CALL(rows, vecs) qk_tile(rows, vecs, q, kt + at * LANES, ldk, dim, s + at * LANES, lds)
        FOR_TILE()
#undef TILE_CALL
    }
    int64_t padded = (keys + KN_ATTN_LANES - 1) / KN_ATTN_LANES * KN_ATTN_LANES, last = keys / LANES * LANES;
    for (int r = 0; r < rows && last < padded; r++) {
        float *row = s + r * lds;
        if (keys > last) vec_store(row + last, vec_keep(vec_load(row + last), (int)(keys - last)));
        for (int64_t j = all * LANES; j < padded; j += LANES) vec_store(row + j, vec_set(-INFINITY));
    }
}

static float softmax(float *s, int64_t width, float *m, float *l)
{
    enum { CHAINS = 4, STEP = CHAINS * LANES }; /* so that latency does not bind */
    vec top[CHAINS], sum[CHAINS];
    int64_t j = 0;
    for (int i = 0; i < CHAINS; i++) top[i] = vec_set(*m), sum[i] = vec_set(0.0f);
    for (; j + STEP <= width; j += STEP)
#pragma GCC unroll 4
        for (int i = 0; i < CHAINS; i++) top[i] = vec_max(top[i], vec_load(s + j + i * LANES));
    for (; j < width; j += LANES) top[0] = vec_max(top[0], vec_load(s + j));
    float now = vec_largest(vec_max(vec_max(top[0], top[1]), vec_max(top[2], top[3])));
    /* Nothing visible yet: subtract 0, or -inf minus -inf would give NaN. */
    vec minus = vec_set(now == -INFINITY ? 0.0f : now);
    for (j = 0; j + STEP <= width; j += STEP)
#pragma GCC unroll 4
        for (int i = 0; i < CHAINS; i++) {
            vec p = vec_exp2(vec_sub(vec_load(s + j + i * LANES), minus));
            vec_store(s + j + i * LANES, p);
            sum[i] = vec_add(sum[i], p);
        }
    for (; j < width; j += LANES) {
        vec p = vec_exp2(vec_sub(vec_load(s + j), minus));
        vec_store(s + j, p);
        sum[0] = vec_add(sum[0], p);
    }
    float alpha = *m == now ? 1.0f : exp2f(*m - now);
    *l = *l * alpha + vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
    *m = now;
    return alpha;
}

INLINE void pv_tile(int rows, int vecs, const float *s, int64_t lds,
                    const kn_attn_interval *intervals, int count, const float *v,
                    const float *alpha, int64_t dim, float *o)
{
    vec acc[KN_ATTN_BAND][TILE], x[TILE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            acc[r][i] = vec_mul(vec_load(o + r * dim + i * LANES), vec_set(alpha[r]));
    for (int n = 0; n < count; n++) {
        const float *p = s + intervals[n].at, *row = v + intervals[n].key * dim;
        for (const float *end = p + intervals[n].count; p < end; p++, row += dim) {
#pragma GCC unroll 4
            for (int i = 0; i < vecs; i++) x[i] = vec_load(row + i * LANES);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                vec weight = vec_set(p[r * lds]);
#pragma GCC unroll 4
                for (int i = 0; i < vecs; i++) acc[r][i] = vec_fma(weight, x[i], acc[r][i]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) vec_store(o + r * dim + i * LANES, acc[r][i]);
}

static void pv(const float *s, int rows, int64_t lds, const kn_attn_interval *intervals, int count,
               const float *v, const float *alpha, int64_t dim, float *o)
{
    int64_t all = dim / LANES, vecs;
    for (int64_t at = 0; at < all; at += vecs) {
        vecs = tile_of(all - at);
#define TILE_CALL(rows, vecs)                                                                      \
    pv_tile(rows, vecs, s, lds, intervals, count, v + at * LANES, alpha, dim, o + at * LANES)
        FOR_TILE()
#undef TILE_CALL
    }
}

const kn_attn_interval_kernels TABLE = {.qk = qk, .softmax = softmax, .pv = pv};
