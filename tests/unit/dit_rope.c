/* Rotary tables: values, token order, limits. */
#include "dit_model.h"

#include "dit/rope.h"

static kn_dev *dev;

static int setup(void **state)
{
    (void)state;
    return kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF, .threads = 1}, &dev) != KN_OK;
}

static int teardown(void **state)
{
    (void)state;
    kn_dev_close(&dev);
    return 0;
}

/* Angle of pair i at a grid position, its rows and columns scaled, by the definition in dit/rope.h. */
static double angle(int head_dim, int pair, const double scale[3], int64_t f, int64_t h, int64_t w)
{
    int side = head_dim / 6, first = head_dim / 2 - 2 * side;
    int count = pair < first ? first : side;
    int i = pair < first ? pair : (pair - first) % side;
    double at = pair < first ? scale[0] * (double)f : pair < first + side ? scale[1] * (double)h : scale[2] * (double)w;
    return at * pow(10000.0, -(double)i / count);
}

static void tables_follow_the_order(void **state)
{
    (void)state;
    /* More tokens than are uploaded at a time, so that pieces meet. */
    const int64_t grid[3] = {3, 41, 37};
    enum { D = 64, L = 3 * 41 * 37 };
    static int32_t order[L];
    for (int l = 0; l < L; l++)
        order[l] = (int32_t)((int64_t)l * 1000 % L); /* 1000 and L are coprime */
    const double own[3] = {1, 1, 1}, fitted[3] = {1, 10 / 41., 0.5};
    for (int pass = 0; pass < 4; pass++) {
        kn_dit_rope r;
        const double *scale = pass / 2 ? fitted : own;
        must(kn_dit_rope_open_grid(dev, D, 64, grid, pass / 2 ? fitted : NULL, pass % 2 ? order : NULL, &r));
        assert_int_equal(r.tokens, L);
        assert_int_equal(r.cos.dim[1], D / 2);
        const float *c = r.cos.data, *s = r.sin.data;
        for (int l = 0; l < L; l++) {
            int at = pass % 2 ? order[l] : l;
            for (int i = 0; i < D / 2; i++) {
                double a = angle(D, i, scale, at / (41 * 37), at / 37 % 41, at % 37);
                assert_true(fabs(c[l * (D / 2) + i] - cos(a)) < 1e-7);
                assert_true(fabs(s[l * (D / 2) + i] - sin(a)) < 1e-7);
            }
        }
        kn_dit_rope_close(&r);
        kn_dit_rope_close(&r);
    }
    assert_int_equal(kn_dev_bytes_now(dev), 0);
}

static void bad_grids_are_refused(void **state)
{
    (void)state;
    kn_dit_rope r;
    const int64_t long_axis[3] = {1, 65, 1}, empty[3] = {1, 0, 1}, small[3] = {1, 2, 2};
    const int32_t twice[4] = {0, 1, 1, 3}, outside[4] = {0, 1, 2, 4}, negative[4] = {-1, 1, 2, 3};
    assert_int_equal(kn_dit_rope_open_grid(dev, 16, 64, long_axis, NULL, NULL, &r), KN_ERR_ARG);
    assert_non_null(strstr(kn_error_text(), "64"));
    assert_int_equal(kn_dit_rope_open_grid(dev, 16, 64, empty, NULL, NULL, &r), KN_ERR_ARG);
    assert_int_equal(kn_dit_rope_open_grid(dev, 16, 64, small, NULL, twice, &r), KN_ERR_ARG);
    assert_int_equal(kn_dit_rope_open_grid(dev, 16, 64, small, NULL, outside, &r), KN_ERR_ARG);
    assert_int_equal(kn_dit_rope_open_grid(dev, 16, 64, small, NULL, negative, &r), KN_ERR_ARG);
    kn_dit_rope_close(&r);
    assert_int_equal(kn_dev_bytes_now(dev), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tables_follow_the_order, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_grids_are_refused, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
