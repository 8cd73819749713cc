/* tests/check/check_attention.c - dense attention and attention over a window plan. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/window.h"
#include "check.h"

/* norm: t[3] to t[6] are weights, cosines and sines, and q and k come without. room: the call may use memory of its
 * inputs, and its output takes the place of q. Inputs have to stay as they are, so these get copies. */
typedef struct attention_case {
    float scale;
    bool bias, int8, norm, room;
    float skip_below;
    const kn_attn_plan *plan; /* NULL: dense */
} attention_case;

static kn_status run_with(kn_dev *d, const attention_case *n, const kn_attn_args *args)
{
    return n->plan ? kn_attn_sparse(d, args, n->plan, NULL) : kn_attn_dense(d, args, NULL);
}

static kn_status run_on_copies(kn_dev *d, const check_args *a)
{
    const attention_case *n = a->params;
    const kn_tensor *out = &a->t[n->norm ? 7 : 3];
    kn_attn_args args = {.scale = n->scale, .out = *out, .int8 = n->int8};
    kn_attn_norm norm = {.eps = 1e-6f};
    kn_tensor *to[4] = {&args.q, &args.k, &args.v, &args.room};
    size_t room = kn_attn_int8_room_bytes(out->dim[0], (int)out->dim[1]);
    int copies = n->room ? 4 : 3;
    kn_status st = KN_OK;
    if (n->norm) norm.weight_q = a->t[3], norm.weight_k = a->t[4], norm.cos = a->t[5], norm.sin = a->t[6], args.norm = &norm;
    for (int i = 0; i < copies; i++) {
        *to[i] = i < 3 ? kn_tensor_make(NULL, a->t[i].dtype, 3, a->t[i].dim) : kn_tensor_of(NULL, KN_I8, (int64_t)room);
        KN_TRY_GOTO(kn_dev_alloc(d, kn_tensor_bytes(to[i]), &to[i]->data));
        if (i < 3) KN_TRY_GOTO(kn_copy(d, &a->t[i], to[i]));
    }
    if (n->room) args.out = args.q;
    KN_TRY_GOTO(run_with(d, n, &args));
    if (n->room) KN_TRY_GOTO(kn_copy(d, &args.out, out));
    KN_TRY_GOTO(kn_dev_sync(d));
done:
    for (int i = 0; i < 4; i++)
        if (to[i]->data) kn_dev_free(d, to[i]->data, kn_tensor_bytes(to[i]));
    return st;
}

static kn_status run_attention(kn_dev *d, const check_args *a)
{
    const attention_case *n = a->params;
    if (n->norm || n->room) return run_on_copies(d, a);
    kn_attn_args args = {
        .q = a->t[0], .k = a->t[1], .v = a->t[2], .scale = n->scale, .out = a->t[n->bias ? 4 : 3],
        .int8 = n->int8, .skip_below = n->skip_below};
    if (n->bias) args.bias = a->t[3];
    return run_with(d, n, &args);
}

/* kn_norm_rope in double. */
static double *normed(const check_args *ref, int which)
{
    const double *x = ref->t[which].data, *w = ref->t[3 + which].data, *co = ref->t[5].data, *si = ref->t[6].data;
    int64_t rows = ref->t[which].dim[0], D = ref->t[which].dim[2], width = ref->t[which].dim[1] * D;
    double *y = calloc((size_t)(rows * width), sizeof *y);
    for (int64_t l = 0; l < rows; l++) {
        double sum = 0;
        for (int64_t i = 0; i < width; i++) sum += x[l * width + i] * x[l * width + i];
        double f = 1 / sqrt(sum / (double)width + 1e-6f);
        for (int64_t i = 0; i < width; i += 2) {
            int64_t at = l * width + i, angle = l * (D / 2) + i % D / 2;
            double re = x[at] * f * w[i], im = x[at + 1] * f * w[i + 1];
            y[at] = re * co[angle] - im * si[angle], y[at + 1] = re * si[angle] + im * co[angle];
        }
    }
    return y;
}

/* An error e of the logits changes an output by at most 2 e sum(p |v|); the logits' error is eps
 * times their sum of absolute products. So m = sum(p |v|) * (1 + largest sum of absolute
 * products).
 * Weights of int8 are whole parts of 255 below a score that may lie a little above the largest (attention/int8.h): each
 * of them may be rounded to the other side, by 1/255 of the largest weight, however small its own share of the sum.
 * In the mean such a step is 0.4: 2 sqrt(sum(v^2)) of the largest weight is five deviations of all steps together. */
static void attention_magnitude(const check_args *ref, double *m)
{
    const attention_case *n = ref->params;
    double *nq = n->norm ? normed(ref, 0) : NULL, *nk = n->norm ? normed(ref, 1) : NULL;
    const double *q = n->norm ? nq : ref->t[0].data, *k = n->norm ? nk : ref->t[1].data, *v = ref->t[2].data;
    const double *bias = n->bias ? ref->t[3].data : NULL;
    int64_t lq = ref->t[0].dim[0], heads = ref->t[0].dim[1], dim = ref->t[0].dim[2];
    int64_t lk = ref->t[1].dim[0], dv = ref->t[2].dim[2];
    double *s = malloc((size_t)lk * sizeof *s);
    uint8_t *visible = malloc((size_t)lk);
    memset(visible, 1, (size_t)lk);
    for (int64_t i = 0; i < lq; i++)
        for (int64_t h = 0; h < heads; h++) {
            double top = -INFINITY, sum = 0, largest = 0;
            if (n->plan && kn_attn_plan_row(n->plan, (int)h, i, visible) != KN_OK) abort();
            for (int64_t j = 0; j < lk; j++) {
                double absolute = s[j] = bias ? bias[(h * lq + i) * lk + j] / n->scale : 0;
                absolute = fabs(absolute);
                for (int64_t c = 0; c < dim; c++) {
                    double x = q[(i * heads + h) * dim + c] * k[(j * heads + h) * dim + c];
                    s[j] += x;
                    absolute += fabs(x);
                }
                s[j] = visible[j] ? s[j] * n->scale : -INFINITY;
                top = fmax(top, s[j]);
                largest = fmax(largest, absolute * n->scale);
            }
            for (int64_t j = 0; j < lk; j++) sum += s[j] = exp(s[j] - top);
            for (int64_t c = 0; c < dv; c++) {
                double weighted = 0, square = 0;
                for (int64_t j = 0; j < lk; j++) {
                    double y = v[(j * heads + h) * dv + c];
                    weighted += s[j] / sum * fabs(y);
                    square += visible[j] ? y * y : 0;
                }
                m[(i * heads + h) * dv + c] = weighted * (1 + largest) + (n->int8 ? 2 * sqrt(square) / sum : 0);
            }
        }
    free(s);
    free(visible);
    free(nq);
    free(nk);
}

typedef struct shape {
    int lq, lk, heads, dim, dv;
} shape;

static void attention_case_run(check *c, shape s, check_fill qk, check_fill v, attention_case n,
                               int extra)
{
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (check_kind(c) == KN_DEV_CUDA && t != KN_BF16) continue; /* the one dtype it takes */
        if (!check_begin(c, "attention%s%s%s%s%s_%dx%d_%dx%d_%d_%s_%s_%s%s%s", n.plan ? "_window" : "",
                         n.int8 ? "_int8" : "", n.norm ? "_norm" : "", n.room ? "_room" : "",
                         n.skip_below > 0 ? "_skip" : "",
                         s.lq, s.lk, s.heads, s.dim, s.dv, kn_dtype_name(t), check_fill_name(qk),
                         check_fill_name(v), n.bias ? "_bias" : "", extra ? "_strided" : ""))
            continue;
        check_in_strided(c, qk, t, 3, (int64_t[]){s.lq, s.heads, s.dim}, extra);
        check_in_strided(c, qk, t, 3, (int64_t[]){s.lk, s.heads, s.dim}, extra);
        check_in_strided(c, v, t, 3, (int64_t[]){s.lk, s.heads, s.dv}, extra);
        if (n.bias) check_in(c, CHECK_NORMAL, KN_F32, 3, (int64_t[]){s.heads, s.lq, s.lk});
        for (int w = 0; n.norm && w < 2; w++) check_in(c, CHECK_NORMAL, KN_F32, 1, (int64_t[]){(int64_t)s.heads * s.dim});
        for (int w = 0; n.norm && w < 2; w++) check_in(c, CHECK_NORMAL, KN_F32, 2, (int64_t[]){s.lq, s.dim / 2});
        check_out_strided(c, t, 3, (int64_t[]){s.lq, s.heads, s.dv}, extra);
        /* fp32 inside: a dot product of D terms ends about log2(D) roundings off in the mean and
         * sqrt(D) when it goes badly, the exponential 2, the weighted sum as the dot product; times
         * the 2 above. Equal terms, as of constant rows, round alike and their errors add up: half
         * an eps for each of D. On bf16 the weights and the output are rounded to bf16 too. */
        double eps =
            check_eps(KN_F32) * (32 + (qk == CHECK_CONSTANT ? s.dim : 0)) + 2 * check_eps(t);
        check_bound b = {.tol = eps,
                         .nmse = eps * eps,
                         .magnitude = attention_magnitude,
                         .flops = 4.0 * s.lq * s.lk * s.heads * (s.dim + s.dv) / 2};
        /* A weight of int8 rounds the other way where the exponential differs in the last bit: of
         * 255 parts of the largest of 128. */
        if (n.int8) b.tol += 1.0 / 255, b.nmse = b.tol * b.tol;
        /* q and k that are rounded to bf16 after the norm; with int8 only where the packing does not do it, and then
         * a quarter of their bytes, of 8 bits too, are others. */
        bool apart = n.norm && (!n.int8 || s.heads > 40);
        if (apart) b.tol += (n.int8 ? 3.0 / 255 : 0) + 2 * check_eps(t) + 16 * check_eps(KN_F32), b.nmse = b.tol * b.tol;
        check_run(c, run_attention, &n, NULL, &b);
    }
}

/* Norm and rotation as part of attention: in 8 bits on the way to bytes, of up to 12 heads, up to 40, and more, where
 * they come before. */
static void norm_cases(check *c, attention_case n)
{
    n.norm = true;
    attention_case_run(c, (shape){65, 65, 3, 64, 64}, CHECK_NORMAL, CHECK_NORMAL, n, 0);
    if (!kn_attn_approximates(check_dev(c))) return;
    static const shape shapes[] = {{300, 300, 2, 128, 128}, {131, 131, 3, 128, 128}, {70, 70, 12, 128, 128},
                                   {1, 1, 1, 128, 128},     {37, 37, 13, 128, 128},  {21, 21, 40, 128, 128},
                                   {20, 20, 41, 128, 128}};
    n.int8 = true;
    for (int i = 0; i < (int)(sizeof shapes / sizeof *shapes); i++) {
        n.room = i % 2;
        attention_case_run(c, shapes[i], CHECK_NORMAL, CHECK_NORMAL, n, 0);
    }
    n.norm = false, n.room = true;
    attention_case_run(c, shapes[0], CHECK_NORMAL, CHECK_NORMAL, n, 0);
}

/* Where the device has them, against the same rules in double. */
static void approximate_cases(check *c, shape s, attention_case n)
{
    if (!kn_attn_approximates(check_dev(c))) return;
    n.int8 = true;
    attention_case_run(c, s, CHECK_NORMAL, CHECK_NORMAL, n, 0);
    n.int8 = false, n.skip_below = 0.02f;
    attention_case_run(c, s, CHECK_NORMAL, CHECK_NORMAL, n, 0);
}

static void window_cases(check *c)
{
    static const struct {
        int grid[3], tile[3], query[3];
        int64_t text;
    } cases[] = {{{3, 9, 11}, {3, 3, 2}, {0, 0, 0}, 0}, {{3, 9, 11}, {3, 1, 1}, {3, 3, 2}, 7}};
    for (int i = 0; i < 2; i++) {
        kn_window_params w = {.layout = {.text = cases[i].text},
                              .block = 16,
                              .window = {{.size = 0}, {.size = 5}, {.size = 7}}};
        memcpy(w.layout.grid, cases[i].grid, sizeof w.layout.grid);
        memcpy(w.layout.tile, cases[i].tile, sizeof w.layout.tile);
        memcpy(w.query_tile, cases[i].query, sizeof w.query_tile);
        kn_attn_plan *plan;
        if (kn_window_plan(&w, &plan) != KN_OK) abort();
        int tokens = (int)plan->tokens;
        attention_case n = {.scale = 0.125f, .plan = plan};
        attention_case_run(c, (shape){tokens, tokens, 2, 64, 64}, CHECK_NORMAL, CHECK_NORMAL, n, 0);
        attention_case_run(c, (shape){tokens, tokens, 1, 128, 128}, CHECK_SPIKE, CHECK_NORMAL, n,
                           8);
        approximate_cases(c, (shape){tokens, tokens, 2, 128, 128}, n);
        if (kn_attn_approximates(check_dev(c))) {
            n.int8 = n.norm = n.room = true;
            attention_case_run(c, (shape){tokens, tokens, 12, 128, 128}, CHECK_NORMAL, CHECK_NORMAL, n, 0);
        }
        kn_attn_plan_free(&plan);
    }
}

void check_attention(check *c)
{
    static const shape shapes[] = {{1, 1, 1, 1, 1},         {3, 5, 2, 8, 8},
                                   {33, 97, 2, 16, 16},     {129, 95, 2, 64, 64},
                                   {130, 300, 1, 128, 128}, {40, 191, 1, 72, 48},
                                   {31, 200, 1, 384, 384},  {20, 33, 1, 257, 13}};
    attention_case plain = {.scale = 0.125f}, biased = {.scale = 1.0f, .bias = true};
    for (int i = 0; i < (int)(sizeof shapes / sizeof *shapes); i++) {
        attention_case_run(c, shapes[i], CHECK_NORMAL, CHECK_NORMAL, plain, 0);
        attention_case_run(c, shapes[i], CHECK_NORMAL, CHECK_NORMAL, biased, 0);
        attention_case_run(c, shapes[i], CHECK_NORMAL, CHECK_NORMAL, plain, 16);
    }
    for (int f = 0; f < CHECK_FILLS; f++) {
        attention_case_run(c, shapes[3], CHECK_NORMAL, (check_fill)f, plain, 0);
        attention_case_run(c, shapes[3], (check_fill)f, CHECK_NORMAL, plain, 0);
    }
    /* More scores than one piece of scratch on a GPU: two pieces, the second one short. */
    if (check_kind(c) == KN_DEV_CUDA)
        attention_case_run(c, (shape){1100, 16400, 2, 8, 8}, CHECK_NORMAL, CHECK_NORMAL, biased, 0);
    approximate_cases(c, (shape){130, 300, 2, 128, 128}, plain);
    approximate_cases(c, (shape){33, 1000, 1, 128, 128}, plain);
    norm_cases(c, plain);
    window_cases(c);
}
