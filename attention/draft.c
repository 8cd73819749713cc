#include "attention/draft.h"

#include <math.h>
#include <string.h>

#include "attention/block_map.h"
#include "io/memory.h"

enum { BINS = 1 << 16 };

struct kn_draft {
    kn_draft_params params;
    kn_attn_plan *plan;
    kn_attn_plan *tiles; /* its query blocks are the tiles, uncut */
    kn_block_map means;  /* over these tiles */
    int64_t *bins;       /* [BINS] */
};

void kn_draft_close(kn_draft **draft)
{
    kn_draft *x = *draft;
    *draft = NULL;
    if (!x) return;
    kn_attn_plan_free(&x->plan);
    kn_attn_plan_free(&x->tiles);
    kn_block_map_close(&x->means);
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
    KN_TRY_GOTO(kn_block_map_open(kn_attn_plan_text_block(x->tiles), params->dim, &x->means));
    KN_TRY_GOTO(kn_alloc(BINS * sizeof *x->bins, (void **)&x->bins));
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

static kn_status fill_row(kn_draft *x, int64_t tile, float threshold)
{
    const kn_draft_params *p = &x->params;
    const int32_t *start = x->tiles->q_start;
    int64_t n = x->means.blocks,
            per_frame = n / kn_grid_tiles_on(p->layout.grid, p->layout.tile, 0);
    for (int64_t k = 0; k < n; k++) {
        bool keep = x->means.map[tile * n + k] >= threshold || k == tile ||
                    (!p->drop_first_frame && k < per_frame) ||
                    (!p->drop_own_frame && k / per_frame == tile / per_frame);
        if (keep) KN_TRY(kn_attn_plan_add(x->plan, start[k], start[k + 1] - start[k], -1));
    }
    if (p->layout.text)
        KN_TRY(kn_attn_plan_add(x->plan, kn_attn_plan_text_start(x->plan), p->layout.text, -1));
    return kn_attn_plan_end_row(x->plan);
}

static kn_status fill_head(kn_draft *x)
{
    int64_t n = x->means.blocks, pairs = n * n,
            m = (int64_t)floor(x->params.sparsity * (double)pairs);
    float threshold = m == 0       ? -1.0f
                      : m >= pairs ? INFINITY
                                   : nth_smallest(x->means.map, pairs, m, x->bins);
    int64_t tile = 0, text_block = kn_attn_plan_text_block(x->plan);
    for (int64_t b = 0; b < text_block; b++) {
        while (x->tiles->q_start[tile + 1] <= x->plan->q_start[b]) tile++;
        KN_TRY(fill_row(x, tile, threshold));
    }
    for (int64_t b = text_block; b < x->plan->q_blocks; b++) {
        KN_TRY(kn_attn_plan_add(x->plan, 0, x->plan->tokens, -1));
        KN_TRY(kn_attn_plan_end_row(x->plan));
    }
    return KN_OK;
}

kn_status kn_draft_plan(kn_dev *d, kn_draft *draft, const kn_tensor *q, const kn_tensor *k,
                        const kn_attn_plan **plan)
{
    *plan = NULL;
    KN_TRY(kn_block_map_check(d, draft->plan, &draft->means, draft->params.heads, q, k));
    kn_attn_plan_restart(draft->plan);
    for (int h = 0; h < draft->params.heads; h++) {
        kn_block_map_fill(d, &draft->means, draft->tiles, h, q, k, draft->params.scale);
        KN_TRY(fill_head(draft));
    }
    draft->plan->density = kn_attn_plan_listed(draft->plan);
    *plan = draft->plan;
    return KN_OK;
}
