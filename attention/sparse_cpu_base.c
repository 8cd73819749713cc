/* Plain C kernels of the CPU attention executor, for any machine: panels of 16 queries. See
 * sparse_cpu.h; the loops over lanes have constant length and independent iterations, so the
 * compiler vectorises them for whatever the base instruction set is.
 */
#include <math.h>
#include <string.h>

#include "attention/exp2_cpu.h"
#include "attention/sparse_cpu.h"

enum { W = 16 };

static void qk(const float *k, int64_t ldk, int64_t keys, const float *q, int64_t dim, float *s,
               const void *ahead)
{
    (void)ahead;
    for (int64_t j = 0; j < keys; j++) {
        float acc[W] = {0};
        for (int64_t d = 0; d < dim; d++)
            for (int i = 0; i < W; i++) acc[i] += k[j * ldk + d] * q[d * W + i];
        memcpy(s + j * W, acc, sizeof acc);
    }
}

static void pv(const float *v, int64_t ldv, int64_t keys, const float *p, const float *alpha,
               int64_t dim, float *o, const void *ahead)
{
    (void)ahead;
    for (int64_t d = 0; d < dim; d++) {
        float acc[W];
        for (int i = 0; i < W; i++) acc[i] = o[d * W + i] * (alpha ? alpha[i] : 1.0f);
        for (int64_t j = 0; j < keys; j++)
            for (int i = 0; i < W; i++) acc[i] += v[j * ldv + d] * p[j * W + i];
        memcpy(o + d * W, acc, sizeof acc);
    }
}

static void softmax(float *s, int64_t keys, float *m, float *l, float *alpha)
{
    float top[W], sum[W] = {0};
    memcpy(top, m, sizeof top);
    for (int64_t j = 0; j < keys; j++)
        for (int i = 0; i < W; i++) top[i] = s[j * W + i] > top[i] ? s[j * W + i] : top[i];
    for (int i = 0; i < W; i++) {
        /* Nothing visible yet: subtract 0, or -inf minus -inf would give NaN. */
        float now = top[i] == -INFINITY ? 0.0f : top[i];
        alpha[i] = kn_exp2_lane(m[i] - now);
        m[i] = top[i];
        top[i] = now;
    }
    for (int64_t j = 0; j < keys; j++)
        for (int i = 0; i < W; i++) {
            float p = kn_exp2_lane(s[j * W + i] - top[i]);
            s[j * W + i] = p;
            sum[i] += p;
        }
    for (int i = 0; i < W; i++) l[i] = l[i] * alpha[i] + sum[i];
}

static void mask(float *s, int64_t keys, const int16_t *pos, const kn_attn_lanes *b)
{
    for (int64_t j = 0; j < keys; j++)
        for (int axis = 0; axis < 3; axis++) {
            int32_t c = pos[3 * j + axis], dilation = b->dilation[axis];
            int32_t residue = dilation > 1 ? c % dilation : 0;
            for (int i = 0; i < W; i++) {
                int hidden = c < b->lo[axis][i] || c >= b->lo[axis][i] + b->len[axis][i] ||
                             (dilation > 1 && residue != b->residue[axis][i]);
                s[j * W + i] = hidden ? -INFINITY : s[j * W + i];
            }
        }
}

const kn_attn_cpu_kernels kn_attn_cpu_base = {
    .panel = W, .qk = qk, .softmax = softmax, .pv = pv, .mask = mask};
