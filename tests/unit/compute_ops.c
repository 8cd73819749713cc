/* tests/unit/compute_ops.c - operations against values worked out by hand, and what the front ends
 * refuse. The hand cases pin ref, against which kn_check holds everything else; cpu runs them
 * too. */
#include <math.h>

#include "compute/ops.h"
#include "tests/expect.h"

static kn_dev *devices[2];

static int open_devices(void **state)
{
    (void)state;
    kn_dev_params p = {.kind = KN_DEV_REF, .threads = 1};
    if (kn_dev_open(&p, &devices[0]) != KN_OK) return -1;
    p.kind = KN_DEV_CPU;
    return kn_dev_open(&p, &devices[1]) == KN_OK ? 0 : -1;
}

static int close_devices(void **state)
{
    (void)state;
    kn_dev_close(&devices[0]);
    kn_dev_close(&devices[1]);
    return 0;
}

#define T(data, ...) kn_tensor_of((data), KN_F32, __VA_ARGS__)

static void same(const float *got, const float *want, int n)
{
    for (int i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= 2e-6f * (1 + fabsf(want[i]))))
            fail_msg("element %d: got %.9g, expected %.9g", i, (double)got[i], (double)want[i]);
}

/* ---- values ---------------------------------------------------------------------------------- */

static void linear_by_hand(void **state)
{
    (void)state;
    float x[] = {1, 2, 3, -1, 0, 2}, w[] = {1, 0, -1, 2, 1, 0.5f}, b[] = {10, -4}, out[4];
    kn_tensor tx = T(x, 2, 3), tw = T(w, 2, 3), tb = T(b, 2), to = T(out, 2, 2);
    for (int i = 0; i < 2; i++) {
        kn_weight weight;
        expect_ok(kn_weight_open(devices[i], KN_WEIGHT_LINEAR, &tw, &weight));
        expect_ok(kn_linear(devices[i], &tx, &weight, &tb, KN_ACT_NONE, &to));
        same(out, (float[]){8, 1.5f, 7, -5}, 4);
        expect_ok(kn_linear(devices[i], &tx, &weight, KN_ABSENT, KN_ACT_SILU, &to));
        same(out, (float[]){-0.23840584f, 5.4776263f, -0.14227762f, -0.26894142f}, 4);
        kn_weight_close(devices[i], &weight);
    }
}

/* Rows of one value times a scale each are exact in e4m3. */
static void linear_f8_by_hand(void **state)
{
    (void)state;
    enum { M = 2, K = 16, N = 16 };
    static float x[M * K], w[N * K], b[N], out[M * N], want[M * N], scale[M], room_scale[N];
    static uint8_t codes[M * K], room_codes[N * K];
    for (int m = 0; m < M; m++)
        for (int k = 0; k < K; k++) x[m * K + k] = (k % 2 ? -0.5f : 1) * (m ? 3 : 0.25f);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) w[n * K + k] = k % 2 ? 0 : (float)(n + 1);
    for (int n = 0; n < N; n++) b[n] = (float)n;
    for (int i = 0; i < M * N; i++) want[i] = 8 * (i / N ? 3 : 0.25f) * (float)(i % N + 1) + (float)(i % N);
    kn_eight_bits r = {kn_tensor_of(codes, KN_F8, M, K), T(scale, M)};
    kn_eight_bits room = {kn_tensor_of(room_codes, KN_F8, N, K), T(room_scale, N)};
    kn_tensor tx = T(x, M, K), tw = T(w, N, K), tb = T(b, N), to = T(out, M, N), odd = T(out, M, N - 1);
    kn_weight weight, narrow;
    kn_dev *ref = devices[0];
    expect_ok(kn_weight_open(ref, KN_WEIGHT_LINEAR, &tw, &weight));
    expect_ok(kn_quantize(ref, &tx, &r.codes, &r.scale));
    assert_int_equal(codes[0], 0x7e); /* the largest of a row: 448 */
    expect_ok(kn_linear_f8(ref, &r, &weight, &room, &tb, KN_ACT_NONE, &to));
    same(out, want, M * N);
    assert_true(kn_dev_multiplies_f8(ref) && !kn_dev_multiplies_f8(devices[1]));
    expect_fail(kn_linear_f8(ref, &r, &weight, &room, &tb, KN_ACT_NONE, &odd), KN_ERR_ARG, "do not fit");
    kn_eight_bits floats = {tx, r.scale}, few = {r.codes, T(scale, 1)};
    expect_fail(kn_linear_f8(ref, &floats, &weight, &room, &tb, KN_ACT_NONE, &to), KN_ERR_ARG, "f8 expected");
    expect_fail(kn_linear_f8(ref, &few, &weight, &room, &tb, KN_ACT_NONE, &to), KN_ERR_ARG, "2 values expected");
    kn_tensor tn = T(w, N, 8);
    kn_eight_bits r8 = {kn_tensor_of(codes, KN_F8, M, 8), r.scale}, room8 = {kn_tensor_of(room_codes, KN_F8, N, 8), room.scale};
    expect_ok(kn_weight_open(ref, KN_WEIGHT_LINEAR, &tn, &narrow));
    expect_fail(kn_linear_f8(ref, &r8, &narrow, &room8, &tb, KN_ACT_NONE, &to), KN_ERR_ARG, "multiples of 16");
    kn_weight_close(ref, &narrow);
    kn_weight_close(ref, &weight);
    expect_ok(kn_weight_open(devices[1], KN_WEIGHT_LINEAR, &tw, &weight));
    expect_fail(kn_linear_f8(devices[1], &r, &weight, &room, &tb, KN_ACT_NONE, &to), KN_ERR_UNSUPPORTED, "Hopper");
    kn_weight_close(devices[1], &weight);
}

static void conv_by_hand(void **state)
{
    (void)state;
    /* one frame 2x3, one channel; kernel 1x2x2 with a pixel of zeros on the right and below */
    float x[] = {1, 2, 3, 4, 5, 6}, w[] = {1, 10, 100, 1000}, b[] = {0.5f}, r[6], out[6];
    for (int i = 0; i < 6; i++) r[i] = (float)i;
    kn_tensor tx = T(x, 1, 2, 3, 1), tw = T(w, 1, 1, 1, 2, 2), tb = T(b, 1),
              to = T(out, 1, 2, 3, 1);
    kn_tensor tr = T(r, 1, 2, 3, 1);
    kn_conv_params p = {.stride = {1, 1, 1}, .pad_hi = {0, 1, 1}};
    for (int i = 0; i < 2; i++) {
        kn_weight weight;
        expect_ok(kn_weight_open(devices[i], KN_WEIGHT_CONV, &tw, &weight));
        expect_ok(kn_conv(devices[i], &tx, &weight, &tb, &tr, &p, &to));
        same(out, (float[]){5421.5f, 6533.5f, 605.5f, 57.5f, 69.5f, 11.5f}, 6);
        kn_weight_close(devices[i], &weight);
    }
    /* two frames in front of a time kernel: out[t] = x[t-2] + 10 x[t-1] + 100 x[t] */
    float frames[] = {1, 2, 3}, taps[] = {1, 10, 100}, in_time[3];
    kn_tensor tf = T(frames, 3, 1, 1, 1), tk = T(taps, 1, 1, 3, 1, 1), tt = T(in_time, 3, 1, 1, 1);
    kn_conv_params causal = {.stride = {1, 1, 1}, .pad_lo = {2, 0, 0}};
    for (int i = 0; i < 2; i++) {
        kn_weight weight;
        expect_ok(kn_weight_open(devices[i], KN_WEIGHT_CONV, &tk, &weight));
        expect_ok(kn_conv(devices[i], &tf, &weight, KN_ABSENT, KN_ABSENT, &causal, &tt));
        same(in_time, (float[]){100, 210, 321}, 3);
        kn_weight_close(devices[i], &weight);
    }
}

static void norms_by_hand(void **state)
{
    (void)state;
    float x[] = {3, 4}, w[] = {2, -1}, out[2], big[] = {3e10f, 4e10f};
    kn_tensor tx = T(x, 1, 2), tw = T(w, 2), to = T(out, 1, 2), tb = T(big, 1, 2);
    for (int i = 0; i < 2; i++) {
        kn_rmsnorm_params p = {.eps = 0};
        expect_ok(kn_rmsnorm(devices[i], &tx, &tw, &p, &to)); /* rms = sqrt(12.5) */
        same(out, (float[]){1.6970563f, -1.1313709f}, 2);
        p = (kn_rmsnorm_params){.eps = 1e-12f, .l2_clamp = true};
        expect_ok(kn_rmsnorm(devices[i], &tx, KN_ABSENT, &p, &to)); /* 0.6, 0.8 times sqrt 2 */
        same(out, (float[]){0.84852814f, 1.1313709f}, 2);
        p.eps = 10; /* the norm, 5, is below it */
        expect_ok(kn_rmsnorm(devices[i], &tx, KN_ABSENT, &p, &to));
        same(out, (float[]){0.42426407f, 0.56568542f}, 2);
        p = (kn_rmsnorm_params){.eps = 1e-6f};
        expect_ok(kn_rmsnorm(devices[i], &tb, KN_ABSENT, &p, &to)); /* squares stay below 3e38 */
        same(out, (float[]){0.84852814f, 1.1313709f}, 2);
        /* mean 3.5, deviation 0.5: -1 and 1 */
        expect_ok(kn_layernorm(devices[i], &tx, NULL, NULL, &tw, &tx, 0, &to));
        same(out, (float[]){0, 4}, 2); /* -1 * 3 + 3, 1 * 0 + 4 */
        expect_ok(kn_layernorm(devices[i], &tx, &tw, NULL, NULL, NULL, 0, &to));
        same(out, (float[]){-2, -1}, 2);
    }
}

static void elements_by_hand(void **state)
{
    (void)state;
    float x[] = {1, -2, 0.5f, 3}, y[] = {2, 2, -4, 1}, g[] = {10, 100}, out[4];
    float co[] = {0, 0.6f}, si[] = {1, 0.8f};
    kn_tensor tx = T(x, 2, 2), ty = T(y, 2, 2), tg = T(g, 2), to = T(out, 2, 2);
    for (int i = 0; i < 2; i++) {
        kn_dev *d = devices[i];
        expect_ok(kn_gate_add(d, &tx, &ty, &tg, &to));
        same(out, (float[]){21, 198, -39.5f, 103}, 4);
        expect_ok(kn_gate_add(d, &tx, &ty, KN_ABSENT, &to));
        same(out, (float[]){3, 0, -3.5f, 4}, 4);
        expect_ok(kn_axpby(d, 2, &tx, -1, &ty, &to));
        same(out, (float[]){0, -6, 5, 5}, 4);
        expect_ok(kn_act(d, &tx, KN_ACT_SILU, &to));
        same(out, (float[]){0.73105858f, -0.23840584f, 0.31122967f, 2.8577224f}, 4);
        expect_ok(kn_act(d, &tx, KN_ACT_GELU_ERF, &to));
        same(out, (float[]){0.84134475f, -0.045500264f, 0.34573123f, 2.9959503f}, 4);
        expect_ok(kn_act(d, &tx, KN_ACT_GELU_TANH, &to));
        same(out, (float[]){0.84119199f, -0.045402306f, 0.34571401f, 2.9963627f}, 4);
        expect_ok(kn_mul(d, &tx, KN_ACT_NONE, &ty, &to));
        same(out, (float[]){2, -4, -2, 3}, 4);
        kn_tensor rx = T(x, 2, 1, 2), ro = T(out, 2, 1, 2), rc = T(co, 2, 1), rs = T(si, 2, 1);
        expect_ok(kn_rope(d, &rx, &rc, &rs, &ro));
        same(out, (float[]){2, 1, -2.1f, 2.2f}, 4);
    }
}

static void joined_by_hand(void **state)
{
    (void)state;
    float x[] = {1, 2, 3, 4}, w[] = {1, 1, 2, 1}, co[] = {0}, si[] = {1}, out[4];
    kn_tensor tx = T(x, 1, 2, 2), tw = T(w, 4), tc = T(co, 1, 1), ts = T(si, 1, 1);
    kn_tensor to = T(out, 1, 2, 2);
    float u[] = {1, 2}, v[] = {1, 1}, gate[] = {1, 3}, factor[] = {2, 3}, add[] = {10, 20};
    float more[] = {1, 2}, sum[2], n[2];
    kn_tensor tu = T(u, 1, 2), tv = T(v, 1, 2), tg = T(gate, 2), tsum = T(sum, 1, 2);
    kn_tensor tn = T(n, 1, 2);
    kn_layernorm_params affine = {.weight = T(factor, 2), .bias = T(add, 2)};
    kn_layernorm_params modulated = {.scale = T(more, 2), .shift = T(add, 2)};
    for (int i = 0; i < 2; i++) {
        kn_dev *d = devices[i];
        /* mean square 7.5 over both heads; a quarter turn */
        expect_ok(kn_norm_rope(d, &tx, &tw, 0, &tc, &ts, &to));
        same(out, (float[]){-0.73029674f, 0.36514837f, -1.46059349f, 2.19089023f}, 4);
        /* sums 2 and 5: mean 3.5, deviation 1.5 */
        expect_ok(kn_gate_norm(d, &tu, &tv, &tg, &affine, &tsum, &tn));
        same(sum, (float[]){2, 5}, 2);
        same(n, (float[]){8, 23}, 2);
        expect_ok(kn_gate_norm(d, &tu, &tv, &tg, &modulated, &tsum, &tn));
        same(n, (float[]){8, 23}, 2);
        expect_ok(kn_gate_norm(d, &tu, &tv, KN_ABSENT, &affine, &tsum, &tn));
        same(sum, (float[]){2, 3}, 2);
        same(n, (float[]){8, 23}, 2);
        /* in place: the sum in x, the normalised in y */
        float u2[] = {1, 2}, v2[] = {1, 1};
        kn_tensor tu2 = T(u2, 1, 2), tv2 = T(v2, 1, 2);
        expect_ok(kn_gate_norm(d, &tu2, &tv2, &tg, &affine, &tu2, &tv2));
        same(u2, (float[]){2, 5}, 2);
        same(v2, (float[]){8, 23}, 2);
        expect_fail(kn_gate_norm(d, &tu, &tv, &tg, &affine, &tn, &tn), KN_ERR_ARG, "gate_norm");
        kn_layernorm_params both = affine;
        both.scale = modulated.scale;
        expect_fail(kn_gate_norm(d, &tu, &tv, &tg, &both, &tsum, &tn), KN_ERR_ARG, "exclude");
        kn_tensor apart = tx, narrow = T(w, 3);
        apart.stride[1] = 3;
        expect_fail(kn_norm_rope(d, &apart, &tw, 0, &tc, &ts, &to), KN_ERR_ARG, "not dense");
        expect_fail(kn_norm_rope(d, &tx, &narrow, 0, &tc, &ts, &to), KN_ERR_ARG, "weight");
    }
}

static void layouts_by_hand(void **state)
{
    (void)state;
    /* volume [2,1,2,4]: channel 0 counts 0.., channel 1 counts 100.. */
    float volume[16], tokens[16], back[16], up[16];
    for (int i = 0; i < 8; i++) volume[i] = (float)i, volume[8 + i] = (float)(100 + i);
    const int patch[3] = {1, 2, 2};
    const int32_t order[2] = {1, 0};
    kn_tensor tv = T(volume, 2, 1, 2, 4), tt = T(tokens, 2, 8), tb = T(back, 2, 1, 2, 4);
    for (int i = 0; i < 2; i++) {
        expect_ok(kn_patchify(devices[i], &tv, patch, order, &tt));
        same(tokens, (float[]){2, 3, 6, 7, 102, 103, 106, 107, 0, 1, 4, 5, 100, 101, 104, 105}, 16);
        /* the other way reads channels last within a patch */
        float last[16] = {2, 102, 3, 103, 6, 106, 7, 107, 0, 100, 1, 101, 4, 104, 5, 105};
        kn_tensor tl = T(last, 2, 8);
        expect_ok(kn_unpatchify(devices[i], &tl, patch, order, &tb));
        same(back, volume, 16);
        kn_tensor small = T(volume, 1, 2, 2, 1), large = T(up, 1, 4, 4, 1);
        expect_ok(kn_upsample2(devices[i], &small, &large));
        same(up, (float[]){0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3}, 16);
        const int32_t rows[3] = {1, 1, 0};
        kn_tensor two = T(volume, 2, 2), three = T(up, 3, 2);
        expect_ok(kn_gather(devices[i], &two, rows, &three));
        same(up, (float[]){2, 3, 2, 3, 0, 1}, 6);
        kn_tensor turned = kn_tensor_permute(&two, (int[]){1, 0}), square = T(up, 2, 2);
        expect_ok(kn_copy(devices[i], &turned, &square));
        same(up, (float[]){0, 2, 1, 3}, 4);
        uint16_t table[4] = {0x3f80, 0x4000, 0xc040, 0x0000}; /* bf16 1, 2, -3, 0 */
        kn_tensor th = kn_tensor_of(table, KN_BF16, 2, 2), out = T(up, 2, 2);
        const int32_t ids[2] = {1, 0};
        kn_weight w;
        expect_ok(kn_weight_open(devices[i], KN_WEIGHT_TABLE, &th, &w));
        expect_ok(kn_embed(devices[i], &w, ids, 2, &out));
        same(up, (float[]){-3, 0, 1, 2}, 4);
        kn_weight_close(devices[i], &w);
    }
}

static void stats_by_hand(void **state)
{
    (void)state;
    float x[] = {1, -3, NAN, INFINITY, 5, -INFINITY};
    kn_tensor t = T(x, 3, 2), none = T(x + 2, 1, 1);
    for (int i = 0; i < 2; i++) {
        kn_tensor_stats s;
        expect_ok(kn_stats(devices[i], &t, &s));
        assert_int_equal(s.nonfinite, 3);
        assert_true(s.min == -3 && s.max == 5 && s.mean == 1);
        assert_true(fabs(s.rms - sqrt(35.0 / 3)) < 1e-12);
        expect_ok(kn_stats(devices[i], &none, &s));
        assert_int_equal(s.nonfinite, 1);
        assert_true(s.min == 0 && s.max == 0 && s.rms == 0);
    }
}

static void empty_tensors(void **state)
{
    (void)state;
    float x[4] = {0};
    kn_tensor none = T(x, 0, 4);
    kn_rmsnorm_params p = {.eps = 1e-6f};
    for (int i = 0; i < 2; i++) {
        expect_ok(kn_rmsnorm(devices[i], &none, KN_ABSENT, &p, &none));
        expect_ok(kn_copy(devices[i], &none, &none));
    }
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void wrong_shapes(void **state)
{
    (void)state;
    kn_dev *d = devices[1];
    float x[64] = {0}, out[64];
    kn_tensor a = T(x, 2, 3), b = T(out, 2, 4), c = T(out, 2, 3), v = T(x, 4);
    expect_fail(kn_act(d, &a, KN_ACT_SILU, &b), KN_ERR_ARG, "act", "f32[2, 3]", "f32[2, 4]");
    expect_fail(kn_act(d, &a, (kn_activation)9, &c), KN_ERR_ARG, "unknown activation 9");
    expect_fail(kn_act(d, NULL, KN_ACT_SILU, &b), KN_ERR_ARG, "x is missing");
    kn_tensor no_data = T(NULL, 2, 3);
    expect_fail(kn_act(d, &no_data, KN_ACT_SILU, &c), KN_ERR_ARG, "no data");
    kn_rmsnorm_params p = {.eps = 1};
    expect_fail(kn_rmsnorm(d, &a, &v, &p, &c), KN_ERR_ARG, "weight f32[4]", "3 values");
    expect_fail(kn_layernorm(d, &a, &v, NULL, &v, NULL, 1, &c), KN_ERR_ARG, "weight");
    kn_tensor v3 = T(x, 3);
    expect_fail(kn_layernorm(d, &a, &v3, NULL, NULL, &v3, 1, &c), KN_ERR_ARG, "exclude");
    kn_tensor odd = T(x, 2, 1, 3), angles = T(x, 2, 1), odd_out = T(out, 2, 1, 3);
    expect_fail(kn_rope(d, &odd, &angles, &angles, &odd_out), KN_ERR_ARG, "even D");
    kn_tensor x4 = T(x, 1, 2, 2, 1), y4 = T(out, 1, 4, 3, 1);
    expect_fail(kn_upsample2(d, &x4, &y4), KN_ERR_ARG, "expected f32[1, 4, 4, 1]");
    kn_tensor volume = T(x, 1, 1, 3, 4), tokens = T(out, 2, 4);
    expect_fail(kn_patchify(d, &volume, (int[]){1, 2, 2}, NULL, &tokens), KN_ERR_ARG,
                "whole number");
}

static void wrong_dtypes(void **state)
{
    (void)state;
    float x[16] = {0}, out[16];
    kn_tensor b = kn_tensor_of(x, KN_BF16, 2, 3), f = T(out, 2, 3),
              i = kn_tensor_of(x, KN_I32, 2, 3);
    expect_fail(kn_act(devices[1], &b, KN_ACT_SILU, &f), KN_ERR_ARG, "bf16[2, 3]", "dtype");
    expect_ok(kn_act(devices[0], &b, KN_ACT_SILU, &f)); /* ref takes any float dtype */
    expect_fail(kn_copy(devices[1], &i, &f), KN_ERR_ARG, "no conversion", "i32");
    kn_tensor vector = kn_tensor_of(x, KN_BF16, 3), a = T(x, 2, 3);
    expect_fail(kn_gate_add(devices[1], &a, &a, &vector, &f), KN_ERR_ARG, "gate", "must be f32");
}

static void wrong_weights(void **state)
{
    (void)state;
    kn_dev *d = devices[1];
    float x[64] = {0}, out[64];
    kn_tensor a = T(x, 2, 3), o = T(out, 2, 4), w43 = T(x, 4, 3), flat = T(x, 12),
              whole = kn_tensor_of(x, KN_I32, 2, 2);
    kn_weight w, none = {0};
    expect_fail(kn_linear(d, &a, &none, NULL, KN_ACT_NONE, &o), KN_ERR_ARG, "not open");
    expect_fail(kn_weight_open(d, KN_WEIGHT_LINEAR, &flat, &w), KN_ERR_ARG, "rank");
    assert_int_equal(w.t.rank, 0);
    expect_fail(kn_weight_open(d, KN_WEIGHT_VECTOR, &whole, &w), KN_ERR_ARG, "f32, bf16 or f16");
    kn_tensor turned = kn_tensor_permute(&w43, (int[]){1, 0}), empty = T(x, 0, 3);
    expect_fail(kn_weight_open(d, KN_WEIGHT_LINEAR, &turned, &w), KN_ERR_ARG, "not contiguous");
    expect_fail(kn_weight_open(d, KN_WEIGHT_LINEAR, &empty, &w), KN_ERR_ARG, "empty");
    expect_ok(kn_weight_open(d, KN_WEIGHT_LINEAR, &w43, &w));
    kn_tensor narrow = T(out, 2, 3);
    expect_fail(kn_linear(d, &a, &w, NULL, KN_ACT_NONE, &narrow), KN_ERR_ARG, "f32[4, 3]",
                "do not fit");
    kn_tensor x4 = T(x, 1, 2, 2, 3);
    kn_conv_params p = {.stride = {1, 1, 1}};
    expect_fail(kn_conv(d, &x4, &w, NULL, NULL, &p, &x4), KN_ERR_ARG, "opened as linear", "conv");
    kn_weight_close(d, &w);
    kn_tensor kernel = T(x, 2, 3, 1, 3, 3), y4 = T(out, 1, 2, 2, 2);
    expect_ok(kn_weight_open(d, KN_WEIGHT_CONV, &kernel, &w));
    expect_fail(kn_conv(d, &x4, &w, NULL, NULL, &p, &y4), KN_ERR_ARG, "axis 1", "kernel's 3");
    p.pad_lo[1] = p.pad_lo[2] = p.pad_hi[1] = 1;
    expect_fail(kn_conv(d, &x4, &w, NULL, NULL, &p, &y4), KN_ERR_ARG, "expected f32[1, 2, 1, 2]");
    p.stride[0] = 0;
    expect_fail(kn_conv(d, &x4, &w, NULL, NULL, &p, &y4), KN_ERR_ARG, "stride 0");
    kn_weight_close(d, &w);
    /* a 1x1 convolution as linear: [N, K, 1, 1, 1] */
    kn_tensor one = T(x, 4, 3, 1, 1, 1);
    expect_ok(kn_weight_open(d, KN_WEIGHT_LINEAR, &one, &w));
    assert_int_equal(w.t.rank, 2);
    expect_ok(kn_linear(d, &a, &w, NULL, KN_ACT_NONE, &o));
    kn_weight_close(d, &w);
}

static void overlaps(void **state)
{
    (void)state;
    kn_dev *d = devices[1];
    float x[64] = {0};
    kn_tensor a = T(x, 4, 4), later = T(x + 2, 4, 4);
    expect_ok(kn_act(d, &a, KN_ACT_SILU, &a));
    expect_fail(kn_act(d, &a, KN_ACT_SILU, &later), KN_ERR_ARG, "overlaps");
    /* columns of one buffer, as q, k, v in a fused projection, do not overlap */
    kn_tensor wide = T(x, 4, 12), q = kn_tensor_slice(&wide, 1, 0, 4),
              k = kn_tensor_slice(&wide, 1, 4, 4);
    kn_tensor across = kn_tensor_slice(&wide, 1, 2, 4);
    expect_ok(kn_act(d, &q, KN_ACT_SILU, &k));
    expect_ok(kn_act(d, &k, KN_ACT_SILU, &q));
    expect_fail(kn_act(d, &q, KN_ACT_SILU, &across), KN_ERR_ARG, "overlaps");
    kn_tensor last = kn_tensor_slice(&wide, 1, 8, 4);
    expect_ok(kn_mul(d, &q, KN_ACT_NONE, &k, &last));
    kn_weight w;
    kn_tensor square = T(x, 4, 4);
    expect_ok(kn_weight_open(d, KN_WEIGHT_LINEAR, &square, &w));
    expect_fail(kn_linear(d, &a, &w, NULL, KN_ACT_NONE, &a), KN_ERR_ARG, "overlaps");
    expect_ok(kn_linear(d, &q, &w, NULL, KN_ACT_NONE, &k));
    kn_weight_close(d, &w);
    kn_tensor every_other = {
        .data = x, .dtype = KN_F32, .rank = 2, .dim = {2, 4}, .stride = {16, 2}};
    kn_tensor dense = T(x + 40, 2, 4);
    expect_fail(kn_act(d, &every_other, KN_ACT_SILU, &dense), KN_ERR_ARG, "not dense");
}

static void indices(void **state)
{
    (void)state;
    kn_dev *d = devices[1];
    float x[16] = {0}, out[16];
    kn_tensor a = T(x, 3, 2), o = T(out, 2, 2);
    expect_fail(kn_gather(d, &a, (int32_t[]){0, 3}, &o), KN_ERR_ARG, "index 3 at place 1", "0..2");
    expect_fail(kn_gather(d, &a, (int32_t[]){-1, 0}, &o), KN_ERR_ARG, "index -1");
    expect_fail(kn_gather(d, &a, NULL, &o), KN_ERR_ARG, "no index list");
    kn_weight w;
    expect_ok(kn_weight_open(d, KN_WEIGHT_TABLE, &a, &w));
    expect_fail(kn_embed(d, &w, (int32_t[]){0, 9}, 2, &o), KN_ERR_ARG, "index 9");
    expect_fail(kn_embed(d, &w, (int32_t[]){0}, 1, &o), KN_ERR_ARG, "expected f32[1, 2]");
    kn_weight_close(d, &w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_by_hand), cmocka_unit_test(linear_f8_by_hand),   cmocka_unit_test(conv_by_hand),
        cmocka_unit_test(joined_by_hand),   cmocka_unit_test(norms_by_hand),
        cmocka_unit_test(elements_by_hand), cmocka_unit_test(layouts_by_hand),
        cmocka_unit_test(stats_by_hand),    cmocka_unit_test(empty_tensors),
        cmocka_unit_test(wrong_shapes),     cmocka_unit_test(wrong_dtypes),
        cmocka_unit_test(wrong_weights),    cmocka_unit_test(overlaps),
        cmocka_unit_test(indices),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
