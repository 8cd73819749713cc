/* attention/draft.h - planner: a draft of the attention map from pooled tiles chooses key tiles.
 *
 * Purpose   DraftAttention: mean queries against mean keys of tiles give a small map per head; the
 *           largest entries of the whole map are kept. That gives single rows no guarantee, so, as
 *           in LightX2V, a query also keeps the tiles of its own frame and of the first frame;
 *           its own tile always.
 * Shapes    layout.tile is the region; the method's own is (1,8,16), (1,16,8) when H >= W.
 * Cost      L D + tiles^2 D per head and call, and tiles^2 floats of memory.
 * Devices   ref, cpu; cuda (bf16, attention/select_cuda.h), where the plan holds device lists. The
 *           device must outlive the planner.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM, KN_ERR_DEVICE, KN_ERR_UNSUPPORTED.
 * Source    arXiv 2505.14708; draft-attention draft_attention.py; LightX2V
 *           lightx2v/common/ops/attn/draft_attn.py.
 */
#ifndef KN_ATTENTION_DRAFT_H
#define KN_ATTENTION_DRAFT_H

#include "attention/plan.h"

typedef struct kn_draft_params {
    kn_attn_layout layout;
    int block; /* most queries in a block */
    int heads, dim;
    double sparsity;       /* share of tile pairs to drop, 0 to 1; 0.75 in the reference */
    bool drop_first_frame; /* do not force the tiles of the first frame(s) */
    bool drop_own_frame;   /* do not force the tiles of the query's frame(s) */
    bool within_budget;    /* forced tiles use up the share that is kept, instead of adding to it */
    float scale;           /* softmax scale of the map and of the attention */
} kn_draft_params;

typedef struct kn_draft kn_draft;

KN_CHECKED kn_status kn_draft_open(const kn_draft_params *params, kn_draft **out);
void kn_draft_close(kn_draft **draft);
/* Choose tiles for these q, k [L,N,D]. *plan is valid until the next call or close. */
KN_CHECKED kn_status kn_draft_plan(kn_dev *d, kn_draft *draft, const kn_tensor *q,
                                   const kn_tensor *k, const kn_attn_plan **plan);

#endif
