/* compute/cuda_linear.c - matrix products through cuBLASLt.
 *
 * out[M,N] = act(x[M,K] w[N,K]^T + b) is computed as the column-major product out^T = w x^T, whose
 * rows are the output features, along which cuBLASLt adds a bias, in the output's dtype alone. bf16
 * in, fp32 accumulation, bf16 or f32 out. The first product of a shape times the library's
 * candidates on its own operands and keeps, for the life of the device, the fastest of those that
 * give the same bytes as the library's first: which one is fastest changes from run to run, the
 * result does not. The tanh form of GELU is fused (cuBLASLt's GELU is the tanh approximation, which
 * kn_check holds it to); SiLU and the erf form follow as a pass.
 * Source: CUDA 13 cublasLt.h.
 */
#include <cublasLt.h>
#include <string.h>

#include "compute/cuda.h"
#include "io/memory.h"

enum { CACHE = 256, BATCH_CACHE = 64, CANDIDATES = 8, TRIALS = 3 };

#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetStatusString)                                                                     \
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
    X(cublasLtMatmul)

typedef struct product_key {
    int64_t m, n, k, ldx, ldo;
    int epilogue, out_type, in_type;
    uint32_t alignment; /* bytes, of all addresses */
} product_key;

typedef struct product {
    product_key key;
    cublasLtMatmulAlgo_t algo;
    bool slow_sums; /* e4m3: sums leave the tensor cores on the way */
} product;

typedef struct batch_product {
    kn_cuda_product key; /* addresses zeroed */
    cublasLtMatmulAlgo_t algo;
} batch_product;

struct kn_blaslt {
    cublasLtHandle_t handle;
    product cache[CACHE];
    int count;
    batch_product batch[BATCH_CACHE];
    int batches;
#define X(f) __typeof__(&f) f;
    FUNCTIONS(X)
#undef X
};

static kn_status open_blaslt(kn_cuda *c)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
    if (c->blaslt) return KN_OK;
    void *lib, *fn, *p;
    KN_TRY(kn_cuda_library("cuBLASLt", names, &lib));
    KN_TRY(kn_alloc_zero(sizeof(kn_blaslt), &p));
    kn_blaslt *b = p;
    kn_status st = KN_OK;
#define X(f)                                                                                       \
    if (st == KN_OK && (st = kn_cuda_symbol(lib, "cuBLASLt", #f, &fn)) == KN_OK)                   \
        memcpy(&b->f, &fn, sizeof fn);
    FUNCTIONS(X)
#undef X
    if (st == KN_OK && b->cublasLtCreate(&b->handle) != CUBLAS_STATUS_SUCCESS)
        st = kn_fail(KN_ERR_DEVICE, "cuBLASLt: cublasLtCreate failed");
    if (st != KN_OK) {
        kn_free(b);
        return st;
    }
    c->blaslt = b;
    return KN_OK;
}

void kn_blaslt_close(kn_blaslt **b)
{
    if (!*b) return;
    (*b)->cublasLtDestroy((*b)->handle);
    kn_free(*b);
    *b = NULL;
}

/* One product as the library wants it described. */
typedef struct call {
    kn_blaslt *b;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, out;
    const void *pw, *px;
    void *po;
    const float *scale_w, *scale_x; /* of rows, where both are e4m3 */
} call;

static kn_status lt(const kn_blaslt *b, cublasStatus_t e, const char *what, const product_key *k)
{
    if (e == CUBLAS_STATUS_SUCCESS) return KN_OK;
    return kn_fail(KN_ERR_DEVICE, "cuBLASLt: %s of [%lld, %lld] by [%lld, %lld]: %s", what,
                   (long long)k->m, (long long)k->k, (long long)k->n, (long long)k->k,
                   b->cublasLtGetStatusString(e));
}

static void close_call(call *c)
{
    if (c->op) c->b->cublasLtMatmulDescDestroy(c->op);
    cublasLtMatrixLayout_t all[] = {c->w, c->x, c->out};
    for (int i = 0; i < 3; i++)
        if (all[i]) c->b->cublasLtMatrixLayoutDestroy(all[i]);
}

/* A scale for each row of both factors, multiplied to the sum. Sums stay in the tensor cores: moving them to
 * fp32 registers on the way takes a third of the rate, and what they lose is a tenth of e4m3's rounding. Where
 * cuBLASLt (13.0) has no kernel for that, long sums with a bias, they are moved: slow_sums. */
static kn_status set_scales(const call *c, const product_key *k)
{
#if CUDART_VERSION >= 12090
    const kn_blaslt *b = c->b;
    cublasLtMatmulMatrixScale_t rows = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    int8_t fast = 1;
    const struct {
        cublasLtMatmulDescAttributes_t name;
        const void *value;
        size_t bytes;
    } all[] = {{CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &rows, sizeof rows},
               {CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &rows, sizeof rows},
               {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &c->scale_w, sizeof c->scale_w},
               {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &c->scale_x, sizeof c->scale_x},
               {CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast}};
    for (int i = 0; i < (int)(sizeof all / sizeof *all); i++)
        KN_TRY(lt(b, b->cublasLtMatmulDescSetAttribute(c->op, all[i].name, all[i].value, all[i].bytes),
                  "row scales (cuBLAS 12.9 or later)", k));
    return KN_OK;
#else
    (void)c, (void)k;
    return kn_fail(KN_ERR_UNSUPPORTED, "cuBLASLt: products of e4m3 need a build with CUDA 12.9 or later");
#endif
}

static kn_status slow_sums(const call *c, const product_key *k)
{
    int8_t fast = 0;
    return lt(c->b, c->b->cublasLtMatmulDescSetAttribute(c->op, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast),
              "sums in fp32", k);
}

static kn_status open_call(call *c, const product_key *k, const void *bias)
{
    kn_blaslt *b = c->b;
    cublasOperation_t yes = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)k->epilogue;
    cudaDataType_t bias_type = (cudaDataType_t)k->out_type;
    KN_TRY(lt(b, b->cublasLtMatmulDescCreate(&c->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description",
              k));
#define SET(attribute, value)                                                                      \
    KN_TRY(lt(b, b->cublasLtMatmulDescSetAttribute(c->op, attribute, &(value), sizeof(value)),     \
              #attribute, k))
    SET(CUBLASLT_MATMUL_DESC_TRANSA, yes);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (bias) {
        SET(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
        SET(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type);
    }
#undef SET
    if (c->scale_w) KN_TRY(set_scales(c, k));
    cudaDataType_t in = (cudaDataType_t)k->in_type;
    uint64_t m = (uint64_t)k->m, n = (uint64_t)k->n, kk = (uint64_t)k->k;
    KN_TRY(lt(b, b->cublasLtMatrixLayoutCreate(&c->w, in, kk, n, k->k), "layout", k));
    KN_TRY(lt(b, b->cublasLtMatrixLayoutCreate(&c->x, in, kk, m, k->ldx), "layout", k));
    return lt(b, b->cublasLtMatrixLayoutCreate(&c->out, (cudaDataType_t)k->out_type, n, m, k->ldo),
              "layout", k);
}

static kn_status run_call(const kn_cuda *cuda, const call *c, const product_key *k,
                          const cublasLtMatmulAlgo_t *algo)
{
    float one = 1, zero = 0;
    return lt(c->b,
              c->b->cublasLtMatmul(c->b->handle, c->op, &one, c->pw, c->w, c->px, c->x, &zero,
                                   c->po, c->out, c->po, c->out, algo, cuda->workspace,
                                   cuda->workspace_bytes, cuda->stream),
              "product", k);
}

/* Milliseconds of the fastest of some runs. */
static kn_status time_candidate(const kn_cuda *cuda, const call *c, const product_key *k,
                                const cublasLtMatmulAlgo_t *algo, cudaEvent_t ev[2], float *best)
{
    *best = 1e30f;
    for (int i = 0; i < TRIALS; i++) {
        float ms;
        KN_CUDA_TRY(cudaEventRecord(ev[0], cuda->stream));
        KN_TRY(run_call(cuda, c, k, algo));
        KN_CUDA_TRY(cudaEventRecord(ev[1], cuda->stream));
        KN_CUDA_TRY(cudaEventSynchronize(ev[1]));
        KN_CUDA_TRY(cudaEventElapsedTime(&ms, ev[0], ev[1]));
        if (ms < *best) *best = ms;
    }
    return KN_OK;
}

/* Split-K sums in an order that the schedule may change, and differ between shapes of the same row:
 * left out. count: 0 where nothing is offered. */
static kn_status candidates_of(const kn_cuda *cuda, const call *c, const product_key *k,
                               cublasLtMatmulHeuristicResult_t *found, int *count)
{
    kn_blaslt *b = c->b;
    cublasLtMatmulPreference_t pref;
    uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    KN_TRY(lt(b, b->cublasLtMatmulPreferenceCreate(&pref), "preference", k));
    cublasStatus_t e = b->cublasLtMatmulPreferenceSetAttribute(
        pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &cuda->workspace_bytes, sizeof cuda->workspace_bytes);
    if (!e)
        e = b->cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                    &no_reduction, sizeof no_reduction);
    static const cublasLtMatmulPreferenceAttributes_t operand[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4 && !e; i++)
        e = b->cublasLtMatmulPreferenceSetAttribute(pref, operand[i], &k->alignment, sizeof k->alignment);
    if (!e)
        e = b->cublasLtMatmulAlgoGetHeuristic(b->handle, c->op, c->w, c->x, c->out, c->out, pref,
                                              CANDIDATES, found, count);
    b->cublasLtMatmulPreferenceDestroy(pref);
    if (e == CUBLAS_STATUS_NOT_SUPPORTED) *count = 0;
    return e == CUBLAS_STATUS_NOT_SUPPORTED ? KN_OK : lt(b, e, "heuristic", k);
}

/* Some candidates; *slow: with slow_sums. */
static kn_status find_candidates(const kn_cuda *cuda, const call *c, const product_key *k,
                                 cublasLtMatmulHeuristicResult_t *found, int *count, bool *slow)
{
    *slow = false;
    KN_TRY(candidates_of(cuda, c, k, found, count));
    if (*count == 0 && c->scale_w) {
        *slow = true;
        KN_TRY(slow_sums(c, k));
        KN_TRY(candidates_of(cuda, c, k, found, count));
    }
    return *count > 0 ? KN_OK : lt(c->b, CUBLAS_STATUS_NOT_SUPPORTED, "heuristic", k);
}

static kn_status choose(kn_dev *d, const call *c, const product_key *k, const kn_tensor *result,
                        const cublasLtMatmulAlgo_t **out)
{
    const kn_cuda *cuda = kn_cuda_of(d);
    kn_blaslt *b = c->b;
    for (int i = 0; i < b->count; i++)
        if (memcmp(&b->cache[i].key, k, sizeof *k) == 0) { /* NOLINT(bugprone-suspicious-memory-comparison): zeroed before */
            *out = &b->cache[i].algo;
            return b->cache[i].slow_sums ? slow_sums(c, k) : KN_OK;
        }
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0, best = 0;
    float best_ms = 1e30f, ms;
    uint64_t first = 0, hash;
    bool any = false, slow;
    cudaEvent_t ev[2] = {NULL, NULL};
    kn_status st = KN_OK;
    KN_TRY(find_candidates(cuda, c, k, found, &count, &slow));
    KN_CUDA_TRY_GOTO(cudaEventCreate(&ev[0]));
    KN_CUDA_TRY_GOTO(cudaEventCreate(&ev[1]));
    for (int i = 0; count > 1 && i < count; i++) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
        KN_TRY_GOTO(time_candidate(cuda, c, k, &found[i].algo, ev, &ms));
        KN_TRY_GOTO(kn_cuda_hash(d, result, &hash));
        if (!any) first = hash, any = true;
        if (hash == first && ms < best_ms) best_ms = ms, best = i;
    }
    /* a full cache starts over: shapes of one job are few */
    if (b->count == CACHE) b->count = 0;
    b->cache[b->count].key = *k;
    b->cache[b->count].algo = found[best].algo;
    b->cache[b->count].slow_sums = slow;
    *out = &b->cache[b->count++].algo;
done:
    for (int i = 0; i < 2; i++)
        if (ev[i]) cudaEventDestroy(ev[i]);
    return st;
}

/* Largest power of two that divides an address, up to what cuBLASLt asks about. */
static uint32_t alignment_of(uintptr_t address)
{
    uint32_t bytes = 256;
    while (address % bytes) bytes /= 2;
    return bytes;
}

static int epilogue_of(bool gelu, bool bias)
{
    if (gelu) return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

static kn_status run_product(kn_dev *d, call *c, const product_key *k, const void *bias, const kn_tensor *result)
{
    const cublasLtMatmulAlgo_t *algo = NULL;
    kn_status st = open_call(c, k, bias);
    if (st == KN_OK) st = choose(d, c, k, result, &algo);
    if (st == KN_OK) st = run_call(kn_cuda_of(d), c, k, algo);
    close_call(c);
    return st;
}

/* x, out: rows at an even pitch, 16-byte aligned. */
static kn_status run_bf16(kn_dev *d, const kn_rows *x, const kn_weight *w, const void *bias, bool gelu,
                          const kn_tensor *result)
{
    kn_rows out = kn_rows_of(result);
    KN_TRY(open_blaslt(kn_cuda_of(d)));
    product_key k;
    memset(&k, 0, sizeof k); /* padding too: keys are compared as bytes */
    k.m = x->count, k.n = w->t.dim[0], k.k = w->t.dim[1];
    k.ldx = x->count > 1 ? x->pitch[0] / 2 : k.k;
    k.ldo = out.count > 1 ? out.pitch[0] / (int64_t)kn_dtype_size(result->dtype) : k.n;
    k.in_type = CUDA_R_16BF;
    k.out_type = result->dtype == KN_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    k.epilogue = epilogue_of(gelu, bias != NULL);
    k.alignment = alignment_of((uintptr_t)w->t.data | (uintptr_t)x->data | (uintptr_t)out.data);
    call c = {.b = kn_cuda_of(d)->blaslt, .pw = w->t.data, .px = x->data, .po = out.data};
    return run_product(d, &c, &k, bias, result);
}

/* What the tensor-core kernels take: bf16, rows at one pitch, 16-byte aligned, K in eights. */
static bool fits_product(const kn_tensor *x, const kn_weight *w, const kn_tensor *out)
{
    kn_rows rx = kn_rows_of(x), ro = kn_rows_of(out);
    return x->dtype == KN_BF16 && rx.axes == 1 && ro.axes == 1 && w->t.dim[1] % 8 == 0 &&
           (uintptr_t)rx.data % 16 == 0 && (uintptr_t)ro.data % 16 == 0 && rx.pitch[0] % 16 == 0 &&
           ro.pitch[0] % 16 == 0 && w->t.dim[0] % 8 == 0 && w->t.dim[0] * 2 <= KN_CUDA_BIAS_BYTES;
}

/* cuBLASLt adds a bias of the output's dtype: into memory behind the workspace, in stream order. */
static kn_status bias_in_bf16(kn_dev *d, const void **bias, int64_t count)
{
    if (!*bias) return KN_OK;
    void *half = (char *)kn_cuda_of(d)->workspace + kn_cuda_of(d)->workspace_bytes;
    KN_TRY(kn_cuda_convert(d, *bias, KN_F32, half, KN_BF16, count));
    *bias = half;
    return KN_OK;
}

kn_status kn_cuda_linear(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                         kn_activation act, const kn_tensor *out)
{
    const void *b = bias ? bias->data : NULL;
    if (!fits_product(x, w, out)) return kn_cuda_linear_f32(d, x, w->t.data, b, act, out);
    if (out->dtype == KN_BF16) KN_TRY(bias_in_bf16(d, &b, w->t.dim[0]));
    kn_rows rx = kn_rows_of(x);
    KN_TRY(run_bf16(d, &rx, w, b, act == KN_ACT_GELU_TANH, out));
    if (act == KN_ACT_NONE || act == KN_ACT_GELU_TANH) return KN_OK;
    return d->ops.act(d, out, act, out);
}

/* The weight is rounded at every call: a read of it, of which the product's operations take a hundred times as
 * long, and no second copy has to be kept or planned for. */
kn_status kn_cuda_linear_f8(kn_dev *d, const kn_eight_bits *x, const kn_weight *w, const kn_eight_bits *room,
                            const kn_tensor *bias, kn_activation act, const kn_tensor *out)
{
    kn_cuda *cuda = kn_cuda_of(d);
    const void *b = bias ? bias->data : NULL;
    if (w->t.dim[0] * 2 > KN_CUDA_BIAS_BYTES || out->dtype != KN_BF16)
        return kn_fail(KN_ERR_UNSUPPORTED, "linear_f8: expected bf16 results of at most %d columns, found %s of %lld",
                       KN_CUDA_BIAS_BYTES / 2, kn_dtype_name(out->dtype), (long long)w->t.dim[0]);
    KN_TRY(open_blaslt(cuda));
    KN_TRY(bias_in_bf16(d, &b, w->t.dim[0]));
    KN_TRY(kn_cuda_quantize(d, &w->t, &room->codes, &room->scale));
    product_key k;
    memset(&k, 0, sizeof k);
    k.m = x->codes.dim[0], k.n = k.ldo = w->t.dim[0], k.k = k.ldx = w->t.dim[1];
    k.in_type = CUDA_R_8F_E4M3;
    k.out_type = CUDA_R_16BF;
    k.alignment = alignment_of((uintptr_t)room->codes.data | (uintptr_t)x->codes.data | (uintptr_t)out->data);
    k.epilogue = epilogue_of(act == KN_ACT_GELU_TANH, b != NULL);
    call c = {.b = cuda->blaslt, .pw = room->codes.data, .px = x->codes.data, .po = out->data,
              .scale_w = room->scale.data, .scale_x = x->scale.data};
    KN_TRY(run_product(d, &c, &k, b, out));
    if (act == KN_ACT_NONE || act == KN_ACT_GELU_TANH) return KN_OK;
    return d->ops.act(d, out, act, out);
}

/* ---- products of many pairs ------------------------------------------------------------------- */
static kn_status open_layout(kn_blaslt *b, cudaDataType_t type, int64_t rows, int64_t columns,
                             int64_t pitch, int64_t step, int32_t batch, const product_key *k,
                             cublasLtMatrixLayout_t *out)
{
    KN_TRY(lt(b, b->cublasLtMatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)columns, pitch),
              "layout", k));
    KN_TRY(lt(b, b->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                     &batch, sizeof batch),
              "layout", k));
    return lt(b, b->cublasLtMatrixLayoutSetAttribute(
                     *out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step),
              "layout", k);
}

/* The column-major product out^T = y' x', as in kn_cuda_linear. */
static kn_status open_batch(call *c, const kn_cuda_product *p, const product_key *k)
{
    kn_blaslt *b = c->b;
    cublasOperation_t turn = p->y_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cudaDataType_t out_type = p->out_dtype == KN_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    int32_t batch = (int32_t)p->batch;
    KN_TRY(lt(b, b->cublasLtMatmulDescCreate(&c->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description",
              k));
    KN_TRY(lt(b, b->cublasLtMatmulDescSetAttribute(c->op, CUBLASLT_MATMUL_DESC_TRANSA, &turn,
                                                   sizeof turn),
              "description", k));
    KN_TRY(open_layout(b, CUDA_R_16BF, p->y_transposed ? p->k : p->n,
                       p->y_transposed ? p->n : p->k, p->pitch_y, p->step_y, batch, k, &c->w));
    KN_TRY(open_layout(b, CUDA_R_16BF, p->k, p->m, p->pitch_x, p->step_x, batch, k, &c->x));
    return open_layout(b, out_type, p->n, p->m, p->pitch_out, p->step_out, batch, k, &c->out);
}

static kn_status choose_batch(const kn_cuda *cuda, const call *c, const kn_cuda_product *p,
                              const product_key *k, const cublasLtMatmulAlgo_t **algo)
{
    kn_blaslt *b = c->b;
    kn_cuda_product key;
    memcpy(&key, p, sizeof key); /* padding too: keys are compared as bytes */
    key.x = key.y = key.out = NULL;
    for (int i = 0; i < b->batches; i++)
        if (memcmp(&b->batch[i].key, &key, sizeof key) == 0) { /* NOLINT(bugprone-suspicious-memory-comparison): likewise */
            *algo = &b->batch[i].algo;
            return KN_OK;
        }
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0;
    KN_TRY(candidates_of(cuda, c, k, found, &count));
    if (count == 0) /* a caller may have another way; not where a call failed */
        return kn_fail(KN_ERR_UNSUPPORTED, "cuBLASLt: no algorithm for [%lld, %lld] by [%lld, %lld]",
                       (long long)k->m, (long long)k->k, (long long)k->k, (long long)k->n);
    if (b->batches == BATCH_CACHE) b->batches = 0;
    memcpy(&b->batch[b->batches].key, &key, sizeof key);
    b->batch[b->batches].algo = found[0].algo;
    *algo = &b->batch[b->batches++].algo;
    return KN_OK;
}

kn_status kn_cuda_products(kn_dev *d, const kn_cuda_product *p)
{
    kn_cuda *cuda = kn_cuda_of(d);
    KN_TRY(open_blaslt(cuda));
    product_key k = {.m = p->m, .n = p->n, .k = p->k, .alignment = 16}; /* for messages */
    call c = {.b = cuda->blaslt, .pw = p->y, .px = p->x, .po = p->out};
    const cublasLtMatmulAlgo_t *algo = NULL;
    kn_status st = open_batch(&c, p, &k);
    if (st == KN_OK) st = choose_batch(cuda, &c, p, &k, &algo);
    if (st == KN_OK) st = run_call(cuda, &c, &k, algo);
    close_call(&c);
    return st;
}
