#include "attention/draft.h"

#include <math.h>
#include <string.h>

#include "attention/block_map.h"
#include "attention/held.h"
#include "attention/select_cuda.h"
#include "io/memory.h"

enum { BINS = 1 << 16 };

struct kn_draft {
    kn_draft_params params;
    kn_attn_plan *plan;
    kn_attn_plan *tiles; /* its query blocks are the tiles, uncut */
    int64_t count;       /* of tiles */
    int64_t per_frame;   /* tiles that share their frame(s) */
    int64_t words;       /* of a row of keep */
    uint32_t *keep;      /* [count][words] bits: of one head; of all heads when fetched */
    kn_block_map means;  /* over these tiles; taken at the first plan on the host */
    int64_t *bins;       /* [BINS], likewise */
    kn_select *select;   /* taken at the first plan on a CUDA device */
};

void kn_draft_close(kn_draft **draft)
{
    kn_draft *x = *draft;
    *draft = NULL;
    if (!x) return;
    kn_attn_plan_free(&x->plan);
    kn_attn_plan_free(&x->tiles);
    kn_block_map_close(&x->means);
    kn_select_close(&x->select);
    kn_free(x->keep);
    kn_free(x->bins);
    kn_free(x);
}

kn_status kn_draft_open(const kn_draft_params *params, kn_draft **out)
{
    *out = NULL;
    if (params->heads < 1 || params->dim < 1 || !(params->sparsity >= 0 && params->sparsity <= 1))
        return kn_fail(KN_ERR_ARG, "draft: %d heads of dim %d, sparsity %g (0 to 1)", params->heads,
                       params->dim, params->sparsity);
    kn_draft *x = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *x, (void **)&x));
    x->params = *params;
    KN_TRY_GOTO(kn_attn_layout_check(&x->params.layout));
    kn_attn_plan_params open = {.layout = x->params.layout,
                                .block = params->block,
                                .heads = params->heads,
                                .scale = params->scale};
    KN_TRY_GOTO(kn_attn_plan_open(&open, &x->plan));
    open.block = INT32_MAX;
    open.heads = 1;
    KN_TRY_GOTO(kn_attn_plan_open(&open, &x->tiles));
    x->count = kn_attn_plan_text_block(x->tiles);
    x->per_frame = x->count / kn_grid_tiles_on(x->params.layout.grid, x->params.layout.tile, 0);
    x->words = (x->count + 31) / 32;
    KN_TRY_GOTO(kn_alloc_array((size_t)(params->heads * x->count * x->words), sizeof *x->keep,
                               (void **)&x->keep));
    *out = x;
    x = NULL;
done:
    kn_draft_close(&x);
    return st;
}

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

/* The m-th smallest (1 = smallest) of n floats that are not negative: their bit patterns sort like
 * their values, so two passes of counting find it exactly. */
static float nth_smallest(const float *x, int64_t n, int64_t m, int64_t *bins)
{
    uint32_t high = 0, low = 0;
    memset(bins, 0, BINS * sizeof *bins);
    for (int64_t i = 0; i < n; i++) bins[bits_of(x[i]) >> 16]++;
    while (high < BINS - 1 && m > bins[high]) m -= bins[high++];
    memset(bins, 0, BINS * sizeof *bins);
    for (int64_t i = 0; i < n; i++)
        if (bits_of(x[i]) >> 16 == high) bins[bits_of(x[i]) & (BINS - 1)]++;
    while (low < BINS - 1 && m > bins[low]) m -= bins[low++];
    uint32_t u = high << 16 | low;
    float value;
    memcpy(&value, &u, sizeof value);
    return value;
}

static bool is_forced(const kn_draft *x, int64_t tile, int64_t k)
{
    const kn_draft_params *p = &x->params;
    return k == tile || (!p->drop_first_frame && k < x->per_frame) ||
           (!p->drop_own_frame && k / x->per_frame == tile / x->per_frame);
}

static int64_t dropped(const kn_draft *x)
{
    return (int64_t)floor(x->params.sparsity * (double)(x->count * x->count));
}

/* Bits of one head from its map. */
static void choose(kn_draft *x, uint32_t *keep)
{
    int64_t n = x->count, pairs = n * n, m = dropped(x);
    float *map = x->means.map;
    for (int64_t i = 0; x->params.within_budget && i < pairs; i++)
        if (is_forced(x, i / n, i % n)) map[i] = 2.0f; /* above every weight */
    float threshold = m == 0 ? -1.0f : m >= pairs ? INFINITY : nth_smallest(map, pairs, m, x->bins);
    memset(keep, 0, (size_t)(n * x->words) * sizeof *keep);
    for (int64_t tile = 0; tile < n; tile++)
        for (int64_t k = 0; k < n; k++)
            if (map[tile * n + k] >= threshold || is_forced(x, tile, k))
                keep[tile * x->words + k / 32] |= UINT32_C(1) << (k % 32);
}

static kn_status fill_row(kn_draft *x, const uint32_t *keep)
{
    const int32_t *start = x->tiles->q_start;
    for (int64_t k = 0; k < x->count; k++)
        if (keep[k / 32] >> (k % 32) & 1)
            KN_TRY(kn_attn_plan_add(x->plan, start[k], start[k + 1] - start[k], -1));
    return kn_attn_plan_end_video_row(x->plan);
}

static kn_status fill_head(kn_draft *x, const uint32_t *keep)
{
    int64_t tile = 0, text_block = kn_attn_plan_text_block(x->plan);
    for (int64_t b = 0; b < text_block; b++) {
        while (x->tiles->q_start[tile + 1] <= x->plan->q_start[b]) tile++;
        KN_TRY(fill_row(x, keep + tile * x->words));
    }
    return kn_attn_plan_add_text_rows(x->plan);
}

static kn_status plan_on_host(kn_dev *d, kn_draft *x, const kn_tensor *q, const kn_tensor *k)
{
    if (!x->bins) {
        if (!x->means.map) KN_TRY(kn_block_map_open(x->count, x->params.dim, &x->means));
        KN_TRY(kn_alloc(BINS * sizeof *x->bins, (void **)&x->bins));
    }
    kn_attn_plan_restart(x->plan);
    for (int h = 0; h < x->params.heads; h++) {
        kn_block_map_fill(d, &x->means, x->tiles, h, q, k, x->params.scale);
        choose(x, x->keep);
        KN_TRY(fill_head(x, x->keep));
    }
    x->plan->lists = NULL;
    x->plan->density = kn_attn_plan_listed(x->plan);
    return KN_OK;
}

/* Rows of a plan that was made on the device. */
static kn_status fetch_rows(void *planner)
{
    kn_draft *x = planner;
    KN_TRY(kn_select_fetch(x->select, x->keep, NULL));
    for (int h = 0; h < x->params.heads; h++)
        KN_TRY(fill_head(x, x->keep + h * x->count * x->words));
    return KN_OK;
}

static kn_select_params select_params(const kn_draft *x)
{
    return (kn_select_params){.blocks = x->count,
                              .start = x->tiles->q_start,
                              .tokens = x->plan->tokens,
                              .q_blocks = x->plan->q_blocks,
                              .q_start = x->plan->q_start,
                              .heads = x->params.heads,
                              .dim = x->params.dim,
                              .scale = x->params.scale};
}

size_t kn_draft_held_bytes(const kn_draft *draft)
{
    kn_select_params p = select_params(draft);
    return kn_select_held_bytes(&p, p.start[p.blocks]);
}

static kn_status plan_on_cuda(kn_dev *d, kn_draft *x, const kn_tensor *q, const kn_tensor *k)
{
    const kn_draft_params *p = &x->params;
    if (!x->select) {
        kn_select_params open = select_params(x);
        KN_TRY(kn_select_open(d, &open, &x->select));
    }
    kn_select_draft rule = {.drop = dropped(x),
                            .per_frame = x->per_frame,
                            .first_frame = !p->drop_first_frame,
                            .own_frame = !p->drop_own_frame,
                            .within_budget = p->within_budget};
    kn_attn_plan_restart(x->plan);
    KN_TRY(kn_select_run_draft(x->select, &rule, q, k));
    x->plan->lists = kn_select_lists(x->select);
    x->plan->fetch = fetch_rows;
    x->plan->planner = x;
    x->plan->density = kn_select_density(x->select);
    return KN_OK;
}

kn_status kn_draft_plan(kn_dev *d, kn_draft *draft, const kn_tensor *q, const kn_tensor *k,
                        const kn_attn_plan **plan)
{
    *plan = NULL;
    KN_TRY(kn_block_map_check(d, draft->plan, draft->params.heads, draft->params.dim, q, k));
    if (kn_dev_get_kind(d) == KN_DEV_CUDA)
        KN_TRY(plan_on_cuda(d, draft, q, k));
    else
        KN_TRY(plan_on_host(d, draft, q, k));
    *plan = draft->plan;
    return KN_OK;
}
