/* tests/check/check_conv.c - convolutions of the VAE: causal 3x3x3, spatial, strided, 1x1x1, in
 * time. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

typedef struct conv_case {
    int in[4], out_channels; /* T H W Ci */
    kn_conv_params p;
    int kernel[3];
    bool bias;
    int residual; /* 0 none, 1 another tensor, 2 the output itself */
    int extra;    /* elements between pixels */
} conv_case;

static kn_status run_conv(kn_dev *d, const check_args *a)
{
    const conv_case *s = a->params;
    int n = 1;
    const kn_tensor *bias = s->bias ? &a->t[n++] : KN_ABSENT;
    const kn_tensor *residual = s->residual ? &a->t[n++] : KN_ABSENT;
    return kn_conv(d, &a->t[0], &a->w[0], bias, residual, &s->p, &a->t[n]);
}

static void one_conv(check *c, const conv_case *s, check_fill fill, kn_dtype stored)
{
    int64_t in[4], out[4],
        w[5] = {s->out_channels, s->in[3], s->kernel[0], s->kernel[1], s->kernel[2]};
    for (int a = 0; a < 4; a++) in[a] = s->in[a];
    for (int a = 0; a < 3; a++)
        out[a] = (in[a] + s->p.pad_lo[a] + s->p.pad_hi[a] - s->kernel[a]) / s->p.stride[a] + 1;
    out[3] = s->out_channels;
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "conv_%dx%dx%dx%d_to%d_k%d%d%d_s%d%d%d_p%d%d%d%d_%s_w%s_%s%s%s%s",
                         s->in[0], s->in[1], s->in[2], s->in[3], s->out_channels, s->kernel[0],
                         s->kernel[1], s->kernel[2], s->p.stride[0], s->p.stride[1], s->p.stride[2],
                         s->p.pad_lo[0], s->p.pad_lo[1], s->p.pad_lo[2], s->p.pad_hi[1],
                         kn_dtype_name(t), kn_dtype_name(stored), check_fill_name(fill),
                         s->bias ? "_bias" : "",
                         s->residual == 2 ? "_inplace"
                         : s->residual    ? "_residual"
                                          : "",
                         s->extra ? "_strided" : ""))
            continue;
        check_in_strided(c, fill, t, 4, in, s->extra);
        if (s->bias) check_in(c, CHECK_NORMAL, KN_F32, 1, &out[3]);
        if (s->residual) check_in_strided(c, CHECK_NORMAL, t, 4, out, s->extra);
        check_weight(c, KN_WEIGHT_CONV, CHECK_NORMAL, stored, 5, w);
        if (s->residual == 2)
            check_out_in_place(c, s->bias ? 2 : 1);
        else
            check_out_strided(c, t, 4, out, s->extra);
        /* As linear, with K = taps * Ci, plus roundings of bias, residual and output. */
        double k = (double)(w[1] * w[2] * w[3] * w[4]);
        double eps = check_eps(KN_F32) * (sqrt(k) + 2) + 2 * check_eps(t);
        check_bound b = {.tol = 8 * eps,
                         .nmse = eps * eps,
                         .abs_magnitude = true,
                         .flops = 2 * k * (double)(out[0] * out[1] * out[2] * out[3])};
        check_run(c, run_conv, s, NULL, &b);
    }
}

void check_conv(check *c)
{
#define ONE                                                                                        \
    {                                                                                              \
        1, 1, 1                                                                                    \
    }
#define CAUSAL                                                                                     \
    {                                                                                              \
        .stride = ONE, .pad_lo = {0, 1, 1}, .pad_hi = { 0, 1, 1 }                                  \
    }
    static const conv_case cases[] = {
        /* decoder and encoder layers of the demo model, cut in height */
        {{3, 12, 20, 16}, 64, CAUSAL, {3, 3, 3}, true, 0, 0},
        {{4, 12, 20, 64}, 64, CAUSAL, {3, 3, 3}, true, 1, 0},
        {{6, 10, 80, 32}, 32, CAUSAL, {3, 3, 3}, true, 2, 0},
        {{6, 9, 160, 16}, 16, CAUSAL, {3, 3, 3}, true, 1, 0},
        {{6, 9, 160, 16}, 3, CAUSAL, {3, 3, 3}, true, 0, 0},
        {{6, 9, 160, 3}, 16, CAUSAL, {3, 3, 3}, true, 0, 0},
        {{4, 9, 40, 32}, 16, CAUSAL, {1, 3, 3}, true, 0, 0},
        {{4, 10, 40, 16}, 16, {.stride = {1, 2, 2}, .pad_hi = {0, 1, 1}}, {1, 3, 3}, true, 0, 0},
        {{5, 6, 10, 32}, 32, {.stride = {2, 1, 1}}, {3, 1, 1}, true, 0, 0},
        {{3, 6, 10, 64}, 128, {.stride = ONE}, {3, 1, 1}, true, 0, 0},
        {{3, 9, 20, 32}, 16, {.stride = ONE}, {1, 1, 1}, true, 1, 0},
        {{2, 5, 7, 16}, 32, {.stride = ONE}, {1, 1, 1}, false, 2, 0},
        /* widths of Wan: blocks of K, wide panels */
        {{3, 4, 15, 96}, 96, CAUSAL, {3, 3, 3}, true, 1, 0},
        {{3, 3, 9, 192}, 96, CAUSAL, {3, 3, 3}, true, 0, 0},
        {{3, 2, 5, 384}, 48, CAUSAL, {3, 3, 3}, true, 0, 0},
        {{2, 3, 5, 384}, 33, {.stride = ONE}, {1, 1, 1}, true, 0, 0},
        {{3, 3, 4, 384}, 20, {.stride = ONE}, {3, 1, 1}, false, 0, 0},
        {{2, 4, 300, 128}, 35, CAUSAL, {1, 3, 3}, true, 0, 0},
        /* odd sizes, padding that reaches over whole frames, larger kernels */
        {{1, 1, 1, 1}, 1, CAUSAL, {1, 3, 3}, false, 0, 0},
        {{1, 3, 4, 5},
         7,
         {.stride = ONE, .pad_lo = {2, 1, 1}, .pad_hi = {0, 1, 1}},
         {3, 3, 3},
         true,
         1,
         0},
        {{2, 3, 4, 5},
         7,
         {.stride = ONE, .pad_lo = {4, 0, 0}, .pad_hi = {3, 0, 0}},
         {3, 1, 1},
         true,
         1,
         0},
        {{2, 7, 9, 6},
         17,
         {.stride = {1, 3, 2}, .pad_lo = {0, 2, 0}, .pad_hi = {0, 1, 3}},
         {2, 5, 4},
         true,
         0,
         0},
        {{1, 6, 6, 3}, 8, {.stride = {1, 2, 2}}, {1, 1, 1}, true, 0, 0},
        {{3, 5, 17, 19}, 23, CAUSAL, {3, 3, 3}, true, 1, 0},
        {{4, 5, 17, 16}, 40, CAUSAL, {3, 3, 3}, true, 1, 13},
        {{4, 5, 17, 16}, 40, {.stride = ONE}, {1, 1, 1}, true, 2, 13},
        {{5, 5, 6, 24}, 31, {.stride = {2, 1, 1}}, {3, 1, 1}, true, 0, 5},
        /* more than one tile of the Hopper kernel on each side, with zeros before the first frame and without */
        {{2, 18, 35, 96}, 96, {.stride = ONE, .pad_lo = {2, 1, 1}, .pad_hi = {0, 1, 1}}, {3, 3, 3}, true, 1, 0},
        {{3, 17, 33, 96}, 96, CAUSAL, {3, 3, 3}, true, 2, 0},
        {{4, 5, 7, 96}, 96, CAUSAL, {3, 3, 3}, false, 0, 24},
    };
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++)
        one_conv(c, &cases[i], CHECK_NORMAL, KN_BF16);
    for (int f = 0; f < CHECK_FILLS; f++)
        for (kn_dtype stored = KN_F32; stored <= KN_F16; stored++)
            one_conv(c, &cases[22], (check_fill)f, stored);
}
