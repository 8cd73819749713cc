/* bench/dit_forward.c - time of one evaluation of the transformer.
 *
 * usage: bench_dit_forward MODEL F H W T THREADS RUNS [ref|cpu]
 *   MODEL  a transformer's folder or file; F H W latent frames, height, width; T text tokens
 * Prints one JSON object: milliseconds of the forward alone (the prompt prepared before) and of
 * prompt and forward together (what diffusers does at every step); medians and minima.
 * tools/bench_torch_dit.py runs it beside diffusers on the same model.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dit/dit.h"
#include "io/memory.h"

enum { MAX_RUNS = 1000 };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Small pseudo-random values: timing must not meet denormals or one constant. */
static kn_status random_tensor(kn_dev *d, int rank, const int64_t *dims, kn_tensor *t)
{
    *t = kn_tensor_make(NULL, KN_F32, rank, dims);
    void *p;
    KN_TRY(kn_alloc(kn_tensor_bytes(t), &p));
    float *values = p;
    uint32_t s = 1;
    for (int64_t i = 0; i < kn_tensor_count(t); i++) {
        s = s * 1664525u + 1013904223u;
        values[i] = (float)(int32_t)s / 2147483648.0f;
    }
    kn_status st = kn_dev_alloc(d, kn_tensor_bytes(t), &t->data);
    if (st == KN_OK) st = kn_dev_upload(d, values, t);
    kn_free(values);
    return st;
}

typedef struct bench {
    kn_dev *dev;
    kn_dit *model;
    kn_dit_context *context;
    kn_dit_rope rope;
    kn_tensor embeds;
    kn_dit_args args;
    size_t scratch_bytes;
} bench;

static kn_status bench_open(bench *b, char **argv)
{
    int64_t F = atoll(argv[2]), H = atoll(argv[3]), W = atoll(argv[4]), T = atoll(argv[5]);
    bool ref = argv[8] && strcmp(argv[8], "ref") == 0;
    kn_dev_params params = {.kind = ref ? KN_DEV_REF : KN_DEV_CPU, .threads = atoi(argv[6])};
    KN_TRY(kn_dev_open(&params, &b->dev));
    KN_TRY(kn_dit_open(b->dev, argv[1], &b->model));
    const kn_dit_config *c = kn_dit_get_config(b->model);
    KN_TRY(random_tensor(b->dev, 2, (int64_t[]){T, c->text_dim}, &b->embeds));
    KN_TRY(random_tensor(b->dev, 4, (int64_t[]){c->in_channels, F, H, W}, &b->args.latents));
    KN_TRY(random_tensor(b->dev, 4, (int64_t[]){c->out_channels, F, H, W}, &b->args.velocity));
    KN_TRY(kn_dit_rope_open(b->model, F, H, W, NULL, &b->rope));
    KN_TRY(kn_dit_context_open(b->model, &b->embeds, NULL, &b->context));
    b->args.context = b->context;
    b->args.rope = &b->rope;
    b->args.timestep = 750;
    KN_TRY(kn_dit_scratch_bytes(b->model, &b->args, &b->scratch_bytes));
    return kn_arena_open(b->dev, b->scratch_bytes, &b->args.scratch);
}

static void bench_close(bench *b)
{
    kn_arena_close(&b->args.scratch);
    kn_dit_context_close(&b->context);
    kn_dit_rope_close(&b->rope);
    kn_dev_free(b->dev, b->embeds.data, kn_tensor_bytes(&b->embeds));
    kn_dev_free(b->dev, b->args.latents.data, kn_tensor_bytes(&b->args.latents));
    kn_dev_free(b->dev, b->args.velocity.data, kn_tensor_bytes(&b->args.velocity));
    kn_dit_close(&b->model);
    kn_dev_close(&b->dev);
}

static kn_status measure(bench *b, int runs, double *forward, double *both)
{
    KN_TRY(kn_dit_forward(b->model, &b->args)); /* pages and caches */
    for (int i = 0; i < runs; i++) {
        double start = now_ms();
        KN_TRY(kn_dit_forward(b->model, &b->args));
        KN_TRY(kn_dev_sync(b->dev));
        forward[i] = now_ms() - start;
        start = now_ms();
        kn_dit_context_close(&b->context);
        KN_TRY(kn_dit_context_open(b->model, &b->embeds, NULL, &b->context));
        b->args.context = b->context;
        KN_TRY(kn_dev_sync(b->dev));
        both[i] = forward[i] + now_ms() - start;
    }
    qsort(forward, (size_t)runs, sizeof *forward, by_value);
    qsort(both, (size_t)runs, sizeof *both, by_value);
    return KN_OK;
}

int main(int argc, char **argv)
{
    static double forward[MAX_RUNS], both[MAX_RUNS];
    int runs = argc >= 8 ? atoi(argv[7]) : 0;
    if (argc < 8 || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: bench_dit_forward MODEL F H W T THREADS RUNS(1..%d) [ref|cpu]\n",
                MAX_RUNS);
        return 2;
    }
    bench b = {0};
    kn_status st = bench_open(&b, argv);
    if (st == KN_OK) st = measure(&b, runs, forward, both);
    if (st == KN_OK)
        printf("{\"device\": \"%s\", \"tokens\": %lld, \"forward_ms\": %.3f, \"forward_min_ms\": "
               "%.3f, "
               "\"with_prompt_ms\": %.3f, \"with_prompt_min_ms\": %.3f, \"scratch_bytes\": %zu}\n",
               kn_dev_describe(b.dev), (long long)b.rope.tokens, forward[runs / 2], forward[0],
               both[runs / 2], both[0], b.scratch_bytes);
    else
        fprintf(stderr, "bench_dit_forward: %s\n", kn_error_text());
    bench_close(&b);
    return st == KN_OK ? 0 : 1;
}
