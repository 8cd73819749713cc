#include "pipeline/debug_sheet.h"

#include <stdio.h>
#include <string.h>

#include "io/memory.h"

enum { GAP = 12, TEXT = 36, HEADING = 16 };

static double number(const json_t *step, const char *key)
{
    const json_t *v = json_object_get(step, key);
    return json_is_number(v) ? json_number_value(v) : -1;
}

kn_status kn_debug_sheet_add(kn_debug_sheet *s, const char *pass, const json_t *step, const float *rgb, int width_px,
                             int height_px)
{
    void *memory;
    int shrink = (width_px + KN_SHEET_PICTURE_PX - 1) / KN_SHEET_PICTURE_PX;
    KN_TRY(kn_alloc_zero(sizeof(kn_sheet_cell), &memory));
    kn_sheet_cell *cell = memory;
    *(s->last ? &s->last->next : &s->first) = cell;
    s->last = cell;
    snprintf(cell->pass, sizeof cell->pass, "%s", pass);
    snprintf(cell->line[0], sizeof cell->line[0], "step %.0f, sigma %.3f", number(step, "step"), number(step, "sigma"));
    snprintf(cell->line[1], sizeof cell->line[1], "%.2f s, density %.1f%%", number(step, "seconds"), 100 * number(step, "density"));
    if (number(step, "recall") >= 0)
        snprintf(cell->line[2], sizeof cell->line[2], "recall %.1f%%", 100 * number(step, "recall"));
    KN_TRY(kn_canvas_build(width_px / shrink > 0 ? width_px / shrink : 1, height_px / shrink > 0 ? height_px / shrink : 1, 0,
                           &cell->picture));
    kn_canvas_picture(&cell->picture, 0, 0, rgb, width_px, height_px, shrink);
    return KN_OK;
}

void kn_debug_sheet_free(kn_debug_sheet *s)
{
    while (s->first) {
        kn_sheet_cell *cell = s->first;
        s->first = cell->next;
        kn_canvas_free(&cell->picture);
        kn_free(cell);
    }
    *s = (kn_debug_sheet){0};
}

/* Cells of one pass from `cell` on. */
static int cells_of_pass(const kn_sheet_cell *cell)
{
    int n = 0;
    for (const kn_sheet_cell *c = cell; c && strcmp(c->pass, cell->pass) == 0; c = c->next) n++;
    return n;
}

/* Is cell i of n drawn, and in which column? -1: no. */
static int column_of(int i, int n)
{
    if (n <= KN_SHEET_COLUMNS) return i;
    for (int c = 0; c < KN_SHEET_COLUMNS; c++)
        if (c * (n - 1) / (KN_SHEET_COLUMNS - 1) == i) return c;
    return -1;
}

static int row_height(const kn_sheet_cell *cell)
{
    return HEADING + cell->picture.height_px + TEXT + GAP;
}

static void paste(kn_canvas *c, int x, int y, const kn_canvas *from)
{
    for (int i = 0; i < from->height_px && y + i < c->height_px; i++)
        memcpy(c->rgb + ((size_t)(y + i) * (size_t)c->width_px + (size_t)x) * 3,
               from->rgb + (size_t)i * (size_t)from->width_px * 3, (size_t)from->width_px * 3);
}

static void draw_cell(kn_canvas *c, const kn_sheet_cell *cell, int x, int y)
{
    paste(c, x, y, &cell->picture);
    y += cell->picture.height_px + 4;
    for (int i = 0; i < KN_SHEET_LINES; i++) kn_canvas_text(c, x, y + 10 * i, 1, 0x1B1F24, cell->line[i]);
}

kn_status kn_debug_sheet_write(const kn_debug_sheet *s, const char *title, const char *path)
{
    enum { WIDTH = GAP + KN_SHEET_COLUMNS * (KN_SHEET_PICTURE_PX + GAP), TOP = 40 };
    int height = TOP, i = 0, n = 0;
    kn_canvas c;
    for (const kn_sheet_cell *cell = s->first; cell; cell = cell->next, i++) {
        if (i == n) i = 0, n = cells_of_pass(cell);
        if (i == 0) height += row_height(cell);
    }
    KN_TRY(kn_canvas_build(WIDTH, height, 0xFFFFFF, &c));
    kn_canvas_text(&c, GAP, GAP, 2, 0x1B1F24, title);
    int y = TOP;
    i = n = 0;
    for (const kn_sheet_cell *cell = s->first; cell; cell = cell->next, i++) {
        if (i == n) i = 0, n = cells_of_pass(cell);
        if (i == 0) {
            char text[80];
            snprintf(text, sizeof text, "%s: what the network took the middle frame for", cell->pass);
            kn_canvas_text(&c, GAP, y, 1, 0x6B7280, text);
        }
        int column = column_of(i, n);
        if (column >= 0) draw_cell(&c, cell, GAP + column * (KN_SHEET_PICTURE_PX + GAP), y + HEADING);
        if (i == n - 1) y += row_height(cell);
    }
    kn_status st = kn_canvas_write(&c, path);
    kn_canvas_free(&c);
    return st;
}
