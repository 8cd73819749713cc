/* AVX-512 kernels of intervals_cpu.h: 6 x 4 vectors of accumulators, 4 of keys and a broadcast; 10 loads
 * feed 24 fused multiply-adds.
 */
#if defined(__AVX512F__)

#include <immintrin.h>

#include "attention/exp2_cpu.h"

#define INLINE static inline __attribute__((always_inline))

#define TILE 4
enum { LANES = 16 };
typedef __m512 vec;

INLINE vec vec_load(const float *x)
{
    return _mm512_loadu_ps(x);
}
INLINE void vec_store(float *to, vec x)
{
    _mm512_storeu_ps(to, x);
}
INLINE vec vec_set(float x)
{
    return _mm512_set1_ps(x);
}
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
INLINE vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
INLINE vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
INLINE vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
INLINE vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
INLINE float vec_largest(vec x)
{
    return _mm512_reduce_max_ps(x);
}
INLINE float vec_sum(vec x)
{
    return _mm512_reduce_add_ps(x);
}
INLINE vec vec_keep(vec x, int n)
{
    return _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), (__mmask16)((1u << n) - 1), x);
}
INLINE vec vec_exp2(vec x)
{
    return kn_exp2_avx512(x);
}
/* Pairs of rows, then of pairs, then quarters twice: after each, lanes that lie together are of
 * twice as many rows. */
INLINE void vec_turn(vec *x)
{
    vec y[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_shuffle_ps(y[i], y[i + 2], 0x44);
        x[i + 1] = _mm512_shuffle_ps(y[i], y[i + 2], 0xee);
        x[i + 2] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0x44);
        x[i + 3] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0xee);
    }
    /* Quarter q of x[4 g + c] is column 4 q + c of rows 4 g .. 4 g + 3. */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        vec even01 = _mm512_shuffle_f32x4(x[c], x[4 + c], 0x88);
        vec odd01 = _mm512_shuffle_f32x4(x[c], x[4 + c], 0xdd);
        vec even23 = _mm512_shuffle_f32x4(x[8 + c], x[12 + c], 0x88);
        vec odd23 = _mm512_shuffle_f32x4(x[8 + c], x[12 + c], 0xdd);
        y[c] = _mm512_shuffle_f32x4(even01, even23, 0x88);
        y[8 + c] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
        y[4 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
        y[12 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) x[i] = y[i];
}

#define TABLE kn_attn_intervals_avx512
#include "attention/interval_kernels.h"

#endif
