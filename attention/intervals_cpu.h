/* attention/intervals_cpu.h - inside attention/: plans whose queries see whole intervals of keys, on
 * a CPU.
 *
 * Purpose   Where a window spans all frames and tokens lie in (h,w,t) order, what a query sees of a
 *           row of the image is one interval of keys, and all queries of a time column see the same
 *           ones. So nothing is masked and nothing is listed in vain: the queries of a column are taken
 *           together and read the keys that they see and no others. Panels of 32 queries
 *           (sparse_cpu.c) pay for the union of their windows instead.
 * Layout    The roles of sparse_cpu.h are swapped: lanes are keys. Keys are stored transposed, in
 *           chunks of consecutive tokens, chunk [D][ldk]; queries, scores and outputs are row-major.
 *           A vector of keys is used by up to KN_ATTN_BAND queries, a vector of a value row too.
 *           Values are stored in tiles of channels, tile [tokens][width].
 * Waste     Intervals are rounded up to whole vectors in the first product: 55 keys to 64.
 * Units     Scores are in powers of two: keys are scaled by scale * log2(e) when they are packed.
 * Threads   Kernels touch only what they are given.
 */
#ifndef KN_ATTENTION_INTERVALS_CPU_H
#define KN_ATTENTION_INTERVALS_CPU_H

#include "attention/executors.h"

/* Most queries of one kernel call; lanes of the widest table: rows and intervals of scores are padded
 * to multiples of it. */
enum { KN_ATTN_BAND = 6, KN_ATTN_LANES = 16 };

typedef struct kn_attn_interval_kernels {
    /* out[d*ldk + j] = row[j][d] scale for j < KN_ATTN_LANES, d < dim. */
    void (*turn)(const float *const *row, float scale, int64_t dim, float *out, int64_t ldk);
    /* s[r*lds + j] = sum_d q[r*ldq + d] kt[d*ldk + j] for r < rows <= KN_ATTN_BAND, j < keys; -inf
     * for j from keys to the next multiple of KN_ATTN_LANES. Reads as many columns of kt. */
    void (*qk)(const float *q, int64_t ldq, int rows, const float *kt, int64_t ldk, int64_t keys,
               int64_t dim, float *s, int64_t lds);
    /* One online-softmax step of a row of `width` scores, a multiple of KN_ATTN_LANES, at least one of
     * them finite: m' = max(m, max s); s = 2^(s - m'); l = l 2^(m - m') + sum s; m = m'. Returns
     * 2^(m - m'). */
    float (*softmax)(float *s, int64_t width, float *m, float *l);
    /* o[r*ldo + c] = o[r*ldo + c] alpha[r] + sum over j < keys of s[r*lds + j] v[j*width + c] for
     * r < rows, c < width, a multiple of KN_ATTN_LANES; alpha NULL means 1. */
    void (*pv)(const float *s, int rows, int64_t lds, const float *v, int64_t keys,
               const float *alpha, int64_t width, float *o, int64_t ldo);
} kn_attn_interval_kernels;

extern const kn_attn_interval_kernels kn_attn_intervals_base;
#if defined(__x86_64__)
extern const kn_attn_interval_kernels kn_attn_intervals_avx2;
extern const kn_attn_interval_kernels kn_attn_intervals_avx512;
#endif

/* May, and should, a plan run this way? Windows over all frames, tokens in (h,w,t) order.
 * Depends on shapes and the plan only, not on the device. Looks at every position
 * once. */
bool kn_attn_intervals_fit(const kn_attn_plan *plan, int64_t dim, int64_t dv);
/* What such a plan costs, in dense attentions: visible pairs, half of them in whole vectors. */
double kn_attn_intervals_cost(const kn_attn_plan *plan);
/* Floats of packed keys and values that such a call needs... */
int64_t kn_attn_intervals_floats(const kn_attn_args *args, const kn_attn_plan *plan);
/* ...and the call. */
void kn_attn_run_intervals(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                           float *memory);

#endif
