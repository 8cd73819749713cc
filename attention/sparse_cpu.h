/* attention/sparse_cpu.h - inside attention/: the kernels that the CPU executor is made of.
 *
 * Purpose   sparse_cpu.c walks heads, query blocks and key runs; these kernels do the arithmetic on
 *           one panel of queries. One table per instruction set.
 * Layout    A panel is W queries side by side, one per SIMD lane. Everything that belongs to a
 *           panel is stored with the queries innermost: Q [D,W], scores [keys,W], output [Dv,W],
 *           row maximum and sum [W]. Keys and values stay row-major as they come: each of their
 *           elements is broadcast, so key runs may start and end anywhere, softmax is a vertical
 *           loop, and no kernel needs a horizontal sum or a tail in the lanes.
 * Units     Scores are in powers of two: Q is scaled by scale * log2(e) when it is packed.
 * Threads   Kernels touch only what they are given.
 */
#ifndef KN_ATTENTION_SPARSE_CPU_H
#define KN_ATTENTION_SPARSE_CPU_H

#include <stdint.h>

/* Widest panel of any table, and keys per softmax step (a multiple of every kernel's row count). */
enum { KN_ATTN_MAX_PANEL = 32, KN_ATTN_KEYS = 96 };

/* Per query lane and axis (t, h, w): keys with lo <= coordinate < lo + len are visible, and, when
 * dilation[axis] > 1, only those with coordinate % dilation == residue. */
typedef struct kn_attn_lanes {
    int32_t lo[3][KN_ATTN_MAX_PANEL];
    int32_t len[3][KN_ATTN_MAX_PANEL];
    int32_t residue[3][KN_ATTN_MAX_PANEL];
    int32_t dilation[3];
} kn_attn_lanes;

typedef struct kn_attn_cpu_kernels {
    int panel; /* W */
    /* s[j,:] = sum_d k[j*ldk + d] q[d,:] for j < keys. ahead: memory that is wanted soon, from
     * which the kernel fetches about one cache line per (row group, d) into the L2 cache; NULL:
     * nothing. */
    void (*qk)(const float *k, int64_t ldk, int64_t keys, const float *q, int64_t dim, float *s,
               const void *ahead);
    /* One online-softmax step: m' = max(m, max_j s[j]); alpha = 2^(m - m'); s[j] = 2^(s[j] - m');
     * l = l alpha + sum_j s[j]; m = m'. A lane whose m' is -inf gets s = 0 and alpha = 0. */
    void (*softmax)(float *s, int64_t keys, float *m, float *l, float *alpha);
    /* o[d,:] = o[d,:] alpha + sum_j v[j*ldv + d] p[j,:]; alpha NULL means 1. ahead as above. */
    void (*pv)(const float *v, int64_t ldv, int64_t keys, const float *p, const float *alpha,
               int64_t dim, float *o, const void *ahead);
    /* s[j,:] = -inf where key j, at coordinates pos[3*j..], is not visible to the lane. */
    void (*mask)(float *s, int64_t keys, const int16_t *pos, const kn_attn_lanes *lanes);
} kn_attn_cpu_kernels;

extern const kn_attn_cpu_kernels kn_attn_cpu_base;
#if defined(__x86_64__)
extern const kn_attn_cpu_kernels kn_attn_cpu_avx2;
extern const kn_attn_cpu_kernels kn_attn_cpu_avx512;
extern const kn_attn_cpu_kernels kn_attn_cpu_avx512_16; /* panels of 16, for blocks that small */
#endif

#endif
