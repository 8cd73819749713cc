/* compute/cuda_device.c - opening a CUDA device; its memory, transfers and weights. */
#include "compute/cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "io/memory.h"

enum { MIN_SM = 80, LISTS = 16 };

kn_status kn_cuda_fail(cudaError_t e, const char *what, const char *file, int line)
{
    cudaGetLastError(); /* forget it: the next call reports its own */
    kn_status st = e == cudaErrorMemoryAllocation ? KN_ERR_NOMEM : KN_ERR_DEVICE;
    return kn_fail_at(st, file, line, "cuda: %s: %s: %s", what, cudaGetErrorName(e),
                      cudaGetErrorString(e));
}

/* ---- libraries ---------------------------------------------------------------------------------*/
kn_status kn_cuda_library(const char *what, const char *const *names, void **handle)
{
    for (int i = 0; names[i]; i++)
        if ((*handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL))) return KN_OK;
    const char *why = dlerror();
    return kn_fail(KN_ERR_UNSUPPORTED, "%s: expected the shared library %s, found none: %s", what,
                   names[0], why ? why : "no reason given");
}

kn_status kn_cuda_symbol(void *handle, const char *what, const char *name, void **fn)
{
    if ((*fn = dlsym(handle, name))) return KN_OK;
    return kn_fail(KN_ERR_UNSUPPORTED, "%s: the library has no function %s; it is too old", what,
                   name);
}

/* ---- memory ------------------------------------------------------------------------------------*/
static kn_status cuda_alloc(kn_dev *d, size_t bytes, void **out)
{
    cudaError_t e = cudaMalloc(out, bytes ? bytes : 1);
    if (e == cudaSuccess) return KN_OK;
    cudaGetLastError();
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    if (e != cudaErrorMemoryAllocation) return kn_cuda_fail(e, "cudaMalloc", __FILE__, __LINE__);
    return kn_fail(KN_ERR_NOMEM,
                   "cuda: %zu bytes of device memory were asked for; %zu of %zu are free, this "
                   "program holds %zu",
                   bytes, free_bytes, total, d->now);
}

/* Work that uses the memory may still be queued. */
static void cuda_release(kn_dev *d, void *p)
{
    d->moves++;
    cudaStreamSynchronize(kn_cuda_of(d)->stream);
    cudaFree(p);
}

static void cuda_poison(kn_dev *d, void *p, size_t bytes)
{
    cudaMemsetAsync(p, 0xff, bytes, kn_cuda_of(d)->stream);
}

/* A few values inside a forward must not wait for the work queued before them: the host's memory
 * is copied to a pinned place, from where they travel in the stream's order. */
static kn_status send_letter(kn_cuda *c, const void *host, void *dst, size_t bytes)
{
    int i = c->letter;
    char *place = (char *)c->letters + (size_t)i * KN_CUDA_LETTER_BYTES;
    c->letter = (i + 1) % KN_CUDA_LETTERS;
    KN_CUDA_TRY(cudaEventSynchronize(c->letter_sent[i])); /* the one before in this place */
    memcpy(place, host, bytes);
    KN_CUDA_TRY(cudaMemcpyAsync(dst, place, bytes, cudaMemcpyHostToDevice, c->stream));
    KN_CUDA_TRY(cudaEventRecord(c->letter_sent[i], c->stream));
    return KN_OK;
}

static kn_status cuda_upload(kn_dev *d, const void *host, void *dst, size_t bytes)
{
    kn_cuda *c = kn_cuda_of(d);
    if (!bytes) return KN_OK;
    KN_TRY(kn_cuda_only_once(d, "upload"));
    if (bytes <= KN_CUDA_LETTER_BYTES) return send_letter(c, host, dst, bytes);
    KN_CUDA_TRY(cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, c->stream));
    KN_CUDA_TRY(cudaStreamSynchronize(c->stream));
    return KN_OK;
}

static kn_status cuda_download(kn_dev *d, const void *src, void *host, size_t bytes)
{
    kn_cuda *c = kn_cuda_of(d);
    if (!bytes) return KN_OK;
    KN_TRY(kn_cuda_only_once(d, "download"));
    KN_CUDA_TRY(cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, c->stream));
    KN_CUDA_TRY(cudaStreamSynchronize(c->stream));
    return KN_OK;
}

static void cuda_host_release(kn_dev *d, void *p)
{
    kn_cuda *c = kn_cuda_of(d);
    cudaStreamSynchronize(c->stream); /* a transfer may still be under way */
    if (c->copies) cudaStreamSynchronize(c->copies);
    kn_cuda_locked_close(d, p);
}

static kn_status cuda_download_begin(kn_dev *d, const void *src, void *host, size_t bytes)
{
    KN_TRY(kn_cuda_only_once(d, "download"));
    if (bytes)
        KN_CUDA_TRY(cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost,
                                    kn_cuda_of(d)->stream));
    return KN_OK;
}

/* ---- ferries: copies beside the work -----------------------------------------------------------*/
static void close_copies(kn_cuda *c)
{
    if (c->copies) cudaStreamDestroy(c->copies);
    if (c->queued) cudaEventDestroy(c->queued);
    c->copies = NULL;
    c->queued = NULL;
    for (int i = 0; i < KN_TICKETS; i++) {
        if (c->ticket[i]) cudaEventDestroy(c->ticket[i]);
        c->ticket[i] = NULL;
    }
}

static kn_status make_copies(kn_cuda *c)
{
    KN_CUDA_TRY(cudaEventCreateWithFlags(&c->queued, cudaEventDisableTiming));
    for (int i = 0; i < KN_TICKETS; i++)
        KN_CUDA_TRY(cudaEventCreateWithFlags(&c->ticket[i], cudaEventDisableTiming));
    KN_CUDA_TRY(cudaStreamCreateWithFlags(&c->copies, cudaStreamNonBlocking));
    return KN_OK;
}

/* All or nothing: a batch goes on with the device after a job that failed. */
static kn_status open_copies(kn_cuda *c)
{
    if (c->copies) return KN_OK;
    kn_status st = make_copies(c);
    if (st != KN_OK) close_copies(c);
    return st;
}

static kn_status cuda_copy_begin(kn_dev *d, void *dst, const void *src, size_t bytes, bool to_host,
                                 int ticket)
{
    kn_cuda *c = kn_cuda_of(d);
    KN_TRY(kn_cuda_only_once(d, "ferry"));
    KN_TRY(open_copies(c));
    KN_CUDA_TRY(cudaEventRecord(c->queued, c->stream));
    KN_CUDA_TRY(cudaStreamWaitEvent(c->copies, c->queued, 0));
    KN_CUDA_TRY(cudaMemcpyAsync(dst, src, bytes,
                                to_host ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice,
                                c->copies));
    KN_CUDA_TRY(cudaEventRecord(c->ticket[ticket], c->copies));
    return KN_OK;
}

static kn_status cuda_copy_wait(kn_dev *d, int ticket)
{
    kn_cuda *c = kn_cuda_of(d);
    KN_TRY(kn_cuda_only_once(d, "ferry"));
    if (c->copies) KN_CUDA_TRY(cudaStreamWaitEvent(c->stream, c->ticket[ticket], 0));
    return KN_OK;
}

static size_t cuda_memory_free(kn_dev *d)
{
    (void)d;
    size_t free_bytes = 0, total = 0;
    if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) cudaGetLastError();
    return free_bytes;
}

static kn_status cuda_sync(kn_dev *d)
{
    KN_CUDA_TRY(cudaStreamSynchronize(kn_cuda_of(d)->stream));
    KN_CUDA_TRY(cudaGetLastError());
    return KN_OK;
}

/* ---- index lists that stay on the device -------------------------------------------------------*/
typedef struct sent_list {
    int64_t count;
    uint64_t hash;
    int32_t *device;
    uint64_t used;
} sent_list;

struct kn_cuda_lists {
    sent_list list[LISTS];
    uint64_t clock;
};

/* FNV-1a over words: the caller may have refilled the memory at the same address, and another may have a
 * copy (two tables of positions have the token order each). */
static uint64_t hash_of(const int32_t *v, int64_t count)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < count; i++) h = (h ^ (uint32_t)v[i]) * 0x100000001b3u;
    return h;
}

kn_status kn_cuda_list(kn_dev *d, const int32_t *host, int64_t count, const int32_t **device)
{
    kn_cuda *c = kn_cuda_of(d);
    if (!c->lists) {
        void *p;
        KN_TRY(kn_alloc_zero(sizeof *c->lists, &p));
        c->lists = p;
    }
    uint64_t hash = hash_of(host, count);
    sent_list *oldest = &c->lists->list[0];
    for (int i = 0; i < LISTS; i++) {
        sent_list *l = &c->lists->list[i];
        if (l->device && l->count == count && l->hash == hash) {
            l->used = ++c->lists->clock;
            *device = l->device;
            return KN_OK;
        }
        if (l->used < oldest->used) oldest = l;
    }
    void *p;
    kn_dev_free(d, oldest->device, (size_t)oldest->count * sizeof *host);
    *oldest = (sent_list){0};
    KN_TRY(kn_dev_alloc(d, (size_t)count * sizeof *host, &p));
    kn_status st = cuda_upload(d, host, p, (size_t)count * sizeof *host);
    if (st != KN_OK) {
        kn_dev_free(d, p, (size_t)count * sizeof *host);
        return st;
    }
    *oldest = (sent_list){count, hash, p, ++c->lists->clock};
    *device = p;
    return KN_OK;
}

void kn_cuda_lists_close(kn_dev *d)
{
    kn_cuda *c = kn_cuda_of(d);
    if (!c->lists) return;
    for (int i = 0; i < LISTS; i++)
        kn_dev_free(d, c->lists->list[i].device, (size_t)c->lists->list[i].count * sizeof(int32_t));
    kn_free(c->lists);
    c->lists = NULL;
}

/* ---- weights: file pages to pinned memory to the device, converted there ----------------------- */
/* Two buffers in turn: one is filled by the host while the other travels. */
static kn_status make_stage(kn_dev *d)
{
    kn_cuda *c = kn_cuda_of(d);
    for (int i = 0; i < 2; i++) {
        KN_TRY(kn_cuda_locked_open(d, KN_CUDA_STAGE_BYTES, &c->pinned[i]));
        KN_CUDA_TRY(cudaMalloc(&c->staged[i], KN_CUDA_STAGE_BYTES));
        kn_dev_count(d, KN_CUDA_STAGE_BYTES);
        KN_CUDA_TRY(cudaEventCreateWithFlags(&c->staged_done[i], cudaEventDisableTiming));
    }
    return KN_OK;
}

static void close_stage(kn_dev *d)
{
    kn_cuda *c = kn_cuda_of(d);
    if (c->stream) cudaStreamSynchronize(c->stream);
    for (int i = 0; i < 2; i++) {
        if (c->staged_done[i]) cudaEventDestroy(c->staged_done[i]);
        if (c->pinned[i]) kn_cuda_locked_close(d, c->pinned[i]);
        if (c->staged[i]) {
            cudaFree(c->staged[i]);
            kn_dev_uncount(d, KN_CUDA_STAGE_BYTES);
        }
        c->staged_done[i] = NULL;
        c->pinned[i] = c->staged[i] = NULL;
    }
}

static kn_status open_stage(kn_dev *d)
{
    if (kn_cuda_of(d)->staged_done[1]) return KN_OK;
    kn_status st = make_stage(d);
    if (st != KN_OK) close_stage(d);
    return st;
}

/* The next piece of a weight, on its way to the device; *staged is where it will be. */
static kn_status stage_piece(kn_dev *d, const void *src, size_t bytes, void **staged)
{
    kn_cuda *c = kn_cuda_of(d);
    int i = c->stage;
    KN_CUDA_TRY(cudaEventSynchronize(c->staged_done[i]));
    KN_TRY(kn_cuda_fill(d, c->pinned[i], src, bytes));
    KN_CUDA_TRY(
        cudaMemcpyAsync(c->staged[i], c->pinned[i], bytes, cudaMemcpyHostToDevice, c->stream));
    *staged = c->staged[i];
    return KN_OK;
}

static kn_status stage_used(kn_cuda *c)
{
    KN_CUDA_TRY(cudaEventRecord(c->staged_done[c->stage], c->stream));
    c->stage ^= 1;
    return KN_OK;
}

static kn_status send_converted(kn_dev *d, const kn_tensor *host, void *dst, kn_dtype to)
{
    kn_cuda *c = kn_cuda_of(d);
    size_t from_size = kn_dtype_size(host->dtype), to_size = kn_dtype_size(to);
    int64_t count = kn_tensor_count(host), piece = KN_CUDA_STAGE_BYTES / (int64_t)from_size;
    for (int64_t i = 0; i < count; i += piece) {
        int64_t n = count - i < piece ? count - i : piece;
        void *staged = NULL;
        KN_TRY(stage_piece(d, (const char *)host->data + (size_t)i * from_size,
                           (size_t)n * from_size, &staged));
        KN_TRY(kn_cuda_convert(d, staged, host->dtype, (char *)dst + (size_t)i * to_size, to, n));
        KN_TRY(stage_used(c));
    }
    return KN_OK;
}

/* Whole output channels at a time. */
static kn_status send_conv(kn_dev *d, const kn_tensor *host, void *dst)
{
    kn_cuda *c = kn_cuda_of(d);
    int64_t co = host->dim[0], ci = host->dim[1], taps = kn_tensor_count(host) / (co * ci);
    size_t row_bytes = (size_t)(ci * taps) * kn_dtype_size(host->dtype);
    int64_t piece = (int64_t)(KN_CUDA_STAGE_BYTES / row_bytes);
    if (piece < 1)
        return kn_fail(KN_ERR_UNSUPPORTED, "cuda: a convolution with %zu bytes per channel",
                       row_bytes);
    for (int64_t i = 0; i < co; i += piece) {
        int64_t n = co - i < piece ? co - i : piece;
        void *staged = NULL;
        KN_TRY(stage_piece(d, (const char *)host->data + (size_t)i * row_bytes,
                           (size_t)n * row_bytes, &staged));
        KN_TRY(kn_cuda_convert_conv(d, staged, host->dtype, (uint16_t *)dst + i * ci * taps, n, ci,
                                    taps));
        KN_TRY(stage_used(c));
    }
    return KN_OK;
}

static kn_dtype kept_as(kn_weight_kind kind, kn_dtype stored)
{
    return kind == KN_WEIGHT_VECTOR ? KN_F32 : kind == KN_WEIGHT_TABLE ? stored : KN_BF16;
}

static kn_status cuda_weight_open(kn_dev *d, const kn_tensor *host, kn_weight *w)
{
    kn_status st = KN_OK;
    size_t bytes = kn_cuda_weight_bytes(w);
    KN_TRY(open_stage(d));
    KN_TRY(cuda_alloc(d, bytes, &w->t.data));
    if (w->kind == KN_WEIGHT_CONV)
        st = send_conv(d, host, w->t.data);
    else
        st = send_converted(d, host, w->t.data, kept_as(w->kind, host->dtype));
    if (st != KN_OK) {
        cuda_release(d, w->t.data);
        w->t.data = NULL;
        return st;
    }
    w->t.dtype = kept_as(w->kind, host->dtype);
    w->bytes = bytes;
    return KN_OK;
}

static void cuda_weight_close(kn_dev *d, kn_weight *w)
{
    cuda_release(d, w->t.data);
}

/* ---- opening -----------------------------------------------------------------------------------*/
static void cuda_close(kn_dev *d)
{
    kn_cuda *c = kn_cuda_of(d);
    if (!c) return;
    if (c->stream) cudaStreamSynchronize(c->stream);
    kn_cuda_lists_close(d);
    if (c->attention_close) c->attention_close(d);
    kn_blaslt_close(&c->blaslt);
    kn_cudnn_close(&c->cudnn);
    close_stage(d);
    kn_cuda_helpers_close(d);
    for (int i = 0; i < KN_CUDA_LETTERS; i++)
        if (c->letter_sent[i]) cudaEventDestroy(c->letter_sent[i]);
    close_copies(c);
    if (c->letters) cudaFreeHost(c->letters);
    if (c->workspace) cudaFree(c->workspace);
    if (c->scalars) cudaFree(c->scalars);
    if (c->stream) cudaStreamDestroy(c->stream);
    kn_free(c);
    d->impl = NULL;
}

static const kn_backend cuda_backend = {
    .alloc = cuda_alloc,
    .release = cuda_release,
    .poison = cuda_poison,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_sync,
    .host_alloc = kn_cuda_locked_open,
    .host_release = cuda_host_release,
    .copy_begin = cuda_copy_begin,
    .copy_wait = cuda_copy_wait,
    .download_begin = cuda_download_begin,
    .record_begin = kn_cuda_record_begin,
    .record_end = kn_cuda_record_end,
    .replay = kn_cuda_replay,
    .record_close = kn_cuda_record_close,
    .memory_free = cuda_memory_free,
    .weight_open = cuda_weight_open,
    .weight_close = cuda_weight_close,
    .trim = close_stage,
    .close = cuda_close,
};

/* What keeps this machine from computing on a GPU, in words. */
static kn_status find_device(const kn_dev_params *params, struct cudaDeviceProp *prop)
{
    int count = 0, driver = 0, runtime = 0;
    cudaError_t e = cudaGetDeviceCount(&count), asked = cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (asked == cudaSuccess && driver == 0)
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "device cuda: no NVIDIA driver on this machine (libcuda.so.1 not found)");
    if (e == cudaErrorInsufficientDriver)
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "device cuda: the driver is for CUDA %d.%d; this build needs one for %d.%d "
                       "or newer",
                       driver / 1000, driver % 1000 / 10, runtime / 1000, 0);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && count == 0))
        return kn_fail(KN_ERR_UNSUPPORTED, "device cuda: the driver shows no GPU");
    if (e != cudaSuccess) return kn_cuda_fail(e, "cudaGetDeviceCount", __FILE__, __LINE__);
    if (asked != cudaSuccess)
        return kn_cuda_fail(asked, "cudaDriverGetVersion", __FILE__, __LINE__);
    if (params->ordinal < 0 || params->ordinal >= count)
        return kn_fail(KN_ERR_ARG, "device cuda: expected a number from 0 to %d, found %d",
                       count - 1, params->ordinal);
    KN_CUDA_TRY(cudaGetDeviceProperties(prop, params->ordinal));
    if (prop->major * 10 + prop->minor < MIN_SM)
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "device cuda: %s has compute capability %d.%d; %d.%d or newer is needed",
                       prop->name, prop->major, prop->minor, MIN_SM / 10, MIN_SM % 10);
    return KN_OK;
}

kn_status kn_cuda_open(kn_dev *d, const kn_dev_params *params)
{
    struct cudaDeviceProp prop = {0};
    KN_TRY(find_device(params, &prop));
    void *p;
    KN_TRY(kn_alloc_zero(sizeof(kn_cuda), &p));
    kn_cuda *c = p;
    d->impl = c;
    d->backend = &cuda_backend; /* from here on close frees what is there */
    c->ordinal = params->ordinal;
    c->sm = prop.major * 10 + prop.minor;
    c->sm_count = prop.multiProcessorCount;
    c->l2_bytes = (size_t)prop.l2CacheSize;
    c->total_bytes = prop.totalGlobalMem;
    c->workspace_bytes = KN_CUDA_WORKSPACE_BYTES;
    KN_CUDA_TRY(cudaSetDevice(c->ordinal));
    KN_CUDA_TRY(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    /* behind the workspace: a convolution's bias in bf16, cuda_conv.c */
    cudaError_t e = cudaMalloc(&c->workspace, c->workspace_bytes + KN_CUDA_BIAS_BYTES);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* forget it */
        return kn_fail(KN_ERR_NOMEM,
                       "device cuda: %s has no room for the %d MiB that every run takes; another "
                       "program holds its memory",
                       prop.name, (int)(KN_CUDA_OWN_BYTES >> 20));
    }
    KN_CUDA_TRY(e);
    KN_CUDA_TRY(cudaMalloc(&c->scalars, KN_CUDA_SCALARS_BYTES));
    kn_dev_count(d, KN_CUDA_OWN_BYTES);
    KN_CUDA_TRY(cudaMallocHost(&c->letters, KN_CUDA_LETTERS * KN_CUDA_LETTER_BYTES));
    for (int i = 0; i < KN_CUDA_LETTERS; i++)
        KN_CUDA_TRY(cudaEventCreateWithFlags(&c->letter_sent[i], cudaEventDisableTiming));
    kn_cuda_fill_rows(&d->ops);
    kn_cuda_fill_layout(&d->ops);
    d->ops.linear = kn_cuda_linear;
    d->ops.conv = kn_cuda_conv;
    d->ops.quantize = kn_cuda_quantize;
    d->ops.dequantize = kn_cuda_dequantize;
    if (c->sm >= 90) d->ops.linear_f8 = kn_cuda_linear_f8;
    snprintf(d->describe, sizeof d->describe, "cuda %d, %.80s, %zu GiB, compute capability %d.%d",
             c->ordinal, prop.name, prop.totalGlobalMem >> 30, prop.major, prop.minor);
    return KN_OK;
}
