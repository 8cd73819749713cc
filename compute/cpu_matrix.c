/* compute/cpu_matrix.c - linear and conv on the cpu: packing of weights and splitting into strips.
 *
 * K, the summed axis, is cut into blocks of at most K_BLOCK values, so that a block of one weight panel
 * stays in the L1 cache while the strips of a piece run over it; the blocks' sums are added to the
 * output one after another. Pieces are independent, and their sizes come from shapes alone.
 */
#include "compute/cpu.h"

#include <string.h>

enum {
    K_BLOCK = 320, /* 40 KiB of a panel of 32 columns */
    K_SPLIT = 256  /* longer segments are cut into equal parts of at most this */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- packing ----------------------------------------------------------------------------------- */

/* Width of the panel that starts at column n: two vectors, or one when that holds the rest. */
static int panel_width(int64_t columns, int64_t n, int lanes)
{
    return columns - n > lanes ? 2 * lanes : lanes;
}

/* Columns with the last panel filled up: columns x K floats are held. */
static int64_t padded_columns(int64_t columns, int lanes)
{
    int64_t n = columns / (2 * lanes) * (2 * lanes);
    return n < columns ? n + panel_width(columns, n, lanes) : n;
}

size_t kn_cpu_packed_bytes(const kn_weight *w, int lanes)
{
    int64_t columns = w->t.dim[0], depth = kn_tensor_count(&w->t) / columns;
    return (size_t)(padded_columns(columns, lanes) * depth) * sizeof(float);
}

static float stored_value(const kn_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case KN_BF16: return kn_bf16_to_f32(((const uint16_t *)t->data)[i]);
    case KN_F16: return kn_f16_to_f32(((const uint16_t *)t->data)[i]);
    default: return ((const float *)t->data)[i];
    }
}

/* host [columns][channels][taps] -> panels of [taps][channels][panel width]; linear has one tap. */
void kn_cpu_pack(const kn_cpu_kernels *k, const kn_weight *w, const kn_tensor *host, float *dst)
{
    int64_t columns = w->t.dim[0], channels = w->t.dim[1];
    int64_t taps = kn_tensor_count(&w->t) / (columns * channels);
    for (int64_t n = 0; n < columns; n += 2 * k->lanes) {
        int width = panel_width(columns, n, k->lanes);
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t c = 0; c < channels; c++)
                for (int j = 0; j < width; j++)
                    *dst++ = n + j < columns
                                 ? stored_value(host, ((n + j) * channels + c) * taps + tap)
                                 : 0.0f;
    }
}

/* ---- a piece: some lines of rows against all panels of a range of columns ------------------------ */

enum { MAX_SEGMENTS = 64 };

typedef struct piece {
    const kn_cpu_kernels *kernels;
    const float *x;      /* row 0 of line 0 */
    int64_t x_pitch;     /* from row to row of a line */
    int64_t x_line;      /* from line to line */
    int64_t lines, rows; /* rows of each line */
    int segments;        /* of `length` values at x + segment[s] */
    int64_t segment[MAX_SEGMENTS], length;
    const float *w;      /* packed; w_first: place of segment 0 in K, of depth values in all */
    int64_t w_first, depth, columns, first_column, last_column;
    float *out;          /* row 0 of line 0, column 0 */
    int64_t out_pitch, out_line;
    const float *residual, *bias;
    int64_t residual_pitch, residual_line;
    float *scratch; /* linear: room for the rows' part of x and their sums; else NULL */
} piece;

/* Rows of the i-th of n strips that share `rows` evenly. */
static int64_t strip_begin(int64_t rows, int64_t n, int64_t i) { return rows * i / n; }

/* One block of K for all panels, lines and strips. s: x, out and sum of row 0, line 0, column
 * p->first_column; bias and residual go in with the first block. */
static void run_block(const piece *p, const kn_strip *s, int64_t out_line, int64_t w_offset)
{
    int lanes = p->kernels->lanes;
    int64_t strips = (p->rows + p->kernels->strip_rows - 1) / p->kernels->strip_rows;
    for (int64_t n = p->first_column; n < p->last_column; n += 2 * lanes) {
        int64_t column = n - p->first_column;
        kn_strip one = *s;
        one.cols = (int)least(p->last_column - n, 2 * lanes);
        one.w = p->w + n * p->depth + (p->w_first + w_offset) * panel_width(p->columns, n, lanes);
        if (p->bias && !s->sum) one.bias = p->bias + n;
        for (int64_t line = 0; line < p->lines; line++)
            for (int64_t i = 0; i < strips; i++) {
                int64_t row = strip_begin(p->rows, strips, i);
                one.rows = (int)(strip_begin(p->rows, strips, i + 1) - row);
                one.x = s->x + line * p->x_line + row * s->x_pitch;
                one.out = s->out + line * out_line + row * s->out_pitch + column;
                if (s->sum) one.sum = s->sum + line * out_line + row * s->sum_pitch + column;
                else if (p->residual)
                    one.residual = p->residual + line * p->residual_line + row * p->residual_pitch + n;
                p->kernels->strip(&one);
            }
    }
}

/* Segments of at most K_BLOCK values, some at a time; sums so far are kept in out. */
static void run_segments(const piece *p, kn_strip *s)
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
static void run_split_segments(const piece *p, kn_strip *s)
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
}

/* One long segment and one line: a matrix product. Rows that lie far apart compete for few sets of the
 * caches, so the part of x in use and the sums are kept side by side in scratch. */
static void run_packed(const piece *p, kn_strip *s)
{
    int64_t parts = (p->length + K_SPLIT - 1) / K_SPLIT, offset = 0, columns = p->last_column - p->first_column;
    float *sums = p->scratch, *x = sums + p->rows * columns;
    s->segment = &offset;
    s->segments = 1;
    s->x = x;
    s->out_pitch = s->sum_pitch = columns;
    for (int64_t i = 0; i < parts; i++) {
        int64_t begin = p->length * i / parts;
        s->length = s->x_pitch = p->length * (i + 1) / parts - begin;
        for (int64_t r = 0; r < p->rows; r++)
            memcpy(x + r * s->length, p->x + r * p->x_pitch + begin, (size_t)s->length * sizeof(float));
        s->out = sums;
        if (i == parts - 1) {
            s->out = p->out + p->first_column;
            s->out_pitch = p->out_pitch;
        }
        run_block(p, s, 0, begin);
        s->sum = sums;
    }
}

static void run_piece(const piece *p)
{
    kn_strip s = {.x = p->x, .x_pitch = p->x_pitch, .length = p->length, .out = p->out + p->first_column,
                  .out_pitch = p->out_pitch, .residual_pitch = p->residual_pitch};
    if (p->length <= K_BLOCK) run_segments(p, &s);
    else if (p->scratch) run_packed(p, &s);
    else run_split_segments(p, &s);
}

/* ---- linear ------------------------------------------------------------------------------------ */

typedef struct linear_job {
    kn_dev *dev;
    kn_rows x, out;
    const kn_weight *w;
    const float *bias;
    kn_activation act;
    int64_t rows_per_piece, columns_per_piece, column_pieces;
} linear_job;

/* Rows `begin` to `end` lie evenly; all columns of the piece. */
static void linear_span(const linear_job *j, int64_t begin, int64_t end, int64_t first, int64_t last)
{
    const kn_cpu_kernels *k = kn_cpu_of(j->dev);
    int64_t size = sizeof(float);
    piece p = {
        .kernels = k, .lines = 1, .rows = end - begin, .segments = 1, .length = j->x.width,
        .x = kn_row(&j->x, begin), .x_pitch = j->x.pitch[j->x.axes - 1] / size,
        .w = j->w->impl, .depth = j->x.width, .columns = j->out.width,
        .first_column = first, .last_column = last, .bias = j->bias,
        .out = kn_row(&j->out, begin), .out_pitch = j->out.pitch[j->out.axes - 1] / size,
        .scratch = kn_cpu_scratch(j->dev),
    };
    run_piece(&p);
    if (j->act != KN_ACT_NONE) {
        kn_row_run run = {.x = p.out + first, .out = p.out + first, .x_pitch = p.out_pitch,
                          .out_pitch = p.out_pitch, .rows = p.rows, .n = last - first};
        k->act(&run, j->act);
    }
}

static void linear_pieces(void *user, int64_t begin, int64_t end)
{
    const linear_job *j = user;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / j->column_pieces * j->rows_per_piece;
        int64_t last_row = row + j->rows_per_piece < j->out.count ? row + j->rows_per_piece : j->out.count;
        int64_t first = i % j->column_pieces * j->columns_per_piece;
        int64_t last = first + j->columns_per_piece < j->out.width ? first + j->columns_per_piece
                                                                   : j->out.width;
        if (j->x.axes == 1 && j->out.axes == 1)
            linear_span(j, row, last_row, first, last);
        else
            for (; row < last_row; row++) linear_span(j, row, row + 1, first, last);
    }
}

kn_status kn_cpu_linear(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                        kn_activation act, const kn_tensor *out)
{
    linear_job j = {.dev = d, .x = kn_rows_of(x), .out = kn_rows_of(out), .w = w,
                    .bias = bias ? bias->data : NULL, .act = act};
    /* Many rows: each panel of weights that is read serves many strips. Few: enough pieces for all
     * threads. Columns are multiples of every panel width. */
    bool many = j.out.count > 448;
    j.rows_per_piece = many ? 224 : 56;
    j.columns_per_piece = many ? 512 : 128;
    j.column_pieces = (j.out.width + j.columns_per_piece - 1) / j.columns_per_piece;
    int64_t row_pieces = (j.out.count + j.rows_per_piece - 1) / j.rows_per_piece;
    kn_parallel_for(d, row_pieces * j.column_pieces, 1, linear_pieces, &j);
    return KN_OK;
}

/* ---- conv -------------------------------------------------------------------------------------- */

typedef struct conv_job {
    kn_dev *dev;
    const kn_tensor *x, *residual, *out;
    const kn_weight *w;
    const float *bias;
    const kn_conv_params *p;
    int kernel[3];
    bool direct;             /* no taps, padding or stride in h and w: x is read where it is */
    int64_t tile_h, tile_w;  /* output pixels of a piece */
    int64_t tiles_h, tiles_w;
} conv_job;

/* Input lines or columns that n outputs need. */
static int64_t reach(const conv_job *j, int axis, int64_t n)
{
    return (n - 1) * j->p->stride[axis] + j->kernel[axis];
}

/* Floats of the input that a tile copies to scratch. */
static int64_t tile_floats(const conv_job *j, int64_t h, int64_t w)
{
    return j->kernel[0] * reach(j, 1, h) * reach(j, 2, w) * j->x->dim[3];
}

/* The tile that reads the fewest values (input and weights) per output pixel and fits into scratch,
 * among 1..8 lines of the width cut into equal parts; at most MAX_PIXELS, so that small frames still
 * make several pieces. */
static bool choose_tile(conv_job *j)
{
    enum { MAX_LINES = 8, MIN_PIXELS = 56, MAX_PIXELS = 1280 };
    int64_t H = j->out->dim[1], W = j->out->dim[2], frames = j->out->dim[0];
    int64_t limit = most(MIN_PIXELS, least(MAX_PIXELS, frames * H * W / 16));
    double least_cost = 0;
    for (int64_t parts = 1; parts <= W; parts++) {
        int64_t w = (W + parts - 1) / parts;
        if (w < 8 && parts > 1 && j->tile_w) break;
        for (int64_t h = 1; h <= least(MAX_LINES, H); h++) {
            int64_t floats = tile_floats(j, h, w);
            if (floats > KN_CPU_SCRATCH_FLOATS || (h * w > limit && j->tile_w && h > 1)) continue;
            double cost = (double)(floats + kn_tensor_count(&j->w->t)) / (double)(h * w);
            if (j->tile_w && cost >= least_cost) continue;
            least_cost = cost;
            j->tile_h = h;
            j->tile_w = w;
        }
    }
    return j->tile_w > 0;
}

/* Lines y.. of frame t of x into dst [lines][columns][Ci], zero outside the frame. */
static void copy_padded(const conv_job *j, int64_t t, int64_t y, int64_t x0, int64_t lines,
                        int64_t columns, float *dst)
{
    const kn_tensor *x = j->x;
    int64_t C = x->dim[3];
    int64_t left = least(columns, most(0, -x0)), end = least(columns, x->dim[2] - x0);
    for (int64_t i = 0; i < lines; i++, dst += columns * C) {
        if (y + i < 0 || y + i >= x->dim[1] || end <= left) {
            memset(dst, 0, (size_t)(columns * C) * sizeof(float));
            continue;
        }
        const float *src = (const float *)x->data + t * x->stride[0] + (y + i) * x->stride[1] +
                           (x0 + left) * x->stride[2];
        memset(dst, 0, (size_t)(left * C) * sizeof(float));
        if (x->stride[2] == C)
            memcpy(dst + left * C, src, (size_t)((end - left) * C) * sizeof(float));
        else
            for (int64_t k = 0; k < end - left; k++)
                memcpy(dst + (left + k) * C, src + k * x->stride[2], (size_t)C * sizeof(float));
        memset(dst + end * C, 0, (size_t)((columns - end) * C) * sizeof(float));
    }
}

static void conv_tile(const conv_job *j, int64_t t, int64_t h0, int64_t w0)
{
    const kn_tensor *x = j->x, *out = j->out, *residual = j->residual;
    const int *stride = j->p->stride, *kernel = j->kernel;
    int64_t C = x->dim[3], length = kernel[2] * C;
    piece p = {
        .kernels = kn_cpu_of(j->dev), .length = length, .w = j->w->impl, .bias = j->bias,
        .lines = least(j->tile_h, out->dim[1] - h0), .rows = least(j->tile_w, out->dim[2] - w0),
        .depth = kernel[0] * kernel[1] * length, .columns = out->dim[3], .last_column = out->dim[3],
        .out = (float *)out->data + t * out->stride[0] + h0 * out->stride[1] + w0 * out->stride[2],
        .out_pitch = out->stride[2], .out_line = out->stride[1],
    };
    if (residual) {
        p.residual = (const float *)residual->data + t * residual->stride[0] +
                     h0 * residual->stride[1] + w0 * residual->stride[2];
        p.residual_pitch = residual->stride[2];
        p.residual_line = residual->stride[1];
    }
    int64_t t0 = t * stride[0] - j->p->pad_lo[0]; /* frames outside x are left out of the sum */
    int64_t first = most(0, -t0), last = least(kernel[0], x->dim[0] - t0);
    int64_t lines = reach(j, 1, p.lines), columns = reach(j, 2, p.rows);
    float *scratch = kn_cpu_scratch(j->dev);
    p.w_first = first < last ? first * kernel[1] * length : 0;
    for (int64_t i = first; i < last; i++) {
        if (j->direct) {
            p.segment[p.segments++] = (i - first) * x->stride[0];
            continue;
        }
        int64_t frame = (i - first) * lines * columns * C;
        copy_padded(j, t0 + i, h0 * stride[1] - j->p->pad_lo[1], w0 * stride[2] - j->p->pad_lo[2], lines,
                    columns, scratch + frame);
        for (int k = 0; k < kernel[1]; k++) p.segment[p.segments++] = frame + k * columns * C;
    }
    p.x = scratch;
    p.x_pitch = stride[2] * C;
    p.x_line = stride[1] * columns * C;
    if (j->direct) {
        p.x_pitch = x->stride[2];
        p.x_line = x->stride[1];
        p.x = (const float *)x->data + h0 * p.x_line + w0 * p.x_pitch;
        if (first < last) p.x += (t0 + first) * x->stride[0];
    }
    run_piece(&p);
}

static void conv_pieces(void *user, int64_t begin, int64_t end)
{
    const conv_job *j = user;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / (j->tiles_h * j->tiles_w);
        int64_t h = i / j->tiles_w % j->tiles_h, w = i % j->tiles_w;
        conv_tile(j, t, h * j->tile_h, w * j->tile_w);
    }
}

kn_status kn_cpu_conv(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                      const kn_tensor *residual, const kn_conv_params *p, const kn_tensor *out)
{
    conv_job j = {.dev = d, .x = x, .residual = residual, .out = out, .w = w,
                  .bias = bias ? bias->data : NULL, .p = p};
    kn_conv_kernel(w, j.kernel);
    j.direct = true;
    for (int a = 1; a < 3; a++)
        j.direct = j.direct && j.kernel[a] == 1 && p->stride[a] == 1 && p->pad_lo[a] == 0 &&
                   p->pad_hi[a] == 0;
    if (!choose_tile(&j) || j.kernel[0] * j.kernel[1] > MAX_SEGMENTS)
        return kn_fail(KN_ERR_UNSUPPORTED, "conv: kernel %dx%dx%d over %lld channels is too large",
                       j.kernel[0], j.kernel[1], j.kernel[2], (long long)x->dim[3]);
    j.tiles_h = (out->dim[1] + j.tile_h - 1) / j.tile_h;
    j.tiles_w = (out->dim[2] + j.tile_w - 1) / j.tile_w;
    kn_parallel_for(d, out->dim[0] * j.tiles_h * j.tiles_w, 1, conv_pieces, &j);
    return KN_OK;
}
