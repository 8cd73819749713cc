/* Block-sparse attention by mma.sync, for GPUs from sm_80 on that are not Hopper, and as a second
 * implementation of the same lists for the tests.
 *
 * One block of 8 warps per (head, query block) row; a warp has 16 queries. Half an entry, 64 keys,
 * is in shared memory at a time, and the next half on its way (cp.async). Rows of 16-byte chunks are
 * XOR-swizzled by the row, so that ldmatrix meets no bank conflict.
 *
 * Source    FlashAttention-2, arXiv 2307.08691.
 */
#include <cuda_bf16.h>
#include <stdint.h>

#include "attention/sparse_kernels.h"

namespace {

enum { BLOCK = KN_ATTN_BLOCK, KEYS = 64, WARPS = 8 };

struct launch {
    kn_attn_problem p;
    kn_attn_lists l;
    int q_blocks;
};

struct row_info {
    int head, q_start, q_count, partial, total, perm; /* perm: position set of the head */
    const kn_attn_entry *entry;
};

__device__ __forceinline__ uint32_t smem_of(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
__device__ __forceinline__ void copy_16(uint32_t dst, const void *src, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src),
                 "r"(there ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void load_transposed(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ uint32_t bf16_pair(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

/* Place of a 16-byte chunk in a tile of rows of D elements. */
template <int D> __device__ __forceinline__ uint32_t place(int row, int chunk)
{
    return (uint32_t)(row * D * 2 + ((chunk ^ (row & 7)) << 4));
}

__device__ row_info find_row(const launch &a)
{
    row_info r;
    int t = blockIdx.x;
    if (!a.p.lists) {
        int block = t % a.q_blocks;
        r.head = t / a.q_blocks;
        r.q_start = block * BLOCK;
        r.q_count = (int)min((int64_t)BLOCK, a.p.queries - r.q_start);
        r.total = (int)((a.p.keys + BLOCK - 1) / BLOCK);
        r.partial = 0, r.perm = 0, r.entry = nullptr;
        return r;
    }
    if (a.l.order) t = a.l.order[t];
    int block = t % a.q_blocks;
    r.head = t / a.q_blocks;
    kn_attn_list_row row = a.l.row[a.l.heads > 1 ? t : block];
    r.q_start = a.l.q_start[block];
    r.q_count = a.l.q_start[block + 1] - r.q_start;
    r.partial = row.partial, r.total = row.total;
    r.perm = a.l.perm_heads > 1 ? r.head : 0;
    r.entry = a.l.entry + row.first;
    return r;
}

__device__ __forceinline__ kn_attn_entry entry_at(const launch &a, const row_info &r, int i)
{
    if (r.entry) return r.entry[i];
    int64_t left = a.p.keys - (int64_t)i * BLOCK;
    return {i * BLOCK, (uint32_t)(left < BLOCK ? left : BLOCK)};
}

/* Half h of the row's entries (entry h / 2) into shared memory; keys beyond its end become zeros. */
template <int D>
__device__ void fetch(const launch &a, const row_info &r, int h, uint32_t k, uint32_t v)
{
    constexpr int CHUNKS = D / 8;
    kn_attn_entry e = entry_at(a, r, h / 2);
    int count = (int)(e.info & 255) - h % 2 * KEYS;
    int64_t first = e.key + h % 2 * KEYS;
    const __nv_bfloat16 *kp = (const __nv_bfloat16 *)a.p.k + r.head * a.p.k_head;
    const __nv_bfloat16 *vp = (const __nv_bfloat16 *)a.p.v + r.head * a.p.v_head;
    for (int i = threadIdx.x; i < KEYS * CHUNKS; i += 32 * WARPS) {
        int row = i / CHUNKS, chunk = i % CHUNKS;
        bool there = row < count;
        int64_t key = there ? first + row : e.key;
        copy_16(k + place<D>(row, chunk), kp + key * a.p.k_token + chunk * 8, there);
        copy_16(v + place<D>(row, chunk), vp + key * a.p.v_token + chunk * 8, there);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* -inf where a query does not see a key of half h. */
__device__ void mask(const launch &a, const row_info &r, float (&s)[KEYS / 8][4], kn_attn_entry e,
                     int h, int row)
{
    int lane = threadIdx.x & 31, from = h % 2 * KEYS + 2 * (lane & 3), count = e.info & 255;
    int rule = (int)(e.info >> 8) - 1;
    for (int x = 0; x < 2; x++) {
        uint2 box = {0, 0};
        int64_t q = min((int64_t)r.q_start + row + 8 * x, a.p.queries - 1);
        int64_t set = (int64_t)r.perm * a.l.rules + rule;
        if (rule >= 0) box = ((const uint2 *)a.l.q_box)[set * a.l.tokens + q];
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int c = from + 8 * j + i;
                bool seen = c < count;
                if (seen && rule >= 0) {
                    uint32_t k = a.l.k_pos[r.perm * a.l.k_pitch + e.key + c];
                    seen = !((~(k - box.x) | (k - box.y)) & a.l.guard);
                    if (seen && a.l.k_class)
                        seen = a.l.k_class[set * a.l.tokens + e.key + c] ==
                               a.l.q_class[set * a.l.tokens + q];
                }
                if (!seen) s[j][2 * x + i] = -INFINITY;
            }
    }
}

template <int D>
__device__ void store(const launch &a, const row_info &r, float (&o)[D / 8][4], const float *top,
                      const float *sum, float c, int row)
{
    int lane = threadIdx.x & 31;
    for (int x = 0; x < 2; x++) {
        float l = sum[x];
        l += __shfl_xor_sync(~0u, l, 1);
        l += __shfl_xor_sync(~0u, l, 2);
        int at = row + 8 * x;
        if (at >= r.q_count) continue;
        int64_t token = r.q_start + at;
        if (a.p.lists && a.l.perm_q) token = a.l.perm_q[r.perm * a.l.tokens + token];
        float inverse = l > 0.0f ? 1.0f / l : 0.0f;
        uint32_t *out = (uint32_t *)((__nv_bfloat16 *)a.p.out + token * a.p.out_token +
                                     r.head * a.p.out_head);
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            out[4 * j + (lane & 3)] =
                bf16_pair(o[j][2 * x] * inverse, o[j][2 * x + 1] * inverse);
        if (a.p.lse && (lane & 3) == 0)
            a.p.lse[r.head * a.p.lse_head + token * a.p.lse_token] =
                l > 0.0f ? (top[x] * c + log2f(l)) * 0.693147180559945f : -INFINITY;
    }
}

/* Scores of 16 queries against 64 keys, times c. */
template <int D>
__device__ __forceinline__ void scores(float (&s)[KEYS / 8][4], uint32_t q, uint32_t k, int warp_row)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[j][i] = 0.0f;
#pragma unroll
    for (int t = 0; t < D / 16; t++) {
        uint32_t x[4];
        load_matrices(x, q + place<D>(warp_row + (lane & 15), 2 * t + (lane >> 4)));
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            uint32_t y[4];
            load_matrices(y, k + place<D>(16 * j + (lane & 7) + (lane >> 4) * 8,
                                          2 * t + ((lane >> 3) & 1)));
            mma(s[2 * j], x, y[0], y[1]);
            mma(s[2 * j + 1], x, y[2], y[3]);
        }
    }
}

template <int D>
__global__ void __launch_bounds__(32 * WARPS, 1) attention_sm80(const __grid_constant__ launch a)
{
    extern __shared__ __align__(128) uint8_t memory[];
    constexpr int TILE = KEYS * D * 2, CHUNKS = D / 8;
    uint32_t q = smem_of(memory), ring = q + BLOCK * D * 2;
    int lane = threadIdx.x & 31, warp_row = (threadIdx.x >> 5) * 16, row = warp_row + (lane >> 2);
    row_info r = find_row(a);
    const int32_t *perm =
        a.p.lists && a.l.perm_q ? a.l.perm_q + r.perm * a.l.tokens : nullptr;
    for (int i = threadIdx.x; i < BLOCK * CHUNKS; i += 32 * WARPS) {
        int at = i / CHUNKS, chunk = i % CHUNKS;
        int64_t token = r.q_start + min(at, r.q_count - 1);
        if (perm) token = perm[token];
        copy_16(q + place<D>(at, chunk),
                (const __nv_bfloat16 *)a.p.q + token * a.p.q_token + r.head * a.p.q_head +
                    chunk * 8,
                true);
    }
    float o[D / 8][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    float scale = a.p.scale * 1.44269504088896f;
    /* The maximum is taken before scaling: a scale below 0 turns the scores round, 0 flattens
     * them. */
    float turn = scale < 0.0f ? -1.0f : scale > 0.0f ? 1.0f : 0.0f, c = fabsf(scale);
    if (c == 0.0f) c = 1.0f;
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) o[j][i] = 0.0f;
    fetch<D>(a, r, 0, ring, ring + TILE);
    for (int h = 0; h < 2 * r.total; h++) {
        uint32_t k = ring + h % 2 * 2 * TILE, v = k + TILE;
        if (h + 1 < 2 * r.total) {
            fetch<D>(a, r, h + 1, ring + (h + 1) % 2 * 2 * TILE,
                     ring + (h + 1) % 2 * 2 * TILE + TILE);
            asm volatile("cp.async.wait_group 1;" ::: "memory");
        } else {
            asm volatile("cp.async.wait_group 0;" ::: "memory");
        }
        __syncthreads();
        float s[KEYS / 8][4];
        scores<D>(s, q, k, warp_row);
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) s[j][i] *= turn;
        kn_attn_entry e = entry_at(a, r, h / 2);
        if (e.info != BLOCK) mask(a, r, s, e, h, row);
        float alpha[2], shift[2];
#pragma unroll
        for (int x = 0; x < 2; x++) {
            float m = top[x];
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) m = fmaxf(m, fmaxf(s[j][2 * x], s[j][2 * x + 1]));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
            shift[x] = m == -INFINITY ? 0.0f : m * c;
            alpha[x] = exp2f(top[x] * c - shift[x]);
            top[x] = m;
            sum[x] *= alpha[x];
        }
        uint32_t p[KEYS / 16][4];
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int x = 0; x < 2; x++) {
                float y = exp2f(fmaf(s[j][2 * x], c, -shift[x]));
                float z = exp2f(fmaf(s[j][2 * x + 1], c, -shift[x]));
                sum[x] += y + z;
                p[j / 2][j % 2 * 2 + x] = bf16_pair(y, z);
            }
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) o[j][i] *= alpha[i >> 1];
#pragma unroll
        for (int t = 0; t < KEYS / 16; t++)
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                uint32_t y[4];
                load_transposed(y, v + place<D>(16 * t + (lane & 15), 2 * j + (lane >> 4)));
                mma(o[2 * j], p[t], y[0], y[1]);
                mma(o[2 * j + 1], p[t], y[2], y[3]);
            }
        __syncthreads(); /* before this half's room is filled again */
    }
    store<D>(a, r, o, top, sum, c, row);
}

template <int D> cudaError_t launch_dim(const launch &a, int64_t rows, cudaStream_t stream)
{
    int bytes = BLOCK * D * 2 + 4 * KEYS * D * 2;
    cudaError_t e = cudaFuncSetAttribute(attention_sm80<D>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e) return e;
    attention_sm80<D><<<(unsigned)rows, 32 * WARPS, bytes, stream>>>(a);
    return cudaGetLastError();
}

} // namespace

cudaError_t kn_attn_launch_sm80(const kn_attn_problem *p, cudaStream_t stream)
{
    launch a = {};
    a.p = *p;
    if (p->lists) a.l = *p->lists;
    a.q_blocks = p->lists ? (int)p->lists->q_blocks : (int)((p->queries + BLOCK - 1) / BLOCK);
    if (p->dim == 64) return launch_dim<64>(a, (int64_t)a.q_blocks * p->heads, stream);
    if (p->dim == 128) return launch_dim<128>(a, (int64_t)a.q_blocks * p->heads, stream);
    return cudaErrorNotSupported;
}
