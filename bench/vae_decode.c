/* bench/vae_decode.c - time and memory of decoding (or encoding) one clip.
 *
 * bench_vae_decode FOLDER [--frames F] [--height H] [--width W] [--chunk N] [--threads T]
 *                  [--rounds R] [--isa I] [--encode 1] [--memory BYTES]
 *                  [--rows R --cols C --split S] [--cuda 1] [--late 1]
 *                  [--in LATENTS.raw] [--out FRAMES.raw]
 * FOLDER holds the VAE; sizes are in latents (5 x 12 x 20: 17 frames of 160x96). Prints one line of
 * JSON: milliseconds of each round's pushes (the stream's memory is taken before), their median, and
 * the device's peak bytes with the weights. --in, --out: f32 [z,F,H,W] and [frames,8H,8W,3].
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/memory.h"
#include "vae/vae_stream.h"

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fill(float *x, int64_t count)
{
    uint64_t s = 88172645463325252u;
    for (int64_t i = 0; i < count; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        x[i] = (float)((double)(s >> 40) * 0x1p-23 - 1);
    }
}

static long option(int argc, char **argv, const char *name, long value)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) value = strtol(argv[i + 1], NULL, 10);
    return value;
}

static const char *text_option(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return NULL;
}

typedef struct sink {
    FILE *file; /* NULL: frames are dropped */
    int64_t each;
} sink;

static kn_status take_frames(void *user, const float *frames, int64_t count)
{
    sink *s = user;
    if (s->file && fwrite(frames, (size_t)s->each * sizeof *frames, (size_t)count, s->file) != (size_t)count)
        return kn_fail(KN_ERR_IO, "writing frames");
    return KN_OK;
}

/* One clip: z [z,F,H,W], pixels one push's worth of frames, used again and again. */
static kn_status run_clip(const kn_vae *m, kn_vae_side side, const kn_vae_stream_params *params,
                          const kn_tensor *z, const float *pixels, kn_vae_stream_plan *plan,
                          sink *to, double *ms)
{
    kn_vae_stream *s = NULL;
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_vae_stream_open(m, side, params, &s));
    *plan = *kn_vae_stream_get_plan(s);
    double start = now_ms();
    for (int64_t f = 0; f < z->dim[1]; f += params->chunk_lat) {
        int64_t left = z->dim[1] - f, n = left < params->chunk_lat ? left : params->chunk_lat;
        kn_tensor next = kn_tensor_slice(z, 1, f, n);
        if (side == KN_VAE_DECODE)
            KN_TRY_GOTO(kn_vae_decode_push(s, &next, take_frames, to));
        else
            KN_TRY_GOTO(kn_vae_encode_push(s, pixels, &next));
    }
    KN_TRY_GOTO(kn_vae_decode_flush(s, take_frames, to));
    *ms = now_ms() - start;
done:
    kn_vae_stream_close(&s);
    return st;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_vae_decode FOLDER [options]\n");
        return 2;
    }
    int64_t F = option(argc, argv, "--frames", 5), H = option(argc, argv, "--height", 12);
    int64_t W = option(argc, argv, "--width", 20), rounds = option(argc, argv, "--rounds", 5);
    kn_vae_side side = option(argc, argv, "--encode", 0) ? KN_VAE_ENCODE : KN_VAE_DECODE;
    kn_vae_stream_params params = {.height_lat = H,
                                   .width_lat = W,
                                   .chunk_lat = option(argc, argv, "--chunk", 1),
                                   .total_lat = F,
                                   .late = option(argc, argv, "--late", 0) != 0,
                                   .memory_bytes = (size_t)option(argc, argv, "--memory", 0),
                                   .tiling = {(int)option(argc, argv, "--rows", 0),
                                              (int)option(argc, argv, "--cols", 1),
                                              (int)option(argc, argv, "--split", 1)}};
    kn_dev_params dev_params = {.kind = option(argc, argv, "--cuda", 0) ? KN_DEV_CUDA
                                                                         : KN_DEV_CPU,
                                .threads = (int)option(argc, argv, "--threads", 0),
                                .isa_mask = (int)option(argc, argv, "--isa", 0)};
    kn_dev *dev = NULL;
    kn_vae *m = NULL;
    void *latents = NULL, *pixels = NULL, *memory = NULL;
    const char *in = text_option(argc, argv, "--in"), *out = text_option(argc, argv, "--out");
    sink to = {NULL, 0}, none = {NULL, 0};
    kn_vae_stream_plan plan = {0};
    kn_status st;
    KN_TRY_GOTO(kn_dev_open(&dev_params, &dev));
    KN_TRY_GOTO(kn_vae_open(dev, argv[1], side == KN_VAE_ENCODE, side == KN_VAE_DECODE, &m));
    const kn_vae_config *c = kn_vae_get_config(m);
    int64_t factor = kn_vae_spatial_factor(c),
            frames = kn_vae_temporal_factor(c) * params.chunk_lat;
    KN_TRY_GOTO(kn_alloc((size_t)(c->z * F * H * W) * sizeof(float), &latents));
    KN_TRY_GOTO(kn_alloc((size_t)(frames * H * W * factor * factor * 3) * sizeof(float), &pixels));
    KN_TRY_GOTO(kn_alloc_array((size_t)rounds, sizeof(double), &memory));
    fill(latents, c->z * F * H * W);
    if (in) {
        FILE *f = fopen(in, "rb");
        size_t want = (size_t)(c->z * F * H * W);
        if (!f || fread(latents, sizeof(float), want, f) != want)
            st = kn_fail(KN_ERR_IO, "%s: expected %zu floats", in, want);
        if (f) fclose(f);
        if (st != KN_OK) goto done;
    }
    to.each = H * W * factor * factor * 3;
    if (out && !(to.file = fopen(out, "wb"))) {
        st = kn_fail(KN_ERR_IO, "%s: cannot be written", out);
        goto done;
    }
    fill(pixels, frames * H * W * factor * factor * 3);
    double *ms = memory;
    kn_tensor z = kn_tensor_of(latents, KN_F32, c->z, F, H, W);
    for (int64_t i = -1; i < rounds; i++) /* the first one warms up */
        KN_TRY_GOTO(run_clip(m, side, &params, &z, pixels, &plan, i < 0 ? &to : &none,
                             &ms[i < 0 ? 0 : i]));
    printf("{\"what\": \"%s\", \"latents\": [%d, %d, %d], \"device\": \"%s\", \"tiles\": [%d, %d, "
           "%d], "
           "\"overlap\": %d, \"device_bytes\": %zu, \"host_bytes\": %zu, \"ms\": [",
           side == KN_VAE_DECODE ? "decode" : "encode", (int)F, (int)H, (int)W,
           kn_dev_describe(dev), plan.tiling.rows, plan.tiling.cols, plan.tiling.split,
           (int)plan.overlap_lat, plan.device_bytes, plan.host_bytes);
    for (int64_t i = 0; i < rounds; i++) printf("%s%.2f", i ? ", " : "", ms[i]);
    qsort(ms, (size_t)rounds, sizeof *ms, ascending);
    printf("], \"peak_bytes\": %zu, \"median_ms\": %.2f}\n", kn_dev_bytes_peak(dev),
           ms[rounds / 2]);
done:
    if (st != KN_OK) fprintf(stderr, "%s\n", kn_error_text());
    if (to.file) fclose(to.file);
    kn_free(memory);
    kn_free(pixels);
    kn_free(latents);
    kn_vae_close(&m);
    kn_dev_close(&dev);
    return st != KN_OK;
}
