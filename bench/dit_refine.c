/* bench/dit_refine.c - time of one guided step of a refine stage on a CUDA device.
 *
 * usage: bench_dit_refine MODEL [F H W [WINDOW_H WINDOW_W [RUNS [HOW]]]]
 *   MODEL  a transformer's folder (weights may be random: tools/bench_torch_refine.py --make writes
 *          one); F H W latent frames, height, width (21 136 240: 1080p, 81 frames); window in tokens
 *   HOW: where contexts and weights are: device, host, int8; with offload+ before it the weights of
 *   all blocks but two are in host memory, with attn8+ the refine stage's self-attention has 8-bit
 *   products, with f8+ the linear layers of all evaluations are in e4m3
 * The step is FreeSwim's with a refresh every 5th step: the prompt's evaluation sees the window and
 * takes its cross-attention from a branch with dense self-attention, which runs at every 5th step and
 * ends with its last context; the negative prompt's evaluation sees the window alone.
 * Prints one JSON object: medians and extremes in milliseconds of the three evaluations and of the
 * base pass's dense evaluation at 480p, and the step: prompt + negative + full / 5.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/timing.h"
#include "attention/window.h"
#include "dit/dit.h"
#include "io/memory.h"

enum { MAX_RUNS = 100, REFRESH = 5, TEXT = 512 };

typedef enum evaluation { PROMPT, NEGATIVE, FULL, BASE, EVALUATIONS } evaluation;
static const char *const names[EVALUATIONS] = {"prompt", "negative", "full", "base_480p"};

typedef struct bench {
    kn_dev *dev;
    kn_dit *model;
    kn_dit_context *context;
    kn_attn_plan *plan;
    kn_dit_rope rope, base_rope;
    kn_tensor embeds, latents, velocity, base_latents;
    kn_dit_contexts *contexts;
    kn_arena *scratch;
    kn_dit_args args[EVALUATIONS];
} bench;

/* Normal values. */
static kn_status random_tensor(kn_dev *d, int rank, const int64_t *dims, kn_tensor *t)
{
    *t = kn_tensor_make(NULL, KN_F32, rank, dims);
    float *values;
    KN_TRY(kn_alloc(kn_tensor_bytes(t), (void **)&values));
    uint32_t s = 1;
    for (int64_t i = 0; i < kn_tensor_count(t); i++) {
        double sum = -6;
        for (int j = 0; j < 12; j++) sum += (s = s * 1664525u + 1013904223u) * 0x1p-32;
        values[i] = (float)sum;
    }
    kn_status st = kn_dev_alloc(d, kn_tensor_bytes(t), &t->data);
    if (st == KN_OK) st = kn_dev_upload(d, values, t);
    kn_free(values);
    return st;
}

/* The window's plan in the token order that the search finds, and that order's RoPE. */
static kn_status open_window(bench *b, const int64_t lat[3], const int window[2])
{
    int32_t *order = NULL;
    kn_grid_search s = {.block_q = 128, .block_k = 128};
    kn_grid_choice best;
    kn_status st;
    for (int a = 0; a < 3; a++) s.grid[a] = (int)(lat[a] / (a ? 2 : 1));
    s.window[1].size = window[0];
    s.window[2].size = window[1];
    KN_TRY_GOTO(kn_grid_best_tile(&s, &best));
    kn_window_params p = {.block = 128};
    memcpy(p.layout.grid, s.grid, sizeof s.grid);
    memcpy(p.layout.tile, best.tile, sizeof best.tile);
    memcpy(p.query_tile, best.tile, sizeof best.tile);
    memcpy(p.window, s.window, sizeof p.window);
    KN_TRY_GOTO(kn_window_plan(&p, &b->plan));
    KN_TRY_GOTO(kn_alloc_array((size_t)kn_grid_tokens(s.grid), sizeof *order, (void **)&order));
    kn_grid_tile_order(s.grid, best.tile, order);
    KN_TRY_GOTO(kn_dit_rope_open(b->model, lat[0], lat[1], lat[2], order, &b->rope));
done:
    kn_free(order);
    return st;
}

static kn_status open_all(bench *b, const char *path, const int64_t lat[3], const int window[2],
                          const char *how)
{
    kn_dit_place place = strstr(how, "int8")   ? KN_DIT_EIGHT_BITS
                         : strstr(how, "host") ? KN_DIT_ON_HOST
                                               : KN_DIT_ON_DEVICE;
    bool offload = strstr(how, "offload") != NULL;
    KN_TRY(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CUDA, .offload = offload}, &b->dev));
    KN_TRY(kn_dit_open(b->dev, path, &b->model));
    const kn_dit_config *c = kn_dit_get_config(b->model);
    int64_t base[3] = {lat[0], 60, 104};
    size_t bytes = 0, most = 0;
    KN_TRY(open_window(b, lat, window));
    KN_TRY(kn_dit_rope_open(b->model, base[0], base[1], base[2], NULL, &b->base_rope));
    KN_TRY(random_tensor(b->dev, 2, (int64_t[]){TEXT, c->text_dim}, &b->embeds));
    KN_TRY(random_tensor(b->dev, 4, (int64_t[]){c->in_channels, lat[0], lat[1], lat[2]}, &b->latents));
    KN_TRY(random_tensor(b->dev, 4, (int64_t[]){c->in_channels, base[0], base[1], base[2]},
                         &b->base_latents));
    KN_TRY(random_tensor(b->dev, 4, (int64_t[]){c->out_channels, lat[0], lat[1], lat[2]},
                         &b->velocity));
    KN_TRY(kn_dit_context_open(b->model, &b->embeds, NULL, &b->context));
    KN_TRY(kn_dit_contexts_open(b->model, &b->rope, place, (int[2]){0, 0}, 1, &b->contexts));
    kn_dit_args args = {.context = b->context,
                        .rope = &b->rope,
                        .latents = b->latents,
                        .velocity = b->velocity,
                        .int8 = strstr(how, "attn8") != NULL,
                        .f8 = strstr(how, "f8+") != NULL,
                        .timestep = 750};
    for (int i = 0; i < EVALUATIONS; i++) b->args[i] = args;
    b->args[PROMPT].plan = b->args[NEGATIVE].plan = b->plan;
    b->args[PROMPT].cross = KN_DIT_CROSS_USE;
    b->args[FULL].cross = KN_DIT_CROSS_STORE;
    b->args[FULL].contexts_only = true;
    b->args[PROMPT].contexts = b->args[FULL].contexts = b->contexts;
    b->args[BASE].int8 = false;
    b->args[BASE].rope = &b->base_rope;
    b->args[BASE].latents = b->args[BASE].velocity = b->base_latents;
    for (int i = 0; i < EVALUATIONS; i++) {
        KN_TRY(kn_dit_scratch_bytes(b->model, &b->args[i], &bytes));
        if (bytes > most) most = bytes;
    }
    KN_TRY(kn_arena_open(b->dev, most, &b->scratch));
    for (int i = 0; i < EVALUATIONS; i++) b->args[i].scratch = b->scratch;
    return KN_OK;
}

static void drop(bench *b, kn_tensor *t)
{
    if (t->data) kn_dev_free(b->dev, t->data, kn_tensor_bytes(t));
}

static void close_all(bench *b)
{
    if (!b->dev) return;
    kn_arena_close(&b->scratch);
    kn_dit_context_close(&b->context);
    kn_dit_rope_close(&b->rope);
    kn_dit_rope_close(&b->base_rope);
    kn_attn_plan_free(&b->plan);
    drop(b, &b->embeds);
    drop(b, &b->latents);
    drop(b, &b->velocity);
    drop(b, &b->base_latents);
    kn_dit_contexts_close(&b->contexts);
    kn_dit_close(&b->model);
    kn_dev_close(&b->dev);
}

/* In turns, full branch first, so that its contexts are there. */
static kn_status measure(bench *b, int runs, double ms[EVALUATIONS][MAX_RUNS])
{
    static const evaluation turn[EVALUATIONS] = {FULL, PROMPT, NEGATIVE, BASE};
    for (int r = -1; r < runs; r++)
        for (int i = 0; i < EVALUATIONS; i++) {
            double start = now_ms();
            KN_TRY(kn_dit_forward(b->model, &b->args[turn[i]]));
            KN_TRY(kn_dev_sync(b->dev));
            if (r >= 0) ms[turn[i]][r] = now_ms() - start;
        }
    return KN_OK;
}

int main(int argc, char **argv)
{
    static double ms[EVALUATIONS][MAX_RUNS];
    int64_t lat[3] = {21, 136, 240};
    int window[2] = {31, 53}, runs = argc > 7 ? atoi(argv[7]) : 3;
    for (int i = 0; i < 3 && argc > 4; i++) lat[i] = atoll(argv[2 + i]);
    for (int i = 0; i < 2 && argc > 6; i++) window[i] = atoi(argv[5 + i]);
    if (argc < 2 || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: bench_dit_refine MODEL [F H W [WINDOW_H WINDOW_W [RUNS(1..%d) [HOW]]]]\n",
                MAX_RUNS);
        return 2;
    }
    bench b = {0};
    kn_status st = open_all(&b, argv[1], lat, window, argc > 8 ? argv[8] : "device");
    if (st == KN_OK) st = measure(&b, runs, ms);
    if (st == KN_OK) {
        double median[EVALUATIONS];
        printf("{\"device\": \"%s\", \"how\": \"%s\", \"tokens\": %lld, \"peak_gib\": %.2f, "
               "\"host_gib\": %.2f", kn_dev_describe(b.dev), argc > 8 ? argv[8] : "device",
               (long long)b.rope.tokens, (double)kn_dev_bytes_peak(b.dev) / (1 << 30),
               (double)kn_dev_host_bytes_peak(b.dev) / (1 << 30));
        for (int i = 0; i < EVALUATIONS; i++) {
            qsort(ms[i], (size_t)runs, sizeof *ms[i], by_value);
            median[i] = ms[i][runs / 2];
            printf(", \"%s_ms\": [%.1f, %.1f, %.1f]", names[i], ms[i][0], median[i],
                   ms[i][runs - 1]);
        }
        printf(", \"step_ms\": %.1f}\n",
               median[PROMPT] + median[NEGATIVE] + median[FULL] / REFRESH);
    } else {
        fprintf(stderr, "bench_dit_refine: %s\n", kn_error_text());
    }
    close_all(&b);
    return st == KN_OK ? 0 : 1;
}
