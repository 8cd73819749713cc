#include "tests/expect.h"

#include "io/path.h"

static void text_of_paths(void **state)
{
    static const char *const below[] = {"a", "a/b", "./a", "a/..b", "..a", "a/b..", "...", "a//b"};
    static const char *const not_below[] = {"", "/", "/a", "..", "../a", "a/..", "a/../b", "a/b/../../../c", "./../a"};
    (void)state;
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) assert_true(kn_path_is_below(below[i]));
    for (size_t i = 0; i < sizeof not_below / sizeof *not_below; i++) assert_false(kn_path_is_below(not_below[i]));
    assert_true(kn_path_is_in("out", "out/a"));
    assert_true(kn_path_is_in("/x/out/", "/x/out/a/b"));
    assert_true(kn_path_is_in("/", "/etc/a"));
    assert_false(kn_path_is_in("out", "output/a"));
    assert_false(kn_path_is_in("out", "out"));
    assert_false(kn_path_is_in("out", "out/../a"));
    assert_false(kn_path_is_in("out", "out//etc"));
}

static void slashes_at_the_end(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t bytes;
    } cases[] = {{"a", 1}, {"a/", 1}, {"a/b//", 3}, {"/", 1}, {"//", 1}, {"", 0}, {"./", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(kn_path_bare_bytes(cases[i].path), cases[i].bytes);
}

static void links(void **state)
{
    (void)state;
    assert_int_equal(mkdir(temp_path("out"), 0700), 0);
    assert_int_equal(mkdir(temp_path("out/real"), 0700), 0);
    assert_int_equal(mkdir(temp_path("other"), 0700), 0);
    assert_int_equal(symlink("../other", temp_path("out/away")), 0);
    assert_int_equal(symlink("real", temp_path("out/near")), 0);
    assert_int_equal(symlink("/nowhere/x", temp_path("out/nothing")), 0);
    expect_ok(kn_path_check_links(temp_path("out"), temp_path("out/new/a.mp4")));
    expect_ok(kn_path_check_links(temp_path("out"), temp_path("out/real/a.mp4")));
    expect_ok(kn_path_check_links(temp_path("out"), temp_path("out/near/new/a.mp4")));
    expect_ok(kn_path_check_links("/", temp_path("other/a")));
    assert_int_equal(kn_path_check_links(temp_path("out"), temp_path("out/away/a.mp4")), KN_ERR_ARG);
    assert_non_null(strstr(kn_error_text(), "found a link to"));
    assert_int_equal(kn_path_check_links(temp_path("out"), temp_path("out/away/deep/a.mp4")), KN_ERR_ARG);
    assert_int_equal(kn_path_check_links(temp_path("out"), temp_path("out/nothing")), KN_ERR_ARG);
    assert_int_equal(kn_path_check_links(temp_path("out"), temp_path("other/a")), KN_ERR_ARG);
    assert_int_equal(kn_path_check_links(temp_path("gone"), temp_path("gone/a")), KN_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_of_paths),
        cmocka_unit_test(slashes_at_the_end),
        cmocka_unit_test_setup_teardown(links, temp_folder_setup, temp_folder_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
