/* attention/attention.h - running attention on any device.
 *
 * Purpose   softmax(scale * q k^T + bias) v, dense or over the key runs of a plan
 *           (attention/plan.h), one executor per backend, chosen by the device's kind.
 * Shapes    q [Lq,N,D], k [Lk,N,D], v [Lk,N,Dv], out [Lq,N,Dv]; last axis dense, token and head
 *           axes may be strided (so q, k, v may be slices of one fused projection). Lk >= 1.
 *           bias [N,Lq,Lk] f32 or absent; lse [N,Lq] f32 or absent (natural log of the sum of
 *           exp(scale q.k + bias); -inf, with a zero output, where every key is hidden). Both: any
 *           strides.
 * Aliasing  out may be the same view as q when Dv = D <= 512; otherwise out overlaps no input. With `norm` or `room`
 *           q, k and v overlap nothing else that is wanted later.
 * dtypes    f32 on ref and cpu (f64, bf16 and f16 too on ref; bias and lse also f64 there); bf16 on
 *           cuda. Softmax in fp32 or wider.
 * Cost      4 Lq Lk D N operations dense; the plan's density times that when sparse.
 * Memory    cpu: a copy of k and v of a few heads at a time, from scratch. ref: none. cuda, from
 *           scratch: scores of some rows with a bias or heads wider than 128 (product_cuda.h); with
 *           int8, q, k and v in bytes, or with args->room a hundredth of that.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM, KN_ERR_DEVICE, KN_ERR_UNSUPPORTED.
 * Threads   Results do not depend on the thread count.
 */
#ifndef KN_ATTENTION_ATTENTION_H
#define KN_ATTENTION_ATTENTION_H

#include "compute/ops.h"

typedef struct kn_attn_plan kn_attn_plan; /* attention/plan.h */

enum { KN_ATTN_INT8_HEAD_DIM = 128 }; /* the only one with 8-bit products: attention/int8.h */

/* What kn_norm_rope would still do to q and k: both of Lq = Lk = L, heads dense. */
typedef struct kn_attn_norm {
    kn_tensor weight_q, weight_k; /* [N D] f32; rank 0 = absent */
    kn_tensor cos, sin;           /* [L, D/2] f32, contiguous */
    float eps;
} kn_attn_norm;

typedef struct kn_attn_args {
    kn_tensor q, k, v;
    const kn_attn_norm *norm; /* not NULL: q and k are projections, of which the call takes kn_norm_rope first, with
                                 int8 on its way to bytes. It may leave anything in q and k */
    kn_tensor room; /* rank 0 = none. Contiguous, overlaps nothing: memory for int8, all of q's and k's bytes if it
                       has kn_attn_int8_room_bytes. The call may then leave anything in q, k and v too */
    kn_tensor bias; /* rank 0 = none; not with a plan */
    float scale;    /* 1/sqrt(D) for Wan, 1 for UMT5 */
    kn_tensor out;
    kn_tensor lse; /* rank 0 = not wanted */
    /* Approximations of self-attention, not both at once and not with a bias. On Hopper GPUs, and on
     * ref, which computes the same rules in double (attention/entries_ref.c). */
    bool int8;        /* products of 8-bit integers, D = Dv = KN_ATTN_INT8_HEAD_DIM */
    float skip_below; /* leave out blocks of keys in which no weight reaches this share of the largest
                         before, for any of 64 queries (BLASST, arXiv 2512.12087); 0 = none, < 1 */
} kn_attn_args;

/* Bytes of args->room, for as many queries as keys. */
size_t kn_attn_int8_room_bytes(int64_t tokens, int heads);

/* Can the device compute args with int8 or skip_below? */
bool kn_attn_approximates(kn_dev *d);

/* Dense attention. scratch: memory for a backend's needs (KV repacking), given back before return;
 * NULL lets the backend allocate it for the call. On the measure device only scratch is touched. */
KN_CHECKED kn_status kn_attn_dense(kn_dev *d, const kn_attn_args *args, kn_arena *scratch);

/* Attention of each query block over its key runs. Lq = Lk = plan->tokens; the plan's scale, when
 * it is not 0, replaces args->scale. The plan must be valid (kn_attn_plan_check). */
KN_CHECKED kn_status kn_attn_sparse(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                                    kn_arena *scratch);

/* Gives back what the device keeps of plans between calls (cuda: their lists, orders of tokens, and k and v in a
 * plan's order): when a job's plans are done with. */
void kn_attn_forget(kn_dev *d);

#endif
