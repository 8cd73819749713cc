/* pipeline/noise.c - see noise.h. */
#include "pipeline/noise.h"

#include <math.h>
#include <string.h>

/* ---- Mersenne Twister 19937 (Matsumoto, Nishimura 1998; 2002 seeding) -------------------------*/

enum { MT_N = KN_NOISE_STATE, MT_M = 397 };

void kn_noise_init(kn_noise *gen, uint64_t seed)
{
    gen->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < MT_N; i++) {
        uint32_t prev = gen->state[i - 1];
        gen->state[i] = 1812433253u * (prev ^ (prev >> 30)) + i;
    }
    gen->next = MT_N;
    gen->have_spare = false;
    gen->spare = 0.0;
}

static void mt_refill(kn_noise *gen)
{
    uint32_t *s = gen->state;
    for (int i = 0; i < MT_N; i++) {
        uint32_t after = s[(i + 1) % MT_N];
        uint32_t bits = (s[i] & 0x80000000u) | (after & 0x7fffffffu);
        s[i] = s[(i + MT_M) % MT_N] ^ (bits >> 1) ^ ((after & 1u) ? 0x9908b0dfu : 0u);
    }
    gen->next = 0;
}

static uint32_t mt_word(kn_noise *gen)
{
    if (gen->next == MT_N) mt_refill(gen);
    uint32_t y = gen->state[gen->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* [0, 1) with the 24 low bits of one word, and with the 53 low bits of two (first word high). */
static float uniform_f32(kn_noise *gen)
{
    return (float)(mt_word(gen) & 0xffffffu) * 0x1p-24f;
}

static double uniform_f64(kn_noise *gen)
{
    uint64_t high = mt_word(gen);
    uint64_t word = high << 32 | mt_word(gen);
    return (double)(word & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* ---- float32 logarithm, sine and cosine: Cephes polynomials -------------------------------------
 * fmaf() stands where the compiled torch fuses; everything else rounds once per operation, which
 * -ffp-contract=off keeps. Changing the order of two operations here changes the noise.
 */

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* ln x for x in [2^-24, 1]. x = m 2^e with m in [sqrt(1/2), sqrt(2)). */
static float cephes_log(float x)
{
    static const float p[9] = {7.0376836292E-2f,  -1.1514610310E-1f, 1.1676998740E-1f,
                               -1.2420140846E-1f, 1.4249322787E-1f,  -1.6668057665E-1f,
                               2.0000714765E-1f,  -2.4999993993E-1f, 3.3333331174E-1f};
    const float ln2_low = -2.12194440e-4f, ln2_high = 0.693359375f; /* their sum is ln 2 */

    uint32_t u = f32_bits(x);
    float e = (float)((int)(u >> 23) - 126);
    float m = bits_f32((u & 0x007fffffu) | 0x3f000000u); /* [0.5, 1) */
    float twice = m < 0.707106781186547524f ? m : 0.0f;
    if (twice != 0.0f) e -= 1.0f;
    m = (m - 1.0f) + twice;

    float z = m * m;
    float y = p[0];
    for (int i = 1; i < 9; i++) y = fmaf(y, m, p[i]);
    y = y * m;
    y = fmaf(y, z, e * ln2_low);
    y = fmaf(-z, 0.5f, y);
    return fmaf(e, ln2_high, m + y);
}

/* sin and cos of x >= 0, reduced by multiples of pi/4 to one of two polynomials. */
static void cephes_sincos(float x, float *sine, float *cosine)
{
    int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    float y = (float)octant;
    x = fmaf(y, -0.78515625f, x); /* pi/4 in three parts */
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);

    float z = x * x;
    float c = fmaf(2.443315711809948E-005f, z, -1.388731625493765E-003f);
    c = fmaf(c, z, 4.166664568298827E-002f);
    c = c * z;
    c = fmaf(c, z, -(z * 0.5f));
    c = c + 1.0f;
    float s = fmaf(-1.9515295891E-4f, z, 8.3321608736E-3f);
    s = fmaf(s, z, -1.6666654611E-1f);
    s = s * z;
    s = fmaf(s, x, x);

    bool swap = (octant & 2) != 0;
    *sine = swap ? c : s;
    *cosine = swap ? s : c;
    if (octant & 4) *sine = -*sine;
    if (!((octant - 2) & 4)) *cosine = -*cosine;
}

/* Box-Muller over 16 uniforms in place: value j and value j + 8 make a pair. */
static void normal_fill_16(float *data)
{
    for (int j = 0; j < 8; j++) {
        float radius = sqrtf(-2.0f * cephes_log(1.0f - data[j]));
        float s, c;
        cephes_sincos(6.283185307179586f * data[j + 8], &s, &c);
        /* torch multiplies by std 1 and adds mean 0, which turns -0 into +0 */
        data[j] = radius * c + 0.0f;
        data[j + 8] = radius * s + 0.0f;
    }
}

/* ---- the two forms ----------------------------------------------------------------------------*/

static float normal_scalar(kn_noise *gen)
{
    if (gen->have_spare) {
        gen->have_spare = false;
        return (float)gen->spare;
    }
    double u1 = uniform_f64(gen);
    double u2 = uniform_f64(gen);
    double radius = sqrt(-2.0 * log1p(-u2));
    double theta = 2.0 * 3.141592653589793238462643383279502 * u1;
    gen->spare = radius * sin(theta);
    gen->have_spare = true;
    return (float)(radius * cos(theta));
}

void kn_noise_normal(kn_noise *gen, float *out, int64_t count)
{
    if (count < 16) {
        for (int64_t i = 0; i < count; i++) out[i] = normal_scalar(gen);
        return;
    }
    for (int64_t i = 0; i < count; i++) out[i] = uniform_f32(gen);
    for (int64_t i = 0; i + 16 <= count; i += 16) normal_fill_16(out + i);
    if (count % 16 != 0) {
        /* the last 16 are drawn anew, over values that are done already */
        float *tail = out + count - 16;
        for (int i = 0; i < 16; i++) tail[i] = uniform_f32(gen);
        normal_fill_16(tail);
    }
}
