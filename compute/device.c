/* compute/device.c - opening devices, their memory, the arena, the measure device, parallel
 * loops. */
#define _GNU_SOURCE /* CPU_COUNT */
#include "compute/backend.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/memory.h"

/* ---- opening --------------------------------------------------------------------------------- */

static const kn_backend measure_backend;

const char *kn_dev_kind_name(kn_dev_kind kind)
{
    switch (kind) {
    case KN_DEV_REF: return "ref";
    case KN_DEV_CPU: return "cpu";
    case KN_DEV_CUDA: return "cuda";
    case KN_DEV_MEASURE: return "measure";
    }
    return "unknown";
}

static kn_status open_kind(kn_dev *d, const kn_dev_params *params)
{
    switch (params->kind) {
    case KN_DEV_REF:
        kn_ref_fill(&d->ops);
        d->backend = &kn_host_backend;
        snprintf(d->describe, sizeof d->describe, "ref, %d thread%s", d->threads,
                 d->threads == 1 ? "" : "s");
        return KN_OK;
    case KN_DEV_CPU: return kn_cpu_open(d, params);
    case KN_DEV_CUDA: return kn_cuda_open(d, params);
    case KN_DEV_MEASURE:
        if (params->measured == KN_DEV_MEASURE)
            return kn_fail(KN_ERR_ARG, "device: measure cannot measure itself");
        d->measured = params->measured;
        d->backend = &measure_backend;
        d->next_address = (uintptr_t)1 << 40;
        if (d->measured == KN_DEV_CPU) KN_TRY(kn_cpu_open_sizes(d, params));
        if (d->measured == KN_DEV_CUDA) kn_dev_count(d, KN_CUDA_OWN_BYTES);
        snprintf(d->describe, sizeof d->describe, "measure, sizes of %s",
                 kn_dev_kind_name(d->measured));
        return KN_OK;
    }
    return kn_fail(KN_ERR_ARG, "device: unknown kind %d", (int)params->kind);
}

/* Cores that this process may use, which taskset and containers can make fewer than there are. */
static int usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

kn_status kn_dev_open(const kn_dev_params *params, kn_dev **out)
{
    *out = NULL;
    if (params->threads < 0)
        return kn_fail(KN_ERR_ARG, "device: threads must be 0 or more, got %d", params->threads);
    if (params->isa_mask < 0 || params->isa_mask > 3)
        return kn_fail(KN_ERR_ARG, "device: isa_mask must be 0 to 3, got %d", params->isa_mask);
    void *memory;
    KN_TRY(kn_alloc_zero(sizeof(kn_dev), &memory));
    kn_dev *d = memory;
    d->kind = d->measured = params->kind;
    d->isa = 1;
    d->offload = params->offload;
    d->threads = params->threads ? params->threads : usable_cores();
    /* cuda and measure compute nothing on the host */
    bool host = d->kind == KN_DEV_REF || d->kind == KN_DEV_CPU;
    kn_status st = kn_workers_open(host ? d->threads : 1, &d->workers);
    if (st == KN_OK) st = open_kind(d, params);
    if (st != KN_OK) kn_dev_close(&d);
    *out = d;
    return st;
}

void kn_dev_close(kn_dev **d)
{
    if (*d == NULL) return;
    if ((*d)->backend && (*d)->backend->close) (*d)->backend->close(*d);
    kn_workers_close(&(*d)->workers);
    kn_free(*d);
    *d = NULL;
}

kn_dev_kind kn_dev_get_kind(const kn_dev *d)
{
    return d->kind;
}
kn_dev_kind kn_dev_measured(const kn_dev *d)
{
    return d->measured;
}
kn_dtype kn_dev_activation_dtype(const kn_dev *d)
{
    return d->measured == KN_DEV_CUDA ? KN_BF16 : KN_F32;
}
const char *kn_dev_describe(const kn_dev *d)
{
    return d->describe;
}
int kn_dev_threads(const kn_dev *d)
{
    return d->threads;
}
bool kn_dev_offloads(const kn_dev *d)
{
    return d->offload;
}
int kn_dev_isa(const kn_dev *d)
{
    return d->isa;
}

/* ---- memory ---------------------------------------------------------------------------------- */

void kn_dev_count(kn_dev *d, size_t bytes)
{
    d->now += bytes;
    if (d->now > d->peak) d->peak = d->now;
}

void kn_dev_uncount(kn_dev *d, size_t bytes)
{
    d->now -= bytes;
}

kn_status kn_dev_alloc(kn_dev *d, size_t bytes, void **out)
{
    KN_TRY(d->backend->alloc(d, bytes, out));
    kn_dev_count(d, bytes);
#ifndef NDEBUG
    d->backend->poison(d, *out, bytes);
#endif
    return KN_OK;
}

void kn_dev_free(kn_dev *d, void *p, size_t bytes)
{
    if (p == NULL) return;
    d->backend->release(d, p);
    kn_dev_uncount(d, bytes);
}

void kn_dev_trim(kn_dev *d)
{
    if (d->backend->trim) d->backend->trim(d);
}

void kn_dev_count_host(kn_dev *d, size_t bytes)
{
    d->host_now += bytes;
    if (d->host_now > d->host_peak) d->host_peak = d->host_now;
}

void kn_dev_uncount_host(kn_dev *d, size_t bytes)
{
    d->host_now -= bytes;
}

void kn_dev_measure_host(kn_dev *d, size_t bytes)
{
    if (d->measured == KN_DEV_CUDA)
        kn_dev_count_host(d, bytes);
    else
        kn_dev_count(d, bytes);
}

size_t kn_dev_bytes_now(const kn_dev *d)
{
    return d->now;
}
size_t kn_dev_bytes_peak(const kn_dev *d)
{
    return d->peak;
}
size_t kn_dev_host_bytes_now(const kn_dev *d)
{
    return d->host_now;
}
size_t kn_dev_host_bytes_peak(const kn_dev *d)
{
    return d->host_peak;
}
void kn_dev_reset_peak(kn_dev *d)
{
    d->peak = d->now;
    d->host_peak = d->host_now;
}

static kn_status check_transfer(const char *what, const kn_tensor *t)
{
    char text[KN_SHAPE_TEXT];
    if (!kn_tensor_contiguous(t))
        return kn_fail(KN_ERR_ARG, "%s: %s is not contiguous", what, kn_tensor_text(t, text));
    return KN_OK;
}

kn_status kn_dev_upload(kn_dev *d, const void *host, const kn_tensor *dst)
{
    KN_TRY(check_transfer("upload", dst));
    return d->backend->upload(d, host, dst->data, kn_tensor_bytes(dst));
}

kn_status kn_dev_download(kn_dev *d, const kn_tensor *src, void *host)
{
    KN_TRY(check_transfer("download", src));
    return d->backend->download(d, src->data, host, kn_tensor_bytes(src));
}

kn_status kn_dev_host_alloc(kn_dev *d, size_t bytes, void **out)
{
    return d->backend->host_alloc ? d->backend->host_alloc(d, bytes, out) : kn_alloc(bytes, out);
}

void kn_dev_host_free(kn_dev *d, void *p)
{
    if (!p) return;
    if (d->backend->host_release)
        d->backend->host_release(d, p);
    else
        kn_free(p);
}

kn_status kn_dev_download_begin(kn_dev *d, const kn_tensor *src, void *host)
{
    KN_TRY(check_transfer("download", src));
    kn_status (*begin)(kn_dev *, const void *, void *, size_t) =
        d->backend->download_begin ? d->backend->download_begin : d->backend->download;
    return begin(d, src->data, host, kn_tensor_bytes(src));
}

size_t kn_dev_memory_free(kn_dev *d)
{
    return d->backend->memory_free ? d->backend->memory_free(d) : 0;
}

kn_status kn_dev_sync(kn_dev *d)
{
    return d->backend->sync(d);
}

/* ---- measure: addresses without memory ------------------------------------------------------- */

enum { ALIGN = 256 }; /* of every arena tensor on every device, so that measured sizes hold */

static size_t align_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static kn_status measure_alloc(kn_dev *d, size_t bytes, void **out)
{
    *out = (void *)d->next_address;
    d->next_address += align_up(bytes ? bytes : 1);
    return KN_OK;
}

static void measure_release(kn_dev *d, void *p)
{
    (void)d, (void)p;
}
static void measure_poison(kn_dev *d, void *p, size_t bytes)
{
    (void)d, (void)p, (void)bytes;
}

static kn_status measure_upload(kn_dev *d, const void *host, void *dst, size_t bytes)
{
    (void)d, (void)host, (void)dst, (void)bytes;
    return KN_OK;
}

static kn_status measure_download(kn_dev *d, const void *src, void *host, size_t bytes)
{
    (void)d, (void)src;
    if (host) memset(host, 0, bytes);
    return KN_OK;
}

static kn_status measure_sync(kn_dev *d)
{
    (void)d;
    return KN_OK;
}

static kn_status measure_weight_open(kn_dev *d, const kn_tensor *host, kn_weight *w)
{
    (void)host;
    switch (d->measured) {
    case KN_DEV_CPU: KN_TRY(kn_cpu_weight_bytes(d, w, &w->bytes)); break;
    case KN_DEV_CUDA:
        w->bytes = kn_cuda_weight_bytes(w);
        if (!d->staging) kn_dev_count(d, 2 * (size_t)KN_CUDA_STAGE_BYTES);
        d->staging = true;
        break;
    default: w->bytes = kn_host_weight_bytes(w); break;
    }
    if (w->kind == KN_WEIGHT_VECTOR) w->t.dtype = KN_F32;
    return measure_alloc(d, w->bytes, &w->t.data);
}

static void measure_trim(kn_dev *d)
{
    if (d->staging) kn_dev_uncount(d, 2 * (size_t)KN_CUDA_STAGE_BYTES);
    d->staging = false;
}

static void measure_close(kn_dev *d)
{
    if (d->measured == KN_DEV_CPU) kn_cpu_close(d);
}

static void measure_weight_close(kn_dev *d, kn_weight *w)
{
    (void)d, (void)w;
}

static const kn_backend measure_backend = {
    .alloc = measure_alloc,
    .release = measure_release,
    .poison = measure_poison,
    .upload = measure_upload,
    .download = measure_download,
    .sync = measure_sync,
    .weight_open = measure_weight_open,
    .weight_close = measure_weight_close,
    .trim = measure_trim,
    .close = measure_close,
};

/* ---- arena ----------------------------------------------------------------------------------- */

struct kn_arena {
    kn_dev *dev;
    char *base;
    size_t capacity, fill, peak;
};

/* Address space that one measured arena may use. */
static const size_t MEASURE_SPAN = (size_t)1 << 44;

kn_status kn_arena_open(kn_dev *d, size_t bytes, kn_arena **out)
{
    *out = NULL;
    void *memory, *base = NULL;
    bool measure = d->kind == KN_DEV_MEASURE;
    KN_TRY(kn_alloc_zero(sizeof(kn_arena), &memory));
    kn_arena *a = memory;
    kn_status st = measure ? measure_alloc(d, MEASURE_SPAN, &base) : kn_dev_alloc(d, bytes, &base);
    if (st != KN_OK) {
        kn_free(a);
        return st;
    }
    *a = (kn_arena){.dev = d, .base = base, .capacity = measure ? MEASURE_SPAN : bytes};
    *out = a;
    return KN_OK;
}

void kn_arena_close(kn_arena **a)
{
    if (*a == NULL) return;
    kn_dev *d = (*a)->dev;
    if (d->kind == KN_DEV_MEASURE)
        kn_dev_uncount(d, (*a)->peak);
    else
        kn_dev_free(d, (*a)->base, (*a)->capacity);
    kn_free(*a);
    *a = NULL;
}

kn_status kn_arena_tensor(kn_arena *a, kn_dtype dtype, int rank, const int64_t *dims,
                          kn_tensor *out)
{
    *out = (kn_tensor){0};
    size_t bytes = kn_dtype_size(dtype);
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0 || kn_mul_size(bytes, (size_t)dims[i], &bytes) == 0)
            return kn_fail(KN_ERR_ARG, "arena: dim %d of a tensor is %lld", i, (long long)dims[i]);
    }
    size_t left = a->capacity - a->fill;
    if (bytes > left || align_up(bytes) > left) {
        char text[KN_SHAPE_TEXT];
        kn_tensor t = kn_tensor_make(NULL, dtype, rank, dims);
        return kn_fail(KN_ERR_NOMEM, "arena: %s needs %zu bytes, %zu of %zu are left",
                       kn_tensor_text(&t, text), align_up(bytes), left, a->capacity);
    }
    *out = kn_tensor_make(a->base + a->fill, dtype, rank, dims);
    a->fill += align_up(bytes);
    if (a->fill > a->peak) {
        if (a->dev->kind == KN_DEV_MEASURE) kn_dev_count(a->dev, a->fill - a->peak);
        a->peak = a->fill;
    }
#ifndef NDEBUG
    a->dev->backend->poison(a->dev, out->data, bytes);
#endif
    return KN_OK;
}

kn_arena_mark kn_arena_get_mark(const kn_arena *a)
{
    return a->fill;
}
void kn_arena_reset(kn_arena *a, kn_arena_mark mark)
{
    a->fill = mark;
}
size_t kn_arena_peak(const kn_arena *a)
{
    return a->peak;
}
kn_dev *kn_arena_dev(const kn_arena *a)
{
    return a->dev;
}

/* ---- parallel loop --------------------------------------------------------------------------- */

void kn_parallel_for(kn_dev *d, int64_t count, int64_t grain, kn_range_fn *fn, void *user)
{
    kn_workers_run(d->workers, count, grain < 1 ? 1 : grain, fn, user);
}
