/* attention/product_sizes.c - scratch of attention on cuda, in every build: a plan for a GPU can be
 * made on any machine. */
#include "attention/int8.h"
#include "attention/product_cuda.h"

static int64_t eights(int64_t n)
{
    return (n + 7) / 8 * 8;
}

static bool aligned(const kn_tensor *t)
{
    return (uintptr_t)t->data % 16 == 0 && t->stride[0] % 8 == 0 && t->stride[1] % 8 == 0;
}

bool kn_attn_product_fits(const kn_attn_args *a)
{
    bool wanted = a->bias.rank > 0 || a->q.dim[2] > KN_ATTN_FUSED_DIM;
    return wanted && a->q.dim[2] % 8 == 0 && a->v.dim[2] % 8 == 0 && aligned(&a->q) &&
           aligned(&a->k) && aligned(&a->v) && aligned(&a->out);
}

int64_t kn_attn_product_pitch(const kn_attn_args *a)
{
    return eights(a->k.dim[0]);
}

int64_t kn_attn_product_rows(const kn_attn_args *a)
{
    int64_t row = a->q.dim[1] * kn_attn_product_pitch(a) * (int64_t)sizeof(float);
    int64_t rows = KN_ATTN_PRODUCT_BYTES / row / 128 * 128;
    if (rows < 128) rows = 128;
    return rows < a->q.dim[0] ? rows : a->q.dim[0];
}

kn_status kn_attn_measure_cuda(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                               kn_arena *scratch)
{
    (void)d;
    if (args->int8 && scratch) {
        kn_attn_int8 x;
        size_t bytes = kn_attn_int8_place_call(NULL, args, &x);
        kn_arena_mark mark = kn_arena_get_mark(scratch);
        kn_tensor t;
        KN_TRY(kn_arena_take(scratch, &t, KN_F32, (int64_t)bytes / 4));
        kn_arena_reset(scratch, mark);
        return KN_OK;
    }
    if (plan || !scratch || !kn_attn_product_fits(args)) return KN_OK;
    kn_tensor scores;
    kn_arena_mark mark = kn_arena_get_mark(scratch);
    KN_TRY(kn_arena_take(scratch, &scores, KN_F32, args->q.dim[1], kn_attn_product_rows(args),
                         kn_attn_product_pitch(args)));
    kn_arena_reset(scratch, mark);
    return KN_OK;
}
