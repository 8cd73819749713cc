/* attention/sparse_kernels.h - inside attention/: one attention call as the CUDA kernels take it. */
#ifndef KN_ATTENTION_SPARSE_KERNELS_H
#define KN_ATTENTION_SPARSE_KERNELS_H

#include <cuda_runtime_api.h>

#include "attention/device_lists.h"
#include "attention/int8.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Tensors [tokens][heads][dim] bf16, strides in elements, dim dense; all strides multiples of 8 and
 * all addresses of 16 bytes. */
typedef struct kn_attn_problem {
    const void *q, *k, *v;
    void *out;
    float *lse; /* NULL: not wanted */
    int64_t q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head;
    int64_t lse_head, lse_token;
    int64_t queries, keys;
    int heads, dim;
    float scale;                /* > 0 on sm_90 */
    float threshold;            /* entries whose weights are all below this share of the running
                                   maximum are left out; 0 = none are. Hopper only */
    const kn_attn_lists *lists; /* NULL: dense */
    int *counter;               /* device memory, one int */
    int sm_count;
    void *spare;                /* device memory for the call, 16-byte aligned; Hopper only */
    size_t spare_bytes;         /* 0: less even work, nothing else */
    const kn_attn_int8_norm *norm; /* NULL: q and k as they are. kn_attn_int8_pack only */
} kn_attn_problem;

/* Launch on the stream. A CUDA error code; cudaErrorNotSupported where the kernel does not take the
 * shape (dim other than 64 and 128, or a scale that is not above 0). */
cudaError_t kn_attn_launch_sm90(const kn_attn_problem *p, cudaStream_t stream);
cudaError_t kn_attn_launch_sm80(const kn_attn_problem *p, cudaStream_t stream);

/* q, k and v of p in bytes, Hopper only: fill in what `to` points at (kn_attn_int8_place). p's heads are of 128, its
 * lists may have orders, k and v are as stored. v's bytes may lie where k is: they are written last.
 * cudaErrorNotSupported: p->norm with an order or too many heads. */
cudaError_t kn_attn_int8_pack(const kn_attn_problem *p, const kn_attn_int8 *to, cudaStream_t stream);
/* Attention over those bytes, Hopper only; of p's tensors only out and lse are used. */
cudaError_t kn_attn_launch_int8(const kn_attn_problem *p, const kn_attn_int8 *x, cudaStream_t stream);

/* Keys or values in the order perm_k of the lists: out [tokens][heads][dim] packed. */
cudaError_t kn_attn_reorder(const void *in, int64_t token, int64_t head, void *out,
                            const kn_attn_lists *lists, int heads, int dim, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
