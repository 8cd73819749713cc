/* bench/attention_hopper.cu - checks and times the CUDA attention kernels by themselves.
 *
 * attention_hopper check [sm80 | sm90 | int8 [SHARE OF]] | time | errors | few [sm80 | sm90 | int8] | pack
 * check:  every kind of list against a double-precision reference on sampled rows; outputs poisoned
 *         before, log-sum-exp compared, two runs compared bit for bit. Exit status 1 on a failure.
 *         int8 is also compared with a reference on the bytes themselves. SHARE OF: every OF-th check from
 *         the SHARE-th (0 ..) on, for tools that are slow. KN_CHECK_QUICK: small grids, one head.
 * time:   medians of dense attention, of the 1080p window, and of random lists; int8 with its packing.
 * few:    two launches of each kernel, for a profiler.
 * pack:   time of q, k and v into bytes at 1080p, from memory and with norm and rotation of q and k.
 * errors: of int8 and of bf16 at the 1080p window, on several kinds of input.
 */
#include <cuda_bf16.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <vector>

extern "C" {
#include "attention/window.h"
}
#include "attention/lists.h"
#include "attention/sparse_kernels.h"

#define TRY(x)                                                                                     \
    do {                                                                                           \
        cudaError_t e_ = (x);                                                                      \
        if (e_ != cudaSuccess) {                                                                   \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(e_));             \
            exit(2);                                                                               \
        }                                                                                          \
    } while (0)

typedef __nv_bfloat16 bf16;

__device__ static uint32_t mix(uint64_t x)
{
    x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53ull;
    return (uint32_t)((x ^ (x >> 33)) >> 11);
}
__global__ static void fill_normal(bf16 *x, int64_t n, uint64_t seed, float gain)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        float u = (mix(i * 2 + seed * 0x9E3779B97F4A7C15ull) + 1.0f) * 0x1p-32f;
        float v = mix(i * 2 + 1 + seed * 0x9E3779B97F4A7C15ull) * 0x1p-32f;
        x[i] = __float2bfloat16(gain * sqrtf(-2.0f * logf(fminf(u, 1.0f))) * cospif(2.0f * v));
    }
}
/* Kinds of input for int8, made of normal q, k, v side by side. */
enum kind { NORMAL, SHARP, CHANNELS, OFFSETS, SMOOTH, SINK, HEAVY, KINDS };
static const char *const KIND[] = {"normal", "logits of deviation 3", "4 channels of k x 12",
                                   "k and v off centre", "smooth over the keys, and noise",
                                   "one key x 8", "log-normal tokens"};
__device__ static float unit_normal(uint64_t x)
{
    return sqrtf(-2.0f * logf((mix(x) + 1.0f) * 0x1p-32f)) * cospif(2.0f * mix(~x) * 0x1p-32f);
}
__global__ static void shape(bf16 *x, int64_t n, int64_t row, int kind, float noise, float gain)
{
    int64_t tokens = n / (3 * row);
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        int64_t token = i / (3 * row);
        int part = (int)(i / row % 3), column = (int)(i % row);
        float y = __bfloat162float(x[i]), a = unit_normal(column * 2 + 1 + 77 * part);
        if (kind == SHARP && part == 0) y *= 3;
        if (kind == CHANNELS && part == 1 && column % 32 == 5) y *= 12;
        if (kind == OFFSETS && part) y += (part == 1 ? 3 : 1) * a;
        if (kind == SMOOTH)
            y = noise * y + gain * sqrtf(2 - 2 * noise * noise) *
                                sinpif(2.0f * (1 + column % 23) * token / tokens + a);
        if (kind == SINK && part == 1 && token == 17) y *= 8;
        if (kind == HEAVY && part) y *= expf(0.4f * unit_normal(1000003 + token * 3 + part));
        x[i] = __float2bfloat16(y);
    }
}
__global__ static void count_nan(const bf16 *x, int64_t n, int *count)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x)
        if (isnan(__bfloat162float(x[i]))) atomicAdd(count, 1);
}
__global__ static void count_diff(const uint16_t *x, const uint16_t *y, int64_t n, int *count)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x)
        if (x[i] != y[i]) atomicAdd(count, 1);
}

struct sample {
    int head, query;
};
__device__ static double wide(bf16 x)
{
    return __bfloat162float(x);
}
__device__ static double wide(float x)
{
    return x;
}
/* One sampled row per block of 256 threads, in double. visible: [samples][keys] or NULL. */
template <class T>
__global__ static void reference(kn_attn_problem p, const sample *at, const uint8_t *visible,
                                 double *scores, double *out, double *lse)
{
    __shared__ double red[256];
    int n = blockIdx.x, t = threadIdx.x;
    double *s = scores + (int64_t)n * p.keys;
    const T *q = (const T *)p.q + at[n].query * p.q_token + at[n].head * p.q_head;
    double top = -INFINITY, sum = 0;
    for (int64_t k = t; k < p.keys; k += 256) {
        double d = 0;
        const T *kk = (const T *)p.k + k * p.k_token + at[n].head * p.k_head;
        for (int i = 0; i < p.dim; i++) d += wide(q[i]) * wide(kk[i]);
        s[k] = !visible || visible[n * p.keys + k] ? d * p.scale : -INFINITY;
        top = fmax(top, s[k]);
    }
    red[t] = top;
    __syncthreads();
    for (int i = 128; i; i >>= 1) {
        if (t < i) red[t] = fmax(red[t], red[t + i]);
        __syncthreads();
    }
    top = red[0];
    __syncthreads();
    for (int64_t k = t; k < p.keys; k += 256)
        sum += s[k] = s[k] == -INFINITY ? 0 : exp(s[k] - top);
    red[t] = sum;
    __syncthreads();
    for (int i = 128; i; i >>= 1) {
        if (t < i) red[t] += red[t + i];
        __syncthreads();
    }
    sum = red[0];
    if (t == 0) lse[n] = sum > 0 ? top + log(sum) : -INFINITY;
    __syncthreads();
    int parts = 256 / p.dim, d = t % p.dim;
    double acc = 0;
    for (int64_t k = t / p.dim; k < p.keys; k += parts)
        acc += s[k] * wide(((const T *)p.v)[k * p.v_token + at[n].head * p.v_head + d]);
    red[t] = acc;
    __syncthreads();
    if (t < p.dim) {
        for (int i = 1; i < parts; i++) acc += red[t + i * p.dim];
        out[n * p.dim + t] = sum > 0 ? acc / sum : 0;
    }
}

typedef cudaError_t (*kernel_fn)(const kn_attn_problem *, cudaStream_t);

/* The packing and the kernel, over one growing piece of memory. */
static kn_attn_int8 packed;
static bool keep_packing; /* time the kernel alone */
static cudaError_t run_int8(const kn_attn_problem *p, cudaStream_t stream)
{
    static void *memory;
    static size_t bytes;
    size_t need = kn_attn_int8_place(nullptr, p->queries, p->keys, p->heads, &packed);
    if (need > bytes) {
        TRY(cudaDeviceSynchronize());
        TRY(cudaFree(memory));
        TRY(cudaMalloc(&memory, need));
        bytes = need;
    }
    cudaError_t e = cudaSuccess;
    kn_attn_int8_place(memory, p->queries, p->keys, p->heads, &packed);
    if (!keep_packing) e = kn_attn_int8_pack(p, &packed, stream);
    return e ? e : kn_attn_launch_int8(p, &packed, stream);
}

/* The bytes as floats, as stored: q so that scale q k is the kernel's score; k without its scale;
 * shift [heads][queries]. */
__global__ static void unpack(kn_attn_problem p, kn_attn_int8 x, const int32_t *perm_q,
                              const int32_t *perm_k, int64_t own, float *q, float *k, float *v,
                              double *shift)
{
    int c = threadIdx.x, head = blockIdx.y;
    int64_t t = blockIdx.x;
    const float *channel = x.channel + head * 4 * 128 + c;
    if (t < p.queries) {
        float s = x.q_scale[head * x.q_pitch + t] / (p.scale * 1.44269504088896f);
        int64_t to = perm_q ? perm_q[head * own + t] : t;
        q[(to * p.heads + head) * 128 + c] = x.q[(head * x.q_pitch + t) * 128 + c] * s;
        shift[head * p.queries + to] = x.q_shift[head * x.q_pitch + t];
    }
    if (t < p.keys) {
        int64_t to = perm_k ? perm_k[head * own + t] : t;
        k[(to * p.heads + head) * 128 + c] = x.k[(head * x.k_pitch + kn_attn_int8_place_of(t)) * 128 + c];
        v[(to * p.heads + head) * 128 + c] =
            x.v[(head * x.k_pitch + t / 16 * 16) * 128 + c * 16 + t % 16] * channel[3 * 128] + channel[2 * 128];
    }
}

struct bench {
    kn_attn_problem p;
    int64_t row; /* elements of a token of out */
    bf16 *qkv, *out, *again;
    int *counter;
    kn_attn_lists lists;
};

static void *to_device(const void *host, size_t bytes)
{
    void *d = nullptr;
    if (!host) return d;
    TRY(cudaMalloc(&d, bytes + 16));
    TRY(cudaMemcpy(d, host, bytes, cudaMemcpyHostToDevice));
    return d;
}

static int align_of(kernel_fn kernel)
{
    return kernel == run_int8 ? KN_ATTN_INT8_ALIGN : 1;
}

/* masks: as the kernels of Hopper take them; the others go by the rules. */
static void use_plan(bench *b, const kn_attn_plan *plan, int align, bool masks = true)
{
    kn_attn_host_lists h;
    if (kn_attn_host_lists_build(plan, b->p.heads, align, &h) != KN_OK) printf("%s\n", kn_error_text()), exit(2);
    if (masks && kn_attn_host_lists_mask(plan, &h) != KN_OK) printf("%s\n", kn_error_text()), exit(2);
    kn_attn_lists *v = &b->lists;
    *v = h.view;
    v->q_start = (int32_t *)to_device(h.q_start, (v->q_blocks + 1) * 4);
    v->row = (kn_attn_list_row *)to_device(h.row, h.rows * 16);
    v->entry = (kn_attn_entry *)to_device(h.entry, h.entries * 8);
    v->order = (int32_t *)to_device(h.order, h.order_count * 4);
    v->perm_q = (int32_t *)to_device(plan->perm_q, plan->perm_heads * plan->tokens * 4);
    v->perm_k = (int32_t *)to_device(plan->perm_k, plan->perm_heads * plan->tokens * 4);
    v->k_pos = (uint32_t *)to_device(h.k_pos, (h.sets * v->k_pitch + KN_ATTN_POS_SPAN) * 4);
    int64_t slots = h.sets * (int64_t)v->rules * v->tokens;
    v->q_box = (uint32_t *)to_device(h.q_box, slots * 8);
    v->k_class = (uint32_t *)to_device(h.k_class, slots * 4);
    v->q_class = (uint32_t *)to_device(h.q_class, slots * 4);
    v->mask = (uint32_t *)to_device(h.mask, h.masks * KN_ATTN_MASK_WORDS * 4);
    b->p.lists = v;
    double partial = 0, total = 0;
    for (int64_t i = 0; i < h.rows; i++) partial += h.row[i].partial, total += h.row[i].total;
    if (h.masks) printf("  %lld masks\n", (long long)h.masks);
    printf("  lists: %lld rows, %.1f entries each, %.1f%% masked, executed %.4f, density %.4f\n",
           (long long)h.rows, total / h.rows, 100 * partial / total, v->executed, plan->density);
    kn_attn_host_lists_free(&h);
}

static void drop_plan(bench *b)
{
    kn_attn_lists *v = &b->lists;
    const void *all[] = {v->q_start, v->row, v->entry, v->order, v->perm_q, v->perm_k, v->mask,
                         v->k_pos, v->q_box, v->k_class, v->q_class};
    for (const void *x : all) TRY(cudaFree((void *)x));
    memset(v, 0, sizeof *v);
    b->p.lists = nullptr;
}

static bench open_bench(int64_t queries, int64_t keys, int heads, int dim, float gain = 1)
{
    bench b;
    memset(&b, 0, sizeof b);
    int64_t n = std::max(queries, keys) * heads * dim * 3;
    b.row = heads * dim;
    TRY(cudaMalloc(&b.qkv, n * 2));
    TRY(cudaMalloc(&b.out, queries * b.row * 2));
    TRY(cudaMalloc(&b.again, queries * b.row * 2));
    TRY(cudaMalloc(&b.p.lse, queries * heads * 4));
    TRY(cudaMalloc(&b.counter, 4));
    b.p.spare_bytes = 32 << 20;
    TRY(cudaMalloc(&b.p.spare, b.p.spare_bytes));
    fill_normal<<<1024, 256>>>(b.qkv, n, 7, gain);
    kn_attn_problem *p = &b.p;
    p->q = b.qkv, p->k = b.qkv + b.row, p->v = b.qkv + 2 * b.row, p->out = b.out;
    p->q_token = p->k_token = p->v_token = 3 * b.row, p->out_token = b.row;
    p->q_head = p->k_head = p->v_head = p->out_head = dim;
    p->lse_head = queries, p->lse_token = 1;
    p->queries = queries, p->keys = keys, p->heads = heads, p->dim = dim;
    p->scale = 1.0f / sqrtf((float)dim);
    p->counter = b.counter;
    cudaDeviceProp prop;
    TRY(cudaGetDeviceProperties(&prop, 0));
    p->sm_count = prop.multiProcessorCount;
    return b;
}

static void close_bench(bench *b)
{
    if (b->p.lists) drop_plan(b);
    TRY(cudaFree(b->qkv));
    TRY(cudaFree(b->out));
    TRY(cudaFree(b->again));
    TRY(cudaFree(b->p.lse));
    TRY(cudaFree(b->counter));
    TRY(cudaFree(b->p.spare));
}

/* What a kernel is held to. */
struct limits {
    double error, lse;
};
/* bf16 weights and outputs: 2^-9 each in the mean; log-sum-exp: two units of ex2.approx. */
static const limits BF16 = {6e-3, 1e-3};
/* int8 against its own bytes: weights of 8 bits below the largest of each 128 keys. */
static const limits BYTES = {1.6e-2, 2e-2};

struct difference {
    double error, worst, lse;
};

/* out and lse of sampled rows against the reference. */
template <class T>
static difference compare(const kn_attn_problem &p, const std::vector<sample> &at, const uint8_t *seen,
                          const std::vector<uint16_t> &o, const std::vector<float> &lse, int64_t row,
                          const double *shift)
{
    size_t samples = at.size();
    sample *d_at = (sample *)to_device(at.data(), samples * sizeof(sample));
    double *scores, *want, *want_lse;
    TRY(cudaMalloc(&scores, samples * p.keys * 8));
    TRY(cudaMalloc(&want, samples * p.dim * 8));
    TRY(cudaMalloc(&want_lse, samples * 8));
    reference<T><<<(unsigned)samples, 256>>>(p, d_at, seen, scores, want, want_lse);
    TRY(cudaDeviceSynchronize());
    std::vector<double> w(samples * p.dim), wl(samples);
    TRY(cudaMemcpy(w.data(), want, w.size() * 8, cudaMemcpyDeviceToHost));
    TRY(cudaMemcpy(wl.data(), want_lse, samples * 8, cudaMemcpyDeviceToHost));
    for (void *x : {(void *)d_at, (void *)scores, (void *)want, (void *)want_lse}) TRY(cudaFree(x));
    double err = 0, norm = 0;
    difference r = {0, 0, 0};
    for (size_t i = 0; i < samples; i++) {
        int64_t line = at[i].head * p.queries + at[i].query;
        double l = lse[line], wanted = wl[i] + (shift ? shift[line] : 0);
        double d = l == wanted ? 0 : fabs(l - wanted);
        if (!(d <= r.lse)) r.lse = d;
        for (int c = 0; c < p.dim; c++) {
            uint32_t bits = (uint32_t)o[at[i].query * row + at[i].head * p.dim + c] << 16;
            float x;
            memcpy(&x, &bits, 4);
            double dd = x - w[i * p.dim + c];
            err += dd * dd, norm += w[i * p.dim + c] * w[i * p.dim + c];
            if (!(fabs(dd) <= r.worst)) r.worst = fabs(dd);
        }
    }
    r.error = norm > 0 ? sqrt(err / norm) : sqrt(err);
    return r;
}

/* Against the bytes that were packed last. */
static difference compare_bytes(const kn_attn_problem &p, const std::vector<sample> &at,
                                const uint8_t *seen, const std::vector<uint16_t> &o,
                                const std::vector<float> &lse, int64_t row)
{
    kn_attn_problem f = p;
    float *q, *k, *v;
    double *shift;
    TRY(cudaMalloc(&q, p.queries * p.heads * 512));
    TRY(cudaMalloc(&k, p.keys * p.heads * 512));
    TRY(cudaMalloc(&v, p.keys * p.heads * 512));
    TRY(cudaMalloc(&shift, p.queries * p.heads * 8));
    unpack<<<dim3((unsigned)std::max(p.queries, p.keys), p.heads), 128>>>(
        p, packed, p.lists ? p.lists->perm_q : nullptr, p.lists ? p.lists->perm_k : nullptr,
        p.lists && p.lists->perm_heads > 1 ? p.lists->tokens : 0, q, k, v, shift);
    std::vector<double> s(p.queries * p.heads);
    TRY(cudaMemcpy(s.data(), shift, s.size() * 8, cudaMemcpyDeviceToHost));
    f.q = q, f.k = k, f.v = v;
    f.q_token = f.k_token = f.v_token = p.heads * 128, f.q_head = f.k_head = f.v_head = 128;
    difference d = compare<float>(f, at, seen, o, lse, row, s.data());
    for (void *x : {(void *)q, (void *)k, (void *)v, (void *)shift}) TRY(cudaFree(x));
    return d;
}

/* For sanitizers: fewer heads, sizes and repetitions, a smaller grid, every kind of list. */
static bool quick()
{
    return getenv("KN_CHECK_QUICK") != nullptr;
}

static int share, shares = 1, checks; /* of the checks: those of this process */

/* Error of sampled rows against the reference, poison, and a second run. */
static int check(const char *name, bench *b, const kn_attn_plan *plan, kernel_fn kernel, int samples,
                 limits bound = BF16)
{
    if (checks++ % shares != share) return 0;
    kn_attn_problem *p = &b->p;
    int64_t n = p->queries * b->row;
    TRY(cudaMemset(b->out, 0xff, n * 2));
    TRY(cudaMemset(p->lse, 0xff, p->queries * p->heads * 4));
    cudaError_t e = kernel(p, 0);
    if (!e) e = cudaDeviceSynchronize();
    if (e) return printf("FAIL %s: %s\n", name, cudaGetErrorString(e)), exit(1), 1;
    std::vector<sample> at(samples);
    std::vector<uint8_t> seen(plan ? samples * p->keys : 0);
    for (int i = 0; i < samples; i++) {
        at[i].head = i % p->heads;
        at[i].query = i < 8 ? (i & 1 ? (int)p->queries - 1 - i / 2 : i / 2)
                            : (int)((i * 2654435761u) % p->queries);
        at[i].query = (int)((at[i].query % p->queries + p->queries) % p->queries);
        if (plan && kn_attn_plan_row(plan, at[i].head, at[i].query, &seen[i * p->keys]) != KN_OK)
            exit(2);
    }
    uint8_t *d_seen = plan ? (uint8_t *)to_device(seen.data(), seen.size()) : nullptr;
    std::vector<uint16_t> o(n);
    std::vector<float> lse(p->queries * p->heads);
    TRY(cudaMemcpy(o.data(), b->out, n * 2, cudaMemcpyDeviceToHost));
    TRY(cudaMemcpy(lse.data(), p->lse, lse.size() * 4, cudaMemcpyDeviceToHost));
    difference d = compare<bf16>(*p, at, d_seen, o, lse, b->row, nullptr);
    int *d_count, count[2] = {0, 0};
    TRY(cudaMalloc(&d_count, 8));
    TRY(cudaMemset(d_count, 0, 8));
    count_nan<<<512, 256>>>(b->out, n, d_count);
    for (int again = 0; again < (quick() ? 1 : 3); again++) {
        kn_attn_problem second = *p;
        second.out = b->again;
        TRY(cudaMemset(b->again, 0x7f, n * 2));
        TRY(kernel(&second, 0));
        count_diff<<<512, 256>>>((uint16_t *)b->out, (uint16_t *)b->again, n, d_count + 1);
    }
    TRY(cudaDeviceSynchronize());
    TRY(cudaMemcpy(count, d_count, 8, cudaMemcpyDeviceToHost));
    bool ok = d.error < bound.error && d.lse < bound.lse && !count[0] && !count[1];
    char bytes[64] = "";
    if (kernel == run_int8) {
        difference own = compare_bytes(*p, at, d_seen, o, lse, b->row);
        ok = ok && own.error < BYTES.error && own.lse < BYTES.lse;
        snprintf(bytes, sizeof bytes, " (its bytes: %.2e, lse %.1e)", own.error, own.lse);
    }
    printf("%s %-34s rel L2 %.2e, max %.2e, lse %.1e, NaN %d, differing %d%s\n", ok ? "ok  " : "FAIL",
           name, d.error, d.worst, d.lse, count[0], count[1], bytes);
    for (void *x : {(void *)d_seen, (void *)d_count}) TRY(cudaFree(x));
    return !ok;
}

static kn_attn_plan *window(const int grid[3], const int tile[3], const int *query_tile,
                            int window_h, int window_w, int dilation, int64_t text, int block)
{
    kn_window_params w;
    memset(&w, 0, sizeof w);
    memcpy(w.layout.grid, grid, sizeof w.layout.grid);
    memcpy(w.layout.tile, tile, sizeof w.layout.tile);
    w.layout.text = text;
    if (query_tile) memcpy(w.query_tile, query_tile, sizeof w.query_tile);
    w.block = block;
    w.window[1].size = window_h, w.window[2].size = window_w;
    w.window[1].dilation = w.window[2].dilation = dilation;
    kn_attn_plan *p;
    if (kn_window_plan(&w, &p) != KN_OK) printf("%s\n", kn_error_text()), exit(2);
    return p;
}

/* Random blocks of 128 keys for each head and query block. */
static kn_attn_plan *random_lists(int64_t tokens, int heads, double density, uint32_t seed)
{
    kn_attn_plan_params params;
    memset(&params, 0, sizeof params);
    params.layout.grid[0] = 1, params.layout.grid[1] = 1, params.layout.grid[2] = 1;
    params.layout.tile[0] = params.layout.tile[1] = params.layout.tile[2] = 1;
    params.layout.text = tokens - 1;
    params.block = 128, params.heads = heads;
    kn_attn_plan *p;
    if (kn_attn_plan_open(&params, &p) != KN_OK) printf("%s\n", kn_error_text()), exit(2);
    p->q_blocks = (tokens + 127) / 128; /* the text's cuts, without the lone grid token's */
    for (int64_t i = 0; i <= p->q_blocks; i++) p->q_start[i] = (int32_t)std::min(tokens, i * 128);
    std::vector<int> pick(p->q_blocks);
    for (int64_t r = 0; r < heads * p->q_blocks; r++) {
        int64_t n = p->q_blocks, want = std::max<int64_t>(1, llround(density * n));
        for (int64_t i = 0; i < n; i++) pick[i] = (int)i;
        for (int64_t i = 0; i < want; i++) {
            seed = seed * 1664525u + 1013904223u;
            std::swap(pick[i], pick[i + (seed >> 8) % (n - i)]);
        }
        std::sort(pick.begin(), pick.begin() + want);
        for (int64_t i = 0; i < want; i++) {
            int64_t key = pick[i] * 128ll;
            if (kn_attn_plan_add(p, key, std::min<int64_t>(128, tokens - key), -1)) exit(2);
        }
        if (kn_attn_plan_end_row(p)) exit(2);
    }
    p->density = density;
    return p;
}

static int check_plan(const char *name, bench *b, kn_attn_plan *plan, kernel_fn kernel,
                      limits bound = BF16)
{
    if (kn_attn_plan_check(plan) != KN_OK) printf("%s: %s\n", name, kn_error_text()), exit(2);
    use_plan(b, plan, align_of(kernel), kernel != kn_attn_launch_sm80);
    int bad = check(name, b, plan, kernel, 96, bound);
    drop_plan(b);
    kn_attn_plan_free(&plan);
    return bad;
}

static int check_all(kernel_fn kernel)
{
    bool bytes = kernel == run_int8;
    /* The bounds of int8 against the stored q, k, v: 2e-2 seen on normal inputs, larger by the
     * deviation of the logits, which is 9 with the large ones. */
    limits small = bytes ? limits{3e-2, 0.15} : BF16, large = bytes ? limits{1.5e-1, 1.5} : BF16;
    int bad = 0, heads = quick() ? 1 : 3;
    for (int dim = bytes ? 128 : 64; dim <= 128; dim += 64) {
        /* 130, 300 and 9000 by more than 4096: rows in parts, in the last case behind whole
         * ones. */
        static const int sizes[][2] = {{130, 4200},  {1, 1},      {128, 128},  {200, 70},
                                       {1000, 1000}, {77, 4096},  {3000, 512}, {9000, 900},
                                       {300, 5120},  {9000, 6200}};
        for (auto &s : sizes) {
            if (quick() && s[0] != 130) continue;
            char name[64];
            snprintf(name, sizeof name, "dense %dx%d d%d", s[0], s[1], dim);
            bench b = open_bench(s[0], s[1], 3, dim);
            bad += check(name, &b, nullptr, kernel, 64, small);
            close_bench(&b);
        }
        const int g[3] = {7, quick() ? 12 : 20, quick() ? 14 : 26}, column[3] = {7, 3, 2}, run[3] = {7, 1, 1},
                  odd[3] = {3, 4, 5};
        int64_t n = (int64_t)g[0] * g[1] * g[2];
        bench b = open_bench(n, n, heads, dim), t = open_bench(n + 77, n + 77, heads, dim);
        bench s = open_bench(n, n, heads, dim, 3.0f);
        bad += check_plan("window, tiles", &b, window(g, column, nullptr, 9, 11, 1, 0, 128), kernel, small);
        bad += check_plan("window, runs", &b, window(g, run, column, 9, 11, 1, 0, 128), kernel, small);
        bad += check_plan("window, tiles 3x4x5", &b, window(g, odd, nullptr, 5, 7, 1, 0, 128), kernel, small);
        bad += check_plan("window, blocks of 50", &b, window(g, odd, nullptr, 5, 7, 1, 0, 50), kernel, small);
        bad += check_plan("window, blocks of 300", &b, window(g, (const int[3]){7, 5, 8}, nullptr, 9, 11, 1, 0, 300), kernel, small);
        bad += check_plan("window, dilated", &b, window(g, column, nullptr, 5, 6, 2, 0, 128), kernel, small);
        bad += check_plan("window, text", &t, window(g, column, nullptr, 9, 11, 1, 77, 128), kernel, small);
        bad += check_plan("window, runs, text", &t, window(g, run, column, 9, 11, 1, 77, 128), kernel, small);
        bad += check_plan("window, large logits", &s, window(g, column, nullptr, 9, 11, 1, 0, 128), kernel, large);
        bad += check_plan("random lists", &t, random_lists(n + 77, heads, 0.3, 5), kernel, small);
        bad += check_plan("random lists, one each", &t, random_lists(n + 77, heads, 0.001, 6), kernel, small);
        if (kernel == kn_attn_launch_sm90) {
            /* An entry left out has at most 128 of the threshold in weight, of a sum of 1 or more;
             * a few dozen entries here. */
            s.p.threshold = 1e-6f;
            bad += check("skipping below 1e-6", &s, nullptr, kernel, 96);
            bad += check_plan("window, skipping below 1e-6", &s, window(g, column, nullptr, 9, 11, 1, 0, 128), kernel);
        }
        close_bench(&b), close_bench(&t), close_bench(&s);
    }
    return bad;
}

static double time_ms(bench *b, kernel_fn kernel, int rounds, double spread[2])
{
    cudaEvent_t from, to;
    TRY(cudaEventCreate(&from));
    TRY(cudaEventCreate(&to));
    std::vector<float> ms;
    for (int i = -2; i < rounds; i++) {
        float x;
        TRY(cudaEventRecord(from));
        TRY(kernel(&b->p, 0));
        TRY(cudaEventRecord(to));
        TRY(cudaEventSynchronize(to));
        TRY(cudaEventElapsedTime(&x, from, to));
        if (i >= 0) ms.push_back(x);
    }
    std::sort(ms.begin(), ms.end());
    spread[0] = ms[ms.size() / 10], spread[1] = ms[ms.size() * 9 / 10];
    return ms[ms.size() / 2];
}

static double report(const char *name, bench *b, kernel_fn kernel, int rounds, double executed)
{
    double spread[2], ms = time_ms(b, kernel, rounds, spread);
    double flop = 4.0 * b->p.queries * b->p.keys * b->p.dim * b->p.heads * executed;
    printf("%-26s %9.3f ms (%.3f - %.3f)  %6.1f TFLOP/s executed\n", name, ms, spread[0], spread[1],
           flop / ms * 1e-9);
    fflush(stdout);
    return ms;
}

static void time_all(kernel_fn kernel, bool large)
{
    const int g[3] = {21, 68, 120}, column[3] = {21, 3, 2}, run[3] = {21, 1, 1};
    for (int64_t n : {(int64_t)32760, (int64_t)75600, (int64_t)171360}) {
        bench b = open_bench(n, n, 12, 128);
        char name[64];
        snprintf(name, sizeof name, "dense %lld", (long long)n);
        int rounds = n < 50000 ? 40 : n < 100000 ? 20 : 7;
        if (n < 100000 || large) report(name, &b, kernel, rounds, 1);
        if (n == 75600) {
            double dense = report("dense again", &b, kernel, rounds, 1);
            for (double d : {0.5, 0.25, 0.1}) {
                kn_attn_plan *p = random_lists(n, 12, d, 9);
                use_plan(&b, p, align_of(kernel), kernel != kn_attn_launch_sm80);
                double ms = report("random lists", &b, kernel, rounds, b.lists.executed);
                printf("  %.0f%%: speed-up %.2f, of 1/density %.3f\n", d * 100, dense / ms,
                       dense / ms * d);
                drop_plan(&b);
                kn_attn_plan_free(&p);
            }
        }
        if (n == 171360)
            for (int i = 0; i < 2; i++) {
                kn_attn_plan *p = window(g, i ? run : column, i ? column : nullptr, 31, 53, 1, 0, 128);
                use_plan(&b, p, align_of(kernel), kernel != kn_attn_launch_sm80);
                report(i ? "window 1080p, runs" : "window 1080p, tiles", &b, kernel, 15,
                       b.lists.executed);
                if (kernel == run_int8) {
                    keep_packing = true;
                    report("  the kernel alone", &b, kernel, 15, b.lists.executed);
                    keep_packing = false;
                    drop_plan(&b);
                    use_plan(&b, p, 1);
                    report("  bf16 in turn", &b, kn_attn_launch_sm90, 15, b.lists.executed);
                    drop_plan(&b);
                    use_plan(&b, p, KN_ATTN_INT8_ALIGN);
                    report("  int8 again", &b, kernel, 15, b.lists.executed);
                }
                drop_plan(&b);
                kn_attn_plan_free(&p);
            }
        close_bench(&b);
    }
}

/* Softmax-threshold skipping on logits of standard deviation 1 and 9, of normal q and k and of such that
 * change slowly along the tokens, with a tenth of noise. */
static void time_skipping(kernel_fn kernel)
{
    for (int i = 0; i < 4; i++) {
        float gain = i & 1 ? 3 : 1;
        bench b = open_bench(32760, 32760, 12, 128, gain);
        if (i > 1) shape<<<1024, 256>>>(b.qkv, 32760 * b.row * 3, b.row, SMOOTH, 0.1f, gain);
        for (float t : {0.0f, 1e-4f, 1e-3f, 1e-2f, 1e-1f}) {
            char name[64];
            snprintf(name, sizeof name, "%s %.0f, below %g", i > 1 ? "smooth" : "normal", gain * gain, t);
            b.p.threshold = t;
            report(name, &b, kernel, 9, 1);
            check("", &b, nullptr, kernel, 48, limits{1, 1});
        }
        close_bench(&b);
    }
}

/* The window of the 480p model on a 4K grid. */
static void time_4k(kernel_fn kernel)
{
    const int g[3] = {21, 135, 240}, column[3] = {21, 3, 2};
    bench b = open_bench(21 * 135 * 240, 21 * 135 * 240, 12, 128);
    kn_attn_plan *p = window(g, column, nullptr, 31, 53, 1, 0, 128);
    use_plan(&b, p, align_of(kernel), kernel != kn_attn_launch_sm80);
    report("window 4K, tiles", &b, kernel, 5, b.lists.executed);
    kn_attn_plan_free(&p);
    close_bench(&b);
}

/* The 1080p window on several kinds of input: error against double precision. */
static void time_errors(void)
{
    const int g[3] = {21, 68, 120}, column[3] = {21, 3, 2};
    int64_t n = 21 * 68 * 120;
    for (int kind = 0; kind < KINDS; kind++) {
        bench b = open_bench(n, n, 12, 128);
        if (kind) shape<<<1024, 256>>>(b.qkv, n * b.row * 3, b.row, kind, 0.6f, 1.0f);
        kn_attn_plan *p = window(g, column, nullptr, 31, 53, 1, 0, 128);
        use_plan(&b, p, 1);
        printf("%s\n", KIND[kind]);
        check("  bf16", &b, p, kn_attn_launch_sm90, 96, limits{1, 10});
        drop_plan(&b);
        use_plan(&b, p, KN_ATTN_INT8_ALIGN);
        check("  int8", &b, p, run_int8, 96, limits{1, 10});
        kn_attn_plan_free(&p);
        close_bench(&b);
    }
}

/* Each kernel twice at the 1080p window, for a profiler. */
static void run_few(void)
{
    const int g[3] = {21, 68, 120}, column[3] = {21, 3, 2};
    int64_t n = 21 * 68 * 120;
    bench b = open_bench(n, n, 12, 128);
    kn_attn_plan *p = window(g, column, nullptr, 31, 53, 1, 0, 128);
    use_plan(&b, p, 1);
    for (int i = 0; i < 2; i++) TRY(kn_attn_launch_sm90(&b.p, 0));
    TRY(cudaDeviceSynchronize());
    drop_plan(&b);
    use_plan(&b, p, KN_ATTN_INT8_ALIGN);
    for (int i = 0; i < 2; i++) TRY(run_int8(&b.p, 0));
    TRY(cudaDeviceSynchronize());
    kn_attn_plan_free(&p);
    close_bench(&b);
}

/* Bytes counted: each of q, k, v read (k and v twice) and written as bytes, and the tables of angles twice. */
static void time_packing(void)
{
    int64_t n = 21 * 68 * 120;
    int heads = 12;
    bench b = open_bench(n, n, heads, 128);
    bf16 *x;
    float *table;
    kn_attn_int8_norm norm = {nullptr, nullptr, nullptr, nullptr, 1e-6f};
    TRY(cudaMalloc(&x, n * b.row * 2 * 3));
    TRY(cudaMalloc(&table, n * 64 * 4 * 2));
    TRY(cudaMemset(table, 0x3f, n * 64 * 4 * 2)); /* 0.747 */
    fill_normal<<<1024, 256>>>(x, n * b.row * 3, 5, 1);
    norm.cos = table, norm.sin = table + n * 64;
    kn_attn_problem p = b.p;
    p.q = x, p.k = x + n * b.row, p.v = x + 2 * n * b.row; /* as linear layers leave them */
    p.q_token = p.k_token = p.v_token = b.row, p.lse = nullptr;
    kn_attn_int8 to;
    void *memory;
    TRY(cudaMalloc(&memory, kn_attn_int8_place(nullptr, n, n, heads, &to)));
    kn_attn_int8_place(memory, n, n, heads, &to);
    cudaEvent_t from, until;
    TRY(cudaEventCreate(&from));
    TRY(cudaEventCreate(&until));
    for (int kind = 0; kind < 2; kind++) {
        std::vector<float> ms;
        p.norm = kind ? &norm : nullptr;
        for (int i = -3; i < 15; i++) {
            float t;
            TRY(cudaEventRecord(from));
            for (int j = 0; j < 10; j++) TRY(kn_attn_int8_pack(&p, &to, 0));
            TRY(cudaEventRecord(until));
            TRY(cudaEventSynchronize(until));
            TRY(cudaEventElapsedTime(&t, from, until));
            if (i >= 0) ms.push_back(t / 10);
        }
        std::sort(ms.begin(), ms.end());
        double bytes = n * (b.row * (5 * 2.0 + 3) + (kind ? 2 * 512 : 0));
        printf("packing%s %.3f ms (%.3f - %.3f), %.0f GB/s\n", kind ? " with norm and rotation" : "", ms[7], ms[1],
               ms[13], bytes / ms[7] * 1e-6);
    }
    for (void *y : {(void *)x, (void *)table, memory}) TRY(cudaFree(y));
    close_bench(&b);
}

int main(int argc, char **argv)
{
    bool old = argc > 2 && !strcmp(argv[2], "sm80");
    kernel_fn kernel = old ? kn_attn_launch_sm80 : kn_attn_launch_sm90;
    if (argc > 2 && !strcmp(argv[2], "int8")) kernel = run_int8;
    int devices = 0, major = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || !devices) {
        printf("skipped: no CUDA device\n");
        return 77;
    }
    TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (!old && major != 9) {
        printf("skipped: not a Hopper GPU\n");
        return 77;
    }
    if (argc > 1 && !strcmp(argv[1], "check")) {
        if (argc > 4) share = atoi(argv[3]), shares = atoi(argv[4]);
        if (shares < 1 || share < 0 || share >= shares) return printf("share %d of %d\n", share, shares), 2;
        int bad = check_all(kernel);
        printf("%d checks of %d, %d failed\n", (checks - share + shares - 1) / shares, checks, bad);
        return bad != 0;
    }
    if (argc > 1 && !strcmp(argv[1], "few")) {
        run_few();
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "pack")) {
        time_packing();
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "errors")) {
        time_errors();
        return 0;
    }
    bool large = argc > 1 && !strcmp(argv[1], "time");
    time_all(kernel, large);
    if (large) time_4k(kernel);
    if (large && kernel == kn_attn_launch_sm90) time_skipping(kernel);
    return 0;
}
