/* Plans on a cuda device: their lists in device memory, and which kernel runs them. */
#include "attention/sparse_cuda.h"

#include <string.h>

#include "attention/executors.h"
#include "attention/lists.h"
#include "attention/sparse_kernels.h"
#include "compute/cuda.h"
#include "io/memory.h"

enum { PLANS = 8 };

/* With rules, with masks (on Hopper), or with masks and aligned for 8-bit products. */
typedef enum list_form { WITH_RULES, WITH_MASKS, FOR_INT8 } list_form;

/* Lists that were sent. The plan's address tells which to replace when its stamp has moved on. */
typedef struct sent_plan {
    const kn_attn_plan *plan;
    uint64_t stamp;
    int heads;
    list_form form;
    kn_attn_lists lists;
    void *memory;
    size_t bytes;
    uint64_t used;
} sent_plan;

struct kn_attn_cuda {
    sent_plan sent[PLANS];
    uint64_t clock;
    void *ordered; /* k and v in a plan's order */
    size_t ordered_bytes;
};

static void close_state(kn_dev *d)
{
    kn_cuda *c = kn_cuda_of(d);
    struct kn_attn_cuda *s = c->attention;
    if (!s) return;
    for (int i = 0; i < PLANS; i++) kn_dev_free(d, s->sent[i].memory, s->sent[i].bytes);
    kn_dev_free(d, s->ordered, s->ordered_bytes);
    kn_free(s);
    c->attention = NULL;
}

static kn_status open_state(kn_dev *d, struct kn_attn_cuda **out)
{
    kn_cuda *c = kn_cuda_of(d);
    if (!c->attention) {
        void *p;
        KN_TRY(kn_alloc_zero(sizeof *c->attention, &p));
        c->attention = p;
        c->attention_close = close_state;
    }
    *out = c->attention;
    return KN_OK;
}

void kn_attn_forget_cuda(kn_dev *d)
{
    if (kn_cuda_of(d)->attention) close_state(d);
    kn_cuda_lists_close(d); /* orders of tokens, which are of this pass too */
}

/* ---- sending plans ----------------------------------------------------------------------------*/

static kn_status send(kn_dev *d, const kn_attn_host_lists *h, sent_plan *s)
{
    kn_attn_list_part parts[KN_ATTN_LIST_PARTS];
    KN_TRY(kn_cuda_only_once(d, "lists of a plan"));
    d->moves++;
    s->lists = h->view;
    size_t bytes = kn_attn_host_lists_lay_out(h, parts);
    if (bytes > s->bytes) {
        void *p;
        kn_dev_free(d, s->memory, s->bytes);
        s->memory = NULL, s->bytes = 0;
        KN_TRY(kn_dev_alloc(d, bytes, &p));
        s->memory = p, s->bytes = bytes;
    }
    for (int i = 0; i < KN_ATTN_LIST_PARTS; i++) {
        char *at = parts[i].host ? (char *)s->memory + parts[i].offset : NULL;
        memcpy((char *)&s->lists + parts[i].pointer, &at, sizeof at); /* a pointer of any type */
        if (!at) continue;
        /* From pageable memory: staged before the call returns. */
        KN_CUDA_TRY(cudaMemcpyAsync(at, parts[i].host, parts[i].bytes, cudaMemcpyHostToDevice,
                                    kn_cuda_of(d)->stream));
    }
    return KN_OK;
}

/* The plan's lists in device memory, sent if they are not there. Valid until the next call. */
static kn_status find_lists(kn_dev *d, const kn_attn_plan *plan, int heads, list_form form,
                            const kn_attn_lists **out)
{
    struct kn_attn_cuda *s;
    KN_TRY(open_state(d, &s));
    sent_plan *slot = NULL, *oldest = &s->sent[0];
    for (int i = 0; i < PLANS; i++) {
        sent_plan *x = &s->sent[i];
        if (x->plan == plan && x->heads == heads && x->form == form) slot = x;
        if (x->used < oldest->used) oldest = x;
    }
    if (!slot) slot = oldest;
    slot->used = ++s->clock;
    if (slot->plan != plan || slot->heads != heads || slot->form != form ||
        slot->stamp != plan->stamp || !plan->stamp) {
        kn_attn_host_lists h;
        slot->plan = NULL;
        int align = form == FOR_INT8 ? KN_ATTN_INT8_ALIGN : 1;
        bool masks = form == FOR_INT8 || (form == WITH_MASKS && kn_attn_host_lists_maskable(plan));
        KN_TRY(kn_attn_host_lists_build(plan, heads, align, &h));
        kn_status st = masks ? kn_attn_host_lists_mask(plan, &h) : KN_OK;
        if (st == KN_OK) st = send(d, &h, slot);
        kn_attn_host_lists_free(&h);
        KN_TRY(st);
        slot->plan = plan, slot->heads = heads, slot->form = form, slot->stamp = plan->stamp;
    }
    *out = &slot->lists;
    return KN_OK;
}

/* ---- running ----------------------------------------------------------------------------------*/

static bool aligned(const kn_tensor *t)
{
    return (uintptr_t)t->data % 16 == 0 && (t->dim[0] == 1 || t->stride[0] % 8 == 0) &&
           (t->dim[1] == 1 || t->stride[1] % 8 == 0);
}

bool kn_attn_sparse_cuda_fits(const kn_attn_args *args)
{
    int64_t dim = args->q.dim[2];
    return (dim == 64 || dim == 128) && args->v.dim[2] == dim && args->bias.rank == 0 &&
           aligned(&args->q) && aligned(&args->k) && aligned(&args->v) && aligned(&args->out);
}

static kn_attn_problem make_problem(const kn_attn_args *a, const kn_attn_lists *lists)
{
    kn_attn_problem p = {
        .q = a->q.data, .k = a->k.data, .v = a->v.data, .out = a->out.data,
        .q_token = a->q.stride[0], .q_head = a->q.stride[1],
        .k_token = a->k.stride[0], .k_head = a->k.stride[1],
        .v_token = a->v.stride[0], .v_head = a->v.stride[1],
        .out_token = a->out.stride[0], .out_head = a->out.stride[1],
        .queries = a->q.dim[0], .keys = a->k.dim[0],
        .heads = (int)a->q.dim[1], .dim = (int)a->q.dim[2],
        .scale = a->scale, .lists = lists,
    };
    if (a->lse.rank) {
        p.lse = a->lse.data;
        p.lse_head = a->lse.stride[0], p.lse_token = a->lse.stride[1];
    }
    return p;
}

/* k and v in the lists' order. */
static kn_status reorder(kn_dev *d, kn_attn_problem *p)
{
    struct kn_attn_cuda *s;
    KN_TRY(open_state(d, &s));
    size_t half = (size_t)p->keys * (size_t)p->heads * (size_t)p->dim * 2;
    if (s->ordered_bytes < 2 * half) {
        void *x;
        kn_dev_free(d, s->ordered, s->ordered_bytes);
        s->ordered = NULL, s->ordered_bytes = 0;
        KN_TRY(kn_dev_alloc(d, 2 * half, &x));
        s->ordered = x, s->ordered_bytes = 2 * half;
    }
    void *k = s->ordered, *v = (char *)s->ordered + half;
    cudaStream_t stream = kn_cuda_of(d)->stream;
    KN_CUDA_TRY(kn_attn_reorder(p->k, p->k_token, p->k_head, k, p->lists, p->heads, p->dim, stream));
    KN_CUDA_TRY(kn_attn_reorder(p->v, p->v_token, p->v_head, v, p->lists, p->heads, p->dim, stream));
    p->k = k, p->v = v;
    p->k_token = p->v_token = (int64_t)p->heads * p->dim;
    p->k_head = p->v_head = p->dim;
    return KN_OK;
}

static bool on_sixteen(const kn_tensor *t)
{
    return (uintptr_t)t->data % 16 == 0;
}

/* May the packing do the norm? */
static bool packs_norm(const kn_attn_args *a, const kn_attn_lists *lists)
{
    const kn_attn_norm *n = a->norm;
    return n && a->q.dim[1] <= KN_INT8_NORM_HEADS && !(lists && (lists->perm_q || lists->perm_k)) &&
           on_sixteen(&n->cos) && on_sixteen(&n->sin);
}

/* In bytes, from scratch or, without it, memory of the call. */
static kn_status run_int8(kn_dev *d, const kn_attn_args *args, kn_attn_problem *p, kn_arena *scratch)
{
    cudaStream_t stream = kn_cuda_of(d)->stream;
    kn_attn_int8 x;
    kn_attn_int8_norm norm = {0};
    if (packs_norm(args, p->lists)) {
        const kn_attn_norm *n = args->norm;
        norm = (kn_attn_int8_norm){n->weight_q.rank ? n->weight_q.data : NULL,
                                   n->weight_k.rank ? n->weight_k.data : NULL, n->cos.data, n->sin.data, n->eps};
        p->norm = &norm;
    } else {
        KN_TRY(kn_attn_apply_norm(d, args));
    }
    size_t bytes = kn_attn_int8_place_call(NULL, args, &x);
    kn_arena *own = NULL, *from = scratch;
    kn_arena_mark mark = 0;
    kn_tensor t;
    if (!from) KN_TRY(kn_arena_open(d, bytes + 4096, &own));
    if (!from) from = own;
    mark = kn_arena_get_mark(from);
    kn_status st = kn_arena_take(from, &t, KN_F32, (int64_t)bytes / 4);
    if (st == KN_OK) {
        kn_attn_int8_place_call(t.data, args, &x);
        cudaError_t e = kn_attn_int8_pack(p, &x, stream);
        if (!e) e = kn_attn_launch_int8(p, &x, stream);
        if (e) st = kn_fail(KN_ERR_DEVICE, "attention in bytes: %s: %s", cudaGetErrorName(e), cudaGetErrorString(e));
    }
    kn_arena_reset(from, mark);
    if (own && st == KN_OK) st = kn_dev_sync(d);
    kn_arena_close(&own);
    return st;
}

/* lists NULL: dense. */
static kn_status run(kn_dev *d, const kn_attn_args *args, const kn_attn_lists *lists,
                     kn_arena *scratch)
{
    kn_cuda *c = kn_cuda_of(d);
    if (!kn_attn_sparse_cuda_fits(args))
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "attention: plans on cuda take heads of 64 or 128 without bias and strides "
                       "of 16 bytes; q has %lld, v %lld",
                       (long long)args->q.dim[2], (long long)args->v.dim[2]);
    kn_attn_problem p = make_problem(args, lists);
    p.counter = (int *)c->scalars; /* in stream order, as all that is there */
    p.sm_count = c->sm_count;
    p.spare = c->workspace, p.spare_bytes = c->workspace_bytes;
    p.threshold = args->skip_below;
    if (args->int8 && lists && lists->align != KN_ATTN_INT8_ALIGN)
        return kn_fail(KN_ERR_UNSUPPORTED, "attention: 8-bit products take plans that are known before the "
                                           "call, not lists that a planner made on the device");
    if (args->int8) return run_int8(d, args, &p, scratch);
    if (lists && lists->perm_k) KN_TRY(reorder(d, &p));
    if (c->sm == 90 && p.scale > 0.0f)
        KN_CUDA_TRY(kn_attn_launch_sm90(&p, c->stream));
    else
        KN_CUDA_TRY(kn_attn_launch_sm80(&p, c->stream));
    return KN_OK;
}

kn_status kn_attn_run_sparse_cuda(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                                  kn_arena *scratch)
{
    if (!plan) return run(d, args, NULL, scratch);
    const kn_attn_lists *lists = plan->lists;
    bool hopper = kn_cuda_of(d)->sm == 90 && args->scale > 0.0f;
    list_form form = args->int8 ? FOR_INT8 : hopper ? WITH_MASKS : WITH_RULES;
    if (!lists) KN_TRY(find_lists(d, plan, (int)args->q.dim[1], form, &lists));
    return run(d, args, lists, scratch);
}
