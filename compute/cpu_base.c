/* compute/cpu_base.c - the cpu kernels for any machine: 4 floats in the vector extension of GCC and
 * Clang, which becomes SSE2, NEON or plain code. */
#include <math.h>
#include <string.h>

#include "compute/cpu.h"

typedef float vec4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));
typedef uint32_t uint4 __attribute__((vector_size(16)));

#define VEC        vec4
#define LANES      4
#define STRIP_ROWS 6

static inline VEC vec_load(const float *p)
{
    VEC v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vec_store(float *p, VEC v)
{
    memcpy(p, &v, sizeof v);
}
static inline VEC vec_set1(float x)
{
    return (VEC){x, x, x, x};
}
static inline VEC vec_zero(void)
{
    return (VEC){0, 0, 0, 0};
}
static inline VEC vec_add(VEC a, VEC b)
{
    return a + b;
}
static inline VEC vec_sub(VEC a, VEC b)
{
    return a - b;
}
static inline VEC vec_mul(VEC a, VEC b)
{
    return a * b;
}
static inline VEC vec_div(VEC a, VEC b)
{
    return a / b;
}
static inline VEC vec_fma(VEC a, VEC b, VEC c)
{
    return a * b + c;
}
static inline float vec_sum(VEC v)
{
    return (v[0] + v[2]) + (v[1] + v[3]);
}

/* a where the mask is set, else b */
static inline VEC choose(int4 mask, VEC a, VEC b)
{
    return (VEC)((mask & (int4)a) | (~mask & (int4)b));
}
static inline VEC vec_max(VEC a, VEC b)
{
    return choose((int4)(a > b), a, b);
}
static inline VEC vec_min(VEC a, VEC b)
{
    return choose((int4)(a < b), a, b);
}
static inline VEC vec_abs(VEC x)
{
    return (VEC)((int4)x & (int4){0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff});
}
static inline VEC vec_if_neg(VEC x, VEC a, VEC b)
{
    return choose((int4)x < (int4){0, 0, 0, 0}, a, b);
}

/* Adding 1.5 * 2^23 leaves no fraction bits, so that the sum is rounded to a whole number. */
static inline VEC vec_round(VEC x)
{
    return (x + vec_set1(0x1.8p23f)) - vec_set1(0x1.8p23f);
}

/* n + 127 in the exponent field; the whole number stands in the low bits of n + 1.5 * 2^23. */
static inline VEC vec_pow2(VEC n)
{
    uint4 bias = {127, 127, 127, 127};
    return (VEC)(((uint4)(n + vec_set1(0x1.8p23f)) + bias) << 23);
}

static inline VEC vec_load_part(const float *p, int n)
{
    VEC v = vec_zero();
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

static inline void vec_store_part(float *p, VEC v, int n)
{
    memcpy(p, &v, (size_t)n * sizeof(float));
}

static inline VEC f16_load(const uint16_t *p)
{
    return (VEC){kn_f16_to_f32(p[0]), kn_f16_to_f32(p[1]), kn_f16_to_f32(p[2]),
                 kn_f16_to_f32(p[3])};
}

static inline void f16_store(uint16_t *p, VEC v)
{
    for (int i = 0; i < LANES; i++) p[i] = kn_f32_to_f16(v[i]);
}

/* Pairs (a, b) become (a cos - b sin, b cos + a sin). */
static inline VEC vec_rotate(VEC x, const float *cos, const float *sin)
{
    return (VEC){x[0] * cos[0] - x[1] * sin[0], x[1] * cos[0] + x[0] * sin[0],
                 x[2] * cos[1] - x[3] * sin[1], x[3] * cos[1] + x[2] * sin[1]};
}

#include "compute/cpu_vector.h"
#include "compute/cpu_strip.h"

const kn_cpu_kernels kn_cpu_base = CPU_KERNELS;
