#include "tests/expect.h"

#include <pthread.h>

#include "io/log.h"

typedef struct heard {
    int lines;
    kn_log_level level;
    char module[32], line[2000];
} heard;

static void listen(void *user, kn_log_level level, const char *module, const char *line)
{
    heard *h = user;
    h->lines++;
    h->level = level;
    snprintf(h->module, sizeof h->module, "%s", module);
    snprintf(h->line, sizeof h->line, "%s", line);
}

static void the_sink_gets_whole_lines(void **state)
{
    (void)state;
    heard h = {0};
    kn_log_set_sink(listen, &h);
    kn_log(KN_LOG_WARN, "vae", "tile %d of %d", 1, 4);
    assert_int_equal(h.lines, 1);
    assert_int_equal(h.level, KN_LOG_WARN);
    assert_string_equal(h.module, "vae");
    assert_string_equal(h.line, "tile 1 of 4");
    kn_log_set_sink(NULL, NULL);
    kn_log(KN_LOG_DEBUG, "vae", "below the default level");
    assert_int_equal(h.lines, 1);
}

static void levels_above_the_limit_are_dropped(void **state)
{
    (void)state;
    heard h = {0};
    kn_log_set_sink(listen, &h);
    assert_int_equal(kn_log_get_level(), KN_LOG_INFO);
    for (int limit = KN_LOG_ERR; limit <= KN_LOG_TRACE; limit++) {
        h.lines = 0;
        kn_log_set_level((kn_log_level)limit);
        for (int level = KN_LOG_ERR; level <= KN_LOG_TRACE; level++)
            kn_log((kn_log_level)level, "m", "line");
        assert_int_equal(h.lines, limit + 1);
    }
    kn_log_set_level(KN_LOG_INFO);
    kn_log_set_sink(NULL, NULL);
}

static void *talk(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++) kn_log(KN_LOG_INFO, "m", "%s", "same line");
    return NULL;
}

static void threads_do_not_mix_lines(void **state)
{
    (void)state;
    heard h = {0};
    pthread_t t[4];
    kn_log_set_sink(listen, &h);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, talk, NULL), 0);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_join(t[i], NULL), 0);
    kn_log_set_sink(NULL, NULL);
    /* h.lines is not atomic: 4000 shows that the sink ran under a lock. */
    assert_int_equal(h.lines, 4000);
    assert_string_equal(h.line, "same line");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sink_gets_whole_lines),
        cmocka_unit_test(levels_above_the_limit_are_dropped),
        cmocka_unit_test(threads_do_not_mix_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
