/* Static tile patterns. */
#include "attention/tile3d.h"

#include <string.h>

typedef struct tile_range {
    int lo, hi; /* inclusive */
} tile_range;

/* STA's window on one axis of n tiles, around query tile c. The order of the two tests matters when
 * the window is wider than the axis. */
static tile_range box_range(int c, int window, int n)
{
    int r = window / 2;
    if (c < r)
        c = r;
    else if (c > n - 1 - r)
        c = n - 1 - r;
    tile_range x = {c - r, c + r};
    if (x.lo < 0) x.lo = 0;
    if (x.hi > n - 1) x.hi = n - 1;
    return x;
}

double kn_tile3d_density(const kn_attn_layout *layout, const int window[3])
{
    double density = 1;
    for (int a = 0; a < 3; a++) {
        int size = layout->grid[a], edge = layout->tile[a] < size ? layout->tile[a] : size;
        int n = kn_grid_tiles_on(layout->grid, layout->tile, a);
        double pairs = 0;
        for (int c = 0; c < n; c++) {
            tile_range r = box_range(c, window[a], n);
            int own = (c + 1) * edge < size ? edge : size - c * edge;
            int end = (r.hi + 1) * edge < size ? (r.hi + 1) * edge : size;
            pairs += (double)own * (end - r.lo * edge);
        }
        density *= pairs / ((double)size * size);
    }
    return density;
}

static kn_status add_tiles(kn_attn_plan *p, const kn_tile3d_params *params, const int tile[3],
                           const int n[3], const int q[3], const int window[3])
{
    tile_range r[3];
    for (int a = 0; a < 3; a++)
        r[a] = params->cross ? (tile_range){0, n[a] - 1} : box_range(q[a], window[a], n[a]);
    for (int t = r[0].lo; t <= r[0].hi; t++)
        for (int h = r[1].lo; h <= r[1].hi; h++)
            for (int w = r[2].lo; w <= r[2].hi; w++) {
                if (params->cross && t != q[0] && h != q[1] && w != q[2]) continue;
                kn_grid_box b = kn_grid_tile(p->grid, tile, ((int64_t)t * n[1] + h) * n[2] + w);
                KN_TRY(kn_attn_plan_add(p, b.start, b.count, -1));
            }
    return KN_OK;
}

static kn_status fill_head(kn_attn_plan *p, const kn_tile3d_params *params,
                           const kn_attn_layout *layout, const int window[3])
{
    int64_t text_block = kn_attn_plan_text_block(p);
    int n[3];
    for (int a = 0; a < 3; a++) n[a] = kn_grid_tiles_on(p->grid, layout->tile, a);
    for (int64_t b = 0; b < text_block; b++) {
        const int16_t *at = p->pos + 3 * (int64_t)p->q_start[b]; /* blocks lie within a tile */
        int q[3] = {at[0] / layout->tile[0], at[1] / layout->tile[1], at[2] / layout->tile[2]};
        KN_TRY(add_tiles(p, params, layout->tile, n, q, window));
        KN_TRY(kn_attn_plan_end_video_row(p));
    }
    return kn_attn_plan_add_text_rows(p);
}

static kn_status check_windows(const kn_tile3d_params *params)
{
    if (params->cross) return KN_OK;
    if (!params->window || params->heads < 1)
        return kn_fail(KN_ERR_ARG, "tile plan: windows for %d heads", params->heads);
    for (int h = 0; h < params->heads; h++)
        for (int a = 0; a < 3; a++)
            if (params->window[h][a] < 1)
                return kn_fail(KN_ERR_ARG, "tile plan: window %d x %d x %d tiles of head %d",
                               params->window[h][0], params->window[h][1], params->window[h][2], h);
    return KN_OK;
}

kn_status kn_tile3d_plan(const kn_tile3d_params *params, kn_attn_plan **out)
{
    *out = NULL;
    kn_attn_layout layout = params->layout;
    KN_TRY(kn_attn_layout_check(&layout));
    KN_TRY(check_windows(params));
    kn_attn_plan_params open = {.layout = layout,
                                .block = params->block,
                                .heads = params->cross ? 1 : params->heads,
                                .scale = params->scale};
    kn_attn_plan *p = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_attn_plan_open(&open, &p));
    for (int h = 0; h < open.heads; h++)
        KN_TRY_GOTO(fill_head(p, params, &layout, params->cross ? NULL : params->window[h]));
    p->density = kn_attn_plan_listed(p);
    *out = p;
    p = NULL;
done:
    kn_attn_plan_free(&p);
    return st;
}
