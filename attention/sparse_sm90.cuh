/* attention/sparse_sm90.cuh - inside attention/: what the Hopper kernels for lists have in common:
 * rows and entries, the warp that reads rows ahead, masks, the launch's constants.
 *
 * A kernel gives its shared memory as a type S with byte offsets: CODE and CODES (buffers of packed
 * key positions), INFO, INFO_FULL and INFO_EMPTY (rows told by the reading warp).
 */
#ifndef KN_ATTENTION_SPARSE_SM90_CUH
#define KN_ATTENTION_SPARSE_SM90_CUH

#include <cuda_bf16.h>

#include "attention/sparse_kernels.h"
#include "compute/sm90.cuh"

namespace {

enum { BLOCK = KN_ATTN_BLOCK, INFOS = 1, THREADS = 384 };
/* Buffers of packed key positions; each holds KN_ATTN_POS_SPAN words, for a copy must begin at a
 * multiple of 16 bytes. */
enum { CODE_BYTES = KN_ATTN_POS_SPAN * 4 };
/* One lane arrives on an mbarrier for its warp or warpgroup. compute-sanitizer's racecheck does not
 * carry the order over to the other lanes; with KN_SM90_EVERY_LANE each arrives for itself, slower
 * and otherwise the same (attention_hopper_every_lane). */
#ifdef KN_SM90_EVERY_LANE
enum { WARP_VOTES = 32, GROUP_VOTES = 128 };
#else
enum { WARP_VOTES = 1, GROUP_VOTES = 1 };
#endif

__device__ __forceinline__ void bar_arrive_for_warp(uint32_t bar)
{
    if (WARP_VOTES == 32)
        bar_arrive(bar);
    else
        bar_arrive_by_one(bar);
}

/* What warp 1 tells the others of a row. head -1: no more. part: of a row that several
 * multiprocessors share, where in launch.part this one's sums go; -1: the row is whole. */
struct row_info {
    int head, q_start, q_count, first, partial, total, part, unused;
};

struct launch {
    float scale_log2, threshold_log2;
    int heads, q_blocks, list_heads, work;
    int queries, keys, perm_heads, rules;
    uint32_t guard;
    int64_t q_token, q_head, out_token, out_head, lse_head, lse_token, k_pitch;
    const int32_t *q_start, *order, *perm_q;
    const int4 *row;
    const int2 *entry;
    const uint2 *q_box;
    const uint32_t *k_pos, *k_class, *q_class;
    const uint2 *mask;
    const __nv_bfloat16 *q;
    __nv_bfloat16 *out;
    float *lse;
    int *counter;
    /* Dense attention: rows from `whole` on are divided into `parts` each. Of a part: O
     * [128][dim], then [2][128] of its queries' largest score times scale log2 e and sum of
     * weights, both f32. With pairs, a unit of work is two rows, one for each block of a
     * cluster: work and whole count these. */
    int whole, parts, pairs; /* pairs: of a head's rows; 0: rows one by one */
    float *part;
};

/* Place in a ring of N buffers, and the parity of its barriers on this round. */
template <int N> struct cursor {
    int slot;
    uint32_t parity;
    __device__ __forceinline__ void next()
    {
        if (++slot == N) slot = 0, parity ^= 1;
    }
};

__device__ __forceinline__ row_info read_info(uint32_t at)
{
    row_info r;
    asm volatile("ld.shared.v4.s32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.head), "=r"(r.q_start), "=r"(r.q_count), "=r"(r.first)
                 : "r"(at)
                 : "memory");
    asm volatile("ld.shared.v4.s32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.partial), "=r"(r.total), "=r"(r.part), "=r"(r.unused)
                 : "r"(at + 16)
                 : "memory");
    return r;
}

/* The same for a whole warp, told so to the compiler: what follows from it may then be computed
 * once for the warp, as descriptors of operands are, which come from a ring's slot after loops
 * over the row. */
__device__ __forceinline__ int for_warp(int x)
{
    return __shfl_sync(~0u, x, 0);
}
__device__ __forceinline__ row_info read_info_for_warp(uint32_t at)
{
    row_info r = read_info(at);
    r.head = for_warp(r.head), r.q_start = for_warp(r.q_start), r.q_count = for_warp(r.q_count);
    r.first = for_warp(r.first), r.partial = for_warp(r.partial), r.total = for_warp(r.total);
    r.part = for_warp(r.part);
    return r;
}

/* Entry i of a row; the ragged one of a dense row comes first, as in lists. */
__device__ __forceinline__ int2 entry_at(const launch &a, const row_info &r, int i)
{
    i += r.first;
    if (a.entry) return __ldg(a.entry + i);
    int last = (a.keys - 1) / BLOCK;
    int block = a.keys % BLOCK ? (i == 0 ? last : i - 1) : i;
    int count = a.keys - block * BLOCK;
    return make_int2(block * BLOCK, count < BLOCK ? count : BLOCK);
}

/* rank: in the pair. */
__device__ row_info find_row(const launch &a, int t, int rank)
{
    row_info r = {-1, 0, 0, 0, 0, 0, -1, 0};
    if (t >= a.work) return r;
    if (t >= a.whole) r.part = t - a.whole, t = a.whole + r.part / a.parts;
    if (a.order) t = __ldg(a.order + t);
    int block = a.pairs ? t % a.pairs * 2 + rank : t % a.q_blocks;
    r.head = t / (a.pairs ? a.pairs : a.q_blocks);
    if (a.entry) {
        int4 row = __ldg(a.row + (a.list_heads > 1 ? t : block));
        r.q_start = __ldg(a.q_start + block);
        r.q_count = __ldg(a.q_start + block + 1) - r.q_start;
        r.first = row.x, r.partial = row.y, r.total = row.z;
    } else {
        r.q_start = block * BLOCK;
        r.q_count = min(BLOCK, a.queries - r.q_start);
        int entries = (a.keys + BLOCK - 1) / BLOCK, end = entries;
        if (r.part >= 0) {
            int at = r.part % a.parts;
            r.first = entries * at / a.parts, end = entries * (at + 1) / a.parts;
            if (a.pairs) r.part = 2 * r.part + rank;
        }
        r.partial = r.first == 0 && a.keys % BLOCK != 0;
        r.total = end - r.first;
    }
    return r;
}

/* Pairs take their units by number, both blocks the same ones without a word. */
template <class S, bool PAIR = false> __device__ void run_scheduler(const launch &a, uint32_t base)
{
    cursor<INFOS> c = {0, 0};
    int rank = PAIR ? (int)cluster_rank() : 0, turn = PAIR ? (int)blockIdx.x / 2 : 0;
    for (;; c.next()) {
        /* A row is taken when the one before is begun: not earlier, so that the last rows go to
         * whoever is free. */
        bar_wait(base + S::INFO_EMPTY + 8 * c.slot, c.parity ^ 1);
        row_info r = find_row(a, PAIR ? turn : atomicAdd(a.counter, 1), rank);
        turn += gridDim.x / 2;
        uint32_t at = base + S::INFO + 32 * c.slot;
        asm volatile("st.shared.v4.s32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(r.head), "r"(r.q_start),
                     "r"(r.q_count), "r"(r.first)
                     : "memory");
        asm volatile("st.shared.v4.s32 [%0], {%1,%2,%3,%4};" ::"r"(at + 16), "r"(r.partial),
                     "r"(r.total), "r"(r.part), "r"(r.unused)
                     : "memory");
        bar_arrive(base + S::INFO_FULL + 8 * c.slot);
        if (r.head < 0) return;
    }
}

/* ---- masks ------------------------------------------------------------------------------------*/

/* Rule at hand and the boxes of the thread's two queries. */
struct sight {
    int rule;
    uint2 box[2];
    uint32_t residue[2];
};

/* Which key of an entry element j of a thread's S belongs to: at(j), and LANE per lane of four. */
struct plain_columns {
    enum { LANE = 2 };
    static __device__ constexpr int at(int j) { return 8 * (j >> 2) + (j & 1); }
};

/* -inf where a query does not see a key. codes: the keys' packed positions in shared memory. */
template <class COLUMNS>
__device__ __forceinline__ void apply_mask(float (&s)[64], int2 e, uint32_t codes, uint32_t guard,
                                           const sight &see, const uint32_t *k_class, int lane)
{
    int own = COLUMNS::LANE * (lane & 3), left = (e.y & 255) - own; /* keys of this thread's columns */
    bool ruled = (uint32_t)e.y >= 256;
    if (!ruled) {
#pragma unroll
        for (int j = 0; j < 64; j++)
            if (COLUMNS::at(j) >= left) s[j] = -INFINITY;
        return;
    }
#pragma unroll
    for (int j = 0; j < 16; j++) {
        uint32_t k[2];
#pragma unroll
        for (int i = 0; i < 2; i++)
            asm volatile("ld.shared.b32 %0, [%1];"
                         : "=r"(k[i])
                         : "r"(codes + (COLUMNS::at(4 * j + i) + own) * 4)
                         : "memory");
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                uint32_t hidden = (~(k[i] - see.box[r].x) | (k[i] - see.box[r].y)) & guard;
                if (COLUMNS::at(4 * j + i) >= left || hidden) s[4 * j + 2 * r + i] = -INFINITY;
            }
    }
    if (k_class) {
        k_class += e.x;
#pragma unroll
        for (int j = 0; j < 64; j++) {
            int c = COLUMNS::at(j);
            if (c < left && __ldg(k_class + c + own) != see.residue[(j >> 1) & 1])
                s[j] = -INFINITY;
        }
    }
}

/* The boxes of queries `row` and row + 8 of the block under a rule. */
__device__ __forceinline__ void look(const launch &a, const row_info &r, int rule, int row, sight &see)
{
    if (rule == see.rule) return;
    see.rule = rule;
    int64_t at = ((int64_t)(a.perm_heads > 1 ? r.head : 0) * a.rules + rule) * a.queries;
#pragma unroll
    for (int k = 0; k < 2; k++) {
        int64_t q = at + min(r.q_start + row + 8 * k, a.queries - 1);
        see.box[k] = __ldg(a.q_box + q);
        if (a.q_class) see.residue[k] = __ldg(a.q_class + q);
    }
}

template <class S, class COLUMNS>
__device__ __forceinline__ void mask_entry(float (&s)[64], const launch &a, const row_info &r, int2 e,
                                           uint32_t base, int row, int lane, int &codes, sight &see)
{
    bool ruled = (uint32_t)e.y >= 256;
    int rule = (int)((uint32_t)e.y >> 8) - 1;
    const uint32_t *k_class = nullptr;
    if (ruled) {
        look(a, r, rule, row, see);
        if (a.k_class)
            k_class = a.k_class + ((int64_t)(a.perm_heads > 1 ? r.head : 0) * a.rules + rule) * a.keys;
    }
    apply_mask<COLUMNS>(s, e, base + S::CODE + codes % S::CODES * CODE_BYTES + (e.x & 3) * 4, a.guard,
                        see, k_class, lane);
    codes += ruled;
}

/* The turn to issue matrix products. */
template <int G> __device__ __forceinline__ void take_turn()
{
    named_sync<2 + G, 256>();
}
template <int G> __device__ __forceinline__ void pass_turn()
{
    named_arrive<2 + (G ^ 1), 256>();
}

/* ---- launching --------------------------------------------------------------------------------*/

inline launch make_launch(const kn_attn_problem *p)
{
    const kn_attn_lists *l = p->lists;
    launch a = {};
    a.scale_log2 = p->scale * 1.44269504088896f;
    a.threshold_log2 = p->threshold > 0.0f ? log2f(p->threshold) : 0.0f;
    a.heads = p->heads;
    a.queries = (int)p->queries, a.keys = (int)p->keys;
    a.q_blocks = l ? (int)l->q_blocks : (int)((p->queries + BLOCK - 1) / BLOCK);
    a.work = a.whole = a.q_blocks * p->heads;
    a.q_token = p->q_token, a.q_head = p->q_head;
    a.out_token = p->out_token, a.out_head = p->out_head;
    a.lse_head = p->lse_head, a.lse_token = p->lse_token;
    a.q = (const __nv_bfloat16 *)p->q;
    a.out = (__nv_bfloat16 *)p->out;
    a.lse = p->lse;
    a.counter = p->counter;
    if (!l) return a;
    a.list_heads = l->heads;
    a.perm_heads = l->perm_heads, a.perm_q = l->perm_q;
    a.q_start = l->q_start, a.order = l->order;
    a.row = (const int4 *)l->row, a.entry = (const int2 *)l->entry;
    a.rules = l->rules, a.guard = l->guard;
    a.q_box = (const uint2 *)l->q_box;
    a.k_pos = l->k_pos, a.k_pitch = l->k_pitch;
    a.k_class = l->k_class, a.q_class = l->q_class;
    a.mask = (const uint2 *)l->mask;
    return a;
}

} // namespace

#endif
