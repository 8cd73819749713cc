/* attention/product_cuda.h - inside attention/: dense attention on cuda as two matrix products with a
 * softmax between, for what fused kernels do not take: an additive bias (UMT5), wide heads (the VAE's
 * single head of 384).
 *
 * Memory    scores of some query rows of all heads, f32, from scratch: at most KN_ATTN_PRODUCT_BYTES,
 *           or 128 rows.
 * Cost      as attention.h; the scores travel through memory four times.
 */
#ifndef KN_ATTENTION_PRODUCT_CUDA_H
#define KN_ATTENTION_PRODUCT_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "attention/attention.h"

enum { KN_ATTN_PRODUCT_BYTES = 512 << 20, KN_ATTN_FUSED_DIM = 128 };

/* A bias or heads wider than KN_ATTN_FUSED_DIM; widths in eights, everything 16-byte aligned. */
bool kn_attn_product_fits(const kn_attn_args *args);
/* Elements between rows of scores; query rows at a time. */
int64_t kn_attn_product_pitch(const kn_attn_args *args);
int64_t kn_attn_product_rows(const kn_attn_args *args);
kn_status kn_attn_measure_cuda(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                               kn_arena *scratch);
/* scratch NULL: allocated for the call. */
kn_status kn_attn_product_cuda(kn_dev *d, const kn_attn_args *args, kn_arena *scratch);

#ifdef __cplusplus
}
#endif

#endif
