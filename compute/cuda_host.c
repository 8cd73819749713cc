/* compute/cuda_host.c - page-locked host memory, and the threads that clear and fill it.
 *
 * cudaMallocHost has the driver clear pages of 4 KiB on one thread: 14.7 GiB took 9.7 s on a machine with an
 * H100. Cleared by 16 threads, in pages of 2 MiB where the system has them, and locked afterwards they took
 * 0.75 s, given back 0.3 s in place of 1.9; transfers are as fast.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MADV_HUGEPAGE */
#include "compute/cuda.h"

#include <string.h>
#include <sys/mman.h>

#include "compute/workers.h"
#include "io/memory.h"

/* MOST_HELPERS: more gain nothing once memory is the slower side. LARGE: a page of 2 MiB, the least that is worth
 * a mapping of its own. PART: what a thread clears or copies at a time; parts are taken in order, so that a file
 * is read from front to back. */
enum { MOST_HELPERS = 16, LARGE = 2 << 20, PAGE = 4096, PART = 1 << 20 };

struct kn_cuda_mapping {
    kn_cuda_mapping *next;
    void *p;
    size_t bytes;
};

static kn_status open_helpers(kn_dev *d)
{
    kn_cuda *c = kn_cuda_of(d);
    if (c->helpers) return KN_OK;
    return kn_workers_open(d->threads < MOST_HELPERS ? d->threads : MOST_HELPERS, &c->helpers);
}

void kn_cuda_helpers_close(kn_dev *d)
{
    kn_workers_close(&kn_cuda_of(d)->helpers);
}

/* ---- page-locked memory ------------------------------------------------------------------------*/
static void clear_part(void *user, int64_t begin, int64_t end)
{
    volatile char *p = user;
    for (int64_t i = begin; i < end; i += PAGE) p[i] = 0; /* the system clears a page that is written to */
}

/* NULL: the system or the driver refuses (user pages cannot be locked everywhere). */
static void *map_and_lock(const kn_cuda *c, size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    (void)madvise(p, bytes, MADV_HUGEPAGE); /* where it is refused, pages of 4 KiB do */
    kn_workers_run(c->helpers, (int64_t)bytes, PART, clear_part, p);
    if (cudaHostRegister(p, bytes, cudaHostRegisterDefault) == cudaSuccess) return p;
    cudaGetLastError();
    munmap(p, bytes);
    return NULL;
}

/* *out NULL: refused. */
static kn_status open_mapping(kn_dev *d, size_t bytes, void **out)
{
    kn_cuda *c = kn_cuda_of(d);
    void *memory;
    *out = NULL;
    KN_TRY(open_helpers(d));
    KN_TRY(kn_alloc_zero(sizeof(kn_cuda_mapping), &memory));
    *out = map_and_lock(c, bytes);
    if (!*out) {
        kn_free(memory);
        return KN_OK;
    }
    kn_cuda_mapping *m = memory;
    *m = (kn_cuda_mapping){c->mappings, *out, bytes};
    c->mappings = m;
    return KN_OK;
}

kn_status kn_cuda_locked_open(kn_dev *d, size_t bytes, void **out)
{
    if (bytes >= LARGE) {
        KN_TRY(open_mapping(d, bytes, out));
        if (*out) return KN_OK;
    }
    cudaError_t e = cudaMallocHost(out, bytes ? bytes : 1);
    if (e == cudaSuccess) return KN_OK;
    cudaGetLastError();
    *out = NULL;
    return kn_fail(KN_ERR_NOMEM, "cuda: %zu bytes of page-locked host memory: %s", bytes, cudaGetErrorString(e));
}

void kn_cuda_locked_close(kn_dev *d, void *p)
{
    kn_cuda_mapping **at = &kn_cuda_of(d)->mappings;
    while (*at && (*at)->p != p) at = &(*at)->next;
    kn_cuda_mapping *m = *at;
    if (!m) {
        cudaFreeHost(p);
        return;
    }
    *at = m->next;
    cudaHostUnregister(p);
    munmap(p, m->bytes);
    kn_free(m);
}

/* ---- filling it --------------------------------------------------------------------------------*/
typedef struct copy {
    char *to;
    const char *from;
} copy;

static void copy_part(void *user, int64_t begin, int64_t end)
{
    const copy *c = user;
    memcpy(c->to + begin, c->from + begin, (size_t)(end - begin));
}

kn_status kn_cuda_fill(kn_dev *d, void *to, const void *from, size_t bytes)
{
    copy c = {to, from};
    KN_TRY(open_helpers(d));
    kn_workers_run(kn_cuda_of(d)->helpers, (int64_t)bytes, PART, copy_part, &c);
    return KN_OK;
}
