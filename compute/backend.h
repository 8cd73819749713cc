/* compute/backend.h - what a backend gives and gets: for the files of compute/ and for executors of
 * attention/ only. Networks include ops.h.
 *
 * Purpose   kn_dev is opened by device.c, which fills in one kn_backend (memory, weights) and one
 *           kn_ops (operations). The front ends in ops.c check arguments, so that backends may
 *           assume: dtypes allowed on the device, matching shapes, dense last axes, no partial
 *           overlap, non-NULL data. Absent optional tensors arrive as NULL.
 * Threads   Host backends run their loops through kn_parallel_for.
 */
#ifndef KN_COMPUTE_BACKEND_H
#define KN_COMPUTE_BACKEND_H

#include "compute/ops.h"
#include "compute/workers.h"

enum { KN_TICKETS = 16 };

typedef struct kn_backend {
    kn_status (*alloc)(kn_dev *d, size_t bytes, void **out);
    void (*release)(kn_dev *d, void *p);
    /* Fill with bytes 0xFF, which is NaN in every float dtype; used by debug builds. */
    void (*poison)(kn_dev *d, void *p, size_t bytes);
    kn_status (*upload)(kn_dev *d, const void *host, void *dst, size_t bytes);
    kn_status (*download)(kn_dev *d, const void *src, void *host, size_t bytes);
    kn_status (*sync)(kn_dev *d);
    /* Absent on devices in host memory. */
    kn_status (*host_alloc)(kn_dev *d, size_t bytes, void **out);
    void (*host_release)(kn_dev *d, void *p);
    kn_status (*download_begin)(kn_dev *d, const void *src, void *host, size_t bytes);
    size_t (*memory_free)(kn_dev *d);
    /* Of ferries (offload.c): a copy between device and page-locked memory that starts when all work
     * queued so far is done and runs beside what is queued after it; `ticket` (0 .. KN_TICKETS - 1)
     * names it. wait: work queued from now on comes after the ticket's copy. Absent: at once. */
    kn_status (*copy_begin)(kn_dev *d, void *dst, const void *src, size_t bytes, bool to_host,
                            int ticket);
    kn_status (*copy_wait)(kn_dev *d, int ticket);
    /* Of recordings (record.c); absent where work is done at once. Between begin and end work is kept
     * instead of queued. end: after a failure too; *work NULL unless it succeeds. */
    kn_status (*record_begin)(kn_dev *d);
    kn_status (*record_end)(kn_dev *d, void **work);
    kn_status (*replay)(kn_dev *d, void *work);
    void (*record_close)(kn_dev *d, void *work);
    /* On entry w->kind is set, w->t has the logical shape and the stored dtype, no data. Sets what
     * the backend needs and w->bytes; on failure nothing is held. host is contiguous. */
    kn_status (*weight_open)(kn_dev *d, const kn_tensor *host, kn_weight *w);
    void (*weight_close)(kn_dev *d, kn_weight *w);
    void (*trim)(kn_dev *d); /* may be absent */
    void (*close)(kn_dev *d); /* frees d->impl */
} kn_backend;

struct kn_dev {
    kn_dev_kind kind;
    kn_dev_kind measured; /* equals kind unless kind is KN_DEV_MEASURE */
    int threads;
    int isa; /* 1 base, 2 AVX2, 3 AVX-512 */
    bool offload;
    kn_ops ops;
    kn_workers *workers; /* of kn_parallel_for */
    const kn_backend *backend;
    void *impl;             /* backend's own state */
    size_t now, peak;       /* bytes held, most ever held */
    size_t host_now, host_peak; /* page-locked host bytes behind ferries */
    unsigned tickets;       /* bit: taken by a ferry */
    uint64_t moves;         /* how often memory that recorded work may use was freed or refilled */
    uintptr_t next_address; /* measure: next unbacked address */
    bool staging;           /* measure: the buffers of the first weight are counted */
    char describe[160];
};

/* Backends. Each sets ops, backend, impl, describe. */
void kn_ref_fill(kn_ops *ops);
extern const kn_backend kn_host_backend; /* memory and weights of ref, host.c */
kn_status kn_cpu_open(kn_dev *d, const kn_dev_params *params);
/* What a measure device needs of the cpu to know its sizes. */
kn_status kn_cpu_open_sizes(kn_dev *d, const kn_dev_params *params);
void kn_cpu_close(kn_dev *d);
kn_status kn_cuda_open(kn_dev *d, const kn_dev_params *params);

/* norm_rope and gate_norm as the two operations that each of them joins (host.c): what ref means by
 * them, and what backends run where joining saves nothing. */
kn_norm_rope_fn kn_norm_then_rope;
kn_gate_norm_fn kn_gate_then_norm;

/* Of ref and cpu, host_quantize.c; the last of ref alone. */
kn_quantize_fn kn_host_quantize;
kn_dequantize_fn kn_host_dequantize;
kn_linear_f8_fn kn_ref_linear_f8;

/* Device bytes that weight_open would hold on a kind; what the measure device counts. */
size_t kn_host_weight_bytes(const kn_weight *w);
kn_status kn_cpu_weight_bytes(const kn_dev *d, const kn_weight *w, size_t *bytes);
size_t kn_cuda_weight_bytes(const kn_weight *w);

/* The parts of kn_host_backend, for host backends with packed weights. */
kn_status kn_host_alloc(kn_dev *d, size_t bytes, void **out);
void kn_host_release(kn_dev *d, void *p);
void kn_host_poison(kn_dev *d, void *p, size_t bytes);
kn_status kn_host_upload(kn_dev *d, const void *host, void *dst, size_t bytes);
kn_status kn_host_download(kn_dev *d, const void *src, void *host, size_t bytes);
kn_status kn_host_sync(kn_dev *d);
kn_status kn_host_weight_open(kn_dev *d, const kn_tensor *host, kn_weight *w);
void kn_host_weight_close(kn_dev *d, kn_weight *w);

/* Account device bytes that were not taken by kn_dev_alloc (packed weights), and give them back. */
void kn_dev_count(kn_dev *d, size_t bytes);
void kn_dev_uncount(kn_dev *d, size_t bytes);
/* The same of host memory that stands in for the device's. */
void kn_dev_count_host(kn_dev *d, size_t bytes);
void kn_dev_uncount_host(kn_dev *d, size_t bytes);

/* What an open cuda device holds of its own; counted by it and by a measure device of its kind. */
enum {
    KN_CUDA_WORKSPACE_BYTES = 64 << 20, /* of cuBLASLt and cuDNN, used in stream order */
    KN_CUDA_BIAS_BYTES = 128 << 10,     /* behind it: a bias in bf16 */
    KN_CUDA_SCALARS_BYTES = 4 << 10,
    KN_CUDA_STAGE_BYTES = 32 << 20, /* each of two, from the first weight on */
    KN_CUDA_OWN_BYTES = KN_CUDA_WORKSPACE_BYTES + KN_CUDA_BIAS_BYTES + KN_CUDA_SCALARS_BYTES
};

/* ---- rows -------------------------------------------------------------------------------------
 * A tensor with a dense last axis, seen as `count` rows of `width` elements. Outer axes that lie
 * evenly are merged, so that most tensors have one axis here.
 */
typedef struct kn_rows {
    char *data;
    int64_t count, width;
    int axes;                                     /* merged outer axes, at least 1 */
    int64_t dim[KN_MAX_RANK], pitch[KN_MAX_RANK]; /* pitch in bytes; outermost first */
} kn_rows;

kn_rows kn_rows_of(const kn_tensor *t);

static inline void *kn_row(const kn_rows *r, int64_t i)
{
    if (r->axes == 1) return r->data + i * r->pitch[0];
    int64_t offset = 0;
    for (int a = r->axes - 1; a > 0; a--) {
        offset += i % r->dim[a] * r->pitch[a];
        i /= r->dim[a];
    }
    return r->data + offset + i * r->pitch[0];
}

/* n elements of a float dtype <-> double or float; base code, any dtype but integers. */
void kn_load_f64(const void *src, kn_dtype dtype, int64_t n, int64_t stride, double *dst);
void kn_store_f64(const double *src, int64_t n, void *dst, kn_dtype dtype, int64_t stride);
bool kn_dtype_is_float(kn_dtype t);

/* Kernel taps of a conv weight of rank 4 or 5 as t, h, w. */
void kn_conv_kernel(const kn_weight *w, int k[3]);

#endif
