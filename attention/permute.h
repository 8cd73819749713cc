/* attention/permute.h - planner: reorder tokens per head, then keep the heaviest blocks.
 *
 * Purpose   Two orders:
 *             importance  PBS-Attn without causality: a spread sample of queries gives every video
 *                         key its mean weight; within each segment of blocks keys are sorted by it,
 *                         so that few blocks hold the heavy ones. Queries stay.
 *             axes        PAROAttention: queries and keys in one of the six orders of (t, h, w),
 *                         chosen for each head beforehand (kn_permute_choose_axes).
 *           Then block means give a map (attention/block_map.h), and each row keeps its largest
 *           blocks until their weights reach the threshold, and the blocks that hold its own
 *           tokens; or, when a density is set, that share of the blocks, its own tokens' first.
 * Cost      importance: samples x L x D per head; both: L D + blocks^2 D per head.
 * Devices   ref, cpu; cuda (bf16, attention/select_cuda.h), where the plan holds device lists. The
 *           device must outlive the planner.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM, KN_ERR_DEVICE, KN_ERR_UNSUPPORTED.
 * Source    pbs-attn permute_states.py, utils.py; PAROAttention (permute_qk of its cogvideox.py,
 *           and its paper for the choice of orders).
 */
#ifndef KN_ATTENTION_PERMUTE_H
#define KN_ATTENTION_PERMUTE_H

#include "attention/plan.h"

typedef enum kn_permute_kind { KN_PERMUTE_IMPORTANCE, KN_PERMUTE_AXES } kn_permute_kind;

/* PARO's six orders, slowest axis first: 0 thw, 1 twh, 2 hwt, 3 htw, 4 wht, 5 wth. */
enum { KN_AXIS_ORDERS = 6 };
extern const int kn_axis_orders[KN_AXIS_ORDERS][3];

typedef struct kn_permute_params {
    kn_attn_layout layout;
    kn_permute_kind kind;
    int block;   /* most tokens in a block, of queries and of keys */
    int segment; /* importance: blocks that are sorted together; 0 = all of them */
    int samples; /* importance: queries sampled, 128 to 256 in practice; at most the video */
    const uint8_t *axes; /* axes: [heads] index into kn_axis_orders; copied */
    int heads, dim;
    double threshold; /* weight to keep in each row, 0 to 1; 0.9 in the reference */
    double density;   /* over 0: blocks to keep in each row / all, instead of the threshold */
    float scale;
} kn_permute_params;

typedef struct kn_permute kn_permute;

KN_CHECKED kn_status kn_permute_open(const kn_permute_params *params, kn_permute **out);
void kn_permute_close(kn_permute **permute);
/* Order tokens and choose blocks for these q, k [L,N,D]. *plan is valid until the next call or
 * close. */
KN_CHECKED kn_status kn_permute_plan(kn_dev *d, kn_permute *permute, const kn_tensor *q,
                                     const kn_tensor *k, const kn_attn_plan **plan);

typedef struct kn_axes_params {
    kn_attn_layout layout;
    int block;      /* edge of the square blocks that are judged, 64 in the reference */
    int stride;     /* judge every stride-th block of queries; 1 = all */
    double epsilon; /* a weight below this is small: 1e-3 */
    double share;   /* a block is sparse when this share of its weights is small: 0.9 */
    double alpha;   /* weight of sparsity against evenness (max / mean within blocks), 0 to 1 */
    float scale;
} kn_axes_params;

/* For each head the order with the sparsest, most even blocks: the smallest
 * alpha (1 - sparse) / sum + (1 - alpha) uneven / sum over the six. Looks at whole rows of the
 * attention map: for calibration, not for every step; on a CUDA device q and k are copied to the
 * host and judged there. axes: [N] */
KN_CHECKED kn_status kn_permute_choose_axes(kn_dev *d, const kn_axes_params *params,
                                            const kn_tensor *q, const kn_tensor *k, uint8_t *axes);

#endif
