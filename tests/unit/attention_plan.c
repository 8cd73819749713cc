/* Plans: counting, pictures, the check of a foreign plan, and running them at the edges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/draft.h"
#include "attention/permute.h"
#include "attention/plan.h"
#include "attention/tile3d.h"
#include "attention/window.h"
#include "io/memory.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        kn_status ok_st_ = (call);                                                                 \
        if (ok_st_ != KN_OK) fail_msg("%s", kn_error_text());                                      \
    } while (0)

static kn_attn_plan *freeswim(int t, int h, int w, bool runs)
{
    kn_window_params p = {.layout = {{t, h, w}, {t, runs ? 1 : 3, runs ? 1 : 2}, 0},
                          .query_tile = {t, 3, 2},
                          .block = 128,
                          .window = {{.size = 0}, {.size = 31}, {.size = 53}}};
    kn_attn_plan *plan;
    OK(kn_window_plan(&p, &plan));
    return plan;
}

/* The lists themselves reach the figures that the tile search promises. */
static void test_figures(void **state)
{
    (void)state;
    static const struct {
        int h, w;
        bool runs;
        double most;
    } cases[] = {{68, 120, false, 1.15},
                 {68, 120, true, 1.15},
                 {135, 240, false, 1.13},
                 {135, 240, true, 1.13}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kn_attn_plan *p = freeswim(21, cases[i].h, cases[i].w, cases[i].runs);
        kn_attn_plan_stats s;
        kn_attn_plan_count(p, 128, 128, &s);
        print_message(
            "21x%dx%d %s: density %.4f listed %.4f executed %.4f (x%.3f), %.0f..%.0f blocks a "
            "row, %lld runs, %.0f%% partial\n",
            cases[i].h, cases[i].w, cases[i].runs ? "runs " : "tiles", s.density, s.listed,
            s.executed, s.overhead, s.blocks_min, s.blocks_max, (long long)s.runs, 100 * s.partial);
        assert_true(s.overhead <= cases[i].most);
        kn_attn_plan_free(&p);
    }
}

/* A plan small enough to count by hand: 1 x 1 x 8 tokens in tiles of 2, window 3, 3 text tokens. */
static void test_counts(void **state)
{
    (void)state;
    kn_window_params params = {.layout = {{1, 1, 8}, {1, 1, 2}, 3},
                               .block = 2,
                               .window = {{.size = 0}, {.size = 0}, {.size = 3}}};
    kn_attn_plan *p;
    OK(kn_window_plan(&params, &p));
    OK(kn_attn_plan_check(p));
    assert_int_equal(p->tokens, 11);
    assert_int_equal(p->q_blocks, 6); /* 4 of video, 3 text tokens in 2 */
    assert_int_equal(kn_attn_plan_text_block(p), 4);
    kn_attn_plan_stats s;
    kn_attn_plan_count(p, 2, 4, &s);
    /* Rows of video see 2, 3, 3, 2 tiles and text; 8 queries see 3 + 3 keys, 3 text queries all. */
    assert_true(fabs(s.density - (8 * 6 + 3 * 11) / 121.0) < 1e-12);
    assert_true(fabs(s.listed - (2 * (7 + 9 + 9 + 7) + 3 * 11) / 121.0) < 1e-12);
    /* Blocks of 4: tokens 0-3 1 block, 0-5 2, 2-7 with text 2-10 3, 4-10 2, 11 3; text 8-10 1. */
    assert_true(fabs(s.executed - 2 * 4 * (2 + 3 + 3 + 2 + 3 + 3) / 121.0) < 1e-12);
    assert_true(s.blocks_min == 2 && s.blocks_max == 3);

    uint8_t field[8];
    OK(kn_attn_plan_field(p, 0, 5, field));
    const uint8_t want[] = {0, 0, 0, 0, 255, 255, 255, 0};
    assert_memory_equal(field, want, sizeof want);
    assert_int_equal(kn_attn_plan_row(p, 0, 11, field), KN_ERR_ARG);
    kn_attn_plan_free(&p);
    kn_attn_plan_free(&p); /* NULL-safe */
}

static void expect_bad(kn_attn_plan *p, const char *says)
{
    assert_int_equal(kn_attn_plan_check(p), KN_ERR_FORMAT);
    if (!strstr(kn_error_text(), says)) fail_msg("'%s' does not say '%s'", kn_error_text(), says);
}

/* Break one thing at a time; each is found, and the mended plan passes. */
#define BREAK(place, value, says)                                                                  \
    do {                                                                                           \
        __typeof__(place) kept_ = (place);                                                         \
        (place) = (value);                                                                         \
        expect_bad(p, says);                                                                       \
        (place) = kept_;                                                                           \
        OK(kn_attn_plan_check(p));                                                                 \
    } while (0)

static void test_check(void **state)
{
    (void)state;
    kn_window_params params = {.layout = {{2, 3, 4}, {2, 1, 1}, 2},
                               .query_tile = {2, 3, 2},
                               .block = 6,
                               .window = {{.size = 0}, {.size = 3}, {.size = 3}}};
    kn_attn_plan *p;
    OK(kn_window_plan(&params, &p));
    OK(kn_attn_plan_check(p));
    assert_non_null(p->perm_q);
    BREAK(p->tokens, 0, "0 tokens");
    BREAK(p->heads, 0, "0 heads");
    BREAK(p->q_blocks, 27, "27 query blocks");
    BREAK(p->perm_heads, 0, "orders");
    BREAK(p->density, 1.5, "density");
    BREAK(p->density, NAN, "density");
    BREAK(p->scale, INFINITY, "scale");
    BREAK(p->rows, 3, "3 rows");
    BREAK(p->grid[1], 0, "grid");
    BREAK(p->runs, NULL, "missing");
    BREAK(p->bounds, NULL, "rules without");
    BREAK(p->q_start[0], 1, "query blocks run from 1");
    BREAK(p->q_start[1], 0, "query block 0");
    BREAK(p->perm_q[3], 26, "perm_q[3]");
    BREAK(p->perm_q[3], p->perm_q[2], "perm_q[3]");
    BREAK(p->pos[0], 2, "token 0 lies");
    BREAK(p->pos[1], -1, "token 0 lies");
    BREAK(p->dilation[0][1], 0, "dilation 0");
    BREAK(p->bounds[0], -1, "shows");
    BREAK(p->bounds[2], 3, "shows");
    BREAK(p->row_ptr[0], 1, "first row");
    BREAK(p->row_ptr[1], p->run_capacity + 1, "row 0 has runs");
    BREAK(p->row_ptr[1], 0, "row 0 has runs");
    BREAK(p->runs[0].key, -1, "row 0: run");
    BREAK(p->runs[0].count, 0, "row 0: run");
    BREAK(p->runs[0].count, 27, "row 0: run");
    BREAK(p->runs[0].rule, 1, "row 0: run");
    BREAK(p->runs[1].key, p->runs[0].key, "row 0: run");
    /* A rule on text keys: the last run of row 0 is the text. */
    BREAK(p->runs[p->row_ptr[1] - 1].rule, 0, "off the grid");
    kn_attn_plan_free(&p);
}

static float *filled(int64_t count, uint64_t seed)
{
    float *x = malloc((size_t)count * sizeof *x);
    uint64_t s = seed * 0x9E3779B97F4A7C15u + 1;
    for (int64_t i = 0; i < count; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        x[i] = 2 * ((float)(s >> 40) * 0x1p-23f - 1.0f);
    }
    return x;
}

typedef struct tensors {
    float *q, *k, *v, *out, *lse;
    kn_attn_args args;
} tensors;

static tensors make(int64_t l, int64_t n, int64_t d)
{
    tensors t = {filled(l * n * d, 1), filled(l * n * d, 2), filled(l * n * d, 3),
                 filled(l * n * d, 4), filled(l * n, 5),     {.scale = 0}};
    t.args = (kn_attn_args){.q = kn_tensor_of(t.q, KN_F32, l, n, d),
                            .k = kn_tensor_of(t.k, KN_F32, l, n, d),
                            .v = kn_tensor_of(t.v, KN_F32, l, n, d),
                            .out = kn_tensor_of(t.out, KN_F32, l, n, d),
                            .lse = kn_tensor_of(t.lse, KN_F32, n, l),
                            .scale = 1.0f / sqrtf((float)d)};
    return t;
}

static void drop(tensors *t)
{
    float *all[] = {t->q, t->k, t->v, t->out, t->lse};
    for (int i = 0; i < 5; i++) free(all[i]);
}

/* Density 1, by every planner: dense attention to rounding. Where the order of keys is the stored
 * one it is the same arithmetic, hence the same bytes. */
static void test_dense_limit(void **state)
{
    (void)state;
    enum { N = 2, D = 32, L = 4 * 5 * 6 + 7 };
    const kn_attn_layout layout = {{4, 5, 6}, {2, 3, 4}, 7};
    tensors t = make(L, N, D);
    float *want = filled((int64_t)L * N * D, 6);
    kn_dev *dev;
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU}, &dev));
    t.args.out.data = want;
    OK(kn_attn_dense(dev, &t.args, NULL));
    t.args.out.data = t.out;

    kn_attn_plan *made[3];
    const kn_attn_plan *plans[6];
    kn_draft *draft;
    kn_permute *permute[2];
    OK(kn_attn_plan_dense(&layout, 16, &made[0]));
    OK(kn_window_plan(&(kn_window_params){.layout = layout, .block = 16}, &made[1]));
    OK(kn_tile3d_plan(
        &(kn_tile3d_params){
            .layout = layout, .block = 16, .heads = 1, .window = (const int[][3]){{3, 3, 3}}},
        &made[2]));
    OK(kn_draft_open(
        &(kn_draft_params){
            .layout = layout, .block = 16, .heads = N, .dim = D, .scale = t.args.scale},
        &draft));
    OK(kn_draft_plan(dev, draft, &t.args.q, &t.args.k, &plans[3]));
    for (int i = 0; i < 2; i++) {
        kn_permute_params p = {.layout = layout,
                               .kind = i ? KN_PERMUTE_AXES : KN_PERMUTE_IMPORTANCE,
                               .block = 16,
                               .samples = 10,
                               .axes = (const uint8_t[]){3, 5},
                               .heads = N,
                               .dim = D,
                               .threshold = 1,
                               .scale = t.args.scale};
        OK(kn_permute_open(&p, &permute[i]));
        OK(kn_permute_plan(dev, permute[i], &t.args.q, &t.args.k, &plans[4 + i]));
    }
    for (int i = 0; i < 3; i++) plans[i] = made[i];
    for (int i = 0; i < 6; i++) {
        memset(t.out, 0xff, sizeof(float) * L * N * D);
        OK(kn_attn_sparse(dev, &t.args, plans[i], NULL));
        if (i < 4) {
            assert_true(plans[i]->density == 1.0);
            assert_memory_equal(t.out, want, sizeof(float) * L * N * D);
        }
        double worst = 0;
        for (int64_t e = 0; e < (int64_t)L * N * D; e++)
            worst = fmax(worst, fabs((double)t.out[e] - want[e]));
        assert_true(worst < 2e-6); /* |v| < 2; another order of 127 terms */
    }
    for (int i = 0; i < 3; i++) kn_attn_plan_free(&made[i]);
    for (int i = 0; i < 2; i++) kn_permute_close(&permute[i]);
    kn_draft_close(&draft);
    kn_dev_close(&dev);
    free(want);
    drop(&t);
}

/* Budgets are kept to the block: draft's when forced tiles count into it, permute's in every row. */
static void test_budgets(void **state)
{
    (void)state;
    enum { N = 2, D = 16, T = 6, H = 8, W = 8, TILES = T * 4 };
    tensors t = make(T * H * W, N, D);
    kn_dev *dev;
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF}, &dev));
    const kn_attn_layout layout = {{T, H, W}, {1, 4, 4}, 0};
    for (int percent = 10; percent <= 100; percent += 15) {
        kn_draft *draft;
        kn_permute *permute;
        const kn_attn_plan *plan;
        kn_draft_params d = {.layout = layout,
                             .block = 16,
                             .heads = N,
                             .dim = D,
                             .sparsity = 1 - percent / 100.0,
                             .within_budget = true,
                             .scale = t.args.scale};
        OK(kn_draft_open(&d, &draft));
        OK(kn_draft_plan(dev, draft, &t.args.q, &t.args.k, &plan));
        OK(kn_attn_plan_check(plan));
        /* Own and first frame: 4 tiles in the first frame's rows, 8 in the others'. The threshold
         * is one of the kept. */
        double pairs = TILES * TILES, forced = 4 * 4 + (TILES - 4) * 8;
        double kept = pairs - floor(d.sparsity * pairs) + (floor(d.sparsity * pairs) > 0);
        if (kept < forced) kept = forced;
        assert_true(fabs(plan->density - kept / pairs) < 1e-9);
        kn_permute_params m = {.layout = layout,
                               .kind = KN_PERMUTE_IMPORTANCE,
                               .block = 16,
                               .segment = 4,
                               .samples = 20,
                               .heads = N,
                               .dim = D,
                               .density = percent / 100.0,
                               .scale = t.args.scale};
        OK(kn_permute_open(&m, &permute));
        OK(kn_permute_plan(dev, permute, &t.args.q, &t.args.k, &plan));
        OK(kn_attn_plan_check(plan));
        for (int64_t r = 0; r < plan->rows; r++) {
            int64_t keys = 0;
            for (int64_t i = plan->row_ptr[r]; i < plan->row_ptr[r + 1]; i++)
                keys += plan->runs[i].count;
            assert_int_equal(keys, 16 * (int64_t)(m.density * TILES + 0.5));
        }
        kn_draft_close(&draft);
        kn_permute_close(&permute);
    }
    kn_dev_close(&dev);
    drop(&t);
}

/* Scratch counted on the measure device suffices for a plan with orders; threads change no byte; a
 * plan for other tensors is refused. */
static void test_running(void **state)
{
    (void)state;
    enum { N = 2, D = 16, L = 4 * 5 * 6 };
    tensors t = make(L, N, D);
    kn_dev *one, *three, *measure;
    kn_arena *arena;
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &one));
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 3}, &three));
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_MEASURE, .measured = KN_DEV_CPU}, &measure));
    kn_permute *permute;
    const kn_attn_plan *plan;
    kn_permute_params params = {.layout = {{4, 5, 6}, {2, 3, 4}, 0},
                                .block = 8,
                                .segment = 2,
                                .samples = 10,
                                .heads = N,
                                .dim = D,
                                .threshold = 0.5,
                                .scale = 0.25f};
    OK(kn_permute_open(&params, &permute));
    OK(kn_permute_plan(three, permute, &t.args.q, &t.args.k, &plan));
    assert_true(plan->density < 0.9);

    OK(kn_arena_open(measure, 0, &arena));
    OK(kn_attn_sparse(measure, &t.args, plan, arena));
    size_t need = kn_arena_peak(arena);
    kn_arena_close(&arena);
    OK(kn_arena_open(three, need, &arena));
    OK(kn_attn_sparse(three, &t.args, plan, arena));
    kn_arena_close(&arena);
    float *first = t.out;
    t.args.out.data = t.out = filled((int64_t)L * N * D, 9);
    OK(kn_attn_sparse(one, &t.args, plan, NULL));
    assert_memory_equal(first, t.out, sizeof(float) * L * N * D);
    free(first);

    kn_attn_args wrong = t.args;
    wrong.q.dim[1] = wrong.k.dim[1] = wrong.v.dim[1] = wrong.out.dim[1] = 1;
    wrong.lse.rank = 0;
    assert_int_equal(kn_attn_sparse(one, &wrong, plan, NULL), KN_ERR_ARG);
    wrong = t.args;
    wrong.k.dim[0] = wrong.v.dim[0] = L - 1;
    assert_int_equal(kn_attn_sparse(one, &wrong, plan, NULL), KN_ERR_ARG);
    kn_permute_close(&permute);
    kn_dev_close(&one);
    kn_dev_close(&three);
    kn_dev_close(&measure);
    drop(&t);
}

/* Keys that follow w closely and t loosely: the order with w slowest has the most even blocks. */
static void test_axes(void **state)
{
    (void)state;
    enum { T = 4, H = 4, W = 8, L = T * H * W, D = 16 };
    float *q = calloc(L * D, sizeof *q);
    for (int i = 0; i < L; i++) q[i * D + i % W] = 8.0f; /* one direction per column of the image */
    kn_tensor x = kn_tensor_of(q, KN_F32, L, 1, D);
    kn_dev *dev;
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 2}, &dev));
    kn_axes_params params = {.layout = {{T, H, W}, {1, 2, 4}, 0},
                             .block = 16,
                             .stride = 1,
                             .epsilon = 1e-3,
                             .share = 0.9,
                             .alpha = 0.5,
                             .scale = 0.25f};
    uint8_t axes = 99;
    OK(kn_permute_choose_axes(dev, &params, &x, &x, &axes));
    assert_true(axes < KN_AXIS_ORDERS);
    assert_int_equal(kn_axis_orders[axes][0], 2);
    params.stride = 3;
    OK(kn_permute_choose_axes(dev, &params, &x, &x, &axes));
    assert_int_equal(kn_axis_orders[axes][0], 2);
    kn_dev_close(&dev);
    free(q);
}

/* Every allocation of a planner may fail: NOMEM, nothing leaked, and the next try works. */
static void test_no_memory(void **state)
{
    (void)state;
    kn_window_params params = {.layout = {{2, 3, 4}, {2, 1, 1}, 2},
                               .query_tile = {2, 3, 2},
                               .block = 6,
                               .window = {{.size = 0}, {.size = 3}, {.size = 3}}};
    for (long k = 1;; k++) {
        kn_attn_plan *p;
        kn_memory_fail_at(k);
        kn_status st = kn_window_plan(&params, &p);
        kn_memory_fail_at(0);
        if (st == KN_OK) {
            assert_true(k > 5);
            kn_attn_plan_free(&p);
            break;
        }
        assert_int_equal(st, KN_ERR_NOMEM);
        assert_null(p);
    }
    for (long k = 1;; k++) {
        kn_permute *p;
        kn_permute_params pp = {.layout = {{2, 3, 4}, {2, 1, 1}, 2},
                                .kind = KN_PERMUTE_AXES,
                                .block = 4,
                                .axes = (const uint8_t[]){2},
                                .heads = 1,
                                .dim = 8,
                                .threshold = 0.5};
        kn_memory_fail_at(k);
        kn_status st = kn_permute_open(&pp, &p);
        kn_memory_fail_at(0);
        if (st == KN_OK) {
            assert_true(k > 5);
            kn_permute_close(&p);
            break;
        }
        assert_int_equal(st, KN_ERR_NOMEM);
        assert_null(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures),     cmocka_unit_test(test_counts),
        cmocka_unit_test(test_check),       cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_running),
        cmocka_unit_test(test_dense_limit), cmocka_unit_test(test_axes),
        cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
