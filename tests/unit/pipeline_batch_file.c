/* Batch files: names of jobs, and ranges. The rest is tried by the end-to-end tests and the fuzz corpus. */
#include "tests/expect.h"

#include "pipeline/batch_file.h"

static kn_options base;

static int setup(void **state)
{
    if (temp_folder_setup(state) || kn_options_init(&base) != KN_OK) return -1;
    return kn_options_set(&base, "output-dir", "out", KN_FROM_COMMAND_LINE, "--output-dir") != KN_OK;
}

static int teardown(void **state)
{
    kn_options_free(&base);
    return temp_folder_teardown(state);
}

static void slugs_are_words(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"A red Ball, bouncing!", "a-red-ball-bouncing"},
        {"  -- ", ""},
        {"caf\xc3\xa9 au lait", "caf\xc3\xa9-au-lait"},
        {"one two three four five", "one-two-three-four"},   /* no half words */
        {"\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab", "\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab"},
        {"a\033[31mred", "a-31mred"},
        {"a\xc2\x9b" "31mred", "a-31mred"}, /* the same sequence in one character */
        {"a\x7f" "b", "a-b"},
    };
    char out[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kn_batch_slug(cases[i][0], 20, out);
        assert_string_equal(out, cases[i][1]);
    }
}

static void names_hold_no_control_characters(void **state)
{
    (void)state;
    static const char text[] = "jobs:\n- {prompt: x, name: \"a\\e[31m/b\"}\n- {prompt: x, name: \"a\\x9b31m\"}\n- {prompt: \"a\\x9b31m b\"}\n";
    kn_batch_file b;
    put_file(temp_path("names.yaml"), text, sizeof text - 1);
    expect_ok(kn_batch_file_read(temp_path("names.yaml"), &base, &b));
    assert_int_equal(b.count, 3);
    assert_string_equal(b.entry[0].name, "a-[31m-b");
    assert_string_equal(b.entry[1].name, "a--31m");
    assert_string_equal(b.entry[2].name, "a-31m-b");
    kn_batch_file_free(&b);
}

static void ranges_end_where_they_say(void **state)
{
    (void)state;
    static const char good[] = "jobs:\n- {prompt: x, matrix: {seed: 3..5}}\n";
    static const char last[] = "jobs:\n- {prompt: x, matrix: {seed: 9223372036854775806..9223372036854775807}}\n";
    kn_batch_file b;
    put_file(temp_path("range.yaml"), good, sizeof good - 1);
    expect_ok(kn_batch_file_read(temp_path("range.yaml"), &base, &b));
    assert_int_equal(b.count, 3);
    for (int i = 0; i < 3; i++) assert_int_equal(b.entry[i].o.seed, 3 + i);
    kn_batch_file_free(&b);
    put_file(temp_path("range.yaml"), last, sizeof last - 1);
    expect_ok(kn_batch_file_read(temp_path("range.yaml"), &base, &b));
    assert_int_equal(b.count, 2); /* of which each is above what a seed may be */
    for (int i = 0; i < 2; i++) assert_int_equal(b.entry[i].status, KN_ERR_ARG);
    kn_batch_file_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slugs_are_words),
        cmocka_unit_test(names_hold_no_control_characters),
        cmocka_unit_test(ranges_end_where_they_say),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
