/* attention/run_stub.c - stands for run_cuda.c in builds without CUDA. */
#include "attention/executors.h"

bool kn_attn_cuda_is_hopper(const kn_dev *d)
{
    (void)d;
    return false;
}

kn_status kn_attn_run_cuda(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                           kn_arena *scratch)
{
    (void)d, (void)args, (void)plan, (void)scratch;
    return kn_fail(KN_ERR_UNSUPPORTED, "attention: this build has no CUDA backend");
}

void kn_attn_forget_cuda(kn_dev *d)
{
    (void)d;
}
