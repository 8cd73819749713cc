/* Ranges and strength of schedules; tests/golden/pipeline_schedule.c holds their values. */
#include "tests/golden/compare.h"

#include "pipeline/schedule.h"

static kn_schedule s;

/* Every grid falls strictly from at most 1 to 0; timesteps are 1000 sigma, at most cut to whole
 * ones (from the float64 sigma, hence the 1e-4). */
static void grids_fall(void **state)
{
    (void)state;
    static const int steps[] = {1, 2, 7, 20, 50, 999, 1000};
    for (int g = KN_GRID_WAN; g <= KN_GRID_LINEAR; g++)
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++)
            for (double shift = 0.5; shift < 20; shift *= 2) {
                must(kn_schedule_build((kn_grid)g, steps[k], shift, 1.0, &s));
                assert_true(s.sigma[0] <= 1 && s.sigma[steps[k]] == 0);
                for (int i = 0; i < steps[k]; i++) {
                    assert_true(s.sigma[i] > s.sigma[i + 1]);
                    assert_true(s.timestep[i] >= 0 && s.timestep[i] <= 1000);
                    assert_true(s.timestep[i] <= 1000 * s.sigma[i] + 1e-4);
                    assert_true(s.timestep[i] > 1000 * s.sigma[i] - 1 - 1e-4);
                }
            }
}

/* int(steps * strength), as diffusers' WanVideoToVideoPipeline: 50 steps at 0.7 run 35. */
static void strength_sets_the_first_step(void **state)
{
    (void)state;
    static const struct {
        int steps;
        double strength;
        int begin;
    } cases[] = {{50, 0.7, 15}, {50, 1.0, 0},  {20, 0.5, 10}, {20, 0.4, 12},  {10, 0.7, 3},
                 {3, 0.34, 2},  {4, 0.999, 1}, {10, 0.29, 8}, {100, 0.29, 72}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        must(kn_schedule_build(KN_GRID_WAN, cases[i].steps, 9, cases[i].strength, &s));
        assert_int_equal(s.begin, cases[i].begin);
    }
    /* FreeSwim's refine pass starts at 0.9544 (50 steps, strength 0.7, shift 9). */
    must(kn_schedule_build(KN_GRID_WAN, 50, 9, 0.7, &s));
    assert_true(fabs(s.sigma[s.begin] - 0.9544) < 5e-5);
}

static void ranges_are_checked(void **state)
{
    (void)state;
    static const struct {
        int steps;
        double shift, strength;
        const char *says;
    } cases[] = {{0, 3, 1, "steps"},      {1001, 3, 1, "steps"},      {10, 0, 1, "shift"},
                 {10, -1, 1, "shift"},    {10, INFINITY, 1, "shift"}, {10, NAN, 1, "shift"},
                 {10, 3, 0, "strength"},  {10, 3, 1.01, "strength"},  {10, 3, NAN, "strength"},
                 {10, 3, 0.09, "no step"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(
            kn_schedule_build(KN_GRID_WAN, cases[i].steps, cases[i].shift, cases[i].strength, &s),
            KN_ERR_ARG);
        if (!strstr(kn_error_text(), cases[i].says))
            fail_msg("'%s' does not say '%s'", kn_error_text(), cases[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids_fall),
        cmocka_unit_test(strength_sets_the_first_step), cmocka_unit_test(ranges_are_checked)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
