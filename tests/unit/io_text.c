#include "tests/expect.h"

#include <float.h>
#include <math.h>

#include "io/memory.h"
#include "io/text.h"

static void text_grows(void **state)
{
    (void)state;
    kn_text t = {0};
    for (int i = 0; i < 1000; i++) expect_ok(kn_text_addf(&t, "%d,", i % 10));
    assert_int_equal(t.size, 2000);
    assert_int_equal(strlen(t.data), 2000);
    assert_memory_equal(t.data + 1996, "8,9,", 4);
    expect_ok(kn_text_addf(&t, "%500s", "x")); /* longer than addf's own buffer */
    assert_int_equal(t.size, 2500);
    expect_ok(kn_text_add_bytes(&t, "a\0b", 3));
    assert_memory_equal(t.data + 2500, "a\0b", 4);
    expect_ok(kn_text_add(&t, ""));
    assert_int_equal(t.size, 2503);
    kn_free(t.data);
}

static void a_failed_append_keeps_the_text(void **state)
{
    (void)state;
    kn_text t = {0};
    expect_ok(kn_text_add(&t, "kept"));
    kn_memory_fail_at(1);
    expect_fail(kn_text_addf(&t, "%200s", "x"), KN_ERR_NOMEM, "memory");
    kn_memory_fail_at(1);
    expect_fail(kn_text_addf(&t, "%300s", "x"), KN_ERR_NOMEM, "memory");
    assert_string_equal(t.data, "kept");
    kn_free(t.data);
}

static void doubles_round_trip(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {0.1, "0.1"},
        {1.0 / 3, "0.3333333333333333"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1e22, "1e+22"},
        {123456789012345678.0, "1.2345678901234568e+17"},
        {5e-324, "4.94065645841247e-324"},
        {DBL_MAX, "1.7976931348623157e+308"},
        {-2.5, "-2.5"},
    };
    char out[KN_DOUBLE_CHARS];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(kn_text_double(cases[i].value, out), cases[i].text);
        double back = 99;
        assert_true(kn_text_to_double(out, &back));
        assert_memory_equal(&back, &cases[i].value, sizeof back);
    }
    assert_string_equal(kn_text_double(NAN, out), "nan");
    assert_string_equal(kn_text_double(-INFINITY, out), "-inf");
    assert_string_equal(kn_text_double(INFINITY, out), "inf");
}

static void only_decimal_numbers_are_read(void **state)
{
    (void)state;
    static const char *const good[] = {"1", "+1.5", "-.5", "1.", "1e3", "1E-3", "007"};
    static const char *const bad[] = {"",    " 1",  "1 ",  ".",     "e3",    "1e",  "1e+", "0x10",
                                      "nan", "inf", "1,5", "1.5.1", "1e400", "--1", "-",   "1f"};
    double d;
    int64_t n = 5;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(kn_text_to_double(good[i], &d));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(kn_text_to_double(bad[i], &d));
    assert_true(kn_text_to_int("-9223372036854775808", &n));
    assert_true(n == INT64_MIN);
    assert_true(kn_text_to_int("+12", &n));
    assert_int_equal(n, 12);
    static const char *const not_int[] = {
        "9223372036854775808", "", "-", "1.0", "1e3", "0x1", " 1", "1 "};
    for (size_t i = 0; i < sizeof not_int / sizeof not_int[0]; i++)
        assert_false(kn_text_to_int(not_int[i], &n));
    assert_int_equal(n, 12);
}

static void utf8_is_strict(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "plain",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x8e\xac",
                                       "\xed\x9f\xbf",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {
        "\x80",             /* a continuation alone */
        "\xc3",             /* cut */
        "\xe2\x82",         /* cut */
        "\xc0\xaf",         /* overlong '/' */
        "\xe0\x80\xaf",     /* overlong */
        "\xf0\x80\x80\xaf", /* overlong */
        "\xed\xa0\x80",     /* surrogate */
        "\xf4\x90\x80\x80", /* past U+10FFFF */
        "\xff",
        "a\xc3(",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(kn_text_is_utf8(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(kn_text_is_utf8(bad[i]));
}

static void control_characters_do_not_pass(void **state)
{
    char text[] = "a\x1b[31mred\x07\r\tok\nb\x7f caf\xc3\xa9 \xc2\x9b" "2J \xc2\xa0 \xe2\x80\x9b";
    (void)state;
    kn_text_make_plain(text);
    assert_string_equal(text, "a?[31mred???ok\nb? caf\xc3\xa9 ??2J \xc2\xa0 \xe2\x80\x9b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_grows),         cmocka_unit_test(a_failed_append_keeps_the_text),
        cmocka_unit_test(doubles_round_trip), cmocka_unit_test(only_decimal_numbers_are_read),
        cmocka_unit_test(utf8_is_strict),
        cmocka_unit_test(control_characters_do_not_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
