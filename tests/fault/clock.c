/* A clock that jumps, for LD_PRELOAD: every call of the wall clock moves a day to and fro, the steady clock
 * an hour ahead now and then (a machine that slept). Built as the module fault_clock; see tools/faults.sh. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>

static atomic_long calls;

int clock_gettime(clockid_t id, struct timespec *t)
{
    static __typeof__(&clock_gettime) next;
    static atomic_long ahead;
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "clock_gettime");
    int got = next(id, t);
    long n = atomic_fetch_add(&calls, 1);
    if (id == CLOCK_REALTIME) t->tv_sec += (n % 3 - 1) * 86400;
    if (id == CLOCK_MONOTONIC) t->tv_sec += n % 50 == 49 ? atomic_fetch_add(&ahead, 3600) + 3600 : atomic_load(&ahead);
    return got;
}

time_t time(time_t *out)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    *out = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
    return 0;
}
