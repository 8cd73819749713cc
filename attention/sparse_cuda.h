/* attention/sparse_cuda.h - inside attention/: plans on a cuda device by the project's kernels.
 *
 * Purpose   Keeps the key lists of the plans that were run last in device memory, by the plan's
 *           stamp, and runs them: sparse_sm90.cu on Hopper, sparse_sm80.cu elsewhere.
 * Shapes    D = Dv = 64 or 128; strides and addresses in multiples of 16 bytes.
 * Memory    8 bytes per entry and 16 per row of a plan; with a perm_k a copy of k and v. Held until
 *           the device closes.
 * Errors    KN_ERR_UNSUPPORTED names what does not fit.
 */
#ifndef KN_ATTENTION_SPARSE_CUDA_H
#define KN_ATTENTION_SPARSE_CUDA_H

#include "attention/device_lists.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Do the kernels take these tensors? */
bool kn_attn_sparse_cuda_fits(const kn_attn_args *args);
/* plan NULL: dense. */
kn_attn_executor_fn kn_attn_run_sparse_cuda;

#ifdef __cplusplus
}
#endif

#endif
