/* Solvers on flows whose end is known, and their saved state. Step-by-step parity with diffusers is
 * in tests/golden/pipeline_solver.c. */
#include "tests/golden/compare.h"

#include "pipeline/solver.h"

static const kn_solver_kind solvers[] = {KN_SOLVER_UNIPC, KN_SOLVER_EULER, KN_SOLVER_DPMPP};
static const kn_grid grids[] = {KN_GRID_WAN, KN_GRID_DIFFUSERS, KN_GRID_FLOW_EULER, KN_GRID_LINEAR};

enum { N = 3 };
static kn_dev *dev;
static kn_schedule schedule;
static float x[N], v[N];

static int setup(void **state)
{
    (void)state;
    return kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF, .threads = 1}, &dev) != KN_OK;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(kn_dev_bytes_now(dev), 0);
    kn_dev_close(&dev);
    return 0;
}

static kn_solver *open_solver(kn_solver_kind kind)
{
    kn_solver *s = NULL;
    must(kn_solver_open(dev, kind, &schedule, 1, (int64_t[]){N}, &s));
    return s;
}

static void step(kn_solver *s)
{
    kn_tensor xt = kn_tensor_of(x, KN_F32, N), vt = kn_tensor_of(v, KN_F32, N);
    must(kn_solver_step(s, &vt, &xt));
}

/* All data is one point: v = (x - x0) / sigma. Every solver must arrive there exactly. */
static void one_point_is_reached(void **state)
{
    (void)state;
    static const float x0[N] = {1.5f, -0.25f, 3};
    for (int k = 0; k < 3; k++)
        for (int g = 0; g < 4; g++)
            for (int steps = 1; steps <= 20; steps += steps < 4 ? 1 : 8) {
                must(kn_schedule_build(grids[g], steps, 3, 1, &schedule));
                kn_solver *s = open_solver(solvers[k]);
                for (int i = 0; i < N; i++) x[i] = (float)(i - 1);
                while (kn_solver_index(s) < steps) {
                    double sigma = schedule.sigma[kn_solver_index(s)];
                    for (int i = 0; i < N; i++) v[i] = (float)(((double)x[i] - x0[i]) / sigma);
                    step(s);
                }
                for (int i = 0; i < N; i++) assert_true(fabs(x[i] - x0[i]) < 2e-6);
                kn_solver_close(&s);
            }
}

/* Gaussian data of deviation D around 0: the flow from x at sigma 1 ends at D x, and
 * v = x (sigma - D^2 (1 - sigma)) / (D^2 (1 - sigma)^2 + sigma^2). */
static const double deviation = 0.5;

static double final_error(kn_solver_kind kind, int steps)
{
    must(kn_schedule_build(KN_GRID_LINEAR, steps, 1, 1, &schedule));
    kn_solver *s = open_solver(kind);
    for (int i = 0; i < N; i++) x[i] = 1;
    double d2 = deviation * deviation;
    while (kn_solver_index(s) < steps) {
        double sigma = schedule.sigma[kn_solver_index(s)], alpha = 1 - sigma;
        double slope = (sigma - d2 * alpha) / (d2 * alpha * alpha + sigma * sigma);
        for (int i = 0; i < N; i++) v[i] = (float)(x[i] * slope);
        step(s);
    }
    kn_solver_close(&s);
    return fabs(x[0] - deviation);
}

/* Twice the steps: half the error of a first-order method, a quarter of a second-order one. (DPM++
 * gets there slowly: 2.9, 3.3, 3.4 from 32, 64, 128 steps.) */
static void orders_are_as_promised(void **state)
{
    (void)state;
    double euler = final_error(KN_SOLVER_EULER, 256), unipc = final_error(KN_SOLVER_UNIPC, 256);
    double dpmpp = final_error(KN_SOLVER_DPMPP, 256);
    assert_true(final_error(KN_SOLVER_EULER, 128) / euler > 1.9);
    assert_true(final_error(KN_SOLVER_UNIPC, 128) / unipc > 3.6);
    assert_true(final_error(KN_SOLVER_DPMPP, 128) / dpmpp > 3.2);
    assert_true(unipc < dpmpp && dpmpp < euler / 10);
}

static void synthetic_velocity(int i)
{
    for (int k = 0; k < N; k++) v[k] = (float)tanh(x[k] * 0.7 + i * 0.11 + k);
}

/* A run that is saved after any step and continued by a new solver gives the same bytes. */
static void state_restores_exactly(void **state)
{
    (void)state;
    enum { STEPS = 6 };
    for (int k = 0; k < 3; k++)
        for (int cut = 0; cut <= 5; cut++) {
            float whole[N], saved[KN_SOLVER_MAX_TENSORS][N], saved_x[N];
            kn_solver_state st = {0};
            must(kn_schedule_build(KN_GRID_WAN, STEPS, 5, 0.9, &schedule));
            kn_solver *s = open_solver(solvers[k]);
            assert_int_equal(kn_solver_index(s), 1);
            for (int i = 0; i < N; i++) x[i] = (float)i - 0.5f;
            for (int i = 1; i <= STEPS; i++) {
                if (i == 1 + cut) {
                    st = kn_solver_get_state(s);
                    for (int t = 0; t < st.tensors; t++)
                        must(kn_dev_download(dev, &st.tensor[t], saved[t]));
                    memcpy(saved_x, x, sizeof x);
                }
                if (i == STEPS) break;
                synthetic_velocity(i);
                step(s);
            }
            memcpy(whole, x, sizeof x);
            kn_solver_close(&s);

            s = open_solver(solvers[k]);
            kn_solver_state again = {.index = st.index, .known = st.known, .order = st.order};
            must(kn_solver_restore(s, &again));
            assert_int_equal(again.tensors, st.tensors);
            for (int t = 0; t < again.tensors; t++)
                must(kn_dev_upload(dev, saved[t], &again.tensor[t]));
            memcpy(x, saved_x, sizeof x);
            for (int i = kn_solver_index(s); i < STEPS; i++) {
                synthetic_velocity(i);
                step(s);
            }
            assert_memory_equal(x, whole, sizeof x);

            again.index = STEPS + 1;
            assert_int_equal(kn_solver_restore(s, &again), KN_ERR_ARG);
            again = (kn_solver_state){.index = 3, .known = 1, .order = 1};
            assert_int_equal(kn_solver_restore(s, &again), KN_ERR_ARG);
            kn_solver_close(&s);
        }
}

static void no_step_after_the_last(void **state)
{
    (void)state;
    must(kn_schedule_build(KN_GRID_WAN, 1, 3, 1, &schedule));
    kn_solver *s = open_solver(KN_SOLVER_UNIPC);
    step(s);
    kn_tensor t = kn_tensor_of(x, KN_F32, N);
    assert_int_equal(kn_solver_step(s, &t, &t), KN_ERR_ARG);
    kn_solver_close(&s);
    kn_solver_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_point_is_reached, setup, teardown),
        cmocka_unit_test_setup_teardown(orders_are_as_promised, setup, teardown),
        cmocka_unit_test_setup_teardown(state_restores_exactly, setup, teardown),
        cmocka_unit_test_setup_teardown(no_step_after_the_last, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
