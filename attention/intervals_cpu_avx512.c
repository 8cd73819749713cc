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

#define TABLE kn_attn_intervals_avx512
#include "attention/interval_kernels.h"

#endif
