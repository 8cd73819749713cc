/* compute/cpu_avx2.c - the cpu kernels with AVX2, FMA and F16C: 8 floats, 16 registers. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "compute/cpu.h"

#define VEC                     __m256
#define LANES                   8
#define STRIP_ROWS              6 /* 12 sums, two vectors of weights, one of x */
#define vec_load                _mm256_loadu_ps
#define vec_store               _mm256_storeu_ps
#define vec_set1                _mm256_set1_ps
#define vec_zero                _mm256_setzero_ps
#define vec_add                 _mm256_add_ps
#define vec_sub                 _mm256_sub_ps
#define vec_mul                 _mm256_mul_ps
#define vec_div                 _mm256_div_ps
#define vec_fma                 _mm256_fmadd_ps
#define vec_max                 _mm256_max_ps
#define vec_min                 _mm256_min_ps
#define vec_abs(x)              _mm256_andnot_ps(_mm256_set1_ps(-0.0f), (x))
#define vec_round(x)            _mm256_round_ps((x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define vec_if_neg(x, a, b)     _mm256_blendv_ps((b), (a), (x))
#define vec_load_part(p, n)     _mm256_maskload_ps((p), first_lanes(n))
#define vec_store_part(p, v, n) _mm256_maskstore_ps((p), first_lanes(n), (v))
#define f16_load(p)             _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define f16_store(p, v)                                                                            \
    _mm_storeu_si128((__m128i *)(p), _mm256_cvtps_ph((v), _MM_FROUND_TO_NEAREST_INT))

static inline __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline float vec_sum(VEC v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline VEC vec_pow2(VEC n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

/* Pairs (a, b) become (a cos - b sin, b cos + a sin). */
static inline VEC vec_rotate(VEC x, const float *cos, const float *sin)
{
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    VEC c = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(cos)), twice);
    VEC s = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(sin)), twice);
    return _mm256_fmaddsub_ps(x, c, _mm256_mul_ps(_mm256_permute_ps(x, 0xb1), s));
}

#include "compute/cpu_vector.h"
#include "compute/cpu_strip.h"

const kn_cpu_kernels kn_cpu_avx2 = CPU_KERNELS;
#endif
