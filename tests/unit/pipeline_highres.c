/* Refine stages from options: sizes, windows, temperature, where the noise starts; what they refuse;
 * enlarging pictures. */
#include "tests/expect.h"

#include <math.h>
#include <string.h>

#include "io/memory.h"
#include "pipeline/highres.h"
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
    assert_false(passes[0].windowed);
    const kn_pass *p = &passes[1];
    assert_string_equal(p->name, "refine 1");
    assert_int_equal(p->geo.height_px, 1088);
    assert_int_equal(p->geo.tokens, 21 * 68 * 120);
    assert_true(p->windowed && p->dual && !p->dual_negative);
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
    kn_pass p = {.name = "refine 1", .windowed = true, .window = {3, 5}};
    p.geo = kn_geometry_of(16 * 9, 16 * 6, 9, 16, wan.patch);
    kn_pass_attention a;
    expect_ok(kn_pass_attention_build(&p, &wan, &a));
    expect_ok(kn_attn_plan_check(a.plan));
    assert_int_equal(a.plan->tokens, 3 * 6 * 9);
    assert_true(fabs(a.plan->density - 15.0 / 54) < 1e-12);
    for (int i = 0; i < a.plan->tokens; i++)
        assert_int_equal((a.plan->pos[3 * i] * 6 + a.plan->pos[3 * i + 1]) * 9 + a.plan->pos[3 * i + 2], a.order[i]);
    kn_pass_attention_free(&a);
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

static void resize(kn_resize_params p, const float *from, float *to)
{
    kn_resize *r;
    expect_ok(kn_resize_build(&p, &r));
    kn_resize_run(r, from, to);
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
        cmocka_unit_test(stages_take_their_own_numbers),           cmocka_unit_test(wrong_options_are_named),
        cmocka_unit_test(filters_are_those_of_torch_and_pillow),   cmocka_unit_test(padding_repeats_the_edge),
        cmocka_unit_test(smaller_pictures_are_averaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
