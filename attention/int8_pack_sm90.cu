/* q, k and v in bytes for the int8 attention kernel (attention/int8.h): ranges of k and v, then q and k, then v.
 *
 * All is bound by memory. q and k come as they are or, with p->norm, as a network's projections: then RMSNorm and
 * rotation are done on the way, once for the ranges of k and once for the bytes, in fp32, and what they make is
 * never written in bf16. Of [L, d] in bf16 that is 6.5 read and written in all (6.8 with the tables of angles) in
 * place of 10.8.
 *
 * Rows travel through shared memory by bulk copies, some stages ahead, so that enough is under way
 * whatever registers cost; 16 threads take a head's 128 channels of a row, and what belongs to a channel stays in
 * their registers from row to row. A block has all heads of a row where the norm needs their sum of squares.
 */
#include <cuda_bf16.h>

#include "attention/sparse_kernels.h"
#include "compute/sm90.cuh"

namespace {

enum { DIM = KN_INT8_DIM, PARTS = KN_INT8_PARTS, KEYS = 128, LANES = DIM / 8, HEAD_BYTES = 2 * DIM };
/* Shared memory: barriers, sums of squares of two units of rows, stages. */
enum { STAGES = 8, SUMS = 128, SUMS_MOST = 20 * 16, DATA = SUMS + 2 * SUMS_MOST * 4, ANGLE_BYTES = DIM / 2 * 4 };
/* Heads and threads of a block. Rows at a time and blocks to a multiprocessor, for the ranges (NORM_: with the norm, which
 * has a barrier for each unit of rows) and for q and k. */
enum { GROUP = 12, T = GROUP * LANES, FIND_ROWS = 4, NORM_FIND_ROWS = 8, FIND_BLOCKS = 3, ROWS = 4, BLOCKS = 2, UNROLL = 4 };
/* For more heads with the norm; one block to a multiprocessor. */
enum { WIDE_GROUP = KN_INT8_NORM_HEADS, WIDE_T = WIDE_GROUP * LANES, WIDE_ROWS = 2 };
/* Of PARTS / 2 blocks each: where k is normed it takes two planes of the grid, v one. */
enum { PLANES = 2 };
enum { ROOM = 222 << 10 }; /* bytes of shared memory for the blocks of a multiprocessor */

/* A NaN wins, so that it reaches the output. */
__device__ __forceinline__ float low(float a, float b)
{
    float r;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
__device__ __forceinline__ float high(float a, float b)
{
    float r;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
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

/* x scale rounded to nearest even, for |x scale| <= 127: 1.5 x 2^23 more has it in its lowest byte. */
__device__ __forceinline__ uint32_t to_byte(float x, float scale)
{
    return __float_as_uint(__fmaf_rn(x, scale, 12582912.0f));
}
__device__ __forceinline__ uint32_t four(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

__device__ __forceinline__ float inverse(float x)
{
    return x == 0.0f ? 0.0f : 1.0f / x;
}

/* ---- rows on their way ------------------------------------------------------------------------*/

/* Rows [count][heads][DIM] bf16; strides in bytes. perm: gather indices of the order wanted, NULL: as stored;
 * own: tokens of a head's own order, 0: one for all. */
struct source {
    const char *data;
    int64_t token, head;
    const int32_t *perm;
    int64_t own, count;
};

struct job {
    source q, k, v;
    const float *weight_q, *weight_k, *cos, *sin; /* of the norm and the rotation; weights NULL: 1 */
    float eps, scale;
    int heads, group; /* of all, of a block */
    int stages;
    bool shift; /* q . mean of k is wanted */
};

__device__ __forceinline__ int rows_at(const source &s, int64_t first, int most)
{
    int64_t n = s.count - first;
    return n < 0 ? 0 : n < most ? (int)n : most;
}

/* One warp asks for rows first .. first + n - 1 of `heads` heads from head0 on. */
__device__ __forceinline__ void ask(const source &s, int64_t first, int n, int head0, int heads, uint32_t to,
                                    uint32_t bar)
{
    int pieces = s.head == HEAD_BYTES && !s.own ? 1 : heads;
    uint32_t bytes = (uint32_t)(heads / pieces * HEAD_BYTES);
    for (int i = threadIdx.x & 31; i < n * pieces; i += 32) {
        int row = i / pieces, head = head0 + i % pieces;
        int64_t t = first + row;
        if (s.perm) t = __ldg(s.perm + head * s.own + t);
        bulk_load(to + (uint32_t)i * bytes, s.data + t * s.token + head * s.head, bytes, bar);
    }
}

/* What a block of threads is at: its heads, its place in the ring of stages. */
template <int R> struct flow {
    uint8_t *memory;
    uint32_t base, stage_bytes, tensor_bytes;
    int stages, slot, head0, heads, count; /* count: units begun */
    uint32_t parity;
    int head, channel; /* of this thread */
    bool active;
    int begin, step; /* the block's units: begin, begin + step, ... */

    __device__ __forceinline__ flow(uint8_t *memory_, const job &a, int tensors, bool angles, int begin_, int step_)
        : memory(memory_), base(smem_of(memory_)), stages(a.stages), slot(0), count(0), parity(0), begin(begin_),
          step(step_)
    {
        head0 = blockIdx.y * a.group;
        heads = min(a.group, a.heads - head0);
        tensor_bytes = (uint32_t)(R * heads * HEAD_BYTES);
        stage_bytes = tensors * tensor_bytes + (angles ? 2 * R * ANGLE_BYTES : 0);
        active = threadIdx.x < heads * LANES;
        head = head0 + (active ? threadIdx.x / LANES : 0);
        channel = threadIdx.x % LANES * 8;
        if (threadIdx.x == 0) {
            for (int i = 0; i < stages; i++) bar_init(base + 8 * i, 1);
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncthreads();
    }

    __device__ __forceinline__ uint32_t stage(int i) const { return DATA + i * stage_bytes; }

    /* The first units of rows, as many as there are stages. */
    template <class FILL> __device__ __forceinline__ void start(int64_t units, FILL fill)
    {
        if (threadIdx.x >= 32) return;
        for (int i = 0; i < stages && begin + (int64_t)i * step < units; i++)
            fill(begin + (int64_t)i * step, stage(i), base + 8 * i);
    }

    __device__ __forceinline__ void wait() const { bar_wait(base + 8 * slot, parity); }

    /* All threads have read unit `count` - 1, for they have come here with `count`: its stage takes another. */
    template <class FILL> __device__ __forceinline__ void advance(int64_t unit, int64_t units, FILL fill)
    {
        __syncthreads();
        int64_t next = unit + (int64_t)(stages - 1) * step;
        if (threadIdx.x < 32 && count > 0 && next < units) {
            int free = slot ? slot - 1 : stages - 1;
            fill(next, stage(free), base + 8 * free);
        }
    }
    __device__ __forceinline__ void done()
    {
        count++;
        if (++slot == stages) slot = 0, parity ^= 1;
    }

    /* Of row r of the t-th tensor of the stage, the thread's channels. */
    __device__ __forceinline__ uint4 eight(int t, int r) const
    {
        const uint4 *row = (const uint4 *)(memory + stage(slot) + t * tensor_bytes + r * heads * HEAD_BYTES);
        return active ? row[threadIdx.x] : make_uint4(0, 0, 0, 0);
    }
    /* Cosines (0) or sines (1) of the thread's four pairs. */
    __device__ __forceinline__ float4 angles(int tensors, int which, int r) const
    {
        return *(const float4 *)(memory + stage(slot) + tensors * tensor_bytes + (which * R + r) * ANGLE_BYTES +
                                 channel * 2);
    }
};

__device__ __forceinline__ float square_of(uint4 raw)
{
    float x[8], s = 0.0f;
    unpack8(x, raw);
#pragma unroll
    for (int j = 0; j < 8; j++) s += x[j] * x[j];
    return s;
}

/* N sums over the block. Before the block's barrier the warps' own go to shared memory, after it a lane adds up one
 * of the N; the order is the same on every run. */
template <int N> __device__ __forceinline__ void add_up(float (&s)[N], float *sums)
{
    constexpr int LOG = N == 16 ? 4 : N == 8 ? 3 : N == 4 ? 2 : 1;
    static_assert(N == 1 << LOG, "a power of two");
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int level = 0; level < LOG; level++) {
        const int n = N >> (level + 1), off = 16 >> level;
        bool upper = lane & off;
#pragma unroll
        for (int j = 0; j < n; j++) {
            float first = s[j], second = s[j + n];
            s[j] = (upper ? second : first) + __shfl_xor_sync(~0u, upper ? first : second, off);
        }
    }
#pragma unroll
    for (int off = 16 >> LOG; off; off >>= 1) s[0] += __shfl_xor_sync(~0u, s[0], off);
    if (lane % (32 >> LOG) == 0) sums[threadIdx.x / 32 * N + (lane >> (5 - LOG))] = s[0];
}
/* 1 / root mean square of the n-th in lanes n, n + N, ... */
template <int N> __device__ __forceinline__ float factors(const float *sums, int width, float eps)
{
    float s = 0.0f;
    for (int w = 0; w < blockDim.x / 32; w++) s += sums[w * N + (threadIdx.x & (N - 1))];
    return rsqrtf(s / (float)width + eps);
}

/* Of the thread's channels; NULL: 1. */
__device__ __forceinline__ void load8(float (&w)[8], const float *from, int at)
{
#pragma unroll
    for (int j = 0; j < 8; j++) w[j] = from ? __ldg(from + at + j) : 1.0f;
}

/* Normalised and rotated, as kn_norm_rope has it but for roundings. */
__device__ __forceinline__ void norm_rope(float (&y)[8], uint4 raw, float factor, const float (&weight)[8], float4 co,
                                          float4 si)
{
    unpack8(y, raw);
    const float c[4] = {co.x, co.y, co.z, co.w}, s[4] = {si.x, si.y, si.z, si.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float re = y[2 * i] * (factor * weight[2 * i]), im = y[2 * i + 1] * (factor * weight[2 * i + 1]);
        y[2 * i] = re * c[i] - im * s[i];
        y[2 * i + 1] = re * s[i] + im * c[i];
    }
}

/* ---- ranges -----------------------------------------------------------------------------------*/

/* Of k, or of v, over the block's units: least, greatest and sum of each channel. */
template <bool NORM, int R>
__device__ __forceinline__ void find_range(uint8_t *memory, const job &a, const source &x, int begin, int step, float *out)
{
    flow<R> f(memory, a, 1, NORM, begin, step);
    float weight[8], least[8], most[8], sum[8];
    if (NORM) load8(weight, a.weight_k, f.head * DIM + f.channel);
#pragma unroll
    for (int j = 0; j < 8; j++) least[j] = INFINITY, most[j] = -INFINITY, sum[j] = 0.0f;
    int64_t units = (x.count + R - 1) / R;
    auto fill = [&](int64_t unit, uint32_t to, uint32_t bar) {
        int64_t first = unit * R;
        int n = rows_at(x, first, R);
        if (threadIdx.x == 0)
            bar_expect(bar, n * (f.heads * HEAD_BYTES + (NORM ? 2 * ANGLE_BYTES : 0)));
        __syncwarp();
        ask(x, first, n, f.head0, f.heads, f.base + to, bar);
        uint32_t table = f.base + to + f.tensor_bytes;
        if (NORM && threadIdx.x < 2)
            bulk_load(table + threadIdx.x * R * ANGLE_BYTES, (threadIdx.x ? a.sin : a.cos) + first * (DIM / 2),
                      n * ANGLE_BYTES, bar);
    };
    f.start(units, fill);
    for (int64_t unit = f.begin; unit < units; unit += f.step) {
        float *sums = (float *)(memory + SUMS) + (f.count & 1) * SUMS_MOST, factor = 0.0f;
        int n = rows_at(x, unit * R, R);
        f.wait();
        if (NORM) {
            float square[R];
#pragma unroll
            for (int r = 0; r < R; r++) square[r] = r < n ? square_of(f.eight(0, r)) : 0.0f;
            add_up(square, sums);
        }
        f.advance(unit, units, fill);
        if (NORM) factor = factors<R>(sums, a.heads * DIM, a.eps);
#pragma unroll UNROLL
        for (int r = 0; r < R; r++) {
            float y[8], own = NORM ? __shfl_sync(~0u, factor, r) : 0.0f;
            if (r >= n) break;
            if (NORM)
                norm_rope(y, f.eight(0, r), own, weight, f.angles(1, 0, r), f.angles(1, 1, r));
            else
                unpack8(y, f.eight(0, r));
#pragma unroll
            for (int j = 0; j < 8; j++)
                least[j] = low(least[j], y[j]), most[j] = high(most[j], y[j]), sum[j] += y[j];
        }
        f.done();
    }
    if (!f.active) return;
    out += ((int64_t)begin * a.heads + f.head) * 6 * DIM + f.channel;
#pragma unroll
    for (int j = 0; j < 8; j++) out[j] = least[j], out[DIM + j] = most[j], out[2 * DIM + j] = sum[j];
}

/* Block (part, group of heads, plane): the last plane has v, those before share k. */
template <bool NORM, int R, int THREADS>
__global__ void __launch_bounds__(THREADS, THREADS > T ? 1 : FIND_BLOCKS)
    find_ranges(const __grid_constant__ job a, float *part)
{
    extern __shared__ __align__(128) uint8_t memory[];
    int planes = gridDim.z - 1, place = blockIdx.x + blockIdx.z * gridDim.x;
    if (blockIdx.z == planes)
        find_range<false, R>(memory, a, a.v, blockIdx.x, gridDim.x, part + 3 * DIM);
    else
        find_range<NORM, R>(memory, a, a.k, place, planes * gridDim.x, part);
}

/* Block (head, k or v), a column of threads per channel: mean and scale. */
enum { LINES = 8 };
__global__ void find_scales(const float *part, int parts_k, int parts_v, int64_t keys, float *channel)
{
    __shared__ float least[LINES][DIM], most[LINES][DIM];
    __shared__ double sum[LINES][DIM];
    int heads = gridDim.x, c = threadIdx.x, line = threadIdx.y, parts = blockIdx.y ? parts_v : parts_k;
    float l = INFINITY, m = -INFINITY;
    double s = 0;
    for (int i = line; i < parts; i += LINES) {
        const float *p = part + (((int64_t)i * heads + blockIdx.x) * 2 + blockIdx.y) * 3 * DIM + c;
        l = low(l, p[0]), m = high(m, p[DIM]), s += p[2 * DIM];
    }
    least[line][c] = l, most[line][c] = m, sum[line][c] = s;
    __syncthreads();
    if (line) return;
    for (int i = 1; i < LINES; i++) l = low(l, least[i][c]), m = high(m, most[i][c]), s += sum[i][c];
    float mean = (float)(s / (double)keys);
    channel += (blockIdx.x * 4 + 2 * blockIdx.y) * DIM + c;
    channel[0] = mean;
    channel[DIM] = high(m - mean, mean - l) / 127.0f;
}

/* ---- q and k ----------------------------------------------------------------------------------*/

/* Block (some units of rows, group of heads). */
template <bool NORM, int R, int THREADS>
__global__ void __launch_bounds__(THREADS, THREADS > T ? 1 : BLOCKS)
    pack_rows(const __grid_constant__ job a, const __grid_constant__ kn_attn_int8 x)
{
    extern __shared__ __align__(128) uint8_t memory[];
    flow<R> f(memory, a, 2, NORM, blockIdx.x, gridDim.x);
    float weight_q[8], weight_k[8], mean[8], k_scale[8], back[8];
    if (NORM) load8(weight_q, a.weight_q, f.head * DIM + f.channel), load8(weight_k, a.weight_k, f.head * DIM + f.channel);
    load8(mean, x.channel, f.head * 4 * DIM + f.channel);
    load8(k_scale, x.channel, (f.head * 4 + 1) * DIM + f.channel);
#pragma unroll
    for (int j = 0; j < 8; j++) back[j] = inverse(k_scale[j]);
    int64_t rows = x.k_pitch > a.q.count ? x.k_pitch : a.q.count, units = (rows + R - 1) / R;
    auto fill = [&](int64_t unit, uint32_t to, uint32_t bar) {
        int64_t first = unit * R;
        int q = rows_at(a.q, first, R), k = rows_at(a.k, first, R), n = NORM ? max(q, k) : 0;
        if (threadIdx.x == 0) bar_expect(bar, (q + k) * f.heads * HEAD_BYTES + 2 * n * ANGLE_BYTES);
        __syncwarp();
        ask(a.q, first, q, f.head0, f.heads, f.base + to, bar);
        ask(a.k, first, k, f.head0, f.heads, f.base + to + f.tensor_bytes, bar);
        uint32_t table = f.base + to + 2 * f.tensor_bytes;
        if (n > 0 && threadIdx.x < 2)
            bulk_load(table + threadIdx.x * R * ANGLE_BYTES, (threadIdx.x ? a.sin : a.cos) + first * (DIM / 2),
                      n * ANGLE_BYTES, bar);
    };
    f.start(units, fill);
    for (int64_t unit = f.begin; unit < units; unit += f.step) {
        float *sums = (float *)(memory + SUMS) + (f.count & 1) * SUMS_MOST, factor = 0.0f;
        int64_t first = unit * R;
        int qs = rows_at(a.q, first, R), ks = rows_at(a.k, first, R);
        f.wait();
        if (NORM) {
            float square[2 * R];
#pragma unroll
            for (int i = 0; i < 2 * R; i++)
                square[i] = i % R < (i < R ? qs : ks) ? square_of(f.eight(i / R, i % R)) : 0.0f;
            add_up(square, sums);
        }
        f.advance(unit, units, fill);
        if (NORM) factor = factors<2 * R>(sums, a.heads * DIM, a.eps);
#pragma unroll UNROLL
        for (int r = 0; r < R; r++) {
            float of_q = NORM ? __shfl_sync(~0u, factor, r) : 0.0f, of_k = NORM ? __shfl_sync(~0u, factor, R + r) : 0.0f;
            float y[8], most = 0.0f, shift = 0.0f;
            float4 co, si;
            if (NORM) {
                co = f.angles(2, 0, r), si = f.angles(2, 1, r);
                norm_rope(y, f.eight(0, r), of_q, weight_q, co, si);
            } else {
                unpack8(y, f.eight(0, r));
            }
            if (a.shift) {
#pragma unroll
                for (int j = 0; j < 8; j++) shift += y[j] * mean[j];
#pragma unroll
                for (int n = LANES / 2; n; n >>= 1) shift += __shfl_xor_sync(~0u, shift, n);
            }
#pragma unroll
            for (int j = 0; j < 8; j++) y[j] *= k_scale[j], most = high(most, fabsf(y[j]));
#pragma unroll
            for (int n = LANES / 2; n; n >>= 1) most = high(most, __shfl_xor_sync(~0u, most, n));
            float scale = most / 127.0f, one = inverse(scale);
            uint32_t b[8];
#pragma unroll
            for (int j = 0; j < 8; j++) b[j] = to_byte(y[j], one);
            int64_t at = f.head * x.q_pitch + first + r;
            if (f.active && r < qs) {
                *(uint2 *)(x.q + at * DIM + f.channel) =
                    make_uint2(four(b[0], b[1], b[2], b[3]), four(b[4], b[5], b[6], b[7]));
                /* Above 0 (or NaN): -inf times it is -inf. */
                scale *= a.scale * 1.44269504088896f;
                if (f.channel == 0) x.q_scale[at] = scale < 1e-30f ? 1e-30f : scale;
                if (f.channel == 0 && a.shift) x.q_shift[at] = shift * a.scale;
            }
            if (NORM)
                norm_rope(y, f.eight(1, r), of_k, weight_k, co, si);
            else
                unpack8(y, f.eight(1, r));
            /* past the last key: read by the kernel, hidden there */
#pragma unroll
            for (int j = 0; j < 8; j++) b[j] = to_byte(r < ks ? y[j] - mean[j] : 0.0f, back[j]);
            at = f.head * x.k_pitch + kn_attn_int8_place_of(first + r);
            if (f.active && first + r < x.k_pitch)
                *(uint2 *)(x.k + at * DIM + f.channel) =
                    make_uint2(four(b[0], b[1], b[2], b[3]), four(b[4], b[5], b[6], b[7]));
        }
        f.done();
    }
}

/* ---- v ----------------------------------------------------------------------------------------*/

/* Where four keys of a channel lie in pack_v's tile: threads that write have channels 8 apart,
 * threads that read have neighbours, and neither meets another in its bank. */
__device__ __forceinline__ int word_of(int channel, int quad)
{
    return channel * (KEYS / 4) + (quad ^ (channel >> 3) * 2 ^ (channel & 7) * 4);
}

/* Block (head, 128 keys): turned through shared memory. All of a thread's loads are under way before the first is used. */
__global__ void __launch_bounds__(256, 3) pack_v(const __grid_constant__ job a, const __grid_constant__ kn_attn_int8 x)
{
    enum { STEP = 256 / LANES, TURNS = KEYS / 4 / STEP };
    __shared__ __align__(16) uint32_t tile[DIM * KEYS / 4];
    int head = blockIdx.x, c = threadIdx.x % LANES * 8, quad = threadIdx.x / LANES;
    int64_t first = (int64_t)blockIdx.y * KEYS;
    const float *channel = x.channel + (head * 4 + 2) * DIM;
    const char *from = a.v.data + head * a.v.head + 2 * c;
    uint4 raw[TURNS][4];
#pragma unroll
    for (int i = 0; i < TURNS * 4; i++) {
        int64_t t = first + (quad + i / 4 * STEP) * 4 + i % 4;
        raw[i / 4][i % 4] = make_uint4(0, 0, 0, 0);
        if (t >= a.v.count) continue;
        if (a.v.perm) t = __ldg(a.v.perm + head * a.v.own + t);
        raw[i / 4][i % 4] = __ldg((const uint4 *)(from + t * a.v.token));
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float mean = __ldg(channel + c + i), back = inverse(__ldg(channel + DIM + c + i));
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            uint32_t b[4];
            int there = rows_at(a.v, first + (quad + turn * STEP) * 4, 4);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint4 &r = raw[turn][j];
                uint32_t pair = i < 2 ? r.x : i < 4 ? r.y : i < 6 ? r.z : r.w;
                float y = __uint_as_float(i & 1 ? pair & 0xffff0000u : pair << 16);
                b[j] = to_byte(j < there ? y - mean : 0.0f, back);
            }
            tile[word_of(c + i, quad + turn * STEP)] = four(b[0], b[1], b[2], b[3]);
        }
    }
    __syncthreads();
    uint4 *out = (uint4 *)(x.v + (head * x.k_pitch + first) * DIM);
    for (int i = threadIdx.x; i < DIM * KEYS / 16; i += 256) {
        int column = i % DIM, four_of = i / DIM * 4;
        uint4 w = *(const uint4 *)(tile + (word_of(column, four_of) & ~3));
        out[i] = column & 8 ? make_uint4(w.z, w.w, w.x, w.y) : w;
    }
}

/* ---- launching --------------------------------------------------------------------------------*/

job make_job(const kn_attn_problem *p)
{
    const kn_attn_lists *l = p->lists;
    int64_t own = l && l->perm_heads > 1 ? l->tokens : 0;
    const int32_t *perm_q = l ? l->perm_q : nullptr, *perm_k = l ? l->perm_k : nullptr;
    job a = {};
    a.q = {(const char *)p->q, 2 * p->q_token, 2 * p->q_head, perm_q, perm_q ? own : 0, p->queries};
    a.k = {(const char *)p->k, 2 * p->k_token, 2 * p->k_head, perm_k, perm_k ? own : 0, p->keys};
    a.v = {(const char *)p->v, 2 * p->v_token, 2 * p->v_head, perm_k, perm_k ? own : 0, p->keys};
    a.scale = p->scale, a.heads = p->heads, a.shift = p->lse != nullptr;
    if (p->norm) {
        a.weight_q = p->norm->weight_q, a.weight_k = p->norm->weight_k;
        a.cos = p->norm->cos, a.sin = p->norm->sin, a.eps = p->norm->eps;
    }
    return a;
}

/* FR, R: rows at a time of the ranges, of q and k. */
template <bool NORM, int FR, int R, int THREADS>
cudaError_t launch(const kn_attn_problem *p, job a, const kn_attn_int8 &x, cudaStream_t stream)
{
    constexpr int find_blocks = THREADS > T ? 1 : FIND_BLOCKS, blocks = THREADS > T ? 1 : BLOCKS;
    constexpr int planes = NORM ? PLANES : 1;
    int most = THREADS / LANES, groups = (a.heads + most - 1) / most;
    a.group = (a.heads + groups - 1) / groups;
    unsigned threads = (unsigned)(a.group * LANES + 31) / 32 * 32;
    auto bytes_of = [&](int tensors, int rows, int room) {
        int stage = rows * (tensors * a.group * HEAD_BYTES + (NORM ? 2 * ANGLE_BYTES : 0));
        a.stages = (room - DATA) / stage < STAGES ? (room - DATA) / stage : STAGES;
        return DATA + a.stages * stage;
    };
    int find_room = ROOM / find_blocks / 1024 * 1024, room = ROOM / blocks / 1024 * 1024;
    int64_t units = (p->keys + FR - 1) / FR;
    int parts = units < PARTS / 2 ? (int)units : PARTS / 2, bytes = bytes_of(1, FR, find_room);
    job ranges = a;
    ranges.k.perm = ranges.v.perm = nullptr, ranges.k.own = ranges.v.own = 0; /* of all keys, in whatever order */
    auto find = find_ranges<NORM, FR, THREADS>;
    auto pack = pack_rows<NORM, R, THREADS>;
    cudaError_t e = cudaFuncSetAttribute(find, cudaFuncAttributeMaxDynamicSharedMemorySize, find_room);
    if (!e) e = cudaFuncSetAttribute(pack, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
    if (e) return e;
    find<<<dim3((unsigned)parts, (unsigned)groups, planes + 1), threads, (size_t)bytes, stream>>>(ranges, x.part);
    find_scales<<<dim3((unsigned)a.heads, 2), dim3(DIM, LINES), 0, stream>>>(x.part, parts * planes, parts, p->keys,
                                                                           x.channel);
    int64_t rows = x.k_pitch > p->queries ? x.k_pitch : p->queries, fit = blocks * (int64_t)p->sm_count / groups;
    units = (rows + R - 1) / R;
    if (fit < 1) fit = 1;
    bytes = bytes_of(2, R, room);
    pack<<<dim3((unsigned)(units < fit ? units : fit), (unsigned)groups), threads, (size_t)bytes, stream>>>(a, x);
    /* Last: v's bytes may lie where k was. */
    pack_v<<<dim3((unsigned)a.heads, (unsigned)(x.k_pitch / KEYS)), 256, 0, stream>>>(a, x);
    return cudaGetLastError();
}

} // namespace

cudaError_t kn_attn_int8_pack(const kn_attn_problem *p, const kn_attn_int8 *to, cudaStream_t stream)
{
    job a = make_job(p);
    if (!p->norm) return launch<false, FIND_ROWS, ROWS, T>(p, a, *to, stream);
    if (p->heads > WIDE_GROUP || a.q.perm || a.k.perm) return cudaErrorNotSupported;
    if (p->heads <= GROUP) return launch<true, NORM_FIND_ROWS, ROWS, T>(p, a, *to, stream);
    return launch<true, WIDE_ROWS, WIDE_ROWS, WIDE_T>(p, a, *to, stream);
}
