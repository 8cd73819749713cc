/* bench/attention_cpu.c - time of dense attention on the CPU executor.
 *
 * bench_attention_cpu [--tokens L] [--heads N] [--dim D] [--threads T] [--rounds R] [--isa I]
 *                     [--cpu-time 1]
 * --cpu-time counts the time of the process instead of the clock's: for one thread on a busy
 * machine. Prints one line of JSON: milliseconds of each round, median, and TFLOP/s. q, k and v
 * are slices of one fused [L, 3 N D] projection, as in a transformer block.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attention/attention.h"
#include "io/memory.h"

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

static void fill(float *x, size_t count)
{
    uint64_t s = 88172645463325252u;
    for (size_t i = 0; i < count; i++) {
        float sum = 0; /* close to normal, variance 1 */
        for (int j = 0; j < 4; j++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            sum += (float)(s >> 40) * 0x1p-24f - 0.5f;
        }
        x[i] = sum * 1.7320508f;
    }
}

static long option(int argc, char **argv, const char *name, long value)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) value = strtol(argv[i + 1], NULL, 10);
    return value;
}

int main(int argc, char **argv)
{
    int64_t L = option(argc, argv, "--tokens", 4096), N = option(argc, argv, "--heads", 4);
    int64_t D = option(argc, argv, "--dim", 128), rounds = option(argc, argv, "--rounds", 5);
    clockid_t clock =
        option(argc, argv, "--cpu-time", 0) ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    kn_dev *dev = NULL;
    void *qkv = NULL, *out = NULL, *ms = NULL;
    kn_dev_params params = {.kind = KN_DEV_CPU,
                            .threads = (int)option(argc, argv, "--threads", 0),
                            .isa_mask = (int)option(argc, argv, "--isa", 0)};
    kn_status st;
    KN_TRY_GOTO(kn_dev_open(&params, &dev));
    KN_TRY_GOTO(kn_alloc((size_t)(L * 3 * N * D) * sizeof(float), &qkv));
    KN_TRY_GOTO(kn_alloc((size_t)(L * N * D) * sizeof(float), &out));
    KN_TRY_GOTO(kn_alloc((size_t)rounds * sizeof(double), &ms));
    fill(qkv, (size_t)(L * 3 * N * D));
    kn_attn_args args = {.q = kn_tensor_of(qkv, KN_F32, L, N, D),
                         .out = kn_tensor_of(out, KN_F32, L, N, D),
                         .scale = 0.125f};
    args.q.stride[0] = 3 * N * D;
    args.k = args.v = args.q;
    args.k.data = (float *)qkv + N * D;
    args.v.data = (float *)qkv + 2 * N * D;
    KN_TRY_GOTO(kn_attn_dense(dev, &args, NULL));
    for (int64_t i = 0; i < rounds; i++) {
        double start = now_ms(clock);
        KN_TRY_GOTO(kn_attn_dense(dev, &args, NULL));
        ((double *)ms)[i] = now_ms(clock) - start;
    }
    printf("{\"tokens\": %lld, \"heads\": %lld, \"dim\": %lld, \"threads\": %d, \"ms\": [",
           (long long)L, (long long)N, (long long)D, kn_dev_threads(dev));
    for (int64_t i = 0; i < rounds; i++) printf("%s%.3f", i ? ", " : "", ((double *)ms)[i]);
    qsort(ms, (size_t)rounds, sizeof(double), ascending);
    double median = ((double *)ms)[rounds / 2];
    printf("], \"median_ms\": %.3f, \"tflops\": %.4f}\n", median,
           4e-9 * (double)L * (double)L * (double)(N * D) / median);
done:
    if (st != KN_OK) fprintf(stderr, "bench_attention_cpu: %s\n", kn_error_text());
    kn_free(qkv);
    kn_free(out);
    kn_free(ms);
    kn_dev_close(&dev);
    return st == KN_OK ? 0 : 1;
}
