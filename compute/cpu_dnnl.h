/* compute/cpu_dnnl.h - matrix products by oneDNN.
 *
 * Purpose   out[M,N] = x[M,K] w + bias[N] for a fixed block of rows and a block of columns whose
 *           weights were packed once. Used where oneDNN has its block product (brgemm) for this
 *           machine: AVX-512 with version 2, AVX2 also with version 3. Elsewhere own kernels are
 *           used.
 * Order     Each call runs in one thread, on blocks whose sizes come from shapes alone, so that
 *           oneDNN's own threading, which may split sums, never takes part.
 * Threads   kn_dnnl_get is called by the thread that drives the device; kn_dnnl_run by any,
 *           with its own index.
 */
#ifndef KN_COMPUTE_CPU_DNNL_H
#define KN_COMPUTE_CPU_DNNL_H

#include <stdbool.h>
#include <stdint.h>

#include "io/status.h"

typedef struct kn_dnnl kn_dnnl;
typedef struct kn_dnnl_product kn_dnnl_product;

/* scratch_bytes: per thread, what kn_dnnl_run will be given at least. *out stays NULL, with KN_OK,
 * where oneDNN has no block product. */
KN_CHECKED kn_status kn_dnnl_open(int threads, size_t scratch_bytes, kn_dnnl **out);
void kn_dnnl_close(kn_dnnl **d);
/* "oneDNN 2.6.3" */
const char *kn_dnnl_version(const kn_dnnl *d);

/* Bytes of a packed weight [K, N] (0: there is no block product for it), and the packing from plain
 * w[N, K]. */
KN_CHECKED kn_status kn_dnnl_weight_bytes(kn_dnnl *d, int64_t K, int64_t N, size_t *bytes);
KN_CHECKED kn_status kn_dnnl_pack(kn_dnnl *d, int64_t K, int64_t N, const float *w, void *packed);

/* x and out are dense: with rows further apart version 2 has no block product. */
typedef struct kn_dnnl_shape {
    int64_t rows, K, N;
    int64_t bias; /* 0 or 1 */
} kn_dnnl_shape;

/* The product for a shape, made on first use and kept with the last ones used; valid until
 * KN_DNNL_PRODUCTS - 1 other shapes were asked for. */
enum { KN_DNNL_PRODUCTS = 128 };
KN_CHECKED kn_status kn_dnnl_get(kn_dnnl *d, const kn_dnnl_shape *shape, kn_dnnl_product **out);
KN_CHECKED kn_status kn_dnnl_run(kn_dnnl_product *p, int thread, const float *x, const void *w,
                                 const float *bias, float *out, void *scratch);

#endif
