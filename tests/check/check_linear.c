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

/* Both factors through quantize; the rows' own rounding is part of what is compared. */
static kn_status run_linear_f8(kn_dev *d, const check_args *a)
{
    const linear_params *p = a->params;
    int64_t m = a->t[0].dim[0], k = a->t[0].dim[1], n = a->w[0].t.dim[0];
    kn_eight_bits x = {kn_tensor_of(NULL, KN_F8, m, k), kn_tensor_of(NULL, KN_F32, m)};
    kn_eight_bits room = {kn_tensor_of(NULL, KN_F8, n, k), kn_tensor_of(NULL, KN_F32, n)};
    kn_tensor *all[] = {&x.codes, &x.scale, &room.codes, &room.scale};
    kn_status st = KN_OK;
    for (int i = 0; i < 4 && st == KN_OK; i++) st = kn_dev_alloc(d, kn_tensor_bytes(all[i]), &all[i]->data);
    if (st == KN_OK) st = kn_quantize(d, &a->t[0], &x.codes, &x.scale);
    if (st == KN_OK)
        st = kn_linear_f8(d, &x, &a->w[0], &room, p->bias ? &a->t[1] : KN_ABSENT,
                          a->magnitude ? KN_ACT_NONE : p->act, &a->t[p->bias ? 2 : 1]);
    for (int i = 0; i < 4; i++)
        if (all[i]->data) kn_dev_free(d, all[i]->data, kn_tensor_bytes(all[i]));
    return st;
}

static void linear_f8_case(check *c, int m, int k, int n, check_fill fill, linear_params p)
{
    static const char *const acts[] = {"none", "silu", "gelu_tanh", "gelu_erf"};
    kn_dtype t = kn_dev_activation_dtype(check_dev(c));
    if (!kn_dev_multiplies_f8(check_dev(c)) ||
        !check_begin(c, "linear_f8_%dx%dx%d_%s_%s_%s%s", m, k, n, kn_dtype_name(t), check_fill_name(fill),
                     acts[p.act], p.bias ? "_bias" : ""))
        return;
    check_in(c, fill, t, 2, (int64_t[]){m, k});
    if (p.bias) check_in(c, CHECK_NORMAL, KN_F32, 1, (int64_t[]){n});
    check_weight(c, KN_WEIGHT_LINEAR, CHECK_NORMAL, KN_BF16, 2, (int64_t[]){n, k});
    check_out(c, t, 2, (int64_t[]){m, n});
    /* Tensor cores of sm_90 add products of e4m3 with some 13 bits behind the largest: of each of the K / 32 sums
     * that follow one another 2^-13 of a partial sum is lost. Codes that the device rounds the other way, for its
     * x / scale is in f32, are rarer than one in 10^4. */
    double eps = 0x1p-13 * sqrt(k / 32.0 + 1) + 2 * check_eps(t);
    check_bound b = {.tol = 8 * eps, .nmse = eps * eps, .abs_magnitude = true, .flops = 2.0 * m * k * n};
    check_run(c, run_linear_f8, &p, NULL, &b);
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
    static const int f8_shapes[][3] = {{300, 256, 960}, {1, 16, 16},     {45, 1536, 1536}, {513, 1536, 128},
                                       {77, 8960, 256}, {130, 48, 8960}, {64, 1024, 272}};
    for (int i = 0; i < (int)(sizeof f8_shapes / sizeof *f8_shapes); i++)
        linear_f8_case(c, f8_shapes[i][0], f8_shapes[i][1], f8_shapes[i][2], CHECK_NORMAL, none);
    for (int f = 0; f < CHECK_FILLS; f++) linear_f8_case(c, 31, 272, 64, (check_fill)f, none);
    for (int act = KN_ACT_NONE; act <= KN_ACT_GELU_ERF; act++)
        for (int bias = 0; bias < 2; bias++)
            linear_f8_case(c, 45, 144, 96, CHECK_NORMAL, (linear_params){.act = (kn_activation)act, .bias = bias});
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
