/* Attention over lists with products of bytes (attention/int8.h), on Hopper.
 *
 * Feeding and computing warps as in sparse_sm90.cu. The tensor cores take half the time here and
 * the exponentials the same, so what counts is instructions per score: largest score as integers,
 * three at a time; one conversion, one multiply-add and one exponential; rounding to a byte as the
 * addition of 1024 in fp16, two at a time; sums of weights four bytes at a time.
 *
 * K lies in an order (kn_attn_int8_place_of) that puts a lane's scores where the second product
 * wants its bytes. V is in pieces of 16 keys, so an entry's is one stretch of memory.
 */
#include "attention/sparse_sm90.cuh"

namespace {

enum { FEED_REGS = 24, MATH_REGS = 240 };
enum { DIM = KN_INT8_DIM, HOLD = 4 };

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

/* Per thread: two query rows, r and r + 8. Sums and O are in units of 2^unit; beta is the weight of
 * the entry at hand. */
struct byte_softmax {
    float c[2], unit[2], sum[2], beta[2];
};

__device__ __forceinline__ void issue_qk(int (&s)[64], uint32_t q, uint32_t k)
{
    uint64_t a = wg_operand(q, 16, 1024), b = wg_operand(k, 16, 1024);
#pragma unroll
    for (int t = 0; t < DIM / 32; t++) wg_ss_s8(s, wg_further(a, t * 32), wg_further(b, t * 32), t);
}

__device__ __forceinline__ void issue_pv(int (&acc)[64], const uint32_t (&p)[16], uint32_t v)
{
    uint64_t b = wg_operand_plain(v, 16 * DIM, 128);
#pragma unroll
    for (int t = 0; t < BLOCK / 32; t++) wg_rs_u8s8(acc, p + 4 * t, wg_further(b, t * 32 * DIM), t);
}

/* fp16 pair with 1024 added: the low bytes are x and y rounded. */
__device__ __forceinline__ uint32_t round_pair(float x, float y)
{
    uint32_t r;
    asm("{.reg .b32 t; cvt.rn.f16x2.f32 t, %2, %1; add.rn.f16x2 %0, t, %3;}"
        : "=r"(r)
        : "f"(x), "f"(y), "r"(0x64006400u));
    return r;
}

/* Largest of the quad's. */
__device__ __forceinline__ float quad_top(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
/* Of two rows at once, to a multiple of 64 at or above: scores are at most 127 127 128 and fit
 * so into 16 bits each, and a weight of 255 need not be that of the very largest. */
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

/* What turns scores into weights of bytes: shift, so that the largest becomes 255; and, in st.beta,
 * what a weight of 1 stands for. before: that of the entry which is not in O yet. */
template <bool MASKED>
__device__ __forceinline__ void aim(const float (&top)[2], float (&shift)[2], float (&before)[2],
                                    float (&o)[64], byte_softmax &st)
{
    constexpr float LOG2_255 = 7.99435344f;
    float height[2]; /* log2 of the weight of 1 */
    bool far = false;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        shift[r] = fmaf(-top[r], st.c[r], LOG2_255);
        height[r] = -shift[r];
        if (MASKED && top[r] == -INFINITY) shift[r] = 0.0f, height[r] = -INFINITY;
        far |= height[r] - st.unit[r] > 60.0f;
    }
    /* Once per row as a rule: the first entry with a key. */
    if (__any_sync(~0u, far)) {
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
    for (int r = 0; r < 2; r++)
        st.beta[r] = MASKED && height[r] == -INFINITY ? 0.0f : exp2_fast(height[r] - st.unit[r]);
}

/* Bytes of weights from scores; EACH(m, r) is called beside every four. */
template <class SCORE, class EACH>
__device__ __forceinline__ void weigh(SCORE x, const float (&shift)[2], uint32_t (&p)[16],
                                      byte_softmax &st, EACH each)
{
    uint32_t sum[2] = {0, 0};
#pragma unroll
    for (int m = 0; m < 8; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = exp2_fast(fmaf(x(8 * m + 4 * (i >> 1) + 2 * r + (i & 1)), st.c[r], shift[r]));
            each(m, r);
            uint32_t bytes =
                __byte_perm(round_pair(w[0], w[1]), round_pair(w[2], w[3]), 0x6420);
            sum[r] = __dp4a(bytes, 0x01010101u, sum[r]);
            p[2 * m + r] = bytes;
        }
#pragma unroll
    for (int r = 0; r < 2; r++) st.sum[r] = fmaf((float)sum[r], st.beta[r], st.sum[r]);
}

/* The same where nothing is masked: a pair of fours is rounded when the exponentials of the next are
 * under way, and ptxas is kept to the halves (wg_hold): by itself it leaves the last exponentials
 * with nothing beside them, each waiting for the one before. */
template <class SCORE, class EACH>
__device__ __forceinline__ void weigh_all(SCORE x, const float (&shift)[2], uint32_t (&p)[16],
                                          byte_softmax &st, int turn, EACH each)
{
    uint32_t sum[2] = {0, 0};
    float w[2][2][4];
#pragma unroll
    for (int m = 0; m <= 8; m++) {
#pragma unroll
        for (int r = 0; r < 2 && m < 8; r++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[m & 1][r][i] =
                    exp2_fast(fmaf(x(8 * m + 4 * (i >> 1) + 2 * r + (i & 1)), st.c[r], shift[r]));
            each(m, r);
        }
#pragma unroll
        for (int r = 0; r < 2 && m > 0; r++) {
            const float(&y)[4] = w[(m - 1) & 1][r];
            uint32_t bytes = __byte_perm(round_pair(y[0], y[1]), round_pair(y[2], y[3]), 0x6420);
            sum[r] = __dp4a(bytes, 0x01010101u, sum[r]);
            p[2 * (m - 1) + r] = bytes;
        }
        if (m > 0 && m < 8 && m % HOLD == 0) wg_hold(turn, m);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) st.sum[r] = fmaf((float)sum[r], st.beta[r], st.sum[r]);
}

template <int G> struct math {
    using S = shared;
    uint32_t base;
    const launch &a;
    const kn_attn_int8 &x;
    int lane, lead;
    cursor<S::STAGES> c;
    float o[64];
    uint32_t p[16];
    byte_softmax st;

    __device__ __forceinline__ math(uint32_t base_, const launch &a_, const kn_attn_int8 &x_)
        : base(base_), a(a_), x(x_), lane(threadIdx.x & 31), lead((threadIdx.x & 127) < GROUP_VOTES),
          c{0, 0}
    {
    }

    __device__ __forceinline__ int row() const
    {
        return G * 64 + ((threadIdx.x >> 5) & 3) * 16 + (lane >> 2);
    }

    __device__ __forceinline__ uint32_t slot() const { return base + S::RING + c.slot * S::TILE; }
    __device__ __forceinline__ void wait_full() const
    {
        bar_wait(base + S::FULL + 8 * c.slot, c.parity);
    }
    __device__ __forceinline__ void release(int used) const
    {
        bar_arrive_if(lead, base + S::EMPTY + 8 * used);
    }

    /* Which of the thread's scores count. */
    template <bool MASKED> __device__ __forceinline__ uint2 load_mask(int2 e) const
    {
        uint2 bits = {~0u, ~0u};
        if (!MASKED) return bits;
        if ((uint32_t)e.y >= 256)
            return __ldg(a.mask + ((int64_t)((uint32_t)e.y >> 8) - 1) * 256 + threadIdx.x - 128);
        /* The last keys of dense attention. */
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

    /* Weights of an entry. wait() is called when S has been looked through, and then O gets what of
     * the entry before is in acc. */
    template <bool MASKED, class WAIT>
    __device__ __forceinline__ void softmax(const int (&s)[64], const int *acc, uint2 bits,
                                            int turn, WAIT wait)
    {
        float top[2], shift[2], before[2] = {st.beta[0], st.beta[1]};
        auto add = [&](int m, int k) {
            if (acc)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int j = 8 * m + 4 * (i >> 1) + 2 * k + (i & 1);
                    o[j] = fmaf((float)acc[j], before[k], o[j]);
                }
        };
        if (MASKED) {
            float f[64];
#pragma unroll
            for (int j = 0; j < 64; j++)
                f[j] = (j < 32 ? bits.x : bits.y) & 1u << j % 32 ? (float)s[j] : -INFINITY;
            top[0] = f[0], top[1] = f[2];
#pragma unroll
            for (int j = 0; j < 64; j++) top[(j >> 1) & 1] = fmaxf(top[(j >> 1) & 1], f[j]);
            top[0] = quad_top(top[0]), top[1] = quad_top(top[1]);
            wait();
            aim<true>(top, shift, before, o, st);
            weigh([&](int j) { return f[j]; }, shift, p, st, add);
        } else {
            int most[4] = {s[0], s[2], s[4], s[6]};
#pragma unroll
            for (int j = 0; j < 16; j++)
#pragma unroll
                for (int k = 0; k < 2; k++)
                    most[k + 2 * (j & 1)] =
                        __vimax3_s32(most[k + 2 * (j & 1)], s[4 * j + 2 * k], s[4 * j + 2 * k + 1]);
            const int rows[2] = {max(most[0], most[2]), max(most[1], most[3])};
            quad_tops(rows, top);
            aim<false>(top, shift, before, o, st);
            wait();
            weigh_all([&](int j) { return (float)s[j]; }, shift, p, st, turn, add);
        }
    }

    template <bool MASKED> __device__ __forceinline__ void first(uint32_t q, const row_info &r)
    {
        int s[64];
        uint2 bits = load_mask<MASKED>(MASKED ? entry_at(a, r, 0) : make_int2(0, 0));
        wait_full();
        wg_fence();
        issue_qk(s, q, slot());
        wg_commit();
        wg_wait<0>();
        release(c.slot);
        c.next();
        softmax<MASKED>(s, nullptr, bits, 0, [] {});
    }

    /* S of entry i and P V of the entry before, back to back; S is looked through while the tensor
     * cores are at the latter. */
    template <bool MASKED>
    __device__ __forceinline__ void step(uint32_t q, const row_info &r, int i)
    {
        int s[64], acc[64];
        uint2 bits = load_mask<MASKED>(MASKED ? entry_at(a, r, i) : make_int2(0, 0));
        int k_slot = c.slot;
        uint32_t k = slot();
        wait_full();
        c.next();
        take_turn<G>();
        wg_fence();
        issue_qk(s, q, k);
        wg_commit();
        wait_full();
        wg_fence();
        issue_pv(acc, p, slot());
        wg_commit();
        pass_turn<G>();
        wg_wait<1>();
        release(k_slot);
        softmax<MASKED>(s, acc, bits, i, [&] {
            wg_wait<0>();
            release(c.slot);
            c.next();
        });
    }

    __device__ __forceinline__ void last()
    {
        int acc[64];
        wait_full();
        wg_fence();
        issue_pv(acc, p, slot());
        wg_commit();
        wg_wait<0>();
        release(c.slot);
        c.next();
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
        if (G == 1) pass_turn<G>(); /* warpgroup 0 begins */
        for (;; info.next(), qc.next()) {
            bar_wait(base + S::INFO_FULL + 8 * info.slot, info.parity);
            row_info r = read_info_for_warp(base + S::INFO + 32 * info.slot);
            __syncwarp();
            if (lane < WARP_VOTES) bar_arrive(base + S::INFO_EMPTY + 8 * info.slot);
            if (r.head < 0) break;
            uint32_t q = base + S::Q + qc.slot * S::TILE + G * 64 * 128;
#pragma unroll
            for (int j = 0; j < 64; j++) o[j] = 0.0f;
#pragma unroll
            for (int k = 0; k < 2; k++) {
                st.c[k] = __ldg(x.q_scale + r.head * x.q_pitch + r.q_start +
                                min(row() + 8 * k, r.q_count - 1));
                st.unit[k] = -INFINITY, st.sum[k] = 0.0f;
            }
            bar_wait(base + S::Q_FULL + 8 * qc.slot, qc.parity);
            if (r.partial)
                first<true>(q, r);
            else
                first<false>(q, r);
            int i = 1;
#pragma unroll 1
            for (; i < r.partial; i++) step<true>(q, r, i);
#pragma unroll 1
            for (; i < r.total; i++) step<false>(q, r, i);
            if (lane < WARP_VOTES) bar_arrive(base + S::Q_EMPTY + 8 * qc.slot);
            last();
            store(r);
        }
        if (G == 0) take_turn<G>(); /* the turn that warpgroup 1 passed last */
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
            bar_init(base + S::EMPTY + 8 * i, 2 * GROUP_VOTES);
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
        if (warp < 8) {
            math<0> m(base, a, x);
            m.run();
        } else {
            math<1> m(base, a, x);
            m.run();
        }
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
