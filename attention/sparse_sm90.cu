/* Block-sparse attention on Hopper (sm_90a).
 *
 * One block of threads per SM takes (head, query block) rows from a counter until none is left. Its
 * first warpgroup feeds: warp 0 copies Q, and K and V of each entry, into a ring of shared memory by
 * the tensor copy engine (an entry begins at any key); warp 1 reads the next rows ahead of time;
 * warps 2 and 3 gather the queries where the plan has an order of its own. The other two
 * warpgroups have 64 queries each. Each issues S = Q K^T of an entry and O += P V of the one before
 * back to back, and runs the softmax of S while the tensor cores are at P V; the two take turns in
 * issuing, so that one's softmax also lies beside the other's products.
 *
 * Entries that need a mask come first in a row and have a loop of their own, so full entries pay
 * nothing. Queries past the block's end are computed and not stored.
 *
 * The running maximum moves only when it grows by more than 2^8 (then O and the sums are scaled):
 * weights up to 256 lose nothing in bf16 and fp32, and the 64 multiplications per thread and entry
 * are saved. (As FlashAttention-4 does on Blackwell, arXiv 2603.05451.)
 *
 * Source    The division into feeding and computing warps and the turns: FlashAttention-3, arXiv
 *           2407.08608, and cudnn-frontend's sm90 prefill kernel.
 */
#include "attention/sparse_sm90.cuh"

namespace {

enum { FEED_REGS = 24, MATH_REGS = 240 };
template <int D> constexpr int PART_FLOATS = (D + 2) * BLOCK;

template <int D> struct shared {
    static constexpr int TILE = BLOCK * D * 2; /* bytes of 128 rows */
    static constexpr int PANEL = BLOCK * 128;  /* of which 64 columns */
    static constexpr int STAGES = D == 128 ? 5 : 10;
    /* A K tile is given back before its mask is applied: one more than K tiles in the ring, and
     * one to spare. */
    static constexpr int CODES = STAGES / 2 + 2;
    static constexpr int Q = 0, RING = 2 * TILE, CODE = RING + STAGES * TILE;
    static constexpr int BARS = CODE + CODES * CODE_BYTES;
    static constexpr int Q_FULL = BARS, Q_EMPTY = Q_FULL + 16, INFO_FULL = Q_EMPTY + 16;
    static constexpr int INFO_EMPTY = INFO_FULL + 8 * INFOS, FULL = INFO_EMPTY + 8 * INFOS;
    static constexpr int EMPTY = FULL + 8 * STAGES, INFO = EMPTY + 8 * STAGES;
    static constexpr int BYTES = INFO + 32 * INFOS;
};

/* ---- the feeding warps ------------------------------------------------------------------------*/

template <int D, bool PAIR>
__device__ void run_copies(const launch &a, uint32_t base, const CUtensorMap *qm,
                           const CUtensorMap *km, const CUtensorMap *vm)
{
    using S = shared<D>;
    uint64_t keep, stream;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(keep));
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(stream));
    cursor<INFOS> info = {0, 0};
    cursor<2> qc = {0, 0};
    cursor<S::STAGES> c = {0, 0};
    int codes = 0, rank = PAIR ? (int)cluster_rank() : 0;
    for (;; info.next(), qc.next()) {
        bar_wait(base + S::INFO_FULL + 8 * info.slot, info.parity);
        row_info r = read_info(base + S::INFO + 32 * info.slot);
        bar_arrive(base + S::INFO_EMPTY + 8 * info.slot);
        if (r.head < 0) return;
        if (!a.perm_q) {
            uint32_t bar = base + S::Q_FULL + 8 * qc.slot;
            bar_wait(base + S::Q_EMPTY + 8 * qc.slot, qc.parity ^ 1);
            bar_expect(bar, S::TILE);
            tma_load_4d(base + S::Q + qc.slot * S::TILE, qm, bar, 0, r.q_start, 0, r.head, stream);
        }
        /* Of a pair each block copies half the columns, for both. */
        auto copy = [&](const CUtensorMap *map, uint32_t bar, int key) {
            uint32_t to = base + S::RING + c.slot * S::TILE;
            if (PAIR)
                tma_load_4d_to(3, to + rank * S::PANEL, map, bar, 0, key, rank, r.head, keep);
            else
                tma_load_4d(to, map, bar, 0, key, 0, r.head, keep);
        };
        const uint32_t *pos = a.k_pos + (a.perm_heads > 1 ? r.head * a.k_pitch : 0);
        int before = 0;
        int2 e = entry_at(a, r, 0);
        /* K0, K1, V0, K2, V1, ...: as the products are issued. */
        for (int i = 0; i <= r.total; i++) {
            int key = e.x;
            if (i < r.total) {
                uint32_t bar = base + S::FULL + 8 * c.slot;
                bool ruled = i < r.partial && (uint32_t)e.y >= 256 && !a.mask;
                bar_wait(base + S::EMPTY + 8 * c.slot, c.parity ^ 1);
                bar_expect(bar, S::TILE + (ruled ? CODE_BYTES : 0));
                copy(km, bar, key);
                if (ruled)
                    bulk_load(base + S::CODE + codes++ % S::CODES * CODE_BYTES, pos + (key & ~3),
                              CODE_BYTES, bar);
                c.next();
                if (i + 1 < r.total) e = entry_at(a, r, i + 1);
            }
            if (i > 0) {
                uint32_t bar = base + S::FULL + 8 * c.slot;
                bar_wait(base + S::EMPTY + 8 * c.slot, c.parity ^ 1);
                bar_expect(bar, S::TILE);
                copy(vm, bar, before);
                c.next();
            }
            before = key;
        }
    }
}

/* Queries by index, for plans with an order of queries. 64 threads. */
template <int D> __device__ void run_gather(const launch &a, uint32_t base)
{
    using S = shared<D>;
    constexpr int CHUNKS = D / 8; /* of 16 bytes in a row */
    int thread = threadIdx.x - 64, lane = threadIdx.x & 31;
    cursor<INFOS> info = {0, 0};
    cursor<2> qc = {0, 0};
    for (;; info.next(), qc.next()) {
        bar_wait(base + S::INFO_FULL + 8 * info.slot, info.parity);
        row_info r = read_info(base + S::INFO + 32 * info.slot);
        __syncwarp();
        if (lane < WARP_VOTES) bar_arrive(base + S::INFO_EMPTY + 8 * info.slot);
        if (r.head < 0) return;
        bar_wait(base + S::Q_EMPTY + 8 * qc.slot, qc.parity ^ 1);
        const int32_t *perm = a.perm_q + (a.perm_heads > 1 ? (int64_t)r.head * a.queries : 0);
        uint32_t tile = base + S::Q + qc.slot * S::TILE;
#pragma unroll 4
        for (int i = thread; i < BLOCK * CHUNKS; i += 64) {
            int row = i / CHUNKS, chunk = i % CHUNKS;
            int at = __ldg(perm + r.q_start + min(row, r.q_count - 1));
            uint4 x = __ldg((const uint4 *)(a.q + at * a.q_token + r.head * a.q_head) + chunk);
            asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(
                             tile + (chunk >> 3) * S::PANEL + row * 128 +
                             (((chunk & 7) ^ (row & 7)) << 4)),
                         "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                         : "memory");
        }
        fence_async();
        bar_arrive(base + S::Q_FULL + 8 * qc.slot);
    }
}

/* ---- the computing warpgroups -----------------------------------------------------------------*/

/* Per thread: two query rows, r and r + 8. */
struct softmax_state {
    float top[2], sum[2];
};

template <int D> __device__ __forceinline__ void issue_qk(float (&s)[64], uint32_t q, uint32_t k)
{
    uint64_t a = wg_operand(q, 16, 1024), b = wg_operand(k, 16, 1024);
#pragma unroll
    for (int t = 0; t < D / 16; t++) {
        uint32_t at = (t >> 2) * shared<D>::PANEL + (t & 3) * 32;
        wg_ss_128(s, wg_further(a, at), wg_further(b, at), t);
    }
}

template <int D>
__device__ __forceinline__ void issue_pv(float (&o)[D / 2], const uint32_t (&p)[32], uint32_t v)
{
    uint64_t b = wg_operand(v, shared<D>::PANEL, 1024);
#pragma unroll
    for (int t = 0; t < 8; t++) wg_rs(o, p + 4 * t, wg_further(b, t * 2048));
}

/* Largest scores of the thread's two rows, and of `top`. */
__device__ __forceinline__ void raise(float (&top)[2], const float (&s)[64])
{
#pragma unroll
    for (int j = 0; j < 64; j++) top[(j >> 1) & 1] = fmaxf(top[(j >> 1) & 1], s[j]);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
    }
}

/* Weights of this entry in place of s; true where the maximum moved and O must be scaled by alpha.
 * top: the largest score so far. O may be in use by the tensor cores meanwhile. */
template <bool MASKED>
__device__ __forceinline__ bool softmax_entry(float (&s)[64], const float (&top)[2],
                                              float (&alpha)[2], softmax_state &st, float c)
{
    bool grew = (top[0] - st.top[0]) * c > 8.0f || (top[1] - st.top[1]) * c > 8.0f;
    grew = __any_sync(~0u, grew);
    float shift[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float t = grew ? top[r] : st.top[r];
        shift[r] = t * c;
        if (MASKED && t == -INFINITY) shift[r] = 0.0f;
        alpha[r] = grew ? exp2_fast(st.top[r] * c - shift[r]) : 1.0f;
        st.top[r] = t;
        st.sum[r] *= alpha[r];
    }
#pragma unroll
    for (int j = 0; j < 16; j++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float x = exp2_fast(fmaf(s[4 * j + 2 * r], c, -shift[r]));
            float y = exp2_fast(fmaf(s[4 * j + 2 * r + 1], c, -shift[r]));
            st.sum[r] += x + y;
            s[4 * j + 2 * r] = x, s[4 * j + 2 * r + 1] = y;
        }
    return grew;
}
/* SKIP: leave out the entries in which every weight of the warpgroup's queries is below a share of
 * their largest so far (BLASST, arXiv 2512.12087): no exponentials, no second product. */
template <int D, int G, bool SKIP, bool PAIR> struct math {
    using S = shared<D>;
    uint32_t base, other; /* other: the other block's of the pair */
    const launch &a;
    int lane, lead;
    cursor<S::STAGES> c;
    int codes;
    bool kept;     /* the entry before has weights in p */
    float peak[2]; /* with SKIP: the largest scores so far */
    float o[D / 2];
    uint32_t p[32];
    softmax_state st;
    sight see;

    __device__ __forceinline__ math(uint32_t base_, const launch &a_)
        : base(base_), other(PAIR ? cluster_address(base_, cluster_rank() ^ 1) : 0), a(a_),
          lane(threadIdx.x & 31), lead((threadIdx.x & 127) < GROUP_VOTES), c{0, 0}, codes(0)
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
        if (PAIR) cluster_arrive_if(lead, other + S::EMPTY + 8 * used);
    }

    /* Which of the thread's scores count, where the lists have masks. */
    template <bool MASKED> __device__ __forceinline__ uint2 load_mask(int2 e) const
    {
        if (!MASKED || !a.mask) return make_uint2(0, 0);
        return __ldg(a.mask + ((int64_t)((uint32_t)e.y >> 8) - 1) * 256 + threadIdx.x - 128);
    }

    __device__ __forceinline__ void mask(float (&s)[64], const row_info &r, int2 e, uint2 bits)
    {
        if (!a.mask) {
            mask_entry<S, plain_columns>(s, a, r, e, base, row(), lane, codes, see);
            return;
        }
#pragma unroll
        for (int j = 0; j < 64; j++)
            if (!((j < 32 ? bits.x : bits.y) & 1u << j % 32)) s[j] = -INFINITY;
    }

    __device__ __forceinline__ void pack(const float (&s)[64])
    {
#pragma unroll
        for (int j = 0; j < 32; j++) p[j] = bf16_pair(s[2 * j], s[2 * j + 1]);
    }

    /* Do all the warpgroup's queries agree that this entry does not matter? top: its largest scores
     * and those of before. */
    __device__ __forceinline__ bool vote(const row_info &r, const float (&high)[2])
    {
        bool little = true;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            little &= row() + 8 * k >= r.q_count || high[k] == -INFINITY ||
                      (high[k] - peak[k]) * a.scale_log2 < a.threshold_log2;
            peak[k] = fmaxf(peak[k], high[k]);
        }
        int all;
        asm volatile("{.reg .pred p, q; setp.ne.b32 p, %1, 0;\n"
                     "bar.red.and.pred q, %2, 128, p;\n"
                     "selp.b32 %0, 1, 0, q;}"
                     : "=r"(all)
                     : "r"((int)little), "n"(6 + G)
                     : "memory");
        return all;
    }

    /* The first entry of a row: O is zero, nothing to scale. */
    template <bool MASKED> __device__ __forceinline__ void first(uint32_t q, const row_info &r)
    {
        float s[64], alpha[2], top[2] = {-INFINITY, -INFINITY};
        int2 e = MASKED ? entry_at(a, r, 0) : make_int2(0, 0);
        uint2 bits = load_mask<MASKED>(e);
        wait_full();
        wg_fence();
        issue_qk<D>(s, q, slot());
        wg_commit();
        wg_wait<0>();
        release(c.slot);
        c.next();
        if (MASKED) mask(s, r, e, bits);
        raise(top, s);
        softmax_entry<MASKED>(s, top, alpha, st, a.scale_log2);
        pack(s);
        kept = true;
        peak[0] = top[0], peak[1] = top[1];
    }

    /* S of entry i and, behind it in the tensor cores, O += P V of the entry before; the softmax of
     * i runs beside the latter. */
    template <bool MASKED, bool PV>
    __device__ __forceinline__ void step(uint32_t q, const row_info &r, int i)
    {
        float s[64], alpha[2], top[2];
        int2 e = MASKED ? entry_at(a, r, i) : make_int2(0, 0);
        uint2 bits = load_mask<MASKED>(e);
        int k_slot = c.slot;
        wait_full();
        take_turn<G>();
        wg_fence();
        issue_qk<D>(s, q, slot());
        wg_commit();
        c.next();
        wait_full();
        if (PV) {
            wg_fence();
            issue_pv<D>(o, p, slot());
            wg_commit();
        }
        pass_turn<G>();
        wg_wait<PV ? 1 : 0>();
        release(k_slot);
        if (MASKED) mask(s, r, e, bits);
        if (SKIP) {
            top[0] = top[1] = -INFINITY;
            raise(top, s);
            kept = !vote(r, top);
            if (!kept) {
                wg_wait<0>();
                release(c.slot);
                c.next();
                return;
            }
            top[0] = fmaxf(top[0], st.top[0]), top[1] = fmaxf(top[1], st.top[1]);
        } else {
            top[0] = st.top[0], top[1] = st.top[1];
            raise(top, s);
        }
        bool grew = softmax_entry<MASKED>(s, top, alpha, st, a.scale_log2);
        wg_hold(i, 0);
        wg_wait<0>();
        release(c.slot);
        c.next();
        pack(s);
        if (grew) {
#pragma unroll
            for (int j = 0; j < D / 2; j++) o[j] *= alpha[(j >> 1) & 1];
        }
    }

    template <bool MASKED>
    __device__ __forceinline__ void next(uint32_t q, const row_info &r, int i)
    {
        if (!SKIP || kept)
            step<MASKED, true>(q, r, i);
        else
            step<MASKED, false>(q, r, i);
    }

    __device__ __forceinline__ void last()
    {
        wait_full();
        if (!SKIP || kept) {
            wg_fence();
            issue_pv<D>(o, p, slot());
            wg_commit();
            wg_wait<0>();
        }
        release(c.slot);
        c.next();
    }

    /* A part of a row: its sums as they are. */
    __device__ __forceinline__ void store_part(const row_info &r) const
    {
        float *to = a.part + (int64_t)r.part * PART_FLOATS<D>, *of_queries = to + BLOCK * D;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int at = row() + 8 * k;
            float l = st.sum[k];
            l += __shfl_xor_sync(~0u, l, 1);
            l += __shfl_xor_sync(~0u, l, 2);
            if ((lane & 3) == 0)
                of_queries[at] = st.top[k] * a.scale_log2, of_queries[BLOCK + at] = l;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                *(float2 *)(to + at * D + 8 * j + 2 * (lane & 3)) =
                    make_float2(o[4 * j + 2 * k], o[4 * j + 2 * k + 1]);
        }
    }

    /* Through the warp's own rows of the Q tile, which nobody reads any more. */
    __device__ __forceinline__ void store(uint32_t tile, const row_info &r)
    {
        int warp_row = row() - (lane >> 2);
        const int32_t *perm =
            a.perm_q ? a.perm_q + (a.perm_heads > 1 ? (int64_t)r.head * a.queries : 0) : nullptr;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            float l = st.sum[k];
            l += __shfl_xor_sync(~0u, l, 1);
            l += __shfl_xor_sync(~0u, l, 2);
            float inverse = l > 0.0f ? 1.0f / l : 0.0f;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                o[4 * j + 2 * k] *= inverse, o[4 * j + 2 * k + 1] *= inverse;
            int at = row() + 8 * k;
            if (a.lse && (lane & 3) == 0 && at < r.q_count) {
                int64_t token = r.q_start + at;
                if (perm) token = __ldg(perm + token);
                a.lse[r.head * a.lse_head + token * a.lse_token] =
                    l > 0.0f ? (st.top[k] * a.scale_log2 + log2f(l)) * 0.693147180559945f
                             : -INFINITY;
            }
        }
        named_sync<4 + G, 128>(); /* the last product has read Q in all four warps */
        int in = lane & 15, hi = lane >> 4;
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            uint32_t at = tile + (j >> 2) * S::PANEL + (warp_row + in) * 128 +
                          ((((j & 3) * 2 + hi) ^ (in & 7)) << 4);
            asm volatile(
                "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(at),
                "r"(bf16_pair(o[8 * j], o[8 * j + 1])), "r"(bf16_pair(o[8 * j + 2], o[8 * j + 3])),
                "r"(bf16_pair(o[8 * j + 4], o[8 * j + 5])),
                "r"(bf16_pair(o[8 * j + 6], o[8 * j + 7]))
                : "memory");
        }
        __syncwarp();
        constexpr int CHUNKS = D / 8;
#pragma unroll
        for (int i = 0; i < CHUNKS / 2; i++) {
            int at = i * 32 + lane, chunk = at % CHUNKS, in_row = warp_row + at / CHUNKS;
            uint4 x;
            asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                         : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                         : "r"(tile + (chunk >> 3) * S::PANEL + in_row * 128 +
                               (((chunk & 7) ^ (in_row & 7)) << 4))
                         : "memory");
            if (in_row < r.q_count) {
                int64_t token = r.q_start + in_row;
                if (perm) token = __ldg(perm + token);
                *((uint4 *)(a.out + token * a.out_token + r.head * a.out_head) + chunk) = x;
            }
        }
        fence_async(); /* before the copy engine writes here again */
        __syncwarp();
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
            uint32_t tile = base + S::Q + qc.slot * S::TILE, q = tile + G * 64 * 128;
#pragma unroll
            for (int j = 0; j < D / 2; j++) o[j] = 0.0f;
            st = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
            see.rule = -1;
            bar_wait(base + S::Q_FULL + 8 * qc.slot, qc.parity);
            if (r.partial)
                first<true>(q, r);
            else
                first<false>(q, r);
            int i = 1;
#pragma unroll 1
            for (; i < r.partial; i++) next<true>(q, r, i);
#pragma unroll 1
            for (; i < r.total; i++) next<false>(q, r, i);
            last();
            if (r.part >= 0)
                store_part(r);
            else
                store(tile, r);
            __syncwarp();
            if (lane < WARP_VOTES) bar_arrive(base + S::Q_EMPTY + 8 * qc.slot);
        }
        if (G == 0) take_turn<G>(); /* the turn that warpgroup 1 passed last */
    }
};

template <int D, bool SKIP, bool PAIR>
__global__ void __launch_bounds__(THREADS, 1)
    attention_sm90(const __grid_constant__ CUtensorMap qm, const __grid_constant__ CUtensorMap km,
                   const __grid_constant__ CUtensorMap vm, const __grid_constant__ launch a)
{
    using S = shared<D>;
    extern __shared__ __align__(1024) uint8_t memory[];
    uint32_t base = smem_of(memory);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            bar_init(base + S::Q_FULL + 8 * i, a.perm_q ? 64 : 1);
            bar_init(base + S::Q_EMPTY + 8 * i, 8 * WARP_VOTES);
        }
        for (int i = 0; i < INFOS; i++) {
            bar_init(base + S::INFO_FULL + 8 * i, 1);
            bar_init(base + S::INFO_EMPTY + 8 * i, 1 + (8 + (a.perm_q ? 2 : 0)) * WARP_VOTES);
        }
        for (int i = 0; i < S::STAGES; i++) {
            bar_init(base + S::FULL + 8 * i, 1);
            bar_init(base + S::EMPTY + 8 * i, (PAIR ? 4 : 2) * GROUP_VOTES);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (PAIR)
        cluster_sync(); /* both blocks' barriers are there */
    else
        __syncthreads();
    int warp = for_warp(threadIdx.x >> 5);
    if (warp < 4) {
        regs_shrink<FEED_REGS>();
        if (warp == 0) {
            if (threadIdx.x == 0) run_copies<D, PAIR>(a, base, &qm, &km, &vm);
        } else if (warp == 1) {
            if (threadIdx.x == 32) run_scheduler<shared<D>, PAIR>(a, base);
        } else if (a.perm_q) {
            run_gather<D>(a, base);
        }
    } else {
        regs_grow<MATH_REGS>();
        if (warp < 8) {
            math<D, 0, SKIP, PAIR> m(base, a);
            m.run();
        } else {
            math<D, 1, SKIP, PAIR> m(base, a);
            m.run();
        }
    }
    if (PAIR) cluster_sync(); /* neither is left alone with what it sends to the other */
}

/* ---- rows in parts ----------------------------------------------------------------------------*/

/* Block (row of the divided ones, 16 of its queries): the parts' sums below the largest of their
 * maxima. */
template <int D> __global__ void __launch_bounds__(256) join_parts(const __grid_constant__ launch a)
{
    enum { QUERIES = 16, FOURS = D / 4 };
    int of = a.pairs ? 2 : 1, rank = blockIdx.x % of, unit = blockIdx.x / of;
    row_info r = find_row(a, a.whole + unit * a.parts, rank);
    int head = r.head, first = r.q_start, step = of * PART_FLOATS<D>;
    const float *part = a.part + (int64_t)r.part * PART_FLOATS<D>;
    for (int i = threadIdx.x; i < QUERIES * FOURS; i += 256) {
        int query = blockIdx.y * QUERIES + i / FOURS, column = i % FOURS * 4;
        if (first + query >= a.queries) return;
        float top = -INFINITY, sum = 0.0f;
        for (int n = 0; n < a.parts; n++) top = fmaxf(top, part[n * step + BLOCK * D + query]);
        float4 o = make_float4(0, 0, 0, 0);
        for (int n = 0; n < a.parts; n++) {
            const float *p = part + n * step, *of_queries = p + BLOCK * D + query;
            float w = of_queries[0] == -INFINITY ? 0.0f : exp2f(of_queries[0] - top);
            float4 x = *(const float4 *)(p + query * D + column);
            o.x = fmaf(w, x.x, o.x), o.y = fmaf(w, x.y, o.y);
            o.z = fmaf(w, x.z, o.z), o.w = fmaf(w, x.w, o.w);
            sum = fmaf(w, of_queries[BLOCK], sum);
        }
        float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
        int64_t token = first + query;
        *(uint2 *)(a.out + token * a.out_token + head * a.out_head + column) = make_uint2(
            bf16_pair(o.x * inverse, o.y * inverse), bf16_pair(o.z * inverse, o.w * inverse));
        if (a.lse && column == 0)
            a.lse[head * a.lse_head + token * a.lse_token] =
                sum > 0.0f ? (top + log2f(sum)) * 0.693147180559945f : -INFINITY;
    }
}

/* Dense rows take the same time each, so that the last of them occupy only some of the
 * multiprocessors: these are divided, into as many parts as make the end shortest. What a part
 * costs besides is taken as 2 % of a row. */
template <int D> void divide_last_rows(const kn_attn_problem *p, launch *a)
{
    enum { MOST_PARTS = 8, LEAST_ENTRIES = 16 };
    int rows = a->pairs ? 2 : 1, takers = p->sm_count / rows;
    int rounds = a->work / takers, rest = a->work % takers;
    int entries = (a->keys + BLOCK - 1) / BLOCK, best = 1;
    float least = 1.0f;
    for (int n = 2; n <= MOST_PARTS && n * LEAST_ENTRIES <= entries; n++) {
        size_t bytes = (size_t)rest * n * rows * PART_FLOATS<D> * sizeof(float);
        float end = (float)((rest * n + takers - 1) / takers) / n + 0.02f * n;
        if (bytes <= p->spare_bytes && end < least) best = n, least = end;
    }
    if (rest == 0 || best == 1 || least + 0.01f * rounds > 1.0f)
        return; /* less than 1 % to be had */
    a->whole = a->work - rest, a->parts = best, a->part = (float *)p->spare;
    a->work = a->whole + rest * best;
}

/* ---- launching --------------------------------------------------------------------------------*/

/* [tokens][heads][dim] as {64 columns, tokens, dim / 64, heads}, copied 128 tokens and `columns`
 * at a time. */
cudaError_t map_rows(tensor_map_fn encode, CUtensorMap *map, const void *data, int64_t tokens,
                     int64_t token, int64_t head, int heads, int dim, int columns)
{
    cuuint64_t dims[4] = {64, (cuuint64_t)tokens, (cuuint64_t)dim / 64, (cuuint64_t)heads};
    /* An axis of one entry has no stride; the encoder wants a multiple of 16 all the same. */
    cuuint64_t strides[3] = {(cuuint64_t)(tokens > 1 ? token : dim) * 2, 128,
                             (cuuint64_t)(heads > 1 ? head : dim) * 2};
    cuuint32_t box[4] = {64, BLOCK, (cuuint32_t)columns / 64, 1}, step[4] = {1, 1, 1, 1};
    CUresult r = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, (void *)data, dims, strides, box,
                        step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <int D, bool SKIP, bool PAIR>
cudaError_t launch_dim(const kn_attn_problem *p, cudaStream_t stream)
{
    constexpr auto kernel = attention_sm90<D, SKIP, PAIR>;
    const int columns = PAIR ? D / 2 : D;
    tensor_map_fn encode;
    CUtensorMap qm, km, vm;
    cudaError_t e = tensor_map_find(&encode);
    if (!e) e = map_rows(encode, &qm, p->q, p->queries, p->q_token, p->q_head, p->heads, D, D);
    if (!e) e = map_rows(encode, &km, p->k, p->keys, p->k_token, p->k_head, p->heads, D, columns);
    if (!e) e = map_rows(encode, &vm, p->v, p->keys, p->v_token, p->v_head, p->heads, D, columns);
    if (!e)
        e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 shared<D>::BYTES);
    if (!e) e = cudaMemsetAsync(p->counter, 0, sizeof *p->counter, stream);
    if (e) return e;
    launch a = make_launch(p);
    if (PAIR) a.pairs = (a.q_blocks + 1) / 2, a.work = a.whole = a.pairs * p->heads;
    if (!p->lists && !SKIP) divide_last_rows<D>(p, &a);
    int rows = PAIR ? 2 : 1, takers = p->sm_count / rows;
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = rows, cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((a.work < takers ? a.work : takers) * rows);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = shared<D>::BYTES, config.stream = stream;
    config.attrs = &cluster, config.numAttrs = PAIR ? 1 : 0;
    e = cudaLaunchKernelEx(&config, kernel, qm, km, vm, a);
    int divided = a.parts ? (a.work - a.whole) / a.parts * rows : 0;
    if (e || !divided) return e;
    join_parts<D><<<dim3(divided, BLOCK / 16), 256, 0, stream>>>(a);
    return cudaGetLastError();
}

/* Dense attention over long rows: two multiprocessors that copy keys and values for each other. */
bool goes_in_pairs(const kn_attn_problem *p)
{
    return !p->lists && p->keys >= 4096 && p->queries > BLOCK && p->sm_count % 2 == 0;
}

} // namespace

cudaError_t kn_attn_launch_sm90(const kn_attn_problem *p, cudaStream_t stream)
{
    if (!(p->scale > 0.0f)) return cudaErrorNotSupported;
    bool skip = p->threshold > 0.0f;
    if (p->dim == 64)
        return skip ? launch_dim<64, true, false>(p, stream)
                    : launch_dim<64, false, false>(p, stream);
    if (p->dim != 128) return cudaErrorNotSupported;
    if (skip) return launch_dim<128, true, false>(p, stream);
    return goes_in_pairs(p) ? launch_dim<128, false, true>(p, stream)
                            : launch_dim<128, false, false>(p, stream);
}
