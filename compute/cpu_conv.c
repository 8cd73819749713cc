/* compute/cpu_conv.c - convolutions over channels-last frames by own kernels.
 *
 * A piece is a tile of one output frame. Its input lines are copied with their padding into the
 * thread's scratch, where every kernel line (t, h) of an output line is one run of kw*Ci values;
 * the copy costs a few values per output pixel, against kt*kh*kw*Ci*Co multiply-adds. Kernels
 * without taps in h and w read the input where it is. No copy of whole frames is made.
 */
#include "compute/cpu_piece.h"

#include <string.h>

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

typedef struct conv_job {
    kn_dev *dev;
    const kn_tensor *x, *residual, *out;
    const kn_weight *w;
    const float *bias;
    const kn_conv_params *p;
    int kernel[3];
    bool direct;            /* no taps, padding or stride in h and w: x is read where it is */
    int64_t tile_h, tile_w; /* output pixels of a piece */
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
 * among 1..8 lines of the width cut into equal parts; at most MAX_PIXELS, so that small frames
 * still make several pieces. */
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
    kn_cpu_piece p = {
        .kernels = kn_cpu_of(j->dev),
        .length = length,
        .w = ((const kn_cpu_weight *)j->w->impl)->data,
        .bias = j->bias,
        .lines = least(j->tile_h, out->dim[1] - h0),
        .rows = least(j->tile_w, out->dim[2] - w0),
        .depth = kernel[0] * kernel[1] * length,
        .columns = out->dim[3],
        .last_column = out->dim[3],
        .out = (float *)out->data + t * out->stride[0] + h0 * out->stride[1] + w0 * out->stride[2],
        .out_pitch = out->stride[2],
        .out_line = out->stride[1],
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
        copy_padded(j, t0 + i, h0 * stride[1] - j->p->pad_lo[1], w0 * stride[2] - j->p->pad_lo[2],
                    lines, columns, scratch + frame);
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
    kn_cpu_piece_run(&p);
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
    conv_job j = {.dev = d,
                  .x = x,
                  .residual = residual,
                  .out = out,
                  .w = w,
                  .bias = bias ? bias->data : NULL,
                  .p = p};
    kn_conv_kernel(w, j.kernel);
    j.direct = true;
    for (int a = 1; a < 3; a++)
        j.direct = j.direct && j.kernel[a] == 1 && p->stride[a] == 1 && p->pad_lo[a] == 0 &&
                   p->pad_hi[a] == 0;
    if (!choose_tile(&j) || j.kernel[0] * j.kernel[1] > KN_CPU_MAX_SEGMENTS)
        return kn_fail(KN_ERR_UNSUPPORTED, "conv: kernel %dx%dx%d over %lld channels is too large",
                       j.kernel[0], j.kernel[1], j.kernel[2], (long long)x->dim[3]);
    j.tiles_h = (out->dim[1] + j.tile_h - 1) / j.tile_h;
    j.tiles_w = (out->dim[2] + j.tile_w - 1) / j.tile_w;
    kn_parallel_for(d, out->dim[0] * j.tiles_h * j.tiles_w, 1, conv_pieces, &j);
    return KN_OK;
}
