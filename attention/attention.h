/* attention/attention.h - running attention on any device.
 *
 * Purpose   softmax(scale * q k^T + bias) v, dense or over the blocks of a plan (attention/plan.h),
 *           one executor per backend, chosen by the device's kind.
 * Shapes    q [Lq,N,D], k [Lk,N,D], v [Lk,N,Dv], out [Lq,N,Dv]; last axis dense, token and head axes
 *           may be strided (so q, k, v may be slices of one fused projection).
 *           bias [N,Lq,Lk] f32 or absent; lse [N,Lq] f32 or absent (natural log of the sum of
 *           exp(scale q.k + bias)).
 * dtypes    f32 on ref and cpu (f64 too on ref); bf16 on cuda. Softmax in fp32 or wider.
 * Cost      4 Lq Lk D N operations dense; the plan's density times that when sparse.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM, KN_ERR_DEVICE.
 * Threads   Results do not depend on the thread count.
 */
#ifndef KN_ATTENTION_ATTENTION_H
#define KN_ATTENTION_ATTENTION_H

#include "compute/ops.h"

typedef struct kn_attn_args {
    kn_tensor q, k, v;
    kn_tensor bias; /* rank 0 = none */
    float scale;    /* 1/sqrt(D) for Wan, 1 for UMT5 */
    kn_tensor out;
    kn_tensor lse; /* rank 0 = not wanted */
} kn_attn_args;

/* Dense attention. scratch: memory for a backend's needs (KV repacking); NULL lets the backend take
 * the little it needs itself. */
KN_CHECKED kn_status kn_attn_dense(kn_dev *d, const kn_attn_args *args, kn_arena *scratch);

#endif
