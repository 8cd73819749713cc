/* bench/bench_attn.c - attention on a CUDA device: every method, grid and density, beside its peers.
 *
 * bench_attn [--only NAME,...] [--rounds 7] [--heads 12] [--dim 128] [--peer "COMMAND"]
 *            [--out FILE] [--commit HASH] [--error-rows 24] [--sample 10]
 *
 * Purpose   One run answers: how long does each plan take, at which rate, how much faster than dense
 *           is it, how much of its density's promise is that, and how wrong is it. Contenders of a
 *           case are timed in turn, round by round, so that all see the same clocks: own kernels,
 *           dense attention in this process (cuDNN's; own for the random lists), FlexAttention with
 *           the same mask in the process of COMMAND (tools/bench_torch_flex.py), which answers one
 *           line per request.
 * Inputs    Normal random q, k, v (bf16, batch 1). Lists and tiles as the planners make them.
 * Timing    Warm-up of 10 calls, or 2 seconds of them after the first; then the median over the
 *           rounds (3 where a call takes over 2 seconds), with 10th and 90th percentile. A sample is
 *           one call, or as many as fill --sample milliseconds. At its power limit the card's clock follows
 *           the load by some hundred milliseconds: in samples shorter than that a contender runs at the
 *           clock that the one before left it. fp8-window, whose contenders differ most in that, has
 *           samples of half a second. Planners of data-dependent methods run inside the
 *           sample; their share is also timed alone.
 *           fp8-window begins with q, k and v in memory in bf16; fp8-window-layer where a layer of a network does, with
 *           the projections: RMSNorm and rotation of q and k are in it, for both contenders.
 * Rates     executed: 4 D operations per pair of each 128 x 128 block that the kernel runs; useful:
 *           per visible pair.
 * Error     Relative L2 of sampled rows against a softmax in double over the visible keys.
 * Output    A table; with --out the records {id, ours, peer, peer_name, unit, spread, commit, date,
 *           card}.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attention/dense_cuda.h"
#include "attention/device_lists.h"
#include "attention/draft.h"
#include "attention/permute.h"
#include "attention/tile3d.h"
#include "attention/window.h"
#include "io/memory.h"

enum {
    MAX_ROUNDS = 64,
    MAX_DIM = 256,
    PERIOD = 4194301, /* prime: rows and heads all differ */
    STAGE = 1 << 24,
    STEADY_MS = 500
};

typedef enum method { DENSE, WINDOW, TILES, RUNS, LISTS, DRAFT, PERMUTE, METHODS } method;

typedef struct bench_case {
    const char *name;
    int grid[3];
    method method;
    double density; /* LISTS, DRAFT, PERMUTE */
    int tile[3];    /* 0: the search's, or raster */
    int window[2];  /* WINDOW, RUNS: h, w; TILES: tiles of t, h = w */
    bool flex;      /* ask the peer for the same mask */
    bool dense;     /* time dense attention beside it */
    bool int8;      /* 8-bit products, beside the same plan in bf16 */
    bool norm;      /* from the projections: RMSNorm and rotation of q and k first */
} bench_case;

#define G480 {21, 30, 52}
#define G720 {21, 45, 80}
#define G1080 {21, 68, 120}
#define G4K {21, 135, 240}

/* clang-format off */
static const bench_case cases[] = {
    {"dense-480p",        G480,  DENSE,   1,    {0},        {0},      false, true, false, false},
    {"dense-720p",        G720,  DENSE,   1,    {0},        {0},      false, true, false, false},
    {"dense-1080p",       G1080, DENSE,   1,    {0},        {0},      false, true, false, false},
    {"window-720p",       G720,  WINDOW,  0,    {0},        {31, 53}, false, true, false, false},
    {"window-1080p",      G1080, WINDOW,  0,    {0},        {31, 53}, true,  true, false, false},
    {"fp8-window",        G1080, WINDOW,  0,    {0},        {31, 53}, false, true, true, false},
    {"fp8-window-layer",  G1080, WINDOW,  0,    {0},        {31, 53}, false, true, true, true},
    {"runs-1080p",        G1080, RUNS,    0,    {0},        {31, 53}, false, false, false, false},
    {"window-4k",         G4K,   WINDOW,  0,    {0},        {31, 53}, false, true, false, false},
    {"tiles-480p",        G480,  TILES,   0,    {3, 5, 8},  {3, 3},   false, true, false, false},
    {"tiles-1080p",       G1080, TILES,   0,    {3, 4, 10}, {3, 9},   false, true, false, false},
    {"lists-50",          G720,  LISTS,   0.50, {0},        {0},      false, true, false, false},
    {"lists-25",          G720,  LISTS,   0.25, {0},        {0},      true,  true, false, false},
    {"lists-10",          G720,  LISTS,   0.10, {0},        {0},      false, true, false, false},
    {"draft-50-1080p",    G1080, DRAFT,   0.50, {1, 4, 30}, {0},      false, true, false, false},
    {"draft-25-1080p",    G1080, DRAFT,   0.25, {1, 4, 30}, {0},      false, true, false, false},
    {"draft-10-1080p",    G1080, DRAFT,   0.10, {1, 4, 30}, {0},      false, true, false, false},
    {"draft-25-720p",     G720,  DRAFT,   0.25, {1, 15, 8}, {0},      false, true, false, false},
    {"draft-own-1080p",   G1080, DRAFT,   0.25, {1, 8, 16}, {0},      false, true, false, false},
    {"permute-50-1080p",  G1080, PERMUTE, 0.50, {21, 2, 3}, {0},      false, true, false, false},
    {"permute-25-1080p",  G1080, PERMUTE, 0.25, {21, 2, 3}, {0},      false, true, false, false},
    {"permute-10-1080p",  G1080, PERMUTE, 0.10, {21, 2, 3}, {0},      false, true, false, false},
    {"permute-25-480p",   G480,  PERMUTE, 0.25, {21, 2, 3}, {0},      false, true, false, false},
};
/* clang-format on */
enum { CASES = sizeof cases / sizeof *cases };

typedef struct spread {
    double p10, median, p90;
} spread;

typedef struct bench {
    kn_dev *dev;
    int heads, dim, rounds, error_rows, sample_ms;
    const char *commit, *only;
    float *base; /* [PERIOD] normal numbers */
    FILE *to_peer, *from_peer;
    pid_t peer;
    FILE *out;
    int records;
    /* of the tensors now on the device */
    int64_t tokens;
    void *data[4]; /* q k v out */
    kn_attn_args args;
    kn_arena *scratch;
    /* of a case with norm: what it takes, its numbers here, and q and k after it */
    kn_attn_norm norm;
    float *weight[2], *angle[2], *inverse_rms[2];
    kn_tensor normed[2];
} bench;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static spread spread_of(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return (spread){x[n / 10], x[n / 2], x[n - 1 - n / 10]};
}

static uint64_t mixed(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* ---- inputs ------------------------------------------------------------------------------------*/

static kn_status make_base(bench *b)
{
    KN_TRY(kn_alloc_array(PERIOD + MAX_DIM, sizeof *b->base, (void **)&b->base));
    for (int64_t i = 0; i < PERIOD; i++) {
        double u = (double)((mixed(2 * (uint64_t)i) >> 11) + 1) * 0x1p-53,
               v = (double)(mixed(2 * (uint64_t)i + 1) >> 11) * 0x1p-53;
        float x = (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
        b->base[i] = kn_bf16_to_f32(kn_f32_to_bf16(x));
    }
    memcpy(b->base + PERIOD, b->base, MAX_DIM * sizeof *b->base);
    return KN_OK;
}

/* Up to MAX_DIM elements of tensor t from the i-th; tensors start at different places of the
 * period. */
static const float *elements(const bench *b, int t, int64_t i)
{
    return b->base + (i + t * (PERIOD / 3)) % PERIOD;
}

static kn_status fill(bench *b, int t, int64_t count)
{
    uint16_t *stage = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_alloc(STAGE * sizeof *stage, (void **)&stage));
    for (int64_t i = 0; i < count; i += STAGE) {
        int64_t n = count - i < STAGE ? count - i : STAGE;
        for (int64_t j = 0, at = (i + t * (PERIOD / 3)) % PERIOD; j < n; j++) {
            stage[j] = kn_f32_to_bf16(b->base[at]);
            if (++at == PERIOD) at = 0;
        }
        kn_tensor part = kn_tensor_of((uint16_t *)b->data[t] + i, KN_BF16, n);
        KN_TRY_GOTO(kn_dev_upload(b->dev, stage, &part));
    }
done:
    kn_free(stage);
    return st;
}

static void drop_norm(bench *b)
{
    kn_tensor *all[] = {&b->norm.weight_q, &b->norm.weight_k, &b->norm.cos, &b->norm.sin, &b->normed[0], &b->normed[1]};
    for (int i = 0; i < 6; i++) {
        if (all[i]->data) kn_dev_free(b->dev, all[i]->data, kn_tensor_bytes(all[i]));
        *all[i] = (kn_tensor){0};
    }
    for (int i = 0; i < 2; i++) {
        float **host[] = {&b->weight[i], &b->angle[i], &b->inverse_rms[i]};
        for (int j = 0; j < 3; j++) kn_free(*host[j]), *host[j] = NULL;
    }
}

static kn_status send_new(bench *b, const float *host, kn_tensor shape, kn_tensor *out)
{
    *out = shape;
    KN_TRY(kn_dev_alloc(b->dev, kn_tensor_bytes(out), &out->data));
    return host ? kn_dev_upload(b->dev, host, out) : KN_OK;
}

/* Weights around 1; token t is turned by t 10000^(-i / half), i = 0 .. half - 1. */
static kn_status make_norm(bench *b)
{
    int64_t n = b->tokens, width = (int64_t)b->heads * b->dim, half = b->dim / 2;
    for (int t = 0; t < 2; t++) {
        KN_TRY(kn_alloc_array((size_t)width, sizeof(float), (void **)&b->weight[t]));
        KN_TRY(kn_alloc_array((size_t)(n * half), sizeof(float), (void **)&b->angle[t]));
        KN_TRY(kn_alloc_array((size_t)n, sizeof(float), (void **)&b->inverse_rms[t]));
        for (int64_t i = 0; i < width; i++) b->weight[t][i] = 1 + b->base[i + t * width] / 4;
        for (int64_t i = 0; i < n; i++) {
            double sum = 0;
            for (int64_t j = 0; j < width; j += b->dim) {
                const float *x = elements(b, t, i * width + j);
                for (int c = 0; c < b->dim; c++) sum += (double)x[c] * (double)x[c];
            }
            b->inverse_rms[t][i] = (float)(1 / sqrt(sum / (double)width + 1e-6));
            for (int64_t c = 0; c < half; c++) {
                double angle = (double)i * pow(1e4, -(double)c / (double)half);
                b->angle[t][i * half + c] = (float)(t ? sin(angle) : cos(angle));
            }
        }
        KN_TRY(send_new(b, b->weight[t], kn_tensor_of(NULL, KN_F32, width), t ? &b->norm.weight_k : &b->norm.weight_q));
        KN_TRY(send_new(b, b->angle[t], kn_tensor_of(NULL, KN_F32, n, half), t ? &b->norm.sin : &b->norm.cos));
        KN_TRY(send_new(b, NULL, kn_tensor_of(NULL, KN_BF16, n, b->heads, b->dim), &b->normed[t]));
    }
    b->norm.eps = 1e-6f;
    return KN_OK;
}

/* A head of a token of q (0) or k (1) as the attention sees it. */
static void seen_row(const bench *b, int t, int64_t token, int head, double *out)
{
    int64_t at = token * b->heads * b->dim + head * b->dim;
    const float *x = elements(b, t, at);
    for (int c = 0; c < b->dim; c++) out[c] = (double)x[c];
    if (!b->angle[0]) return;
    for (int c = 0; c < b->dim; c += 2) {
        const float *w = b->weight[t] + head * b->dim + c;
        double re = out[c] * (double)b->inverse_rms[t][token] * (double)w[0],
               im = out[c + 1] * (double)b->inverse_rms[t][token] * (double)w[1];
        double co = (double)b->angle[0][(token * b->dim + c) / 2], si = (double)b->angle[1][(token * b->dim + c) / 2];
        out[c] = re * co - im * si, out[c + 1] = re * si + im * co;
    }
}

static void drop_tensors(bench *b)
{
    size_t bytes = (size_t)(b->tokens * b->heads * b->dim) * 2;
    drop_norm(b);
    kn_arena_close(&b->scratch);
    for (int t = 0; t < 4; t++)
        if (b->data[t]) kn_dev_free(b->dev, b->data[t], bytes);
    memset(b->data, 0, sizeof b->data);
    b->tokens = 0;
}

static kn_status make_tensors(bench *b, int64_t tokens)
{
    int64_t count = tokens * b->heads * b->dim;
    if (b->tokens == tokens) return KN_OK;
    drop_tensors(b);
    b->tokens = tokens;
    kn_tensor *view[4] = {&b->args.q, &b->args.k, &b->args.v, &b->args.out};
    for (int t = 0; t < 4; t++) {
        KN_TRY(kn_dev_alloc(b->dev, (size_t)count * 2, &b->data[t]));
        *view[t] = kn_tensor_of(b->data[t], KN_BF16, tokens, b->heads, b->dim);
        if (t < 3) KN_TRY(fill(b, t, count));
    }
    b->args.scale = (float)(1 / sqrt(b->dim));
    /* Room for reordered copies of k and v. */
    return kn_arena_open(b->dev, (size_t)count * 4 + (64 << 20), &b->scratch);
}

/* ---- plans -------------------------------------------------------------------------------------*/

typedef struct made {
    kn_attn_plan *owned;
    const kn_attn_plan *plan;
    kn_draft *draft;
    kn_permute *permute;
} made;

static void drop_plan(made *m)
{
    kn_attn_plan_free(&m->owned);
    kn_draft_close(&m->draft);
    kn_permute_close(&m->permute);
    *m = (made){0};
}

static kn_status window_plan(const bench_case *c, kn_attn_plan **out)
{
    kn_grid_search s = {.block_q = 128, .block_k = 128, .runs = c->method == RUNS};
    kn_grid_choice best;
    memcpy(s.grid, c->grid, sizeof s.grid);
    s.window[1].size = c->window[0];
    s.window[2].size = c->window[1];
    KN_TRY(kn_grid_best_tile(&s, &best));
    kn_window_params p = {.block = 128};
    memcpy(p.layout.grid, s.grid, sizeof s.grid);
    memcpy(p.layout.tile, s.runs ? (int[3]){s.grid[0], 1, 1} : best.tile, sizeof best.tile);
    memcpy(p.query_tile, best.tile, sizeof best.tile);
    memcpy(p.window, s.window, sizeof p.window);
    return kn_window_plan(&p, out);
}

/* Random lists of 128-token blocks, another set for each head; rows keep their own block. */
static kn_status list_plan(const bench *b, const bench_case *c, kn_attn_plan **out)
{
    kn_attn_plan_params p = {.block = 128, .heads = b->heads};
    memcpy(p.layout.grid, c->grid, sizeof c->grid);
    memcpy(p.layout.tile, c->grid, sizeof c->grid);
    KN_TRY(kn_attn_plan_open(&p, out));
    kn_attn_plan *plan = *out;
    int64_t n = plan->q_blocks, keep = (int64_t)(c->density * (double)n + 0.5);
    for (int64_t r = 0; r < b->heads * n; r++) {
        int64_t left = keep - 1, own = r % n;
        for (int64_t j = 0; j < n; j++) {
            int64_t others = n - j - (j <= own);
            bool on = j == own;
            if (!on && others > 0 &&
                (int64_t)(mixed((uint64_t)(r * n + j)) % (uint64_t)others) < left) {
                on = true;
                left--;
            }
            if (on)
                KN_TRY(kn_attn_plan_add(plan, plan->q_start[j],
                                        plan->q_start[j + 1] - plan->q_start[j], -1));
        }
        KN_TRY(kn_attn_plan_end_row(plan));
    }
    plan->density = kn_attn_plan_listed(plan);
    return KN_OK;
}

static kn_status open_plan(const bench *b, const bench_case *c, made *m)
{
    kn_attn_layout layout = {.text = 0};
    memcpy(layout.grid, c->grid, sizeof layout.grid);
    memcpy(layout.tile, c->tile[0] ? c->tile : c->grid, sizeof layout.tile);
    kn_status st = KN_OK;
    if (c->method == DENSE) st = kn_attn_plan_dense(&layout, 128, &m->owned);
    if (c->method == WINDOW || c->method == RUNS) st = window_plan(c, &m->owned);
    if (c->method == LISTS) st = list_plan(b, c, &m->owned);
    if (c->method == TILES) {
        int window[1][3] = {{c->window[0], c->window[1], c->window[1]}};
        kn_tile3d_params p = {
            .layout = layout, .block = 128, .heads = 1, .window = (const int(*)[3])window};
        st = kn_tile3d_plan(&p, &m->owned);
    }
    if (c->method == DRAFT)
        st = kn_draft_open(&(kn_draft_params){.layout = layout,
                                              .block = 128,
                                              .heads = b->heads,
                                              .dim = b->dim,
                                              .sparsity = 1 - c->density,
                                              .within_budget = true,
                                              .scale = b->args.scale},
                           &m->draft);
    if (c->method == PERMUTE)
        st = kn_permute_open(&(kn_permute_params){.layout = layout,
                                                  .kind = KN_PERMUTE_IMPORTANCE,
                                                  .block = 128,
                                                  .segment = 8,
                                                  .samples = 128,
                                                  .heads = b->heads,
                                                  .dim = b->dim,
                                                  .density = c->density,
                                                  .scale = b->args.scale},
                             &m->permute);
    m->plan = m->owned;
    return st;
}

static kn_status choose(bench *b, made *m)
{
    if (m->draft) return kn_draft_plan(b->dev, m->draft, &b->args.q, &b->args.k, &m->plan);
    if (m->permute) return kn_permute_plan(b->dev, m->permute, &b->args.q, &b->args.k, &m->plan);
    return KN_OK;
}

/* ---- timing ------------------------------------------------------------------------------------*/

/* DENSE_PEER: cuDNN; for random lists our own kernel, whose time they are to divide; for 8-bit products
 * our own of the same plan in bf16. */
typedef enum contender { OURS, CHOICE, DENSE_PEER, FLEX, CONTENDERS } contender;

static kn_status call(bench *b, const bench_case *c, made *m, contender who, double *ms)
{
    double start = now_ms();
    if (who == FLEX) {
        char line[256];
        fprintf(b->to_peer, "%s %d %d %d %d %d %d %d %g\n", c->method == LISTS ? "lists" : "window",
                b->heads, b->dim, c->grid[0], c->grid[1], c->grid[2], c->window[0], c->window[1],
                c->density);
        fflush(b->to_peer);
        if (!fgets(line, sizeof line, b->from_peer) || sscanf(line, "%lf", ms) != 1)
            return kn_fail(KN_ERR_DEVICE, "bench_attn: the peer ended or answered no time");
        return KN_OK;
    }
    kn_attn_args args = b->args;
    args.int8 = c->int8 && who == OURS;
    if (c->norm && who == OURS) {
        args.norm = &b->norm; /* q and k stay as they are: packed from there */
    } else if (c->norm) {
        const kn_attn_norm *n = &b->norm;
        KN_TRY(kn_norm_rope(b->dev, &args.q, &n->weight_q, n->eps, &n->cos, &n->sin, &b->normed[0]));
        KN_TRY(kn_norm_rope(b->dev, &args.k, &n->weight_k, n->eps, &n->cos, &n->sin, &b->normed[1]));
        args.q = b->normed[0], args.k = b->normed[1];
    }
    if (who == DENSE_PEER && c->int8)
        KN_TRY(kn_attn_sparse(b->dev, &args, m->plan, b->scratch));
    else if (who == DENSE_PEER)
        KN_TRY(c->method == LISTS ? kn_attn_dense(b->dev, &b->args, NULL)
                                  : kn_attn_cudnn(b->dev, &b->args));
    else
        KN_TRY(choose(b, m));
    if (who == OURS) KN_TRY(kn_attn_sparse(b->dev, &args, m->plan, b->scratch));
    *ms = now_ms() - start;
    return KN_OK;
}

/* One sample: calls that fill its time, as the warm-up estimates them. */
static kn_status sample(bench *b, const bench_case *c, made *m, contender who, int calls,
                        double *ms)
{
    if (who == FLEX) return call(b, c, m, who, ms);
    double start = now_ms(), one;
    for (int i = 0; i < calls; i++) KN_TRY(call(b, c, m, who, &one));
    KN_TRY(kn_dev_sync(b->dev));
    *ms = (now_ms() - start) / calls;
    return KN_OK;
}

static kn_status warm_up(bench *b, const bench_case *c, made *m, contender who, int *calls,
                         int *rounds)
{
    double start = now_ms(), one = 0;
    for (int i = 0; i < 11 && now_ms() - start < 2000; i++) {
        double begun = now_ms();
        KN_TRY(call(b, c, m, who, &one));
        KN_TRY(kn_dev_sync(b->dev));
        if (who != FLEX) one = now_ms() - begun;
        if (i == 0 && one < 2000) start = now_ms();
    }
    int ms_wanted = c->int8 && b->sample_ms < STEADY_MS ? STEADY_MS : b->sample_ms;
    *calls = one < ms_wanted ? (int)(ms_wanted / (one < 0.1 ? 0.1 : one)) + 1 : 1;
    *rounds = one > 2000 && b->rounds > 3 ? 3 : b->rounds;
    return KN_OK;
}

static bool takes_part(const bench *b, const bench_case *c, contender who)
{
    if (who == CHOICE) return c->method == DRAFT || c->method == PERMUTE;
    if (who == DENSE_PEER) return c->dense;
    if (who == FLEX) return c->flex && b->to_peer;
    return true;
}

static kn_status time_case(bench *b, const bench_case *c, made *m, spread out[CONTENDERS])
{
    double ms[CONTENDERS][MAX_ROUNDS];
    int calls[CONTENDERS], rounds[CONTENDERS];
    for (int w = 0; w < CONTENDERS; w++)
        if (takes_part(b, c, (contender)w))
            KN_TRY(warm_up(b, c, m, (contender)w, &calls[w], &rounds[w]));
    for (int r = 0; r < b->rounds; r++)
        for (int w = 0; w < CONTENDERS; w++)
            if (takes_part(b, c, (contender)w) && r < rounds[w])
                KN_TRY(sample(b, c, m, (contender)w, calls[w], &ms[w][r]));
    for (int w = 0; w < CONTENDERS; w++) {
        out[w] = (spread){0, 0, 0};
        if (takes_part(b, c, (contender)w)) out[w] = spread_of(ms[w], rounds[w]);
    }
    return KN_OK;
}

/* ---- error -------------------------------------------------------------------------------------*/

/* Softmax of one query over its visible keys, in double. */
static void exact_row(const bench *b, const uint8_t *visible, int64_t query, int head, double *s,
                      double *out)
{
    int64_t pitch = (int64_t)b->heads * b->dim;
    double top = -INFINITY, sum = 0, q[MAX_DIM], k[MAX_DIM];
    seen_row(b, 0, query, head, q);
    for (int64_t j = 0; j < b->tokens; j++) {
        if (!visible[j]) continue;
        s[j] = 0;
        seen_row(b, 1, j, head, k);
        for (int c = 0; c < b->dim; c++) s[j] += q[c] * k[c];
        s[j] *= (double)b->args.scale;
        if (s[j] > top) top = s[j];
    }
    memset(out, 0, (size_t)b->dim * sizeof *out);
    for (int64_t j = 0; j < b->tokens; j++) {
        if (!visible[j]) continue;
        const float *v = elements(b, 2, j * pitch + head * b->dim);
        double p = exp(s[j] - top);
        sum += p;
        for (int c = 0; c < b->dim; c++) out[c] += p * (double)v[c];
    }
    for (int c = 0; c < b->dim; c++) out[c] /= sum;
}

static kn_status find_error(bench *b, made *m, double *error)
{
    uint8_t *visible = NULL;
    double *s = NULL, want[MAX_DIM], off = 0, size = 0;
    uint16_t got[MAX_DIM];
    kn_status st;
    KN_TRY_GOTO(kn_alloc((size_t)b->tokens, (void **)&visible));
    KN_TRY_GOTO(kn_alloc((size_t)b->tokens * sizeof *s, (void **)&s));
    KN_TRY_GOTO(kn_attn_plan_fetch(m->plan));
    for (int i = 0; i < b->error_rows; i++) {
        int64_t query = (int64_t)(mixed(77 + (uint64_t)i) % (uint64_t)b->tokens);
        int head = i % b->heads;
        KN_TRY_GOTO(kn_attn_plan_row(m->plan, head, query, visible));
        exact_row(b, visible, query, head, s, want);
        kn_tensor row = kn_tensor_of((uint16_t *)b->data[3] + (query * b->heads + head) * b->dim,
                                     KN_BF16, b->dim);
        KN_TRY_GOTO(kn_dev_download(b->dev, &row, got));
        for (int c = 0; c < b->dim; c++) {
            double d = kn_bf16_to_f32(got[c]) - want[c];
            off += d * d;
            size += want[c] * want[c];
        }
    }
    *error = sqrt(off / size);
done:
    kn_free(visible);
    kn_free(s);
    return st;
}

/* ---- report ------------------------------------------------------------------------------------*/

static void record(bench *b, const char *id, double ours, double peer, const char *peer_name,
                   const char *unit, double p10, double p90)
{
    char date[16];
    time_t t = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&t));
    if (!b->out) return;
    /* "cuda 0, NVIDIA H100 80GB HBM3, 79 GiB, ...": the card is the second part */
    char card[96] = "unknown";
    sscanf(kn_dev_describe(b->dev), "%*[^,], %95[^,]", card);
    fprintf(b->out,
            "%s\n  {\"id\": \"%s\", \"ours\": %.4g, \"peer\": %.4g, \"peer_name\": \"%s\", "
            "\"unit\": \"%s\", \"spread\": [%.4g, %.4g], \"commit\": \"%s\", \"date\": \"%s\", "
            "\"card\": \"%s\"}",
            b->records++ ? "," : "[", id, ours, peer, peer_name, unit, p10, p90, b->commit, date, card);
    fflush(b->out);
}

/* The records that this case gives. rate: TFLOP/s of a time at a density. */
static void record_case(bench *b, const bench_case *c, const spread t[CONTENDERS], double executed,
                        double error)
{
    double pairs = (double)b->tokens * (double)b->tokens * 4 * b->dim * b->heads * 1e-9;
    double ms = t[OURS].median, p10 = t[OURS].p10, p90 = t[OURS].p90, dense = t[DENSE_PEER].median;
    const char *cudnn = "cuDNN dense";
    char id[64];
    if (c->method == DENSE) {
        snprintf(id, sizeof id, "dense-%s-rate",
                 b->tokens == 32760 ? "32k" : b->tokens == 171360 ? "171k" : "75k");
        record(b, id, pairs / ms, pairs / dense, cudnn, "TFLOP/s", pairs / p90, pairs / p10);
        return;
    }
    if (c->int8) {
        snprintf(id, sizeof id, "%s-error", c->name);
        record(b, c->name, ms, dense, "own, bf16", "ms", p10, p90);
        record(b, id, error, 3e-2, "the bound", "relative L2", error, error);
        return;
    }
    if (t[FLEX].median > 0) {
        snprintf(id, sizeof id, "%s-vs-flex", c->name);
        record(b, id, ms, t[FLEX].median,
               c->method == LISTS ? "FlexAttention, random lists of the same density"
                                  : "FlexAttention, same mask",
               "ms", p10, p90);
    }
    if (c->method == LISTS) {
        record(b, c->name, ms, dense * c->density, "own dense x density", "ms", p10, p90);
        return;
    }
    if (dense > 0) {
        bool window = c->method == WINDOW;
        snprintf(id, sizeof id, window ? "%s-vs-dense" : "%s", c->name);
        record(b, id, ms, dense, cudnn, "ms", p10, p90);
    }
    if (strcmp(c->name, "window-1080p") == 0)
        record(b, "blocks-rate-1080p", pairs * executed / ms, pairs / dense, cudnn, "TFLOP/s",
               pairs * executed / p90, pairs * executed / p10);
    if (strcmp(c->name, "tiles-1080p") == 0)
        record(b, "blocks-rate-tiles-1080p", pairs * executed / ms, pairs / dense, cudnn,
               "TFLOP/s", pairs * executed / p90, pairs * executed / p10);
    if (t[CHOICE].median > 0) {
        snprintf(id, sizeof id, "%s-choice", c->name);
        record(b, id, t[CHOICE].median, ms, "the whole layer", "ms", t[CHOICE].p10, t[CHOICE].p90);
    }
}

static kn_status run_case(bench *b, const bench_case *c)
{
    made m = {0};
    spread t[CONTENDERS];
    double error = NAN, executed;
    kn_status st;
    KN_TRY_GOTO(make_tensors(b, kn_grid_tokens(c->grid)));
    if (c->norm) KN_TRY_GOTO(make_norm(b));
    KN_TRY_GOTO(open_plan(b, c, &m));
    KN_TRY_GOTO(time_case(b, c, &m, t));
    double once;
    KN_TRY_GOTO(call(b, c, &m, OURS, &once)); /* last, for the error */
    KN_TRY_GOTO(find_error(b, &m, &error));
    if (m.plan->lists) {
        executed = m.plan->lists->executed;
    } else {
        kn_attn_plan_stats stats;
        kn_attn_plan_count(m.plan, 128, 128, &stats);
        executed = stats.executed;
    }
    double pairs = (double)b->tokens * (double)b->tokens * 4 * b->dim * b->heads * 1e-9;
    double ms = t[OURS].median, dense = t[DENSE_PEER].median;
    printf("%-18s %7lld %6.2f%% %6.2f%% %9.3f [%8.3f %8.3f] %6.0f %6.0f ", c->name,
           (long long)b->tokens, 100 * m.plan->density, 100 * executed, ms, t[OURS].p10,
           t[OURS].p90, pairs * executed / ms, pairs * m.plan->density / ms);
    if (dense > 0)
        printf("%9.3f %6.2f %5.3f ", dense, dense / ms, dense / ms * m.plan->density);
    else
        printf("%9s %6s %5s ", "-", "-", "-");
    printf("%8.3f %9.3f %9.2e\n", t[CHOICE].median, t[FLEX].median, error);
    fflush(stdout);
    record_case(b, c, t, executed, error);
done:
    drop_norm(b);
    drop_plan(&m);
    return st;
}

/* ---- program -----------------------------------------------------------------------------------*/

static const char *option(int argc, char **argv, const char *name, const char *value)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) value = argv[i + 1];
    return value;
}

static kn_status start_peer(bench *b, const char *command)
{
    int to[2], from[2];
    char line[64];
    if (pipe(to) || pipe(from)) return kn_fail(KN_ERR_IO, "bench_attn: no pipe");
    b->peer = fork();
    if (b->peer < 0) return kn_fail(KN_ERR_IO, "bench_attn: cannot start the peer");
    if (b->peer == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[1]);
        close(from[0]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    b->to_peer = fdopen(to[1], "w");
    b->from_peer = fdopen(from[0], "r");
    if (!fgets(line, sizeof line, b->from_peer) || strncmp(line, "ready", 5) != 0)
        return kn_fail(KN_ERR_IO, "bench_attn: the peer did not start: %s", command);
    return KN_OK;
}

static bool wanted(const bench *b, const char *name)
{
    const char *at = b->only;
    size_t n = strlen(name);
    if (!at) return true;
    for (; (at = strstr(at, name)); at += n)
        if ((at == b->only || at[-1] == ',') && (at[n] == 0 || at[n] == ',')) return true;
    return false;
}

static kn_status run_all(bench *b)
{
    printf("%-18s %7s %7s %7s %9s %19s %6s %6s %9s %6s %5s %8s %9s %9s\n", "case", "tokens",
           "visible", "execut.", "ms", "[p10 p90]", "TF ex", "TF use", "dense ms", "x", "of1/d",
           "choice", "flex ms", "error");
    int failed = 0;
    for (int i = 0; i < CASES; i++) {
        if (!wanted(b, cases[i].name)) continue;
        if (run_case(b, &cases[i]) == KN_OK) continue;
        printf("%-18s failed: %s\n", cases[i].name, kn_error_text());
        failed++;
    }
    return failed ? kn_fail(KN_ERR_DEVICE, "%d cases failed", failed) : KN_OK;
}

int main(int argc, char **argv)
{
    bench b = {.heads = atoi(option(argc, argv, "--heads", "12")),
               .dim = atoi(option(argc, argv, "--dim", "128")),
               .rounds = atoi(option(argc, argv, "--rounds", "7")),
               .error_rows = atoi(option(argc, argv, "--error-rows", "24")),
               .sample_ms = atoi(option(argc, argv, "--sample", "10")),
               .commit = option(argc, argv, "--commit", "unknown"),
               .only = option(argc, argv, "--only", NULL)};
    const char *out = option(argc, argv, "--out", NULL), *peer = option(argc, argv, "--peer", NULL);
    kn_status st = KN_OK;
    if (b.heads < 1 || b.dim < 1 || b.dim > MAX_DIM || b.rounds < 1 || b.rounds > MAX_ROUNDS)
        KN_TRY_GOTO(kn_fail(KN_ERR_ARG, "heads %d, dim %d (1 to 256), rounds %d (1 to %d)", b.heads,
                            b.dim, b.rounds, MAX_ROUNDS));
    if (peer) KN_TRY_GOTO(start_peer(&b, peer));
    KN_TRY_GOTO(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CUDA}, &b.dev));
    printf("%s, %d heads of %d, %d rounds\n", kn_dev_describe(b.dev), b.heads, b.dim, b.rounds);
    KN_TRY_GOTO(make_base(&b));
    if (out && !(b.out = fopen(out, "w")))
        KN_TRY_GOTO(kn_fail(KN_ERR_IO, "%s: cannot be written", out));
    st = run_all(&b);
    if (b.out) fprintf(b.out, "%s]\n", b.records ? "\n" : "[");
done:
    if (st != KN_OK) fprintf(stderr, "bench_attn: %s\n", kn_error_text());
    if (b.out) fclose(b.out);
    if (b.dev) drop_tensors(&b);
    kn_dev_close(&b.dev);
    kn_free(b.base);
    if (b.to_peer) fclose(b.to_peer);
    if (b.from_peer) fclose(b.from_peer);
    if (b.peer > 0) waitpid(b.peer, NULL, 0);
    return st == KN_OK ? 0 : 1;
}
