#include "io/palette.h"

#include <stdlib.h>
#include <string.h>

#include "io/memory.h"

enum { CELL_BITS = 6, CELLS = 1 << (3 * CELL_BITS), UNKNOWN = 0xFFFF };

typedef struct cell {
    uint64_t count;
    uint64_t sum[3];
} cell;

/* A used cell's mean colour and weight. */
typedef struct point {
    double v[3], weight;
    int id;
} point;

/* points[begin..end) with their weighted mean and squared deviations. */
typedef struct box {
    int begin, end, axis;
    double mean[3], error; /* error: over the three axes; axis: the largest of them */
} box;

struct kn_palette {
    cell *cells;
    uint16_t *nearest; /* [CELLS] palette index, or UNKNOWN until first asked */
    int colors;
    uint8_t rgb[KN_PALETTE_COLORS][3];
};

kn_status kn_palette_new(kn_palette **out)
{
    void *p = NULL, *cells = NULL, *nearest = NULL;
    kn_status st;
    *out = NULL;
    KN_TRY_GOTO(kn_alloc_array(CELLS, sizeof(cell), &cells));
    KN_TRY_GOTO(kn_alloc_array(CELLS, sizeof(uint16_t), &nearest));
    KN_TRY_GOTO(kn_alloc_zero(sizeof(kn_palette), &p));
    *out = p;
    (*out)->cells = cells;
    (*out)->nearest = nearest;
    cells = nearest = NULL;
done:
    kn_free(cells);
    kn_free(nearest);
    return st;
}

void kn_palette_free(kn_palette **handle)
{
    if (!handle || !*handle) return;
    kn_free((*handle)->cells);
    kn_free((*handle)->nearest);
    kn_free(*handle);
    *handle = NULL;
}

static int cell_of(const uint8_t *rgb)
{
    enum { CUT = 8 - CELL_BITS };
    return (rgb[0] >> CUT) << (2 * CELL_BITS) | (rgb[1] >> CUT) << CELL_BITS | rgb[2] >> CUT;
}

void kn_palette_count(kn_palette *p, const uint8_t *rgb, int64_t pixels)
{
    for (int64_t i = 0; i < pixels; i++, rgb += 3) {
        cell *c = &p->cells[cell_of(rgb)];
        c->count++;
        for (int k = 0; k < 3; k++) c->sum[k] += rgb[k];
    }
}

/* ---- building -------------------------------------------------------------------------------- */

static void measure(const point *points, box *b)
{
    double weight = 0, sum[3] = {0}, square[3] = {0}, most = -1;
    for (int i = b->begin; i < b->end; i++) {
        weight += points[i].weight;
        for (int k = 0; k < 3; k++) sum[k] += points[i].weight * points[i].v[k];
    }
    for (int k = 0; k < 3; k++) b->mean[k] = sum[k] / weight;
    for (int i = b->begin; i < b->end; i++)
        for (int k = 0; k < 3; k++) {
            double d = points[i].v[k] - b->mean[k];
            square[k] += points[i].weight * d * d;
        }
    b->error = 0;
    for (int k = 0; k < 3; k++) {
        b->error += square[k];
        if (square[k] > most) {
            most = square[k];
            b->axis = k;
        }
    }
}

/* Points of b below its mean first; returns how many. Order among them is kept, so that the result
 * does not depend on a sorting library. */
static int partition(point *points, point *scratch, const box *b)
{
    int low = 0, high = 0;
    for (int i = b->begin; i < b->end; i++) {
        if (points[i].v[b->axis] < b->mean[b->axis])
            points[b->begin + low++] = points[i];
        else
            scratch[high++] = points[i];
    }
    memcpy(points + b->begin + low, scratch, (size_t)high * sizeof *points);
    return low;
}

static int split_boxes(point *points, point *scratch, int used, box boxes[KN_PALETTE_COLORS])
{
    int n = 1;
    boxes[0] = (box){.begin = 0, .end = used};
    measure(points, &boxes[0]);
    while (n < KN_PALETTE_COLORS) {
        int widest = 0;
        for (int i = 1; i < n; i++)
            if (boxes[i].error > boxes[widest].error) widest = i;
        box *b = &boxes[widest];
        int low = b->error > 0 ? partition(points, scratch, b) : 0;
        if (low == 0 || low == b->end - b->begin) break; /* every colour has its own entry */
        boxes[n] = (box){.begin = b->begin + low, .end = b->end};
        b->end = b->begin + low;
        measure(points, b);
        measure(points, &boxes[n++]);
    }
    return n;
}

kn_status kn_palette_build(kn_palette *p, uint32_t argb[256])
{
    kn_status st;
    void *points_p = NULL, *scratch_p = NULL;
    size_t used = 0;
    for (int i = 0; i < CELLS; i++) used += p->cells[i].count != 0;
    if (!used) return kn_fail(KN_ERR_INTERNAL, "a palette of no colours was asked for");
    KN_TRY_GOTO(kn_alloc_array(used, sizeof(point), &points_p));
    KN_TRY_GOTO(kn_alloc_array(used, sizeof(point), &scratch_p));
    point *points = points_p;
    int n = 0;
    for (int i = 0; i < CELLS; i++) {
        const cell *c = &p->cells[i];
        if (!c->count) continue;
        point *to = &points[n++];
        to->weight = (double)c->count;
        for (int k = 0; k < 3; k++) to->v[k] = (double)c->sum[k] / to->weight;
    }
    box boxes[KN_PALETTE_COLORS];
    p->colors = split_boxes(points, scratch_p, n, boxes);
    for (int i = 0; i < 256; i++) argb[i] = 0;
    for (int i = 0; i < p->colors; i++) {
        for (int k = 0; k < 3; k++) p->rgb[i][k] = (uint8_t)(boxes[i].mean[k] + 0.5);
        argb[i] =
            0xFF000000u | (uint32_t)p->rgb[i][0] << 16 | (uint32_t)p->rgb[i][1] << 8 | p->rgb[i][2];
    }
    for (int i = 0; i < CELLS; i++) p->nearest[i] = UNKNOWN;
done:
    kn_free(points_p);
    kn_free(scratch_p);
    return st;
}

/* ---- mapping --------------------------------------------------------------------------------- */

static int distance2(const uint8_t *a, const uint8_t *b)
{
    int dr = a[0] - b[0], dg = a[1] - b[1], db = a[2] - b[2];
    return dr * dr + dg * dg + db * db;
}

/* Entry nearest to the middle of rgb's cell. */
static int nearest_entry(kn_palette *p, const uint8_t *rgb)
{
    uint16_t *known = &p->nearest[cell_of(rgb)];
    if (*known != UNKNOWN) return *known;
    uint8_t middle[3];
    int best = 0, best_distance = INT32_MAX;
    for (int k = 0; k < 3; k++) middle[k] = (uint8_t)((rgb[k] & 0xFC) | 2);
    for (int i = 0; i < p->colors; i++) {
        int d = distance2(middle, p->rgb[i]);
        if (d < best_distance) {
            best_distance = d;
            best = i;
        }
    }
    *known = (uint16_t)best;
    return best;
}

/* Bayer's matrix from the bits of x and y: reversed interleaving of (x^y) and y. */
static int bayer(int x, int y)
{
    int v = 0;
    for (int bit = 0; bit < 3; bit++) {
        v = v << 1 | (((x ^ y) >> bit) & 1);
        v = v << 1 | ((y >> bit) & 1);
    }
    return v;
}

void kn_palette_map(kn_palette *p, const uint8_t *rgb, int width, int height, uint8_t *index,
                    int linesize)
{
    /* Dither of +-8 of 255, about half the spacing of 255 colours along an axis (6.3 per axis over
     * the cube: 40 apart, but clips use a small part of it). Colours within NEAR of an entry are
     * taken as they are, so that flat areas stay flat. */
    enum { NEAR = 12 };
    for (int y = 0; y < height; y++, index += linesize)
        for (int x = 0; x < width; x++, rgb += 3) {
            int entry = nearest_entry(p, rgb);
            if (distance2(rgb, p->rgb[entry]) > NEAR) {
                uint8_t moved[3];
                int delta = (bayer(x & 7, y & 7) - 32) / 4;
                for (int k = 0; k < 3; k++) {
                    int v = rgb[k] + delta;
                    moved[k] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
                }
                entry = nearest_entry(p, moved);
            }
            index[x] = (uint8_t)entry;
        }
}
