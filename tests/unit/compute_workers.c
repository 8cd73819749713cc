/* The worker team: every piece exactly once, for any count, grain and thread count; loops inside pieces;
 * many short loops in a row; two teams at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

#include "compute/workers.h"

enum { ITEMS = 1000 };

typedef struct tally {
    kn_workers *team;
    int64_t grain;
    int threads;
    _Atomic int seen[ITEMS];
    _Atomic int bad;
} tally;

static void count_items(void *user, int64_t begin, int64_t end)
{
    tally *t = user;
    int index = kn_workers_index();
    if (begin % t->grain || end - begin > t->grain || index < 0 || index >= t->threads) atomic_fetch_add(&t->bad, 1);
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&t->seen[i], 1);
}

static void check(const tally *t, int64_t count, int times)
{
    assert_int_equal(t->bad, 0);
    for (int64_t i = 0; i < ITEMS; i++) assert_int_equal(t->seen[i], i < count ? times : 0);
}

static void test_every_piece_once(void **state)
{
    (void)state;
    static const int64_t counts[] = {0, 1, 2, 7, 64, 999, 1000}, grains[] = {1, 3, 64, 5000};
    for (int threads = 1; threads <= 5; threads++) {
        kn_workers *workers;
        assert_int_equal(kn_workers_open(threads, &workers), KN_OK);
        for (size_t c = 0; c < 7; c++)
            for (size_t g = 0; g < 4; g++) {
                tally t = {.team = workers, .grain = grains[g], .threads = threads};
                kn_workers_run(workers, counts[c], grains[g], count_items, &t);
                check(&t, counts[c], 1);
            }
        kn_workers_close(&workers);
        assert_null(workers);
    }
}

static void test_many_short_loops(void **state)
{
    (void)state;
    enum { LOOPS = 20000 };
    kn_workers *workers;
    assert_int_equal(kn_workers_open(4, &workers), KN_OK);
    tally t = {.team = workers, .grain = 1, .threads = 4};
    for (int i = 0; i < LOOPS; i++) kn_workers_run(workers, 5, 1, count_items, &t);
    check(&t, 5, LOOPS);
    kn_workers_close(&workers);
}

static void nested(void *user, int64_t begin, int64_t end)
{
    tally *t = user;
    for (int64_t i = begin; i < end; i++) kn_workers_run(t->team, ITEMS, t->grain, count_items, t);
}

static void test_loop_inside_a_piece(void **state)
{
    (void)state;
    kn_workers *workers;
    assert_int_equal(kn_workers_open(3, &workers), KN_OK);
    tally t = {.team = workers, .grain = 10, .threads = 3};
    kn_workers_run(workers, 8, 1, nested, &t);
    check(&t, ITEMS, 8);
    kn_workers_close(&workers);
}

static void *run_workers(void *user)
{
    (void)user;
    kn_workers *workers;
    if (kn_workers_open(2, &workers) != KN_OK) return (void *)1;
    tally t = {.team = workers, .grain = 7, .threads = 2};
    for (int i = 0; i < 500; i++) kn_workers_run(workers, ITEMS, 7, count_items, &t);
    kn_workers_close(&workers);
    for (int i = 0; i < ITEMS; i++)
        if (t.seen[i] != 500) return (void *)1;
    return NULL;
}

static void test_two_teams_at_once(void **state)
{
    (void)state;
    pthread_t a, b;
    void *ra = (void *)1, *rb = (void *)1;
    assert_int_equal(pthread_create(&a, NULL, run_workers, NULL), 0);
    assert_int_equal(pthread_create(&b, NULL, run_workers, NULL), 0);
    pthread_join(a, &ra);
    pthread_join(b, &rb);
    assert_null(ra);
    assert_null(rb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_piece_once),
        cmocka_unit_test(test_many_short_loops),
        cmocka_unit_test(test_loop_inside_a_piece),
        cmocka_unit_test(test_two_teams_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
