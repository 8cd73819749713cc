/* compute/cuda_cudnn.h - inside the CUDA backend: cuDNN graphs through its backend API.
 *
 * Purpose   Builds the plan of a small graph of operations, keeps it by a key of plain bytes, runs
 *           it on the device's stream. The library is looked for at run time.
 * Use       kn_cudnn_find(d, key, size, &plan); if NULL: make descriptors with the helpers, then
 *           kn_cudnn_build. Then kn_cudnn_run with one address per tensor uid.
 * Ownership Descriptors made between kn_cudnn_begin and kn_cudnn_build belong to the builder and are
 *           destroyed by kn_cudnn_end, also after a failure. Plans live as long as the device.
 * Errors    KN_ERR_UNSUPPORTED: no library, or no engine for this graph; KN_ERR_DEVICE.
 * Source    cudnn_backend.h, cudnn_graph.h of cuDNN 9; NVIDIA cuDNN backend API reference.
 */
#ifndef KN_COMPUTE_CUDA_CUDNN_H
#define KN_COMPUTE_CUDA_CUDNN_H

#include <cudnn.h>

#include "compute/cuda.h"

typedef struct kn_cudnn_plan kn_cudnn_plan;

enum { KN_CUDNN_DESCRIPTORS = 64, KN_CUDNN_KEY = 256 };

typedef struct kn_cudnn_graph {
    kn_dev *dev;
    cudnnBackendDescriptor_t made[KN_CUDNN_DESCRIPTORS];
    int count;
    kn_status st; /* first failure; helpers do nothing after it */
} kn_cudnn_graph;

/* Opens the library on first use. */
kn_status kn_cudnn_begin(kn_dev *d, kn_cudnn_graph *g);
void kn_cudnn_end(kn_cudnn_graph *g);

cudnnBackendDescriptor_t kn_cudnn_make(kn_cudnn_graph *g, cudnnBackendDescriptorType_t type);
void kn_cudnn_set(kn_cudnn_graph *g, cudnnBackendDescriptor_t of, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t count, const void *values);
void kn_cudnn_finalize(kn_cudnn_graph *g, cudnnBackendDescriptor_t d, const char *what);

typedef struct kn_cudnn_tensor {
    int64_t uid;
    int rank;
    const int64_t *dims, *strides;
    cudnnDataType_t type;
    bool is_virtual, by_value;
} kn_cudnn_tensor;

cudnnBackendDescriptor_t kn_cudnn_tensor_of(kn_cudnn_graph *g, const kn_cudnn_tensor *t);
/* y = a + b */
cudnnBackendDescriptor_t kn_cudnn_add(kn_cudnn_graph *g, cudnnBackendDescriptor_t a,
                                      cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y);

/* NULL when there is none yet. */
kn_cudnn_plan *kn_cudnn_find(kn_dev *d, const void *key, size_t size);
/* The first engine that `mode` proposes and that runs here within the workspace. Never timed: a
 * choice that depends on a clock would give other bytes on another run. */
kn_status kn_cudnn_build(kn_cudnn_graph *g, cudnnBackendDescriptor_t *ops, int count,
                         cudnnBackendHeurMode_t mode, const void *key, size_t size,
                         kn_cudnn_plan **out);
kn_status kn_cudnn_run(kn_dev *d, const kn_cudnn_plan *plan, const int64_t *uids,
                       void *const *pointers, int count);

#endif
