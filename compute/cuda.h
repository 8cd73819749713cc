/* compute/cuda.h - inside the CUDA backend: for the cuda files of compute/ and attention/.
 *
 * Purpose   State of an open cuda device, error macros, and the libraries that are looked for at
 *           run time. Everything a device computes is queued in order on one stream; uploads of
 *           more than 64 KiB, downloads, stats and kn_dev_sync wait for it.
 * Threads   The device's host thread.
 * Errors    KN_ERR_DEVICE with the call's name and CUDA's own text; KN_ERR_NOMEM with the numbers.
 */
#ifndef KN_COMPUTE_CUDA_H
#define KN_COMPUTE_CUDA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "compute/backend.h"

typedef struct kn_blaslt kn_blaslt;       /* compute/cuda_linear.c */
typedef struct kn_cudnn kn_cudnn;         /* compute/cuda_cudnn.c */
typedef struct kn_cuda_lists kn_cuda_lists; /* index lists that were sent before, cuda_device.c */
typedef struct kn_cuda_mapping kn_cuda_mapping; /* compute/cuda_host.c */

struct kn_attn_cuda;                      /* attention/sparse_cuda.c */

enum { KN_CUDA_LETTERS = 16, KN_CUDA_LETTER_BYTES = 64 << 10 };

typedef struct kn_cuda {
    cudaStream_t stream;
    int ordinal;
    int sm; /* compute capability: 80, 90, ... */
    int sm_count;
    size_t l2_bytes;
    size_t total_bytes; /* of the card */
    void *workspace;    /* of cuBLASLt, cuDNN and attention; used in stream order */
    size_t workspace_bytes;
    kn_blaslt *blaslt; /* opened by the first product */
    kn_cudnn *cudnn;   /* opened by the first convolution or cuDNN attention */
    kn_cuda_lists *lists;
    struct kn_attn_cuda *attention; /* key lists of plans; opened by the first sparse attention */
    void (*attention_close)(kn_dev *d);
    struct kn_workers *helpers; /* threads that fill page-locked memory; started by the first */
    kn_cuda_mapping *mappings;  /* page-locked memory of kn_cuda_locked_open's own */
    void *pinned[2]; /* staging of weights, KN_CUDA_STAGE_BYTES each */
    void *staged[2]; /* the same on the device */
    cudaEvent_t staged_done[2];
    int stage;
    cudaStream_t copies; /* of ferries (offload.h); opened by the first */
    cudaEvent_t queued, ticket[KN_TICKETS];
    bool recording; /* cuda_record.c */
    void *letters; /* pinned; small uploads wait here for the stream, cuda_device.c */
    cudaEvent_t letter_sent[KN_CUDA_LETTERS];
    int letter;
    void *scalars; /* 4 KiB of device memory for small results (stats) and counters */
} kn_cuda;

static inline kn_cuda *kn_cuda_of(const kn_dev *d)
{
    return (kn_cuda *)d->impl;
}

/* KN_ERR_DEVICE: "what: cudaErrorName: text". */
kn_status kn_cuda_fail(cudaError_t e, const char *what, const char *file, int line);
#define KN_CUDA_TRY(call)                                                                          \
    do {                                                                                           \
        cudaError_t kn_e_ = (call);                                                                \
        if (kn_e_ != cudaSuccess) return kn_cuda_fail(kn_e_, #call, __FILE__, __LINE__);           \
    } while (0)
#define KN_CUDA_TRY_GOTO(call)                                                                     \
    do {                                                                                           \
        cudaError_t kn_e_ = (call);                                                                \
        if (kn_e_ != cudaSuccess) {                                                                \
            st = kn_cuda_fail(kn_e_, #call, __FILE__, __LINE__);                                   \
            goto done;                                                                             \
        }                                                                                          \
    } while (0)
/* After a launch: what is its name. */
#define KN_CUDA_LAUNCHED(what)                                                                     \
    do {                                                                                           \
        cudaError_t kn_e_ = cudaGetLastError();                                                    \
        if (kn_e_ != cudaSuccess) return kn_cuda_fail(kn_e_, what, __FILE__, __LINE__);            \
    } while (0)

/* KN_ERR_UNSUPPORTED while work is recorded: what is true once only, such as the host's memory at that
 * moment, must not be part of it. */
kn_status kn_cuda_only_once(const kn_dev *d, const char *what);

/* A shared library by the first of these names that loads (NULL-terminated); stays loaded.
 * KN_ERR_UNSUPPORTED names them and the loader's reason. */
kn_status kn_cuda_library(const char *what, const char *const *names, void **handle);
/* Its function; KN_ERR_UNSUPPORTED when it has none of that name. */
kn_status kn_cuda_symbol(void *handle, const char *what, const char *name, void **fn);

/* Device copy of an index list in host memory: sent once and kept, found
 * again by length and content hash. Valid until kn_cuda_lists_close, which the end of a pass calls too. */
kn_status kn_cuda_list(kn_dev *d, const int32_t *host, int64_t count, const int32_t **device);
void kn_cuda_lists_close(kn_dev *d);

/* Page-locked host memory; KN_ERR_NOMEM. close: of what open gave; nothing may be on its way from or to it. */
kn_status kn_cuda_locked_open(kn_dev *d, size_t bytes, void **out);
void kn_cuda_locked_close(kn_dev *d, void *p);
/* Copies from a file's mapping, or other host memory, by several threads: one alone is slower than a disk. */
kn_status kn_cuda_fill(kn_dev *d, void *to, const void *from, size_t bytes);
void kn_cuda_helpers_close(kn_dev *d);

/* compute/record.h, cuda_record.c */
kn_status kn_cuda_record_begin(kn_dev *d);
kn_status kn_cuda_record_end(kn_dev *d, void **work);
kn_status kn_cuda_replay(kn_dev *d, void *work);
void kn_cuda_record_close(kn_dev *d, void *work);

/* The operations, by file. */
void kn_cuda_fill_rows(kn_ops *ops);   /* cuda_rows.cu: rmsnorm layernorm gate_add rope */
void kn_cuda_fill_layout(kn_ops *ops); /* cuda_layout.cu: the others */
kn_linear_fn kn_cuda_linear;           /* cuda_linear.c */
/* Products of `batch` pairs of matrices: out[m,n] = x[m,k] y[k,n], or x y[n,k]^T. x, y bf16, out
 * bf16 or f32, fp32 accumulation. Pitches between rows and steps between matrices are in elements;
 * everything 16-byte aligned. The library's first choice of algorithm. */
typedef struct kn_cuda_product {
    const void *x, *y;
    void *out;
    int64_t m, n, k, batch;
    int64_t pitch_x, pitch_y, pitch_out, step_x, step_y, step_out;
    bool y_transposed;
    kn_dtype out_dtype;
} kn_cuda_product;
kn_status kn_cuda_products(kn_dev *d, const kn_cuda_product *p);
void kn_blaslt_close(kn_blaslt **b);
kn_conv_fn kn_cuda_conv; /* cuda_conv.c */
void kn_cudnn_close(kn_cudnn **c);

kn_quantize_fn kn_cuda_quantize; /* cuda_quantize.cu */
kn_dequantize_fn kn_cuda_dequantize;
kn_linear_f8_fn kn_cuda_linear_f8; /* cuda_linear.c; from sm_90 on */

/* cuda_convert.cu: count elements from a stored dtype to bf16 or f32, on the device, on the
 * stream. */
kn_status kn_cuda_convert(kn_dev *d, const void *src, kn_dtype from, void *dst, kn_dtype to,
                          int64_t count);
/* Convolution weights [Co,Ci,taps] of any float dtype to bf16 [Co,taps,Ci]. */
kn_status kn_cuda_convert_conv(kn_dev *d, const void *src, kn_dtype from, void *dst, int64_t co,
                               int64_t ci, int64_t taps);
/* A number made of all bits of t: equal for equal contents, whatever computed them. Waits. */
kn_status kn_cuda_hash(kn_dev *d, const kn_tensor *t, uint64_t *hash);
/* f32 product for few rows, weights bf16 [n,k]: out = act(x w^T + bias), x and out f32 rows. */
kn_status kn_cuda_linear_f32(kn_dev *d, const kn_tensor *x, const void *w, const float *bias,
                             kn_activation act, const kn_tensor *out);

#ifdef __cplusplus
}
#endif

#endif
