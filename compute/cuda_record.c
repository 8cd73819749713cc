/* compute/cuda_record.c - recordings (compute/record.h) as CUDA graphs of the device's stream. */
#include "compute/cuda.h"

kn_status kn_cuda_only_once(const kn_dev *d, const char *what)
{
    if (!kn_cuda_of(d)->recording) return KN_OK;
    return kn_fail(KN_ERR_UNSUPPORTED, "cuda: %s: not part of work that comes again", what);
}

kn_status kn_cuda_record_begin(kn_dev *d)
{
    kn_cuda *c = kn_cuda_of(d);
    /* Thread-local: what other threads of the program do with CUDA is their own. */
    KN_CUDA_TRY(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
    c->recording = true;
    return KN_OK;
}

kn_status kn_cuda_record_end(kn_dev *d, void **work)
{
    kn_cuda *c = kn_cuda_of(d);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    *work = NULL;
    c->recording = false;
    cudaError_t e = cudaStreamEndCapture(c->stream, &graph);
    if (e == cudaSuccess) e = cudaGraphInstantiate(&ready, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (e != cudaSuccess) return kn_cuda_fail(e, "recording", __FILE__, __LINE__);
    *work = ready;
    return KN_OK;
}

kn_status kn_cuda_replay(kn_dev *d, void *work)
{
    KN_CUDA_TRY(cudaGraphLaunch((cudaGraphExec_t)work, kn_cuda_of(d)->stream));
    return KN_OK;
}

void kn_cuda_record_close(kn_dev *d, void *work)
{
    cudaStreamSynchronize(kn_cuda_of(d)->stream); /* it may still be queued */
    cudaGraphExecDestroy((cudaGraphExec_t)work);
}
