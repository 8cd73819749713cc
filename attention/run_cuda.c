/* attention/run_cuda.c - which kernel runs an attention on a cuda device. */
#include "attention/dense_cuda.h"
#include "attention/executors.h"
#include "attention/product_cuda.h"
#include "attention/sparse_cuda.h"
#include "compute/cuda.h"

bool kn_attn_cuda_is_hopper(const kn_dev *d)
{
    return kn_cuda_of(d)->sm == 90;
}

static kn_status run_dense(kn_dev *d, const kn_attn_args *args, kn_arena *scratch)
{
    /* On Hopper the kernel for plans is also the fastest dense one (docs/performance.md). */
    if (kn_cuda_of(d)->sm == 90 && args->scale > 0.0f && kn_attn_sparse_cuda_fits(args))
        return kn_attn_run_sparse_cuda(d, args, NULL, NULL);
    /* What has a bias or wide heads, cuDNN's tuned kernels do not take. */
    kn_status st = KN_ERR_UNSUPPORTED;
    if (kn_attn_product_fits(args))
        st = kn_attn_product_cuda(d, args, scratch);
    else if (kn_attn_cudnn_fits(args))
        st = kn_attn_cudnn(d, args);
    if (st != KN_ERR_UNSUPPORTED) return st;
    kn_error_clear();
    return kn_attn_plain_cuda(d, args);
}

kn_status kn_attn_run_cuda(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                           kn_arena *scratch)
{
    if (args->int8 || args->skip_below > 0.0f) {
        const char *what = args->int8 ? "8-bit products" : "skipping of blocks";
        if (kn_cuda_of(d)->sm != 90)
            return kn_fail(KN_ERR_UNSUPPORTED, "attention: %s need a Hopper GPU (sm_90), this one is sm_%d", what,
                           kn_cuda_of(d)->sm);
        if (!(args->scale > 0.0f) || !kn_attn_sparse_cuda_fits(args))
            return kn_fail(KN_ERR_UNSUPPORTED, "attention: %s take a scale above 0, heads of 64 or 128 and strides of 16 bytes", what);
        return kn_attn_run_sparse_cuda(d, args, plan, scratch);
    }
    return plan ? kn_attn_run_sparse_cuda(d, args, plan, scratch) : run_dense(d, args, scratch);
}
