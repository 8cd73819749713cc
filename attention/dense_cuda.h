/* attention/dense_cuda.h - inside attention/: dense attention on a cuda device, by provider. bf16 q, k, v, out;
 * arguments as checked by attention.c.
 */
#ifndef KN_ATTENTION_DENSE_CUDA_H
#define KN_ATTENTION_DENSE_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "attention/attention.h"

/* cuDNN's fused attention: no bias; widths in eights up to 128, Dv = D, everything 16-byte aligned.
 * KN_ERR_UNSUPPORTED when it has no engine for the shape, or is not installed. */
bool kn_attn_cudnn_fits(const kn_attn_args *args);
kn_status kn_attn_cudnn(kn_dev *d, const kn_attn_args *args);
/* Any shape with D, Dv <= 512, with bias; a warp per query. Slow. */
kn_status kn_attn_plain_cuda(kn_dev *d, const kn_attn_args *args);

#ifdef __cplusplus
}
#endif

#endif
