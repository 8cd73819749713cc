/* q, k and v in bytes for the int8 attention kernel: means and ranges, then the three packings. */
#include <cuda_bf16.h>

#include "attention/sparse_kernels.h"

namespace {

enum { DIM = KN_INT8_DIM, PARTS = KN_INT8_PARTS, KEYS = 128, WARPS = 8, HALF_TOKENS = 8 };

/* A NaN wins, so that it reaches the output. */
__device__ __forceinline__ float low(float a, float b)
{
    return !(a <= b) && a == a ? b : a;
}
__device__ __forceinline__ float high(float a, float b)
{
    return !(a >= b) && a == a ? b : a;
}

__device__ __forceinline__ void unpack8(float (&x)[8], uint4 raw)
{
    const __nv_bfloat162 *h = (const __nv_bfloat162 *)&raw;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __bfloat1622float2(h[i]);
        x[2 * i] = f.x, x[2 * i + 1] = f.y;
    }
}

__device__ __forceinline__ void load8(float (&x)[8], const __nv_bfloat16 *p)
{
    unpack8(x, __ldg((const uint4 *)p));
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

/* A half-warp takes HALF_TOKENS tokens of a head, 8 channels a lane: all are asked for before
 * the first is used. From `count` on: zeros. */
struct half_warp {
    int lane, head;
    int64_t first;
    uint4 raw[HALF_TOKENS];
};

__device__ __forceinline__ half_warp fetch(const void *x, int64_t token, int64_t head,
                                           int64_t count, order o)
{
    half_warp h;
    h.lane = threadIdx.x & 15, h.head = blockIdx.y;
    h.first = ((int64_t)blockIdx.x * 2 * WARPS + threadIdx.x / 16) * HALF_TOKENS;
    const __nv_bfloat16 *from = (const __nv_bfloat16 *)x + h.head * head + 8 * h.lane;
#pragma unroll
    for (int i = 0; i < HALF_TOKENS; i++) {
        int64_t t = h.first + i;
        h.raw[i] = make_uint4(0, 0, 0, 0);
        if (t >= count) continue;
        if (o.perm) t = __ldg(o.perm + h.head * o.tokens + t);
        h.raw[i] = __ldg((const uint4 *)(from + t * token));
    }
    return h;
}

__global__ void __launch_bounds__(32 * WARPS) pack_q(kn_attn_problem p, order o, kn_attn_int8 x)
{
    half_warp h = fetch(p.q, p.q_token, p.q_head, p.queries, o);
    const float *channel = x.channel + h.head * 4 * DIM + 8 * h.lane;
    float mean[8], k_scale[8];
#pragma unroll
    for (int j = 0; j < 8; j++) mean[j] = channel[j], k_scale[j] = channel[DIM + j];
#pragma unroll
    for (int i = 0; i < HALF_TOKENS; i++) {
        float a[8], most = 0.0f, shift = 0.0f;
        unpack8(a, h.raw[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            shift += a[j] * mean[j];
            a[j] *= k_scale[j];
            most = high(most, fabsf(a[j]));
        }
#pragma unroll
        for (int n = 8; n; n >>= 1) {
            most = high(most, __shfl_xor_sync(~0u, most, n));
            shift += __shfl_xor_sync(~0u, shift, n);
        }
        float scale = most / 127.0f, back = inverse(scale);
        if (h.first + i >= p.queries) continue;
        int64_t at = h.head * x.q_pitch + h.first + i;
        ((uint2 *)(x.q + at * DIM))[h.lane] =
            make_uint2(to_bytes(a[0] * back, a[1] * back, a[2] * back, a[3] * back),
                       to_bytes(a[4] * back, a[5] * back, a[6] * back, a[7] * back));
        /* Above 0 (or NaN): -inf times it is -inf. */
        scale *= p.scale * 1.44269504088896f;
        if (h.lane == 0)
            x.q_scale[at] = scale < 1e-30f ? 1e-30f : scale, x.q_shift[at] = shift * p.scale;
    }
}

__global__ void __launch_bounds__(32 * WARPS) pack_k(kn_attn_problem p, order o, kn_attn_int8 x)
{
    half_warp h = fetch(p.k, p.k_token, p.k_head, p.keys, o);
    const float *channel = x.channel + h.head * 4 * DIM + 8 * h.lane;
    float mean[8], back[8];
#pragma unroll
    for (int j = 0; j < 8; j++) mean[j] = channel[j], back[j] = inverse(channel[DIM + j]);
#pragma unroll
    for (int i = 0; i < HALF_TOKENS; i++) {
        int64_t t = h.first + i;
        if (t >= x.k_pitch) return;
        float a[8];
        unpack8(a, h.raw[i]);
        /* past the last key: read by the kernel, hidden there */
        float some = t < p.keys ? 1.0f : 0.0f;
#pragma unroll
        for (int j = 0; j < 8; j++) a[j] = (a[j] - some * mean[j]) * back[j];
        ((uint2 *)(x.k + (h.head * x.k_pitch + kn_attn_int8_place_of(t)) * DIM))[h.lane] =
            make_uint2(to_bytes(a[0], a[1], a[2], a[3]), to_bytes(a[4], a[5], a[6], a[7]));
    }
}

/* Where four keys of a channel lie in pack_v's tile: threads that write have channels 8 apart,
 * threads that read have neighbours, and neither meets another in its bank. */
__device__ __forceinline__ int word_of(int channel, int quad)
{
    return channel * (KEYS / 4) + (quad ^ (channel >> 3) * 2 ^ (channel & 7) * 4);
}

/* Block (128 keys, head): turned through shared memory. */
__global__ void pack_v(kn_attn_problem p, order o, kn_attn_int8 x)
{
    __shared__ __align__(16) uint32_t tile[DIM * KEYS / 4];
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
            tile[word_of(c + i, quad)] =
                to_bytes((at[0][i] - mean[i]) * back[i], (at[1][i] - mean[i]) * back[i],
                         (at[2][i] - mean[i]) * back[i], (at[3][i] - mean[i]) * back[i]);
    }
    __syncthreads();
    uint4 *out = (uint4 *)(x.v + (head * x.k_pitch + (int64_t)blockIdx.x * KEYS) * DIM);
    for (int i = threadIdx.x; i < DIM * KEYS / 16; i += 256) {
        int channel = i % DIM, quad = i / DIM * 4;
        uint4 w = *(const uint4 *)(tile + (word_of(channel, quad) & ~3));
        out[i] = channel & 8 ? make_uint4(w.z, w.w, w.x, w.y) : w;
    }
}

} // namespace

cudaError_t kn_attn_int8_pack(const kn_attn_problem *p, const kn_attn_int8 *to, cudaStream_t stream)
{
    const kn_attn_lists *l = p->lists;
    int64_t own = l && l->perm_heads > 1 ? l->tokens : 0;
    order oq = {l ? l->perm_q : nullptr, own}, ok = {l ? l->perm_k : nullptr, own};
    kn_attn_int8 x = *to;
    unsigned heads = (unsigned)p->heads, span = 2 * WARPS * HALF_TOKENS;
    find_ranges<<<dim3(PARTS, heads, 2), 256, 0, stream>>>(*p, x.part);
    find_scales<<<dim3(heads, 2), DIM, 0, stream>>>(x.part, p->keys, x.channel);
    pack_q<<<dim3((unsigned)((p->queries + span - 1) / span), heads), 32 * WARPS, 0, stream>>>(*p, oq, x);
    pack_k<<<dim3((unsigned)((x.k_pitch + span - 1) / span), heads), 32 * WARPS, 0, stream>>>(*p, ok, x);
    pack_v<<<dim3((unsigned)(x.k_pitch / KEYS), heads), 256, 0, stream>>>(*p, ok, x);
    return cudaGetLastError();
}
