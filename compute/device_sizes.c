/* compute/device_sizes.c - bytes that weights take on a cuda device: known in every build, so that a
 * plan for a GPU can be made on any machine. */
#include "compute/backend.h"

/* Matrices in bf16, vectors in f32, tables as stored. */
size_t kn_cuda_weight_bytes(const kn_weight *w)
{
    size_t size = w->kind == KN_WEIGHT_VECTOR  ? 4
                  : w->kind == KN_WEIGHT_TABLE ? kn_dtype_size(w->t.dtype)
                                               : 2;
    return (size_t)kn_tensor_count(&w->t) * size;
}
