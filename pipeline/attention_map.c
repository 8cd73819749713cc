#include "pipeline/attention_map.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/canvas.h"
#include "io/memory.h"
#include "io/text.h"

enum {
    BLOCK = 128,      /* keys per column: what executors take at once */
    MARGIN = 24,
    AXIS = 44,        /* room left of and below a square, for its axes */
    MOST_SQUARES = 4,
    FIELD_WIDTH = 1180 /* px that the rows of frames may take */
};

static const kn_rgb PAPER = 0xFFFFFF, INK = 0x1B1F24, QUIET = 0x6B7280, HIDDEN = 0xE7EAEE, FULL = 0x1F5FBF,
                    PARTIAL = 0xF2A33A, QUERY = 0xD81E3A, EDGE = 0x9AA3AD;

static kn_rgb mix(kn_rgb a, kn_rgb b, double share)
{
    kn_rgb out = 0;
    for (int shift = 16; shift >= 0; shift -= 8) {
        double x = (a >> shift & 255) * (1 - share) + (b >> shift & 255) * share;
        out |= (kn_rgb)(x + 0.5) << shift;
    }
    return out;
}

/* ---- block mask -------------------------------------------------------------------------------*/

/* Shares of the keys of a square's blocks that are listed in full runs and in runs with a rule. */
typedef struct share {
    float full, partial;
} share;

typedef struct mask {
    const kn_attn_plan *plan;
    int64_t rows, columns;
    int side_px; /* of a square */
    share *cell; /* [rows][columns] of the list set at hand */
} mask;

static void fill_cells(mask *m, int set)
{
    const kn_attn_plan *p = m->plan;
    memset(m->cell, 0, (size_t)(m->rows * m->columns) * sizeof *m->cell);
    for (int64_t b = 0; b < m->rows; b++) {
        int64_t row = set * p->q_blocks + b;
        for (int64_t i = p->row_ptr[row]; i < p->row_ptr[row + 1]; i++) {
            const kn_attn_run *run = &p->runs[i];
            for (int64_t from = run->key, end = from + run->count; from < end;) {
                int64_t column = from / BLOCK, first = column * BLOCK, next = first + BLOCK;
                int64_t keys = (next < p->tokens ? next : p->tokens) - first;
                int64_t stop = end < next ? end : next;
                share *s = &m->cell[b * m->columns + column];
                *(run->rule < 0 ? &s->full : &s->partial) += (float)(stop - from) / (float)keys;
                from = stop;
            }
        }
    }
}

/* Mean over the cells that fall into a pixel; several pixels may show one cell. */
static kn_rgb pixel(const mask *m, int y, int x)
{
    int64_t r0 = y * m->rows / m->side_px, r1 = (y + 1) * m->rows / m->side_px;
    int64_t c0 = x * m->columns / m->side_px, c1 = (x + 1) * m->columns / m->side_px;
    double full = 0, partial = 0;
    if (r1 <= r0) r1 = r0 + 1;
    if (c1 <= c0) c1 = c0 + 1;
    for (int64_t r = r0; r < r1; r++)
        for (int64_t c = c0; c < c1; c++) {
            full += m->cell[r * m->columns + c].full;
            partial += m->cell[r * m->columns + c].partial;
        }
    double n = (double)((r1 - r0) * (c1 - c0)), seen = (full + partial) / n;
    if (seen <= 0) return HIDDEN;
    if (seen > 1) seen = 1;
    kn_rgb ink = mix(FULL, PARTIAL, partial / (full + partial));
    return mix(HIDDEN, ink, 0.35 + 0.65 * seen); /* a single block among many must still show */
}

/* Ticks at the quarters, with block numbers. */
static void draw_axes(kn_canvas *c, const mask *m, int x, int y)
{
    char text[24];
    for (int i = 0; i <= 4; i++) {
        int at = i * (m->side_px - 1) / 4;
        kn_canvas_fill(c, x - 5, y + at, 5, 1, INK);
        kn_canvas_fill(c, x + at, y + m->side_px, 1, 5, INK);
        snprintf(text, sizeof text, "%" PRId64, (m->columns - 1) * i / 4);
        int width = kn_canvas_text_width(1, text);
        kn_canvas_text(c, i == 0 ? x : i == 4 ? x + at - width + 2 : x + at - width / 2, y + m->side_px + 8, 1, INK, text);
        snprintf(text, sizeof text, "%" PRId64, (m->rows - 1) * i / 4);
        kn_canvas_text(c, x - 8 - kn_canvas_text_width(1, text), y + at - (i == 4 ? 6 : i == 0 ? 0 : 3), 1, INK, text);
    }
    kn_canvas_text(c, x + m->side_px / 2 - kn_canvas_text_width(1, "key blocks of 128") / 2, y + m->side_px + 24, 1, QUIET,
                   "key blocks of 128");
    kn_canvas_text_up(c, x - AXIS + 2, y + m->side_px / 2 + kn_canvas_text_width(1, "query blocks") / 2, 1, QUIET,
                      "query blocks");
}

static void draw_square(kn_canvas *c, const mask *m, int x, int y)
{
    for (int i = 0; i < m->side_px; i++)
        for (int j = 0; j < m->side_px; j++) kn_canvas_fill(c, x + j, y + i, 1, 1, pixel(m, i, j));
    kn_canvas_frame(c, x - 1, y - 1, m->side_px + 2, m->side_px + 2, EDGE);
    draw_axes(c, m, x, y);
}

/* ---- receptive field --------------------------------------------------------------------------*/

typedef struct field {
    const kn_attn_plan *plan;
    int scale;      /* px per token */
    int per_row;    /* frames side by side */
    int width, height; /* of one frame's cell, with its label */
    int64_t query;  /* as stored; -1: there is none */
    int at[3];
} field;

static field plan_field(const kn_attention_map *map)
{
    const kn_attn_plan *p = map->plan;
    field f = {.plan = p, .query = -1};
    for (f.scale = 8; f.scale > 1; f.scale--) { /* the largest that takes at most three rows */
        int fits = FIELD_WIDTH / (p->grid[2] * f.scale + 12);
        if (fits >= 1 && (p->grid[0] + fits - 1) / fits <= 3 && p->grid[1] * f.scale <= 320) break;
    }
    f.width = p->grid[2] * f.scale + 12;
    if (f.width < 42) f.width = 42;
    f.height = p->grid[1] * f.scale + 24;
    f.per_row = FIELD_WIDTH / f.width > 0 ? FIELD_WIDTH / f.width : 1;
    for (int a = 0; a < 3; a++) f.at[a] = map->has_query ? map->query[a] : p->grid[a] / 2;
    for (int64_t i = 0; i < p->tokens && f.query < 0; i++) {
        const int16_t *pos = p->pos + 3 * i;
        if (pos[0] == f.at[0] && pos[1] == f.at[1] && pos[2] == f.at[2]) f.query = i;
    }
    return f;
}

static int field_rows(const field *f)
{
    return (f->plan->grid[0] + f->per_row - 1) / f->per_row;
}

static void draw_frames(kn_canvas *c, const field *f, const uint8_t *seen, int x, int y)
{
    const int *g = f->plan->grid;
    for (int t = 0; t < g[0]; t++) {
        int left = x + t % f->per_row * f->width, top = y + t / f->per_row * f->height;
        char label[16];
        snprintf(label, sizeof label, "t=%d", t);
        kn_canvas_text(c, left, top, 1, t == f->at[0] ? QUERY : QUIET, label);
        top += 11;
        for (int h = 0; h < g[1]; h++)
            for (int w = 0; w < g[2]; w++)
                kn_canvas_fill(c, left + w * f->scale, top + h * f->scale, f->scale, f->scale,
                               seen[((int64_t)t * g[1] + h) * g[2] + w] ? FULL : HIDDEN);
        if (t == f->at[0]) {
            int dot = f->scale < 6 ? 6 : f->scale;
            int dx = left + f->at[2] * f->scale + f->scale / 2 - dot / 2;
            int dy = top + f->at[1] * f->scale + f->scale / 2 - dot / 2;
            kn_canvas_fill(c, dx - 1, dy - 1, dot + 2, dot + 2, PAPER);
            kn_canvas_fill(c, dx, dy, dot, dot, QUERY);
        }
        kn_canvas_frame(c, left - 1, top - 1, g[2] * f->scale + 2, g[1] * f->scale + 2, EDGE);
    }
}

/* ---- the sheet --------------------------------------------------------------------------------*/

static int legend_entry(kn_canvas *c, int x, int y, kn_rgb colour, const char *text)
{
    kn_canvas_fill(c, x, y, 14, 14, colour);
    kn_canvas_frame(c, x, y, 14, 14, EDGE);
    return kn_canvas_text(c, x + 20, y, 2, INK, text) + 18;
}

/* What fits in the width goes into each line. */
static int words(kn_canvas *c, int x, int y, int scale, kn_rgb colour, const char *text)
{
    size_t most = (size_t)((c->width_px - 2 * x) / (6 * scale));
    while (*text) {
        size_t n = strlen(text);
        if (n > most) {
            n = most;
            while (n > 1 && text[n] != ' ') n--;
            if (n <= 1) n = most;
        }
        char line[256];
        snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), text);
        kn_canvas_text(c, x, y, scale, colour, line);
        y += 10 * scale;
        text += n;
        text += strspn(text, " ");
    }
    return y;
}

static void describe(const kn_attention_map *map, char *text, size_t size)
{
    const kn_attn_plan *p = map->plan;
    kn_attn_plan_stats s;
    kn_attn_plan_count(p, BLOCK, BLOCK, &s);
    bool host = map->host_dim > 0;
    double cost = host ? kn_attn_plan_host_cost(p, map->host_dim) : s.executed;
    snprintf(text, size, "density %.2f%%, executed %s: %.2f%% (%.2f x). %" PRId64 " tokens on %d x %d x %d (t, h, w); per query block %.0f to %.0f key blocks, mean %.1f.",
             100 * s.density, host ? "by a CPU's vectors" : "in blocks of 128", 100 * cost, cost / s.density, p->tokens,
             p->grid[0], p->grid[1], p->grid[2], s.blocks_min, s.blocks_max, s.blocks_mean);
}

static kn_status draw(kn_canvas *c, const kn_attention_map *map, mask *m, const field *f, int squares, uint8_t *seen)
{
    const kn_attn_plan *p = map->plan;
    char text[320];
    int y = words(c, MARGIN, MARGIN, 2, INK, map->title);
    describe(map, text, sizeof text);
    y = words(c, MARGIN, y + 2, 2, QUIET, text) + 8;
    int x = legend_entry(c, MARGIN, y, FULL, "all keys of the block");
    x = legend_entry(c, x, y, PARTIAL, "keys masked one by one");
    x = legend_entry(c, x, y, HIDDEN, "not read");
    legend_entry(c, x, y, QUERY, "the query");
    y += 34;
    for (int i = 0; i < squares; i++) {
        int left = MARGIN + AXIS + i * (m->side_px + AXIS + MARGIN);
        fill_cells(m, squares > 1 ? map->head + i : p->heads > 1 ? map->head : 0);
        if (p->heads > 1)
            snprintf(text, sizeof text, "head %d", map->head + i);
        else
            snprintf(text, sizeof text, "block mask, the same for all heads");
        kn_canvas_text(c, left, y, 1, INK, text);
        draw_square(c, m, left, y + 12);
    }
    y += 12 + m->side_px + AXIS + 10;
    snprintf(text, sizeof text, "what the query at t=%d h=%d w=%d sees on the latent frames%s", f->at[0], f->at[1], f->at[2],
             p->heads > 1 ? " (first head shown)" : "");
    kn_canvas_text(c, MARGIN, y, 2, INK, text);
    KN_TRY(kn_attn_plan_field(p, p->heads > 1 || p->perm_heads > 1 ? map->head : 0, f->query, seen));
    draw_frames(c, f, seen, MARGIN, y + 24);
    c->height_px = y + 24 + field_rows(f) * f->height + MARGIN / 2; /* what was not needed goes */
    return KN_OK;
}

kn_status kn_attention_map_write(const kn_attention_map *map, const char *path)
{
    const kn_attn_plan *p = map->plan;
    if (!p->pos) return kn_fail(KN_ERR_ARG, "attention map: the plan has no grid to draw on");
    field f = plan_field(map);
    if (f.query < 0)
        return kn_fail(KN_ERR_ARG, "--attention-query: expected t, h, w below %d, %d, %d, found %d,%d,%d", p->grid[0], p->grid[1],
                       p->grid[2], f.at[0], f.at[1], f.at[2]);
    int sets = p->heads - map->head, squares = sets < 1 ? 1 : sets < MOST_SQUARES ? sets : MOST_SQUARES;
    mask m = {.plan = p, .rows = p->q_blocks, .columns = (p->tokens + BLOCK - 1) / BLOCK};
    m.side_px = squares == 1 ? 640 : squares == 2 ? 500 : (FIELD_WIDTH + MARGIN) / squares - AXIS - MARGIN;
    kn_canvas c = {0};
    void *cells = NULL, *seen = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_array((size_t)(m.rows * m.columns), sizeof *m.cell, &cells));
    KN_TRY_GOTO(kn_alloc((size_t)kn_grid_tokens(p->grid), &seen));
    m.cell = cells;
    KN_TRY_GOTO(kn_canvas_build(FIELD_WIDTH + 2 * MARGIN,
                                320 + m.side_px + AXIS + field_rows(&f) * f.height, PAPER, &c));
    KN_TRY_GOTO(draw(&c, map, &m, &f, squares, seen));
    KN_TRY_GOTO(kn_canvas_write(&c, path));
done:
    kn_canvas_free(&c);
    kn_free(cells);
    kn_free(seen);
    return KN_CTX(st, "drawing the attention map %s", path);
}

kn_status kn_attention_query_parse(const char *text, int query[3])
{
    const char *at = text;
    for (int a = 0; a < 3; a++) {
        char item[16];
        int64_t v;
        size_t n = strcspn(at, ",");
        snprintf(item, sizeof item, "%.*s", (int)n, at);
        if (n >= sizeof item || (at[n] == ',') != (a < 2) || !kn_text_to_int(item, &v) || v < 0 || v > 32767)
            return kn_fail(KN_ERR_ARG, "--attention-query: expected T,H,W in tokens, such as 2,10,15, found '%s'", text);
        query[a] = (int)v;
        at += n + (a < 2);
    }
    return KN_OK;
}
