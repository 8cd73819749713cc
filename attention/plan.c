/* Plans: making, checking, counting, and looking at them. */
#include "attention/plan.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "io/memory.h"

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- making -----------------------------------------------------------------------------------*/

void kn_attn_plan_free(kn_attn_plan **plan)
{
    kn_attn_plan *p = *plan;
    *plan = NULL;
    if (!p) return;
    kn_free(p->q_start);
    kn_free(p->row_ptr);
    kn_free(p->runs);
    kn_free(p->perm_q);
    kn_free(p->perm_k);
    kn_free(p->pos);
    kn_free(p->dilation);
    kn_free(p->bounds);
    kn_free(p);
}

/* Query blocks that n tokens are cut into, evenly. */
static int64_t cuts(int64_t n, int block)
{
    return ceil_div(n, block);
}

static int64_t cut_blocks(int32_t *q_start, int64_t at, int64_t start, int64_t n, int block)
{
    int64_t parts = cuts(n, block);
    for (int64_t i = 0; i < parts; i++) q_start[at + i] = (int32_t)(start + n * i / parts);
    return at + parts;
}

/* Blocks of the query tiles, then of the text, so that no block holds both. */
static kn_status make_blocks(kn_attn_plan *p, const kn_attn_plan_params *params, const int tile[3])
{
    const int *grid = p->grid;
    int64_t tiles = kn_grid_tiles(grid, tile), blocks = cuts(params->layout.text, params->block);
    for (int64_t i = 0; i < tiles; i++)
        blocks += cuts(kn_grid_tile(grid, tile, i).count, params->block);
    KN_TRY(kn_alloc_array((size_t)blocks + 1, sizeof *p->q_start, (void **)&p->q_start));
    int64_t at = 0;
    for (int64_t i = 0; i < tiles; i++) {
        kn_grid_box b = kn_grid_tile(grid, tile, i);
        at = cut_blocks(p->q_start, at, b.start, b.count, params->block);
    }
    at = cut_blocks(p->q_start, at, kn_grid_tokens(grid), params->layout.text, params->block);
    p->q_start[at] = (int32_t)p->tokens;
    p->q_blocks = at;
    return KN_OK;
}

static kn_status make_positions(kn_attn_plan *p, const kn_attn_layout *layout)
{
    const int *grid = p->grid;
    KN_TRY(kn_alloc_array((size_t)p->tokens * 3, sizeof *p->pos, (void **)&p->pos));
    int64_t tiles = kn_grid_tiles(grid, layout->tile);
    for (int64_t i = 0; i < tiles; i++) {
        kn_grid_box b = kn_grid_tile(grid, layout->tile, i);
        for (int64_t j = 0; j < b.count; j++) {
            int16_t *at = p->pos + 3 * (b.start + j);
            at[0] = (int16_t)(b.lo[0] + j / ((int64_t)b.len[1] * b.len[2]));
            at[1] = (int16_t)(b.lo[1] + j / b.len[2] % b.len[1]);
            at[2] = (int16_t)(b.lo[2] + j % b.len[2]);
        }
    }
    for (int64_t i = 3 * kn_grid_tokens(grid); i < 3 * p->tokens; i++) p->pos[i] = -1;
    return KN_OK;
}

/* perm_q that gathers stored tokens in the order of another tile. */
static kn_status make_query_order(kn_attn_plan *p, const kn_attn_layout *layout, const int tile[3])
{
    int64_t n = kn_grid_tokens(p->grid);
    void *stored = NULL, *slot = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_array((size_t)n, sizeof(int32_t), &stored));
    KN_TRY_GOTO(kn_alloc_array((size_t)n, sizeof(int32_t), &slot));
    KN_TRY_GOTO(kn_alloc_array((size_t)p->tokens, sizeof(int32_t), (void **)&p->perm_q));
    kn_grid_tile_order(p->grid, layout->tile, stored);
    kn_grid_invert(stored, n, slot);
    kn_grid_tile_order(p->grid, tile, p->perm_q);
    for (int64_t i = 0; i < n; i++) p->perm_q[i] = ((int32_t *)slot)[p->perm_q[i]];
    for (int64_t i = n; i < p->tokens; i++) p->perm_q[i] = (int32_t)i;
    p->perm_heads = 1;
done:
    kn_free(stored);
    kn_free(slot);
    return st;
}

static kn_status make_orders(kn_attn_plan *p, int perm_heads)
{
    size_t n = (size_t)perm_heads * (size_t)p->tokens;
    KN_TRY(kn_alloc_array(n, sizeof(int32_t), (void **)&p->perm_q));
    KN_TRY(kn_alloc_array(n, sizeof(int32_t), (void **)&p->perm_k));
    for (size_t i = 0; i < n; i++) p->perm_q[i] = p->perm_k[i] = (int32_t)(i % (size_t)p->tokens);
    p->perm_heads = perm_heads;
    return KN_OK;
}

static uint64_t next_stamp(void)
{
    static atomic_uint_fast64_t last;
    return atomic_fetch_add(&last, 1) + 1;
}

kn_status kn_attn_plan_open(const kn_attn_plan_params *params, kn_attn_plan **out)
{
    *out = NULL;
    kn_attn_layout layout = params->layout;
    kn_attn_plan *p = NULL;
    kn_status st;
    KN_TRY(kn_attn_layout_check(&layout));
    if (params->block < 1 || params->heads < 1 || params->perm_heads < 0 || params->rules < 0)
        return kn_fail(KN_ERR_ARG, "attention plan: block %d, heads %d, perm_heads %d, rules %d",
                       params->block, params->heads, params->perm_heads, params->rules);
    kn_attn_layout query = layout;
    if (params->query_tile) memcpy(query.tile, params->query_tile, sizeof query.tile);
    KN_TRY(kn_attn_layout_check(&query));
    KN_TRY(kn_alloc_zero(sizeof *p, (void **)&p));
    p->tokens = kn_grid_tokens(layout.grid) + layout.text;
    p->heads = params->heads;
    p->scale = params->scale;
    p->stamp = next_stamp();
    p->rules = params->rules;
    memcpy(p->grid, layout.grid, sizeof p->grid);
    KN_TRY_GOTO(make_blocks(p, params, query.tile));
    KN_TRY_GOTO(make_positions(p, &layout));
    if (params->perm_heads)
        KN_TRY_GOTO(make_orders(p, params->perm_heads));
    else if (memcmp(query.tile, layout.tile, sizeof query.tile) != 0)
        KN_TRY_GOTO(make_query_order(p, &layout, query.tile));
    size_t rows = (size_t)p->heads * (size_t)p->q_blocks;
    size_t sides = 2u * (size_t)(p->grid[0] + p->grid[1] + p->grid[2]);
    KN_TRY_GOTO(kn_alloc_array(rows + 1, sizeof *p->row_ptr, (void **)&p->row_ptr));
    KN_TRY_GOTO(kn_alloc_array((size_t)p->rules, sizeof *p->dilation, (void **)&p->dilation));
    KN_TRY_GOTO(kn_alloc_array((size_t)p->rules * sides, sizeof *p->bounds, (void **)&p->bounds));
    *out = p;
    p = NULL;
done:
    kn_attn_plan_free(&p);
    return st;
}

void kn_attn_plan_restart(kn_attn_plan *plan)
{
    plan->stamp = next_stamp();
    plan->rows = 0;
    plan->row_ptr[0] = plan->row_ptr[1] = 0;
}

/* While a row is being written its end is row_ptr[rows + 1]. */
kn_status kn_attn_plan_add(kn_attn_plan *p, int64_t key, int64_t count, int rule)
{
    int64_t *end = &p->row_ptr[p->rows + 1];
    if (*end > p->row_ptr[p->rows]) {
        kn_attn_run *last = &p->runs[*end - 1];
        if (last->rule == rule && (int64_t)last->key + last->count == key) {
            last->count += (int32_t)count;
            return KN_OK;
        }
    }
    if (*end == p->run_capacity) {
        int64_t capacity = p->run_capacity ? p->run_capacity * 2 : 1024;
        void *more;
        KN_TRY(kn_alloc_array((size_t)capacity, sizeof *p->runs, &more));
        if (*end) memcpy(more, p->runs, (size_t)*end * sizeof *p->runs);
        kn_free(p->runs);
        p->runs = more;
        p->run_capacity = capacity;
    }
    p->runs[(*end)++] = (kn_attn_run){(int32_t)key, (int32_t)count, rule};
    return KN_OK;
}

kn_status kn_attn_plan_end_row(kn_attn_plan *p)
{
    if (p->row_ptr[p->rows + 1] == p->row_ptr[p->rows])
        return kn_fail(KN_ERR_INTERNAL, "attention plan: row %lld has no keys", (long long)p->rows);
    p->rows++;
    if (p->rows < p->heads * p->q_blocks) p->row_ptr[p->rows + 1] = p->row_ptr[p->rows];
    return KN_OK;
}

kn_status kn_attn_plan_end_video_row(kn_attn_plan *p)
{
    int64_t text = kn_attn_plan_text_start(p);
    if (text < p->tokens) KN_TRY(kn_attn_plan_add(p, text, p->tokens - text, -1));
    return kn_attn_plan_end_row(p);
}

kn_status kn_attn_plan_add_text_rows(kn_attn_plan *p)
{
    for (int64_t b = kn_attn_plan_text_block(p); b < p->q_blocks; b++) {
        KN_TRY(kn_attn_plan_add(p, 0, p->tokens, -1));
        KN_TRY(kn_attn_plan_end_row(p));
    }
    return KN_OK;
}

int64_t kn_attn_plan_text_start(const kn_attn_plan *p)
{
    return kn_grid_tokens(p->grid);
}

int64_t kn_attn_plan_text_block(const kn_attn_plan *p)
{
    int64_t b = p->q_blocks;
    while (b > 0 && p->q_start[b - 1] >= kn_attn_plan_text_start(p)) b--;
    return b;
}

kn_status kn_attn_plan_fetch(const kn_attn_plan *p)
{
    return p->lists && p->rows == 0 && p->fetch ? p->fetch(p->planner) : KN_OK;
}

kn_status kn_attn_plan_dense(const kn_attn_layout *layout, int block, kn_attn_plan **out)
{
    kn_attn_plan_params params = {.layout = *layout, .block = block, .heads = 1};
    KN_TRY(kn_attn_plan_open(&params, out));
    kn_status st = KN_OK;
    for (int64_t b = 0; st == KN_OK && b < (*out)->q_blocks; b++) {
        st = kn_attn_plan_add(*out, 0, (*out)->tokens, -1);
        if (st == KN_OK) st = kn_attn_plan_end_row(*out);
    }
    (*out)->density = 1.0;
    if (st != KN_OK) kn_attn_plan_free(out);
    return st;
}

/* ---- checking ---------------------------------------------------------------------------------*/

#define BAD(...) kn_fail(KN_ERR_FORMAT, "attention plan: " __VA_ARGS__)

static kn_status check_sizes(const kn_attn_plan *p)
{
    if (p->tokens < 1 || p->tokens > INT32_MAX || p->heads < 1 || p->q_blocks < 1 ||
        p->q_blocks > p->tokens || p->perm_heads < 0 || p->rules < 0)
        return BAD("%lld tokens, %d heads, %lld query blocks, %d orders, %d rules",
                   (long long)p->tokens, p->heads, (long long)p->q_blocks, p->perm_heads, p->rules);
    if (!p->q_start || !p->row_ptr || !p->runs) return BAD("an array is missing");
    if (p->rules && (!p->pos || !p->dilation || !p->bounds)) return BAD("rules without positions");
    if ((p->perm_heads > 0) != (p->perm_q || p->perm_k))
        return BAD("orders do not match their count");
    for (int a = 0; a < 3; a++)
        if (p->grid[a] < (p->pos ? 1 : 0) || p->grid[a] > INT16_MAX)
            return BAD("grid %d x %d x %d", p->grid[0], p->grid[1], p->grid[2]);
    if (p->rows != p->heads * p->q_blocks)
        return BAD("%lld rows of %lld are written", (long long)p->rows,
                   (long long)(p->heads * p->q_blocks));
    if (!(p->density > 0 && p->density <= 1)) return BAD("density %g", p->density);
    if (!isfinite(p->scale)) return BAD("scale %g", (double)p->scale);
    return KN_OK;
}

static kn_status check_permutation(const int32_t *perm, int64_t n, const char *name, uint8_t *seen)
{
    memset(seen, 0, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        if (perm[i] < 0 || perm[i] >= n || seen[perm[i]])
            return BAD("%s[%lld] = %d is out of range or there twice", name, (long long)i, perm[i]);
        seen[perm[i]] = 1;
    }
    return KN_OK;
}

static kn_status check_geometry(const kn_attn_plan *p)
{
    for (int64_t i = 0; p->pos && i < p->tokens; i++) {
        const int16_t *at = p->pos + 3 * i;
        bool off = at[0] == -1 && at[1] == -1 && at[2] == -1, on = true;
        for (int a = 0; a < 3; a++) on &= at[a] >= 0 && at[a] < p->grid[a];
        if (!on && !off)
            return BAD("token %lld lies at %d, %d, %d", (long long)i, at[0], at[1], at[2]);
    }
    for (int r = 0; r < p->rules; r++)
        for (int a = 0; a < 3; a++) {
            const int32_t *lo = kn_attn_rule_lo(p, r, a), *len = kn_attn_rule_len(p, r, a);
            if (p->dilation[r][a] < 1) return BAD("rule %d has dilation %d", r, p->dilation[r][a]);
            for (int c = 0; c < p->grid[a]; c++)
                if (lo[c] < 0 || len[c] < 0 || lo[c] > p->grid[a] || len[c] > p->grid[a] - lo[c])
                    return BAD("rule %d shows %d keys from %d on axis %d", r, len[c], lo[c], a);
        }
    return KN_OK;
}

/* A rule needs coordinates of all its queries and keys. */
static kn_status check_on_grid(const kn_attn_plan *p, const int32_t *perm, int64_t first,
                               int64_t count, int64_t row)
{
    for (int64_t i = first; i < first + count; i++)
        if (p->pos[3 * (int64_t)(perm ? perm[i] : i)] < 0)
            return BAD("row %lld has a rule and token %lld is off the grid", (long long)row,
                       (long long)i);
    return KN_OK;
}

static kn_status check_row(const kn_attn_plan *p, int64_t row)
{
    int64_t begin = p->row_ptr[row], end = p->row_ptr[row + 1], next = 0;
    int64_t head = row / p->q_blocks, block = row % p->q_blocks;
    if (begin < 0 || end <= begin || end > p->run_capacity)
        return BAD("row %lld has runs %lld to %lld", (long long)row, (long long)begin,
                   (long long)end);
    bool has_rule = false;
    /* Shared lists are run in the order of every head: check them all. */
    int orders = p->perm_heads > 1 ? (p->heads > 1 ? 1 : p->perm_heads) : 1;
    for (int64_t i = begin; i < end; i++) {
        const kn_attn_run *r = &p->runs[i];
        if (r->key < next || r->count < 1 || r->count > p->tokens - r->key || r->rule < -1 ||
            r->rule >= p->rules)
            return BAD("row %lld: run of %d keys from %d with rule %d after key %lld",
                       (long long)row, r->count, r->key, r->rule, (long long)next - 1);
        next = (int64_t)r->key + r->count;
        if (r->rule < 0) continue;
        has_rule = true;
        for (int o = 0; o < orders; o++) {
            int64_t at = (p->perm_heads > 1 ? (p->heads > 1 ? head : o) : 0) * p->tokens;
            KN_TRY(check_on_grid(p, p->perm_k ? p->perm_k + at : NULL, r->key, r->count, row));
        }
    }
    for (int o = 0; has_rule && o < orders; o++) {
        int64_t at = (p->perm_heads > 1 ? (p->heads > 1 ? head : o) : 0) * p->tokens;
        KN_TRY(check_on_grid(p, p->perm_q ? p->perm_q + at : NULL, p->q_start[block],
                             p->q_start[block + 1] - p->q_start[block], row));
    }
    return KN_OK;
}

kn_status kn_attn_plan_check(const kn_attn_plan *p)
{
    KN_TRY(check_sizes(p));
    if (p->heads > 1 && p->perm_heads > 1 && p->heads != p->perm_heads)
        return BAD("lists for %d heads, orders for %d", p->heads, p->perm_heads);
    if (p->q_start[0] != 0 || p->q_start[p->q_blocks] != p->tokens)
        return BAD("query blocks run from %d to %d", p->q_start[0], p->q_start[p->q_blocks]);
    for (int64_t b = 0; b < p->q_blocks; b++)
        if (p->q_start[b] >= p->q_start[b + 1])
            return BAD("query block %lld runs from %d to %d", (long long)b, p->q_start[b],
                       p->q_start[b + 1]);
    KN_TRY(check_geometry(p));
    void *seen = NULL;
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_alloc((size_t)p->tokens, &seen));
    for (int h = 0; h < p->perm_heads; h++) {
        if (p->perm_q)
            KN_TRY_GOTO(check_permutation(p->perm_q + h * p->tokens, p->tokens, "perm_q", seen));
        if (p->perm_k)
            KN_TRY_GOTO(check_permutation(p->perm_k + h * p->tokens, p->tokens, "perm_k", seen));
    }
    if (p->row_ptr[0] != 0)
        KN_TRY_GOTO(BAD("the first row starts at run %lld", (long long)p->row_ptr[0]));
    for (int64_t row = 0; row < p->rows; row++) KN_TRY_GOTO(check_row(p, row));
done:
    kn_free(seen);
    return st;
}

/* ---- counting and pictures --------------------------------------------------------------------*/

double kn_attn_plan_listed(const kn_attn_plan *p)
{
    double pairs = 0;
    for (int64_t row = 0; row < p->rows; row++) {
        int64_t block = row % p->q_blocks, keys = 0;
        for (int64_t i = p->row_ptr[row]; i < p->row_ptr[row + 1]; i++) keys += p->runs[i].count;
        pairs += (double)keys * (p->q_start[block + 1] - p->q_start[block]);
    }
    return pairs / ((double)p->tokens * (double)p->tokens * p->heads);
}

void kn_attn_plan_count(const kn_attn_plan *p, int block_q, int block_k, kn_attn_plan_stats *out)
{
    double all = (double)p->tokens * (double)p->tokens * p->heads, executed = 0, ruled = 0, sum = 0;
    kn_attn_plan_stats s = {
        .runs = p->row_ptr[p->rows], .blocks_min = INFINITY, .density = p->density};
    for (int64_t row = 0; row < p->rows; row++) {
        int64_t block = row % p->q_blocks, queries = p->q_start[block + 1] - p->q_start[block];
        int64_t blocks = 0;
        for (int64_t i = p->row_ptr[row], end = p->row_ptr[row + 1]; i < end;) {
            int64_t first = p->runs[i].key, next = first;
            for (; i < end && p->runs[i].key == next; i++) {
                next += p->runs[i].count;
                if (p->runs[i].rule >= 0) ruled += (double)queries * p->runs[i].count;
            }
            blocks += ceil_div(next - first, block_k);
        }
        executed += (double)blocks * block_k * (double)(ceil_div(queries, block_q) * block_q);
        sum += (double)blocks;
        if ((double)blocks < s.blocks_min) s.blocks_min = (double)blocks;
        if ((double)blocks > s.blocks_max) s.blocks_max = (double)blocks;
    }
    s.blocks_mean = sum / (double)p->rows;
    s.listed = kn_attn_plan_listed(p);
    s.executed = executed / all;
    s.partial = ruled / all / s.listed;
    s.overhead = s.executed / s.density;
    *out = s;
}

static kn_status check_head(const kn_attn_plan *p, int head, int64_t query)
{
    int heads = p->heads > p->perm_heads ? p->heads : p->perm_heads;
    if (head < 0 || (heads > 1 && head >= heads) || query < 0 || query >= p->tokens)
        return kn_fail(KN_ERR_ARG, "attention plan: head %d, token %lld of %d heads, %lld tokens",
                       head, (long long)query, heads, (long long)p->tokens);
    return KN_OK;
}

kn_status kn_attn_plan_row(const kn_attn_plan *p, int head, int64_t query, uint8_t *visible)
{
    KN_TRY(check_head(p, head, query));
    int64_t order = (p->perm_heads > 1 ? head : 0) * p->tokens, at = query, block = 0;
    if (p->perm_q)
        for (at = 0; p->perm_q[order + at] != query;) at++;
    while (p->q_start[block + 1] <= at) block++;
    int64_t row = (p->heads > 1 ? head : 0) * p->q_blocks + block;
    memset(visible, 0, (size_t)p->tokens);
    for (int64_t i = p->row_ptr[row]; i < p->row_ptr[row + 1]; i++)
        for (int64_t j = p->runs[i].key, end = j + p->runs[i].count; j < end; j++) {
            int64_t key = p->perm_k ? p->perm_k[order + j] : j;
            int rule = p->runs[i].rule;
            visible[key] =
                rule < 0 || kn_attn_rule_sees(p, rule, p->pos + 3 * query, p->pos + 3 * key);
        }
    return KN_OK;
}

kn_status kn_attn_plan_field(const kn_attn_plan *p, int head, int64_t query, uint8_t *image)
{
    if (!p->pos) return kn_fail(KN_ERR_ARG, "attention plan: it has no grid to draw on");
    void *visible = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_alloc((size_t)p->tokens, &visible));
    KN_TRY_GOTO(kn_attn_plan_row(p, head, query, visible));
    memset(image, 0, (size_t)kn_grid_tokens(p->grid));
    for (int64_t i = 0; i < p->tokens; i++) {
        const int16_t *at = p->pos + 3 * i;
        if (at[0] >= 0 && ((uint8_t *)visible)[i])
            image[((int64_t)at[0] * p->grid[1] + at[1]) * p->grid[2] + at[2]] = 255;
    }
done:
    kn_free(visible);
    return st;
}
