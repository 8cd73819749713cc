/* compute/cpu_rows.c - norms, activations, gates, rope and stats on the cpu: rows are cut into
 * pieces of about PIECE_FLOATS values, and evenly spaced rows go to the kernel in one call. */
#include "compute/cpu.h"

#include <math.h>
#include <string.h>

enum { PIECE_FLOATS = 16 * 1024 };

typedef void run_fn(const void *job, const kn_row_run *run);

typedef struct row_job {
    const kn_cpu_kernels *kernels;
    kn_rows x, y, out; /* y: width 0 when absent */
    run_fn *run;
    const float *vector[2]; /* weight, gate, factor, add */
    const kn_rmsnorm_params *rms;
    kn_activation act;
    float a, b;
} row_job;

static int64_t grain_of(int64_t width)
{
    return width >= PIECE_FLOATS ? 1 : PIECE_FLOATS / (width ? width : 1);
}

static void row_pieces(void *user, int64_t begin, int64_t end)
{
    const row_job *j = user;
    bool even = j->x.axes == 1 && j->out.axes == 1 && (j->y.width == 0 || j->y.axes == 1);
    kn_row_run run = {.n = j->out.width, .rows = even ? end - begin : 1};
    if (even) {
        run.x_pitch = j->x.pitch[0] / (int64_t)sizeof(float);
        run.out_pitch = j->out.pitch[0] / (int64_t)sizeof(float);
        if (j->y.width) run.y_pitch = j->y.pitch[0] / (int64_t)sizeof(float);
    }
    for (int64_t i = begin; i < end; i += run.rows) {
        run.x = kn_row(&j->x, i);
        run.y = j->y.width ? kn_row(&j->y, i) : NULL;
        run.out = kn_row(&j->out, i);
        j->run(j, &run);
    }
}

static const float *data_of(const kn_tensor *t)
{
    return t ? t->data : NULL;
}

static kn_status run_rows(kn_dev *d, row_job *j, const kn_tensor *x, const kn_tensor *y,
                          const kn_tensor *out)
{
    j->kernels = kn_cpu_of(d);
    j->x = kn_rows_of(x);
    if (y) j->y = kn_rows_of(y);
    j->out = kn_rows_of(out);
    kn_parallel_for(d, j->out.count, grain_of(j->out.width), row_pieces, j);
    return KN_OK;
}

/* ---- operations ------------------------------------------------------------------------------ */

static void run_rmsnorm(const void *job, const kn_row_run *run)
{
    const row_job *j = job;
    j->kernels->rmsnorm(run, j->vector[0], j->rms);
}

static kn_status rmsnorm(kn_dev *d, const kn_tensor *x, const kn_tensor *weight,
                         const kn_rmsnorm_params *p, const kn_tensor *out)
{
    row_job j = {.run = run_rmsnorm, .vector = {data_of(weight)}, .rms = p};
    return run_rows(d, &j, x, NULL, out);
}

static void run_layernorm(const void *job, const kn_row_run *run)
{
    const row_job *j = job;
    j->kernels->layernorm(run, j->vector[0], j->a, j->vector[1], j->b);
}

static kn_status layernorm(kn_dev *d, const kn_tensor *x, const kn_tensor *weight,
                           const kn_tensor *bias, const kn_tensor *scale, const kn_tensor *shift,
                           float eps, const kn_tensor *out)
{
    row_job j = {.run = run_layernorm,
                 .a = scale ? 1.0f : 0.0f,
                 .b = eps,
                 .vector = {data_of(scale ? scale : weight), data_of(shift ? shift : bias)}};
    return run_rows(d, &j, x, NULL, out);
}

static void run_gate_add(const void *job, const kn_row_run *run)
{
    const row_job *j = job;
    j->kernels->gate_add(run, j->vector[0]);
}

static kn_status gate_add(kn_dev *d, const kn_tensor *x, const kn_tensor *y, const kn_tensor *gate,
                          const kn_tensor *out)
{
    row_job j = {.run = run_gate_add, .vector = {data_of(gate)}};
    return run_rows(d, &j, x, y, out);
}

static void run_act(const void *job, const kn_row_run *run)
{
    const row_job *j = job;
    j->kernels->act(run, j->act);
}

static kn_status act(kn_dev *d, const kn_tensor *x, kn_activation a, const kn_tensor *out)
{
    row_job j = {.run = run_act, .act = a};
    return run_rows(d, &j, x, NULL, out);
}

static kn_status mul(kn_dev *d, const kn_tensor *x, kn_activation a, const kn_tensor *y,
                     const kn_tensor *out)
{
    row_job j = {.run = run_act, .act = a};
    return run_rows(d, &j, x, y, out);
}

static void run_axpby(const void *job, const kn_row_run *run)
{
    const row_job *j = job;
    j->kernels->axpby(run, j->a, j->b);
}

static kn_status axpby(kn_dev *d, float a, const kn_tensor *x, float b, const kn_tensor *y,
                       const kn_tensor *out)
{
    row_job j = {.run = run_axpby, .a = a, .b = b};
    return run_rows(d, &j, x, y, out);
}

/* ---- rope ------------------------------------------------------------------------------------ */

typedef struct rope_job {
    const kn_cpu_kernels *kernels;
    const kn_tensor *x, *out;
    const float *cos, *sin;
} rope_job;

static void rope_tokens(void *user, int64_t begin, int64_t end)
{
    const rope_job *j = user;
    const kn_tensor *x = j->x, *out = j->out;
    kn_row_run run = {
        .rows = x->dim[1], .n = x->dim[2], .x_pitch = x->stride[1], .out_pitch = out->stride[1]};
    for (int64_t l = begin; l < end; l++) {
        run.x = (const float *)x->data + l * x->stride[0];
        run.out = (float *)out->data + l * out->stride[0];
        j->kernels->rope(&run, j->cos + l * (run.n / 2), j->sin + l * (run.n / 2));
    }
}

static kn_status rope(kn_dev *d, const kn_tensor *x, const kn_tensor *cos, const kn_tensor *sin,
                      const kn_tensor *out)
{
    rope_job j = {.kernels = kn_cpu_of(d), .x = x, .out = out, .cos = cos->data, .sin = sin->data};
    kn_parallel_for(d, x->dim[0], grain_of(x->dim[1] * x->dim[2]), rope_tokens, &j);
    return KN_OK;
}

/* ---- stats ----------------------------------------------------------------------------------- */

enum { STATS_PIECES = 64 };

typedef struct stats_job {
    kn_rows x;
    int64_t grain;
    struct {
        int64_t finite;
        double sum, squares, min, max;
    } part[STATS_PIECES];
} stats_job;

static void stats_rows(void *user, int64_t begin, int64_t end)
{
    stats_job *j = user;
    int64_t finite = 0;
    double sum = 0, squares = 0;
    float min = INFINITY, max = -INFINITY;
    for (int64_t i = begin; i < end; i++) {
        const float *x = kn_row(&j->x, i);
        for (int64_t c = 0; c < j->x.width; c++) {
            if (!isfinite(x[c])) continue;
            finite++;
            sum += x[c];
            squares += (double)x[c] * x[c];
            min = x[c] < min ? x[c] : min;
            max = x[c] > max ? x[c] : max;
        }
    }
    int64_t p = begin / j->grain;
    j->part[p].finite = finite;
    j->part[p].sum = sum;
    j->part[p].squares = squares;
    j->part[p].min = min;
    j->part[p].max = max;
}

static kn_status stats(kn_dev *d, const kn_tensor *x, kn_tensor_stats *out)
{
    stats_job j = {.x = kn_rows_of(x)};
    j.grain = (j.x.count + STATS_PIECES - 1) / STATS_PIECES;
    kn_parallel_for(d, j.x.count, j.grain, stats_rows, &j);
    int64_t finite = 0;
    double sum = 0, squares = 0, min = INFINITY, max = -INFINITY;
    for (int p = 0; p < STATS_PIECES; p++) {
        if (j.part[p].finite == 0) continue;
        finite += j.part[p].finite;
        sum += j.part[p].sum;
        squares += j.part[p].squares;
        min = j.part[p].min < min ? j.part[p].min : min;
        max = j.part[p].max > max ? j.part[p].max : max;
    }
    out->nonfinite = kn_tensor_count(x) - finite;
    if (finite == 0) return KN_OK;
    out->min = min;
    out->max = max;
    out->mean = sum / (double)finite;
    out->rms = sqrt(squares / (double)finite);
    return KN_OK;
}

void kn_cpu_rows_fill(kn_ops *ops)
{
    ops->rmsnorm = rmsnorm;
    ops->layernorm = layernorm;
    ops->gate_add = gate_add;
    ops->rope = rope;
    ops->norm_rope = kn_norm_then_rope;
    ops->gate_norm = kn_gate_then_norm;
    ops->act = act;
    ops->mul = mul;
    ops->axpby = axpby;
    ops->stats = stats;
    ops->quantize = kn_host_quantize;
    ops->dequantize = kn_host_dequantize;
    ops->linear_f8 = NULL; /* of ref; the plan says so before a run */
}
