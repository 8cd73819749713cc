/* compute/cuda_stub.c - stands for the CUDA backend in builds without it, and says so. Sizes stay
 * known, so that a plan for a GPU can be made on any machine. */
#include "compute/backend.h"

kn_status kn_cuda_open(kn_dev *d, const kn_dev_params *params)
{
    (void)d, (void)params;
    return kn_fail(
        KN_ERR_UNSUPPORTED,
        "device cuda: this build has no CUDA backend (nvcc was not found when it was built)");
}

/* Matrices in bf16, vectors in f32, tables as stored. */
size_t kn_cuda_weight_bytes(const kn_weight *w)
{
    size_t size = w->kind == KN_WEIGHT_VECTOR  ? 4
                  : w->kind == KN_WEIGHT_TABLE ? kn_dtype_size(w->t.dtype)
                                               : 2;
    return (size_t)kn_tensor_count(&w->t) * size;
}
