/* Dense attention beyond its numbers: layouts, memory, threads, extreme inputs, refusals. */
#include "attention/attention.h"
#include "tests/unit/attention_case.h"

typedef struct problem {
    int64_t lq, lk, n, d, dv;
    float *q, *k, *v, *bias, *out, *lse;
    kn_attn_args args; /* contiguous, no bias */
} problem;

static problem make(int64_t lq, int64_t lk, int64_t n, int64_t d, int64_t dv, float amplitude)
{
    problem p = {.lq = lq, .lk = lk, .n = n, .d = d, .dv = dv};
    p.q = filled(lq * n * d, 1, amplitude);
    p.k = filled(lk * n * d, 2, amplitude);
    p.v = filled(lk * n * dv, 3, 1.0f);
    p.bias = filled(n * lq * lk, 4, 3.0f);
    p.out = filled(lq * n * dv, 5, NAN);
    p.lse = filled(n * lq, 6, NAN);
    p.args = (kn_attn_args){.q = kn_tensor_of(p.q, KN_F32, lq, n, d),
                            .k = kn_tensor_of(p.k, KN_F32, lk, n, d),
                            .v = kn_tensor_of(p.v, KN_F32, lk, n, dv),
                            .out = kn_tensor_of(p.out, KN_F32, lq, n, dv),
                            .lse = kn_tensor_of(p.lse, KN_F32, n, lq),
                            .scale = 1.0f / sqrtf((float)d)};
    return p;
}

static void drop(problem *p)
{
    float *all[] = {p->q, p->k, p->v, p->bias, p->out, p->lse};
    for (int i = 0; i < 6; i++) free(all[i]);
}

/* Every shape on every instruction set against ref, which works in double. */
static void test_shapes(void **state)
{
    (void)state;
    static const int64_t shapes[][5] = {
        {1, 1, 1, 1, 1},       {5, 7, 2, 3, 4},       {33, 97, 3, 16, 16},  {130, 300, 2, 64, 64},
        {64, 200, 1, 128, 80}, {257, 129, 2, 72, 48}, {70, 90, 1, 512, 24}, {20, 30, 1, 24, 600},
        {40, 50, 2, 384, 384}, {31, 96, 1, 13, 17},   {32, 193, 1, 64, 12}, {129, 95, 1, 257, 5}};
    kn_dev *ref;
    ref = open_device(KN_DEV_REF, 0, 0);
    for (int isa = 1; isa <= 3; isa++) {
        kn_dev *cpu = open_device(KN_DEV_CPU, isa, 2);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int bias = 0; bias < 2; bias++) {
                const int64_t *s = shapes[i];
                problem p = make(s[0], s[1], s[2], s[3], s[4], 2.0f);
                if (bias) p.args.bias = kn_tensor_of(p.bias, KN_F32, p.n, p.lq, p.lk);
                expect_ok(kn_attn_dense(cpu, &p.args, NULL));
                float *want = filled(p.lq * p.n * p.dv, 5, NAN), *lse = filled(p.n * p.lq, 6, NAN);
                p.args.out.data = want;
                p.args.lse.data = lse;
                expect_ok(kn_attn_dense(ref, &p.args, NULL));
                /* |v| < 1, logits < 30: relative rounding 6e-8 of each, sums of hundreds. */
                if (difference(p.out, want, p.lq * p.n * p.dv) > 5e-6 ||
                    difference(p.lse, lse, p.n * p.lq) > 1e-5)
                    fail_msg("isa %d, shape %zu, bias %d: out off by %g, lse by %g", isa, i, bias,
                             difference(p.out, want, p.lq * p.n * p.dv),
                             difference(p.lse, lse, p.n * p.lq));
                free(want);
                free(lse);
                drop(&p);
            }
        kn_dev_close(&cpu);
    }
    kn_dev_close(&ref);
}

/* Slices of a fused projection, other strides, scratch or none, any thread count, a second run: the
 * same bytes. */
static void test_same_bytes(void **state)
{
    (void)state;
    problem p = make(200, 333, 3, 40, 40, 2.0f);
    int64_t count = p.lq * p.n * p.dv;
    kn_dev *one = open_device(KN_DEV_CPU, 0, 1), *three = open_device(KN_DEV_CPU, 0, 3);
    expect_ok(kn_attn_dense(one, &p.args, NULL));
    float *first = p.out;
    p.args.out.data = p.out = filled(count, 7, NAN);
    expect_ok(kn_attn_dense(three, &p.args, NULL));
    assert_memory_equal(first, p.out, (size_t)count * sizeof *first);

    kn_arena *arena;
    expect_ok(kn_arena_open(one, 8 << 20, &arena));
    kn_tensor dirt;
    kn_arena_mark mark = kn_arena_get_mark(arena);
    expect_ok(kn_arena_take(arena, &dirt, KN_F32, 1 << 20));
    memset(dirt.data, 0xff, 4 << 20);
    kn_arena_reset(arena, mark);
    memset(p.out, 0xff, (size_t)count * sizeof *first);
    expect_ok(kn_attn_dense(one, &p.args, arena));
    assert_memory_equal(first, p.out, (size_t)count * sizeof *first);
    assert_int_equal(kn_arena_get_mark(arena), mark);
    kn_arena_close(&arena);

    /* k and v side by side in one buffer, padded; out with a head stride of its own. */
    int64_t row = 2 * p.n * p.d + 9;
    float *fused = filled(p.lk * row, 8, NAN), *wide = filled(p.lq * p.n * 50, 9, NAN);
    for (int64_t i = 0; i < p.lk; i++) {
        memcpy(fused + i * row, p.k + i * p.n * p.d, (size_t)(p.n * p.d) * sizeof(float));
        memcpy(fused + i * row + p.n * p.d, p.v + i * p.n * p.d,
               (size_t)(p.n * p.d) * sizeof(float));
    }
    p.args.k.data = fused;
    p.args.v.data = fused + p.n * p.d;
    p.args.k.stride[0] = p.args.v.stride[0] = row;
    p.args.out.data = wide;
    p.args.out.stride[0] = p.n * 50;
    p.args.out.stride[1] = 50;
    expect_ok(kn_attn_dense(one, &p.args, NULL));
    for (int64_t i = 0; i < p.lq * p.n; i++)
        assert_memory_equal(first + i * p.dv, wide + i * 50, (size_t)p.dv * sizeof(float));
    free(fused);
    free(wide);
    free(first);
    drop(&p);
    kn_dev_close(&one);
    kn_dev_close(&three);
}

static void test_out_is_q(void **state)
{
    (void)state;
    for (int on_ref = 0; on_ref < 2; on_ref++) {
        problem p = make(150, 70, 2, 24, 24, 2.0f);
        kn_dev *d = open_device(KN_DEV_CPU, 0, 2), *ref;
        ref = open_device(KN_DEV_REF, 0, 0);
        expect_ok(kn_attn_dense(on_ref ? ref : d, &p.args, NULL));
        p.args.out = p.args.q;
        expect_ok(kn_attn_dense(on_ref ? ref : d, &p.args, NULL));
        assert_memory_equal(p.out, p.q, (size_t)(p.lq * p.n * p.d) * sizeof(float));
        kn_dev_close(&d);
        kn_dev_close(&ref);
        drop(&p);
    }
}

/* What the measure device says is enough, and no more than needed. */
static void test_measure(void **state)
{
    (void)state;
    problem p = make(200, 333, 6, 40, 24, 1.0f);
    kn_dev *cpu = open_device(KN_DEV_CPU, 0, 2), *measure;
    kn_arena *arena;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_MEASURE, .measured = KN_DEV_CPU}, &measure));
    kn_attn_args counted = p.args;
    counted.q.data = counted.k.data = counted.v.data = counted.out.data = counted.lse.data = NULL;
    expect_ok(kn_arena_open(measure, 0, &arena));
    expect_ok(kn_attn_dense(measure, &counted, arena));
    size_t need = kn_arena_peak(arena);
    assert_int_equal(kn_arena_get_mark(arena), 0);
    kn_arena_close(&arena);
    assert_true(need > 0);
    expect_ok(kn_arena_open(cpu, need, &arena));
    expect_ok(kn_attn_dense(cpu, &p.args, arena));
    kn_arena_close(&arena);
    expect_ok(kn_arena_open(cpu, need - 64, &arena));
    assert_int_equal(kn_attn_dense(cpu, &p.args, arena), KN_ERR_NOMEM);
    kn_arena_close(&arena);
    kn_dev_close(&cpu);
    kn_dev_close(&measure);
    drop(&p);
}

/* Large logits: no overflow, and the heaviest key wins. Hidden rows: zero, and lse -inf. NaN stays
 * visible. */
static void test_extremes(void **state)
{
    (void)state;
    for (int isa = 0; isa <= 3; isa++) {
        kn_dev *d;
        if (isa)
            d = open_device(KN_DEV_CPU, isa, 1);
        else
            d = open_device(KN_DEV_REF, 0, 0);
        problem p = make(40, 250, 1, 16, 16, 1.0f);
        for (int64_t i = 0; i < 250 * 16; i++) p.k[i] *= 1e4f;
        expect_ok(kn_attn_dense(d, &p.args, NULL));
        for (int64_t i = 0; i < 40; i++) {
            double top = -INFINITY, second = -INFINITY;
            int64_t best = 0;
            for (int64_t j = 0; j < 250; j++) {
                double s = 0;
                for (int c = 0; c < 16; c++) s += (double)p.q[i * 16 + c] * p.k[j * 16 + c];
                if (s > top)
                    second = top, top = s, best = j;
                else if (s > second)
                    second = s;
            }
            if ((top - second) / 4 < 20) continue; /* scale is 1/4; e^-20 hides the others */
            assert_true(difference(p.out + i * 16, p.v + best * 16, 16) < 1e-6);
        }
        p.args.bias = kn_tensor_of(p.bias, KN_F32, 1, 40, 250);
        for (int64_t j = 0; j < 250; j++) p.bias[3 * 250 + j] = -INFINITY;
        for (int64_t j = 0; j < 200; j++)
            p.bias[5 * 250 + j] = -INFINITY; /* all of the first steps */
        p.k[249 * 16] = NAN;
        p.bias[4 * 250 + 249] = -INFINITY;
        expect_ok(kn_attn_dense(d, &p.args, NULL));
        for (int c = 0; c < 16; c++) {
            assert_true(isnan(p.out[7 * 16 + c]));
            assert_true(isnan(p.out[5 * 16 + c]));
        }
        p.k[249 * 16] = 0.5f;
        expect_ok(kn_attn_dense(d, &p.args, NULL));
        for (int c = 0; c < 16; c++) {
            assert_true(p.out[3 * 16 + c] == 0.0f);
            assert_true(isfinite(p.out[5 * 16 + c]));
        }
        assert_true(p.lse[3] == -INFINITY);
        assert_true(isfinite(p.lse[5]));
        drop(&p);
        kn_dev_close(&d);
    }
}

static void expect_refused(kn_dev *d, const kn_attn_args *a, const char *says)
{
    assert_int_equal(kn_attn_dense(d, a, NULL), KN_ERR_ARG);
    if (!strstr(kn_error_text(), says)) fail_msg("'%s' does not say '%s'", kn_error_text(), says);
}

static void test_refusals(void **state)
{
    (void)state;
    problem p = make(4, 5, 2, 8, 8, 1.0f);
    kn_dev *d = open_device(KN_DEV_CPU, 0, 1);
    kn_attn_args a = p.args;
    a.k.dim[2] = 7;
    expect_refused(d, &a, "k is f32[5, 2, 7]");
    a = p.args;
    a.v.dim[0] = 4;
    expect_refused(d, &a, "v is");
    a = p.args;
    a.out.dim[1] = 1;
    expect_refused(d, &a, "out is");
    a = p.args;
    a.q.stride[2] = 2;
    expect_refused(d, &a, "last axis of q");
    a = p.args;
    a.q.dtype = a.k.dtype = a.v.dtype = a.out.dtype = KN_BF16;
    expect_refused(d, &a, "bf16 is not a dtype of the cpu device");
    a = p.args;
    a.v.dtype = KN_F64;
    expect_refused(d, &a, "v is f64");
    a = p.args;
    a.k.dim[0] = a.v.dim[0] = 0;
    expect_refused(d, &a, "must be 1 or more");
    a = p.args;
    a.bias = kn_tensor_of(p.bias, KN_F32, 2, 4, 4);
    expect_refused(d, &a, "bias is");
    a = p.args;
    a.lse.dtype = KN_F16;
    expect_refused(d, &a, "lse is f16");
    a = p.args;
    a.k.data = NULL;
    expect_refused(d, &a, "k has no data");
    a = p.args;
    a.q.dim[0] = a.out.dim[0] = 0; /* no queries: nothing to do */
    a.lse.rank = 0;
    expect_ok(kn_attn_dense(d, &a, NULL));
    kn_dev_close(&d);
    drop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),   cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_out_is_q), cmocka_unit_test(test_measure),
        cmocka_unit_test(test_extremes), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
