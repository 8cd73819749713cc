/* Solver trajectories against diffusers' schedulers (tools/golden_solver.py). */
#include "choices.h"

/* Relative to the largest sample. diffusers in float32 is itself up to 7.2e-7 away from its own
 * formulas in float64 (printed by the script); ours has the coefficients in double. */
static const double bound = 1e-6;

typedef struct run_case {
    char solver[16], grid[16], strength_text[16], shift_text[16];
    int steps;
} run_case;

static int parse_case(const char *name, run_case *c)
{
    int used = 0;
    return sscanf(name, "%15[^/]/%15[^/]/%d/%15[^/]/%15[^/]/sample%n", c->solver, c->grid,
                  &c->steps, c->shift_text, c->strength_text, &used) == 5 &&
           used == (int)strlen(name);
}

static void load(kn_dev *d, kn_tensor *t, const float *values)
{
    must(kn_dev_upload(d, values, t));
}

static void check_case(kn_dev *d, const kn_safetensors *st, const char *name, const run_case *c,
                       double *worst, double *worst_f32)
{
    int64_t count, velocities;
    float *want = golden_floats(st, &count, "%s", name);
    float *want_f32 = golden_floats(st, NULL, "%s_f32", name);
    float *velocity =
        golden_floats(st, &velocities, "%.*s/velocity", (int)(strlen(name) - 7), name);
    static kn_schedule schedule;
    kn_solver_kind kind = solver_named(c->solver);
    kn_grid grid = grid_named(c->grid);
    must(kn_schedule_build(grid, c->steps, strtod(c->shift_text, NULL),
                           strtod(c->strength_text, NULL), &schedule));
    int run = schedule.steps - schedule.begin;
    int64_t n = count / (run + 1);
    assert_int_equal(velocities, n * run);

    kn_solver *solver = NULL;
    must(kn_solver_open(d, kind, &schedule, 1, &n, &solver));
    kn_tensor x = kn_tensor_of(NULL, KN_F32, n), v = x;
    must(kn_dev_alloc(d, kn_tensor_bytes(&x), &x.data));
    must(kn_dev_alloc(d, kn_tensor_bytes(&v), &v.data));
    load(d, &x, want);
    void *p;
    must(kn_alloc(kn_tensor_bytes(&x), &p));
    float *got = p;
    double scale = 0;
    for (int64_t i = 0; i < count; i++) scale = fmax(scale, fabs(want[i]));
    for (int i = 0; i < run; i++) {
        assert_int_equal(kn_solver_index(solver), schedule.begin + i);
        load(d, &v, velocity + i * n);
        must(kn_solver_step(solver, &v, &x));
        must(kn_dev_download(d, &x, got));
        for (int64_t k = 0; k < n; k++) {
            double gap = fabs((double)got[k] - want[(i + 1) * n + k]) / scale;
            double gap_f32 = fabs((double)got[k] - want_f32[(i + 1) * n + k]) / scale;
            if (!(gap <= bound))
                fail_msg("%s: step %d of %d is %.3g off, bound %.3g", name, i, run, gap, bound);
            *worst = fmax(*worst, gap);
            *worst_f32 = fmax(*worst_f32, gap_f32);
        }
    }
    assert_int_equal(kn_solver_step(solver, &v, &x), KN_ERR_ARG);
    kn_dev_free(d, x.data, kn_tensor_bytes(&x));
    kn_dev_free(d, v.data, kn_tensor_bytes(&v));
    kn_solver_close(&solver);
    kn_free(got);
    kn_free(want);
    kn_free(want_f32);
    kn_free(velocity);
}

static void trajectories(kn_dev_kind kind)
{
    kn_dev *d = NULL;
    must(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = 1}, &d));
    kn_safetensors *st = golden_open("solver.safetensors");
    int checked = 0;
    double worst = 0, worst_f32 = 0;
    for (int k = 0; k < kn_safetensors_count(st); k++) {
        const char *name = kn_safetensors_at(st, k)->name;
        run_case c;
        if (!parse_case(name, &c)) continue;
        check_case(d, st, name, &c, &worst, &worst_f32);
        checked++;
    }
    kn_safetensors_close(&st);
    kn_dev_close(&d);
    assert_true(checked >= 100);
    print_message("%s: %d trajectories, worst %.2g of the scale against float64, %.2g against "
                  "diffusers in float32\n",
                  kn_dev_kind_name(kind), checked, worst, worst_f32);
}

static void trajectories_ref(void **state)
{
    (void)state;
    trajectories(KN_DEV_REF);
}

static void trajectories_cpu(void **state)
{
    (void)state;
    trajectories(KN_DEV_CPU);
}

int main(int argc, char **argv)
{
    golden_main_args(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(trajectories_ref),
                                       cmocka_unit_test(trajectories_cpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
