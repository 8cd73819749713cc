/* Planners and executors against brute-force element masks (tools/golden_attention.py): every
 * planner's mask is identical pair by pair, and every plan runs on ref and on each CPU instruction
 * set within 1e-5 of a masked softmax in double.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/draft.h"
#include "attention/permute.h"
#include "attention/plan.h"
#include "attention/tile3d.h"
#include "attention/window.h"
#include "io/safetensors.h"

enum { HEADS = 2, DIM = 20, MAX_CASES = 1000 };
static const float SCALE = 0.5f; /* as in the script */

/* Largest |error| allowed: values are in [-1, 1], weights sum to 1, fp32 sums of at most 300
 * terms. */
static const double BOUND = 1e-5;

typedef struct golden {
    const int32_t *config;
    const uint8_t *mask; /* bits */
    int heads;           /* masks given */
    int64_t tokens;
    kn_attn_layout layout;
} golden;

static kn_dev *ref_dev;
static kn_dev *cpu_dev[4];

#define OK(call)                                                                                   \
    do {                                                                                           \
        kn_status ok_st_ = (call);                                                                 \
        if (ok_st_ != KN_OK) fail_msg("%s", kn_error_text());                                      \
    } while (0)

/* The script's `draw`. */
static double draw(uint64_t seed, uint64_t index)
{
    uint64_t x = (seed << 32) + index + 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    return (double)(x >> 40) / 8388608.0 - 1.0;
}

static bool golden_bit(const golden *g, int head, int64_t q, int64_t k)
{
    int64_t at = ((g->heads > 1 ? head : 0) * g->tokens + q) * g->tokens + k;
    return g->mask[at / 8] >> (at % 8) & 1;
}

/* Raster-with-text index of each stored token. */
static int64_t raster_of(const kn_attn_plan *p, int64_t stored)
{
    const int16_t *at = p->pos + 3 * stored;
    if (at[0] < 0) return stored;
    return ((int64_t)at[0] * p->grid[1] + at[1]) * p->grid[2] + at[2];
}

static void check_mask(const golden *g, const kn_attn_plan *p, const char *name)
{
    uint8_t *row = malloc((size_t)g->tokens);
    double visible = 0;
    assert_int_equal(p->tokens, g->tokens);
    for (int h = 0; h < g->heads; h++)
        for (int64_t q = 0; q < g->tokens; q++) {
            OK(kn_attn_plan_row(p, h, q, row));
            for (int64_t k = 0; k < g->tokens; k++) {
                bool want = golden_bit(g, h, raster_of(p, q), raster_of(p, k));
                if (row[k] != want)
                    fail_msg("%s, head %d: query %lld %s key %lld", name, h,
                             (long long)raster_of(p, q), want ? "misses" : "wrongly sees",
                             (long long)raster_of(p, k));
                visible += want;
            }
        }
    double density = visible / ((double)g->heads * (double)g->tokens * (double)g->tokens);
    if (fabs(density - p->density) > 1e-12)
        fail_msg("%s: density %.17g, counted %.17g", name, p->density, density);
    free(row);
}

/* Masked softmax of one row in double, from the golden mask. */
static void expected_row(const golden *g, const kn_attn_plan *p, const float *q, const float *k,
                         const float *v, int head, int64_t query, double out[DIM], double *lse)
{
    double sum = 0, top = -INFINITY;
    double *s = malloc((size_t)g->tokens * sizeof *s);
    for (int64_t j = 0; j < g->tokens; j++) {
        s[j] = -INFINITY;
        if (!golden_bit(g, head, raster_of(p, query), raster_of(p, j))) continue;
        s[j] = 0;
        for (int c = 0; c < DIM; c++)
            s[j] += (double)q[(query * HEADS + head) * DIM + c] * k[(j * HEADS + head) * DIM + c];
        s[j] *= SCALE;
        if (s[j] > top) top = s[j];
    }
    for (int c = 0; c < DIM; c++) out[c] = 0;
    for (int64_t j = 0; j < g->tokens; j++) sum += exp(s[j] - top);
    for (int64_t j = 0; j < g->tokens; j++)
        for (int c = 0; c < DIM; c++)
            out[c] += exp(s[j] - top) / sum * v[(j * HEADS + head) * DIM + c];
    *lse = top + log(sum);
    free(s);
}

static void check_runs(const golden *g, const kn_attn_plan *p, const char *name)
{
    size_t n = (size_t)(g->tokens * HEADS * DIM);
    float *q = malloc(n * sizeof *q), *k = malloc(n * sizeof *k), *v = malloc(n * sizeof *v);
    float *out = malloc(5 * n * sizeof *out), *lse = malloc(5 * n * sizeof *lse);
    for (size_t i = 0; i < n; i++) {
        q[i] = 2 * (float)draw(7, i);
        k[i] = 2 * (float)draw(8, i);
        v[i] = (float)draw(9, i);
    }
    for (int d = 0; d < 4; d++) {
        kn_attn_args a = {.q = kn_tensor_of(q, KN_F32, g->tokens, HEADS, DIM),
                          .k = kn_tensor_of(k, KN_F32, g->tokens, HEADS, DIM),
                          .v = kn_tensor_of(v, KN_F32, g->tokens, HEADS, DIM),
                          .out = kn_tensor_of(out + (size_t)d * n, KN_F32, g->tokens, HEADS, DIM),
                          .lse = kn_tensor_of(lse + (size_t)d * n, KN_F32, HEADS, g->tokens),
                          .scale = p->scale == 0 ? SCALE : 77.0f}; /* the plan's scale wins */
        if (d && !cpu_dev[d]) continue;
        OK(kn_attn_sparse(d ? cpu_dev[d] : ref_dev, &a, p, NULL));
    }
    for (int h = 0; h < HEADS; h++)
        for (int64_t i = 0; i < g->tokens; i++) {
            double want[DIM], want_lse;
            expected_row(g, p, q, k, v, h, i, want, &want_lse);
            for (int d = 0; d < 4; d++) {
                if (d && !cpu_dev[d]) continue;
                const float *got = out + (size_t)d * n + (i * HEADS + h) * DIM;
                double got_lse = lse[(size_t)d * n + (size_t)(h * g->tokens + i)];
                for (int c = 0; c < DIM; c++)
                    if (!(fabs(got[c] - want[c]) <= BOUND))
                        fail_msg("%s on %s %d: head %d token %lld column %d is %g, want %g", name,
                                 d ? "cpu" : "ref", d, h, (long long)i, c, (double)got[c], want[c]);
                if (!(fabs(got_lse - want_lse) <= BOUND * fmax(1, fabs(want_lse))))
                    fail_msg("%s on %s %d: head %d token %lld lse is %g, want %g", name,
                             d ? "cpu" : "ref", d, h, (long long)i, got_lse, want_lse);
            }
        }
    free(q);
    free(k);
    free(v);
    free(out);
    free(lse);
}

/* ---- one maker per planner: config -> plan --------------------------------------------------- */

static kn_attn_layout layout_of(const int32_t *c, int64_t text)
{
    return (kn_attn_layout){{c[0], c[1], c[2]}, {c[3], c[4], c[5]}, text};
}

static void make_window(golden *g, kn_attn_plan **plan)
{
    const int32_t *c = g->config;
    kn_window_params p = {.layout = layout_of(c, c[9]),
                          .query_tile = {c[6], c[7], c[8]},
                          .block = c[10],
                          .scale = SCALE};
    for (int a = 0; a < 3; a++)
        p.window[a] = (kn_grid_window){c[11 + 4 * a], c[12 + 4 * a], c[13 + 4 * a], c[14 + 4 * a]};
    OK(kn_window_plan(&p, plan));
    g->heads = 1;
}

static void make_box(golden *g, kn_attn_plan **plan)
{
    const int32_t *c = g->config;
    kn_tile3d_params p = {.layout = layout_of(c, c[6]),
                          .block = c[7],
                          .heads = c[8],
                          .window = (const int(*)[3])(c + 9)};
    OK(kn_tile3d_plan(&p, plan));
    g->heads = c[8];
}

static void make_cross(golden *g, kn_attn_plan **plan)
{
    const int32_t *c = g->config;
    kn_tile3d_params p = {
        .layout = layout_of(c, c[6]), .block = c[7], .cross = true, .scale = SCALE};
    OK(kn_tile3d_plan(&p, plan));
    g->heads = 1;
}

/* q and k of the data-dependent planners: 3 * draw, in double. */
static double *drawn(uint64_t seed, size_t count)
{
    double *x = malloc(count * sizeof *x);
    for (size_t i = 0; i < count; i++) x[i] = 3.0 * draw(seed, i);
    return x;
}

static kn_draft *draft;
static kn_permute *permute;

static void make_draft(golden *g, kn_attn_plan **plan)
{
    const int32_t *c = g->config;
    kn_draft_params p = {.layout = layout_of(c, c[6]),
                         .block = c[7],
                         .heads = c[8],
                         .dim = c[9],
                         .drop_first_frame = c[11],
                         .drop_own_frame = c[12],
                         .sparsity = c[13] / 1000.0,
                         .scale = SCALE};
    int64_t tokens = kn_grid_tokens(p.layout.grid) + p.layout.text;
    size_t n = (size_t)(tokens * p.heads * p.dim);
    double *q = drawn(2 * (uint64_t)c[10], n), *k = drawn(2 * (uint64_t)c[10] + 1, n);
    kn_tensor qt = kn_tensor_of(q, KN_F64, tokens, p.heads, p.dim);
    kn_tensor kt = kn_tensor_of(k, KN_F64, tokens, p.heads, p.dim);
    const kn_attn_plan *made;
    OK(kn_draft_open(&p, &draft));
    /* Twice: the second call must forget the first. */
    OK(kn_draft_plan(ref_dev, draft, &kt, &qt, &made));
    OK(kn_draft_plan(ref_dev, draft, &qt, &kt, &made));
    *plan = (kn_attn_plan *)made;
    g->heads = p.heads;
    free(q);
    free(k);
}

static void make_permute(golden *g, kn_attn_plan **plan)
{
    const int32_t *c = g->config;
    uint8_t axes[HEADS] = {(uint8_t)c[15], (uint8_t)c[16]};
    kn_permute_params p = {.layout = layout_of(c, c[6]),
                           .block = c[7],
                           .heads = c[8],
                           .dim = c[9],
                           .kind = c[11] ? KN_PERMUTE_AXES : KN_PERMUTE_IMPORTANCE,
                           .segment = c[12],
                           .samples = c[13],
                           .threshold = c[14] / 1000.0,
                           .axes = axes,
                           .scale = SCALE};
    int64_t tokens = kn_grid_tokens(p.layout.grid) + p.layout.text;
    size_t n = (size_t)(tokens * p.heads * p.dim);
    double *q = drawn(2 * (uint64_t)c[10], n), *k = drawn(2 * (uint64_t)c[10] + 1, n);
    kn_tensor qt = kn_tensor_of(q, KN_F64, tokens, p.heads, p.dim);
    kn_tensor kt = kn_tensor_of(k, KN_F64, tokens, p.heads, p.dim);
    const kn_attn_plan *made;
    OK(kn_permute_open(&p, &permute));
    OK(kn_permute_plan(ref_dev, permute, &kt, &qt, &made));
    OK(kn_permute_plan(ref_dev, permute, &qt, &kt, &made));
    *plan = (kn_attn_plan *)made;
    g->heads = p.heads;
    free(q);
    free(k);
}

/* ---- the cases ------------------------------------------------------------------------------- */

static void run_cases(const char *planner, void (*make)(golden *, kn_attn_plan **), bool owned)
{
    kn_safetensors *file;
    OK(kn_safetensors_open(KN_TEST_DATA "/attention_masks.safetensors", NULL, &file));
    int cases = 0;
    for (; cases < MAX_CASES; cases++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%d.config", planner, cases);
        const kn_st_tensor *config = kn_safetensors_find(file, name, NULL);
        if (!config) break;
        snprintf(name, sizeof name, "%s.%d.mask", planner, cases);
        const kn_st_tensor *mask = kn_safetensors_find(file, name, NULL);
        assert_non_null(mask);
        int32_t copy[64];
        assert_true(config->bytes <= sizeof copy);
        memcpy(copy, config->data, config->bytes);
        golden g = {.config = copy, .mask = mask->data};
        kn_attn_plan *plan = NULL;
        make(&g, &plan);
        g.tokens = plan->tokens;
        assert_int_equal((g.heads * g.tokens * g.tokens + 7) / 8, mask->bytes);
        OK(kn_attn_plan_check(plan));
        check_mask(&g, plan, name);
        check_runs(&g, plan, name);
        if (owned) kn_attn_plan_free(&plan);
        kn_draft_close(&draft);
        kn_permute_close(&permute);
    }
    kn_safetensors_close(&file);
    assert_true(cases >= 50);
}

static void test_window(void **s)
{
    (void)s;
    run_cases("window", make_window, true);
}
static void test_box(void **s)
{
    (void)s;
    run_cases("box", make_box, true);
}
static void test_cross(void **s)
{
    (void)s;
    run_cases("cross", make_cross, true);
}
static void test_draft(void **s)
{
    (void)s;
    run_cases("draft", make_draft, false);
}
static void test_permute(void **s)
{
    (void)s;
    run_cases("permute", make_permute, false);
}

static int open_devices(void **s)
{
    (void)s;
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF}, &ref_dev));
    for (int isa = 1; isa <= 3; isa++) {
        OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .isa_mask = isa}, &cpu_dev[isa]));
        /* A machine without this instruction set runs a lower one, which is tested already. */
        if (kn_dev_isa(cpu_dev[isa]) != isa) kn_dev_close(&cpu_dev[isa]);
    }
    return 0;
}

static int close_devices(void **s)
{
    (void)s;
    kn_dev_close(&ref_dev);
    for (int isa = 1; isa <= 3; isa++) kn_dev_close(&cpu_dev[isa]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window), cmocka_unit_test(test_box),     cmocka_unit_test(test_cross),
        cmocka_unit_test(test_draft),  cmocka_unit_test(test_permute),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
