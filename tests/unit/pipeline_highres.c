/* Refine stages from options: sizes, windows, temperature, where the noise starts; what they refuse;
 * enlarging pictures. */
#include "tests/expect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/memory.h"
#include "pipeline/highres.h"
#include "pipeline/pass_attention.h"
#include "pipeline/resize.h"

static const kn_dit_config wan = {.in_channels = 16, .patch = {1, 2, 2}, .heads = 12, .head_dim = 128};

static void set(kn_options *o, const char *key, const char *value)
{
    expect_ok(kn_options_set(o, key, value, KN_FROM_COMMAND_LINE, key));
}

/* FreeSwim inference.py: 832x480 to 1920x1088, window half sizes 15 and 26, logits scaled by
 * sqrt(log_1560(3120) / 128), strength 0.7 and shift 9 from sigma 0.9544. */
static void published_settings_follow_from_the_size(void **state)
{
    (void)state;
    kn_options o;
    kn_pass passes[KN_PASSES_MAX];
    int count;
    static kn_schedule schedule;
    expect_ok(kn_options_init(&o));
    set(&o, "refine-size", "1920x1080");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_int_equal(count, 2);
    assert_string_equal(passes[0].name, "denoise");
    assert_int_equal(passes[0].attention, KN_ATTENTION_DENSE);
    const kn_pass *p = &passes[1];
    assert_string_equal(p->name, "refine 1");
    assert_int_equal(p->geo.height_px, 1088);
    assert_int_equal(p->geo.tokens, 21 * 68 * 120);
    assert_int_equal(p->attention, KN_ATTENTION_WINDOW);
    assert_true(p->dual && !p->dual_negative);
    assert_int_equal(p->window[0], 31);
    assert_int_equal(p->window[1], 53);
    assert_true(fabs(p->temperature / sqrt(128) - sqrt(log(3120) / log(1560) / 128)) < 1e-12);
    assert_true(fabs(p->temperature - 1.0461) < 5e-5);
    expect_ok(kn_pass_schedule(&o, p, &schedule));
    assert_int_equal(schedule.begin, 15);
    assert_true(fabs(schedule.sigma[15] - 0.9544) < 5e-5);
    set(&o, "refresh", "1");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_true(passes[1].dual_negative);
    kn_options_free(&o);
}

/* The token order is that of the plan, and the window is the one asked for. */
static void attention_holds_the_window(void **state)
{
    (void)state;
    kn_pass p = {.name = "refine 1", .attention = KN_ATTENTION_WINDOW, .window = {3, 5}};
    p.geo = kn_geometry_of(16 * 9, 16 * 6, 9, 16, wan.patch);
    kn_pass_attention a;
    kn_dev *dev;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &dev));
    expect_ok(kn_pass_attention_build(&p, &wan, dev, &a));
    expect_ok(kn_attn_plan_check(a.plan));
    assert_int_equal(a.plan->tokens, 3 * 6 * 9);
    assert_true(fabs(a.plan->density - 15.0 / 54) < 1e-12);
    for (int i = 0; i < a.plan->tokens; i++)
        assert_int_equal((a.plan->pos[3 * i] * 6 + a.plan->pos[3 * i + 1]) * 9 + a.plan->pos[3 * i + 2], a.order[i]);
    kn_pass_attention_free(&a);
    kn_dev_close(&dev);
}

/* Every method at full density sees what dense attention sees; warm-up steps and layers are dense. */
static void full_density_is_dense(void **state)
{
    (void)state;
    static const kn_attention_choice methods[] = {KN_ATTENTION_TILE3D, KN_ATTENTION_CROSS, KN_ATTENTION_DRAFT,
                                                  KN_ATTENTION_PERMUTE, KN_ATTENTION_PARO};
    enum { HEADS = 2, DIM = 16, TOKENS = 3 * 6 * 9 };
    const kn_dit_config dit = {.in_channels = 16, .patch = {1, 2, 2}, .heads = HEADS, .head_dim = DIM, .layers = 2};
    static float data[3][TOKENS * HEADS * DIM], out[2][TOKENS * HEADS * DIM];
    uint32_t s = 7;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < TOKENS * HEADS * DIM; i++) {
            s = s * 1664525u + 1013904223u;
            data[k][i] = (float)(int32_t)s / 1e9f;
        }
    kn_tensor t[3];
    for (int i = 0; i < 3; i++) t[i] = kn_tensor_of(data[i], KN_F32, TOKENS, HEADS, DIM);
    kn_attn_args args = {.q = t[0], .k = t[1], .v = t[2], .scale = 0.25f};
    kn_dev *dev;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &dev));
    args.out = kn_tensor_of(out[0], KN_F32, TOKENS, HEADS, DIM);
    expect_ok(kn_attn_dense(dev, &args, NULL));
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        kn_pass p = {.name = "refine 1", .attention = methods[m], .window = {31, 31}, .density = 1, .mass = 1,
                     .temperature = 1, .dense_steps = 1, .dense_layers = 1, .reuse_lists = 2, .tile = {1, 3, 3}};
        p.geo = kn_geometry_of(16 * 9, 16 * 6, 9, 16, dit.patch);
        if (methods[m] == KN_ATTENTION_CROSS) p.tile[0] = 3; /* one tile in t: all share it */
        kn_pass_attention a;
        const kn_attn_plan *plan, *again;
        expect_ok(kn_pass_attention_build(&p, &dit, dev, &a));
        kn_pass_attention_at(&a, 0, 0.5, KN_BRANCH_PROMPT);
        expect_ok(kn_pass_attention_plan(&a, 1, &t[0], &t[1], &plan));
        assert_null(plan);
        kn_pass_attention_at(&a, 1, 0.5, KN_BRANCH_PROMPT);
        expect_ok(kn_pass_attention_plan(&a, 0, &t[0], &t[1], &plan));
        assert_null(plan);
        expect_ok(kn_pass_attention_plan(&a, 1, &t[0], &t[1], &plan));
        assert_non_null(plan);
        expect_ok(kn_attn_plan_check(plan));
        assert_true(fabs(plan->density - 1) < 1e-12);
        args.out = kn_tensor_of(out[1], KN_F32, TOKENS, HEADS, DIM);
        expect_ok(kn_attn_sparse(dev, &args, plan, NULL));
        for (int i = 0; i < TOKENS * HEADS * DIM; i++) assert_true(fabsf(out[0][i] - out[1][i]) < 2e-6f);
        kn_pass_attention_at(&a, 2, 0.5, KN_BRANCH_PROMPT);
        expect_ok(kn_pass_attention_plan(&a, 1, &t[0], &t[1], &again));
        assert_ptr_equal(again, plan);
        bool looks = methods[m] >= KN_ATTENTION_DRAFT;
        assert_int_equal(kn_pass_attention_restartable(&a, 2), !looks);
        assert_true(kn_pass_attention_restartable(&a, 3));
        kn_pass_attention_free(&a);
    }
    kn_dev_close(&dev);
}

/* Lists are those of a period of --reuse-lists steps, whichever steps of it a branch runs at; a run may go
 * on from where both branches choose anew. */
static void lists_are_kept_for_a_period(void **state)
{
    (void)state;
    enum { HEADS = 2, DIM = 16, TOKENS = 3 * 6 * 9, STEPS = 12 };
    const kn_dit_config dit = {.in_channels = 16, .patch = {1, 2, 2}, .heads = HEADS, .head_dim = DIM, .layers = 1};
    kn_pass p = {.name = "refine 1", .attention = KN_ATTENTION_PERMUTE, .full_attention = KN_ATTENTION_PERMUTE,
                 .density = 0.3, .temperature = 1, .dense_steps = 1, .dual = true, .tile = {1, 3, 3}};
    p.geo = kn_geometry_of(16 * 9, 16 * 6, 9, 16, dit.patch);
    static float data[2][TOKENS * HEADS * DIM];
    kn_tensor q = kn_tensor_of(data[0], KN_F32, TOKENS, HEADS, DIM), k = kn_tensor_of(data[1], KN_F32, TOKENS, HEADS, DIM);
    kn_dev *dev;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &dev));
    for (p.reuse_lists = 1; p.reuse_lists <= 4; p.reuse_lists++)
        for (p.refresh = 1; p.refresh <= 4; p.refresh++) {
            uint64_t chosen[2] = {0};
            int since[2] = {-1, -1}; /* the step at which the lists in use were chosen */
            kn_pass_attention a;
            expect_ok(kn_pass_attention_build(&p, &dit, dev, &a));
            for (int step = 0; step < STEPS; step++) {
                for (int full = 0; full < 2; full++) {
                    if (full && step % p.refresh) continue;
                    const kn_attn_plan *plan;
                    kn_pass_attention_at(&a, step, 0.5, full ? KN_BRANCH_FULL : KN_BRANCH_PROMPT);
                    for (int i = 0; i < TOKENS * HEADS * DIM; i++) data[0][i] = sinf((float)(i * (step + 1)));
                    expect_ok(kn_pass_attention_plan(&a, 0, &q, &k, &plan));
                    assert_int_equal(plan == NULL, step < 1);
                    if (!plan) continue;
                    if (plan->stamp != chosen[full]) since[full] = step;
                    chosen[full] = plan->stamp;
                    assert_int_equal((since[full] - 1) / p.reuse_lists, (step - 1) / p.reuse_lists);
                }
                int done = step + 1, refreshed = done - done % p.refresh;
                bool goes_on = kn_pass_attention_restartable(&a, done);
                /* What a run that begins here would not know: lists in use, and those of the last refresh. */
                bool in_use = done > 1 && (done - 1) % p.reuse_lists != 0;
                bool older = refreshed < done && refreshed >= 1 && since[1] != refreshed;
                assert_int_equal(goes_on, !(p.reuse_lists > 1 && (in_use || older)));
            }
            kn_pass_attention_free(&a);
        }
    kn_dev_close(&dev);
}

static void orders_of_paro_are_options(void **state)
{
    (void)state;
    kn_options o;
    kn_pass passes[KN_PASSES_MAX];
    int count;
    expect_ok(kn_options_init(&o));
    set(&o, "refine-size", "2x");
    set(&o, "attention", "paro");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_int_equal(passes[1].paro_orders, 0);
    set(&o, "paro-axes", "wht");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_int_equal(passes[1].paro_orders, 1);
    assert_int_equal(passes[1].paro_order[0], 4);
    set(&o, "paro-axes", "thw,twh,hwt,htw,wht,wth,thw,twh,hwt,htw,wht,wth");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_int_equal(passes[1].paro_orders, 12);
    for (int i = 0; i < 12; i++) assert_int_equal(passes[1].paro_order[i], i % 6);
    static const char *const bad[] = {"", "thw,", ",thw", "twt", "th", "thwx", "thw,hwt", "thw hwt"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        set(&o, "paro-axes", bad[i]);
        assert_int_equal(kn_passes_build(&o, &wan, NULL, passes, &count), KN_ERR_ARG);
        assert_non_null(strstr(kn_error_text(), "--paro-axes"));
    }
    kn_options_free(&o);
}

/* The plan's order of each head is the one that was asked for. */
static void paro_uses_the_given_orders(void **state)
{
    (void)state;
    enum { HEADS = 2, DIM = 16, T = 3, H = 6, W = 9, TOKENS = T * H * W };
    const kn_dit_config dit = {.in_channels = 16, .patch = {1, 2, 2}, .heads = HEADS, .head_dim = DIM, .layers = 1};
    kn_pass p = {.name = "refine 1", .attention = KN_ATTENTION_PARO, .density = 0.3, .temperature = 1, .tile = {1, 3, 3},
                 .reuse_lists = 1, .paro_orders = 2, .paro_order = {0, 4}};
    p.geo = kn_geometry_of(16 * W, 16 * H, 9, 16, dit.patch);
    static float data[TOKENS * HEADS * DIM];
    for (int i = 0; i < TOKENS * HEADS * DIM; i++) data[i] = sinf((float)i);
    kn_tensor q = kn_tensor_of(data, KN_F32, TOKENS, HEADS, DIM);
    const kn_attn_plan *plan;
    kn_pass_attention a;
    kn_dev *dev;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &dev));
    expect_ok(kn_pass_attention_build(&p, &dit, dev, &a));
    for (int step = 0; step < 2; step++) {
        kn_pass_attention_at(&a, step, 0.5, KN_BRANCH_PROMPT);
        expect_ok(kn_pass_attention_plan(&a, 0, &q, &q, &plan));
        expect_ok(kn_attn_plan_check(plan));
        assert_int_equal(plan->perm_heads, HEADS);
        for (int i = 0; i < TOKENS; i++) {
            const int16_t *raster = plan->pos + 3 * (ptrdiff_t)plan->perm_q[i];
            const int16_t *columns = plan->pos + 3 * (ptrdiff_t)plan->perm_q[TOKENS + i];
            assert_int_equal((raster[0] * H + raster[1]) * W + raster[2], i);
            assert_int_equal((columns[2] * H + columns[1]) * T + columns[0], i); /* w, h, t */
        }
    }
    kn_pass_attention_free(&a);
    kn_dev_close(&dev);
}

static void stages_take_their_own_numbers(void **state)
{
    (void)state;
    kn_options o;
    kn_pass passes[KN_PASSES_MAX];
    int count;
    expect_ok(kn_options_init(&o));
    set(&o, "refine-size", "1.5x,1664x960,4x");
    set(&o, "strength", "0.5,0.25");
    set(&o, "refine-steps", "0,8");
    set(&o, "refine-guidance", "0,2");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_int_equal(count, 4);
    assert_int_equal(passes[1].geo.out_width_px, 1248);
    assert_int_equal(passes[2].geo.out_width_px, 1664);
    assert_int_equal(passes[3].geo.out_height_px, 1920);
    assert_true(passes[1].strength == 0.5 && passes[2].strength == 0.25 && passes[3].strength == 0.25);
    assert_true(passes[1].steps == 50 && passes[2].steps == 8 && passes[3].steps == 8);
    assert_true(passes[1].guidance == 5 && passes[2].guidance == 2);
    kn_options_free(&o);
}

static void wrong_options_are_named(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"refine-size", "2", "--refine-size"},       {"refine-size", "2x,", "--refine-size"},
        {"refine-size", ",2x", "--refine-size"},     {"refine-size", "0.5x", "--refine-size"},
        {"refine-size", "99999x8", "--refine-size"}, {"refine-size", "2x,1x", "at least as large"},
        {"refine-size", "1x,1x,1x,1x,1x", "at most"}, {"window", "53", "--window"},
        {"window", "53x30", "both odd"},             {"window", "53x31x1", "--window"},
        {"temperature", "hot", "--temperature"},     {"temperature", "0", "--temperature"},
        {"refine-steps", "2.5", "--refine-steps"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kn_options o;
        kn_pass passes[KN_PASSES_MAX];
        int count;
        expect_ok(kn_options_init(&o));
        set(&o, "refine-size", "2x");
        set(&o, cases[i][0], cases[i][1]);
        assert_int_equal(kn_passes_build(&o, &wan, NULL, passes, &count), KN_ERR_ARG);
        if (!strstr(kn_error_text(), cases[i][2])) fail_msg("'%s' without '%s'", kn_error_text(), cases[i][2]);
        kn_options_free(&o);
    }
}

/* ---- enlarging --------------------------------------------------------------------------------*/

static void precisions_reach_their_passes(void **state)
{
    (void)state;
    kn_options o;
    kn_pass passes[KN_PASSES_MAX];
    int count;
    expect_ok(kn_options_init(&o));
    set(&o, "refine-size", "1920x1080");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_true(count == 2 && !passes[0].int8 && !passes[1].int8 && !passes[0].f8 && !passes[1].f8);
    set(&o, "attention-precision", "int8");
    set(&o, "linear-precision", "fp8");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_true(!passes[0].int8 && passes[1].int8 && passes[0].f8 && passes[1].f8);
    set(&o, "base-attention-precision", "int8");
    set(&o, "attention-precision", "full");
    expect_ok(kn_passes_build(&o, &wan, NULL, passes, &count));
    assert_true(passes[0].int8 && !passes[1].int8);
    kn_dit_config narrow = wan;
    narrow.head_dim = 64;
    expect_fail(kn_passes_build(&o, &narrow, NULL, passes, &count), KN_ERR_UNSUPPORTED, "--base-attention-precision int8", "found heads of 64");
    set(&o, "base-attention", "draft");
    expect_fail(kn_passes_build(&o, &wan, NULL, passes, &count), KN_ERR_ARG, "--base-attention-precision");
    kn_options_free(&o);
}

static void resize(kn_resize_params p, const float *from, float *to)
{
    kn_resize *r;
    expect_ok(kn_resize_build(&p, &r));
    kn_resize_run(r, from, to);
    size_t bytes = (size_t)(p.to_width * p.to_height * p.channels) * sizeof *to;
    float *shared = malloc(bytes);
    assert_non_null(shared);
    kn_resize_free(&r);
    expect_ok(kn_workers_open(3, &p.workers)); /* the same bytes from several threads */
    expect_ok(kn_resize_build(&p, &r));
    kn_resize_run(r, from, shared);
    assert_memory_equal(to, shared, bytes);
    kn_workers_close(&p.workers);
    free(shared);
    kn_resize_free(&r);
}

/* torch 2.15.0 interpolate(mode="linear", align_corners=False); Pillow Image.LANCZOS, mode F. */
static void filters_are_those_of_torch_and_pillow(void **state)
{
    (void)state;
    static const float from[5] = {0, 1, 4, 9, 2};
    static const float bilinear[10] = {0, 0.25f, 0.75f, 1.75f, 3.25f, 5.25f, 7.75f, 7.25f, 3.75f, 2};
    static const float lanczos[10] = {-0.016243f, 0.059308f, 0.594637f, 1.422427f, 2.722937f,
                                      5.783582f, 9.057164f, 7.612509f, 3.589704f, 0.894771f};
    float to[20];
    kn_resize_params p = {.from_width = 5, .from_height = 1, .to_width = 10, .to_height = 1, .step_x = 0.5, .step_y = 1, .channels = 1};
    resize(p, from, to);
    for (int i = 0; i < 10; i++) assert_true(fabsf(to[i] - bilinear[i]) < 1e-6f);
    p.filter = KN_RESIZE_LANCZOS;
    resize(p, from, to);
    for (int i = 0; i < 10; i++) assert_true(fabsf(to[i] - lanczos[i]) < 2e-5f);
    /* the other axis, two channels: the same numbers */
    p = (kn_resize_params){.filter = KN_RESIZE_LANCZOS, .from_width = 1, .from_height = 5, .to_width = 1, .to_height = 10,
                           .step_x = 1, .step_y = 0.5, .channels = 2};
    static const float pairs[10] = {0, 0, 1, -1, 4, -4, 9, -9, 2, -2};
    resize(p, pairs, to);
    for (int i = 0; i < 10; i++) {
        assert_true(fabsf(to[2 * i] - lanczos[i]) < 2e-5f);
        assert_true(to[2 * i] == -to[2 * i + 1]);
    }
}

/* Output beyond the picture repeats its edge; a constant stays constant. */
static void padding_repeats_the_edge(void **state)
{
    (void)state;
    static const float from[3] = {5, 5, 5};
    float to[9];
    for (int f = 0; f < 2; f++) {
        kn_resize_params p = {.filter = (kn_resize_filter)f, .from_width = 3, .from_height = 1, .to_width = 9, .to_height = 1,
                              .step_x = 0.5, .step_y = 1, .channels = 1};
        resize(p, from, to);
        for (int i = 0; i < 9; i++) assert_true(fabsf(to[i] - 5) < 1e-5f);
    }
    kn_resize *r;
    kn_resize_params wrong = {.from_width = 4, .from_height = 4, .to_width = 2, .to_height = 4, .step_x = 0, .step_y = 1, .channels = 1};
    assert_int_equal(kn_resize_build(&wrong, &r), KN_ERR_ARG);
}

/* By hand: at half the size the triangle is four wide. first_x moves the output over the input. */
static void smaller_pictures_are_averaged(void **state)
{
    (void)state;
    static const float from[4] = {0, 1, 0, 7};
    float to[2];
    kn_resize_params p = {.from_width = 4, .from_height = 1, .to_width = 2, .to_height = 1, .step_x = 2, .step_y = 1, .channels = 1};
    resize(p, from, to);
    assert_true(fabsf(to[0] - 3.0f / 7) < 1e-6f); /* weights 3, 3, 1 of 7 at 0.5 */
    assert_true(fabsf(to[1] - 22.0f / 7) < 1e-6f); /* weights 1, 3, 3 at 2.5 */
    p.first_x = 0.5;
    p.to_width = 1;
    resize(p, from, to);
    assert_true(fabsf(to[0] - 0.5f) < 1e-6f); /* weights 1, 2, 1 of 4 at 1 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_settings_follow_from_the_size), cmocka_unit_test(attention_holds_the_window),
        cmocka_unit_test(full_density_is_dense),
        cmocka_unit_test(lists_are_kept_for_a_period),
        cmocka_unit_test(orders_of_paro_are_options),
        cmocka_unit_test(paro_uses_the_given_orders),
        cmocka_unit_test(stages_take_their_own_numbers),           cmocka_unit_test(wrong_options_are_named),
        cmocka_unit_test(precisions_reach_their_passes),
        cmocka_unit_test(filters_are_those_of_torch_and_pillow),   cmocka_unit_test(padding_repeats_the_edge),
        cmocka_unit_test(smaller_pictures_are_averaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
