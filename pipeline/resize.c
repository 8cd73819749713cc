#include "pipeline/resize.h"

#include <math.h>
#include <string.h>

#include "io/memory.h"

static const double PI = 3.14159265358979323846;

static const double MAX_STEP = 1024;

/* What one output coordinate takes of the input. */
typedef struct taps {
    int64_t first;
    int count;
    const float *weight;
} taps;

typedef struct axis {
    taps *taps;
    float *weights; /* of all taps */
} axis;

struct kn_resize {
    kn_resize_params params;
    axis x, y;
    float *rows; /* input rows, resized across: [from_height, to_width, channels] */
};

static double sinc(double x)
{
    return x == 0 ? 1 : sin(PI * x) / (PI * x);
}

static double weight_of(kn_resize_filter filter, double distance)
{
    double x = fabs(distance);
    if (filter == KN_RESIZE_BILINEAR) return x < 1 ? 1 - x : 0;
    return x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/* The filter is stretched by the step when that is over 1. Weights go to `weight`. */
static taps taps_of(kn_resize_filter filter, double at, double step, int64_t length, float *weight)
{
    double stretch = fmax(step, 1), radius = stretch * (filter == KN_RESIZE_BILINEAR ? 1 : 3);
    double edge = filter == KN_RESIZE_BILINEAR ? 0 : -0.5, sum = 0;
    at = fmin(fmax(at, edge), (double)(length - 1) - edge);
    int64_t lo = (int64_t)floor(at - radius) + 1, hi = (int64_t)floor(at + radius) + 1;
    taps t = {.first = lo < 0 ? 0 : lo, .weight = weight};
    if (hi > length) hi = length;
    for (int64_t i = t.first; i < hi; i++) sum += weight_of(filter, (at - (double)i) / stretch);
    for (int64_t i = t.first; i < hi; i++)
        weight[t.count++] = (float)(weight_of(filter, (at - (double)i) / stretch) / sum);
    return t;
}

static kn_status build_axis(kn_resize_filter filter, double first, double step, int64_t from, int64_t to, axis *out)
{
    size_t most = (size_t)(2 * 3 * ceil(fmax(step, 1))) + 1;
    KN_TRY(kn_alloc_array((size_t)to, sizeof *out->taps, (void **)&out->taps));
    KN_TRY(kn_alloc_array((size_t)to, most * sizeof *out->weights, (void **)&out->weights));
    for (int64_t i = 0; i < to; i++)
        out->taps[i] = taps_of(filter, first + ((double)i + 0.5) * step - 0.5, step, from, out->weights + (size_t)i * most);
    return KN_OK;
}

kn_status kn_resize_build(const kn_resize_params *params, kn_resize **out)
{
    *out = NULL;
    const kn_resize_params *p = params;
    if (!(p->step_x > 0 && p->step_x <= MAX_STEP && p->step_y > 0 && p->step_y <= MAX_STEP) || p->from_width < 1 ||
        p->from_height < 1 || p->to_width < 1 || p->to_height < 1 || p->channels < 1)
        return kn_fail(KN_ERR_ARG, "resize %lld x %lld to %lld x %lld by steps of %g and %g: expected sizes from 1 and steps up to %g",
                       (long long)p->from_width, (long long)p->from_height, (long long)p->to_width,
                       (long long)p->to_height, p->step_x, p->step_y, MAX_STEP);
    kn_status st = KN_OK;
    kn_resize *r = NULL;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *r, (void **)&r));
    r->params = *p;
    KN_TRY_GOTO(build_axis(p->filter, p->first_x, p->step_x, p->from_width, p->to_width, &r->x));
    KN_TRY_GOTO(build_axis(p->filter, p->first_y, p->step_y, p->from_height, p->to_height, &r->y));
    KN_TRY_GOTO(kn_alloc_array((size_t)(p->from_height * p->to_width * p->channels), sizeof *r->rows, (void **)&r->rows));
    *out = r;
    r = NULL;
done:
    kn_resize_free(&r);
    return st;
}

void kn_resize_free(kn_resize **r)
{
    if (!*r) return;
    kn_free((*r)->x.taps);
    kn_free((*r)->x.weights);
    kn_free((*r)->y.taps);
    kn_free((*r)->y.weights);
    kn_free((*r)->rows);
    kn_free(*r);
    *r = NULL;
}

/* One input row across. */
static void run_row(const kn_resize *r, const float *from, float *to)
{
    int channels = r->params.channels;
    for (int64_t x = 0; x < r->params.to_width; x++) {
        const taps *t = &r->x.taps[x];
        for (int c = 0; c < channels; c++) {
            float sum = 0;
            for (int i = 0; i < t->count; i++) sum += t->weight[i] * from[(t->first + i) * channels + c];
            to[x * channels + c] = sum;
        }
    }
}

typedef struct job {
    const kn_resize *r;
    const float *from;
    float *to;
} job;

static void across(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    const kn_resize_params *p = &j->r->params;
    for (int64_t y = begin; y < end; y++)
        run_row(j->r, j->from + y * p->from_width * p->channels, j->r->rows + y * p->to_width * p->channels);
}

static void down(void *user, int64_t begin, int64_t end)
{
    const job *j = user;
    int64_t row = j->r->params.to_width * j->r->params.channels;
    for (int64_t y = begin; y < end; y++) {
        const taps *t = &j->r->y.taps[y];
        float *out = j->to + y * row;
        memset(out, 0, (size_t)row * sizeof *out);
        for (int i = 0; i < t->count; i++) {
            const float *in = j->r->rows + (t->first + i) * row;
            for (int64_t k = 0; k < row; k++) out[k] += t->weight[i] * in[k];
        }
    }
}

static void run_rows(job *j, int64_t rows, kn_range_fn *fn)
{
    enum { GRAIN = 4 };
    if (j->r->params.workers)
        kn_workers_run(j->r->params.workers, rows, GRAIN, fn, j);
    else
        fn(j, 0, rows);
}

void kn_resize_run(kn_resize *r, const float *from, float *to)
{
    job j = {.r = r, .from = from, .to = to};
    run_rows(&j, r->params.from_height, across);
    run_rows(&j, r->params.to_height, down);
}
