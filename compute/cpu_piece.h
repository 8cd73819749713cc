/* compute/cpu_piece.h - a piece of a matrix product or convolution by own kernels.
 *
 * Purpose   Some lines of rows (tokens, or the pixels of image lines) against a range of columns,
 *           cut into strips, weight panels and blocks of K for the kernel in cpu_strip.h.
 * Order     Blocks of K are added one after another; their sizes depend on the shape only. Pieces
 *           are independent of each other.
 */
#ifndef KN_COMPUTE_CPU_PIECE_H
#define KN_COMPUTE_CPU_PIECE_H

#include "compute/cpu.h"

enum { KN_CPU_MAX_SEGMENTS = 64 };

typedef struct kn_cpu_piece {
    const kn_cpu_kernels *kernels;
    const float *x;      /* row 0 of line 0 */
    int64_t x_pitch;     /* floats from row to row of a line */
    int64_t x_line;      /* from line to line */
    int64_t lines, rows; /* rows of each line */
    int segments;        /* of `length` values at x + segment[s]; none: bias and residual only */
    int64_t segment[KN_CPU_MAX_SEGMENTS], length;
    const float *w;                    /* packed in panels */
    int64_t w_first, depth;            /* place of segment 0 in K, and all of K */
    int64_t columns;                   /* of the weight */
    int64_t first_column, last_column; /* of this piece; the first is a multiple of a panel */
    float *out;                        /* row 0 of line 0, column 0 */
    int64_t out_pitch, out_line;
    const float *residual, *bias; /* or NULL; as out, may be out; [columns] */
    int64_t residual_pitch, residual_line;
    float *scratch; /* linear: [rows, columns + 256], for the rows' sums and part of x; else NULL */
} kn_cpu_piece;

/* Width of the panel that starts at column n: two vectors, or one when that holds the rest. */
static inline int kn_cpu_panel_width(int64_t columns, int64_t n, int lanes)
{
    return columns - n > lanes ? 2 * lanes : lanes;
}

void kn_cpu_piece_run(const kn_cpu_piece *p);

#endif
