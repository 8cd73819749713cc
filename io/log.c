#include "io/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "io/text.h"

static void sink_stderr(void *user, kn_log_level level, const char *module, const char *line)
{
    (void)user;
    static const char *const tag[] = {"error: ", "warning: ", "", "", ""};
    if (level >= KN_LOG_DEBUG)
        fprintf(stderr, "[%s] %s\n", module, line);
    else
        fprintf(stderr, "%s%s\n", tag[level], line);
}

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static kn_log_fn *sink = sink_stderr;
static void *sink_user;
static _Atomic int log_level = KN_LOG_INFO;

void kn_log_set_sink(kn_log_fn *fn, void *user)
{
    pthread_mutex_lock(&sink_lock);
    sink = fn ? fn : sink_stderr;
    sink_user = user;
    pthread_mutex_unlock(&sink_lock);
}

void kn_log_set_level(kn_log_level level) { atomic_store(&log_level, (int)level); }

kn_log_level kn_log_get_level(void) { return (kn_log_level)atomic_load(&log_level); }

void kn_log(kn_log_level level, const char *module, const char *fmt, ...)
{
    if (level > kn_log_get_level()) return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    kn_text_make_plain(line);
    pthread_mutex_lock(&sink_lock);
    sink(sink_user, level, module, line);
    pthread_mutex_unlock(&sink_lock);
}
