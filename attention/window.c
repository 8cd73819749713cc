/* The window planner. Visibility is a product over the axes, so for a box of queries a key is seen
 * by some (by all) of them when it is seen by some (by all) of the box's coordinates on every
 * axis; key tiles are judged from these three small tables.
 */
#include "attention/window.h"

#include <string.h>

#include "io/memory.h"

/* For the query box at hand: per axis and key coordinate, seen by some / by every query. */
typedef struct sight {
    uint8_t *any[3], *all[3];
} sight;

static void look(const kn_attn_plan *p, const int lo[3], const int hi[3], sight *s)
{
    for (int a = 0; a < 3; a++) {
        const int32_t *from = kn_attn_rule_lo(p, 0, a), *len = kn_attn_rule_len(p, 0, a);
        int n = p->grid[a], dilation = p->dilation[0][a];
        memset(s->any[a], 0, (size_t)n);
        memset(s->all[a], 1, (size_t)n);
        for (int q = lo[a]; q <= hi[a]; q++)
            for (int k = 0; k < n; k++) {
                bool sees = k >= from[q] && k < from[q] + len[q] && (k - q) % dilation == 0;
                s->any[a][k] |= sees;
                s->all[a][k] &= sees;
            }
    }
}

/* First tile on an axis that holds a set coordinate, and one past the last. */
static void tiles_seen(const kn_attn_plan *p, const int tile[3], int axis, const uint8_t *any, int out[2])
{
    int n = p->grid[axis], first = 0, last = n - 1;
    while (first < n && !any[first]) first++;
    while (last > first && !any[last]) last--;
    out[0] = first / tile[axis];
    out[1] = first < n ? last / tile[axis] + 1 : out[0];
}

/* Some of tab[lo .. lo+len) set; all of it set. */
static bool some_of(const uint8_t *tab, int lo, int len)
{
    for (int i = lo; i < lo + len; i++)
        if (tab[i]) return true;
    return false;
}

static bool all_of(const uint8_t *tab, int lo, int len)
{
    for (int i = lo; i < lo + len; i++)
        if (!tab[i]) return false;
    return true;
}

/* Keys of one query box, key tile by key tile, in stored order. */
static kn_status add_keys(kn_attn_plan *p, const int tile[3], const sight *s)
{
    int n[3], near[3][2];
    for (int a = 0; a < 3; a++) {
        n[a] = kn_grid_tiles_on(p->grid, tile, a);
        tiles_seen(p, tile, a, s->any[a], near[a]);
    }
    kn_grid_box b;
    for (int it = near[0][0]; it < near[0][1]; it++)
        for (int ih = near[1][0]; ih < near[1][1]; ih++) {
            b = kn_grid_tile(p->grid, tile, ((int64_t)it * n[1] + ih) * n[2]);
            if (!some_of(s->any[0], b.lo[0], b.len[0]) || !some_of(s->any[1], b.lo[1], b.len[1]))
                continue;
            bool full_th =
                all_of(s->all[0], b.lo[0], b.len[0]) && all_of(s->all[1], b.lo[1], b.len[1]);
            for (int iw = near[2][0]; iw < near[2][1]; iw++) {
                b = kn_grid_tile(p->grid, tile, ((int64_t)it * n[1] + ih) * n[2] + iw);
                if (!some_of(s->any[2], b.lo[2], b.len[2])) continue;
                bool full = full_th && all_of(s->all[2], b.lo[2], b.len[2]);
                KN_TRY(kn_attn_plan_add(p, b.start, b.count, full ? -1 : 0));
            }
        }
    return KN_OK;
}

/* Bounding box of a block's queries on the grid. */
static void block_box(const kn_attn_plan *p, int64_t block, int lo[3], int hi[3])
{
    for (int a = 0; a < 3; a++) lo[a] = p->grid[a], hi[a] = -1;
    for (int64_t i = p->q_start[block]; i < p->q_start[block + 1]; i++) {
        const int16_t *at = p->pos + 3 * (int64_t)(p->perm_q ? p->perm_q[i] : i);
        for (int a = 0; a < 3; a++) {
            if (at[a] < lo[a]) lo[a] = at[a];
            if (at[a] > hi[a]) hi[a] = at[a];
        }
    }
}

static kn_status fill_rows(kn_attn_plan *p, const kn_attn_layout *layout, sight *s)
{
    int64_t text_block = kn_attn_plan_text_block(p);
    for (int64_t b = 0; b < text_block; b++) {
        int lo[3], hi[3];
        block_box(p, b, lo, hi);
        look(p, lo, hi, s);
        KN_TRY(add_keys(p, layout->tile, s));
        KN_TRY(kn_attn_plan_end_video_row(p));
    }
    return kn_attn_plan_add_text_rows(p);
}

/* Visible pairs are a product over the axes; text adds its full rows and columns. */
static double exact_density(const kn_attn_plan *p)
{
    double pairs = 1, tokens = (double)p->tokens, video = (double)kn_attn_plan_text_start(p);
    for (int a = 0; a < 3; a++) {
        const int32_t *len = kn_attn_rule_len(p, 0, a);
        double axis = 0;
        for (int c = 0; c < p->grid[a]; c++) {
            int visible = (len[c] - 1) / p->dilation[0][a] + 1;
            axis += visible;
        }
        pairs *= axis;
    }
    return (pairs + tokens * tokens - video * video) / (tokens * tokens);
}

kn_status kn_window_plan(const kn_window_params *params, kn_attn_plan **out)
{
    *out = NULL;
    kn_attn_layout layout = params->layout;
    KN_TRY(kn_attn_layout_check(&layout));
    kn_attn_plan_params open = {.layout = layout,
                                .query_tile = params->query_tile[0] ? params->query_tile : NULL,
                                .block = params->block,
                                .heads = 1,
                                .rules = 1,
                                .scale = params->scale};
    kn_attn_plan *p = NULL;
    sight s = {{0}, {0}};
    kn_status st;
    KN_TRY_GOTO(kn_attn_plan_open(&open, &p));
    for (int a = 0; a < 3; a++) {
        p->dilation[0][a] = params->window[a].dilation ? params->window[a].dilation : 1;
        KN_TRY_GOTO(kn_grid_window_bounds(&params->window[a], layout.grid[a],
                                          (int32_t *)kn_attn_rule_lo(p, 0, a),
                                          (int32_t *)kn_attn_rule_len(p, 0, a)));
        KN_TRY_GOTO(kn_alloc((size_t)layout.grid[a], (void **)&s.any[a]));
        KN_TRY_GOTO(kn_alloc((size_t)layout.grid[a], (void **)&s.all[a]));
    }
    KN_TRY_GOTO(fill_rows(p, &layout, &s));
    p->density = exact_density(p);
    *out = p;
    p = NULL;
done:
    for (int a = 0; a < 3; a++) {
        kn_free(s.any[a]);
        kn_free(s.all[a]);
    }
    kn_attn_plan_free(&p);
    return st;
}
