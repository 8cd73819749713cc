/* compute/cpu_avx512.c - the cpu kernels with AVX-512 F, BW, VL, DQ: 16 floats, 32 registers. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "compute/cpu.h"

#define VEC          __m512
#define LANES        16
#define STRIP_ROWS   14 /* 28 sums, two vectors of weights, one of x */
#define vec_load     _mm512_loadu_ps
#define vec_store    _mm512_storeu_ps
#define vec_set1     _mm512_set1_ps
#define vec_zero     _mm512_setzero_ps
#define vec_add      _mm512_add_ps
#define vec_sub      _mm512_sub_ps
#define vec_mul      _mm512_mul_ps
#define vec_div      _mm512_div_ps
#define vec_fma      _mm512_fmadd_ps
#define vec_max      _mm512_max_ps
#define vec_min      _mm512_min_ps
#define vec_abs      _mm512_abs_ps
#define vec_sum      _mm512_reduce_add_ps
#define vec_round(x) _mm512_roundscale_ps((x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define vec_pow2(n)  _mm512_scalef_ps(_mm512_set1_ps(1.0f), (n))
#define vec_if_neg(x, a, b)                                                                        \
    _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), (b), (a))
#define first_lanes(n)          ((__mmask16)((1u << (n)) - 1u))
#define vec_load_part(p, n)     _mm512_maskz_loadu_ps(first_lanes(n), (p))
#define vec_store_part(p, v, n) _mm512_mask_storeu_ps((p), first_lanes(n), (v))
#define f16_load(p)             _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define f16_store(p, v)                                                                            \
    _mm256_storeu_si256((__m256i *)(p), _mm512_cvtps_ph((v), _MM_FROUND_TO_NEAREST_INT))

/* Pairs (a, b) become (a cos - b sin, b cos + a sin). */
static inline VEC vec_rotate(VEC x, const float *cos, const float *sin)
{
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    VEC c = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(cos)));
    VEC s = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(sin)));
    return _mm512_fmaddsub_ps(x, c, _mm512_mul_ps(_mm512_permute_ps(x, 0xb1), s));
}

#include "compute/cpu_vector.h"
#include "compute/cpu_strip.h"

const kn_cpu_kernels kn_cpu_avx512 = CPU_KERNELS;
#endif
