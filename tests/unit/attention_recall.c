/* Recall of a plan against the sum written out, with a window, per-head boxes and permuted keys. */
#include "tests/expect.h"

#include <math.h>
#include <string.h>

#include "attention/permute.h"
#include "attention/recall.h"
#include "attention/tile3d.h"
#include "attention/window.h"

enum { T = 3, H = 4, W = 5, L = T * H * W, HEADS = 2, DIM = 16 };
static float q[L * HEADS * DIM], k[L * HEADS * DIM];

static void fill(void)
{
    uint32_t x = 12345;
    for (int i = 0; i < L * HEADS * DIM; i++) {
        x = x * 1664525u + 1013904223u;
        q[i] = (float)(x >> 8) / (1 << 23) - 1;
        x = x * 1664525u + 1013904223u;
        k[i] = (float)(x >> 8) / (1 << 23) - 1;
    }
}

/* Every query is sampled. */
static double by_definition(const kn_attn_plan *p, int head, double scale)
{
    double mean = 0;
    for (int i = 0; i < L; i++) {
        uint8_t visible[L];
        double all = 0, seen = 0;
        expect_ok(kn_attn_plan_row(p, head, i, visible));
        for (int j = 0; j < L; j++) {
            double s = 0;
            for (int c = 0; c < DIM; c++) s += (double)q[(i * HEADS + head) * DIM + c] * k[(j * HEADS + head) * DIM + c];
            all += exp(s * scale);
            if (visible[j]) seen += exp(s * scale);
        }
        mean += seen / all / L;
    }
    return mean;
}

static void check(kn_dev *d, const kn_attn_plan *p)
{
    kn_tensor tq = kn_tensor_of(q, KN_F32, L, HEADS, DIM), tk = kn_tensor_of(k, KN_F32, L, HEADS, DIM);
    double recall[HEADS];
    expect_ok(kn_attn_plan_recall(d, p, &tq, &tk, 1.5, 10 * L, recall));
    for (int h = 0; h < HEADS; h++) {
        double want = by_definition(p, h, 1.5);
        assert_true(fabs(recall[h] - want) < 1e-9);
        assert_true(want > 0.02 && want < 0.98);
    }
}

static void recall_is_the_weight_kept(void **state)
{
    (void)state;
    kn_dev *d;
    kn_attn_plan *p;
    fill();
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF}, &d));
    kn_window_params window = {.layout = {.grid = {T, H, W}, .tile = {T, 2, 2}}, .block = 8, .window = {{0}, {.size = 3}, {.size = 3}}};
    expect_ok(kn_window_plan(&window, &p));
    check(d, p);
    kn_attn_plan_free(&p);
    const int boxes[HEADS][3] = {{1, 1, 1}, {3, 1, 3}};
    kn_tile3d_params tiles = {.layout = {.grid = {T, H, W}, .tile = {1, 2, 2}}, .block = 8, .heads = HEADS, .window = boxes};
    expect_ok(kn_tile3d_plan(&tiles, &p));
    check(d, p);
    kn_attn_plan_free(&p);
    kn_permute_params params = {.layout = {.grid = {T, H, W}, .tile = {1, 2, 2}}, .block = 8, .samples = 20, .heads = HEADS, .dim = DIM, .threshold = 0.3, .scale = 1.5f};
    kn_permute *permute;
    const kn_attn_plan *chosen;
    kn_tensor tq = kn_tensor_of(q, KN_F32, L, HEADS, DIM), tk = kn_tensor_of(k, KN_F32, L, HEADS, DIM);
    expect_ok(kn_permute_open(&params, &permute));
    expect_ok(kn_permute_plan(d, permute, &tq, &tk, &chosen));
    check(d, chosen);
    kn_permute_close(&permute);
    kn_dev_close(&d);
}

static void dense_keeps_all_and_wrong_shapes_are_refused(void **state)
{
    (void)state;
    kn_dev *d;
    kn_attn_plan *p;
    double recall[HEADS];
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF}, &d));
    expect_ok(kn_attn_plan_dense(&(kn_attn_layout){.grid = {T, H, W}, .tile = {T, H, W}}, 16, &p));
    kn_tensor tq = kn_tensor_of(q, KN_F32, L, HEADS, DIM), tk = kn_tensor_of(k, KN_F32, L, HEADS, DIM);
    expect_ok(kn_attn_plan_recall(d, p, &tq, &tk, 1, 7, recall));
    for (int h = 0; h < HEADS; h++) assert_true(fabs(recall[h] - 1) < 1e-12);
    assert_int_equal(kn_attn_plan_recall(d, p, &tq, &tk, 1, 0, recall), KN_ERR_ARG);
    tk.dim[0]--;
    assert_int_equal(kn_attn_plan_recall(d, p, &tq, &tk, 1, 7, recall), KN_ERR_ARG);
    kn_attn_plan_free(&p);
    kn_dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_is_the_weight_kept),
        cmocka_unit_test(dense_keeps_all_and_wrong_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
