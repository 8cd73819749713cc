#include "io/memory.h"

#if defined(__GLIBC__) || defined(__linux__)
#include <malloc.h>
#endif
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { ALIGN = 64 };

static _Atomic long alloc_count;
static _Atomic long fail_countdown;

int kn_mul_size(size_t a, size_t b, size_t *product)
{
    if (a && b > SIZE_MAX / a) return 0;
    *product = a * b;
    return 1;
}

static int injected_failure(void)
{
    if (atomic_load(&fail_countdown) <= 0) return 0;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

kn_status kn_alloc(size_t bytes, void **out)
{
    *out = NULL;
    atomic_fetch_add(&alloc_count, 1);
    /* Not aligned_alloc, which wants a multiple of the alignment: blocks are as long as asked for, so
     * that AddressSanitizer sees the first byte past them. 0 bytes still give a pointer. */
    /* More than PTRDIFF_MAX is nobody's to give; sanitizers end the program over it. */
    if (injected_failure() || bytes > PTRDIFF_MAX || posix_memalign(out, ALIGN, bytes ? bytes : 1) != 0) {
        *out = NULL;
        return kn_fail(KN_ERR_NOMEM, "out of memory: %zu bytes of host memory asked for", bytes);
    }
    return KN_OK;
}

kn_status kn_alloc_zero(size_t bytes, void **out)
{
    KN_TRY(kn_alloc(bytes, out));
    memset(*out, 0, bytes);
    return KN_OK;
}

kn_status kn_alloc_array(size_t count, size_t size, void **out)
{
    *out = NULL;
    size_t bytes;
    if (!kn_mul_size(count, size, &bytes))
        return kn_fail(KN_ERR_NOMEM, "out of memory: %zu elements of %zu bytes asked for", count, size);
    return kn_alloc_zero(bytes, out);
}

kn_status kn_strdup(const char *text, char **out)
{
    void *p;
    *out = NULL;
    size_t bytes = strlen(text) + 1;
    KN_TRY(kn_alloc(bytes, &p));
    memcpy(p, text, bytes);
    *out = p;
    return KN_OK;
}

kn_status kn_asprintf(char **out, const char *fmt, ...)
{
    *out = NULL;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    void *p = NULL;
    kn_status st = n < 0 ? kn_fail(KN_ERR_INTERNAL, "vsnprintf failed on '%s'", fmt)
                         : kn_alloc((size_t)n + 1, &p);
    if (st == KN_OK) vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    *out = p;
    return st;
}

void kn_free(void *p) { free(p); }

void kn_memory_fail_at(long k) { atomic_store(&fail_countdown, k); }

long kn_memory_count(void) { return atomic_load(&alloc_count); }

void kn_memory_trim(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

/* A number of /proc/self/statm, which counts pages: size, resident, ... */
static size_t statm(int index)
{
    char line[128] = "", *end = line;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (!fgets(line, sizeof line, f)) *line = '\0';
    fclose(f);
    size_t pages = 0;
    for (int i = 0; i <= index; i++) pages = (size_t)strtoull(end, &end, 10);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

size_t kn_memory_resident(void)
{
    return statm(1);
}

size_t kn_memory_address_left(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    size_t used = statm(0);
    return used < limit.rlim_cur ? (size_t)limit.rlim_cur - used : 0;
}
