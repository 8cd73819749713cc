/* Tile windows: densities, measured errors against a search by hand, and the choice against all choices. */
#include "tests/expect.h"

#include <math.h>

#include "attention/tile3d.h"
#include "attention/tile_search.h"

enum { T = 3, H = 7, W = 9, TOKENS = T * H * W, HEADS = 2, DIM = 16 };

static const kn_attn_layout layout = {.grid = {T, H, W}, .tile = {2, 2, 3}};

/* The product over the axes is the density of the plan itself, ragged tiles and wide windows included. */
static void density_is_that_of_the_plan(void **state)
{
    (void)state;
    for (int t = 1; t <= 4; t++)
        for (int h = 1; h <= 6; h++)
            for (int w = 1; w <= 5; w++) {
                int window[1][3] = {{t, h, w}};
                kn_tile3d_params p = {.layout = layout, .block = 128, .heads = 1, .window = (const int (*)[3])window};
                kn_attn_plan *plan;
                expect_ok(kn_tile3d_plan(&p, &plan));
                assert_true(fabs(plan->density - kn_tile3d_density(&layout, window[0])) < 1e-12);
                kn_attn_plan_free(&plan);
            }
}

static void candidates_are_checked(void **state)
{
    (void)state;
    int window[KN_TILE_WINDOWS_MAX][3], count = kn_tile_search_candidates(&layout, window);
    kn_tile_search s;
    assert_true(count > 4 && count <= KN_TILE_WINDOWS_MAX);
    expect_ok(kn_tile_search_open(&layout, 128, (const int (*)[3])window, count, &s));
    assert_int_equal(s.windows, count); /* all differ, the full one is among them */
    assert_true(s.density[s.full] == 1);
    kn_tile_search_close(&s);
    const int wide[3][3] = {{9, 1, 1}, {2, 1, 1}, {1, 99, 3}}; /* 2 tiles in t: the first two are equal */
    expect_ok(kn_tile_search_open(&layout, 128, wide, 3, &s));
    assert_int_equal(s.windows, 3); /* with the full one */
    kn_tile_search_close(&s);
    const int even[1][3] = {{1, 2, 1}}, none[1][3] = {{1, 0, 1}};
    expect_fail(kn_tile_search_open(&layout, 128, even, 1, &s), KN_ERR_ARG, "1 x 2 x 1", "odd");
    expect_fail(kn_tile_search_open(&layout, 128, none, 1, &s), KN_ERR_ARG, "1 x 0 x 1");
}

static void errors_are_those_of_the_outputs(void **state)
{
    (void)state;
    static float q[TOKENS * HEADS * DIM], k[TOKENS * HEADS * DIM], v[TOKENS * HEADS * DIM];
    static float dense[TOKENS * HEADS * DIM], room[TOKENS * HEADS * DIM];
    for (int i = 0; i < TOKENS * HEADS * DIM; i++) {
        q[i] = sinf((float)i), k[i] = cosf(1.7f * (float)i), v[i] = sinf(0.3f * (float)(i % 977));
    }
    const int window[2][3] = {{1, 3, 3}, {3, 1, 1}};
    kn_dev *dev;
    kn_tile_search s;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 2}, &dev));
    expect_ok(kn_tile_search_open(&layout, 128, window, 2, &s));
    kn_attn_args args = {.q = kn_tensor_of(q, KN_F32, TOKENS, HEADS, DIM),
                         .k = kn_tensor_of(k, KN_F32, TOKENS, HEADS, DIM),
                         .v = kn_tensor_of(v, KN_F32, TOKENS, HEADS, DIM),
                         .out = kn_tensor_of(dense, KN_F32, TOKENS, HEADS, DIM),
                         .scale = 0.25f};
    kn_tensor out = kn_tensor_of(room, KN_F32, TOKENS, HEADS, DIM);
    double error[3 * HEADS] = {0}, own[3 * HEADS] = {0}, off[2][HEADS] = {{0}}, all[HEADS] = {0};
    expect_ok(kn_attn_dense(dev, &args, NULL));
    expect_ok(kn_tile_search_look(dev, &s, &args, &out, error, own));
    expect_ok(kn_tile_search_look(dev, &s, &args, &out, error, own)); /* adds */
    args.out = out;
    for (int w = 0; w < 2; w++) {
        expect_ok(kn_attn_sparse(dev, &args, s.plan[w], NULL));
        for (int i = 0; i < TOKENS * HEADS * DIM; i++) {
            double gap = (double)room[i] - dense[i];
            off[w][i / DIM % HEADS] += gap * gap;
            if (w == 0) all[i / DIM % HEADS] += (double)dense[i] * dense[i];
        }
    }
    for (int w = 0; w < 2; w++)
        for (int h = 0; h < HEADS; h++) {
            assert_true(off[w][h] > 0);
            assert_true(fabs(error[w * HEADS + h] / (2 * off[w][h] / (all[0] + all[1])) - 1) < 1e-9);
            assert_true(fabs(own[w * HEADS + h] / (2 * off[w][h] / all[h]) - 1) < 1e-9);
        }
    for (int h = 0; h < HEADS; h++) assert_true(error[s.full * HEADS + h] == 0);
    kn_tile_search_close(&s);
    kn_dev_close(&dev);
}

/* Against every choice there is: none that stays below the budget by the largest step, which may not have
 * fitted, is better. */
static void budget_buys_the_least_error(void **state)
{
    (void)state;
    enum { UNITS = 4, WINDOWS = 4, ALL = 256 };
    kn_tile_search s = {.windows = WINDOWS, .density = {0.1, 0.3, 0.2, 1}, .full = 3};
    const double weight[UNITS] = {1, 1, 2, 2};
    const double LARGEST = 2.0 / 6 * 0.9;
    uint32_t seed = 5;
    for (int round = 0; round < 50; round++) {
        double error[UNITS][WINDOWS];
        for (int u = 0; u < UNITS; u++)
            for (int w = 0; w < WINDOWS; w++) {
                seed = seed * 1664525u + 1013904223u;
                error[u][w] = w == s.full ? 0 : (double)(seed >> 8) / 1e7;
            }
        double budget = 0.1 + 0.018 * round, spent = 0, got = 0;
        int choice[UNITS];
        expect_ok(kn_tile_choose_budget(&s, UNITS, error[0], weight, budget, choice));
        for (int u = 0; u < UNITS; u++) spent += weight[u] * s.density[choice[u]] / 6, got += error[u][choice[u]];
        assert_true(spent <= budget + 1e-9);
        for (int c = 0; c < ALL; c++) {
            double cost = 0, other = 0;
            for (int u = 0; u < UNITS; u++) {
                int w = c >> (2 * u) & 3;
                cost += weight[u] * s.density[w] / 6, other += error[u][w];
            }
            assert_true(cost > budget - LARGEST || got <= other + 1e-9);
        }
    }
    int choice[UNITS];
    const double flat[UNITS * WINDOWS] = {0};
    expect_fail(kn_tile_choose_budget(&s, UNITS, flat, weight, 0.05, choice), KN_ERR_ARG, "0.05", "0.1000");
}

static void bound_buys_the_least_density(void **state)
{
    (void)state;
    kn_tile_search s = {.windows = 3, .density = {0.1, 0.3, 1}, .full = 2};
    const double error[3][3] = {{0.5, 0.2, 0}, {0.1, 0.05, 0}, {0.9, 0.8, 0}};
    int choice[3];
    kn_tile_choose_bound(&s, 3, error[0], 0.2, choice);
    assert_int_equal(choice[0], 1);
    assert_int_equal(choice[1], 0);
    assert_int_equal(choice[2], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(density_is_that_of_the_plan), cmocka_unit_test(candidates_are_checked),
        cmocka_unit_test(errors_are_those_of_the_outputs), cmocka_unit_test(budget_buys_the_least_error),
        cmocka_unit_test(bound_buys_the_least_density),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
