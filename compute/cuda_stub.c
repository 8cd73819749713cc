/* compute/cuda_stub.c - stands for the CUDA backend in builds without it, and says so. */
#include "compute/backend.h"

kn_status kn_cuda_open(kn_dev *d, const kn_dev_params *params)
{
    (void)d, (void)params;
    return kn_fail(
        KN_ERR_UNSUPPORTED,
        "device cuda: this build has no CUDA backend (nvcc was not found when it was built)");
}
