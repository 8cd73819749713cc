/* bench/attention_window.c - what a window plan saves on the CPU executor.
 *
 * bench_attention_window [--t T --h H --w W] [--window-h A --window-w B] [--heads N] [--dim D]
 *                        [--threads T] [--rounds R] [--cpu-time 1]
 * Runs dense attention and the inward window (all frames), as aligned tiles and as unaligned runs,
 * in turn; the tile is the search's. Prints the median milliseconds of each, the speed-up, and its
 * share of the ideal, 1 / density. --cpu-time as in bench_attention_cpu.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attention/window.h"
#include "io/memory.h"

enum { KINDS = 3, MAX_ROUNDS = 64 };

static double now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static long option(int argc, char **argv, const char *name, long value)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) value = strtol(argv[i + 1], NULL, 10);
    return value;
}

static void fill(float *x, size_t count)
{
    uint64_t s = 88172645463325252u;
    for (size_t i = 0; i < count; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        x[i] = (float)(s >> 40) * 0x1p-22f - 2.0f;
    }
}

static kn_status make_plan(const kn_grid_search *search, bool runs, int block, kn_attn_plan **out)
{
    kn_grid_search s = *search;
    kn_grid_choice best;
    s.runs = runs;
    if (runs) s.block_k = 1; /* the executor pays for the keys that are listed */
    KN_TRY(kn_grid_best_tile(&s, &best));
    kn_window_params p = {.layout = {.text = 0}, .block = block};
    memcpy(p.layout.grid, s.grid, sizeof p.layout.grid);
    memcpy(p.layout.tile, runs ? (int[3]){s.grid[0], 1, 1} : best.tile, sizeof best.tile);
    memcpy(p.query_tile, best.tile, sizeof best.tile);
    memcpy(p.window, s.window, sizeof p.window);
    KN_TRY(kn_window_plan(&p, out));
    kn_attn_plan_stats st;
    kn_attn_plan_count(*out, 128, 128, &st);
    printf("%s: tile %dx%dx%d, density %.4f, listed %.4f, executed by 128 x 128 blocks %.4f\n",
           runs ? "runs " : "tiles", best.tile[0], best.tile[1], best.tile[2], st.density,
           st.listed, st.executed);
    return KN_OK;
}

static kn_status call(kn_dev *dev, const kn_attn_args *args, const kn_attn_plan *plan, kn_arena *scratch)
{
    return plan ? kn_attn_sparse(dev, args, plan, scratch) : kn_attn_dense(dev, args, scratch);
}

/* Bytes of scratch that the hungriest kind wants. */
static kn_status measure(const kn_attn_args *args, kn_attn_plan *const plan[KINDS], size_t *bytes)
{
    kn_dev *dev = NULL;
    kn_arena *scratch = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_MEASURE}, &dev));
    KN_TRY_GOTO(kn_arena_open(dev, 0, &scratch));
    for (int i = 0; i < KINDS; i++) KN_TRY_GOTO(call(dev, args, plan[i], scratch));
    *bytes = kn_arena_peak(scratch);
done:
    kn_arena_close(&scratch);
    kn_dev_close(&dev);
    return st;
}

/* With scratch in an arena, as the networks run it. */
static kn_status time_all(kn_dev *dev, const kn_attn_args *args, kn_attn_plan *const plan[KINDS],
                          int rounds, clockid_t clock, double ms[KINDS][MAX_ROUNDS])
{
    size_t bytes;
    kn_arena *scratch;
    KN_TRY(measure(args, plan, &bytes));
    KN_TRY(kn_arena_open(dev, bytes, &scratch));
    kn_status st = KN_OK;
    for (int r = -1; r < rounds; r++) /* -1 warms up */
        for (int i = 0; i < KINDS; i++) {
            double start = now_ms(clock);
            KN_TRY_GOTO(call(dev, args, plan[i], scratch));
            if (r >= 0) ms[i][r] = now_ms(clock) - start;
        }
done:
    kn_arena_close(&scratch);
    return st;
}

int main(int argc, char **argv)
{
    int block = (int)option(argc, argv, "--block", 128);
    kn_grid_search s = {.grid = {(int)option(argc, argv, "--t", 21),
                                 (int)option(argc, argv, "--h", 24),
                                 (int)option(argc, argv, "--w", 32)},
                        .block_q = block,
                        .block_k = block};
    s.window[1].size = (int)option(argc, argv, "--window-h", 11);
    s.window[2].size = (int)option(argc, argv, "--window-w", 15);
    int64_t L = kn_grid_tokens(s.grid), N = option(argc, argv, "--heads", 1);
    int64_t D = option(argc, argv, "--dim", 128);
    int rounds = (int)option(argc, argv, "--rounds", 5);
    clockid_t clock =
        option(argc, argv, "--cpu-time", 0) ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    kn_attn_plan *plan[KINDS] = {NULL};
    double ms[KINDS][MAX_ROUNDS];
    kn_dev *dev = NULL;
    void *qkv = NULL, *out = NULL;
    kn_status st;
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    KN_TRY_GOTO(kn_dev_open(
        &(kn_dev_params){.kind = KN_DEV_CPU, .threads = (int)option(argc, argv, "--threads", 0)},
        &dev));
    KN_TRY_GOTO(make_plan(&s, false, block, &plan[1]));
    KN_TRY_GOTO(make_plan(&s, true, block, &plan[2]));
    KN_TRY_GOTO(kn_alloc((size_t)(L * 3 * N * D) * sizeof(float), &qkv));
    KN_TRY_GOTO(kn_alloc((size_t)(L * N * D) * sizeof(float), &out));
    fill(qkv, (size_t)(L * 3 * N * D));
    kn_attn_args args = {.q = kn_tensor_of(qkv, KN_F32, L, N, D),
                         .out = kn_tensor_of(out, KN_F32, L, N, D),
                         .scale = 0.0884f};
    args.q.stride[0] = 3 * N * D;
    args.k = args.v = args.q;
    args.k.data = (float *)qkv + N * D;
    args.v.data = (float *)qkv + 2 * N * D;
    KN_TRY_GOTO(time_all(dev, &args, plan, rounds, clock, ms));
    printf("grid %dx%dx%d = %lld tokens, %lld heads of %lld, %d threads, %d rounds\n", s.grid[0],
           s.grid[1], s.grid[2], (long long)L, (long long)N, (long long)D, kn_dev_threads(dev),
           rounds);
    for (int i = 0; i < KINDS; i++) qsort(ms[i], (size_t)rounds, sizeof(double), ascending);
    for (int i = 0; i < KINDS; i++) {
        double median = ms[i][rounds / 2], speedup = ms[0][rounds / 2] / median;
        printf("%s %9.1f ms  speed-up %6.2f  %.3f of 1/density (minima: %.3f)\n",
               i == 0   ? "dense"
               : i == 1 ? "tiles"
                        : "runs ",
               median, speedup, speedup * (plan[i] ? plan[i]->density : 1.0),
               ms[0][0] / ms[i][0] * (plan[i] ? plan[i]->density : 1.0));
    }
done:
    if (st != KN_OK) fprintf(stderr, "bench_attention_window: %s\n", kn_error_text());
    for (int i = 0; i < KINDS; i++) kn_attn_plan_free(&plan[i]);
    kn_free(qkv);
    kn_free(out);
    kn_dev_close(&dev);
    return st == KN_OK ? 0 : 1;
}
