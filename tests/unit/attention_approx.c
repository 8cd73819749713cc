/* The approximations of attention in their specification: 8-bit products and skipping of blocks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/attention.h"
#include "attention/window.h"

#define OK(x)                                                                                      \
    do {                                                                                           \
        if ((x) != KN_OK) fail_msg("%s: %s", #x, kn_error_text());                                 \
    } while (0)

enum { HEADS = 2, DIM = 128 };

typedef struct scene {
    int64_t lq, lk;
    float *q, *k, *v, *out, *exact, *lse;
    kn_attn_args args;
    kn_dev *dev;
} scene;

/* Sums of twelve uniform numbers: near enough to normal. */
static float *normal(int64_t count, uint64_t seed)
{
    float *x = malloc((size_t)count * sizeof *x);
    uint64_t s = seed * 0x9E3779B97F4A7C15u + 1;
    for (int64_t i = 0; i < count; i++) {
        double sum = -6;
        for (int j = 0; j < 12; j++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            sum += (double)(s >> 11) * 0x1p-53;
        }
        x[i] = (float)sum;
    }
    return x;
}

static scene make(int64_t lq, int64_t lk)
{
    scene s = {.lq = lq, .lk = lk};
    s.q = normal(lq * HEADS * DIM, 1), s.k = normal(lk * HEADS * DIM, 2), s.v = normal(lk * HEADS * DIM, 3);
    s.out = malloc((size_t)(lq * HEADS * DIM) * sizeof(float));
    s.exact = malloc((size_t)(lq * HEADS * DIM) * sizeof(float));
    s.lse = malloc((size_t)(lq * HEADS) * sizeof(float));
    memset(s.out, 0xff, (size_t)(lq * HEADS * DIM) * sizeof(float));
    s.args = (kn_attn_args){.q = kn_tensor_of(s.q, KN_F32, lq, HEADS, DIM),
                            .k = kn_tensor_of(s.k, KN_F32, lk, HEADS, DIM),
                            .v = kn_tensor_of(s.v, KN_F32, lk, HEADS, DIM),
                            .out = kn_tensor_of(s.out, KN_F32, lq, HEADS, DIM),
                            .lse = kn_tensor_of(s.lse, KN_F32, HEADS, lq),
                            .scale = 1.0f / sqrtf(DIM)};
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF}, &s.dev));
    return s;
}

static void drop(scene *s)
{
    float *all[] = {s->q, s->k, s->v, s->out, s->exact, s->lse};
    for (int i = 0; i < 6; i++) free(all[i]);
    kn_dev_close(&s->dev);
}

static void run(scene *s, const kn_attn_plan *plan)
{
    OK(plan ? kn_attn_sparse(s->dev, &s->args, plan, NULL) : kn_attn_dense(s->dev, &s->args, NULL));
}

/* Relative L2 error of the args as they are against exact ones; the largest of lse in *lse. */
static double error_of(scene *s, const kn_attn_plan *plan, double *lse)
{
    kn_attn_args args = s->args;
    float *exact_lse = malloc((size_t)(s->lq * HEADS) * sizeof(float));
    s->args.int8 = false, s->args.skip_below = 0;
    s->args.out.data = s->exact, s->args.lse.data = exact_lse;
    run(s, plan);
    s->args = args;
    run(s, plan);
    double sum = 0, norm = 0;
    for (int64_t i = 0; i < s->lq * HEADS * DIM; i++) {
        double d = (double)s->out[i] - s->exact[i];
        sum += d * d, norm += (double)s->exact[i] * s->exact[i];
    }
    *lse = 0;
    for (int64_t i = 0; i < s->lq * HEADS; i++) *lse = fmax(*lse, fabs((double)s->lse[i] - exact_lse[i]));
    free(exact_lse);
    return sqrt(sum / norm);
}

static kn_attn_plan *window_of(const int grid[3], const int tile[3], int side, int64_t text)
{
    kn_window_params w = {.layout = {.text = text}, .block = 128, .window = {{.size = 0}, {.size = side}, {.size = side}}};
    memcpy(w.layout.grid, grid, sizeof w.layout.grid);
    memcpy(w.layout.tile, tile, sizeof w.layout.tile);
    kn_attn_plan *p;
    OK(kn_window_plan(&w, &p));
    return p;
}

static void test_int8_error(void **state)
{
    (void)state;
    double lse;
    scene s = make(70, 500);
    s.args.int8 = true;
    double error = error_of(&s, NULL, &lse);
    if (!(error < 2.5e-2 && error > 1e-3 && lse < 2e-2)) fail_msg("error %g, lse %g", error, lse);
    drop(&s);
    const int grid[3] = {3, 9, 11}, tile[3] = {3, 3, 2};
    kn_attn_plan *plan = window_of(grid, tile, 5, 7);
    s = make(plan->tokens, plan->tokens);
    s.args.int8 = true;
    error = error_of(&s, plan, &lse);
    if (!(error < 2.5e-2 && error > 1e-3 && lse < 4e-2)) fail_msg("window: error %g, lse %g", error, lse);
    kn_attn_plan_free(&plan);
    drop(&s);
}

/* An offset of all keys moves no weight, one of all values only the output: neither costs precision. */
static void test_int8_offsets(void **state)
{
    (void)state;
    double lse;
    scene s = make(40, 300);
    for (int64_t i = 0; i < s.lk * HEADS * DIM; i++) s.k[i] += (float)(i % DIM % 7) * 3 - 9;
    s.args.int8 = true;
    double error = error_of(&s, NULL, &lse);
    if (!(error < 2.5e-2 && lse < 2e-2)) fail_msg("offset of k: error %g, lse %g", error, lse);
    for (int64_t i = 0; i < s.lk * HEADS * DIM; i++) s.v[i] += 50;
    error = error_of(&s, NULL, &lse);
    if (!(error < 2e-4)) fail_msg("offset of v: error %g", error);
    drop(&s);
}

/* Values that all keys share come out as they are; one key alone as well. */
static void test_int8_exact(void **state)
{
    (void)state;
    double lse;
    scene s = make(20, 150);
    for (int64_t i = 0; i < s.lk * HEADS * DIM; i++) s.v[i] = (float)(i % DIM) - 60;
    s.args.int8 = true;
    assert_true(error_of(&s, NULL, &lse) < 1e-6);
    drop(&s);
    s = make(20, 1);
    s.args.int8 = true;
    assert_true(error_of(&s, NULL, &lse) < 1e-6 && lse < 1e-5);
    drop(&s);
}

/* Queries look at the first 128 keys; others weigh e^-height of those. */
static scene make_peaked(int64_t lq, int64_t lk, float height)
{
    scene s = make(lq, lk);
    for (int64_t i = 0; i < lq * HEADS * DIM; i++) s.q[i] = i % DIM == 0 ? sqrtf(DIM) : 0;
    for (int64_t i = 0; i < lk * HEADS * DIM; i++)
        s.k[i] = i % DIM == 0 && i / (HEADS * DIM) < 128 ? height : 0;
    return s;
}

static void test_skipping(void **state)
{
    (void)state;
    double lse;
    scene s = make_peaked(130, 512, 20);
    s.args.skip_below = 1e-12f; /* e^-20 is 2e-9: nothing goes */
    assert_true(error_of(&s, NULL, &lse) < 1e-6);
    s.args.skip_below = 1e-6f; /* all but the first block */
    run(&s, NULL);
    for (int64_t q = 0; q < s.lq; q++)
        for (int c = 0; c < DIM; c += 17) {
            double mean = 0;
            for (int k = 0; k < 128; k++) mean += s.v[k * HEADS * DIM + c] / 128.0;
            assert_true(fabs(s.out[q * HEADS * DIM + c] - mean) < 1e-5);
        }
    assert_true(fabs(s.lse[5] - (20 + log(128))) < 1e-5);
    drop(&s);
}

/* One of 64 queries that needs a block keeps it for all of them, and for no other 64. */
static void test_skipping_votes(void **state)
{
    (void)state;
    scene s = make_peaked(128, 256, logf(1000));
    for (int64_t i = 128 * HEADS * DIM; i < s.lk * HEADS * DIM; i++)
        if (i % DIM == 1) s.k[i] = 30;
    s.args.skip_below = 1e-2f;
    s.q[(70 * HEADS + 0) * DIM + 1] = sqrtf(DIM); /* query 70 of head 0 looks at the second block */
    run(&s, NULL);
    double first = (double)logf(1000) + log(128);
    assert_true(fabs(s.lse[3] - first) < 1e-5);         /* head 0, the other half */
    assert_true(fabs(s.lse[s.lq + 70] - first) < 1e-5); /* head 1 */
    assert_true(fabs(s.lse[70] - (30 + log(128))) < 1e-4);
    /* A neighbour of it, of both blocks. */
    double with = 0, one = 0;
    for (int k = 0; k < 256; k++) {
        double w = k < 128 ? 1 : 1e-3;
        with += w * s.v[k * HEADS * DIM + 5], one += w;
    }
    assert_true(fabs(s.out[64 * HEADS * DIM + 5] - with / one) < 1e-5);
    drop(&s);
}

static void expect_refused(kn_dev *d, const kn_attn_args *a, kn_status want, const char *says)
{
    assert_int_equal(kn_attn_dense(d, a, NULL), want);
    if (!strstr(kn_error_text(), says)) fail_msg("'%s' does not say '%s'", kn_error_text(), says);
}

static void test_refusals(void **state)
{
    (void)state;
    scene s = make(4, 5);
    kn_dev *cpu;
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &cpu));
    kn_attn_args a = s.args;
    a.int8 = true;
    assert_true(kn_attn_approximates(s.dev) && !kn_attn_approximates(cpu));
    expect_refused(cpu, &a, KN_ERR_UNSUPPORTED, "8-bit products need a Hopper GPU");
    a.skip_below = 0.1f;
    expect_refused(s.dev, &a, KN_ERR_UNSUPPORTED, "do not go together");
    a.int8 = false, a.skip_below = 1;
    expect_refused(s.dev, &a, KN_ERR_ARG, "skip_below is 1");
    a.skip_below = NAN;
    expect_refused(s.dev, &a, KN_ERR_ARG, "skip_below is nan");
    a = s.args;
    a.int8 = true;
    a.q.dim[2] = a.k.dim[2] = a.v.dim[2] = a.out.dim[2] = 64;
    expect_refused(s.dev, &a, KN_ERR_UNSUPPORTED, "take heads of 128, q has 64");
    kn_dev_close(&cpu);
    drop(&s);
}

/* A norm that does not go with q and k, and a room that is not free, are named. */
static void test_norm_and_room(void **state)
{
    (void)state;
    scene s = make(5, 5);
    float *table = normal(5 * DIM, 4), *weight = normal(HEADS * DIM, 5);
    kn_attn_norm norm = {.weight_q = kn_tensor_of(weight, KN_F32, HEADS * DIM),
                         .cos = kn_tensor_of(table, KN_F32, 5, DIM / 2),
                         .sin = kn_tensor_of(table, KN_F32, 5, DIM / 2),
                         .eps = 1e-6f};
    kn_attn_args a = s.args;
    a.int8 = true, a.norm = &norm;
    norm.sin.dim[0] = 4;
    expect_refused(s.dev, &a, KN_ERR_ARG, "the table of sines is f32[4, 64]");
    norm.sin.dim[0] = 5, norm.weight_q.dim[0] = DIM;
    expect_refused(s.dev, &a, KN_ERR_ARG, "a weight of the norm is f32[128]");
    norm.weight_q.dim[0] = HEADS * DIM, norm.cos.dtype = KN_BF16;
    expect_refused(s.dev, &a, KN_ERR_ARG, "must be contiguous f32");
    norm.cos.dtype = KN_F32;
    a.q = kn_tensor_of(s.q, KN_F32, 3, HEADS, DIM), a.out = kn_tensor_of(s.out, KN_F32, 3, HEADS, DIM), a.lse = (kn_tensor){0};
    expect_refused(s.dev, &a, KN_ERR_ARG, "k (to be normed as q)");
    a = s.args;
    a.int8 = true, a.room = kn_tensor_of((char *)s.v + 4, KN_I8, 100);
    expect_refused(s.dev, &a, KN_ERR_ARG, "overlaps q, k, v or out");
    OK(kn_attn_dense(s.dev, &s.args, NULL));
    free(table), free(weight);
    drop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int8_error),     cmocka_unit_test(test_int8_offsets),
        cmocka_unit_test(test_int8_exact),     cmocka_unit_test(test_skipping),
        cmocka_unit_test(test_skipping_votes), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_norm_and_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
