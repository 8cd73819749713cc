/* Attention over lists with products of bytes (attention/int8.h), on Hopper.
 *
 * Feeding and computing warps as in sparse_sm90.cu. The tensor cores take half the time here and
 * the exponentials the same, so what counts is instructions per score: largest score as integers,
 * three at a time; one conversion, one multiply-add and one exponential; rounding to a byte by the
 * conversion to fp16 in units of its least number, two at a time; sums of weights four bytes at a
 * time. Each computing warpgroup has one entry's first product and the second of the entry before
 * under way at once, and does half the exponentials before it waits for the latter; the two take no
 * turns. They run the same instructions, for a loop of two copies does not fit the instruction
 * cache next to the schedulers.
 *
 * K lies in an order (kn_attn_int8_place_of) that puts a lane's scores where the second product
 * wants its bytes. V is in pieces of 16 keys, so an entry's is one stretch of memory.
 */
#include <limits.h>

#include "attention/sparse_sm90.cuh"

namespace {

enum { FEED_REGS = 24, MATH_REGS = 240 };
enum { DIM = KN_INT8_DIM, EARLY = 4 };

struct shared {
    static constexpr int TILE = BLOCK * DIM;
    static constexpr int OUT_TILE = BLOCK * DIM * 2, PANEL = BLOCK * 128;
    static constexpr int STAGES = 10;
    static constexpr int Q = 0, OUT = 2 * TILE, RING = OUT + OUT_TILE, BARS = RING + STAGES * TILE;
    static constexpr int Q_FULL = BARS, Q_EMPTY = Q_FULL + 16, INFO_FULL = Q_EMPTY + 16;
    static constexpr int INFO_EMPTY = INFO_FULL + 8 * INFOS, FULL = INFO_EMPTY + 8 * INFOS;
    static constexpr int EMPTY = FULL + 8 * STAGES, INFO = EMPTY + 8 * STAGES;
    static constexpr int BYTES = INFO + 32 * INFOS;
};

/* ---- feeding ----------------------------------------------------------------------------------*/

__device__ void run_copies(const launch &a, uint32_t base, const CUtensorMap *qm,
                           const CUtensorMap *km, const kn_attn_int8 &x)
{
    using S = shared;
    uint64_t keep, stream;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(keep));
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(stream));
    cursor<INFOS> info = {0, 0};
    cursor<2> qc = {0, 0};
    cursor<S::STAGES> c = {0, 0};
    for (;; info.next(), qc.next()) {
        bar_wait(base + S::INFO_FULL + 8 * info.slot, info.parity);
        row_info r = read_info(base + S::INFO + 32 * info.slot);
        bar_arrive(base + S::INFO_EMPTY + 8 * info.slot);
        if (r.head < 0) return;
        uint32_t q_bar = base + S::Q_FULL + 8 * qc.slot;
        bar_wait(base + S::Q_EMPTY + 8 * qc.slot, qc.parity ^ 1);
        bar_expect(q_bar, S::TILE);
        tma_load_2d(base + S::Q + qc.slot * S::TILE, qm, q_bar, 0,
                    (int)(r.head * x.q_pitch) + r.q_start, stream);
        int k_row = (int)(r.head * x.k_pitch), before = 0;
        int2 e = entry_at(a, r, 0);
        /* K0, K1, V0, K2, V1, ...: as the products are issued. */
        for (int i = 0; i <= r.total; i++) {
            int key = e.x & -KN_ATTN_INT8_ALIGN;
            if (i < r.total) {
                uint32_t bar = base + S::FULL + 8 * c.slot;
                bar_wait(base + S::EMPTY + 8 * c.slot, c.parity ^ 1);
                bar_expect(bar, S::TILE);
                tma_load_2d(base + S::RING + c.slot * S::TILE, km, bar, 0, k_row + key, keep);
                c.next();
                if (i + 1 < r.total) e = entry_at(a, r, i + 1);
            }
            if (i > 0) {
                uint32_t bar = base + S::FULL + 8 * c.slot;
                bar_wait(base + S::EMPTY + 8 * c.slot, c.parity ^ 1);
                bar_expect(bar, S::TILE);
                bulk_load(base + S::RING + c.slot * S::TILE,
                          x.v + (r.head * x.k_pitch + before) * DIM, S::TILE, bar);
                c.next();
            }
            before = key;
        }
    }
}

/* ---- computing --------------------------------------------------------------------------------*/

/* Scores are at most 127 127 128 either way. A hidden one takes the place of HIDDEN, and then its
 * weight is none however low the visible ones are, if c is at least LEAST_SCALE: 2^-16 of
 * the least weight. Scores in steps that small are at most 2^-6 apart in the exponent. */
constexpr int HIDDEN = INT_MIN, LOWEST = -(1 << 21);
constexpr float LEAST_SCALE = 0x1p-27f;

/* Per thread: two query rows, r and r + 8. Sums and O are in units of 2^unit; beta is the weight of
 * the entry at hand. */
struct byte_softmax {
    float c[2], unit[2], sum[2], beta[2];
};

__device__ __forceinline__ void issue_qk(int (&s)[64], uint64_t a, uint64_t b)
{
#pragma unroll
    for (int t = 0; t < DIM / 32; t++) wg_ss_s8(s, wg_further(a, t * 32), wg_further(b, t * 32), t);
}

__device__ __forceinline__ void issue_pv(int (&acc)[64], const uint32_t (&p)[16], uint64_t b)
{
#pragma unroll
    for (int t = 0; t < BLOCK / 32; t++) wg_rs_u8s8(acc, p + 4 * t, wg_further(b, t * 32 * DIM), t);
}

/* log2 of the least number of fp16, in units of which weights are: the bits of one are then the
 * weight, rounded. */
constexpr float LOG2_LEAST = -24.0f;
__device__ __forceinline__ uint32_t round_pair(float x, float y)
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(r) : "f"(x), "f"(y));
    return r;
}

/* Largest of the quad's, of two rows at once, to a multiple of 64 at or above: scores fit so into
 * 16 bits each, and a weight of 255 need not be that of the very largest. */
__device__ __forceinline__ uint32_t max_pair(uint32_t x, uint32_t y)
{
    uint32_t r;
    asm("max.s16x2 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y));
    return r;
}
__device__ __forceinline__ void quad_tops(const int (&most)[2], float (&top)[2])
{
    uint32_t x =
        __byte_perm((uint32_t)((most[0] >> 6) + 1), (uint32_t)((most[1] >> 6) + 1), 0x5410);
    x = max_pair(x, __shfl_xor_sync(~0u, x, 1));
    x = max_pair(x, __shfl_xor_sync(~0u, x, 2));
    top[0] = (float)((int)(x << 16) >> 10), top[1] = (float)((int)(x & 0xffff0000u) >> 10);
}

/* What is added to a score times c, so that the largest's weight becomes 255, in the units of
 * round_pair. */
__device__ __forceinline__ void aim(const float (&top)[2], float (&shift)[2],
                                    const byte_softmax &st)
{
    constexpr float LOG2_255 = 7.99435344f;
#pragma unroll
    for (int r = 0; r < 2; r++) shift[r] = fmaf(-top[r], st.c[r], LOG2_255 + LOG2_LEAST);
}

/* In st.beta, what a weight of 1 stands for. before: that of the entry which is not in O yet. */
__device__ __forceinline__ void settle(const float (&shift)[2], float (&before)[2], float (&o)[64],
                                       byte_softmax &st)
{
    float height[2]; /* log2 of the weight of 1 */
    bool far = false;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        height[r] = LOG2_LEAST - shift[r];
        far |= height[r] - st.unit[r] > 60.0f;
    }
    /* Once per row as a rule: the first entry with a key. A branch besides, across which ptxas
     * moves nothing, the wait behind it least of all. */
    if (__builtin_expect(__any_sync(~0u, far), 0)) {
        float keep[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            bool move = height[r] - st.unit[r] > 60.0f;
            keep[r] = move ? exp2_fast(st.unit[r] - height[r]) : 1.0f;
            if (move) st.unit[r] = height[r];
            st.sum[r] *= keep[r], before[r] *= keep[r];
        }
#pragma unroll
        for (int j = 0; j < 64; j++) o[j] *= keep[(j >> 1) & 1];
    }
#pragma unroll
    for (int r = 0; r < 2; r++) st.beta[r] = exp2_fast(height[r] - st.unit[r]);
}

/* Weights of scores 8 m .. 8 m + 7 in fp16 pairs: [row][two pairs of neighbouring keys]. */
__device__ __forceinline__ void weigh(const int (&s)[64], int m, const float (&shift)[2],
                                      const byte_softmax &st, uint32_t (&w)[2][2])
{
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int *x = s + 8 * m + 4 * i + 2 * r;
            w[r][i] = round_pair(exp2_fast(fmaf((float)x[0], st.c[r], shift[r])),
                                 exp2_fast(fmaf((float)x[1], st.c[r], shift[r])));
        }
}

struct math {
    using S = shared;
    uint32_t base;
    const launch &a;
    const kn_attn_int8 &x;
    uint64_t k_ring, v_ring; /* operands in the ring's first tile */
    int group, lane;
    cursor<S::STAGES> c;
    uint32_t mask_info; /* of the next entry that needs a mask */
    float o[64];
    uint32_t p[16];
    byte_softmax st;

    __device__ __forceinline__ math(int group_, uint32_t base_, const launch &a_,
                                    const kn_attn_int8 &x_)
        : base(base_), a(a_), x(x_), k_ring(wg_operand(base_ + S::RING, 16, 1024)),
          v_ring(wg_operand_plain(base_ + S::RING, 16 * DIM, 128)), group(group_),
          lane(threadIdx.x & 31), c{0, 0}
    {
    }

    __device__ __forceinline__ int row() const
    {
        return group * 64 + ((threadIdx.x >> 5) & 3) * 16 + (lane >> 2);
    }

    __device__ __forceinline__ void wait_full(const cursor<S::STAGES> &at) const
    {
        bar_wait(base + S::FULL + 8 * at.slot, at.parity);
    }
    __device__ __forceinline__ void release(const cursor<S::STAGES> &used) const
    {
        bar_arrive_for_warp(base + S::EMPTY + 8 * used.slot);
    }
    __device__ __forceinline__ cursor<S::STAGES> take()
    {
        cursor<S::STAGES> at = c;
        c.next();
        return at;
    }
    /* Which of the thread's scores count, in an entry of a list that needs a mask. */
    __device__ __forceinline__ uint2 load_mask(uint32_t info) const
    {
        return __ldg(a.mask + ((info & ~255u) + threadIdx.x - (256 + 128)));
    }
    /* The same in a row's first entry, which of dense attention has the last keys. */
    __device__ __forceinline__ uint2 load_first_mask(int2 e) const
    {
        uint2 bits = {~0u, ~0u};
        if ((uint32_t)e.y >= 256) return load_mask(e.y);
#pragma unroll
        for (int j = 0; j < 64; j++)
            if (key_of(j) >= e.y - 4 * (lane & 3)) (j < 32 ? bits.x : bits.y) &= ~(1u << j % 32);
        return bits;
    }
    /* As kn_attn_mask_key, of lane 0. */
    static __device__ constexpr int key_of(int j)
    {
        return 16 * (j >> 3) + 2 * ((j >> 2) & 1) + (j & 1);
    }

    /* Weights of an entry. wait() is called when EARLY of eight are found, and then O gets what of
     * the entry before is in acc. */
    template <bool MASKED, class WAIT>
    __device__ __forceinline__ void softmax(int (&s)[64], const int *acc, uint2 bits, WAIT wait)
    {
        if (MASKED)
#pragma unroll
            for (int j = 0; j < 64; j++)
                s[j] = (j < 32 ? bits.x : bits.y) & 1u << j % 32 ? s[j] : HIDDEN;
        int most[4] = {s[0], s[2], s[4], s[6]};
#pragma unroll
        for (int j = 0; j < 16; j++)
#pragma unroll
            for (int k = 0; k < 2; k++)
                most[k + 2 * (j & 1)] =
                    __vimax3_s32(most[k + 2 * (j & 1)], s[4 * j + 2 * k], s[4 * j + 2 * k + 1]);
        int rows[2] = {max(most[0], most[2]), max(most[1], most[3])};
        if (MASKED) rows[0] = max(rows[0], LOWEST), rows[1] = max(rows[1], LOWEST);
        float top[2], shift[2], before[2] = {st.beta[0], st.beta[1]};
        quad_tops(rows, top);
        aim(top, shift, st);
        uint32_t w[8][2][2], sum[2] = {0, 0};
#pragma unroll
        for (int m = 0; m < EARLY; m++) weigh(s, m, shift, st, w[m]);
        settle(shift, before, o, st);
        wait();
#pragma unroll
        for (int m = 0; m <= 8; m++) {
            if (m >= EARLY && m < 8) weigh(s, m, shift, st, w[m]);
#pragma unroll
            for (int r = 0; r < 2; r++) {
                if (acc && m < 8)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        int j = 8 * m + 4 * (i >> 1) + 2 * r + (i & 1);
                        o[j] = fmaf((float)acc[j], before[r], o[j]);
                    }
                if (m == 0) continue;
                uint32_t bytes = __byte_perm(w[m - 1][r][0], w[m - 1][r][1], 0x6420);
                sum[r] = __dp4a(bytes, 0x01010101u, sum[r]);
                p[2 * (m - 1) + r] = bytes;
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) st.sum[r] = fmaf((float)sum[r], st.beta[r], st.sum[r]);
    }

    template <bool MASKED> __device__ __forceinline__ void first(uint64_t q, const row_info &r)
    {
        int s[64];
        uint2 bits = MASKED ? load_first_mask(entry_at(a, r, 0)) : make_uint2(0, 0);
        cursor<S::STAGES> k = take();
        wait_full(k);
        wg_fence();
        issue_qk(s, q, wg_further(k_ring, k.slot * S::TILE));
        wg_commit();
        wg_wait<0>();
        release(k);
        softmax<MASKED>(s, nullptr, bits, [] {});
    }

    /* S of entry i and P V of the entry before, back to back; S is looked through while the tensor
     * cores are at the latter. */
    template <bool MASKED>
    __device__ __forceinline__ void step(uint64_t q, const row_info &r, int i)
    {
        int s[64], acc[64];
        uint2 bits = make_uint2(0, 0);
        if (MASKED) {
            bits = load_mask(mask_info);
            mask_info = entry_at(a, r, i + 1 < r.total ? i + 1 : i).y;
        }
        cursor<S::STAGES> k = take(), v = take();
        bar_wait_both(base + S::FULL + 8 * k.slot, k.parity, base + S::FULL + 8 * v.slot, v.parity);
        wg_fence();
        issue_qk(s, q, wg_further(k_ring, k.slot * S::TILE));
        wg_commit();
        issue_pv(acc, p, wg_further(v_ring, v.slot * S::TILE));
        wg_commit();
        wg_wait<1>();
        release(k);
        softmax<MASKED>(s, acc, bits, [&] {
            wg_wait<0>();
            release(v);
        });
    }

    __device__ __forceinline__ void last()
    {
        int acc[64];
        cursor<S::STAGES> v = take();
        wait_full(v);
        wg_fence();
        issue_pv(acc, p, wg_further(v_ring, v.slot * S::TILE));
        wg_commit();
        wg_wait<0>();
        release(v);
#pragma unroll
        for (int j = 0; j < 64; j++) o[j] = fmaf((float)acc[j], st.beta[(j >> 1) & 1], o[j]);
    }

    /* Through the warp's own rows of the output tile. */
    __device__ __forceinline__ void store(const row_info &r)
    {
        uint32_t tile = base + S::OUT;
        int warp_row = row() - (lane >> 2);
        const int32_t *perm =
            a.perm_q ? a.perm_q + (a.perm_heads > 1 ? (int64_t)r.head * a.queries : 0) : nullptr;
        float inverse[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            float l = st.sum[k];
            l += __shfl_xor_sync(~0u, l, 1);
            l += __shfl_xor_sync(~0u, l, 2);
            /* A NaN stays one. */
            inverse[k] = l == 0.0f ? 0.0f : 1.0f / l;
            int at = row() + 8 * k;
            if (a.lse && (lane & 3) == 0 && at < r.q_count) {
                int64_t token = r.q_start + at;
                float back = __ldg(x.q_shift + r.head * x.q_pitch + token);
                if (perm) token = __ldg(perm + token);
                a.lse[r.head * a.lse_head + token * a.lse_token] =
                    l == 0.0f ? -INFINITY
                              : (st.unit[k] + log2f(l)) * 0.693147180559945f + back;
            }
        }
        const float2 *mean = (const float2 *)(x.channel + (r.head * 4 + 2) * DIM) + (lane & 3);
        __syncwarp(); /* the rows of before have been read */
        int in = lane & 15, hi = lane >> 4;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t at = tile + (j >> 2) * S::PANEL + (warp_row + in) * 128 +
                          ((((j & 3) * 2 + hi) ^ (in & 7)) << 4);
            uint32_t y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int column = 2 * j + (i >> 1), k = i & 1;
                float2 m = __ldg(mean + 4 * column), s = __ldg(mean + 4 * column + DIM / 2);
                float some = inverse[k] == 0.0f ? 0.0f : 1.0f;
                const float *v = o + 4 * column + 2 * k;
                y[i] = bf16_pair(fmaf(v[0] * inverse[k], s.x, m.x * some),
                                 fmaf(v[1] * inverse[k], s.y, m.y * some));
            }
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(at),
                         "r"(y[0]), "r"(y[1]), "r"(y[2]), "r"(y[3])
                         : "memory");
        }
        __syncwarp();
        constexpr int CHUNKS = DIM / 8;
#pragma unroll
        for (int i = 0; i < CHUNKS / 2; i++) {
            int at = i * 32 + lane, chunk = at % CHUNKS, in_row = warp_row + at / CHUNKS;
            uint4 y;
            asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                         : "=r"(y.x), "=r"(y.y), "=r"(y.z), "=r"(y.w)
                         : "r"(tile + (chunk >> 3) * S::PANEL + in_row * 128 +
                               (((chunk & 7) ^ (in_row & 7)) << 4))
                         : "memory");
            if (in_row < r.q_count) {
                int64_t token = r.q_start + in_row;
                if (perm) token = __ldg(perm + token);
                *((uint4 *)(a.out + token * a.out_token + r.head * a.out_head) + chunk) = y;
            }
        }
    }

    __device__ __forceinline__ void run()
    {
        cursor<INFOS> info = {0, 0};
        cursor<2> qc = {0, 0};
        for (;; info.next(), qc.next()) {
            bar_wait(base + S::INFO_FULL + 8 * info.slot, info.parity);
            row_info r = read_info_for_warp(base + S::INFO + 32 * info.slot);
            __syncwarp();
            if (lane < WARP_VOTES) bar_arrive(base + S::INFO_EMPTY + 8 * info.slot);
            if (r.head < 0) break;
            uint64_t q = wg_operand(base + S::Q + qc.slot * S::TILE + group * 64 * 128, 16, 1024);
#pragma unroll
            for (int j = 0; j < 64; j++) o[j] = 0.0f;
#pragma unroll
            for (int k = 0; k < 2; k++) {
                float c = __ldg(x.q_scale + r.head * x.q_pitch + r.q_start +
                                min(row() + 8 * k, r.q_count - 1));
                st.c[k] = c < LEAST_SCALE ? LEAST_SCALE : c; /* a NaN stays one */
                st.unit[k] = -INFINITY, st.sum[k] = 0.0f;
            }
            bar_wait(base + S::Q_FULL + 8 * qc.slot, qc.parity);
            if (r.partial)
                first<true>(q, r);
            else
                first<false>(q, r);
            int i = 1;
            if (r.partial > 1) mask_info = entry_at(a, r, 1).y;
#pragma unroll 1
            for (; i < r.partial; i++) step<true>(q, r, i);
#pragma unroll 1
            for (; i < r.total; i++) step<false>(q, r, i);
            if (lane < WARP_VOTES) bar_arrive(base + S::Q_EMPTY + 8 * qc.slot);
            last();
            store(r);
        }
    }
};

__global__ void __launch_bounds__(THREADS, 1)
    attention_int8(const __grid_constant__ CUtensorMap qm, const __grid_constant__ CUtensorMap km,
                   const __grid_constant__ launch a, const __grid_constant__ kn_attn_int8 x)
{
    using S = shared;
    extern __shared__ __align__(1024) uint8_t memory[];
    uint32_t base = smem_of(memory);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            bar_init(base + S::Q_FULL + 8 * i, 1);
            bar_init(base + S::Q_EMPTY + 8 * i, 8 * WARP_VOTES);
        }
        for (int i = 0; i < INFOS; i++) {
            bar_init(base + S::INFO_FULL + 8 * i, 1);
            bar_init(base + S::INFO_EMPTY + 8 * i, 1 + 8 * WARP_VOTES);
        }
        for (int i = 0; i < S::STAGES; i++) {
            bar_init(base + S::FULL + 8 * i, 1);
            bar_init(base + S::EMPTY + 8 * i, 8 * WARP_VOTES);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    int warp = for_warp(threadIdx.x >> 5);
    if (warp < 4) {
        regs_shrink<FEED_REGS>();
        if (warp == 0) {
            if (threadIdx.x == 0) run_copies(a, base, &qm, &km, x);
        } else if (warp == 1) {
            if (threadIdx.x == 32) run_scheduler<S>(a, base);
        }
    } else {
        regs_grow<MATH_REGS>();
        math m(for_warp(warp >= 8), base, a, x);
        m.run();
    }
}

/* ---- launching --------------------------------------------------------------------------------*/

/* Rows of 128 bytes, copied 128 at a time. */
cudaError_t map_bytes(tensor_map_fn encode, CUtensorMap *map, const void *data, int64_t rows)
{
    const cuuint64_t dims[2] = {DIM, (cuuint64_t)rows}, stride[1] = {DIM};
    const cuuint32_t box[2] = {DIM, BLOCK}, step[2] = {1, 1};
    CUresult r = encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, (void *)data, dims, stride, box, step,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

} // namespace

cudaError_t kn_attn_launch_int8(const kn_attn_problem *p, const kn_attn_int8 *x, cudaStream_t stream)
{
    if (p->dim != DIM || !(p->scale > 0.0f) || (p->lists && p->lists->align != KN_ATTN_INT8_ALIGN))
        return cudaErrorNotSupported;
    tensor_map_fn encode;
    CUtensorMap qm, km;
    cudaError_t e = tensor_map_find(&encode);
    if (!e) e = map_bytes(encode, &qm, x->q, p->heads * x->q_pitch);
    if (!e) e = map_bytes(encode, &km, x->k, p->heads * x->k_pitch);
    if (!e)
        e = cudaFuncSetAttribute(attention_int8, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 shared::BYTES);
    if (!e) e = cudaMemsetAsync(p->counter, 0, sizeof *p->counter, stream);
    if (e) return e;
    launch a = make_launch(p);
    int grid = a.work < p->sm_count ? a.work : p->sm_count;
    attention_int8<<<grid, THREADS, shared::BYTES, stream>>>(qm, km, a, *x);
    return cudaGetLastError();
}
