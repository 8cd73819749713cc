/* attention/select_kernels.cuh - inside select_cuda.cu: the kernels of block selection.
 *
 * Needs     attention/device_lists.h before it.
 * Layouts   means [heads][n][D] f32; map [heads of a group][n][n] f32; keep [heads][n][words] u32.
 * Order     Every float sum has one fixed order; histograms count in integers. Runs are bitwise
 *           repeatable.
 */
#ifndef KN_ATTENTION_SELECT_KERNELS_CUH
#define KN_ATTENTION_SELECT_KERNELS_CUH

#include <cuda_bf16.h>
#include <stdint.h>

namespace kn_select_kernels {

/* Rows [L] of heads of D bf16; strides in elements. */
struct view {
    const __nv_bfloat16 *data;
    int64_t row, head;
};

/* ---- block means -------------------------------------------------------------------------------
 * Memory bound: each thread keeps 8 channels of one head and walks the block's tokens; a row of all
 * heads is contiguous, so a block of threads reads whole rows.
 */
__global__ void __launch_bounds__(256)
    pool(view q, view k, const int32_t *start, const int32_t *perm_q, const int32_t *perm_k,
         int64_t tokens, int heads, int dim, float *mean_q, float *mean_k)
{
    int c = (blockIdx.z * blockDim.x + threadIdx.x) * 8;
    if (c >= heads * dim) return;
    int head = c / dim, in_head = c % dim, block = blockIdx.x, n = gridDim.x;
    view x = blockIdx.y ? k : q;
    const int32_t *perm = blockIdx.y ? perm_k : perm_q;
    const __nv_bfloat16 *from = x.data + head * x.head + in_head;
    if (perm) perm += head * tokens;
    int first = start[block], last = start[block + 1];
    float sum[8] = {0};
#pragma unroll 8
    for (int i = first; i < last; i++) {
        int64_t at = perm ? perm[i] : i;
        uint4 raw = __ldg((const uint4 *)(from + at * x.row));
        const __nv_bfloat162 *pair = (const __nv_bfloat162 *)&raw;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float2 f = __bfloat1622float2(pair[j]);
            sum[2 * j] += f.x;
            sum[2 * j + 1] += f.y;
        }
    }
    float *to = (blockIdx.y ? mean_k : mean_q) + ((int64_t)head * n + block) * dim + in_head;
    float count = (float)(last - first);
#pragma unroll
    for (int j = 0; j < 8; j++) to[j] = sum[j] / count;
}

/* ---- map ---------------------------------------------------------------------------------------
 * Logits in fp32 (bf16 means would change the choice): 128 x 128 tiles, 8 x 8 per thread.
 */
constexpr int TILE = 128, DEPTH = 8;

__global__ void __launch_bounds__(256) score(const float *mean_q, const float *mean_k, int n,
                                             int dim, float scale, float *map)
{
    __shared__ float a[DEPTH][TILE + 4], b[DEPTH][TILE + 4];
    int64_t head = blockIdx.z;
    int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE, t = threadIdx.x;
    int tr = (t / 16) * 4, tc = (t % 16) * 4; /* and 64 further: conflict-free float4 reads */
    const float *q = mean_q + head * n * dim, *k = mean_k + head * n * dim;
    float acc[8][8] = {{0}};
    int lr = t / 2, lc = (t % 2) * 4;
    for (int d = 0; d < dim; d += DEPTH) {
        float4 x = make_float4(0, 0, 0, 0), y = x;
        if (row0 + lr < n) x = *(const float4 *)(q + (int64_t)(row0 + lr) * dim + d + lc);
        if (col0 + lr < n) y = *(const float4 *)(k + (int64_t)(col0 + lr) * dim + d + lc);
        __syncthreads();
        a[lc][lr] = x.x, a[lc + 1][lr] = x.y, a[lc + 2][lr] = x.z, a[lc + 3][lr] = x.w;
        b[lc][lr] = y.x, b[lc + 1][lr] = y.y, b[lc + 2][lr] = y.z, b[lc + 3][lr] = y.w;
        __syncthreads();
#pragma unroll
        for (int e = 0; e < DEPTH; e++) {
            float u[8], v[8];
            *(float4 *)u = *(const float4 *)&a[e][tr];
            *(float4 *)(u + 4) = *(const float4 *)&a[e][tr + 64];
            *(float4 *)v = *(const float4 *)&b[e][tc];
            *(float4 *)(v + 4) = *(const float4 *)&b[e][tc + 64];
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) acc[i][j] = fmaf(u[i], v[j], acc[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int r = row0 + tr + (i / 4) * 64 + i % 4;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int c = col0 + tc + (j / 4) * 64 + j % 4;
            if (r < n && c < n) map[(head * n + r) * n + c] = acc[i][j] * scale;
        }
    }
}

/* Which entries of the map draft keeps whatever their weight. */
struct forced_rule {
    int per_frame;
    int first_frame, own_frame;
};

__device__ inline bool is_forced(const forced_rule &f, int row, int col)
{
    return col == row || (f.first_frame && col < f.per_frame) ||
           (f.own_frame && col / f.per_frame == row / f.per_frame);
}

template <bool MAX> __device__ inline float block_reduce(float x, float *shared)
{
    for (int o = 16; o; o /= 2) {
        float y = __shfl_xor_sync(~0u, x, o);
        x = MAX ? fmaxf(x, y) : x + y;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared[threadIdx.x % 8];
    for (int o = 4; o; o /= 2) {
        float y = __shfl_xor_sync(~0u, x, o);
        x = MAX ? fmaxf(x, y) : x + y;
    }
    return x;
}

/* Softmax of each row in place. Forced entries become 2, above every weight, when raise is set. */
__global__ void __launch_bounds__(256) softmax(float *map, int n, bool raise, forced_rule forced)
{
    __shared__ float shared[8];
    float *row = map + ((int64_t)blockIdx.y * n + blockIdx.x) * n;
    float top = -INFINITY, sum = 0;
    for (int j = threadIdx.x; j < n; j += 256) top = fmaxf(top, row[j]);
    top = block_reduce<true>(top, shared);
    for (int j = threadIdx.x; j < n; j += 256) sum += expf(row[j] - top);
    sum = block_reduce<false>(sum, shared);
    for (int j = threadIdx.x; j < n; j += 256)
        row[j] = raise && is_forced(forced, blockIdx.x, j) ? 2.0f : expf(row[j] - top) / sum;
}

/* ---- draft: one threshold for a head's whole map ------------------------------------------------
 * The m-th smallest by counting 11, 11 and 10 bits of the patterns, which sort as the values do.
 */
constexpr int BINS = 2048;

struct rank_state {
    uint32_t prefix; /* bits found so far */
    uint32_t unused;
    unsigned long long left; /* rank within the entries that have this prefix; from 1 */
};

__device__ inline int digit_shift(int pass)
{
    return pass == 0 ? 21 : pass == 1 ? 10 : 0;
}
__device__ inline int digit_bits(int pass)
{
    return pass == 2 ? 10 : 11;
}

__global__ void count_digits(const float *map, int64_t pairs, int pass, const rank_state *state,
                             unsigned long long *bins)
{
    __shared__ uint32_t mine[BINS];
    int head = blockIdx.y, shift = digit_shift(pass), bits = digit_bits(pass);
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) mine[i] = 0;
    uint32_t prefix = state[head].prefix;
    const float *x = map + head * pairs;
    __syncthreads();
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < pairs;
         i += (int64_t)gridDim.x * blockDim.x) {
        uint32_t u = __float_as_uint(x[i]);
        if (pass == 0 || u >> (shift + bits) == prefix >> (shift + bits))
            atomicAdd(&mine[u >> shift & ((1u << bits) - 1)], 1u);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += blockDim.x)
        if (mine[i]) atomicAdd(&bins[head * BINS + i], (unsigned long long)mine[i]);
}

/* The digit that holds the wanted rank; bins are zeroed for the next pass. */
__global__ void __launch_bounds__(1024) find_digit(int pass, rank_state *state,
                                                   unsigned long long *bins)
{
    __shared__ unsigned long long total[32];
    int head = blockIdx.x, t = threadIdx.x, lane = t % 32;
    unsigned long long *b = bins + head * BINS, x = b[2 * t], y = b[2 * t + 1], sum = x + y;
    unsigned long long left = state[head].left;
    b[2 * t] = b[2 * t + 1] = 0;
    for (int o = 1; o < 32; o *= 2) {
        unsigned long long up = __shfl_up_sync(~0u, sum, o);
        if (lane >= o) sum += up;
    }
    if (lane == 31) total[t / 32] = sum;
    __syncthreads();
    if (t < 32) {
        unsigned long long s = total[t];
        for (int o = 1; o < 32; o *= 2) {
            unsigned long long up = __shfl_up_sync(~0u, s, o);
            if (lane >= o) s += up;
        }
        total[t] = s;
    }
    __syncthreads();
    if (t >= 32) sum += total[t / 32 - 1];
    unsigned long long before = sum - x - y;
    if (left > before && left <= sum) { /* one thread only */
        bool second = left > before + x;
        state[head].prefix |= (uint32_t)(2 * t + second) << digit_shift(pass);
        state[head].left = left - before - (second ? x : 0);
    }
}

__global__ void set_rank(rank_state *state, unsigned long long rank)
{
    state[threadIdx.x] = rank_state{0, 0, rank};
}

/* fixed: a threshold known beforehand (-1 keeps all, +inf none but the forced); NaN: the found. */
__global__ void keep_draft(const float *map, int n, int words, const rank_state *state,
                           float fixed, forced_rule forced, uint32_t *keep)
{
    int head = blockIdx.y, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= n) return;
    float threshold = fixed == fixed ? fixed : __uint_as_float(state[head].prefix);
    const float *x = map + ((int64_t)head * n + row) * n;
    for (int w = 0; w < words; w++) {
        int col = w * 32 + lane;
        bool on = col < n && (x[col] >= threshold || is_forced(forced, row, col));
        uint32_t bits = __ballot_sync(~0u, on);
        if (lane == 0) keep[((int64_t)head * n + row) * words + w] = bits;
    }
}

/* ---- permute: each row's largest entries --------------------------------------------------------
 * A radix select from the top, 8 bits at a time, over weights in units of 2^-31 (MASS) or over
 * counts. Equal entries are taken in ascending order of column.
 */
struct rows_args {
    const float *map; /* [group][n][n] */
    int n, words, head; /* head: first of the group */
    uint32_t need;      /* MASS: threshold in 2^-31; else entries */
    const int32_t *start, *perm_q, *block_of;
    int64_t tokens, video;
    uint32_t *keep;
};

constexpr float MASS_UNIT = 2147483648.0f;

template <bool MASS>
__global__ void __launch_bounds__(256) keep_rows(rows_args a)
{
    extern __shared__ uint32_t own[]; /* [words] blocks that hold the row's own tokens */
    __shared__ uint32_t bins[256], warp_sum[8], digit, rest;
    int t = threadIdx.x, lane = t % 32, row = blockIdx.x, n = a.n;
    int64_t head = a.head + blockIdx.y;
    const float *x = a.map + ((int64_t)blockIdx.y * n + row) * n;
    for (int w = t; w < a.words; w += 256) own[w] = 0;
    __syncthreads();
    for (int i = a.start[row] + t; i < a.start[row + 1]; i += 256) {
        int stored = a.perm_q ? a.perm_q[head * a.tokens + i] : i;
        int b = a.block_of ? a.block_of[head * a.video + stored] : row;
        atomicOr(&own[b / 32], 1u << (b % 32));
    }
    __syncthreads();
    auto pattern = [&](int j) {
        if (!MASS && (own[j / 32] >> (j % 32) & 1)) return __float_as_uint(2.0f);
        return __float_as_uint(x[j]);
    };
    uint32_t prefix = 0, need = a.need, ties = 0;
    bool all = false;
    for (int shift = 24; shift >= 0; shift -= 8) {
        bins[t] = 0;
        if (t == 0) digit = 256;
        __syncthreads();
        for (int j = t; j < n; j += 256) {
            uint32_t u = pattern(j);
            if (shift == 24 || u >> (shift + 8) == prefix >> (shift + 8))
                atomicAdd(&bins[u >> shift & 255],
                          MASS ? (uint32_t)(__uint_as_float(u) * MASS_UNIT + 0.5f) : 1u);
        }
        __syncthreads();
        uint32_t mine = bins[255 - t], sum = mine; /* from the largest digit down */
        for (int o = 1; o < 32; o *= 2) {
            uint32_t up = __shfl_up_sync(~0u, sum, o);
            if (lane >= o) sum += up;
        }
        if (lane == 31) warp_sum[t / 32] = sum;
        __syncthreads();
        for (int w = 0; w < t / 32; w++) sum += warp_sum[w];
        if (sum >= need && sum - mine < need) {
            digit = 255 - t;
            rest = need - (sum - mine);
        }
        __syncthreads();
        if (digit == 256) { /* the row's weights do not add up to the threshold */
            all = true;
            break;
        }
        prefix |= digit << shift;
        need = rest;
        ties = bins[digit];
        __syncthreads();
    }
    /* need and ties are now of the entries that equal prefix; how many of them to take? */
    uint32_t unit = MASS ? (uint32_t)(__uint_as_float(prefix) * MASS_UNIT + 0.5f) : 1u;
    uint32_t take = all ? 0 : unit ? (need + unit - 1) / unit : ~0u;
    bool whole = all || (unit && ties / unit <= take) || !unit;
    uint32_t *keep = a.keep + (head * n + row) * a.words;
    if (whole) {
        for (int w = t / 32; w < a.words; w += 8) {
            int j = w * 32 + lane;
            uint32_t bits = __ballot_sync(~0u, j < n && (all || pattern(j) >= prefix));
            if (lane == 0) keep[w] = MASS ? bits | own[w] : bits;
        }
    } else if (t < 32) {
        uint32_t taken = 0;
        for (int w = 0; w < a.words; w++) {
            int j = w * 32 + lane;
            uint32_t u = j < n ? pattern(j) : 0;
            bool tie = j < n && u == prefix;
            uint32_t tied = __ballot_sync(~0u, tie);
            bool on = j < n && (u > prefix ||
                                (tie && taken + __popc(tied & ((1u << lane) - 1)) < take));
            uint32_t bits = __ballot_sync(~0u, on);
            taken += __popc(tied);
            if (lane == 0) keep[w] = MASS ? bits | own[w] : bits;
        }
    }
}

/* ---- importance of keys ------------------------------------------------------------------------
 * Softmax weights of a sample of queries over all video keys, summed per key: one pass finds each
 * query's log-sum-exp, the next the sums. Both are matrix products on tensor cores whose result is
 * never stored. Logits are in powers of two.
 */
constexpr int SAMPLES = 128, LSE_KEYS = 64, CHUNK = 1024, KEYS = 128, GROUP = 64;

__device__ inline void copy_async(void *to, const void *from, bool valid)
{
    uint32_t s = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(s), "l"(from),
                 "r"(valid ? 16 : 0));
}
__device__ inline void copies_commit()
{
    asm volatile("cp.async.commit_group;");
}
template <int N> __device__ inline void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N));
}
__device__ inline void load_matrices(uint32_t r[4], const __nv_bfloat16 *p)
{
    uint32_t s = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s));
}
__device__ inline void multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* The sampled query number i: the middle of one of `samples` equal parts of the stored order. */
__device__ inline int64_t sampled(int i, int samples, int64_t video)
{
    return (2 * (int64_t)i + 1) * video / (2 * samples);
}

/* rows x DP tile of x into shared memory, zeros outside [0, limit) and beyond dim. */
template <int DP, bool SAMPLED>
__device__ inline void load_tile(__nv_bfloat16 *to, view x, int64_t head, int64_t first, int rows,
                                 int64_t limit, int dim, int64_t video)
{
    constexpr int PARTS = DP / 8, PITCH = DP + 8;
    for (int i = threadIdx.x; i < rows * PARTS; i += 256) {
        int r = i / PARTS, c = i % PARTS * 8;
        bool valid = first + r < limit && c < dim;
        int64_t at = SAMPLED ? sampled((int)(first + r), (int)limit, video) : first + r;
        const __nv_bfloat16 *from = x.data + head * x.head + (valid ? at * x.row + c : 0);
        copy_async(to + r * PITCH + c, from, valid);
    }
}

template <int DP> constexpr int lse_shared_bytes()
{
    return (SAMPLES + 2 * LSE_KEYS) * (DP + 8) * 2;
}
template <int DP> constexpr int weight_shared_bytes()
{
    return (KEYS + 2 * GROUP) * (DP + 8) * 2;
}

/* Warps have 16 samples each and see the same keys. part: [heads][chunks][samples] (max, sum). */
template <int DP>
__global__ void __launch_bounds__(256, DP <= 128 ? 2 : 1)
    sample_sums(view q, view k, int samples, int64_t video, int dim, float factor, float2 *part)
{
    extern __shared__ __align__(16) __nv_bfloat16 tiles[];
    constexpr int PITCH = DP + 8;
    __nv_bfloat16 *qs = tiles, *ks = tiles + SAMPLES * PITCH;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t head = blockIdx.y, first = (int64_t)blockIdx.x * CHUNK;
    int64_t last = first + CHUNK < video ? first + CHUNK : video;
    int s0 = blockIdx.z * SAMPLES;
    load_tile<DP, true>(qs, q, head, s0, SAMPLES, samples, dim, video);
    load_tile<DP, false>(ks, k, head, first, LSE_KEYS, last, dim, video);
    copies_commit();
    uint32_t a[DP / 16][4];
    float m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
    int tiles_n = (int)((last - first + LSE_KEYS - 1) / LSE_KEYS);
    for (int t = 0; t < tiles_n; t++) {
        __nv_bfloat16 *now = ks + (t & 1) * LSE_KEYS * PITCH;
        int64_t key = first + (int64_t)t * LSE_KEYS;
        if (t + 1 < tiles_n)
            load_tile<DP, false>(ks + (~t & 1) * LSE_KEYS * PITCH, k, head, key + LSE_KEYS,
                                 LSE_KEYS, last, dim, video);
        copies_commit();
        copies_wait<1>();
        __syncthreads();
        if (t == 0)
#pragma unroll
            for (int d = 0; d < DP / 16; d++)
                load_matrices(a[d],
                              qs + (warp * 16 + lane % 16) * PITCH + d * 16 + lane / 16 * 8);
        float c[LSE_KEYS / 8][4];
#pragma unroll
        for (int j = 0; j < LSE_KEYS / 8; j++) c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0;
#pragma unroll
        for (int d = 0; d < DP / 16; d++)
#pragma unroll
            for (int j = 0; j < LSE_KEYS / 16; j++) {
                uint32_t b[4];
                load_matrices(b, now + (j * 16 + lane / 16 * 8 + lane % 8) * PITCH + d * 16 +
                                     lane / 8 % 2 * 8);
                multiply(c[2 * j], a[d], b[0], b[1]);
                multiply(c[2 * j + 1], a[d], b[2], b[3]);
            }
        int limit = (int)(last - key);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = m[r];
#pragma unroll
            for (int j = 0; j < LSE_KEYS / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float &x = c[j][2 * r + e];
                    x = j * 8 + lane % 4 * 2 + e < limit ? x * factor : -INFINITY;
                    top = fmaxf(top, x);
                }
            float base = top == -INFINITY ? 0 : top, sum = 0;
#pragma unroll
            for (int j = 0; j < LSE_KEYS / 8; j++)
                sum += power_of_two(c[j][2 * r] - base) + power_of_two(c[j][2 * r + 1] - base);
            l[r] = l[r] * power_of_two(m[r] - base) + sum;
            m[r] = top;
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        for (int o = 1; o < 4; o *= 2) {
            float m2 = __shfl_xor_sync(~0u, m[r], o), l2 = __shfl_xor_sync(~0u, l[r], o);
            float top = fmaxf(m[r], m2), base = top == -INFINITY ? 0 : top;
            l[r] = l[r] * power_of_two(m[r] - base) + l2 * power_of_two(m2 - base);
            m[r] = top;
        }
        int s = s0 + warp * 16 + lane / 4 + 8 * r;
        if (lane % 4 == 0 && s < samples)
            part[(head * gridDim.x + blockIdx.x) * samples + s] = make_float2(m[r], l[r]);
    }
}

/* lse: [heads][samples], in powers of two. */
__global__ void sample_lse(const float2 *part, int chunks, int samples, float *lse)
{
    int s = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t head = blockIdx.y;
    if (s >= samples) return;
    float m = -INFINITY, l = 0;
    for (int c = lane; c < chunks; c += 32) {
        float2 p = part[(head * chunks + c) * samples + s];
        float top = fmaxf(m, p.x), base = top == -INFINITY ? 0 : top;
        l = l * exp2f(m - base) + p.y * exp2f(p.x - base);
        m = top;
    }
    for (int o = 16; o; o /= 2) {
        float m2 = __shfl_xor_sync(~0u, m, o), l2 = __shfl_xor_sync(~0u, l, o);
        float top = fmaxf(m, m2), base = top == -INFINITY ? 0 : top;
        l = l * exp2f(m - base) + l2 * exp2f(m2 - base);
        m = top;
    }
    if (lane == 0) lse[head * samples + s] = m + log2f(l);
}

/* Warps have 16 keys each and see the same samples. weights: [heads][video]. */
template <int DP>
__global__ void __launch_bounds__(256, DP <= 128 ? 2 : 1)
    key_weights(view q, view k, int samples, int64_t video, int dim, float factor,
                const float *lse, float *weights)
{
    extern __shared__ __align__(16) __nv_bfloat16 tiles[];
    constexpr int PITCH = DP + 8;
    __nv_bfloat16 *ks = tiles, *qs = tiles + KEYS * PITCH;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t head = blockIdx.y, first = (int64_t)blockIdx.x * KEYS;
    load_tile<DP, false>(ks, k, head, first, KEYS, video, dim, video);
    load_tile<DP, true>(qs, q, head, 0, GROUP, samples, dim, video);
    copies_commit();
    uint32_t a[DP / 16][4];
    float sum[2] = {0, 0};
    int groups = (samples + GROUP - 1) / GROUP;
    for (int g = 0; g < groups; g++) {
        __nv_bfloat16 *now = qs + (g & 1) * GROUP * PITCH;
        if (g + 1 < groups)
            load_tile<DP, true>(qs + (~g & 1) * GROUP * PITCH, q, head, (g + 1) * GROUP, GROUP,
                                samples, dim, video);
        copies_commit();
        copies_wait<1>();
        __syncthreads();
        if (g == 0)
#pragma unroll
            for (int d = 0; d < DP / 16; d++)
                load_matrices(a[d],
                              ks + (warp * 16 + lane % 16) * PITCH + d * 16 + lane / 16 * 8);
        float c[GROUP / 8][4];
#pragma unroll
        for (int j = 0; j < GROUP / 8; j++) c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0;
#pragma unroll
        for (int d = 0; d < DP / 16; d++)
#pragma unroll
            for (int j = 0; j < GROUP / 16; j++) {
                uint32_t b[4];
                load_matrices(b, now + (j * 16 + lane / 16 * 8 + lane % 8) * PITCH + d * 16 +
                                     lane / 8 % 2 * 8);
                multiply(c[2 * j], a[d], b[0], b[1]);
                multiply(c[2 * j + 1], a[d], b[2], b[3]);
            }
#pragma unroll
        for (int j = 0; j < GROUP / 8; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int s = g * GROUP + j * 8 + lane % 4 * 2 + e;
                float base = s < samples ? lse[head * samples + s] : INFINITY;
                sum[0] += power_of_two(fmaf(c[j][e], factor, -base));
                sum[1] += power_of_two(fmaf(c[j][2 + e], factor, -base));
            }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
        sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
        int64_t key = first + warp * 16 + lane / 4 + 8 * r;
        if (lane % 4 == 0 && key < video) weights[head * video + key] = sum[r];
    }
}

/* ---- order by weight -----------------------------------------------------------------------------
 * One radix sort for all heads: head and segment above, then the weight's pattern inverted. The
 * sort is stable, so equal weights keep their order.
 */
__global__ void sort_keys(const float *weights, const int32_t *block_at, int64_t video,
                          int segment, int segments, uint64_t *keys, int32_t *values)
{
    int64_t j = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, head = blockIdx.y;
    if (j >= video) return;
    uint64_t part = (uint64_t)(head * segments + block_at[j] / segment);
    keys[head * video + j] = part << 32 | (uint32_t)~__float_as_uint(weights[head * video + j]);
    values[head * video + j] = (int32_t)j;
}

__global__ void spread_order(const int32_t *sorted, const int32_t *block_at, int64_t video,
                             int64_t tokens, int32_t *perm, int32_t *block_of)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, head = blockIdx.y;
    if (i >= tokens) return;
    int32_t j = i < video ? sorted[head * video + i] : (int32_t)i;
    perm[head * tokens + i] = j;
    if (i < video) block_of[head * video + j] = block_at[i];
}

/* ---- lists --------------------------------------------------------------------------------------
 * keep bits -> attention/device_lists.h. A warp walks one row: kept blocks that touch form a run,
 * which is cut into entries of KN_ATTN_BLOCK keys and a shorter last one. The text, when there is
 * any, is block number n, always kept.
 */
struct lists_args {
    const uint32_t *keep; /* [heads][n][words] */
    int n, words;
    const int32_t *start;     /* [n + 1], then the number of all tokens */
    const int32_t *row_block; /* [q_blocks] row of the map, -1: sees everything */
    const int32_t *q_start;   /* [q_blocks + 1] */
    int q_blocks;
    int text; /* is there a block n? */
    kn_attn_list_row *row;
    kn_attn_entry *entry;
    uint32_t *length;          /* counting: [heads * q_blocks + 1] entries, 0 at the end */
    const uint32_t *offset;    /* writing: their exclusive sums */
    unsigned long long *pairs; /* counting: visible (query, key) pairs, added to */
};

struct list_ends {
    kn_attn_entry *partial, *full;
};

/* Entries of keys [from, to) by one lane, or by all when they are many. */
__device__ inline void write_run(int from, int to, list_ends at)
{
    int key = from;
    for (; key + KN_ATTN_BLOCK <= to; key += KN_ATTN_BLOCK)
        *at.full++ = kn_attn_entry{key, (uint32_t)KN_ATTN_BLOCK};
    if (key < to) *at.partial = kn_attn_entry{key, (uint32_t)(to - key)};
}

template <bool WRITE> __global__ void __launch_bounds__(128) make_lists(lists_args a)
{
    int block = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
    if (block >= a.q_blocks) return;
    int64_t row = (int64_t)head * a.q_blocks + block;
    int map_row = a.row_block[block], blocks = a.n + a.text;
    const uint32_t *keep = a.keep + ((int64_t)head * a.n + (map_row < 0 ? 0 : map_row)) * a.words;
    uint32_t total = 0, partial = 0, keys = 0; /* of the row; before this word when writing */
    kn_attn_list_row ends = WRITE ? a.row[row] : kn_attn_list_row{0, 0, 0, 0};
    int open = -1; /* first key of a run that comes from the word before */
    for (int b0 = 0; b0 < blocks; b0 += 32) {
        int b = b0 + lane;
        bool on = b < blocks && (map_row < 0 || b == a.n || (keep[b / 32] >> (b % 32) & 1));
        uint32_t bits = __ballot_sync(~0u, on);
        int next_b = b0 + 32;
        bool goes_on = next_b < blocks &&
                       (map_row < 0 || next_b == a.n || (keep[next_b / 32] & 1));
        bool last = on && (lane == 31 ? !goes_on : !(bits >> (lane + 1) & 1));
        int from = 0, length = 0;
        if (last) {
            uint32_t gaps = ~bits & ((1u << lane) - 1);
            int first = gaps ? 32 - __clz(gaps) : 0;
            from = first == 0 && open >= 0 ? open : a.start[b0 + first];
            length = a.start[b + 1] - from;
        }
        int full = length / KN_ATTN_BLOCK, part = length % KN_ATTN_BLOCK != 0;
        uint32_t sum = (uint32_t)full | (uint32_t)part << 26;
        for (int o = 1; o < 32; o *= 2) {
            uint32_t up = __shfl_up_sync(~0u, sum, o);
            if (lane >= o) sum += up;
        }
        if (WRITE) {
            uint32_t f = (sum & 0x3ffffff) - full, p = (sum >> 26) - part;
            kn_attn_entry *e = a.entry + ends.first;
            list_ends at = {e + partial + p, e + ends.partial + (total - partial) + f};
            bool many = full > 4;
            if (last && !many) write_run(from, from + length, at);
            for (uint32_t left = __ballot_sync(~0u, many); left; left &= left - 1) {
                int who = __ffs(left) - 1;
                int from2 = __shfl_sync(~0u, from, who), full2 = __shfl_sync(~0u, full, who);
                int length2 = __shfl_sync(~0u, length, who);
                int f2 = __shfl_sync(~0u, (int)f, who), p2 = __shfl_sync(~0u, (int)p, who);
                kn_attn_entry *to = e + ends.partial + (total - partial) + f2;
                for (int i = lane; i < full2; i += 32)
                    to[i] = kn_attn_entry{from2 + i * KN_ATTN_BLOCK, (uint32_t)KN_ATTN_BLOCK};
                int rest = length2 % KN_ATTN_BLOCK;
                if (lane == 0 && rest)
                    e[partial + p2] = kn_attn_entry{from2 + length2 - rest, (uint32_t)rest};
            }
        }
        uint32_t word = __shfl_sync(~0u, sum, 31);
        total += (word & 0x3ffffff) + (word >> 26);
        partial += word >> 26;
        if (!WRITE) keys += on ? a.start[b + 1] - a.start[b] : 0;
        if (bits >> 31 && goes_on) {
            uint32_t gaps = ~bits;
            int first = gaps ? 32 - __clz(gaps) : 0;
            if (first || open < 0) open = a.start[b0 + first];
        } else {
            open = -1;
        }
    }
    if constexpr (!WRITE) {
        for (int o = 16; o; o /= 2) keys += __shfl_xor_sync(~0u, keys, o);
        if (lane) return;
        a.row[row] = kn_attn_list_row{0, (int32_t)partial, (int32_t)total, 0};
        a.length[row] = total;
        atomicAdd(a.pairs, (unsigned long long)keys * (a.q_start[block + 1] - a.q_start[block]));
    }
}

/* Firsts from the sums, and the sort keys of the order: head by head, longest rows first. */
__global__ void place_rows(const uint32_t *offset, int rows, int q_blocks, kn_attn_list_row *row,
                           uint64_t *keys, int32_t *values)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows) return;
    row[i].first = (int32_t)offset[i];
    keys[i] = (uint64_t)(i / q_blocks) << 32 | ~(uint32_t)row[i].total;
    values[i] = i;
}

} // namespace kn_select_kernels

#endif
