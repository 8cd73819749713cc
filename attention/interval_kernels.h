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
 *   vec_turn(x)          LANES vectors, a square: rows become columns
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

/* last: lanes of the last vector that are keys. */
INLINE void qk_tile(int rows, int vecs, const float *q, int64_t ldq, const float *kt, int64_t ldk,
                    int64_t dim, int last, float *s, int64_t lds)
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
            vec x = vec_set(q[r * ldq + d]);
#pragma GCC unroll 4
            for (int i = 0; i < vecs; i++) acc[r][i] = vec_fma(x, k[i], acc[r][i]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            vec_store(s + r * lds + i * LANES,
                      i < vecs - 1 ? acc[r][i] : vec_keep(acc[r][i], last));
}

/* Vectors of the next tile, of `left`: tiles of about equal size, as a narrow one waits for each of
 * its multiply-adds. */
INLINE int64_t tile_of(int64_t left)
{
    int64_t tiles = (left + TILE - 1) / TILE;
    return (left + tiles - 1) / tiles;
}

static void qk(const float *q, int64_t ldq, int rows, const float *kt, int64_t ldk, int64_t keys,
               int64_t dim, float *s, int64_t lds)
{
    int64_t all = (keys + LANES - 1) / LANES, vecs;
    for (int64_t at = 0; at < all; at += vecs) {
        vecs = tile_of(all - at);
        int64_t left = keys - (at + vecs - 1) * LANES;
        int last = left < LANES ? (int)left : LANES;
#define TILE_CALL(rows, vecs)                                                                      \
    qk_tile(rows, vecs, q, ldq, kt + at * LANES, ldk, dim, last, s + at * LANES, lds)
        FOR_TILE()
#undef TILE_CALL
    }
    int64_t padded = (keys + KN_ATTN_LANES - 1) / KN_ATTN_LANES * KN_ATTN_LANES;
    for (int64_t j = all * LANES; j < padded; j += LANES)
        for (int r = 0; r < rows; r++) vec_store(s + r * lds + j, vec_set(-INFINITY));
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

INLINE void pv_tile(int rows, int vecs, const float *s, int64_t lds, const float *v, int64_t keys,
                    const float *alpha, int64_t width, float *o, int64_t ldo)
{
    vec acc[KN_ATTN_BAND][TILE], x[TILE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) {
            acc[r][i] = vec_load(o + r * ldo + i * LANES);
            if (alpha) acc[r][i] = vec_mul(acc[r][i], vec_set(alpha[r]));
        }
    for (const float *end = s + keys; s < end; s++, v += width) {
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) x[i] = vec_load(v + i * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            vec weight = vec_set(s[r * lds]);
#pragma GCC unroll 4
            for (int i = 0; i < vecs; i++) acc[r][i] = vec_fma(weight, x[i], acc[r][i]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) vec_store(o + r * ldo + i * LANES, acc[r][i]);
}

static void pv(const float *s, int rows, int64_t lds, const float *v, int64_t keys,
               const float *alpha, int64_t width, float *o, int64_t ldo)
{
    int64_t all = width / LANES, vecs;
    for (int64_t at = 0; at < all; at += vecs) {
        vecs = tile_of(all - at);
#define TILE_CALL(rows, vecs)                                                                      \
    pv_tile(rows, vecs, s, lds, v + at * LANES, keys, alpha, width, o + at * LANES, ldo)
        FOR_TILE()
#undef TILE_CALL
    }
}

static void turn(const float *const *row, float scale, int64_t dim, float *out, int64_t ldk)
{
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        for (int j = 0; j < KN_ATTN_LANES; j += LANES) {
            vec x[LANES];
#pragma GCC unroll 16
            for (int r = 0; r < LANES; r++)
                x[r] = vec_mul(vec_load(row[j + r] + d), vec_set(scale));
            vec_turn(x);
#pragma GCC unroll 16
            for (int r = 0; r < LANES; r++) vec_store(out + (d + r) * ldk + j, x[r]);
        }
    for (; d < dim; d++)
        for (int j = 0; j < KN_ATTN_LANES; j++) out[d * ldk + j] = row[j][d] * scale;
}

const kn_attn_interval_kernels TABLE = {.turn = turn, .qk = qk, .softmax = softmax, .pv = pv};
