/* tests/check/check_element.c - act, mul, axpby, gate_add, rope. */
#include <math.h>

#include "check.h"

static const int shapes[][2] = {{300, 256}, {5, 960}, {700, 16}, {11, 1}, {9, 31}, {4, 1025}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct element_case {
    int op; /* index into names */
    kn_activation act;
    bool gate;
    float a, b;
} element_case;

enum { ACT, MUL, AXPBY, GATE };
static const char *const names[] = {"act", "mul", "axpby", "gate_add"};

static kn_status run_element(kn_dev *d, const check_args *a)
{
    const element_case *e = a->params;
    kn_activation act = a->magnitude ? KN_ACT_NONE : e->act;
    switch (e->op) {
    case ACT: return kn_act(d, &a->t[0], act, &a->t[1]);
    case MUL: return kn_mul(d, &a->t[0], act, &a->t[1], &a->t[2]);
    case AXPBY:
        return a->magnitude ? kn_axpby(d, fabsf(e->a), &a->t[0], fabsf(e->b), &a->t[1], &a->t[2])
                            : kn_axpby(d, e->a, &a->t[0], e->b, &a->t[1], &a->t[2]);
    default:
        return kn_gate_add(d, &a->t[0], &a->t[1], e->gate ? &a->t[2] : KN_ABSENT,
                           &a->t[e->gate ? 3 : 2]);
    }
}

static void element(check *c, int rows, int width, check_fill fill, element_case e, int extra,
                    int in_place)
{
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "%s_%dx%d_%s_%s_act%d%s%s%s", names[e.op], rows, width,
                         kn_dtype_name(t), check_fill_name(fill), e.act, e.gate ? "_gate" : "",
                         extra ? "_strided" : "",
                         in_place == 0   ? "_inplace"
                         : in_place == 1 ? "_inplace_y"
                                         : ""))
            continue;
        int64_t dims[2] = {rows, width};
        check_in_strided(c, fill, t, 2, dims, extra);
        if (e.op != ACT) check_in_strided(c, CHECK_NORMAL, t, 2, dims, extra);
        if (e.gate) check_in(c, CHECK_NORMAL, KN_F32, 1, &dims[1]);
        if (in_place >= 0)
            check_out_in_place(c, in_place);
        else
            check_out_strided(c, t, 2, dims, extra);
        /* axpby and gate_add: two roundings of |ax| + |by|. Activations against |x| |y|: exp with
         * its argument's rounding (gelu: up to 10 in the exponent where the result is small beside
         * x), division, products: 12 eps. */
        double eps = check_eps(KN_F32) * (e.act ? 12 : 3) + 2 * check_eps(t);
        check_bound b = {.tol = eps, .nmse = eps * eps, .abs_magnitude = true};
        check_run(c, run_element, &e, NULL, &b);
    }
}

static kn_status run_rope(kn_dev *d, const check_args *a)
{
    return kn_rope(d, &a->t[0], &a->t[1], &a->t[2], &a->t[3]);
}

/* |x| of both of a pair times |cos| and |sin|. */
static void rope_magnitude(const check_args *ref, double *m)
{
    const double *x = ref->t[0].data, *co = ref->t[1].data, *si = ref->t[2].data;
    int64_t N = ref->t[0].dim[1], D = ref->t[0].dim[2];
    for (int64_t i = 0; i < kn_tensor_count(&ref->t[0]); i++) {
        int64_t angle = i / (N * D) * (D / 2) + i % D / 2;
        m[i] = fabs(x[i] * co[angle]) + fabs(x[i ^ 1] * si[angle]);
    }
}

static void rope_case(check *c, int L, int N, int D, check_fill fill, int extra)
{
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "rope_%dx%dx%d_%s_%s%s", L, N, D, kn_dtype_name(t),
                         check_fill_name(fill), extra ? "_strided" : ""))
            continue;
        check_in_strided(c, fill, t, 3, (int64_t[]){L, N, D}, extra);
        check_in(c, CHECK_NORMAL, KN_F32, 2, (int64_t[]){L, D / 2});
        check_in(c, CHECK_NORMAL, KN_F32, 2, (int64_t[]){L, D / 2});
        check_out_strided(c, t, 3, (int64_t[]){L, N, D}, extra);
        double eps = check_eps(KN_F32) * 4 + 2 * check_eps(t); /* two products and a sum */
        check_run(c, run_rope, NULL, NULL,
                  &(check_bound){.tol = eps, .nmse = eps * eps, .magnitude = rope_magnitude});
    }
}

/* There and back. */
static kn_status run_quantize(kn_dev *d, const check_args *a)
{
    kn_dtype eight = *(const kn_dtype *)a->params;
    int64_t rows = a->t[0].dim[0], width = a->t[0].dim[1];
    kn_tensor codes = kn_tensor_of(NULL, eight, rows, width), scale = kn_tensor_of(NULL, KN_F32, rows);
    kn_status st = kn_dev_alloc(d, kn_tensor_bytes(&codes), &codes.data);
    if (st == KN_OK) st = kn_dev_alloc(d, kn_tensor_bytes(&scale), &scale.data);
    if (st == KN_OK) st = kn_quantize(d, &a->t[0], &codes, &scale);
    if (st == KN_OK) st = kn_dequantize(d, &codes, &scale, &a->t[1]);
    kn_dev_free(d, scale.data, kn_tensor_bytes(&scale));
    kn_dev_free(d, codes.data, kn_tensor_bytes(&codes));
    return st;
}

/* A step of a row, of e4m3 the largest: where a value lies between two codes, either is right. */
static void quantize_magnitude(const check_args *ref, double *m)
{
    const double *x = ref->t[0].data;
    int64_t rows = ref->t[0].dim[0], width = ref->t[0].dim[1];
    for (int64_t r = 0; r < rows; r++) {
        double most = 0;
        for (int64_t i = 0; i < width; i++) most = fmax(most, fabs(x[r * width + i]));
        bool i8 = *(const kn_dtype *)ref->params == KN_I8;
        for (int64_t i = 0; i < width; i++) /* e4m3: 2^-3 of a value, from 2^-6 of the codes' range on */
            m[r * width + i] = i8 ? most / 127 : fmax(fabs(x[r * width + i]) / 8, most / 448 * 0x1p-9);
    }
}

static void quantize_case(check *c, kn_dtype eight, int rows, int width, check_fill fill)
{
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        if (!check_begin(c, "quantize_%s_%dx%d_%s_%s", kn_dtype_name(eight), rows, width, kn_dtype_name(t),
                         check_fill_name(fill)))
            continue;
        check_in(c, fill, t, 2, (int64_t[]){rows, width});
        check_out(c, t, 2, (int64_t[]){rows, width});
        /* A step, and 127 steps' rounding in t; in the mean few codes differ, but on bf16 every result is
         * rounded once more, by up to eps of 127 steps. */
        double tol = 1 + 127 * 2 * check_eps(t), rounding = 127 * check_eps(t);
        check_run(c, run_quantize, &eight, NULL,
                  &(check_bound){.tol = tol, .nmse = 1e-4 + rounding * rounding, .magnitude = quantize_magnitude});
    }
}

void check_element(check *c)
{
    for (int f = 0; f < CHECK_FILLS; f++) {
        for (kn_dtype eight = KN_I8; eight <= KN_F8; eight++) {
            quantize_case(c, eight, 301, 128, (check_fill)f);
            quantize_case(c, eight, 5, 1025, (check_fill)f);
            quantize_case(c, eight, 19, 1536, (check_fill)f);
            quantize_case(c, eight, 9, 8960, (check_fill)f);
        }
    }
    for (int i = 0; i < SHAPES; i++) {
        int r = shapes[i][0], w = shapes[i][1];
        element(c, r, w, CHECK_NORMAL, (element_case){.op = AXPBY, .a = 0.3f, .b = -1.7f}, 0, -1);
        element(c, r, w, CHECK_NORMAL, (element_case){.op = GATE, .gate = true}, 0, -1);
        element(c, r, w, CHECK_NORMAL, (element_case){.op = GATE}, 0, 0);
        element(c, r, w, CHECK_NORMAL, (element_case){.op = MUL, .act = KN_ACT_GELU_TANH}, 0, 1);
    }
    for (int f = 0; f < CHECK_FILLS; f++) {
        for (int act = 0; act <= KN_ACT_GELU_ERF; act++) {
            element(c, 61, 77, (check_fill)f, (element_case){.op = ACT, .act = (kn_activation)act},
                    0, -1);
            element(c, 61, 77, (check_fill)f, (element_case){.op = MUL, .act = (kn_activation)act},
                    3, -1);
        }
        element(c, 21, 45, (check_fill)f, (element_case){.op = AXPBY, .a = 2.5f, .b = 1}, 3, -1);
        element(c, 21, 45, (check_fill)f, (element_case){.op = GATE, .gate = true}, 3, -1);
    }
    element(c, 21, 45, CHECK_NORMAL, (element_case){.op = ACT, .act = KN_ACT_SILU}, 3, 0);
    element(c, 21, 45, CHECK_NORMAL, (element_case){.op = AXPBY, .a = 1, .b = -1}, 0, 0);
    element(c, 21, 45, CHECK_NORMAL, (element_case){.op = AXPBY, .a = 1, .b = -1}, 0, 1);
    static const int rope_shapes[][3] = {{300, 4, 64}, {40, 12, 128}, {3, 1, 2},
                                         {5, 3, 6},    {7, 2, 18},    {9, 5, 44}};
    for (int i = 0; i < (int)(sizeof rope_shapes / sizeof *rope_shapes); i++)
        for (int extra = 0; extra < 8; extra += 5)
            rope_case(c, rope_shapes[i][0], rope_shapes[i][1], rope_shapes[i][2], CHECK_NORMAL,
                      extra);
    for (int f = 0; f < CHECK_FILLS; f++) rope_case(c, 6, 3, 36, (check_fill)f, 0);
}
