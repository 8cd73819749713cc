#include "tests/expect.h"

#include <pthread.h>

static kn_status fails(int n)
{
    return kn_fail(KN_ERR_FORMAT, "part %d", n);
}

static kn_status passes_on(void)
{
    KN_TRY(fails(7));
    return KN_OK;
}

static kn_status cleans_up(int *cleaned)
{
    kn_status st;
    KN_TRY_GOTO(fails(8));
    st = KN_OK;
done:
    *cleaned = 1;
    return st;
}

static void records_code_text_and_place(void **state)
{
    (void)state;
    expect_fail(passes_on(), KN_ERR_FORMAT, "part 7");
    assert_string_equal(kn_error_text(), "part 7");
    assert_non_null(strstr(kn_error_place(), "io_status.c:"));
    int cleaned = 0;
    expect_fail(cleans_up(&cleaned), KN_ERR_FORMAT, "part 8");
    assert_int_equal(cleaned, 1);
    kn_error_clear();
    assert_string_equal(kn_error_text(), "");
    assert_string_equal(kn_error_place(), "");
}

static void context_goes_in_front(void **state)
{
    (void)state;
    kn_status st = fails(1);
    assert_int_equal(KN_CTX(st, "loading %s", "a"), KN_ERR_FORMAT);
    assert_int_equal(KN_CTX(st, "job %d", 2), KN_ERR_FORMAT);
    assert_string_equal(kn_error_text(), "job 2: loading a: part 1");
    assert_int_equal(KN_CTX(KN_OK, "nothing"), KN_OK);
    assert_string_equal(kn_error_text(), "job 2: loading a: part 1");
}

static void a_message_may_quote_the_last_one(void **state)
{
    (void)state;
    (void)fails(1);
    (void)kn_fail(KN_ERR_IO, "again (%s)", kn_error_text());
    assert_string_equal(kn_error_text(), "again (part 1)");
}

static void long_texts_are_cut(void **state)
{
    (void)state;
    char large[5000], cut[8];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    (void)kn_fail(KN_ERR_IO, "%s", large);
    size_t kept = strlen(kn_error_text());
    assert_in_range(kept, 1000, sizeof large - 2);
    (void)KN_CTX(KN_ERR_IO, "front");
    assert_memory_equal(kn_error_text(), "front: xxx", 10);
    assert_int_equal(strlen(kn_error_text()), kept);
    (void)KN_CTX(KN_ERR_IO, "%s", large);
    assert_int_equal(strlen(kn_error_text()), kept);
    (void)fails(12345);
    kn_error_copy(cut, sizeof cut);
    assert_string_equal(cut, "part 12");
    kn_error_copy(cut, 0);
    assert_string_equal(cut, "part 12");
}

static void control_characters_do_not_pass(void **state)
{
    (void)state;
    (void)kn_fail(KN_ERR_IO, "name '%s'", "a\033[31mb\x7f\tc\nd");
    assert_string_equal(kn_error_text(), "name 'a?[31mb??c\nd'");
    (void)KN_CTX(KN_ERR_IO, "%s", "\033]0;title\a");
    assert_string_equal(kn_error_text(), "?]0;title?: name 'a?[31mb??c\nd'");
}

static void *other_thread(void *arg)
{
    char *seen = arg;
    strcpy(seen, kn_error_text());
    (void)fails(2);
    return NULL;
}

static void each_thread_has_its_record(void **state)
{
    (void)state;
    char seen[64] = "unset";
    pthread_t t;
    (void)fails(1);
    assert_int_equal(pthread_create(&t, NULL, other_thread, seen), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_string_equal(seen, "");
    assert_string_equal(kn_error_text(), "part 1");
}

static void every_code_has_its_name(void **state)
{
    (void)state;
    for (int st = KN_ERR_INTERNAL; st <= KN_OK; st++) {
        assert_string_not_equal(kn_status_name(st), "unknown");
        for (int other = KN_ERR_INTERNAL; other < st; other++)
            assert_string_not_equal(kn_status_name(st), kn_status_name(other));
    }
    assert_string_equal(kn_status_name((kn_status)-99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_code_text_and_place),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(a_message_may_quote_the_last_one),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(control_characters_do_not_pass),
        cmocka_unit_test(each_thread_has_its_record),
        cmocka_unit_test(every_code_has_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
