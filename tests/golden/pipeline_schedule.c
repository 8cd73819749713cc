/* Sigma grids against diffusers' schedulers (tools/golden_solver.py): equal bit for bit. */
#include "choices.h"

#include "pipeline/schedule.h"

static void grids_equal_the_reference(void **state)
{
    (void)state;
    kn_safetensors *st = golden_open("schedule.safetensors");
    int checked = 0;
    for (int k = 0; k < kn_safetensors_count(st); k++) {
        const char *name = kn_safetensors_at(st, k)->name;
        char grid_name[32];
        int steps, used = 0;
        double shift;
        if (sscanf(name, "%31[^/]/%d/%lf/sigma%n", grid_name, &steps, &shift, &used) != 3 || !used)
            continue;
        int64_t n;
        float *sigma = golden_floats(st, &n, "%s", name);
        float *timestep = golden_floats(st, NULL, "%s/%d/%.*f/timestep", grid_name, steps,
                                        shift == 2.37 ? 2 : 1, shift);
        assert_int_equal(n, steps + 1);

        static kn_schedule got;
        must(kn_schedule_build(grid_named(grid_name), steps, shift, 1.0, &got));
        assert_int_equal(got.steps, steps);
        for (int i = 0; i <= steps; i++)
            if (got.sigma[i] != (double)sigma[i])
                fail_msg("%s[%d]: %.9g, reference %.9g", name, i, got.sigma[i], sigma[i]);
        for (int i = 0; i < steps; i++)
            if (got.timestep[i] != (double)timestep[i])
                fail_msg("%s timestep %d: %.9g, reference %.9g", name, i, got.timestep[i],
                         timestep[i]);
        checked++;
        kn_free(sigma);
        kn_free(timestep);
    }
    kn_safetensors_close(&st);
    assert_true(checked >= 200);
    print_message("%d grids equal\n", checked);
}

int main(int argc, char **argv)
{
    golden_main_args(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(grids_equal_the_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
