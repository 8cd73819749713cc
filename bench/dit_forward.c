/* bench/dit_forward.c - time of one evaluation of the transformer.
 *
 * usage: bench_dit_forward MODEL F H W T THREADS RUNS [ref|cpu|cuda[+attn8][+f8][+graph] [IN OUT]]
 *   MODEL  a transformer's folder or file; F H W latent frames, height, width; T text tokens
 *   IN     a safetensors file with f32 tensors "latents" [C,F,H,W] and "embeds" [T,text_dim], read
 *          instead of random ones; the velocity goes to OUT as tensor "velocity"
 *   +attn8 self-attention with 8-bit products; +f8: linear layers in e4m3; +graph: recorded (compute/record.h)
 * Prints one JSON object: milliseconds of the forward alone (the prompt prepared before) and of
 * prompt and forward together (what diffusers does at every step), medians and minima; seconds of
 * loading the model; bytes of scratch and the most that the device held; bytes that a recording took.
 * tools/bench_torch_dit.py and tools/bench_torch_dit_gpu.py run it beside diffusers on the same
 * model.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/timing.h"
#include "dit/dit.h"
#include "io/memory.h"
#include "io/safetensors.h"

enum { MAX_RUNS = 1000 };

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

/* From a file when there is one. */
static kn_status input_tensor(kn_dev *d, kn_safetensors *file, const char *name, int rank,
                              const int64_t *dims, kn_tensor *t)
{
    if (!file) return random_tensor(d, rank, dims, t);
    *t = kn_tensor_make(NULL, KN_F32, rank, dims);
    const kn_st_tensor *stored = kn_safetensors_find(file, name, NULL);
    if (!stored || stored->dtype != KN_ST_F32 || stored->bytes != kn_tensor_bytes(t))
        return kn_fail(KN_ERR_FORMAT, "%s: f32 tensor %s of %zu bytes expected",
                       kn_safetensors_path(file), name, kn_tensor_bytes(t));
    KN_TRY(kn_dev_alloc(d, kn_tensor_bytes(t), &t->data));
    return kn_dev_upload(d, stored->data, t);
}

static kn_status write_velocity(kn_dev *d, const char *path, const kn_tensor *velocity)
{
    kn_st_tensor t = {
        .name = "velocity", .dtype = KN_ST_F32, .rank = 4, .bytes = kn_tensor_bytes(velocity)};
    for (int i = 0; i < 4; i++) t.dim[i] = velocity->dim[i];
    void *values;
    KN_TRY(kn_alloc(t.bytes, &values));
    kn_status st = kn_dev_download(d, velocity, values);
    t.data = values;
    if (st == KN_OK) st = kn_safetensors_write(path, &t, 1, NULL);
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
    size_t recorded_bytes;
    size_t scratch_bytes;
    double load_sec;
} bench;

static kn_dev_kind kind_of(const char *name)
{
    if (name && strcmp(name, "ref") == 0) return KN_DEV_REF;
    return name && strncmp(name, "cuda", 4) == 0 ? KN_DEV_CUDA : KN_DEV_CPU;
}

static kn_status bench_open(bench *b, char **argv)
{
    int64_t F = atoll(argv[2]), H = atoll(argv[3]), W = atoll(argv[4]), T = atoll(argv[5]);
    kn_dev_params params = {.kind = kind_of(argv[8]), .threads = atoi(argv[6])};
    kn_safetensors *in = NULL;
    KN_TRY(kn_dev_open(&params, &b->dev));
    double start = now_ms();
    KN_TRY(kn_dit_open(b->dev, argv[1], &b->model));
    KN_TRY(kn_dev_sync(b->dev));
    b->load_sec = (now_ms() - start) / 1e3;
    const kn_dit_config *c = kn_dit_get_config(b->model);
    if (argv[8] && argv[9]) KN_TRY(kn_safetensors_open(argv[9], NULL, &in));
    int64_t text[2] = {T, c->text_dim}, latents[4] = {c->in_channels, F, H, W};
    kn_status st = input_tensor(b->dev, in, "embeds", 2, text, &b->embeds);
    if (st == KN_OK) st = input_tensor(b->dev, in, "latents", 4, latents, &b->args.latents);
    kn_safetensors_close(&in);
    KN_TRY(st);
    KN_TRY(random_tensor(b->dev, 4, (int64_t[]){c->out_channels, F, H, W}, &b->args.velocity));
    KN_TRY(kn_dit_rope_open(b->model, F, H, W, NULL, &b->rope));
    KN_TRY(kn_dit_context_open(b->model, &b->embeds, NULL, &b->context));
    b->args.context = b->context;
    b->args.rope = &b->rope;
    b->args.timestep = 750;
    b->args.int8 = argv[8] && strstr(argv[8], "+attn8") != NULL;
    b->args.f8 = argv[8] && strstr(argv[8], "+f8") != NULL;
    if (argv[8] && strstr(argv[8], "+graph")) KN_TRY(kn_records_open(b->dev, &b->args.records));
    KN_TRY(kn_dit_scratch_bytes(b->model, &b->args, &b->scratch_bytes));
    return kn_arena_open(b->dev, b->scratch_bytes, &b->args.scratch);
}

static void bench_close(bench *b)
{
    kn_records_close(&b->args.records);
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
    KN_TRY(kn_dit_forward(b->model, &b->args)); /* pages, caches, choice of kernels */
    KN_TRY(kn_dev_sync(b->dev));
    size_t before = kn_dev_memory_free(b->dev);
    for (int i = 0; b->args.records && i < 2; i++) KN_TRY(kn_dit_forward(b->model, &b->args));
    KN_TRY(kn_dev_sync(b->dev));
    b->recorded_bytes = before - kn_dev_memory_free(b->dev);
    for (int i = 0; i < runs; i++) {
        double start = now_ms();
        KN_TRY(kn_dit_forward(b->model, &b->args));
        KN_TRY(kn_dev_sync(b->dev));
        forward[i] = now_ms() - start;
    }
    for (int i = 0; i < runs; i++) { /* after them: another context is another forward to record */
        double start = now_ms();
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
    if (argc < 8 || argc == 10 || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr,
                "usage: bench_dit_forward MODEL F H W T THREADS RUNS(1..%d) "
                "[ref|cpu|cuda[+attn8][+f8][+graph] [IN OUT]]\n",
                MAX_RUNS);
        return 2;
    }
    bench b = {0};
    kn_status st = bench_open(&b, argv);
    if (st == KN_OK) st = measure(&b, runs, forward, both);
    if (st == KN_OK && argc > 10) st = write_velocity(b.dev, argv[10], &b.args.velocity);
    if (st == KN_OK)
        printf("{\"device\": \"%s\", \"tokens\": %lld, \"forward_ms\": %.3f, \"forward_min_ms\": "
               "%.3f, "
               "\"with_prompt_ms\": %.3f, \"with_prompt_min_ms\": %.3f, \"load_sec\": %.3f, "
               "\"scratch_bytes\": %zu, \"device_bytes\": %zu, \"recorded_bytes\": %zu}\n",
               kn_dev_describe(b.dev), (long long)b.rope.tokens, forward[runs / 2], forward[0],
               both[runs / 2], both[0], b.load_sec, b.scratch_bytes, kn_dev_bytes_peak(b.dev), b.recorded_bytes);
    else
        fprintf(stderr, "bench_dit_forward: %s\n", kn_error_text());
    bench_close(&b);
    return st == KN_OK ? 0 : 1;
}
