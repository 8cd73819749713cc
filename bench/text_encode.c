/* bench/text_encode.c - time of encoding one prompt.
 *
 * usage: bench_text_encode FOLDER TOKENS RUNS [cpu|cuda]
 *   FOLDER  a text encoder, as in a model folder
 * Prints one JSON object: milliseconds of each run, their median, the device's peak bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/timing.h"
#include "io/memory.h"
#include "text/umt5.h"

enum { MAX_TOKENS = 512, MAX_RUNS = 1000 };

int main(int argc, char **argv)
{
    static double ms[MAX_RUNS];
    static int32_t ids[MAX_TOKENS];
    int tokens = argc > 3 ? atoi(argv[2]) : 0, runs = argc > 3 ? atoi(argv[3]) : 0;
    if (tokens < 1 || tokens > MAX_TOKENS || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: bench_text_encode FOLDER TOKENS RUNS [cpu|cuda]\n");
        return 2;
    }
    kn_dev_params params = {.kind = argc > 4 && !strcmp(argv[4], "cuda") ? KN_DEV_CUDA
                                                                         : KN_DEV_CPU};
    kn_dev *dev = NULL;
    kn_umt5 *m = NULL;
    kn_arena *scratch = NULL;
    kn_umt5_args args = {.ids = ids, .count = tokens};
    size_t bytes = 0, out_bytes = 0;
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_dev_open(&params, &dev));
    double start = now_ms();
    KN_TRY_GOTO(kn_umt5_open(dev, argv[1], &m));
    double load_ms = now_ms() - start;
    const kn_umt5_config *c = kn_umt5_get_config(m);
    for (int i = 0; i < tokens; i++) ids[i] = (i * 7919 + 13) % c->vocab_size;
    KN_TRY_GOTO(kn_umt5_scratch_bytes(m, tokens, &bytes));
    KN_TRY_GOTO(kn_arena_open(dev, bytes, &scratch));
    args.out = kn_tensor_of(NULL, KN_F32, tokens, c->d_model);
    out_bytes = kn_tensor_bytes(&args.out);
    KN_TRY_GOTO(kn_dev_alloc(dev, out_bytes, &args.out.data));
    args.scratch = scratch;
    for (int i = -1; i < runs; i++) { /* the first one warms up */
        start = now_ms();
        KN_TRY_GOTO(kn_umt5_encode(m, &args));
        KN_TRY_GOTO(kn_dev_sync(dev));
        ms[i < 0 ? 0 : i] = now_ms() - start;
    }
    printf("{\"tokens\": %d, \"device\": \"%s\", \"load_ms\": %.0f, \"ms\": [", tokens,
           kn_dev_describe(dev), load_ms);
    for (int i = 0; i < runs; i++) printf("%s%.3f", i ? ", " : "", ms[i]);
    qsort(ms, (size_t)runs, sizeof *ms, by_value);
    printf("], \"peak_bytes\": %zu, \"median_ms\": %.3f}\n", kn_dev_bytes_peak(dev), ms[runs / 2]);
done:
    if (st != KN_OK) fprintf(stderr, "%s\n", kn_error_text());
    if (dev) kn_dev_free(dev, args.out.data, out_bytes);
    kn_arena_close(&scratch);
    kn_umt5_close(&m);
    kn_dev_close(&dev);
    return st != KN_OK;
}
