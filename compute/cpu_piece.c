/* compute/cpu_piece.c - blocks, panels and strips of a piece; see cpu_piece.h.
 *
 * K is cut into blocks of at most K_BLOCK values, so that a block of one weight panel stays in the
 * L1 cache while the strips of the piece run over it.
 */
#include "compute/cpu_piece.h"

#include <string.h>

enum {
    K_BLOCK = 320, /* 40 KiB of a panel of 32 columns */
    K_SPLIT = 256  /* longer segments are cut into equal parts of at most this */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows of the i-th of n strips that share `rows` evenly. */
static int64_t strip_begin(int64_t rows, int64_t n, int64_t i)
{
    return rows * i / n;
}

/* One block of K for all panels, lines and strips. s: x, out and sum of row 0, line 0, column
 * p->first_column; bias and residual go in with the first block. */
static void run_block(const kn_cpu_piece *p, const kn_strip *s, int64_t out_line, int64_t w_offset)
{
    int lanes = p->kernels->lanes;
    int64_t strips = (p->rows + p->kernels->strip_rows - 1) / p->kernels->strip_rows;
    for (int64_t n = p->first_column; n < p->last_column; n += 2 * lanes) {
        int64_t column = n - p->first_column;
        kn_strip one = *s;
        one.cols = (int)least(p->last_column - n, 2 * lanes);
        one.w = p->w + n * p->depth +
                (p->w_first + w_offset) * kn_cpu_panel_width(p->columns, n, lanes);
        if (p->bias && !s->sum) one.bias = p->bias + n;
        for (int64_t line = 0; line < p->lines; line++)
            for (int64_t i = 0; i < strips; i++) {
                int64_t row = strip_begin(p->rows, strips, i);
                one.rows = (int)(strip_begin(p->rows, strips, i + 1) - row);
                one.x = s->x + line * p->x_line + row * s->x_pitch;
                one.out = s->out + line * out_line + row * s->out_pitch + column;
                if (s->sum)
                    one.sum = s->sum + line * out_line + row * s->sum_pitch + column;
                else if (p->residual)
                    one.residual =
                        p->residual + line * p->residual_line + row * p->residual_pitch + n;
                p->kernels->strip(&one);
            }
    }
}

/* Segments of at most K_BLOCK values, some at a time; sums so far are kept in out. */
static void run_segments(const kn_cpu_piece *p, kn_strip *s)
{
    int group = p->length ? (int)(K_BLOCK / p->length) : 1;
    for (int g = 0; g < p->segments || g == 0; g += group) { /* none: bias and residual remain */
        s->segment = p->segment + g;
        s->segments = (int)least(p->segments - g, group);
        run_block(p, s, p->out_line, g * p->length);
        s->sum = s->out;
        s->sum_pitch = s->out_pitch;
    }
}

/* Part of a segment at a time. */
static void run_split_segments(const kn_cpu_piece *p, kn_strip *s)
{
    int64_t parts = (p->length + K_SPLIT - 1) / K_SPLIT;
    for (int g = 0; g < p->segments; g++)
        for (int64_t i = 0; i < parts; i++) {
            int64_t begin = p->length * i / parts, offset = p->segment[g] + begin;
            s->segment = &offset;
            s->segments = 1;
            s->length = p->length * (i + 1) / parts - begin;
            run_block(p, s, p->out_line, g * p->length + begin);
            s->sum = s->out;
            s->sum_pitch = s->out_pitch;
        }
    s->segment = NULL; /* it was a local's address */
}

/* One long segment and one line: a matrix product. Rows that lie far apart compete for few sets of
 * the caches, so the part of x in use and the sums are kept side by side in scratch. */
static void run_packed(const kn_cpu_piece *p, kn_strip *s)
{
    int64_t parts = (p->length + K_SPLIT - 1) / K_SPLIT, offset = 0,
            columns = p->last_column - p->first_column;
    float *sums = p->scratch, *x = sums + p->rows * columns;
    s->segment = &offset;
    s->segments = 1;
    s->x = x;
    s->out_pitch = s->sum_pitch = columns;
    for (int64_t i = 0; i < parts; i++) {
        int64_t begin = p->length * i / parts;
        s->length = s->x_pitch = p->length * (i + 1) / parts - begin;
        for (int64_t r = 0; r < p->rows; r++)
            memcpy(x + r * s->length, p->x + r * p->x_pitch + begin,
                   (size_t)s->length * sizeof(float));
        s->out = sums;
        if (i == parts - 1) {
            s->out = p->out + p->first_column;
            s->out_pitch = p->out_pitch;
        }
        run_block(p, s, 0, begin);
        s->sum = sums;
    }
    s->segment = NULL;
}

void kn_cpu_piece_run(const kn_cpu_piece *p)
{
    kn_strip s = {.x = p->x,
                  .x_pitch = p->x_pitch,
                  .length = p->length,
                  .out = p->out + p->first_column,
                  .out_pitch = p->out_pitch,
                  .residual_pitch = p->residual_pitch};
    if (p->length <= K_BLOCK)
        run_segments(p, &s);
    else if (p->scratch)
        run_packed(p, &s);
    else
        run_split_segments(p, &s);
}
