/* Plain C kernels of intervals_cpu.h, for any machine: vectors are loops of constant length that the
 * compiler turns into whatever the base instruction set has.
 */
#include "attention/exp2_cpu.h"

#include <math.h>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#define TILE 1
enum { LANES = 8 };
typedef struct vec {
    float x[LANES];
} vec;

#define EACH_LANE(value)                                                                           \
    vec y;                                                                                         \
    for (int i = 0; i < LANES; i++) y.x[i] = (value);                                              \
    return y

INLINE vec vec_load(const float *x)
{
    EACH_LANE(x[i]);
}
INLINE void vec_store(float *to, vec x)
{
    memcpy(to, x.x, sizeof x.x);
}
INLINE vec vec_set(float x)
{
    EACH_LANE(x);
}
INLINE vec vec_fma(vec a, vec b, vec c)
{
    EACH_LANE(a.x[i] * b.x[i] + c.x[i]);
}
INLINE vec vec_max(vec a, vec b)
{
    EACH_LANE(a.x[i] > b.x[i] ? a.x[i] : b.x[i]);
}
INLINE vec vec_add(vec a, vec b)
{
    EACH_LANE(a.x[i] + b.x[i]);
}
INLINE vec vec_sub(vec a, vec b)
{
    EACH_LANE(a.x[i] - b.x[i]);
}
INLINE vec vec_mul(vec a, vec b)
{
    EACH_LANE(a.x[i] * b.x[i]);
}
INLINE float vec_largest(vec x)
{
    float y = x.x[0];
    for (int i = 1; i < LANES; i++) y = x.x[i] > y ? x.x[i] : y;
    return y;
}
INLINE float vec_sum(vec x)
{
    float y = 0.0f;
    for (int i = 0; i < LANES; i++) y += x.x[i];
    return y;
}
INLINE vec vec_keep(vec x, int n)
{
    EACH_LANE(i < n ? x.x[i] : -INFINITY);
}
INLINE vec vec_exp2(vec x)
{
    EACH_LANE(kn_exp2_lane(x.x[i]));
}
INLINE void vec_turn(vec *x)
{
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            float y = x[i].x[j];
            x[i].x[j] = x[j].x[i];
            x[j].x[i] = y;
        }
}

#define TABLE kn_attn_intervals_base
#include "attention/interval_kernels.h"
