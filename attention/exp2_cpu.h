/* attention/exp2_cpu.h - inside attention/: 2^x of the CPU kernels, on one lane and on whole vectors.
 *
 * 0 below 2^-126 (a weight that small cannot be seen beside the row's largest, which is 1, and denormal
 * operands are slow), NaN for NaN. x <= 0, except on AVX-512.
 */
#ifndef KN_ATTENTION_EXP2_CPU_H
#define KN_ATTENTION_EXP2_CPU_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* 2^f on [-1/2, 1/2], degree 6, fitted for the smallest largest relative error (1.9e-9; 8e-8 with
 * float rounding); exact at 0. */
#define KN_EXP2_C1 0x1.62e430p-1f
#define KN_EXP2_C2 0x1.ebfbdap-3f
#define KN_EXP2_C3 0x1.c6aed4p-5f
#define KN_EXP2_C4 0x1.3b2dbcp-7f
#define KN_EXP2_C5 0x1.5f456ap-10f
#define KN_EXP2_C6 0x1.41d334p-13f

#define KN_EXP2_LOW -126.0f

static inline float kn_exp2_lane(float x)
{
    float y = x < KN_EXP2_LOW ? KN_EXP2_LOW : x;
    /* Adding 1.5 * 2^23 leaves the nearest integer in the low bits. */
    const float magic = 12582912.0f;
    float t = y + magic;
    float f = y - (t - magic);
    float p = KN_EXP2_C6;
    p = p * f + KN_EXP2_C5;
    p = p * f + KN_EXP2_C4;
    p = p * f + KN_EXP2_C3;
    p = p * f + KN_EXP2_C2;
    p = p * f + KN_EXP2_C1;
    p = p * f + 1.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits - 0x4b400000u + 127u) << 23;
    float two_n;
    memcpy(&two_n, &bits, sizeof two_n);
    return x < KN_EXP2_LOW ? 0.0f : p * two_n;
}

#if defined(__AVX2__) && defined(__FMA__)
static inline __m256 kn_exp2_avx2(__m256 x)
{
    __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 f = _mm256_sub_ps(x, n);
    __m256 p = _mm256_set1_ps(KN_EXP2_C6);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KN_EXP2_C5));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KN_EXP2_C4));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KN_EXP2_C3));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KN_EXP2_C2));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KN_EXP2_C1));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
    __m256i e =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    __m256 y = _mm256_mul_ps(p, _mm256_castsi256_ps(e));
    __m256 seen = _mm256_cmp_ps(x, _mm256_set1_ps(KN_EXP2_LOW), _CMP_NLT_UQ);
    return _mm256_and_ps(y, seen);
}

#endif

#if defined(__AVX512F__)
static inline __m512 kn_exp2_avx512(__m512 x)
{
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(KN_EXP2_C6);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KN_EXP2_C5));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KN_EXP2_C4));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KN_EXP2_C3));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KN_EXP2_C2));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KN_EXP2_C1));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    __mmask16 seen = _mm512_cmp_ps_mask(x, _mm512_set1_ps(KN_EXP2_LOW), _CMP_NLT_UQ);
    return _mm512_maskz_scalef_ps(seen, p, n);
}

#endif

#endif
