/* tests/check/check_linear.c - linear and embed. */
#include <math.h>

#include "check.h"

typedef struct linear_params {
    kn_activation act;
    bool bias;
} linear_params;

static kn_status run_linear(kn_dev *d, const check_args *a)
{
    const linear_params *p = a->params;
    return kn_linear(d, &a->t[0], &a->w[0], p->bias ? &a->t[1] : KN_ABSENT,
                     a->magnitude ? KN_ACT_NONE : p->act, &a->t[p->bias ? 2 : 1]);
}

/* x, weight, bias: fp32 sums of K products. */
static void linear_case(check *c, int m, int k, int n, check_fill fill, kn_dtype stored,
                        linear_params p, int extra)
{
    static const char *const acts[] = {"none", "silu", "gelu_tanh", "gelu_erf"};
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "linear_%dx%dx%d_%s_w%s_%s_%s%s%s", m, k, n, kn_dtype_name(t),
                         kn_dtype_name(stored), check_fill_name(fill), acts[p.act],
                         p.bias ? "_bias" : "", extra ? "_strided" : ""))
            continue;
        check_in_strided(c, fill, t, 2, (int64_t[]){m, k}, extra);
        if (p.bias) check_in(c, CHECK_NORMAL, KN_F32, 1, (int64_t[]){n});
        check_weight(c, KN_WEIGHT_LINEAR, CHECK_NORMAL, stored, 2, (int64_t[]){n, k});
        check_out_strided(c, t, 2, (int64_t[]){m, n}, extra);
        /* A chain of K roundings of at most eps * sum|x||w| each adds up like a random walk:
         * sqrt(K).
         * 8 is about the largest of a million normal deviates plus bias, activation and output. */
        double eps = check_eps(KN_F32) * sqrt(k) + 2 * check_eps(t);
        check_bound b = {
            .tol = 8 * eps, .nmse = eps * eps, .abs_magnitude = true, .flops = 2.0 * m * k * n};
        check_run(c, run_linear, &p, NULL, &b);
    }
}

static kn_status run_embed(kn_dev *d, const check_args *a)
{
    return kn_embed(d, &a->w[0], a->index, a->t[0].dim[0], &a->t[0]);
}

void check_linear(check *c)
{
    static const int shapes[][3] = {
        /* M, K, N: production, then tails of strips (14, 6) and panels (32, 16, 8), and blocks of
         * K */
        {300, 256, 960}, {300, 960, 256}, {1, 256, 1536}, {32, 128, 512},
        {1, 1, 1},       {2, 3, 5},       {13, 31, 33},   {14, 32, 32},
        {15, 33, 31},    {27, 383, 17},   {29, 385, 16},  {57, 641, 47},
        {113, 100, 129}, {5, 1537, 65},   {7, 64, 15},    {1100, 40, 520},
    };
    linear_params none = {.act = KN_ACT_NONE, .bias = true};
    for (int i = 0; i < (int)(sizeof shapes / sizeof *shapes); i++)
        linear_case(c, shapes[i][0], shapes[i][1], shapes[i][2], CHECK_NORMAL, KN_BF16, none, 0);
    for (int f = 0; f < CHECK_FILLS; f++)
        for (kn_dtype stored = KN_F32; stored <= KN_F16; stored++)
            linear_case(c, 31, 260, 72, (check_fill)f, stored, none, 0);
    for (int act = KN_ACT_NONE; act <= KN_ACT_GELU_ERF; act++)
        for (int bias = 0; bias < 2; bias++)
            linear_case(c, 45, 130, 100, CHECK_NORMAL, KN_F32,
                        (linear_params){.act = (kn_activation)act, .bias = bias}, 24);
    static const int32_t ids[] = {0, 6, 6, 1, 5, 2};
    for (kn_dtype stored = KN_F32; stored <= KN_F16; stored++)
        for (int width = 1; width <= 129; width += 64) {
            kn_dtype t;
            for (int i = 0; check_activation(c, i, &t); i++) {
                if (!check_begin(c, "embed_7x%d_%s_%s", width, kn_dtype_name(stored),
                                 kn_dtype_name(t)))
                    continue;
                check_weight(c, KN_WEIGHT_TABLE, CHECK_NORMAL, stored, 2, (int64_t[]){7, width});
                check_out_strided(c, t, 2, (int64_t[]){6, width}, 8);
                double eps = t == KN_F32 ? 0 : 2 * check_eps(t); /* a copy; one rounding in bf16 */
                check_run(c, run_embed, NULL, ids, &(check_bound){.tol = eps, .nmse = eps * eps});
            }
        }
}
