/* compute/cuda_conv_sm90.h - inside the CUDA backend: 3x3x3 convolutions of 96 channels on Hopper. */
#ifndef KN_COMPUTE_CUDA_CONV_SM90_H
#define KN_COMPUTE_CUDA_CONV_SM90_H

#ifdef __cplusplus
extern "C" {
#endif

#include "compute/backend.h"

/* bf16, 96 channels to 96, stride 1, one pixel of padding around and any number of frames before. Weights as
 * kn_cuda_convert_conv leaves them. For compute capability 9.0 alone. */
bool kn_cuda_conv_sm90_fits(const kn_tensor *x, const kn_weight *w, const kn_tensor *residual,
                            const kn_conv_params *p, const kn_tensor *out);
kn_conv_fn kn_cuda_conv_sm90;

#ifdef __cplusplus
}
#endif

#endif
