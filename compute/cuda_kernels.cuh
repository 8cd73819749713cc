/* compute/cuda_kernels.cuh - device helpers that the kernels of compute/ share.
 *
 * Rows of any float dtype are read and written eight elements at a time where width, pitch and
 * address allow it, else one by one; arithmetic is in f32. The dtype is a run-time value: its
 * branch is the same for the whole launch and costs nothing beside the memory traffic.
 */
#ifndef KN_COMPUTE_CUDA_KERNELS_CUH
#define KN_COMPUTE_CUDA_KERNELS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "compute/cuda.h"

/* Rows of a tensor for a kernel: kn_rows with the dtype. */
struct kn_krows {
    char *data; /* NULL: absent */
    int64_t dim[KN_MAX_RANK], pitch[KN_MAX_RANK];
    int axes, dtype;
};

static inline kn_krows kn_krows_of(const kn_tensor *t)
{
    kn_krows k = {};
    if (!t) return k;
    kn_rows r = kn_rows_of(t);
    k.data = r.data;
    k.axes = r.axes;
    k.dtype = t->dtype;
    for (int i = 0; i < r.axes; i++) k.dim[i] = r.dim[i], k.pitch[i] = r.pitch[i];
    return k;
}

/* Can rows of this width be taken eight elements at a time? */
static inline bool kn_krows_by_eight(const kn_krows *r, int64_t width)
{
    if (!r->data) return true;
    int64_t unit = 8 * (int64_t)kn_dtype_size((kn_dtype)r->dtype);
    if (unit > 16) unit = 16;
    bool fits = width % 8 == 0 && (uintptr_t)r->data % (uintptr_t)unit == 0;
    for (int i = 0; i < r->axes; i++) fits = fits && (r->dim[i] == 1 || r->pitch[i] % unit == 0);
    return fits;
}

__device__ static inline char *kn_krow(const kn_krows &r, int64_t i)
{
    if (r.axes == 1) return r.data + i * r.pitch[0];
    int64_t offset = 0;
    for (int a = r.axes - 1; a > 0; a--) {
        offset += i % r.dim[a] * r.pitch[a];
        i /= r.dim[a];
    }
    return r.data + offset + i * r.pitch[0];
}

__device__ static inline float kn_load1(const char *row, int dtype, int64_t i)
{
    switch (dtype) {
    case KN_BF16: return __bfloat162float(((const __nv_bfloat16 *)row)[i]);
    case KN_F16: return __half2float(((const __half *)row)[i]);
    case KN_F64: return (float)((const double *)row)[i];
    default: return ((const float *)row)[i];
    }
}

__device__ static inline void kn_store1(char *row, int dtype, int64_t i, float v)
{
    switch (dtype) {
    case KN_BF16: ((__nv_bfloat16 *)row)[i] = __float2bfloat16(v); break;
    case KN_F16: ((__half *)row)[i] = __float2half(v); break;
    case KN_F64: ((double *)row)[i] = v; break;
    default: ((float *)row)[i] = v; break;
    }
}

/* V elements from element i on: V is 8 (i a multiple of 8, row aligned) or 1. */
template <int V>
__device__ static inline void kn_load(const char *row, int dtype, int64_t i, float (&v)[V])
{
    if (V == 1) {
        v[0] = kn_load1(row, dtype, i);
    } else if (dtype == KN_BF16) {
        uint4 raw = *(const uint4 *)(row + 2 * i);
        const __nv_bfloat162 *p = (const __nv_bfloat162 *)&raw;
#pragma unroll
        for (int j = 0; j < V / 2; j++) {
            float2 f = __bfloat1622float2(p[j]);
            v[2 * j] = f.x, v[2 * j + 1] = f.y;
        }
    } else if (dtype == KN_F32) {
        float4 a = ((const float4 *)(row + 4 * i))[0], b = ((const float4 *)(row + 4 * i))[1];
        v[0] = a.x, v[1 % V] = a.y, v[2 % V] = a.z, v[3 % V] = a.w;
        v[4 % V] = b.x, v[5 % V] = b.y, v[6 % V] = b.z, v[7 % V] = b.w;
    } else {
        for (int j = 0; j < V; j++) v[j] = kn_load1(row, dtype, i + j);
    }
}

template <int V>
__device__ static inline void kn_store(char *row, int dtype, int64_t i, const float (&v)[V])
{
    if (V == 1) {
        kn_store1(row, dtype, i, v[0]);
    } else if (dtype == KN_BF16) {
        uint4 raw;
        __nv_bfloat162 *p = (__nv_bfloat162 *)&raw;
#pragma unroll
        for (int j = 0; j < V / 2; j++) p[j] = __floats2bfloat162_rn(v[2 * j], v[2 * j + 1]);
        *(uint4 *)(row + 2 * i) = raw;
    } else if (dtype == KN_F32) {
        ((float4 *)(row + 4 * i))[0] = make_float4(v[0], v[1 % V], v[2 % V], v[3 % V]);
        ((float4 *)(row + 4 * i))[1] = make_float4(v[4 % V], v[5 % V], v[6 % V], v[7 % V]);
    } else {
        for (int j = 0; j < V; j++) kn_store1(row, dtype, i + j, v[j]);
    }
}

__device__ static inline float kn_activate(float x, int act)
{
    switch (act) {
    case KN_ACT_SILU: return x / (1.0f + expf(-x));
    case KN_ACT_GELU_TANH: {
        /* 0.5 x (1 + tanh u) = x / (1 + exp(-2u)): no cancellation for negative x */
        float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return x / (1.0f + expf(-2.0f * u));
    }
    case KN_ACT_GELU_ERF: return 0.5f * x * erfcf(-0.7071067811865475f * x);
    default: return x;
    }
}

__device__ static inline float kn_warp_sum(float v)
{
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

/* Sum over G threads that share a row; the same order on every run. partial: one float per warp of
 * the block, in shared memory. */
template <int G> __device__ static inline float kn_group_sum(float v, float *partial)
{
    v = kn_warp_sum(v);
    if (G == 32) return v;
    int warp = threadIdx.x / 32;
    __syncthreads();
    if (threadIdx.x % 32 == 0) partial[warp] = v;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < G / 32; i++) sum += partial[i];
    return sum;
}

static inline unsigned kn_blocks(int64_t items, int64_t per_block)
{
    int64_t n = (items + per_block - 1) / per_block;
    return (unsigned)(n > 0x7fffffff ? 0x7fffffff : n);
}

#endif
