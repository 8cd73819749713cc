#include "tests/expect.h"

#include "io/memory.h"

static void blocks_are_aligned_and_zeroed(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4097};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *p, *z;
        expect_ok(kn_alloc(sizes[i], &p));
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        memset(p, 0xff, sizes[i]);
        kn_free(p);
        expect_ok(kn_alloc_zero(sizes[i], &z));
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(((char *)z)[k], 0);
        kn_free(z);
    }
    kn_free(NULL);
}

static void impossible_sizes_are_named(void **state)
{
    (void)state;
    void *p = &p;
    /* Just below SIZE_MAX, where rounding up to the alignment would wrap. */
    expect_fail(kn_alloc(SIZE_MAX - 8, &p), KN_ERR_NOMEM, "18446744073709551607 bytes");
    assert_null(p);
    p = &p;
    expect_fail(kn_alloc_array(SIZE_MAX / 4, 8, &p), KN_ERR_NOMEM, "elements of 8 bytes");
    assert_null(p);
    size_t product = 1;
    assert_true(kn_mul_size(0, SIZE_MAX, &product));
    assert_int_equal(product, 0);
    assert_true(kn_mul_size(SIZE_MAX, 1, &product));
    assert_true(product == SIZE_MAX);
    assert_false(kn_mul_size(SIZE_MAX / 2 + 1, 2, &product));
}

static void the_kth_allocation_fails_once(void **state)
{
    (void)state;
    for (long k = 1; k <= 3; k++) {
        void *p[3];
        long before = kn_memory_count();
        kn_memory_fail_at(k);
        for (long i = 1; i <= 3; i++) {
            kn_status st = kn_alloc(16, &p[i - 1]);
            assert_int_equal(st, i == k ? KN_ERR_NOMEM : KN_OK);
            assert_int_equal(p[i - 1] == NULL, i == k);
        }
        assert_int_equal(kn_memory_count() - before, 3);
        for (int i = 0; i < 3; i++) kn_free(p[i]);
    }
    kn_memory_fail_at(0);
}

static void strings_are_copied(void **state)
{
    (void)state;
    char *s;
    expect_ok(kn_strdup("", &s));
    assert_string_equal(s, "");
    kn_free(s);
    expect_ok(kn_asprintf(&s, "%s-%03d", "frame", 7));
    assert_string_equal(s, "frame-007");
    kn_free(s);
    kn_memory_fail_at(1);
    expect_fail(kn_asprintf(&s, "%d", 1), KN_ERR_NOMEM, "2 bytes");
    assert_null(s);
    kn_memory_fail_at(1);
    expect_fail(kn_strdup("abc", &s), KN_ERR_NOMEM, "4 bytes");
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_and_zeroed),
        cmocka_unit_test(impossible_sizes_are_named),
        cmocka_unit_test(the_kth_allocation_fails_once),
        cmocka_unit_test(strings_are_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
