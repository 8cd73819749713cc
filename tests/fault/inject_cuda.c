/* The calls of the CUDA runtime, of cuBLASLt and of cuDNN, for inject.h: by the linker's --wrap where functions
 * are linked statically, in place of those that kn_cuda_symbol finds elsewhere. A call that fails is not made,
 * but for those that give something back. Like the runtime, a failure is also what cudaGetLastError says next; a
 * lost device says it forever. */
#include "tests/fault/inject.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <stdio.h>
#include <string.h>

#include "io/status.h"

static cudaError_t last;

static int due_from(const char *what, const void *caller)
{
    int lost = inject_due_from(INJECT_LOST, what, caller), once = inject_due_from(INJECT_CUDA, what, caller);
    if (lost) last = cudaErrorECCUncorrectable;
    if (once) last = strstr(what, "Malloc") ? cudaErrorMemoryAllocation : cudaErrorUnknown;
    return lost | once;
}
#define due(what) due_from(what, __builtin_return_address(0))

/* Nothing but --wrap declares the two names. */
#define WRAP(type, name, parameters, arguments)                                                    \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        if (due(#name)) return last;                                                               \
        return __real_##name arguments;                                                            \
    }
/* Gives something back: done even where it is said to have failed. */
#define WRAP_END(name, parameters, arguments)                                                      \
    cudaError_t __real_##name parameters;                                                          \
    cudaError_t __wrap_##name parameters;                                                          \
    cudaError_t __wrap_##name parameters                                                           \
    {                                                                                              \
        cudaError_t e = __real_##name arguments;                                                   \
        return due(#name) ? last : e;                                                              \
    }

WRAP(cudaError_t, cudaMallocHost, (void **p, size_t bytes), (p, bytes))
WRAP(cudaError_t, cudaHostRegister, (void *p, size_t bytes, unsigned flags), (p, bytes, flags))
WRAP(cudaError_t, cudaMemcpyAsync,
     (void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s),
     (to, from, bytes, kind, s))
WRAP(cudaError_t, cudaMemsetAsync, (void *p, int value, size_t bytes, cudaStream_t s),
     (p, value, bytes, s))
WRAP(cudaError_t, cudaStreamCreateWithFlags, (cudaStream_t * s, unsigned flags), (s, flags))
WRAP(cudaError_t, cudaStreamSynchronize, (cudaStream_t s), (s))
WRAP(cudaError_t, cudaStreamWaitEvent, (cudaStream_t s, cudaEvent_t e, unsigned flags),
     (s, e, flags))
WRAP(cudaError_t, cudaEventCreate, (cudaEvent_t * e), (e))
WRAP(cudaError_t, cudaEventCreateWithFlags, (cudaEvent_t * e, unsigned flags), (e, flags))
WRAP(cudaError_t, cudaEventRecord, (cudaEvent_t e, cudaStream_t s), (e, s))
WRAP(cudaError_t, cudaEventSynchronize, (cudaEvent_t e), (e))
WRAP(cudaError_t, cudaEventElapsedTime, (float *ms, cudaEvent_t a, cudaEvent_t b), (ms, a, b))
WRAP(cudaError_t, cudaFuncSetAttribute, (const void *f, enum cudaFuncAttribute a, int value),
     (f, a, value))
WRAP(cudaError_t, cudaSetDevice, (int ordinal), (ordinal))
WRAP(cudaError_t, cudaDeviceGetAttribute, (int *value, enum cudaDeviceAttr a, int ordinal),
     (value, a, ordinal))
WRAP(cudaError_t, __cudaLaunchKernel,
     (cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t s),
     (kernel, grid, block, arguments, shared, s))
WRAP(cudaError_t, cudaLaunchKernelExC,
     (const cudaLaunchConfig_t *config, const void *function, void **arguments), (config, function, arguments))
WRAP(cudaError_t, cudaGetDriverEntryPointByVersion,
     (const char *symbol, void **function, unsigned version, unsigned long long flags,
      enum cudaDriverEntryPointQueryResult *found),
     (symbol, function, version, flags, found))
WRAP(cudaError_t, cudaStreamBeginCapture, (cudaStream_t s, enum cudaStreamCaptureMode mode), (s, mode))
WRAP(cudaError_t, cudaGraphInstantiate, (cudaGraphExec_t * ready, cudaGraph_t graph, unsigned long long flags),
     (ready, graph, flags))
WRAP(cudaError_t, cudaGraphLaunch, (cudaGraphExec_t ready, cudaStream_t s), (ready, s))
WRAP(cudaError_t, cudaRuntimeGetVersion, (int *version), (version))
WRAP(cudaError_t, cudaGetDevice, (int *ordinal), (ordinal))
WRAP(cudaError_t, cudaFuncGetAttributes, (struct cudaFuncAttributes * out, const void *f), (out, f))
WRAP(cudaError_t, cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags,
     (int *blocks, const void *f, int threads, size_t shared, unsigned flags), (blocks, f, threads, shared, flags))
WRAP_END(cudaStreamEndCapture, (cudaStream_t s, cudaGraph_t *graph), (s, graph))
WRAP_END(cudaGraphDestroy, (cudaGraph_t graph), (graph))
WRAP_END(cudaGraphExecDestroy, (cudaGraphExec_t ready), (ready))
WRAP_END(cudaFreeHost, (void *p), (p))
WRAP_END(cudaHostUnregister, (void *p), (p))
WRAP_END(cudaStreamDestroy, (cudaStream_t s), (s))
WRAP_END(cudaEventDestroy, (cudaEvent_t event), (event))

cudaError_t __real_cudaGetLastError(void);
cudaError_t __wrap_cudaGetLastError(void);
cudaError_t __wrap_cudaGetLastError(void)
{
    cudaError_t e = last;
    if (last != cudaErrorECCUncorrectable) last = cudaSuccess;
    return e ? e : __real_cudaGetLastError();
}

cudaError_t __real_cudaPeekAtLastError(void);
cudaError_t __wrap_cudaPeekAtLastError(void);
cudaError_t __wrap_cudaPeekAtLastError(void)
{
    return last ? last : __real_cudaPeekAtLastError();
}

/* ---- a card of inject->card_bytes -------------------------------------------------------------- */

enum { HELD = 1 << 14 };
static struct {
    void *p;
    size_t bytes;
} held[HELD];
static size_t taken;

cudaError_t __real_cudaMalloc(void **p, size_t bytes);
cudaError_t __wrap_cudaMalloc(void **p, size_t bytes);
cudaError_t __wrap_cudaMalloc(void **p, size_t bytes)
{
    if (due("cudaMalloc")) return last;
    int i = 0;
    while (i < HELD && held[i].p) i++;
    if (i == HELD || (inject && inject->card_bytes && taken + bytes > inject->card_bytes)) {
        if (!inject->hits++) snprintf(inject->what, sizeof inject->what, "cudaMalloc");
        return last = cudaErrorMemoryAllocation;
    }
    cudaError_t e = __real_cudaMalloc(p, bytes);
    if (e != cudaSuccess) return e;
    held[i].p = *p;
    taken += held[i].bytes = bytes;
    return e;
}

cudaError_t __real_cudaFree(void *p);
cudaError_t __wrap_cudaFree(void *p);
cudaError_t __wrap_cudaFree(void *p)
{
    for (int i = 0; p && i < HELD; i++)
        if (held[i].p == p) {
            taken -= held[i].bytes;
            held[i].p = NULL;
            break;
        }
    cudaError_t e = __real_cudaFree(p);
    return due("cudaFree") ? last : e;
}

cudaError_t __real_cudaMemGetInfo(size_t *left, size_t *total);
cudaError_t __wrap_cudaMemGetInfo(size_t *left, size_t *total);
cudaError_t __wrap_cudaMemGetInfo(size_t *left, size_t *total)
{
    if (due("cudaMemGetInfo")) return last;
    cudaError_t e = __real_cudaMemGetInfo(left, total);
    if (e != cudaSuccess || !inject || !inject->card_bytes) return e;
    *total = inject->card_bytes;
    *left = *total - (taken < *total ? taken : *total);
    return e;
}

/* ---- a machine whose GPU is of no use: answers that need no GPU ---------------------------------- */

cudaError_t __real_cudaGetDeviceCount(int *count);
cudaError_t __wrap_cudaGetDeviceCount(int *count);
cudaError_t __wrap_cudaGetDeviceCount(int *count)
{
    if (due("cudaGetDeviceCount")) return last;
    *count = inject && inject->card == INJECT_CARD_TOO_OLD;
    switch (inject ? inject->card : INJECT_CARD_REAL) {
    case INJECT_CARD_TOO_OLD: return cudaSuccess;
    case INJECT_CARD_NO_DRIVER:
    case INJECT_CARD_OLD_DRIVER: return cudaErrorInsufficientDriver;
    case INJECT_CARD_NONE: return cudaErrorNoDevice;
    default: return __real_cudaGetDeviceCount(count);
    }
}

cudaError_t __real_cudaDriverGetVersion(int *version);
cudaError_t __wrap_cudaDriverGetVersion(int *version);
cudaError_t __wrap_cudaDriverGetVersion(int *version)
{
    if (due("cudaDriverGetVersion")) return last;
    if (!inject || inject->card == INJECT_CARD_REAL) return __real_cudaDriverGetVersion(version);
    *version = inject->card == INJECT_CARD_NO_DRIVER ? 0 : inject->card == INJECT_CARD_OLD_DRIVER ? 11040 : 13000;
    return cudaSuccess;
}

cudaError_t __real_cudaGetDeviceProperties(struct cudaDeviceProp *prop, int ordinal);
cudaError_t __wrap_cudaGetDeviceProperties(struct cudaDeviceProp *prop, int ordinal);
cudaError_t __wrap_cudaGetDeviceProperties(struct cudaDeviceProp *prop, int ordinal)
{
    if (due("cudaGetDeviceProperties")) return last;
    if (!inject || inject->card == INJECT_CARD_REAL)
        return __real_cudaGetDeviceProperties(prop, ordinal);
    *prop = (struct cudaDeviceProp){.name = "A card of 2017", .major = 7, .totalGlobalMem = (size_t)16 << 30};
    return cudaSuccess;
}

/* ---- libraries found at run time ----------------------------------------------------------------- */

static cublasStatus_t blas_failed(void)
{
    return last == cudaErrorMemoryAllocation ? CUBLAS_STATUS_ALLOC_FAILED : CUBLAS_STATUS_EXECUTION_FAILED;
}

static cudnnStatus_t dnn_failed(void)
{
    return last == cudaErrorMemoryAllocation ? CUDNN_STATUS_ALLOC_FAILED : CUDNN_STATUS_EXECUTION_FAILED;
}

#define TRY(type, failed, name, parameters, arguments)                                             \
    static __typeof__(&name) real_##name;                                                          \
    static type try_##name parameters                                                              \
    {                                                                                              \
        if (due(#name)) return failed();                                                           \
        return real_##name arguments;                                                              \
    }
/* As WRAP_END. */
#define TRY_END(type, failed, name, parameters, arguments)                                         \
    static __typeof__(&name) real_##name;                                                          \
    static type try_##name parameters                                                              \
    {                                                                                              \
        type e = real_##name arguments;                                                            \
        return due(#name) ? failed() : e;                                                          \
    }
#define BLAS(name, parameters, arguments) TRY(cublasStatus_t, blas_failed, name, parameters, arguments)
#define BLAS_END(name, parameters, arguments) TRY_END(cublasStatus_t, blas_failed, name, parameters, arguments)
#define DNN(name, parameters, arguments) TRY(cudnnStatus_t, dnn_failed, name, parameters, arguments)
#define DNN_END(name, parameters, arguments) TRY_END(cudnnStatus_t, dnn_failed, name, parameters, arguments)

BLAS(cublasLtCreate, (cublasLtHandle_t * h), (h))
BLAS(cublasLtMatmulDescCreate, (cublasLtMatmulDesc_t * op, cublasComputeType_t compute, cudaDataType_t scale),
     (op, compute, scale))
BLAS(cublasLtMatmulDescSetAttribute,
     (cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t name, const void *value, size_t bytes),
     (op, name, value, bytes))
BLAS(cublasLtMatrixLayoutCreate,
     (cublasLtMatrixLayout_t * l, cudaDataType type, uint64_t rows, uint64_t columns, int64_t pitch),
     (l, type, rows, columns, pitch))
BLAS(cublasLtMatrixLayoutSetAttribute,
     (cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t name, const void *value, size_t bytes),
     (l, name, value, bytes))
BLAS(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * p), (p))
BLAS(cublasLtMatmulPreferenceSetAttribute,
     (cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t name, const void *value, size_t bytes),
     (p, name, value, bytes))
BLAS(cublasLtMatmulAlgoGetHeuristic,
     (cublasLtHandle_t h, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
      cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t p, int most,
      cublasLtMatmulHeuristicResult_t *found, int *count),
     (h, op, a, b, c, d, p, most, found, count))
BLAS(cublasLtMatmul,
     (cublasLtHandle_t h, cublasLtMatmulDesc_t op, const void *alpha, const void *a, cublasLtMatrixLayout_t la,
      const void *b, cublasLtMatrixLayout_t lb, const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *d,
      cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algo, void *workspace, size_t bytes, cudaStream_t s),
     (h, op, alpha, a, la, b, lb, beta, c, lc, d, ld, algo, workspace, bytes, s))
BLAS_END(cublasLtDestroy, (cublasLtHandle_t h), (h))
BLAS_END(cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t op), (op))
BLAS_END(cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t l), (l))
BLAS_END(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t p), (p))

DNN(cudnnCreate, (cudnnHandle_t * h), (h))
DNN(cudnnSetStream, (cudnnHandle_t h, cudaStream_t s), (h, s))
DNN(cudnnBackendCreateDescriptor, (cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *d), (type, d))
DNN(cudnnBackendSetAttribute,
    (cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
     const void *values),
    (d, name, type, count, values))
DNN(cudnnBackendGetAttribute,
    (cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
     int64_t most, int64_t *count, void *values),
    (d, name, type, most, count, values))
DNN(cudnnBackendFinalize, (cudnnBackendDescriptor_t d), (d))
DNN(cudnnBackendExecute, (cudnnHandle_t h, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack),
    (h, plan, pack))
DNN_END(cudnnBackendDestroyDescriptor, (cudnnBackendDescriptor_t d), (d))
DNN_END(cudnnDestroy, (cudnnHandle_t h), (h))

/* Those that return a status; the others turn one into text. */
#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutSetAttribute)                                                            \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmul)                                                                              \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnSetStream)                                                                              \
    X(cudnnBackendCreateDescriptor)                                                                \
    X(cudnnBackendDestroyDescriptor)                                                               \
    X(cudnnBackendFinalize)                                                                        \
    X(cudnnBackendSetAttribute)                                                                    \
    X(cudnnBackendGetAttribute)                                                                    \
    X(cudnnBackendExecute)

kn_status __real_kn_cuda_symbol(void *handle, const char *what, const char *name, void **fn);
kn_status __wrap_kn_cuda_symbol(void *handle, const char *what, const char *name, void **fn);
kn_status __wrap_kn_cuda_symbol(void *handle, const char *what, const char *name, void **fn)
{
    KN_TRY(__real_kn_cuda_symbol(handle, what, name, fn));
#define X(f)                                                                                       \
    if (!strcmp(name, #f)) {                                                                       \
        memcpy(&real_##f, fn, sizeof *fn);                                                         \
        *(__typeof__(&f) *)fn = try_##f;                                                           \
    }
    FUNCTIONS(X)
#undef X
    return KN_OK;
}
