/* When work is recorded, queued from the recording, recorded anew, and launched after all: on a backend that
 * only counts. That recordings give the same bytes on a GPU is e2e_gpu's. */
#include "tests/expect.h"

#include "compute/backend.h"
#include "compute/record.h"

typedef struct counts {
    int begun, ended, replayed, closed, called, open;
    int fail_begin, fail_end, fail_call; /* the next so many */
} counts;

static counts n;
static int recording;

static kn_status begin(kn_dev *d)
{
    (void)d;
    n.begun++;
    if (n.fail_begin && n.fail_begin--) return kn_fail(KN_ERR_DEVICE, "begin");
    recording = 1;
    return KN_OK;
}

static kn_status end(kn_dev *d, void **work)
{
    (void)d;
    n.ended++;
    recording = 0;
    *work = NULL;
    if (n.fail_end && n.fail_end--) return kn_fail(KN_ERR_DEVICE, "end");
    n.open++;
    *work = &n;
    return KN_OK;
}

static kn_status replay(kn_dev *d, void *work)
{
    (void)d;
    assert_ptr_equal(work, &n);
    n.replayed++;
    return KN_OK;
}

static void close_work(kn_dev *d, void *work)
{
    (void)d;
    assert_ptr_equal(work, &n);
    n.open--;
    n.closed++;
}

static kn_status call(void *user)
{
    (void)user;
    n.called++;
    if (recording && n.fail_call && n.fail_call--) return kn_fail(KN_ERR_UNSUPPORTED, "call");
    return KN_OK;
}

static kn_backend backend = {
    .record_begin = begin, .record_end = end, .replay = replay, .record_close = close_work};
static kn_dev dev = {.backend = &backend};

static kn_records *fresh(void)
{
    kn_records *r;
    n = (counts){0};
    expect_ok(kn_records_open(&dev, &r));
    assert_non_null(r);
    return r;
}

static void times(kn_records *r, const char *key, int count)
{
    for (int i = 0; i < count; i++) expect_ok(kn_records_run(r, key, strlen(key), call, NULL));
}

static void recorded_at_the_second_time(void **state)
{
    (void)state;
    kn_records *r = fresh();
    times(r, "a", 1);
    assert_int_equal(n.begun, 0);
    times(r, "a", 1); /* recorded, which runs nothing, and queued */
    assert_int_equal(n.begun, 1);
    assert_int_equal(n.replayed, 1);
    times(r, "a", 5);
    times(r, "b", 1);
    times(r, "ab", 1); /* another key, though it begins the same */
    assert_int_equal(n.called, 4);
    assert_int_equal(n.replayed, 6);
    times(r, "b", 2);
    assert_int_equal(n.begun, 2);
    assert_int_equal(n.open, 2);
    kn_records_close(&r);
    assert_null(r);
    assert_int_equal(n.open, 0);
    assert_int_equal(n.begun, n.ended);
}

static void recorded_anew_when_memory_moved(void **state)
{
    (void)state;
    kn_records *r = fresh();
    times(r, "a", 3);
    for (int i = 0; i < 10; i++) { /* at every turn: some attempts, then launches */
        dev.moves++;
        times(r, "a", 1);
    }
    assert_int_equal(n.begun, 4);
    assert_int_equal(n.open, 0);
    assert_int_equal(n.called, 1 + 4 + 7);
    assert_int_equal(n.called - n.begun + n.replayed, 13); /* each time it was done once */
    kn_records_close(&r);
}

static void launched_where_it_cannot_be_recorded(void **state)
{
    (void)state;
    for (int where = 0; where < 3; where++) {
        kn_records *r = fresh();
        if (where == 0) n.fail_begin = 1;
        if (where == 1) n.fail_call = 1;
        if (where == 2) n.fail_end = 1;
        times(r, "a", 4);
        assert_int_equal(n.begun, 1);
        assert_int_equal(n.ended, where > 0);
        assert_int_equal(n.replayed, 0);
        assert_int_equal(n.called, where == 0 ? 4 : 5);
        assert_int_equal(n.open, 0);
        assert_string_equal(kn_error_text(), "");
        times(r, "b", 3); /* others are */
        assert_int_equal(n.replayed, 2);
        kn_records_close(&r);
        assert_int_equal(n.open, 0);
    }
}

static kn_status broken(void *user)
{
    return kn_fail(KN_ERR_DEVICE, "%s", (const char *)user);
}

static void errors_of_the_call_come_back(void **state)
{
    (void)state;
    kn_records *r = fresh();
    for (int i = 0; i < 3; i++)
        expect_fail(kn_records_run(r, "a", 1, broken, "lost"), KN_ERR_DEVICE, "lost");
    assert_int_equal(recording, 0);
    assert_int_equal(n.begun, n.ended);
    kn_records_close(&r);
}

static void more_keys_than_are_kept(void **state)
{
    (void)state;
    kn_records *r = fresh();
    for (int turn = 0; turn < 3; turn++)
        for (int i = 0; i < 40; i++) expect_ok(kn_records_run(r, &i, sizeof i, call, NULL));
    assert_int_equal(n.called - n.begun + n.replayed, 120);
    assert_true(n.begun == 16 && n.open == 16);
    static char wide[KN_RECORD_KEY + 1];
    expect_ok(kn_records_run(r, wide, sizeof wide, call, NULL));
    assert_int_equal(n.called - n.begun + n.replayed, 121);
    kn_records_close(&r);
}

static void devices_that_work_at_once(void **state)
{
    (void)state;
    kn_dev *d;
    kn_records *r;
    n = (counts){0};
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &d));
    expect_ok(kn_records_open(d, &r));
    assert_null(r);
    times(r, "a", 3);
    assert_int_equal(n.called, 3);
    kn_records_close(&r);
    kn_dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(recorded_at_the_second_time),
                                       cmocka_unit_test(recorded_anew_when_memory_moved),
                                       cmocka_unit_test(launched_where_it_cannot_be_recorded),
                                       cmocka_unit_test(errors_of_the_call_come_back),
                                       cmocka_unit_test(more_keys_than_are_kept),
                                       cmocka_unit_test(devices_that_work_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
