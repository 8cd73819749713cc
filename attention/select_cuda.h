/* attention/select_cuda.h - inside attention/: choice of key blocks on a CUDA device.
 *
 * Purpose   What draft.c and permute.c do on the host, for q and k in device memory: block means,
 *           their softmax map, token orders, the choice of blocks, and the lists that the kernels
 *           walk. Same semantics; sums are fp32 instead of double, so that only blocks whose
 *           weights agree to some 1e-6 may be chosen differently. Deterministic: float sums have a
 *           fixed order, counters are integers.
 * Shapes    q, k [L,N,D] bf16, D a multiple of 8, at most 256; rows and heads may be strided by
 *           multiples of 8 elements. Map blocks are consecutive video tokens of the (permuted)
 *           order, the same for queries and keys; query blocks lie within them.
 * Cost      q and k are read once (k twice more to order it); blocks^2 D operations and some 20
 *           bytes of traffic per pair of blocks for the map. One synchronisation per call, for the
 *           number of entries.
 * Memory    kn_select_open takes everything; a call takes more only when lists outgrow their room.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM, KN_ERR_DEVICE, KN_ERR_UNSUPPORTED (build without CUDA).
 */
#ifndef KN_ATTENTION_SELECT_CUDA_H
#define KN_ATTENTION_SELECT_CUDA_H

#include "attention/device_lists.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kn_select kn_select;

/* Arrays are host memory and not kept. */
typedef struct kn_select_params {
    int64_t blocks;       /* of the map */
    const int32_t *start; /* [blocks + 1] first token of each; start[blocks] = tokens on the grid */
    int64_t tokens;       /* L: with the text, which everything sees and which sees everything */
    int64_t q_blocks;
    const int32_t *q_start; /* [q_blocks + 1]; no block is longer than KN_ATTN_BLOCK */
    int heads, dim;
    float scale;
    const int32_t *perm; /* [heads][L] fixed order of queries and keys; NULL = as stored */
    int samples;         /* > 0: keys are ordered by importance at every call (permute.h) */
    int64_t segment;     /* map blocks sorted together; 0 = all */
} kn_select_params;

/* Maps of as many heads at once as fit in this. */
enum { KN_SELECT_MAP_BYTES = 256 << 20 };
/* Device memory of a chooser, estimated; video: tokens on the grid. In every build, held.c. */
size_t kn_select_held_bytes(const kn_select_params *params, int64_t video);

KN_CHECKED kn_status kn_select_open(kn_dev *d, const kn_select_params *params, kn_select **out);
void kn_select_close(kn_select **s);

/* Draft: the `drop` smallest entries of each head's map are dropped (ties with the largest of them
 * are kept); rows keep their own block, the first per_frame blocks (first_frame), and those of
 * their own group of per_frame (own_frame). With within_budget these rank before all others, so
 * that they use up the budget instead of adding to it. */
typedef struct kn_select_draft {
    int64_t drop;
    int64_t per_frame;
    bool first_frame, own_frame, within_budget;
} kn_select_draft;
KN_CHECKED kn_status kn_select_run_draft(kn_select *s, const kn_select_draft *rule,
                                         const kn_tensor *q, const kn_tensor *k);

/* Permute: each row's largest blocks until their weights reach the threshold, and the blocks that
 * hold its own tokens; or, with budget > 0, that many blocks, its own tokens' first. */
KN_CHECKED kn_status kn_select_run_rows(kn_select *s, double threshold, int64_t budget,
                                        const kn_tensor *q, const kn_tensor *k);

/* Of the last run; valid until the next. */
const kn_attn_lists *kn_select_lists(const kn_select *s);
/* Visible pairs / all pairs. */
double kn_select_density(const kn_select *s);
/* For the host's copy of the plan: bit j % 32 of word j / 32 in [heads][blocks][words] = the row
 * keeps block j, words = ceil(blocks / 32); and the orders of the keys, [heads][L], if they were
 * sorted. */
KN_CHECKED kn_status kn_select_fetch(kn_select *s, uint32_t *keep, int32_t *perm_k);

#ifdef __cplusplus
}
#endif

#endif
