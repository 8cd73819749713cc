/* tests/check/check_norm.c - rmsnorm and layernorm, alone and joined with rope and gate_add. */
#include <math.h>

#include "check.h"

static const int shapes[][2] = {{300, 256}, {32, 128}, {3, 5120}, {700, 16}, {40, 3},
                                {9, 1},     {17, 33},  {5, 63},   {6, 65},   {2, 1000}};

typedef struct norm_case {
    kn_rmsnorm_params rms;
    bool weight, bias, scale, shift;
} norm_case;

static kn_status run_rmsnorm(kn_dev *d, const check_args *a)
{
    const norm_case *n = a->params;
    return kn_rmsnorm(d, &a->t[0], n->weight ? &a->t[1] : KN_ABSENT, &n->rms,
                      &a->t[n->weight ? 2 : 1]);
}

/* The argument of the activation; silu and gelu change by at most 1.13 of what it changes. */
static void rms_magnitude(const check_args *ref, double *m)
{
    const norm_case *n = ref->params;
    const double *x = ref->t[0].data, *w = n->weight ? ref->t[1].data : NULL;
    int64_t width = ref->t[0].dim[1];
    for (int64_t r = 0; r < ref->t[0].dim[0]; r++) {
        double sum = 0;
        for (int64_t i = 0; i < width; i++) sum += x[r * width + i] * x[r * width + i];
        double f = n->rms.l2_clamp ? sqrt((double)width) / fmax(sqrt(sum), n->rms.eps)
                                   : 1 / sqrt(sum / (double)width + n->rms.eps);
        for (int64_t i = 0; i < width; i++)
            m[r * width + i] = fabs(x[r * width + i] * f * (w ? w[i] : 1));
    }
}

static void rmsnorm_case(check *c, int rows, int width, check_fill fill, norm_case n, int extra,
                         bool in_place)
{
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "rmsnorm_%dx%d_%s_%s_%s%d%s%s%s", rows, width, kn_dtype_name(t),
                         check_fill_name(fill), n.rms.l2_clamp ? "l2_act" : "mean_act", n.rms.act,
                         n.weight ? "_weight" : "", extra ? "_strided" : "",
                         in_place ? "_inplace" : ""))
            continue;
        check_in_strided(c, fill, t, 2, (int64_t[]){rows, width}, extra);
        if (n.weight) check_in(c, CHECK_NORMAL, KN_F32, 1, (int64_t[]){width});
        if (in_place)
            check_out_in_place(c, 0);
        else
            check_out_strided(c, t, 2, (int64_t[]){rows, width}, extra);
        /* The in-place case keeps no input for its magnitude. Sum of squares: all terms positive,
         * so at most about log2(width) roundings of eps, halved by the root; 4 more for factor,
         * weight and activation (8 with exp inside). */
        double eps = (check_eps(KN_F32) * (n.rms.act ? 18 : 10)) + 2 * check_eps(t);
        check_bound b = {
            .tol = eps, .nmse = eps * eps, .magnitude = in_place ? NULL : rms_magnitude};
        check_run(c, run_rmsnorm, &n, NULL, &b);
    }
}

static kn_status run_layernorm(kn_dev *d, const check_args *a)
{
    const norm_case *n = a->params;
    const kn_tensor *v[4] = {NULL, NULL, NULL, NULL};
    const bool has[4] = {n->weight, n->bias, n->scale, n->shift};
    int next = 1;
    for (int i = 0; i < 4; i++)
        if (has[i]) v[i] = &a->t[next++];
    return kn_layernorm(d, &a->t[0], v[0], v[1], v[2], v[3], n->rms.eps, &a->t[next]);
}

/* Rounding of the mean and of x - mean is relative to the largest |x| of the row: that is what a
 * row of nearly equal values suffers from in any fp32 layer norm. */
static void layer_magnitude(const check_args *ref, double *m)
{
    const norm_case *n = ref->params;
    const double *x = ref->t[0].data;
    int next = 1;
    const double *factor = n->weight || n->scale ? ref->t[next++].data : NULL;
    const double *add = n->bias || n->shift ? ref->t[next++].data : NULL;
    int64_t width = ref->t[0].dim[1];
    for (int64_t r = 0; r < ref->t[0].dim[0]; r++, x += width, m += width) {
        double mean = 0, var = 0, largest = 0;
        for (int64_t i = 0; i < width; i++) mean += x[i] / (double)width;
        for (int64_t i = 0; i < width; i++) {
            var += (x[i] - mean) * (x[i] - mean) / (double)width;
            largest = fmax(largest, fabs(x[i]));
        }
        for (int64_t i = 0; i < width; i++)
            m[i] = largest / sqrt(var + n->rms.eps) *
                       (factor ? fabs(factor[i]) + (n->scale ? 1 : 0) : 1) +
                   (add ? fabs(add[i]) : 0);
    }
}

static void layernorm_case(check *c, int rows, int width, check_fill fill, norm_case n, int extra)
{
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "layernorm_%dx%d_%s_%s%s%s%s", rows, width, kn_dtype_name(t),
                         check_fill_name(fill),
                         n.weight  ? "_affine"
                         : n.scale ? "_modulated"
                                   : "",
                         n.shift != n.scale || n.bias != n.weight ? "_half" : "",
                         extra ? "_strided" : ""))
            continue;
        check_in_strided(c, fill, t, 2, (int64_t[]){rows, width}, extra);
        for (int k = 0; k < n.weight + n.bias + n.scale + n.shift; k++)
            check_in(c, CHECK_NORMAL, KN_F32, 1, (int64_t[]){width});
        check_out_strided(c, t, 2, (int64_t[]){rows, width}, extra);
        /* mean: log2(width) roundings; difference, variance, factor, product, sum: 6 more. */
        double eps = check_eps(KN_F32) * 16 + 2 * check_eps(t);
        check_bound b = {.tol = eps, .nmse = eps * eps, .magnitude = layer_magnitude};
        check_run(c, run_layernorm, &n, NULL, &b);
    }
}

/* ---- joined: norm_rope, gate_norm ------------------------------------------------------------ */

static kn_status run_norm_rope(kn_dev *d, const check_args *a)
{
    return kn_norm_rope(d, &a->t[0], &a->t[1], 1e-6f, &a->t[2], &a->t[3], &a->t[4]);
}

/* As of rope: |n| of both of a pair times |cos| and |sin|, n the normalised values. */
static void norm_rope_magnitude(const check_args *ref, double *m)
{
    const double *x = ref->t[0].data, *w = ref->t[1].data;
    const double *co = ref->t[2].data, *si = ref->t[3].data;
    int64_t D = ref->t[0].dim[2], width = ref->t[0].dim[1] * D;
    for (int64_t l = 0; l < ref->t[0].dim[0]; l++, x += width, m += width) {
        double sum = 0;
        for (int64_t i = 0; i < width; i++) sum += x[i] * x[i];
        double f = 1 / sqrt(sum / (double)width + 1e-6f);
        for (int64_t i = 0; i < width; i++) {
            int64_t angle = l * (D / 2) + i % D / 2;
            m[i] = f * (fabs(x[i] * w[i] * co[angle]) + fabs(x[i ^ 1] * w[i ^ 1] * si[angle]));
        }
    }
}

static void norm_rope_case(check *c, int L, int N, int D, check_fill fill)
{
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "norm_rope_%dx%dx%d_%s_%s", L, N, D, kn_dtype_name(t),
                         check_fill_name(fill)))
            continue;
        check_in(c, fill, t, 3, (int64_t[]){L, N, D});
        check_in(c, CHECK_NORMAL, KN_F32, 1, (int64_t[]){(int64_t)N * D});
        check_in(c, CHECK_NORMAL, KN_F32, 2, (int64_t[]){L, D / 2});
        check_in(c, CHECK_NORMAL, KN_F32, 2, (int64_t[]){L, D / 2});
        check_out(c, t, 3, (int64_t[]){L, N, D});
        /* rmsnorm's and rope's; done in two steps the value in between is rounded too */
        double eps = check_eps(KN_F32) * 14 + 4 * check_eps(t);
        check_run(c, run_norm_rope, NULL, NULL,
                  &(check_bound){.tol = eps, .nmse = eps * eps, .magnitude = norm_rope_magnitude});
    }
}

typedef struct gate_norm_case {
    bool gate, modulated, in_place; /* modulated: scale and shift, else weight and bias; in_place:
                                       sum is x */
} gate_norm_case;

static kn_status run_gate_norm(kn_dev *d, const check_args *a)
{
    const gate_norm_case *n = a->params;
    kn_layernorm_params p = {.eps = 1e-6f};
    *(n->modulated ? &p.scale : &p.weight) = a->t[2];
    *(n->modulated ? &p.shift : &p.bias) = a->t[3];
    int out = n->gate ? 5 : 4;
    return kn_gate_norm(d, &a->t[0], &a->t[1], n->gate ? &a->t[4] : KN_ABSENT, &p, &a->t[out + 1],
                        &a->t[out]);
}

/* As of layernorm, of the sums; an error of a sum counts as one of the largest of its row. */
static void gate_norm_magnitude(const check_args *ref, double *m)
{
    const gate_norm_case *n = ref->params;
    const double *sum = ref->t[n->gate ? 6 : 5].data, *w = ref->t[2].data, *b = ref->t[3].data;
    int64_t width = ref->t[0].dim[1];
    for (int64_t r = 0; r < ref->t[0].dim[0]; r++, sum += width, m += width) {
        double mean = 0, var = 0, largest = 0;
        for (int64_t i = 0; i < width; i++) mean += sum[i] / (double)width;
        for (int64_t i = 0; i < width; i++) {
            var += (sum[i] - mean) * (sum[i] - mean) / (double)width;
            largest = fmax(largest, fabs(sum[i]));
        }
        for (int64_t i = 0; i < width; i++)
            m[i] = largest / sqrt(var + 1e-6f) * (fabs(w[i]) + (n->modulated ? 1 : 0)) + fabs(b[i]);
    }
}

static void gate_norm_one(check *c, int rows, int width, check_fill fill, gate_norm_case n,
                          int extra)
{
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "gate_norm_%dx%d_%s_%s_%s%s%s%s", rows, width, kn_dtype_name(t),
                         check_fill_name(fill), n.modulated ? "modulated" : "affine",
                         n.gate ? "_gate" : "", extra ? "_strided" : "",
                         n.in_place ? "_inplace" : ""))
            continue;
        check_in_strided(c, fill, t, 2, (int64_t[]){rows, width}, extra);
        check_in_strided(c, CHECK_NORMAL, t, 2, (int64_t[]){rows, width}, extra);
        for (int k = 0; k < 2 + n.gate; k++)
            check_in(c, CHECK_NORMAL, KN_F32, 1, (int64_t[]){width});
        check_out_strided(c, t, 2, (int64_t[]){rows, width}, extra);
        if (n.in_place)
            check_out_in_place(c, 0);
        else
            check_out_strided(c, t, 2, (int64_t[]){rows, width}, extra);
        /* layernorm's; the sum is rounded to its dtype before it is normalised */
        double eps = check_eps(KN_F32) * 18 + 4 * check_eps(t);
        check_bound b = {.tol = eps, .nmse = eps * eps, .magnitude = gate_norm_magnitude};
        /* of the sum: its two roundings in f32 are relative to y * gate, at most 36, and 36 eps is
         * less than 18 eps times this */
        b.tiny = 4;
        check_run(c, run_gate_norm, &n, NULL, &b);
    }
}

static void joined(check *c)
{
    static const int heads[][3] = {
        {33, 12, 128}, {300, 4, 64}, {5, 40, 128}, {7, 3, 6}, {9, 2, 18}};
    static const int widths[][2] = {{65, 1536}, {33, 256}, {5, 5120}, {7, 33}, {3, 1000}};
    for (int i = 0; i < 5; i++) {
        norm_rope_case(c, heads[i][0], heads[i][1], heads[i][2], CHECK_NORMAL);
        for (int k = 0; k < 4; k++)
            gate_norm_one(c, widths[i][0], widths[i][1], CHECK_NORMAL,
                          (gate_norm_case){.gate = k & 1, .modulated = k & 2, .in_place = k == 1},
                          k == 2 ? 8 : 0);
    }
    for (int f = 0; f < CHECK_FILLS; f++) {
        norm_rope_case(c, 17, 3, 64, (check_fill)f);
        gate_norm_one(c, 19, 192, (check_fill)f, (gate_norm_case){.gate = true, .modulated = true},
                      0);
    }
}

void check_norm(check *c)
{
    joined(c);
    norm_case t5 = {.rms = {.eps = 1e-6f}, .weight = true};
    norm_case vae = {.rms = {.eps = 1e-12f, .l2_clamp = true, .act = KN_ACT_SILU}, .weight = true};
    for (int i = 0; i < (int)(sizeof shapes / sizeof *shapes); i++) {
        rmsnorm_case(c, shapes[i][0], shapes[i][1], CHECK_NORMAL, t5, 0, false);
        rmsnorm_case(c, shapes[i][0], shapes[i][1], CHECK_NORMAL, vae, 0, false);
        layernorm_case(c, shapes[i][0], shapes[i][1], CHECK_NORMAL,
                       (norm_case){.rms.eps = 1e-6f, .scale = true, .shift = true}, 0);
    }
    for (int width = 96; width <= 384; width *= 2) { /* the VAE's channels */
        vae.rms.act = KN_ACT_NONE;
        rmsnorm_case(c, 101, width, CHECK_SPIKE, vae, 0, false);
        rmsnorm_case(c, 101, width, CHECK_NORMAL, vae, 0, true);
        vae.rms.act = KN_ACT_SILU;
        rmsnorm_case(c, 101, width, CHECK_SPIKE, vae, 24, false);
    }
    /* More rows than a GPU has threads for at a time. */
    if (check_kind(c) == KN_DEV_CUDA) rmsnorm_case(c, 140003, 96, CHECK_NORMAL, vae, 0, false);
    for (int f = 0; f < CHECK_FILLS; f++) {
        for (int act = 0; act <= KN_ACT_GELU_ERF; act++) {
            vae.rms.act = t5.rms.act = (kn_activation)act;
            rmsnorm_case(c, 37, 70, (check_fill)f, t5, 0, false);
            rmsnorm_case(c, 37, 70, (check_fill)f, vae, 0, false);
        }
        layernorm_case(c, 37, 70, (check_fill)f,
                       (norm_case){.rms.eps = 1e-6f, .weight = true, .bias = true}, 0);
        layernorm_case(c, 37, 70, (check_fill)f, (norm_case){.rms.eps = 1e-6f}, 0);
    }
    t5.rms.act = KN_ACT_NONE;
    rmsnorm_case(c, 33, 40, CHECK_NORMAL, t5, 24, false);
    rmsnorm_case(c, 33, 40, CHECK_NORMAL, t5, 24, true);
    t5.weight = false;
    rmsnorm_case(c, 33, 40, CHECK_NORMAL, t5, 0, false);
    layernorm_case(c, 33, 40, CHECK_NORMAL, (norm_case){.rms.eps = 1e-6f, .scale = true}, 24);
    layernorm_case(c, 33, 40, CHECK_NORMAL, (norm_case){.rms.eps = 1e-6f, .bias = true}, 0);
}
