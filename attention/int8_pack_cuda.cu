/* q, k and v in bytes for the int8 attention kernel: means and ranges, then the three packings. */
#include <cuda_bf16.h>

#include "attention/sparse_kernels.h"

namespace {

enum { DIM = KN_INT8_DIM, PARTS = KN_INT8_PARTS, KEYS = 128, WARPS = 8, WARP_TOKENS = 8 };

/* A NaN wins, so that it reaches the output. */
__device__ __forceinline__ float low(float a, float b)
{
    return !(a <= b) && a == a ? b : a;
}
__device__ __forceinline__ float high(float a, float b)
{
    return !(a >= b) && a == a ? b : a;
}

__device__ __forceinline__ void load8(float (&x)[8], const __nv_bfloat16 *p)
{
    uint4 raw = __ldg((const uint4 *)p);
    const __nv_bfloat162 *h = (const __nv_bfloat162 *)&raw;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __bfloat1622float2(h[i]);
        x[2 * i] = f.x, x[2 * i + 1] = f.y;
    }
}

/* Block (part, head, k or v): 16 threads of 8 channels by 16 tokens. */
__global__ void find_ranges(kn_attn_problem p, float *out)
{
    __shared__ float red[3][16][DIM];
    const __nv_bfloat16 *x = (const __nv_bfloat16 *)(blockIdx.z ? p.v : p.k);
    int64_t token = blockIdx.z ? p.v_token : p.k_token, head = blockIdx.z ? p.v_head : p.k_head;
    int c = threadIdx.x % 16 * 8, lane = threadIdx.x / 16;
    float least[8], most[8], sum[8], at[8];
    load8(at, x + blockIdx.y * head + c); /* some token, where a part has none of its own */
#pragma unroll
    for (int i = 0; i < 8; i++) least[i] = most[i] = at[i], sum[i] = 0.0f;
    for (int64_t t = blockIdx.x * 16 + lane; t < p.keys; t += PARTS * 16) {
        load8(at, x + t * token + blockIdx.y * head + c);
#pragma unroll
        for (int i = 0; i < 8; i++)
            least[i] = low(least[i], at[i]), most[i] = high(most[i], at[i]), sum[i] += at[i];
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        red[0][lane][c + i] = least[i], red[1][lane][c + i] = most[i], red[2][lane][c + i] = sum[i];
    __syncthreads();
    if (threadIdx.x >= DIM) return;
    float l = red[0][0][threadIdx.x], m = red[1][0][threadIdx.x], s = red[2][0][threadIdx.x];
    for (int i = 1; i < 16; i++)
        l = low(l, red[0][i][threadIdx.x]), m = high(m, red[1][i][threadIdx.x]),
        s += red[2][i][threadIdx.x];
    out += ((blockIdx.x * gridDim.y + blockIdx.y) * 2 + blockIdx.z) * 3 * DIM + threadIdx.x;
    out[0] = l, out[DIM] = m, out[2 * DIM] = s;
}

/* Block (head, k or v), a thread per channel: mean and scale. */
__global__ void find_scales(const float *part, int64_t keys, float *channel)
{
    int heads = gridDim.x, c = threadIdx.x;
    float l = 0, m = 0;
    double s = 0;
    for (int i = 0; i < PARTS; i++) {
        const float *p = part + ((i * heads + blockIdx.x) * 2 + blockIdx.y) * 3 * DIM + c;
        l = i ? low(l, p[0]) : p[0], m = i ? high(m, p[DIM]) : p[DIM], s += p[2 * DIM];
    }
    float mean = (float)(s / (double)keys);
    channel += (blockIdx.x * 4 + 2 * blockIdx.y) * DIM + c;
    channel[0] = mean;
    channel[DIM] = high(m - mean, mean - l) / 127.0f;
}

__device__ __forceinline__ uint32_t to_bytes(float a, float b, float c, float d)
{
    int x[4] = {__float2int_rn(a), __float2int_rn(b), __float2int_rn(c), __float2int_rn(d)};
    uint32_t r = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) r |= (uint32_t)(min(max(x[i], -127), 127) & 255) << 8 * i;
    return r;
}

__device__ __forceinline__ float inverse(float x)
{
    return x == 0.0f ? 0.0f : 1.0f / x;
}

struct order {
    const int32_t *perm;
    int64_t tokens; /* of a head's own order; 0: one for all */
};

/* A warp per (query, head), 4 channels a lane. */
__global__ void pack_q(kn_attn_problem p, order o, kn_attn_int8 x)
{
    int lane = threadIdx.x & 31, head = blockIdx.y;
    const float *channel = x.channel + head * 4 * DIM + 4 * lane;
    float4 mean = *(const float4 *)channel, k_scale = *(const float4 *)(channel + DIM);
    int64_t first = ((int64_t)blockIdx.x * WARPS + threadIdx.x / 32) * WARP_TOKENS;
    for (int64_t t = first; t < min(first + WARP_TOKENS, p.queries); t++) {
        int64_t from = o.perm ? __ldg(o.perm + head * o.tokens + t) : t;
        uint2 raw = __ldg((const uint2 *)((const __nv_bfloat16 *)p.q + from * p.q_token +
                                          head * p.q_head) +
                          lane);
        float2 a = __bfloat1622float2(*(const __nv_bfloat162 *)&raw.x);
        float2 b = __bfloat1622float2(*(const __nv_bfloat162 *)&raw.y);
        float shift = a.x * mean.x + a.y * mean.y + b.x * mean.z + b.y * mean.w;
        a.x *= k_scale.x, a.y *= k_scale.y, b.x *= k_scale.z, b.y *= k_scale.w;
        float most = high(high(fabsf(a.x), fabsf(a.y)), high(fabsf(b.x), fabsf(b.y)));
        for (int i = 16; i; i >>= 1) {
            most = high(most, __shfl_xor_sync(~0u, most, i));
            shift += __shfl_xor_sync(~0u, shift, i);
        }
        float scale = most / 127.0f, back = inverse(scale);
        int64_t at = head * x.q_pitch + t;
        ((uint32_t *)(x.q + at * DIM))[lane] =
            to_bytes(a.x * back, a.y * back, b.x * back, b.y * back);
        /* Above 0 (or NaN): -inf times it is -inf. */
        scale *= p.scale * 1.44269504088896f;
        if (lane == 0) x.q_scale[at] = scale < 1e-30f ? 1e-30f : scale, x.q_shift[at] = shift * p.scale;
    }
}

__global__ void pack_k(kn_attn_problem p, order o, kn_attn_int8 x)
{
    int lane = threadIdx.x & 31, head = blockIdx.y;
    const float *channel = x.channel + head * 4 * DIM + 4 * lane;
    float4 mean = *(const float4 *)channel, scale = *(const float4 *)(channel + DIM);
    float4 back = make_float4(inverse(scale.x), inverse(scale.y), inverse(scale.z), inverse(scale.w));
    int64_t first = ((int64_t)blockIdx.x * WARPS + threadIdx.x / 32) * WARP_TOKENS;
    for (int64_t t = first; t < min(first + WARP_TOKENS, x.k_pitch); t++) {
        uint32_t bytes = 0; /* past the last key: read by the kernel, hidden there */
        if (t < p.keys) {
            int64_t from = o.perm ? __ldg(o.perm + head * o.tokens + t) : t;
            uint2 raw = __ldg((const uint2 *)((const __nv_bfloat16 *)p.k + from * p.k_token +
                                              head * p.k_head) +
                              lane);
            float2 a = __bfloat1622float2(*(const __nv_bfloat162 *)&raw.x);
            float2 b = __bfloat1622float2(*(const __nv_bfloat162 *)&raw.y);
            bytes = to_bytes((a.x - mean.x) * back.x, (a.y - mean.y) * back.y,
                             (b.x - mean.z) * back.z, (b.y - mean.w) * back.w);
        }
        ((uint32_t *)(x.k + (head * x.k_pitch + kn_attn_int8_place_of(t)) * DIM))[lane] = bytes;
    }
}

/* Block (128 keys, head): turned through shared memory. */
__global__ void pack_v(kn_attn_problem p, order o, kn_attn_int8 x)
{
    __shared__ uint32_t tile[DIM][KEYS / 4 + 1];
    int head = blockIdx.y, c = threadIdx.x % 16 * 8;
    const float *channel = x.channel + (head * 4 + 2) * DIM;
    float mean[8], back[8];
#pragma unroll
    for (int i = 0; i < 8; i++) mean[i] = channel[c + i], back[i] = inverse(channel[DIM + c + i]);
    for (int quad = threadIdx.x / 16; quad < KEYS / 4; quad += 16) {
        float at[4][8];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t t = (int64_t)blockIdx.x * KEYS + quad * 4 + j;
#pragma unroll
            for (int i = 0; i < 8; i++) at[j][i] = mean[i];
            if (t < p.keys) {
                if (o.perm) t = __ldg(o.perm + head * o.tokens + t);
                load8(at[j], (const __nv_bfloat16 *)p.v + t * p.v_token + head * p.v_head + c);
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            tile[c + i][quad] =
                to_bytes((at[0][i] - mean[i]) * back[i], (at[1][i] - mean[i]) * back[i],
                         (at[2][i] - mean[i]) * back[i], (at[3][i] - mean[i]) * back[i]);
    }
    __syncthreads();
    uint32_t *out = (uint32_t *)(x.v + (head * x.k_pitch + (int64_t)blockIdx.x * KEYS) * DIM);
    for (int i = threadIdx.x; i < DIM * KEYS / 4; i += 256)
        out[i] = tile[i / 4 % DIM][i / (4 * DIM) * 4 + i % 4];
}

} // namespace

cudaError_t kn_attn_int8_pack(const kn_attn_problem *p, const kn_attn_int8 *to, cudaStream_t stream)
{
    const kn_attn_lists *l = p->lists;
    int64_t own = l && l->perm_heads > 1 ? l->tokens : 0;
    order oq = {l ? l->perm_q : nullptr, own}, ok = {l ? l->perm_k : nullptr, own};
    kn_attn_int8 x = *to;
    unsigned heads = (unsigned)p->heads, span = WARPS * WARP_TOKENS;
    find_ranges<<<dim3(PARTS, heads, 2), 256, 0, stream>>>(*p, x.part);
    find_scales<<<dim3(heads, 2), DIM, 0, stream>>>(x.part, p->keys, x.channel);
    pack_q<<<dim3((unsigned)((p->queries + span - 1) / span), heads), 32 * WARPS, 0, stream>>>(*p, oq, x);
    pack_k<<<dim3((unsigned)((x.k_pitch + span - 1) / span), heads), 32 * WARPS, 0, stream>>>(*p, ok, x);
    pack_v<<<dim3((unsigned)(x.k_pitch / KEYS), heads), 256, 0, stream>>>(*p, ok, x);
    return cudaGetLastError();
}
