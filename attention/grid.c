/* Token orders of the latent grid, window bounds, and the tile search. */
#include "attention/grid.h"

#include <limits.h>

#include "io/memory.h"

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}
static int min_int(int a, int b)
{
    return a < b ? a : b;
}
static int max_int(int a, int b)
{
    return a > b ? a : b;
}

int64_t kn_grid_tokens(const int grid[3])
{
    return (int64_t)grid[0] * grid[1] * grid[2];
}

kn_status kn_attn_layout_check(kn_attn_layout *l)
{
    for (int a = 0; a < 3; a++) {
        if (l->grid[a] < 1 || l->grid[a] > INT16_MAX || l->tile[a] < 1)
            return kn_fail(KN_ERR_ARG,
                           "attention: grid %d x %d x %d with tile %d x %d x %d: edges must "
                           "be 1 to 32767",
                           l->grid[0], l->grid[1], l->grid[2], l->tile[0], l->tile[1], l->tile[2]);
        l->tile[a] = min_int(l->tile[a], l->grid[a]);
    }
    if (l->text < 0 || l->text > INT32_MAX || kn_grid_tokens(l->grid) + l->text > INT32_MAX)
        return kn_fail(KN_ERR_ARG,
                       "attention: grid %d x %d x %d and %lld text tokens are more than 2^31",
                       l->grid[0], l->grid[1], l->grid[2], (long long)l->text);
    return KN_OK;
}

int kn_grid_tiles_on(const int grid[3], const int tile[3], int axis)
{
    return ceil_div(grid[axis], tile[axis]);
}

int64_t kn_grid_tiles(const int grid[3], const int tile[3])
{
    int64_t n = 1;
    for (int a = 0; a < 3; a++) n *= kn_grid_tiles_on(grid, tile, a);
    return n;
}

kn_grid_box kn_grid_tile(const int grid[3], const int tile[3], int64_t i)
{
    kn_grid_box b;
    for (int a = 2; a >= 0; a--) {
        int n = kn_grid_tiles_on(grid, tile, a);
        b.lo[a] = (int)(i % n) * tile[a];
        b.len[a] = min_int(tile[a], grid[a] - b.lo[a]);
        i /= n;
    }
    /* Whole slabs of tiles before it, then whole rows of tiles, then tiles. */
    b.start = (int64_t)b.lo[0] * grid[1] * grid[2] + (int64_t)b.len[0] * b.lo[1] * grid[2] +
              (int64_t)b.len[0] * b.len[1] * b.lo[2];
    b.count = (int64_t)b.len[0] * b.len[1] * b.len[2];
    return b;
}

void kn_grid_tile_order(const int grid[3], const int tile[3], int32_t *order)
{
    int64_t tiles = kn_grid_tiles(grid, tile);
    for (int64_t i = 0; i < tiles; i++) {
        kn_grid_box b = kn_grid_tile(grid, tile, i);
        int32_t *out = order + b.start;
        for (int t = b.lo[0]; t < b.lo[0] + b.len[0]; t++)
            for (int h = b.lo[1]; h < b.lo[1] + b.len[1]; h++)
                for (int w = b.lo[2]; w < b.lo[2] + b.len[2]; w++)
                    *out++ = (int32_t)(((int64_t)t * grid[1] + h) * grid[2] + w);
    }
}

void kn_grid_axis_order(const int grid[3], const int axes[3], int32_t *order)
{
    int at[3];
    for (at[axes[0]] = 0; at[axes[0]] < grid[axes[0]]; at[axes[0]]++)
        for (at[axes[1]] = 0; at[axes[1]] < grid[axes[1]]; at[axes[1]]++)
            for (at[axes[2]] = 0; at[axes[2]] < grid[axes[2]]; at[axes[2]]++)
                *order++ = (int32_t)(((int64_t)at[0] * grid[1] + at[1]) * grid[2] + at[2]);
}

void kn_grid_invert(const int32_t *order, int64_t count, int32_t *inverse)
{
    for (int64_t p = 0; p < count; p++) inverse[order[p]] = (int32_t)p;
}

/* ---- windows ----------------------------------------------------------------------------------*/

kn_status kn_grid_window_bounds(const kn_grid_window *win, int length, int32_t *lo, int32_t *len)
{
    int dilation = win->dilation ? win->dilation : 1, stride = win->stride ? win->stride : 1;
    if (win->size < 0 || stride < 1 || dilation < 1 || dilation > length ||
        (win->size > 0 && stride > win->size))
        return kn_fail(KN_ERR_ARG,
                       "attention window: size %d, stride %d, dilation %d on an axis of %d: "
                       "wants 1 <= stride <= size and dilation <= axis",
                       win->size, stride, dilation, length);
    for (int c = 0; c < length; c++) {
        int residue = c % dilation, j = c / dilation;
        int group = length / dilation + (residue < length % dilation); /* of this residue class */
        int size = win->size == 0 || win->size > group ? group : win->size;
        int left = size / 2, right = size / 2 + size % 2 - 1, start, end;
        if (win->causal) {
            int leader = min_int(j / stride * stride + stride - 1, group - 1);
            start = max_int(leader - left - right, 0);
            end = min_int(j + 1, group);
        } else {
            int leader = min_int(j / stride * stride + stride / 2, group - 1);
            start = max_int(leader - left, 0);
            if (leader + right >= group) start += group - right - leader - 1;
            end = start + size;
        }
        lo[c] = start * dilation + residue;
        len[c] = (end - 1 - start) * dilation + 1;
    }
    return KN_OK;
}

/* ---- tile search ------------------------------------------------------------------------------
 * A key is visible to a tile when it is so on every axis, independently, so counts of touched and
 * of fully visible key tiles are products of counts per axis, and sums over query tiles are
 * products of sums. Shapes share edges, so an axis is counted once per edge, when first wanted.
 */
typedef struct axis_count {
    double touched; /* key tiles that some query of the tile sees, summed over query tiles */
    double full;    /* key tiles that every query sees whole */
    double visible; /* visible pairs on this axis; 0: not counted yet */
    double run_blocks, run_full; /* of unaligned runs, see count_runs */
} axis_count;

typedef struct axis_tables {
    int length, dilation;
    int32_t *lo, *len;
    unsigned char *any, *all; /* per key coordinate: seen by some, by every query of a tile */
    axis_count *counts;       /* by the edge of a tile, 1 to length */
} axis_tables;

static void see(const axis_tables *x, int q_lo, int q_hi)
{
    for (int k = 0; k < x->length; k++) x->any[k] = 0, x->all[k] = 1;
    for (int q = q_lo; q < q_hi; q++)
        for (int k = 0; k < x->length; k++) {
            bool sees = k >= x->lo[q] && k < x->lo[q] + x->len[q] && (k - q) % x->dilation == 0;
            x->any[k] |= sees;
            x->all[k] &= sees;
        }
}

static axis_count count_axis(const axis_tables *x, int q_edge, int k_edge)
{
    axis_count c = {0};
    for (int q0 = 0; q0 < x->length; q0 += q_edge) {
        see(x, q0, min_int(q0 + q_edge, x->length));
        for (int k0 = 0; k0 < x->length; k0 += k_edge) {
            int any = 0, all = 1;
            for (int k = k0; k < min_int(k0 + k_edge, x->length); k++)
                any |= x->any[k], all &= x->all[k];
            c.touched += any;
            c.full += all;
        }
    }
    for (int q = 0; q < x->length; q++) {
        int visible = (x->len[q] - 1) / x->dilation + 1;
        c.visible += visible;
    }
    return c;
}

/* Unaligned runs: per key row a run of `columns` touched columns of T tokens each, cut in blocks;
 * `blocks` and `full` are summed over the query tiles along w. Rows run together when a run covers
 * whole rows; that is counted by the caller's rows factor all the same, as the rim differs. */
static void count_runs(const axis_tables *x, int edge, int t_length, int block, axis_count *out)
{
    for (int q0 = 0; q0 < x->length; q0 += edge) {
        see(x, q0, min_int(q0 + edge, x->length));
        for (int k = 0; k < x->length;) {
            int first = k;
            while (k < x->length && x->any[k]) k++;
            int64_t tokens = (int64_t)(k - first) * t_length;
            for (int64_t b = 0; b < tokens; b += block) {
                int64_t last = b + block - 1;
                bool all = last < tokens;
                for (int64_t c = first + b / t_length; all && c <= first + last / t_length; c++)
                    all = x->all[c];
                out->run_blocks += 1;
                out->run_full += all;
            }
            while (k < x->length && !x->any[k]) k++;
        }
    }
}

static void free_tables(axis_tables x[3])
{
    for (int a = 0; a < 3; a++) {
        kn_free(x[a].lo);
        kn_free(x[a].len);
        kn_free(x[a].any);
        kn_free(x[a].all);
        kn_free(x[a].counts);
    }
}

static kn_status build_tables(const kn_grid_search *s, axis_tables x[3])
{
    for (int a = 0; a < 3; a++) x[a] = (axis_tables){.length = s->grid[a], .dilation = 1};
    for (int a = 0; a < 3; a++) {
        size_t n = (size_t)s->grid[a];
        if (s->window[a].dilation > 1) x[a].dilation = s->window[a].dilation;
        KN_TRY(kn_alloc_array(n, sizeof(int32_t), (void **)&x[a].lo));
        KN_TRY(kn_alloc_array(n, sizeof(int32_t), (void **)&x[a].len));
        KN_TRY(kn_alloc_array(n, 1, (void **)&x[a].any));
        KN_TRY(kn_alloc_array(n, 1, (void **)&x[a].all));
        KN_TRY(kn_alloc_zero((n + 1) * sizeof(axis_count), (void **)&x[a].counts));
        KN_TRY(kn_grid_window_bounds(&s->window[a], x[a].length, x[a].lo, x[a].len));
    }
    return KN_OK;
}

static const axis_count *count_edge(const kn_grid_search *s, const axis_tables *x, int axis, int edge)
{
    axis_count *c = &x->counts[edge];
    if (c->visible > 0) return c;
    *c = count_axis(x, edge, s->runs ? (axis == 0 ? s->grid[0] : 1) : edge);
    if (s->runs && axis == 2) count_runs(x, edge, s->grid[0], s->block_k, c);
    return c;
}

static void count_shape(const kn_grid_search *s, const axis_tables x[3], const int tile[3],
                        kn_grid_choice *out)
{
    double all_pairs = 1, ideal = 1, touched = 1, full = 1;
    for (int a = 0; a < 3; a++) {
        const axis_count *c = count_edge(s, &x[a], a, tile[a]);
        bool run = s->runs && a == 2;
        all_pairs *= (double)s->grid[a] * s->grid[a];
        ideal *= c->visible;
        touched *= run ? c->run_blocks : c->touched;
        full *= run ? c->run_full : c->full;
    }
    int64_t per_tile = kn_grid_tokens(tile);
    int64_t count_q = (per_tile + s->block_q - 1) / s->block_q;
    int64_t count_k = s->runs ? 1 : (per_tile + s->block_k - 1) / s->block_k;
    double blocks_q = (double)(count_q * s->block_q), blocks_k = (double)(count_k * s->block_k);
    for (int a = 0; a < 3; a++) out->tile[a] = tile[a];
    out->ideal = ideal / all_pairs;
    out->executed = touched * blocks_q * blocks_k / all_pairs;
    out->partial = 1.0 - full / touched;
}

static kn_status check_search(const kn_grid_search *s)
{
    kn_attn_layout l = {.grid = {s->grid[0], s->grid[1], s->grid[2]}, .tile = {1, 1, 1}};
    KN_TRY(kn_attn_layout_check(&l));
    if (s->block_q < 1 || s->block_k < 1)
        return kn_fail(KN_ERR_ARG, "tile search: blocks of %d x %d tokens", s->block_q, s->block_k);
    if (s->runs && (s->window[0].dilation > 1 || s->window[0].causal ||
                    (s->window[0].size > 0 && s->window[0].size < s->grid[0])))
        return kn_fail(KN_ERR_ARG,
                       "tile search: runs in (h,w,t) order want a window over all %d frames",
                       s->grid[0]);
    return KN_OK;
}

kn_status kn_grid_count(const kn_grid_search *s, const int tile[3], kn_grid_choice *out)
{
    axis_tables x[3] = {{0}};
    kn_status st;
    KN_TRY(check_search(s));
    for (int a = 0; a < 3; a++)
        if (tile[a] < 1 || tile[a] > s->grid[a])
            return kn_fail(KN_ERR_ARG, "tile search: tile %d x %d x %d does not fit the grid",
                           tile[0], tile[1], tile[2]);
    KN_TRY_GOTO(build_tables(s, x));
    count_shape(s, x, tile, out);
done:
    free_tables(x);
    return st;
}

static bool better(const kn_grid_choice *a, const kn_grid_choice *b)
{
    if (a->executed != b->executed) return a->executed < b->executed;
    if (a->partial != b->partial) return a->partial < b->partial;
    return a->tile[0] > b->tile[0];
}

kn_status kn_grid_best_tile(const kn_grid_search *s, kn_grid_choice *out)
{
    axis_tables x[3] = {{0}};
    kn_status st;
    KN_TRY(check_search(s));
    KN_TRY_GOTO(build_tables(s, x));
    int block = s->runs ? s->block_q : min_int(s->block_q, s->block_k);
    *out = (kn_grid_choice){.executed = 1e300};
    for (int t = 1; t <= min_int(s->grid[0], block); t++)
        for (int h = 1; h <= s->grid[1] && t * h <= block; h++)
            /* Only the two widest w: a narrower tile leaves more of each block empty. */
            for (int w = min_int(s->grid[2], block / (t * h)), n = 0; w >= 1 && n < 2; w--, n++) {
                kn_grid_choice c;
                count_shape(s, x, (int[3]){t, h, w}, &c);
                if (better(&c, out)) *out = c;
            }
done:
    free_tables(x);
    return st;
}
