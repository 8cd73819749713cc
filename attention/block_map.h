/* attention/block_map.h - inside attention/: block means and their softmax map, which the
 * data-dependent planners judge blocks by.
 *
 * Purpose   The mean query of a block against the mean key of another stands for their whole score.
 *           Means divide by the real number of tokens, so short blocks are not biased, and text
 *           never enters.
 * Shapes    q, k [L,N,D] in host memory, any float dtype; blocks are the plan's first `blocks`
 *           query blocks (the video's), used for keys too.
 * Cost      L D per head for means, blocks^2 D for the map.
 * Threads   Rows in parallel; results do not depend on the thread count.
 */
#ifndef KN_ATTENTION_BLOCK_MAP_H
#define KN_ATTENTION_BLOCK_MAP_H

#include "attention/plan.h"

typedef struct kn_block_map {
    int64_t blocks, dim;
    double *mean_q, *mean_k; /* [blocks][dim] */
    float *map;              /* [blocks][blocks]: softmax over keys of scale mean_q . mean_k */
} kn_block_map;

KN_CHECKED kn_status kn_block_map_open(int64_t blocks, int64_t dim, kn_block_map *out);
void kn_block_map_close(kn_block_map *means);
/* q, k must be the tensors that the plan is for: KN_ERR_ARG. For planners: not on measure. */
KN_CHECKED kn_status kn_block_map_check(kn_dev *d, const kn_attn_plan *plan, int heads, int dim,
                                        const kn_tensor *q, const kn_tensor *k);
/* Means and map of one head, in the plan's order of that head. */
void kn_block_map_fill(kn_dev *d, kn_block_map *means, const kn_attn_plan *plan, int head,
                       const kn_tensor *q, const kn_tensor *k, double scale);

#endif
