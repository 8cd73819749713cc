/* attention/product_cuda.cu - scores by cuBLASLt, softmax in place, weights times v by cuBLASLt. */
#include <cuda_bf16.h>
#include <math_constants.h>
#include <string.h>

#include "attention/product_cuda.h"
#include "compute/cuda.h"

enum { THREADS = 256 };

struct softmax_args {
    float *scores; /* [heads, rows, pitch] */
    const float *bias;
    float *lse;
    int64_t bs[3], ls[2];
    int64_t rows, pitch, keys, first; /* first: query of row 0 */
    float scale;
};

/* Most of all threads' values, or their sum; every thread gets it. */
template <bool MAX> __device__ static float over_block(float v, float *partial)
{
    for (int w = 16; w > 0; w >>= 1) {
        float o = __shfl_xor_sync(~0u, v, w);
        v = MAX ? fmaxf(v, o) : v + o;
    }
    __syncthreads(); /* partial may still be read by an earlier call */
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    v = partial[0];
    for (int i = 1; i < THREADS / 32; i++) v = MAX ? fmaxf(v, partial[i]) : v + partial[i];
    return v;
}

/* A block per row: bf16 weights take the place of the f32 scores, from the row's start. */
__global__ void __launch_bounds__(THREADS) softmax_kernel(softmax_args a)
{
    __shared__ float partial[THREADS / 32];
    int64_t row = blockIdx.x, head = blockIdx.y, query = a.first + row;
    float *s = a.scores + (head * a.rows + row) * a.pitch;
    const float *bias = a.bias ? a.bias + head * a.bs[0] + query * a.bs[1] : nullptr;
    float top = -CUDART_INF_F, sum = 0;
    for (int64_t i = threadIdx.x; i < a.keys; i += THREADS) {
        float v = s[i] * a.scale + (bias ? bias[i * a.bs[2]] : 0.0f);
        if (v > top) {
            sum = sum * __expf(top - v) + 1;
            top = v;
        } else if (v > -CUDART_INF_F || v != v) {
            sum += __expf(v - top);
        }
    }
    float most = over_block<true>(top, partial), base = most == -CUDART_INF_F ? 0 : most;
    sum = over_block<false>(sum * __expf(top - base), partial);
    float factor = sum == 0 ? 0 : 1 / sum; /* NaN goes on */
    __nv_bfloat16 *weights = (__nv_bfloat16 *)s;
    for (int64_t i0 = 0; i0 < a.keys; i0 += THREADS) {
        int64_t i = i0 + threadIdx.x;
        float v = i < a.keys ? s[i] * a.scale + (bias ? bias[i * a.bs[2]] : 0.0f) : 0;
        __syncthreads(); /* what is written now, lies before the scores that are still to be read */
        if (i < a.keys) weights[i] = __float2bfloat16(__expf(v - base) * factor);
    }
    if (a.lse && threadIdx.x == 0)
        a.lse[head * a.ls[0] + query * a.ls[1]] = sum == 0 ? -CUDART_INF_F : base + logf(sum);
}

static void *at(const kn_tensor *t, int64_t row)
{
    return (uint16_t *)t->data + row * t->stride[0];
}

/* Query rows first .. first + rows of all heads. */
static kn_status run_rows(kn_dev *d, const kn_attn_args *args, float *scores, int64_t first,
                          int64_t rows)
{
    int64_t pitch = kn_attn_product_pitch(args), heads = args->q.dim[1];
    kn_cuda_product p;
    memset(&p, 0, sizeof p); /* its bytes are a key */
    p.m = rows, p.n = args->k.dim[0], p.k = args->q.dim[2], p.batch = heads;
    p.x = at(&args->q, first), p.pitch_x = args->q.stride[0], p.step_x = args->q.stride[1];
    p.y = args->k.data, p.pitch_y = args->k.stride[0], p.step_y = args->k.stride[1];
    p.out = scores, p.pitch_out = pitch, p.step_out = rows * pitch;
    p.y_transposed = true, p.out_dtype = KN_F32;
    KN_TRY(kn_cuda_products(d, &p));
    softmax_args a = {};
    a.scores = scores, a.scale = args->scale;
    a.rows = rows, a.pitch = pitch, a.keys = args->k.dim[0], a.first = first;
    if (args->bias.rank) {
        a.bias = (const float *)args->bias.data;
        for (int i = 0; i < 3; i++) a.bs[i] = args->bias.stride[i];
    }
    if (args->lse.rank) {
        a.lse = (float *)args->lse.data;
        for (int i = 0; i < 2; i++) a.ls[i] = args->lse.stride[i];
    }
    softmax_kernel<<<dim3((unsigned)rows, (unsigned)heads), THREADS, 0, kn_cuda_of(d)->stream>>>(a);
    KN_CUDA_LAUNCHED("softmax");
    p.n = args->v.dim[2], p.k = args->k.dim[0];
    p.x = scores, p.pitch_x = 2 * pitch, p.step_x = 2 * rows * pitch; /* bf16 in f32's place */
    p.y = args->v.data, p.pitch_y = args->v.stride[0], p.step_y = args->v.stride[1];
    p.out = at(&args->out, first), p.pitch_out = args->out.stride[0];
    p.step_out = args->out.stride[1];
    p.y_transposed = false, p.out_dtype = KN_BF16;
    return kn_cuda_products(d, &p);
}

extern "C" kn_status kn_attn_product_cuda(kn_dev *d, const kn_attn_args *args, kn_arena *scratch)
{
    int64_t rows = kn_attn_product_rows(args), pitch = kn_attn_product_pitch(args);
    int64_t total = args->q.dim[0], dims[3] = {args->q.dim[1], rows, pitch};
    size_t bytes = (size_t)(dims[0] * rows * pitch) * sizeof(float);
    kn_tensor scores = {};
    kn_arena_mark mark = 0;
    kn_status st = KN_OK;
    void *memory = nullptr;
    if (scratch) {
        mark = kn_arena_get_mark(scratch);
        KN_TRY(kn_arena_tensor(scratch, KN_F32, 3, dims, &scores));
    } else {
        KN_TRY(kn_dev_alloc(d, bytes, &memory));
        scores.data = memory;
    }
    for (int64_t i = 0; i < total && st == KN_OK; i += rows)
        st = run_rows(d, args, (float *)scores.data, i, total - i < rows ? total - i : rows);
    if (scratch)
        kn_arena_reset(scratch, mark);
    else
        kn_dev_free(d, memory, bytes);
    return st;
}
