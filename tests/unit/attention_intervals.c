/* Windows over all frames on the CPU, by intervals of keys: against ref on every instruction set, for grids
 * whose rows are shorter and longer than a chunk of keys, windows up to the whole axis, odd widths, text. */
#include "attention/intervals_cpu.h"
#include "attention/window.h"
#include "tests/unit/attention_case.h"

typedef struct problem {
    kn_attn_plan *plan;
    float *qkv, *out, *lse;
    int64_t tokens, heads, dim, dv;
    kn_attn_args args; /* q, k, v: slices of one fused projection */
} problem;

typedef struct shape {
    int grid[3], window[2], block;
    int64_t text, heads, dim, dv;
} shape;

static kn_attn_plan *plan_of(const shape *s, const int tile[3])
{
    kn_attn_plan *plan;
    kn_window_params w = {.layout = {.text = s->text},
                          .query_tile = {s->grid[0], 3, 2},
                          .block = s->block,
                          .window = {{0}, {.size = s->window[0]}, {.size = s->window[1]}}};
    memcpy(w.layout.grid, s->grid, sizeof w.layout.grid);
    memcpy(w.layout.tile, tile, sizeof w.layout.tile);
    expect_ok(kn_window_plan(&w, &plan));
    return plan;
}

static problem make(const shape *s)
{
    problem p = {.heads = s->heads, .dim = s->dim, .dv = s->dv};
    p.plan = plan_of(s, (int[3]){s->grid[0], 1, 1});
    int64_t L = p.tokens = p.plan->tokens, N = s->heads, row = N * (2 * s->dim + s->dv);
    p.qkv = filled(L * row, 1, 2.0f);
    p.out = filled(L * N * s->dv, 3, 2.0f);
    p.lse = filled(N * L, 4, 2.0f);
    p.args = (kn_attn_args){.q = kn_tensor_of(p.qkv, KN_F32, L, N, s->dim),
                            .k = kn_tensor_of(p.qkv + N * s->dim, KN_F32, L, N, s->dim),
                            .v = kn_tensor_of(p.qkv + 2 * N * s->dim, KN_F32, L, N, s->dv),
                            .out = kn_tensor_of(p.out, KN_F32, L, N, s->dv),
                            .lse = kn_tensor_of(p.lse, KN_F32, N, L),
                            .scale = 1.0f / sqrtf((float)s->dim)};
    p.args.q.stride[0] = p.args.k.stride[0] = p.args.v.stride[0] = row;
    return p;
}

static void drop(problem *p)
{
    kn_attn_plan_free(&p->plan);
    free(p->qkv);
    free(p->out);
    free(p->lse);
}

static const shape shapes[] = {
    {{5, 12, 20}, {7, 11}, 32, 0, 2, 64, 64},   /* the shipped model at 2x */
    {{3, 5, 9}, {3, 5}, 128, 0, 1, 8, 24},      /* rows of 27 keys, several to a chunk */
    {{7, 4, 50}, {3, 45}, 128, 0, 1, 24, 48},   /* rows longer than a chunk */
    {{21, 3, 13}, {3, 13}, 64, 0, 2, 36, 128}, /* whole rows: intervals run on from row to row */
    {{4, 9, 7}, {5, 1}, 32, 0, 1, 13, 17},      /* a column */
    {{6, 7, 8}, {0, 3}, 16, 0, 1, 256, 5},      /* all rows */
    {{3, 1, 1}, {1, 1}, 16, 0, 1, 1, 1},        /* one column */
    {{5, 6, 11}, {3, 5}, 128, 77, 2, 40, 40},   /* text, which sees all and is seen by all */
    {{3, 20, 30}, {19, 29}, 128, 0, 1, 16, 16}, /* more keys than a softmax step takes */
    {{21, 4, 9}, {3, 5}, 126, 0, 2, 128, 128},  /* columns of several bands, parts of an interval's keys */
    {{8, 3, 11}, {3, 9}, 24, 5, 1, 200, 96},    /* columns cut by blocks, parts of one vector */
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_shapes(void **state)
{
    (void)state;
    kn_dev *ref = open_device(KN_DEV_REF, 0, 0);
    for (int i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[i];
        problem p = make(s);
        int64_t values = p.tokens * p.heads * p.dv, rows = p.tokens * p.heads;
        assert_true(kn_attn_intervals_fit(p.plan, p.dim, p.dv));
        expect_ok(kn_attn_sparse(ref, &p.args, p.plan, NULL));
        for (int isa = 1; isa <= 3; isa++) {
            kn_dev *cpu = open_device(KN_DEV_CPU, isa, 2);
            float *out = filled(values, 5, 2.0f), *lse = filled(rows, 6, 2.0f);
            kn_attn_args args = p.args;
            args.out.data = out;
            args.lse.data = lse;
            expect_ok(kn_attn_sparse(cpu, &args, p.plan, NULL));
            /* |v| <= 2, logits < 60: relative rounding 6e-8 of each, sums of hundreds. */
            double off = difference(out, p.out, values), lse_off = difference(lse, p.lse, rows);
            if (off > 1e-5 || lse_off > 1e-5)
                fail_msg("shape %d, isa %d: out off by %g, lse by %g", i, isa, off, lse_off);
            free(out);
            free(lse);
            kn_dev_close(&cpu);
        }
        drop(&p);
    }
    kn_dev_close(&ref);
}

/* Any thread count, scratch or none, output in the place of the queries: the same bytes. */
static void test_same_bytes(void **state)
{
    (void)state;
    problem p = make(&shapes[0]);
    size_t bytes = (size_t)(p.tokens * p.heads * p.dv) * sizeof(float), need;
    kn_dev *measure = open_device(KN_DEV_MEASURE, 0, 0), *one = open_device(KN_DEV_CPU, 0, 1);
    kn_arena *scratch;
    expect_ok(kn_attn_sparse(one, &p.args, p.plan, NULL));
    expect_ok(kn_arena_open(measure, 0, &scratch));
    expect_ok(kn_attn_sparse(measure, &p.args, p.plan, scratch));
    need = kn_arena_peak(scratch);
    assert_true(need >= 2 * bytes); /* keys and values of both heads */
    kn_arena_close(&scratch);
    for (int threads = 1; threads <= 4; threads += 3) {
        kn_dev *cpu = open_device(KN_DEV_CPU, 0, threads);
        float *out = filled(p.tokens * p.heads * p.dv, 7, 2.0f);
        kn_attn_args args = p.args;
        args.out.data = out;
        expect_ok(kn_arena_open(cpu, need, &scratch)); /* exactly what was measured */
        expect_ok(kn_attn_sparse(cpu, &args, p.plan, scratch));
        assert_memory_equal(out, p.out, bytes);
        kn_arena_close(&scratch);
        args.out = args.q; /* of the fused projection */
        expect_ok(kn_attn_sparse(cpu, &args, p.plan, NULL));
        for (int64_t t = 0; t < p.tokens; t++)
            assert_memory_equal((float *)args.q.data + t * args.q.stride[0],
                                p.out + t * p.heads * p.dv, (size_t)(p.heads * p.dv) * sizeof(float));
        free(p.qkv); /* its queries are gone */
        kn_attn_args old = p.args;
        p.qkv = filled(p.tokens * old.q.stride[0], 1, 2.0f);
        p.args.q.data = p.qkv;
        p.args.k.data = p.qkv + p.heads * p.dim;
        p.args.v.data = p.qkv + 2 * p.heads * p.dim;
        free(out);
        kn_dev_close(&cpu);
    }
    drop(&p);
    kn_dev_close(&one);
    kn_dev_close(&measure);
}

/* A plan of any other kind goes to the panels. */
static void test_others_do_not_fit(void **state)
{
    (void)state;
    shape s = shapes[0];
    kn_attn_plan *plan = plan_of(&s, (int[3]){5, 2, 2}); /* key tiles */
    assert_false(kn_attn_intervals_fit(plan, 64, 64));
    kn_attn_plan_free(&plan);
    plan = plan_of(&s, (int[3]){5, 1, 1});
    assert_true(kn_attn_intervals_fit(plan, 64, 64));
    assert_false(kn_attn_intervals_fit(plan, 257, 64));
    assert_false(kn_attn_intervals_fit(plan, 64, 257));
    assert_true(kn_attn_intervals_fit(plan, 256, 256));
    plan->dilation[0][2] = 2;
    assert_false(kn_attn_intervals_fit(plan, 64, 64));
    kn_attn_plan_free(&plan);
    kn_window_params w = {.layout = {.grid = {5, 8, 8}, .tile = {5, 1, 1}}, /* not over all frames */
                          .block = 32,
                          .window = {{.size = 3}, {.size = 3}, {.size = 3}}};
    expect_ok(kn_window_plan(&w, &plan));
    assert_false(kn_attn_intervals_fit(plan, 64, 64));
    kn_attn_plan_free(&plan);
}

/* Visible pairs, of which the first product takes whole vectors: windows of 11 columns of 5 frames, 55 keys
 * in 64 lanes. */
static void test_cost(void **state)
{
    (void)state;
    kn_attn_plan *plan = plan_of(&shapes[0], (int[3]){5, 1, 1});
    double density = 7.0 * 11 / (12 * 20);
    assert_true(fabs(plan->density - density) < 1e-12);
    assert_true(fabs(kn_attn_plan_host_cost(plan, 64) - density * (1 + 64.0 / 55) / 2) < 1e-12);
    kn_attn_plan_free(&plan);
    plan = plan_of(&shapes[0], (int[3]){5, 2, 2}); /* 30 queries a block, of 32 lanes; listed keys */
    kn_attn_plan_stats stats;
    kn_attn_plan_count(plan, 128, 128, &stats);
    assert_true(fabs(kn_attn_plan_host_cost(plan, 64) - stats.listed * 32 / 30) < 1e-12);
    kn_attn_plan_free(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_others_do_not_fit),
        cmocka_unit_test(test_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
