#include "pipeline/pass_attention.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention/held.h"
#include "attention/tile3d.h"
#include "attention/window.h"
#include "io/memory.h"

enum { BLOCK = 128 /* tokens that the executors take at once */, PANEL = 32 /* queries of the CPU's kernels */, SAMPLES = 256 };

const char *kn_attention_name(kn_attention_choice m)
{
    static const char *const names[] = {"window", "dense", "tile3d", "cross", "draft", "permute", "paro"};
    return names[m];
}

static bool looks_at_tensors(kn_attention_choice m)
{
    return m == KN_ATTENTION_DRAFT || m == KN_ATTENTION_PERMUTE || m == KN_ATTENTION_PARO;
}

static kn_attention_choice method_of(const kn_pass_attention *a, int branch)
{
    return branch >= KN_BRANCH_FULL ? a->pass->full_attention : a->pass->attention;
}

/* ---- layouts ----------------------------------------------------------------------------------*/

static void grid_of(const kn_pass *pass, const kn_dit_config *dit, int grid[3])
{
    grid[0] = (int)(pass->geo.frames_lat / dit->patch[0]);
    grid[1] = (int)(pass->geo.height_lat / dit->patch[1]);
    grid[2] = (int)(pass->geo.width_lat / dit->patch[2]);
}

static kn_grid_search window_search(const kn_pass_attention *a, int block)
{
    kn_grid_search s = {.window = {{0}, {.size = a->pass->window[0]}, {.size = a->pass->window[1]}},
                        .block_q = block,
                        .block_k = block};
    memcpy(s.grid, a->layout.grid, sizeof s.grid);
    return s;
}

/* Blocks of one panel: fewer queries read a key while it is in the cache, measured 6 to 12 % dearer per key
 * (docs/performance.md). Of a small grid's large blocks there are too few to keep many threads at work. */
static double host_cost(const kn_pass_attention *a, const kn_attn_plan *plan, int block)
{
    enum { ENOUGH = 512 /* blocks of all heads */ };
    double cost = kn_attn_plan_host_cost(plan, a->dit->head_dim);
    if (kn_grid_tokens(a->layout.grid) / BLOCK * a->dit->heads >= ENOUGH) return block == PANEL ? 1.1 * cost : cost;
    return block == PANEL ? cost : 1.02 * cost;
}

/* Keys in unaligned runs of (h,w,t) order, in the place of a->plan where that costs less than *cost. */
static kn_status try_runs(kn_pass_attention *a, kn_window_params params, int block, double *cost)
{
    kn_grid_search search = window_search(a, block);
    kn_grid_choice best;
    kn_attn_plan *plan;
    search.runs = true;
    search.block_k = 1;
    KN_TRY(kn_grid_best_tile(&search, &best));
    params.block = block;
    memcpy(params.query_tile, best.tile, sizeof best.tile);
    params.layout.tile[0] = params.layout.grid[0];
    params.layout.tile[1] = params.layout.tile[2] = 1;
    KN_TRY(kn_window_plan(&params, &plan));
    double own = host_cost(a, plan, block);
    if (own < *cost) {
        kn_attn_plan *worse = a->plan;
        a->plan = plan;
        plan = worse;
        a->layout = params.layout;
        a->runs = true;
        *cost = own;
    }
    kn_attn_plan_free(&plan);
    return KN_OK;
}

/* Key tiles or, on a CPU, unaligned runs, by counted work; a GPU pays for whole blocks of 128, of which
 * tiles have fewer to gather. A full branch that looks at tensors wants the tiles' order. */
static kn_status plan_window(kn_pass_attention *a)
{
    bool host = kn_dev_measured(a->dev) != KN_DEV_CUDA;
    kn_grid_search search = window_search(a, BLOCK);
    kn_window_params params = {.block = BLOCK, .layout = a->layout};
    kn_grid_choice tiles;
    memcpy(params.window, search.window, sizeof search.window);
    if (a->pass->tile[0])
        memcpy(tiles.tile, a->pass->tile, sizeof tiles.tile);
    else
        KN_TRY(kn_grid_best_tile(&search, &tiles));
    memcpy(params.layout.tile, tiles.tile, sizeof tiles.tile);
    KN_TRY(kn_attn_layout_check(&params.layout));
    a->layout = params.layout;
    KN_TRY(kn_window_plan(&params, &a->plan));
    if (!host || a->pass->tile[0] || (a->pass->dual && looks_at_tensors(a->pass->full_attention))) return KN_OK;
    double cost = host_cost(a, a->plan, BLOCK);
    KN_TRY(try_runs(a, params, BLOCK, &cost));
    return try_runs(a, params, PANEL, &cost);
}

/* Odd number of tiles that cover what the base pass sees. */
static void windows_in_tiles(const kn_pass_attention *a, int out[3])
{
    const int see[3] = {a->layout.grid[0], a->pass->window[0], a->pass->window[1]};
    for (int i = 0; i < 3; i++) {
        int tiles = kn_grid_tiles_on(a->layout.grid, a->layout.tile, i);
        int n = a->pass->tile_window[i];
        if (!n) n = (see[i] + a->layout.tile[i] - 1) / a->layout.tile[i] / 2 * 2 + 1;
        out[i] = n > tiles ? tiles : n;
    }
}

static kn_status plan_tiles(kn_pass_attention *a)
{
    int window[1][3];
    windows_in_tiles(a, window[0]);
    kn_tile3d_params p = {.layout = a->layout,
                          .block = BLOCK,
                          .cross = a->pass->attention == KN_ATTENTION_CROSS,
                          .heads = 1,
                          .window = (const int (*)[3])window};
    return kn_tile3d_plan(&p, &a->plan);
}

/* Windows by layer and head: the file's tile. */
static kn_status read_windows(kn_pass_attention *a)
{
    const kn_pass *p = a->pass;
    void *memory;
    KN_TRY(kn_tile_windows_read(p->tile_windows, a->layout.grid, a->dit->layers, a->dit->heads, &a->windows));
    const int *tile = a->windows.layout.tile;
    if (p->tile[0] && memcmp(a->layout.tile, tile, sizeof a->layout.tile))
        return kn_fail(KN_ERR_ARG, "--attention-tile %dx%dx%d: the windows of %s are for tiles of %dx%dx%d", p->tile[0], p->tile[1],
                       p->tile[2], p->tile_windows, tile[0], tile[1], tile[2]);
    a->layout = a->windows.layout;
    KN_TRY(kn_alloc_zero((size_t)a->dit->layers * sizeof(kn_attn_plan *), &memory));
    a->layer_plan = memory;
    return KN_OK;
}

static void free_layer_plans(kn_pass_attention *a)
{
    for (int i = 0; a->layer_plan && i < a->dit->layers; i++) kn_attn_plan_free(&a->layer_plan[i]);
}

/* The layer's plan at a noise level; those of an earlier range are dropped. */
static kn_status plan_of_layer(kn_pass_attention *a, int layer, double sigma, const kn_attn_plan **plan)
{
    int range = kn_tile_windows_range(&a->windows, sigma);
    if (range != a->range) free_layer_plans(a);
    a->range = range;
    kn_tile3d_params p = {.layout = a->layout,
                          .block = BLOCK,
                          .heads = a->dit->heads,
                          .window = kn_tile_windows_of(&a->windows, range, layer)};
    if (!a->layer_plan[layer]) KN_TRY(kn_tile3d_plan(&p, &a->layer_plan[layer]));
    *plan = a->layer_plan[layer];
    return KN_OK;
}

static void default_tile(kn_pass_attention *a)
{
    static const int sta[3] = {6, 8, 8}, grat[3] = {4, 8, 8}, wide[3] = {1, 8, 16}, tall[3] = {1, 16, 8};
    kn_attention_choice m = a->pass->attention == KN_ATTENTION_DENSE ? a->pass->full_attention : a->pass->attention;
    const int *tile = m == KN_ATTENTION_TILE3D                      ? sta
                      : m == KN_ATTENTION_CROSS                     ? grat
                      : a->layout.grid[1] >= a->layout.grid[2] ? tall
                                                                    : wide;
    memcpy(a->layout.tile, a->pass->tile[0] ? a->pass->tile : tile, sizeof a->layout.tile);
}

/* ---- building ---------------------------------------------------------------------------------*/

kn_status kn_pass_attention_build(const kn_pass *pass, const kn_dit_config *dit, kn_dev *dev, kn_pass_attention *out)
{
    memset(out, 0, sizeof *out);
    *out = (kn_pass_attention){
        .pass = pass, .dit = dit, .dev = dev, .scale = pass->temperature / sqrt(dit->head_dim)};
    bool full = pass->dual && looks_at_tensors(pass->full_attention);
    if (pass->attention == KN_ATTENTION_DENSE && !full) return KN_OK;
    kn_status st = KN_OK;
    void *memory;
    grid_of(pass, dit, out->layout.grid);
    default_tile(out);
    KN_TRY_GOTO(kn_attn_layout_check(&out->layout));
    if (pass->attention == KN_ATTENTION_WINDOW)
        KN_TRY_GOTO(plan_window(out));
    else if (pass->attention == KN_ATTENTION_TILE3D && pass->tile_windows)
        KN_TRY_GOTO(read_windows(out));
    else if (pass->attention == KN_ATTENTION_TILE3D || pass->attention == KN_ATTENTION_CROSS)
        KN_TRY_GOTO(plan_tiles(out));
    KN_TRY_GOTO(kn_alloc_array((size_t)(KN_BRANCHES * dit->layers), sizeof *out->planner, &memory));
    out->planner = memory;
    memset(memory, 0, (size_t)(KN_BRANCHES * dit->layers) * sizeof *out->planner);
    KN_TRY_GOTO(kn_alloc_array((size_t)kn_grid_tokens(out->layout.grid), sizeof *out->order, &memory));
    out->order = memory;
    kn_grid_tile_order(out->layout.grid, out->layout.tile, out->order);
done:
    if (st != KN_OK) kn_pass_attention_free(out);
    return KN_CTX(st, "%s: planning its attention", pass->name);
}

void kn_pass_attention_free(kn_pass_attention *a)
{
    for (int i = 0; a->planner && i < KN_BRANCHES * a->dit->layers; i++) {
        kn_draft_close(&a->planner[i].draft);
        kn_permute_close(&a->planner[i].permute);
        kn_free(a->planner[i].axes);
    }
    kn_free(a->planner);
    if (a->dev) kn_attn_forget(a->dev);
    kn_attn_plan_free(&a->plan);
    free_layer_plans(a);
    kn_free(a->layer_plan);
    kn_tile_windows_free(&a->windows);
    kn_free(a->order);
    memset(a, 0, sizeof *a);
}

/* ---- planners that look at queries and keys ---------------------------------------------------*/

static kn_status open_draft(const kn_pass_attention *a, kn_layer_planner *p)
{
    kn_draft_params d = {.layout = a->layout,
                         .block = BLOCK,
                         .heads = a->dit->heads,
                         .dim = a->dit->head_dim,
                         .sparsity = 1 - a->pass->density,
                         .within_budget = a->pass->within_density,
                         .scale = (float)a->scale};
    return kn_draft_open(&d, &p->draft);
}

static kn_status open_permute(const kn_pass_attention *a, bool paro, kn_layer_planner *p)
{
    int64_t tokens = kn_grid_tokens(a->layout.grid);
    kn_permute_params m = {.layout = a->layout,
                           .kind = paro ? KN_PERMUTE_AXES : KN_PERMUTE_IMPORTANCE,
                           .block = BLOCK,
                           .samples = (int)(tokens < SAMPLES ? tokens : SAMPLES),
                           .axes = p->axes,
                           .heads = a->dit->heads,
                           .dim = a->dit->head_dim,
                           .threshold = a->pass->mass,
                           .density = a->pass->mass > 0 ? 0 : a->pass->density,
                           .scale = (float)a->scale};
    return kn_permute_open(&m, &p->permute);
}

/* The orders hold for as long as the lists: chosen anew with them, so that a run that goes on from a
 * checkpoint chooses as one that never stopped. */
static kn_status choose_axes(const kn_pass_attention *a, kn_layer_planner *p, const kn_tensor *q, const kn_tensor *k)
{
    enum { EDGE = 64 };
    const kn_pass *pass = a->pass;
    int64_t blocks = kn_grid_tokens(a->layout.grid) / EDGE, rows = pass->paro_rows;
    kn_axes_params x = {.layout = a->layout,
                        .block = EDGE,
                        .stride = (int)(rows > 0 && blocks / rows > 1 ? blocks / rows : 1),
                        .epsilon = pass->paro_epsilon,
                        .share = pass->paro_share,
                        .alpha = pass->paro_alpha,
                        .scale = (float)a->scale};
    void *memory;
    if (!p->axes) {
        KN_TRY(kn_alloc((size_t)a->dit->heads, &memory));
        p->axes = memory;
    }
    if (pass->paro_orders) {
        for (int h = 0; h < a->dit->heads; h++) p->axes[h] = pass->paro_order[pass->paro_orders > 1 ? h : 0];
        return p->permute ? KN_OK : open_permute(a, true, p);
    }
    kn_permute_close(&p->permute);
    KN_TRY(kn_permute_choose_axes(a->dev, &x, q, k, p->axes));
    return open_permute(a, true, p);
}

/* ---- device memory ----------------------------------------------------------------------------*/

static kn_status planner_bytes(const kn_pass_attention *a, kn_attention_choice m, size_t *each, size_t *ordered)
{
    kn_layer_planner p = {0};
    void *axes = NULL;
    kn_status st = KN_OK;
    if (m == KN_ATTENTION_DRAFT) {
        KN_TRY(open_draft(a, &p));
        *each = kn_draft_held_bytes(p.draft);
        kn_draft_close(&p.draft);
        return KN_OK;
    }
    KN_TRY(kn_alloc_array((size_t)a->dit->heads, 1, &axes)); /* any orders: they take the same */
    p.axes = axes;
    st = open_permute(a, m == KN_ATTENTION_PARO, &p);
    if (st == KN_OK) {
        *each = kn_permute_held_bytes(p.permute);
        *ordered = kn_permute_ordered_bytes(p.permute);
    }
    kn_permute_close(&p.permute);
    kn_free(axes);
    return st;
}

static bool runs(const kn_pass *p, int branch)
{
    bool negative = branch == KN_BRANCH_NEGATIVE || branch == KN_BRANCH_FULL_NEGATIVE;
    if (negative && p->guidance == 1) return false;
    return branch < KN_BRANCH_FULL || (p->dual && (!negative || p->dual_negative));
}

/* Planners that live at once: one per layer of each branch where lists are kept, else one of each kind. */
static kn_status count_planners(kn_pass_attention *a, size_t *bytes)
{
    const kn_pass *pass = a->pass;
    bool keep = pass->reuse_lists > 1, counted[2] = {false, false};
    size_t layers = (size_t)(a->dit->layers > pass->dense_layers ? a->dit->layers - pass->dense_layers : 0), ordered = 0;
    for (int b = 0; b < KN_BRANCHES; b++) {
        kn_attention_choice m = method_of(a, b);
        bool draft = m == KN_ATTENTION_DRAFT;
        size_t each = 0;
        if (!runs(pass, b) || !looks_at_tensors(m) || (!keep && counted[draft])) continue;
        KN_TRY(planner_bytes(a, m, &each, &ordered));
        *bytes += keep ? layers * each : each;
        counted[draft] = true;
    }
    *bytes += ordered;
    return KN_OK;
}

kn_status kn_pass_attention_measure(kn_pass_attention *a)
{
    if (kn_dev_get_kind(a->dev) != KN_DEV_MEASURE || kn_dev_measured(a->dev) != KN_DEV_CUDA) return KN_OK;
    size_t bytes = a->order ? (size_t)kn_grid_tokens(a->layout.grid) * sizeof *a->order : 0;
    if (a->plan) {
        size_t lists;
        KN_TRY(kn_attn_plan_held_bytes(a->plan, a->dit->heads, (int)a->dit->head_dim, a->pass->int8, &lists));
        bytes += lists;
    }
    KN_TRY(count_planners(a, &bytes));
    void *memory;
    return bytes ? kn_dev_alloc(a->dev, bytes, &memory) : KN_OK;
}

static kn_status choose_blocks(const kn_pass_attention *a, kn_attention_choice m, kn_layer_planner *p,
                               const kn_tensor *q, const kn_tensor *k)
{
    if (m == KN_ATTENTION_DRAFT) {
        if (!p->draft) KN_TRY(open_draft(a, p));
        return kn_draft_plan(a->dev, p->draft, q, k, &p->kept);
    }
    if (m == KN_ATTENTION_PARO)
        KN_TRY(choose_axes(a, p, q, k));
    else if (!p->permute)
        KN_TRY(open_permute(a, false, p));
    return kn_permute_plan(a->dev, p->permute, q, k, &p->kept);
}

/* ---- a forward --------------------------------------------------------------------------------*/

bool kn_pass_attention_dense(const kn_pass_attention *a, int branch)
{
    return method_of(a, branch) == KN_ATTENTION_DENSE;
}

kn_status kn_pass_attention_known(kn_pass_attention *a, const kn_attn_plan **plan)
{
    *plan = a->plan;
    return a->windows.ranges ? plan_of_layer(a, a->dit->layers / 2, 1, plan) : KN_OK;
}

void kn_pass_attention_at(kn_pass_attention *a, int step, double sigma, int branch)
{
    a->step = step;
    a->sigma = sigma;
    a->branch = branch;
}

static void count_density(kn_pass_attention *a, double density)
{
    a->density_sum += density;
    a->density_count++;
}

/* Lists are kept within a period: also those of a branch that does not run at its first step. */
static int period_of(const kn_pass *pass, int step)
{
    int sparse = step - (int)pass->dense_steps;
    return sparse < 0 ? -1 : sparse / pass->reuse_lists;
}

kn_status kn_pass_attention_plan(void *user, int layer, const kn_tensor *q, const kn_tensor *k,
                                 const kn_attn_plan **plan)
{
    kn_pass_attention *a = user;
    const kn_pass *pass = a->pass;
    kn_attention_choice m = method_of(a, a->branch);
    *plan = NULL;
    if (m == KN_ATTENTION_DENSE || a->step < pass->dense_steps || layer < pass->dense_layers) {
        if (a->branch < KN_BRANCH_FULL) count_density(a, 1);
        return KN_OK;
    }
    if (looks_at_tensors(m)) {
        bool keep = pass->reuse_lists > 1;
        kn_layer_planner *p = &a->planner[keep ? a->branch * a->dit->layers + layer : 0];
        int period = period_of(pass, a->step);
        if (!p->kept || !keep || p->period != period) KN_TRY(choose_blocks(a, m, p, q, k));
        p->period = period;
        *plan = p->kept;
    } else if (a->windows.ranges) {
        KN_TRY(plan_of_layer(a, layer, a->sigma, plan));
    } else {
        *plan = a->plan;
    }
    if (a->branch < KN_BRANCH_FULL) count_density(a, (*plan)->density);
    return KN_OK;
}

int kn_pass_attention_number(const kn_pass_attention *a)
{
    enum { CHOSEN, DENSE, PLANNED };
    kn_attention_choice m = method_of(a, a->branch);
    if (m == KN_ATTENTION_DENSE || a->step < a->pass->dense_steps) return DENSE;
    return looks_at_tensors(m) || a->windows.ranges ? CHOSEN : PLANNED;
}

bool kn_pass_attention_restartable(const kn_pass_attention *a, int done)
{
    const kn_pass *p = a->pass;
    bool full = p->dual && looks_at_tensors(p->full_attention);
    if (p->reuse_lists <= 1 || !(full || looks_at_tensors(p->attention)) || done <= p->dense_steps) return true;
    if ((done - p->dense_steps) % p->reuse_lists != 0) return false;
    int refreshed = full ? done - done % p->refresh : done, before = refreshed - p->refresh;
    return refreshed == done || before < 0 || period_of(p, before) != period_of(p, refreshed);
}

double kn_pass_attention_expected(const kn_pass_attention *a)
{
    if (a->plan) return a->plan->density;
    if (a->windows.ranges) {
        double sum = 0;
        for (int i = 0; i < a->windows.ranges; i++) sum += kn_tile_windows_density(&a->windows, i);
        return sum / a->windows.ranges;
    }
    if (a->pass->attention == KN_ATTENTION_DENSE) return 1;
    return a->pass->attention == KN_ATTENTION_DRAFT || a->pass->mass <= 0 ? a->pass->density : a->pass->mass;
}

static size_t plan_bytes(const kn_attn_plan *p)
{
    size_t rows = (size_t)p->heads * (size_t)p->q_blocks, tokens = (size_t)p->tokens;
    return (size_t)p->run_capacity * sizeof *p->runs + (rows + 1) * sizeof *p->row_ptr + tokens * 3 * sizeof *p->pos +
           (p->perm_q ? 2 * tokens * (size_t)p->perm_heads * sizeof *p->perm_q : 0);
}

size_t kn_pass_attention_bytes(const kn_pass_attention *a)
{
    const kn_pass *p = a->pass;
    if (!a->order) return 0; /* dense */
    size_t tokens = (size_t)kn_grid_tokens(a->layout.grid), bytes = tokens * sizeof *a->order;
    if (a->plan) bytes += plan_bytes(a->plan);
    size_t heads = (size_t)a->dit->heads, layers = (size_t)a->dit->layers;
    size_t blocks = (size_t)kn_grid_tiles(a->layout.grid, a->layout.tile), per_tile = (size_t)kn_grid_tokens(a->layout.tile);
    blocks *= (per_tile + BLOCK - 1) / BLOCK;
    size_t lists = (size_t)((double)(heads * blocks * blocks) * kn_pass_attention_expected(a)) * sizeof(kn_attn_run);
    if (a->windows.ranges) return bytes + layers * lists;
    bool own = looks_at_tensors(p->attention), full = p->dual && looks_at_tensors(p->full_attention);
    if (!own && !full) return bytes;
    size_t planners = 1;
    if (p->reuse_lists > 1) planners = layers * (size_t)((own ? 2 : 0) + (full ? 2 : 0));
    size_t map = blocks * blocks * sizeof(float) + 2 * blocks * (size_t)a->dit->head_dim * sizeof(double);
    return bytes + planners * (lists + map + 2 * tokens * heads * sizeof(int32_t));
}

/* "; the first 2 steps and the first layer dense" */
static void tell_dense_parts(const kn_pass *p, char *text, size_t size)
{
    char parts[2][40] = {"", ""};
    const int64_t counts[] = {p->dense_steps, p->dense_layers};
    static const char *const names[] = {"step", "layer"};
    text[0] = '\0';
    for (int i = 0; i < 2; i++) {
        if (counts[i] == 1) snprintf(parts[i], sizeof parts[i], "the first %s", names[i]);
        if (counts[i] > 1) snprintf(parts[i], sizeof parts[i], "the first %lld %ss", (long long)counts[i], names[i]);
    }
    if (parts[0][0] || parts[1][0])
        snprintf(text, size, "; %s%s%s dense", parts[0], parts[0][0] && parts[1][0] ? " and " : "", parts[1]);
}

const char *kn_pass_attention_text(const kn_pass_attention *a, char buf[KN_ATTENTION_TEXT])
{
    const kn_pass *p = a->pass;
    const int *t = a->layout.tile;
    char more[96];
    tell_dense_parts(p, more, sizeof more);
    if (p->attention == KN_ATTENTION_DENSE) snprintf(buf, KN_ATTENTION_TEXT, "dense");
    else if (p->attention == KN_ATTENTION_WINDOW)
        snprintf(buf, KN_ATTENTION_TEXT, "window %dx%d tokens (%.1f%% of dense), %s %dx%dx%d%s", p->window[1], p->window[0],
                 100 * a->plan->density, a->runs ? "runs in the order of tiles" : "tiles", t[0], t[1], t[2], more);
    else if (a->windows.ranges)
        snprintf(buf, KN_ATTENTION_TEXT, "tile3d (%.1f%% of dense, windows by layer and head), tiles %dx%dx%d%s",
                 100 * kn_pass_attention_expected(a), t[0], t[1], t[2], more);
    else if (a->plan)
        snprintf(buf, KN_ATTENTION_TEXT, "%s (%.1f%% of dense), tiles %dx%dx%d%s", kn_attention_name(p->attention),
                 100 * a->plan->density, t[0], t[1], t[2], more);
    else if (p->attention == KN_ATTENTION_DRAFT)
        snprintf(buf, KN_ATTENTION_TEXT, "draft, %.1f%% of %dx%dx%d tiles%s%s", 100 * p->density, t[0], t[1], t[2],
                 p->within_density ? "" : " and the forced ones", more);
    else if (p->mass <= 0)
        snprintf(buf, KN_ATTENTION_TEXT, "%s, %.1f%% of the blocks, tiles %dx%dx%d%s", kn_attention_name(p->attention),
                 100 * p->density, t[0], t[1], t[2], more);
    else
        snprintf(buf, KN_ATTENTION_TEXT, "%s, blocks with %.1f%% of the weight, tiles %dx%dx%d%s", kn_attention_name(p->attention),
                 100 * p->mass, t[0], t[1], t[2], more);
    return buf;
}
