/* attention/plan.h - which keys each query sees: the one type between planners and executors.
 *
 * Purpose   A planner (dense, window, tile3d, draft, permute) fills a plan, an executor runs one,
 *           and neither knows the other. The queries are cut into blocks of consecutive tokens;
 *           each block has a list of key runs (first token, count). A run is full (every query of
 *           the block sees all of it) or names a rule, which hides single keys from single queries
 *           by their coordinates on the latent token grid.
 * Order     Tensors hold tokens in any order; pos says where each token lies on the grid. Usually
 *           the model keeps its tokens in a tile order from patchify on (attention/grid.h) and the
 *           plan needs no permutation. When heads want different orders, perm_q and perm_k give
 *           them as gather indices (token p of the plan's order is token perm[p] of the tensors);
 *           executors gather and scatter, callers do nothing. Blocks and runs count in the plan's
 *           order.
 * Text      Tokens that are not on the grid (text, audio) have pos -1, -1, -1. Planners give them
 *           blocks of their own, let their queries see everything and let everything see them.
 * Units     tokens, unless a name says otherwise.
 * Cost      12 bytes per run; a 1080p window plan shared by all heads has about 1 MB.
 * Threads   A built plan is read-only and may be shared.
 */
#ifndef KN_ATTENTION_PLAN_H
#define KN_ATTENTION_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "attention/attention.h"
#include "attention/grid.h"

/* Keys key .. key + count - 1 of the plan's order. rule -1: full. */
typedef struct kn_attn_run {
    int32_t key;
    int32_t count;
    int32_t rule;
} kn_attn_run;

struct kn_attn_plan {
    int64_t tokens; /* L, queries and keys alike */
    int heads;      /* lists: 1 = shared by all heads, or one set per head */
    int64_t q_blocks;
    int32_t *q_start;  /* [q_blocks + 1], from 0 to tokens */
    int64_t *row_ptr;  /* [heads * q_blocks + 1] into runs, row = head * q_blocks + block */
    kn_attn_run *runs; /* ascending within a row, no key twice */
    int64_t run_capacity;
    int64_t rows;    /* rows written so far; heads * q_blocks when complete */
    int perm_heads;  /* permutations: 0 = none, 1 = shared, or one per head */
    int32_t *perm_q; /* [perm_heads][L]; NULL = as stored */
    int32_t *perm_k;
    int grid[3];  /* T, H, W; 0 when there are no rules and no positions */
    int16_t *pos; /* [L][3] t, h, w by stored token, -1 off the grid; NULL without a grid */
    int rules;
    int32_t (*dilation)[3]; /* [rules] per axis, >= 1 */
    int32_t *bounds;        /* [rules][2 (T + H + W)]: see kn_attn_rule_bounds */
    float scale;            /* softmax scale; 0 = the caller's */
    double density;         /* visible (query, key) pairs / all pairs, element-exact */
    /* Lists that a planner made in device memory (attention/device_lists.h), for the CUDA executor
     * only, valid as long as the plan; rows, runs and orders above are then filled in only by
     * kn_attn_plan_fetch, for which the planner leaves its function here. */
    const struct kn_attn_lists *lists;
    kn_status (*fetch)(void *planner);
    void *planner;
    uint64_t stamp; /* changes whenever rows are begun anew, no two plans share one: executors keep
                       what they make of a plan by it. 0: they keep nothing */
};

/* Bounds of one rule on one axis (0 t, 1 h, 2 w), indexed by the query's coordinate c: keys with
 * lo[c] <= coordinate < lo[c] + len[c] are visible if they also share c's residue modulo
 * dilation[axis]. A pair is visible when it is visible on all three axes. */
static inline const int32_t *kn_attn_rule_lo(const kn_attn_plan *p, int rule, int axis)
{
    const int *g = p->grid;
    int64_t before = axis == 0 ? 0 : axis == 1 ? g[0] : g[0] + g[1];
    return p->bounds + 2 * ((int64_t)rule * (g[0] + g[1] + g[2]) + before);
}

static inline const int32_t *kn_attn_rule_len(const kn_attn_plan *p, int rule, int axis)
{
    return kn_attn_rule_lo(p, rule, axis) + p->grid[axis];
}

/* Does the query at grid position q see the key at position k under this rule? The definition of a
 * rule; executors are tested against it. */
static inline bool kn_attn_rule_sees(const kn_attn_plan *p, int rule, const int16_t q[3],
                                     const int16_t k[3])
{
    for (int a = 0; a < 3; a++) {
        int32_t from = k[a] - kn_attn_rule_lo(p, rule, a)[q[a]];
        if (from < 0 || from >= kn_attn_rule_len(p, rule, a)[q[a]]) return false;
        if ((k[a] - q[a]) % p->dilation[rule][a] != 0) return false;
    }
    return true;
}

/* ---- using plans ------------------------------------------------------------------------------*/
/* Every query sees every key. block: queries per block. */
KN_CHECKED kn_status kn_attn_plan_dense(const kn_attn_layout *layout, int block,
                                        kn_attn_plan **out);
/* NULL-safe; sets *plan to NULL. */
void kn_attn_plan_free(kn_attn_plan **plan);

/* Full check of a plan from outside: every index an executor follows is in range, rows ascend and
 * are not empty, permutations are permutations. Arrays are trusted to be as long as the counts say.
 * KN_ERR_FORMAT names the first fault. */
KN_CHECKED kn_status kn_attn_plan_check(const kn_attn_plan *plan);

/* Bring lists that were made in device memory to the host, for everything below; nothing to do for
 * other plans, and the second time. Waits for the device. */
KN_CHECKED kn_status kn_attn_plan_fetch(const kn_attn_plan *plan);

typedef struct kn_attn_plan_stats {
    int64_t runs;
    double blocks_min, blocks_mean, blocks_max; /* key blocks per row */
    double density;                             /* of the plan: visible pairs / all pairs */
    double listed;                              /* pairs in runs / all pairs */
    double executed; /* pairs in whole (block_q x block_k) blocks / all pairs */
    double partial;  /* share of listed pairs in runs that have a rule */
    double overhead; /* executed / density: work over ideal */
} kn_attn_plan_stats;

/* block_q, block_k: tokens that an executor pays for at once. Runs that touch share blocks. */
void kn_attn_plan_count(const kn_attn_plan *plan, int block_q, int block_k,
                        kn_attn_plan_stats *out);
/* What a call costs the CPU executor for heads of `dim`, in dense attentions: it pays for the visible keys
 * where a window spans all frames and tokens lie in (h,w,t) order, else for the listed keys, for whole
 * panels of queries. */
double kn_attn_plan_host_cost(const kn_attn_plan *plan, int64_t dim);

/* visible[token] = 1 where the query (both as stored) sees the key, else 0. [tokens] */
KN_CHECKED kn_status kn_attn_plan_row(const kn_attn_plan *plan, int head, int64_t query,
                                      uint8_t *visible);
/* Receptive field of a query (as stored) on the latent frames: 255 visible, 0 hidden. [T][H][W];
 * needs a plan with a grid. */
KN_CHECKED kn_status kn_attn_plan_field(const kn_attn_plan *plan, int head, int64_t query,
                                        uint8_t *image);

/* ---- making plans: for planners -----------------------------------------------------------------
 * Open gives a plan with positions and query blocks and no rows; rows are then added in order:
 * all blocks of head 0, then head 1, ... Lists grow as needed and keep their room when a plan is
 * restarted, so a planner that runs at every call settles at no allocation.
 */
typedef struct kn_attn_plan_params {
    kn_attn_layout layout; /* how tensors store the tokens */
    const int *query_tile; /* edges of the boxes that query blocks are made of; NULL: layout.tile.
                               Another shape than layout.tile gives the plan a perm_q (unless
                               perm_heads is set: then it only says where blocks begin). */
    int block;             /* most queries in a block; larger tiles are cut evenly */
    int heads;             /* list sets */
    int perm_heads;        /* this many orders, as stored at first, for the planner to change */
    int rules;
    float scale;
} kn_attn_plan_params;

KN_CHECKED kn_status kn_attn_plan_open(const kn_attn_plan_params *params, kn_attn_plan **out);
/* Drop all rows. */
void kn_attn_plan_restart(kn_attn_plan *plan);
/* Add keys to the row being written; a run that continues the last one with the same rule is joined
 * to it. */
KN_CHECKED kn_status kn_attn_plan_add(kn_attn_plan *plan, int64_t key, int64_t count, int rule);
/* Finish the row. */
KN_CHECKED kn_status kn_attn_plan_end_row(kn_attn_plan *plan);
/* The same for a block of the video: the text's keys are added. */
KN_CHECKED kn_status kn_attn_plan_end_video_row(kn_attn_plan *plan);
/* The rows of the text's blocks, all keys in each, behind those of a head's video. */
KN_CHECKED kn_status kn_attn_plan_add_text_rows(kn_attn_plan *plan);
/* First query block of the text, = q_blocks when there is none; and its first token. Text blocks
 * see everything and everything sees them. */
int64_t kn_attn_plan_text_block(const kn_attn_plan *plan);
int64_t kn_attn_plan_text_start(const kn_attn_plan *plan);
/* Density of the listed runs when none has a rule. */
double kn_attn_plan_listed(const kn_attn_plan *plan);

#endif
