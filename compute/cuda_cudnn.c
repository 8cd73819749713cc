#include "compute/cuda_cudnn.h"

#include <string.h>

#include "io/memory.h"

enum { PLANS = 128, ENGINES = 8 };

#define FUNCTIONS(X)                                                                               \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnSetStream)                                                                              \
    X(cudnnGetErrorString)                                                                         \
    X(cudnnGetLastErrorString)                                                                     \
    X(cudnnBackendCreateDescriptor)                                                                \
    X(cudnnBackendDestroyDescriptor)                                                               \
    X(cudnnBackendFinalize)                                                                        \
    X(cudnnBackendSetAttribute)                                                                    \
    X(cudnnBackendGetAttribute)                                                                    \
    X(cudnnBackendExecute)

struct kn_cudnn_plan {
    unsigned char key[KN_CUDNN_KEY];
    size_t key_size;
    cudnnBackendDescriptor_t plan;
};

struct kn_cudnn {
    cudnnHandle_t handle;
    kn_cudnn_plan plan[PLANS];
    int plans;
#define X(f) __typeof__(&f) f;
    FUNCTIONS(X)
#undef X
};

/* ---- library -----------------------------------------------------------------------------------*/
static kn_status open_cudnn(kn_cuda *c)
{
    static const char *const names[] = {"libcudnn.so.9", NULL};
    if (c->cudnn) return KN_OK;
    void *lib, *fn, *p;
    KN_TRY(kn_cuda_library("cuDNN", names, &lib));
    KN_TRY(kn_alloc_zero(sizeof(kn_cudnn), &p));
    kn_cudnn *n = p;
    kn_status st = KN_OK;
#define X(f)                                                                                       \
    if (st == KN_OK && (st = kn_cuda_symbol(lib, "cuDNN", #f, &fn)) == KN_OK)                      \
        memcpy(&n->f, &fn, sizeof fn);
    FUNCTIONS(X)
#undef X
    if (st == KN_OK) {
        cudnnStatus_t e = n->cudnnCreate(&n->handle);
        if (e == CUDNN_STATUS_SUCCESS) e = n->cudnnSetStream(n->handle, c->stream);
        if (e != CUDNN_STATUS_SUCCESS)
            st = kn_fail(KN_ERR_DEVICE, "cuDNN: opening it: %s", n->cudnnGetErrorString(e));
    }
    if (st != KN_OK) {
        if (n->handle) n->cudnnDestroy(n->handle);
        kn_free(n);
        return st;
    }
    c->cudnn = n;
    return KN_OK;
}

void kn_cudnn_close(kn_cudnn **n)
{
    if (!*n) return;
    for (int i = 0; i < (*n)->plans; i++)
        (*n)->cudnnBackendDestroyDescriptor((*n)->plan[i].plan);
    (*n)->cudnnDestroy((*n)->handle);
    kn_free(*n);
    *n = NULL;
}

static kn_cudnn *lib_of(kn_dev *d)
{
    return kn_cuda_of(d)->cudnn;
}

/* ---- descriptors -------------------------------------------------------------------------------*/
kn_status kn_cudnn_begin(kn_dev *d, kn_cudnn_graph *g)
{
    *g = (kn_cudnn_graph){.dev = d};
    return g->st = open_cudnn(kn_cuda_of(d));
}

void kn_cudnn_end(kn_cudnn_graph *g)
{
    for (int i = g->count; i-- > 0;) lib_of(g->dev)->cudnnBackendDestroyDescriptor(g->made[i]);
    g->count = 0;
}

static void check(kn_cudnn_graph *g, cudnnStatus_t e, const char *what)
{
    if (e == CUDNN_STATUS_SUCCESS || g->st != KN_OK) return;
    char text[512] = "";
    lib_of(g->dev)->cudnnGetLastErrorString(text, sizeof text);
    g->st = kn_fail(e == CUDNN_STATUS_ALLOC_FAILED ? KN_ERR_NOMEM
                    : CUDNN_STATUS_CATEGORY(e) == CUDNN_STATUS_CATEGORY(CUDNN_STATUS_NOT_SUPPORTED)
                        ? KN_ERR_UNSUPPORTED
                        : KN_ERR_DEVICE,
                    "cuDNN: %s: %s: %s", what, lib_of(g->dev)->cudnnGetErrorString(e), text);
}

cudnnBackendDescriptor_t kn_cudnn_make(kn_cudnn_graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;
    if (g->st != KN_OK) return NULL;
    if (g->count == KN_CUDNN_DESCRIPTORS) {
        g->st = kn_fail(KN_ERR_INTERNAL, "cuDNN: more than %d descriptors", KN_CUDNN_DESCRIPTORS);
        return NULL;
    }
    check(g, lib_of(g->dev)->cudnnBackendCreateDescriptor(type, &d), "new descriptor");
    if (g->st == KN_OK) g->made[g->count++] = d;
    return d;
}

void kn_cudnn_set(kn_cudnn_graph *g, cudnnBackendDescriptor_t of, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (g->st != KN_OK) return;
    check(g, lib_of(g->dev)->cudnnBackendSetAttribute(of, name, type, count, values), "attribute");
}

void kn_cudnn_finalize(kn_cudnn_graph *g, cudnnBackendDescriptor_t d, const char *what)
{
    if (g->st == KN_OK) check(g, lib_of(g->dev)->cudnnBackendFinalize(d), what);
}

cudnnBackendDescriptor_t kn_cudnn_tensor_of(kn_cudnn_graph *g, const kn_cudnn_tensor *t)
{
    cudnnBackendDescriptor_t d = kn_cudnn_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t align = 16;
    kn_cudnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &t->uid);
    kn_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &t->type);
    kn_cudnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    kn_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, t->rank, t->dims);
    kn_cudnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, t->rank, t->strides);
    kn_cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &t->is_virtual);
    if (t->by_value)
        kn_cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &t->by_value);
    kn_cudnn_finalize(g, d, "tensor");
    return d;
}

cudnnBackendDescriptor_t kn_cudnn_add(kn_cudnn_graph *g, cudnnBackendDescriptor_t a,
                                      cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y)
{
    cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t pw = kn_cudnn_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    kn_cudnn_set(g, pw, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    kn_cudnn_set(g, pw, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    kn_cudnn_finalize(g, pw, "addition");
    cudnnBackendDescriptor_t op = kn_cudnn_make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    const cudnnBackendAttributeType_t desc = CUDNN_TYPE_BACKEND_DESCRIPTOR;
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, desc, 1, &pw);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, desc, 1, &a);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, desc, 1, &b);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, desc, 1, &y);
    kn_cudnn_finalize(g, op, "addition");
    return op;
}

/* ---- plans -------------------------------------------------------------------------------------*/
kn_cudnn_plan *kn_cudnn_find(kn_dev *d, const void *key, size_t size)
{
    kn_cudnn *n = lib_of(d);
    for (int i = 0; n && i < n->plans; i++)
        if (n->plan[i].key_size == size && memcmp(n->plan[i].key, key, size) == 0)
            return &n->plan[i];
    return NULL;
}

static kn_status execute(kn_dev *d, cudnnBackendDescriptor_t plan, const int64_t *uids,
                         void *const *pointers, int count)
{
    kn_cuda *c = kn_cuda_of(d);
    kn_cudnn_graph g;
    KN_TRY(kn_cudnn_begin(d, &g));
    cudnnBackendDescriptor_t pack = kn_cudnn_make(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    kn_cudnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids);
    kn_cudnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count,
                 pointers);
    kn_cudnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                 &c->workspace);
    kn_cudnn_finalize(&g, pack, "addresses");
    if (g.st == KN_OK)
        check(&g, c->cudnn->cudnnBackendExecute(c->cudnn->handle, plan, pack), "execution");
    kn_cudnn_end(&g);
    return g.st;
}

kn_status kn_cudnn_run(kn_dev *d, const kn_cudnn_plan *plan, const int64_t *uids,
                       void *const *pointers, int count)
{
    return execute(d, plan->plan, uids, pointers, count);
}

/* Memory that ran out or a broken device says nothing of an engine; another one would give other bytes. */
static bool is_of_the_machine(cudnnStatus_t e)
{
    return e == CUDNN_STATUS_ALLOC_FAILED || e == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
           CUDNN_STATUS_CATEGORY(e) == CUDNN_STATUS_CATEGORY(CUDNN_STATUS_EXECUTION_FAILED);
}

/* A finished plan of an engine configuration. NULL: it is not usable here, or g->st. */
static cudnnBackendDescriptor_t plan_of(kn_cudnn_graph *g, cudnnBackendDescriptor_t config)
{
    kn_cuda *c = kn_cuda_of(g->dev);
    kn_cudnn *n = c->cudnn;
    cudnnBackendDescriptor_t plan = NULL;
    int64_t bytes = 0, got = 0;
    cudnnStatus_t e = n->cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
    if (!e)
        e = n->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                        &n->handle);
    if (!e)
        e = n->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    if (!e) e = n->cudnnBackendFinalize(plan);
    if (!e)
        e = n->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                        CUDNN_TYPE_INT64, 1, &got, &bytes);
    if (!e && (size_t)bytes <= c->workspace_bytes) return plan;
    if (plan) n->cudnnBackendDestroyDescriptor(plan);
    if (is_of_the_machine(e)) check(g, e, "plan");
    return NULL;
}

/* Engine configurations that the library proposes for the graph. */
static int engines_of(kn_cudnn_graph *g, cudnnBackendDescriptor_t *ops, int count,
                      cudnnBackendHeurMode_t mode, cudnnBackendDescriptor_t config[ENGINES])
{
    kn_cudnn *n = lib_of(g->dev);
    int64_t got = 0;
    cudnnBackendDescriptor_t graph = kn_cudnn_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    kn_cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &n->handle);
    kn_cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, ops);
    kn_cudnn_finalize(g, graph, "graph");
    cudnnBackendDescriptor_t heur = kn_cudnn_make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    kn_cudnn_set(g, heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                 &graph);
    kn_cudnn_set(g, heur, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    kn_cudnn_finalize(g, heur, "choice of engines");
    for (int i = 0; i < ENGINES; i++)
        config[i] = kn_cudnn_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->st == KN_OK)
        check(g,
              n->cudnnBackendGetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                          CUDNN_TYPE_BACKEND_DESCRIPTOR, ENGINES, &got, config),
              "engines");
    return g->st == KN_OK ? (int)got : 0;
}

kn_status kn_cudnn_build(kn_cudnn_graph *g, cudnnBackendDescriptor_t *ops, int count,
                         cudnnBackendHeurMode_t mode, const void *key, size_t size,
                         kn_cudnn_plan **out)
{
    kn_cuda *c = kn_cuda_of(g->dev);
    kn_cudnn *n = c->cudnn;
    cudnnBackendDescriptor_t config[ENGINES], plan = NULL;
    int engines = engines_of(g, ops, count, mode, config);
    KN_TRY(g->st);
    for (int i = 0; i < engines && !plan && g->st == KN_OK; i++) plan = plan_of(g, config[i]);
    KN_TRY(g->st);
    if (!plan)
        return kn_fail(KN_ERR_UNSUPPORTED, "cuDNN: no engine of %d runs this graph within %zu bytes",
                       engines, c->workspace_bytes);
    if (n->plans == PLANS) { /* start over: a job has few shapes */
        for (int i = 0; i < n->plans; i++) n->cudnnBackendDestroyDescriptor(n->plan[i].plan);
        n->plans = 0;
    }
    kn_cudnn_plan *p = &n->plan[n->plans++];
    memcpy(p->key, key, size);
    p->key_size = size;
    p->plan = plan;
    *out = p;
    return KN_OK;
}
