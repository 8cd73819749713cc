/* compute/device.h - one device type for every backend.
 *
 * Purpose   Memory and the operation table of the place where networks run.
 *             ref      plain loops, double accumulation: the specification of every operation
 *             cpu      oneDNN for matrix products and convolutions, own SIMD for the rest, fp32
 *             cuda     (built when nvcc is found; opened when a driver and GPU are)
 *             measure  allocates nothing and computes nothing; the same forward code run on it
 *                      tells how many bytes it would take (kinora plan)
 * Memory    kn_dev_alloc hands out device memory; on ref and cpu that is host memory.
 * Threads   One host thread drives a device. Results do not depend on its thread count.
 * Errors    KN_ERR_NOMEM, KN_ERR_DEVICE, KN_ERR_UNSUPPORTED.
 */
#ifndef KN_COMPUTE_DEVICE_H
#define KN_COMPUTE_DEVICE_H

#include "compute/tensor.h"

typedef enum kn_dev_kind { KN_DEV_REF, KN_DEV_CPU, KN_DEV_CUDA, KN_DEV_MEASURE } kn_dev_kind;

typedef struct kn_dev kn_dev;

typedef struct kn_dev_params {
    kn_dev_kind kind;
    int threads;          /* ref, cpu: OpenMP threads; 0 = one per core that this process may use */
    int ordinal;          /* cuda: device number */
    int isa_mask;         /* cpu: highest instruction set to use: 0 best, 1 base, 2 AVX2, 3 AVX-512;
                          for tests (environment KN_CPU_MASK is read by the program, not here) */
    kn_dev_kind measured; /* measure: whose sizes (dtypes, packing) to report */
    bool offload;         /* networks opened on it keep their blocks' weights in host memory and bring
                             two blocks at a time (offload.h); not on cpu */
} kn_dev_params;

/* Open a device. Close with kn_dev_close (NULL-safe, sets *d to NULL). */
KN_CHECKED kn_status kn_dev_open(const kn_dev_params *params, kn_dev **out);
void kn_dev_close(kn_dev **d);

kn_dev_kind kn_dev_get_kind(const kn_dev *d);
/* The kind whose sizes and dtypes hold: the measured one of a measure device, else its own. */
kn_dev_kind kn_dev_measured(const kn_dev *d);
/* What networks keep activations in: bf16 on cuda, f32 elsewhere. */
kn_dtype kn_dev_activation_dtype(const kn_dev *d);
/* "ref", "cpu", "cuda", "measure". */
const char *kn_dev_kind_name(kn_dev_kind kind);
/* One line for people: "cpu, 2 threads, AVX-512, oneDNN 2.6.3". Lives as long as the device. */
const char *kn_dev_describe(const kn_dev *d);
int kn_dev_threads(const kn_dev *d);
bool kn_dev_offloads(const kn_dev *d);
/* Instruction set that a cpu device uses: 1 base, 2 AVX2, 3 AVX-512; 1 on the other kinds. Layers
 * with overlays of their own (attention/) choose by it. */
int kn_dev_isa(const kn_dev *d);

/* Device memory, 64-byte aligned (256 on cuda). Debug builds fill it with NaN. */
KN_CHECKED kn_status kn_dev_alloc(kn_dev *d, size_t bytes, void **out);
void kn_dev_free(kn_dev *d, void *p, size_t bytes);
/* Bytes now held and the most ever held through kn_dev_alloc (and packed weights). */
size_t kn_dev_bytes_now(const kn_dev *d);
size_t kn_dev_bytes_peak(const kn_dev *d);
void kn_dev_reset_peak(kn_dev *d);

/* Host memory that stands in for the device's (offload.h): held now, most ever held. */
size_t kn_dev_host_bytes_now(const kn_dev *d);
size_t kn_dev_host_bytes_peak(const kn_dev *d);
/* measure: count host memory that a phase takes beside the device's; on ref and cpu they are one. */
void kn_dev_measure_host(kn_dev *d, size_t bytes);

/* Gives back what opening weights took beside them (cuda: staging buffers): when a network is open. */
void kn_dev_trim(kn_dev *d);

/* Contiguous copies host <-> device, same dtype and count. On return the host's memory is the
 * caller's again: a download is complete; an upload comes before all work queued after it. */
KN_CHECKED kn_status kn_dev_upload(kn_dev *d, const void *host, const kn_tensor *dst);
KN_CHECKED kn_status kn_dev_download(kn_dev *d, const kn_tensor *src, void *host);
/* Host memory that transfers need no staging for: page-locked on cuda, plain elsewhere. free:
 * NULL-safe. */
KN_CHECKED kn_status kn_dev_host_alloc(kn_dev *d, size_t bytes, void **out);
void kn_dev_host_free(kn_dev *d, void *p);
/* As download, to memory of kn_dev_host_alloc, without waiting on cuda: src must not change, nor
 * host be read, before the next upload, download or sync of the device returns. */
KN_CHECKED kn_status kn_dev_download_begin(kn_dev *d, const kn_tensor *src, void *host);
/* Bytes of the device's own memory that are free now; 0: it has none, it uses the host's. */
size_t kn_dev_memory_free(kn_dev *d);
/* Wait for all work of the device and report its errors. */
KN_CHECKED kn_status kn_dev_sync(kn_dev *d);

/* ---- arena: scratch and job memory ------------------------------------------------------------
 * One allocation, handed out front to back. mark/reset frees back to a mark. No allocation happens
 * inside a forward: the arena was sized by running that forward on the measure device.
 */
typedef struct kn_arena kn_arena;
typedef size_t kn_arena_mark;

/* bytes: capacity. On the measure device the capacity is unlimited and nothing is allocated. */
KN_CHECKED kn_status kn_arena_open(kn_dev *d, size_t bytes, kn_arena **out);
void kn_arena_close(kn_arena **a);
/* A contiguous tensor from the arena; KN_ERR_NOMEM names the shortfall. */
KN_CHECKED kn_status kn_arena_tensor(kn_arena *a, kn_dtype dtype, int rank, const int64_t *dims,
                                     kn_tensor *out);
#define kn_arena_take(a, out, dtype, ...)                                                          \
    kn_arena_tensor((a), (dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),       \
                    (int64_t[]){__VA_ARGS__}, (out))
kn_arena_mark kn_arena_get_mark(const kn_arena *a);
void kn_arena_reset(kn_arena *a, kn_arena_mark mark);
/* Highest fill so far, in bytes: the capacity that the same calls will need. */
size_t kn_arena_peak(const kn_arena *a);
kn_dev *kn_arena_dev(const kn_arena *a);

#endif
