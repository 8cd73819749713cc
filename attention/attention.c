/* Front end of attention: every argument is checked here, once; executors trust them. */
#include "attention/attention.h"

#include "attention/executors.h"
#include "attention/product_cuda.h"

/* Absent, or of the given shape, dtype and data. */
static kn_status check_tensor(const kn_attn_args *args, const kn_tensor *t, const char *name,
                              int rank, const int64_t *dims, bool measuring)
{
    char text[KN_SHAPE_TEXT], q[KN_SHAPE_TEXT];
    bool fits = t->rank == rank;
    for (int i = 0; fits && i < rank; i++) fits = t->dim[i] == dims[i];
    if (!fits)
        return kn_fail(KN_ERR_ARG, "attention: %s is %s, which does not go with q %s", name,
                       kn_tensor_text(t, text), kn_tensor_text(&args->q, q));
    if (!t->data && !measuring && kn_tensor_count(t) > 0)
        return kn_fail(KN_ERR_ARG, "attention: %s has no data", name);
    return KN_OK;
}

static kn_status check_dense_axis(const kn_tensor *t, const char *name)
{
    if (t->stride[2] != 1 && t->dim[2] > 1)
        return kn_fail(KN_ERR_ARG, "attention: the last axis of %s has stride %lld, must be 1",
                       name, (long long)t->stride[2]);
    return KN_OK;
}

static kn_status check_dtypes(kn_dev_kind kind, const kn_attn_args *a)
{
    kn_dtype t = a->q.dtype;
    bool fits = kind == KN_DEV_CPU    ? t == KN_F32
                : kind == KN_DEV_CUDA ? t == KN_BF16
                                      : t == KN_F32 || t == KN_F64 || t == KN_BF16 || t == KN_F16;
    if (!fits)
        return kn_fail(KN_ERR_ARG, "attention: %s is not a dtype of the %s device",
                       kn_dtype_name(t), kn_dev_kind_name(kind));
    if (a->k.dtype != t || a->v.dtype != t || a->out.dtype != t)
        return kn_fail(KN_ERR_ARG, "attention: q is %s, but k is %s, v is %s and out is %s",
                       kn_dtype_name(t), kn_dtype_name(a->k.dtype), kn_dtype_name(a->v.dtype),
                       kn_dtype_name(a->out.dtype));
    const kn_tensor *side[] = {&a->bias, &a->lse};
    for (int i = 0; i < 2; i++)
        if (side[i]->rank && side[i]->dtype != KN_F32 &&
            !(kind == KN_DEV_REF && side[i]->dtype == KN_F64))
            return kn_fail(KN_ERR_ARG, "attention: %s is %s, must be f32", i ? "lse" : "bias",
                           kn_dtype_name(side[i]->dtype));
    return KN_OK;
}

/* Where the approximations exist. */
static kn_status check_approximations(const kn_dev *d, const kn_attn_args *a)
{
    if (!(a->skip_below >= 0.0f && a->skip_below < 1.0f))
        return kn_fail(KN_ERR_ARG, "attention: skip_below is %g, must be at least 0 and below 1",
                       (double)a->skip_below);
    if (!a->int8 && a->skip_below == 0.0f) return KN_OK;
    const char *what = a->int8 ? "8-bit products" : "skipping of blocks";
    kn_dev_kind kind = kn_dev_get_kind(d);
    if (kind == KN_DEV_MEASURE) kind = kn_dev_measured(d);
    if (a->int8 && a->skip_below > 0.0f)
        return kn_fail(KN_ERR_UNSUPPORTED, "attention: 8-bit products and skipping of blocks do not go together");
    if (kind == KN_DEV_CPU)
        return kn_fail(KN_ERR_UNSUPPORTED, "attention: %s need a Hopper GPU (or the ref device), this is the cpu device", what);
    if (a->bias.rank) return kn_fail(KN_ERR_ARG, "attention: %s cannot have a bias", what);
    if (a->int8 && (a->q.dim[2] != KN_ATTN_INT8_HEAD_DIM || a->v.dim[2] != KN_ATTN_INT8_HEAD_DIM))
        return kn_fail(KN_ERR_UNSUPPORTED, "attention: 8-bit products take heads of %d, q has %lld and v %lld",
                       KN_ATTN_INT8_HEAD_DIM, (long long)a->q.dim[2], (long long)a->v.dim[2]);
    return KN_OK;
}

/* As far as kn_norm_rope does not. */
static kn_status check_norm(const kn_dev *d, const kn_attn_args *a)
{
    const kn_attn_norm *n = a->norm;
    if (!n) return KN_OK;
    bool measuring = kn_dev_get_kind(d) == KN_DEV_MEASURE, wide = kn_dev_get_kind(d) == KN_DEV_REF;
    int64_t tokens = a->q.dim[0], width = a->q.dim[1] * a->q.dim[2], half = a->q.dim[2] / 2;
    KN_TRY(check_tensor(a, &a->k, "k (to be normed as q)", 3, a->q.dim, measuring));
    KN_TRY(check_tensor(a, &n->cos, "the table of cosines", 2, (int64_t[]){tokens, half}, measuring));
    KN_TRY(check_tensor(a, &n->sin, "the table of sines", 2, (int64_t[]){tokens, half}, measuring));
    const kn_tensor *weights[] = {&n->weight_q, &n->weight_k};
    for (int i = 0; i < 2; i++)
        if (weights[i]->rank)
            KN_TRY(check_tensor(a, weights[i], "a weight of the norm", 1, (int64_t[]){width}, measuring));
    const kn_tensor *all[] = {&n->cos, &n->sin, &n->weight_q, &n->weight_k};
    for (int i = 0; i < 4; i++) {
        bool number = all[i]->dtype == KN_F32 || (wide && all[i]->dtype == KN_F64);
        if (all[i]->rank && (!number || !kn_tensor_contiguous(all[i])))
            return kn_fail(KN_ERR_ARG, "attention: weights, cosines and sines of the norm must be contiguous f32");
    }
    for (int i = 0; i < 2; i++) {
        const kn_tensor *t = i ? &a->k : &a->q;
        if (t->dim[1] > 1 && t->stride[1] != t->dim[2])
            return kn_fail(KN_ERR_ARG, "attention: the heads of %s are not dense, as the norm wants them", i ? "k" : "q");
    }
    return KN_OK;
}

static bool overlap(const kn_tensor *a, const kn_tensor *b)
{
    const char *x = a->data, *y = b->data;
    return x < y + kn_tensor_bytes(b) && y < x + kn_tensor_bytes(a);
}

static kn_status check_room(const kn_attn_args *a)
{
    const kn_tensor *others[] = {&a->q, &a->k, &a->v, &a->out};
    if (!a->room.rank) return KN_OK;
    for (int i = 0; i < 4; i++)
        if (!kn_tensor_contiguous(&a->room) || (kn_tensor_contiguous(others[i]) && overlap(&a->room, others[i])))
            return kn_fail(KN_ERR_ARG, "attention: the room for bytes is not contiguous or overlaps q, k, v or out");
    return KN_OK;
}

static kn_status check_args(kn_dev *d, const kn_attn_args *a)
{
    bool measuring = kn_dev_get_kind(d) == KN_DEV_MEASURE;
    char text[KN_SHAPE_TEXT];
    if (a->q.rank != 3 || a->k.rank != 3 || a->v.rank != 3)
        return kn_fail(KN_ERR_ARG, "attention: q, k and v must be [tokens, heads, dim], q is %s",
                       kn_tensor_text(&a->q, text));
    int64_t lq = a->q.dim[0], n = a->q.dim[1], dim = a->q.dim[2], lk = a->k.dim[0],
            dv = a->v.dim[2];
    if (lk < 1 || n < 1 || dim < 1 || dv < 1 || lq > INT32_MAX || lk > INT32_MAX)
        return kn_fail(KN_ERR_ARG, "attention: k is %s; tokens, heads and dim must be 1 or more",
                       kn_tensor_text(&a->k, text));
    KN_TRY(check_tensor(a, &a->q, "q", 3, a->q.dim, measuring));
    KN_TRY(check_tensor(a, &a->k, "k", 3, (int64_t[]){lk, n, dim}, measuring));
    KN_TRY(check_tensor(a, &a->v, "v", 3, (int64_t[]){lk, n, dv}, measuring));
    KN_TRY(check_tensor(a, &a->out, "out", 3, (int64_t[]){lq, n, dv}, measuring));
    KN_TRY(check_dense_axis(&a->q, "q"));
    KN_TRY(check_dense_axis(&a->k, "k"));
    KN_TRY(check_dense_axis(&a->v, "v"));
    KN_TRY(check_dense_axis(&a->out, "out"));
    if (a->bias.rank)
        KN_TRY(check_tensor(a, &a->bias, "bias", 3, (int64_t[]){n, lq, lk}, measuring));
    if (a->lse.rank) KN_TRY(check_tensor(a, &a->lse, "lse", 2, (int64_t[]){n, lq}, measuring));
    KN_TRY(check_approximations(d, a));
    KN_TRY(check_norm(d, a));
    KN_TRY(check_room(a));
    return check_dtypes(kn_dev_get_kind(d), a);
}

static kn_status check_plan(const kn_attn_args *a, const kn_attn_plan *plan)
{
    int64_t n = a->q.dim[1];
    if (a->q.dim[0] != plan->tokens || a->k.dim[0] != plan->tokens)
        return kn_fail(KN_ERR_ARG,
                       "attention: the plan is for %lld tokens, q has %lld and k has %lld",
                       (long long)plan->tokens, (long long)a->q.dim[0], (long long)a->k.dim[0]);
    if ((plan->heads != 1 && plan->heads != n) || (plan->perm_heads > 1 && plan->perm_heads != n))
        return kn_fail(KN_ERR_ARG,
                       "attention: the plan has lists for %d heads and orders for %d, "
                       "q has %lld heads",
                       plan->heads, plan->perm_heads, (long long)n);
    if (a->bias.rank) return kn_fail(KN_ERR_ARG, "attention: a bias cannot be used with a plan");
    return KN_OK;
}

kn_status kn_attn_apply_norm(kn_dev *d, const kn_attn_args *a)
{
    const kn_attn_norm *n = a->norm;
    if (!n) return KN_OK;
    KN_TRY(kn_norm_rope(d, &a->q, &n->weight_q, n->eps, &n->cos, &n->sin, &a->q));
    return kn_norm_rope(d, &a->k, &n->weight_k, n->eps, &n->cos, &n->sin, &a->k);
}

static kn_status dispatch(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                          kn_arena *scratch)
{
    kn_dev_kind kind = kn_dev_get_kind(d);
    if (kind != KN_DEV_MEASURE && !(kind == KN_DEV_CUDA && args->int8)) KN_TRY(kn_attn_apply_norm(d, args));
    switch (kind) {
    case KN_DEV_REF: return kn_attn_run_ref(d, args, plan, scratch);
    case KN_DEV_CPU: return kn_attn_run_cpu(d, args, plan, scratch);
    case KN_DEV_MEASURE:
        return kn_dev_measured(d) == KN_DEV_CUDA ? kn_attn_measure_cuda(d, args, plan, scratch)
                                                 : kn_attn_measure_cpu(d, args, plan, scratch);
    case KN_DEV_CUDA: return kn_attn_run_cuda(d, args, plan, scratch);
    }
    return kn_fail(KN_ERR_INTERNAL, "attention: unknown kind of device");
}

bool kn_attn_approximates(kn_dev *d)
{
    switch (kn_dev_get_kind(d)) {
    case KN_DEV_REF: return true;
    case KN_DEV_CPU: return false;
    case KN_DEV_MEASURE: return kn_dev_measured(d) != KN_DEV_CPU;
    case KN_DEV_CUDA: return kn_attn_cuda_is_hopper(d);
    }
    return false;
}

kn_status kn_attn_dense(kn_dev *d, const kn_attn_args *args, kn_arena *scratch)
{
    KN_TRY(check_args(d, args));
    return args->q.dim[0] == 0 ? KN_OK : dispatch(d, args, NULL, scratch);
}

kn_status kn_attn_sparse(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                         kn_arena *scratch)
{
    KN_TRY(check_args(d, args));
    KN_TRY(check_plan(args, plan));
    if (plan->scale == 0.0f) return dispatch(d, args, plan, scratch);
    kn_attn_args scaled = *args;
    scaled.scale = plan->scale;
    return dispatch(d, &scaled, plan, scratch);
}

void kn_attn_forget(kn_dev *d)
{
    if (kn_dev_get_kind(d) == KN_DEV_CUDA) kn_attn_forget_cuda(d);
}
