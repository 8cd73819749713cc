/* attention/plain_cuda.cu - dense attention of any shape, with bias; a warp per query and head.
 *
 * Each lane takes one key of 32 at a time: its whole dot product, then the lanes share the weights
 * and each sums its own columns of v. Online softmax in f32. For shapes that no library kernel
 * takes; K is read once per query, so it is slow.
 */
#include <cuda_bf16.h>
#include <math_constants.h>

#include "attention/dense_cuda.h"
#include "compute/cuda.h"

enum { MAX_DIM = 512, WARPS = 4 };

struct plain_args {
    const __nv_bfloat16 *q, *k, *v;
    __nv_bfloat16 *out;
    const float *bias;
    float *lse;
    int64_t qs[2], ks[2], vs[2], os[2], bs[3], ls[2];
    int64_t lq, lk;
    int heads, dim, dv;
    float scale;
};

__global__ void __launch_bounds__(32 * WARPS) plain_kernel(plain_args a)
{
    __shared__ float query[WARPS][MAX_DIM];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
    int64_t row = (int64_t)blockIdx.x * WARPS + warp;
    if (row >= a.lq) return;
    const __nv_bfloat16 *q = a.q + row * a.qs[0] + head * a.qs[1];
    for (int i = lane; i < a.dim; i += 32) query[warp][i] = __bfloat162float(q[i]);
    __syncwarp();
    float top = -CUDART_INF_F, sum = 0, o[MAX_DIM / 32];
#pragma unroll
    for (int i = 0; i < MAX_DIM / 32; i++) o[i] = 0;
    for (int64_t key = 0; key < a.lk; key += 32) {
        float s = -CUDART_INF_F;
        if (key + lane < a.lk) {
            const __nv_bfloat16 *k = a.k + (key + lane) * a.ks[0] + head * a.ks[1];
            s = 0;
            for (int i = 0; i < a.dim; i++) s = fmaf(query[warp][i], __bfloat162float(k[i]), s);
            s *= a.scale;
            if (a.bias) s += a.bias[head * a.bs[0] + row * a.bs[1] + (key + lane) * a.bs[2]];
        }
        float most = s;
        for (int w = 16; w > 0; w >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, w));
        most = fmaxf(most, top);
        float base = most == -CUDART_INF_F ? 0 : most;
        float keep = __expf(top - base), p = __expf(s - base);
        top = most;
        sum = sum * keep + p;
#pragma unroll
        for (int i = 0; i < MAX_DIM / 32; i++) o[i] *= keep;
        int n = a.lk - key < 32 ? (int)(a.lk - key) : 32;
        for (int j = 0; j < n; j++) {
            float weight = __shfl_sync(~0u, p, j);
            const __nv_bfloat16 *v = a.v + (key + j) * a.vs[0] + head * a.vs[1];
#pragma unroll
            for (int i = 0; i < MAX_DIM / 32; i++)
                if (lane + 32 * i < a.dv)
                    o[i] = fmaf(weight, __bfloat162float(v[lane + 32 * i]), o[i]);
        }
    }
    for (int w = 16; w > 0; w >>= 1) sum += __shfl_xor_sync(~0u, sum, w);
    float scale = sum > 0 ? 1 / sum : 0;
    __nv_bfloat16 *out = a.out + row * a.os[0] + head * a.os[1];
#pragma unroll
    for (int i = 0; i < MAX_DIM / 32; i++)
        if (lane + 32 * i < a.dv) out[lane + 32 * i] = __float2bfloat16(o[i] * scale);
    if (a.lse && lane == 0)
        a.lse[head * a.ls[0] + row * a.ls[1]] = sum > 0 ? top + logf(sum) : -CUDART_INF_F;
}

static void strides(const kn_tensor *t, int64_t out[2])
{
    out[0] = t->stride[0], out[1] = t->stride[1];
}

extern "C" kn_status kn_attn_plain_cuda(kn_dev *d, const kn_attn_args *args)
{
    plain_args a = {};
    a.q = (const __nv_bfloat16 *)args->q.data, a.k = (const __nv_bfloat16 *)args->k.data;
    a.v = (const __nv_bfloat16 *)args->v.data, a.out = (__nv_bfloat16 *)args->out.data;
    strides(&args->q, a.qs), strides(&args->k, a.ks), strides(&args->v, a.vs);
    strides(&args->out, a.os);
    a.lq = args->q.dim[0], a.lk = args->k.dim[0], a.heads = (int)args->q.dim[1];
    a.dim = (int)args->q.dim[2], a.dv = (int)args->v.dim[2];
    a.scale = args->scale;
    if (a.dim > MAX_DIM || a.dv > MAX_DIM)
        return kn_fail(KN_ERR_UNSUPPORTED, "attention: heads of %d and %d: at most %d on cuda",
                       a.dim, a.dv, MAX_DIM);
    if (args->bias.rank) {
        a.bias = (const float *)args->bias.data;
        for (int i = 0; i < 3; i++) a.bs[i] = args->bias.stride[i];
    }
    if (args->lse.rank) a.lse = (float *)args->lse.data, strides(&args->lse, a.ls);
    dim3 grid((unsigned)((a.lq + WARPS - 1) / WARPS), (unsigned)a.heads);
    plain_kernel<<<grid, 32 * WARPS, 0, kn_cuda_of(d)->stream>>>(a);
    KN_CUDA_LAUNCHED("attention");
    return KN_OK;
}
