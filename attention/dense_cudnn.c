/* attention/dense_cudnn.c - dense attention by cuDNN's one-operation graph (cuDNN 9.13.1 and newer).
 *
 * Statistics come out as natural-log sums of exponentials, as attention.h has them.
 * Source: cudnn_graph_v9.h CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR.
 */
#include <string.h>

#include "attention/dense_cuda.h"
#include "compute/cuda_cudnn.h"

enum { Q_ID = 1, K_ID, V_ID, O_ID, STATS_ID, SCALE_ID };

typedef struct sdpa_key {
    char kind[4];
    int64_t lq, lk, heads, dim, q[2], k[2], v[2], o[2]; /* strides of token and head */
    bool lse;
} sdpa_key;
_Static_assert(sizeof(sdpa_key) <= KN_CUDNN_KEY, "kn_cudnn_plan.key is too short");

static bool aligned(const kn_tensor *t)
{
    return (uintptr_t)t->data % 16 == 0 && t->stride[0] % 8 == 0 && t->stride[1] % 8 == 0;
}

bool kn_attn_cudnn_fits(const kn_attn_args *a)
{
    int64_t dim = a->q.dim[2];
    const kn_tensor *lse = &a->lse;
    bool packed = lse->rank == 0 || (kn_tensor_contiguous(lse) && lse->dtype == KN_F32);
    return a->q.dtype == KN_BF16 && a->bias.rank == 0 && dim == a->v.dim[2] && dim % 8 == 0 &&
           dim <= 512 && packed && aligned(&a->q) && aligned(&a->k) && aligned(&a->v) &&
           aligned(&a->out);
}

/* [tokens, heads, dim] as cuDNN's batch, heads, tokens, dim. */
static cudnnBackendDescriptor_t tokens_of(kn_cudnn_graph *g, int64_t uid, int64_t tokens,
                                          const sdpa_key *k, const int64_t stride[2])
{
    int64_t d[4] = {1, k->heads, tokens, k->dim};
    int64_t s[4] = {tokens * stride[0], stride[1], stride[0], 1};
    kn_cudnn_tensor t = {
        .uid = uid, .rank = 4, .dims = d, .strides = s, .type = CUDNN_DATA_BFLOAT16};
    return kn_cudnn_tensor_of(g, &t);
}

static kn_status build(kn_dev *d, const sdpa_key *k, kn_cudnn_plan **plan)
{
    const cudnnBackendAttributeType_t desc = CUDNN_TYPE_BACKEND_DESCRIPTOR;
    kn_cudnn_graph g;
    KN_TRY(kn_cudnn_begin(d, &g));
    cudnnBackendDescriptor_t q = tokens_of(&g, Q_ID, k->lq, k, k->q);
    cudnnBackendDescriptor_t kk = tokens_of(&g, K_ID, k->lk, k, k->k);
    cudnnBackendDescriptor_t v = tokens_of(&g, V_ID, k->lk, k, k->v);
    cudnnBackendDescriptor_t o = tokens_of(&g, O_ID, k->lq, k, k->o);
    int64_t one[4] = {1, 1, 1, 1};
    kn_cudnn_tensor value = {.uid = SCALE_ID,
                             .rank = 4,
                             .dims = one,
                             .strides = one,
                             .type = CUDNN_DATA_FLOAT,
                             .by_value = true};
    cudnnBackendDescriptor_t scale = kn_cudnn_tensor_of(&g, &value);
    cudnnBackendDescriptor_t op =
        kn_cudnn_make(&g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    kn_cudnn_set(&g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, desc, 1, &q);
    kn_cudnn_set(&g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, desc, 1, &kk);
    kn_cudnn_set(&g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, desc, 1, &v);
    kn_cudnn_set(&g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, desc, 1, &o);
    kn_cudnn_set(&g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, desc, 1, &scale);
    if (k->lse) {
        int64_t ld[4] = {1, k->heads, k->lq, 1}, ls[4] = {k->heads * k->lq, k->lq, 1, 1};
        kn_cudnn_tensor stats = {
            .uid = STATS_ID, .rank = 4, .dims = ld, .strides = ls, .type = CUDNN_DATA_FLOAT};
        cudnnBackendDescriptor_t s = kn_cudnn_tensor_of(&g, &stats);
        kn_cudnn_set(&g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, desc, 1, &s);
    }
    kn_cudnn_finalize(&g, op, "attention");
    kn_status st = g.st;
    if (st == KN_OK)
        st = kn_cudnn_build(&g, &op, 1, CUDNN_HEUR_MODE_A, k, sizeof *k, plan);
    kn_cudnn_end(&g);
    return st;
}

static void strides_of(const kn_tensor *t, int64_t out[2])
{
    out[0] = t->stride[0], out[1] = t->stride[1];
}

kn_status kn_attn_cudnn(kn_dev *d, const kn_attn_args *a)
{
    sdpa_key k;
    memset(&k, 0, sizeof k); /* compared as bytes */
    memcpy(k.kind, "sdp", 4);
    k.lq = a->q.dim[0], k.lk = a->k.dim[0], k.heads = a->q.dim[1], k.dim = a->q.dim[2];
    strides_of(&a->q, k.q), strides_of(&a->k, k.k), strides_of(&a->v, k.v);
    strides_of(&a->out, k.o);
    k.lse = a->lse.rank > 0;
    float scale = a->scale;
    int64_t uids[6] = {Q_ID, K_ID, V_ID, O_ID, SCALE_ID, STATS_ID};
    void *pointers[6] = {a->q.data, a->k.data, a->v.data, a->out.data, &scale, a->lse.data};
    int count = k.lse ? 6 : 5;
    kn_cudnn_plan *plan = kn_cudnn_find(d, &k, sizeof k);
    if (!plan) KN_TRY(build(d, &k, &plan));
    return kn_cudnn_run(d, plan, uids, pointers, count);
}
