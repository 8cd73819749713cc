/* bench/compute_ops.c - times the operations of a device at the shapes of the demo model and of
 * Wan.
 *
 *     bench_compute_ops [cpu|ref|cuda] [threads] [isa 0..3] [name part]
 *
 * One line per case: name, best time in ms, GFLOP/s or GB/s. tools/bench_torch_ops.py prints the
 * same names for PyTorch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compute/ops.h"
#include "io/memory.h"

static const int linear_shapes[][3] = {
    /* M, K, N */
    {300, 256, 256},    {300, 256, 768},    {300, 256, 960},    {300, 960, 256},
    {300, 256, 1536},   {32, 256, 512},     {1, 256, 1536},     {512, 4096, 4096},
    {4096, 1536, 1536}, {4096, 1536, 8960}, {4096, 8960, 1536},
};

static const struct {
    int in[4], out_channels, kernel[3], stride[3], pad_lo[3], pad_hi[3];
} conv_shapes[] = {
    {{3, 12, 20, 16}, 64, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{3, 12, 20, 64}, 64, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{4, 24, 40, 64}, 64, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{6, 48, 80, 32}, 32, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{6, 96, 160, 32}, 16, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{6, 96, 160, 16}, 16, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{6, 96, 160, 16}, 3, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{6, 96, 160, 3}, 16, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{4, 96, 160, 32}, 16, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{4, 96, 160, 16}, 16, {1, 3, 3}, {1, 2, 2}, {0, 0, 0}, {0, 1, 1}},
    {{5, 48, 80, 32}, 32, {3, 1, 1}, {2, 1, 1}, {0, 0, 0}, {0, 0, 0}},
    {{6, 96, 160, 32}, 16, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}},
    {{3, 60, 104, 384}, 384, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{4, 240, 416, 192}, 192, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {{6, 480, 832, 96}, 96, {3, 3, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
};

static const int row_shapes[][2] = {{300, 256}, {4096, 1536}, {61440, 16}, {15360, 64}};

static kn_dev *dev;
static const char *filter;

/* With one thread the processor time of the process: other programs on the machine then disturb
 * least. */
static clockid_t clock_id = CLOCK_MONOTONIC;

static double now_sec(void)
{
    struct timespec t;
    clock_gettime(clock_id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(kn_status st)
{
    if (st == KN_OK) return;
    fprintf(stderr, "%s\n", kn_error_text());
    exit(1);
}

/* Device tensor of small pseudo-random values; never freed before the case ends. */
typedef struct buffer {
    kn_tensor t;
    void *host;
} buffer;

static buffer make(int rank, const int64_t *dims)
{
    buffer b = {.t = kn_tensor_make(NULL, KN_F32, rank, dims)};
    check(kn_dev_alloc(dev, kn_tensor_bytes(&b.t), &b.t.data));
    check(kn_alloc(kn_tensor_bytes(&b.t), &b.host));
    uint32_t state = 12345;
    for (int64_t i = 0; i < kn_tensor_count(&b.t); i++) {
        state = state * 1664525u + 1013904223u;
        ((float *)b.host)[i] = (float)(state >> 8) * 0x1p-23f - 1.0f;
    }
    check(kn_dev_upload(dev, b.host, &b.t));
    return b;
}
#define MAKE(...)                                                                                  \
    make((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static void drop(buffer *b)
{
    kn_dev_free(dev, b->t.data, kn_tensor_bytes(&b->t));
    kn_free(b->host);
}

static int wanted(const char *name)
{
    return filter == NULL || strstr(name, filter) != NULL;
}

/* Best of at least 3 runs and about 0.7 s. */
#define BENCH(name, amount, unit, call)                                                            \
    do {                                                                                           \
        check(call);                                                                               \
        check(kn_dev_sync(dev));                                                                   \
        double best_ = 1e30, start_ = now_sec();                                                   \
        for (int n_ = 0; n_ < 3 || (n_ < 2000 && now_sec() - start_ < 0.7); n_++) {                \
            double t_ = now_sec();                                                                 \
            check(call);                                                                           \
            check(kn_dev_sync(dev));                                                               \
            t_ = now_sec() - t_;                                                                   \
            if (t_ < best_) best_ = t_;                                                            \
        }                                                                                          \
        printf("%s %.4f ms %.1f %s\n", name, best_ * 1e3, 1e-9 * (double)(amount) / best_, unit);  \
        fflush(stdout);                                                                            \
    } while (0)

static void bench_linear(int m, int k, int n)
{
    char name[64];
    snprintf(name, sizeof name, "linear_%dx%dx%d", m, k, n);
    if (!wanted(name)) return;
    buffer x = MAKE(m, k), w = MAKE(n, k), b = MAKE(n), out = MAKE(m, n);
    kn_weight weight;
    kn_tensor host = w.t;
    host.data = w.host;
    check(kn_weight_open(dev, KN_WEIGHT_LINEAR, &host, &weight));
    BENCH(name, 2.0 * m * k * n, "GFLOP/s",
          kn_linear(dev, &x.t, &weight, &b.t, KN_ACT_NONE, &out.t));
    kn_weight_close(dev, &weight);
    drop(&x), drop(&w), drop(&b), drop(&out);
}

static void bench_conv(size_t i)
{
    const int *in = conv_shapes[i].in, *k = conv_shapes[i].kernel, *s = conv_shapes[i].stride;
    const int *lo = conv_shapes[i].pad_lo, *hi = conv_shapes[i].pad_hi;
    int co = conv_shapes[i].out_channels, o[3];
    kn_conv_params p;
    for (int a = 0; a < 3; a++) {
        o[a] = (in[a] + lo[a] + hi[a] - k[a]) / s[a] + 1;
        p.stride[a] = s[a], p.pad_lo[a] = lo[a], p.pad_hi[a] = hi[a];
    }
    char name[96];
    snprintf(name, sizeof name, "conv_%dx%dx%dx%d_to%d_k%d%d%d_s%d%d%d", in[0], in[1], in[2], in[3],
             co, k[0], k[1], k[2], s[0], s[1], s[2]);
    if (!wanted(name)) return;
    buffer x = MAKE(in[0], in[1], in[2], in[3]), w = MAKE(co, in[3], k[0], k[1], k[2]),
           b = MAKE(co);
    buffer out = MAKE(o[0], o[1], o[2], co);
    kn_weight weight;
    kn_tensor host = w.t;
    host.data = w.host;
    check(kn_weight_open(dev, KN_WEIGHT_CONV, &host, &weight));
    double flops = 2.0 * o[0] * o[1] * o[2] * co * in[3] * k[0] * k[1] * k[2];
    BENCH(name, flops, "GFLOP/s", kn_conv(dev, &x.t, &weight, &b.t, KN_ABSENT, &p, &out.t));
    kn_weight_close(dev, &weight);
    drop(&x), drop(&w), drop(&b), drop(&out);
}

static void bench_rows(int r, int c)
{
    char name[64];
    buffer x = MAKE(r, c), y = MAKE(r, c), g = MAKE(c), out = MAKE(r, c);
    double bytes = 4.0 * r * c;
    kn_rmsnorm_params rms = {.eps = 1e-6f},
                      silu = {.eps = 1e-12f, .l2_clamp = true, .act = KN_ACT_SILU};
    snprintf(name, sizeof name, "layernorm_%dx%d", r, c);
    if (wanted(name))
        BENCH(name, 2 * bytes, "GB/s",
              kn_layernorm(dev, &x.t, NULL, NULL, &g.t, &g.t, 1e-6f, &out.t));
    snprintf(name, sizeof name, "rmsnorm_%dx%d", r, c);
    if (wanted(name)) BENCH(name, 2 * bytes, "GB/s", kn_rmsnorm(dev, &x.t, &g.t, &rms, &out.t));
    snprintf(name, sizeof name, "l2norm_silu_%dx%d", r, c);
    if (wanted(name)) BENCH(name, 2 * bytes, "GB/s", kn_rmsnorm(dev, &x.t, &g.t, &silu, &out.t));
    snprintf(name, sizeof name, "gate_add_%dx%d", r, c);
    if (wanted(name)) BENCH(name, 3 * bytes, "GB/s", kn_gate_add(dev, &x.t, &y.t, &g.t, &out.t));
    snprintf(name, sizeof name, "gelu_tanh_%dx%d", r, c);
    if (wanted(name)) BENCH(name, 2 * bytes, "GB/s", kn_act(dev, &x.t, KN_ACT_GELU_TANH, &out.t));
    drop(&x), drop(&y), drop(&g), drop(&out);
}

int main(int argc, char **argv)
{
    kn_dev_params params = {.kind = KN_DEV_CPU, .threads = 1};
    if (argc > 1 && strcmp(argv[1], "ref") == 0) params.kind = KN_DEV_REF;
    if (argc > 1 && strcmp(argv[1], "cuda") == 0) params.kind = KN_DEV_CUDA;
    if (argc > 2) params.threads = atoi(argv[2]);
    if (argc > 3) params.isa_mask = atoi(argv[3]);
    if (argc > 4) filter = argv[4];
    check(kn_dev_open(&params, &dev));
    if (params.threads == 1 && params.kind != KN_DEV_CUDA) clock_id = CLOCK_PROCESS_CPUTIME_ID;
    printf("# %s\n", kn_dev_describe(dev));
    for (size_t i = 0; i < sizeof linear_shapes / sizeof *linear_shapes; i++)
        bench_linear(linear_shapes[i][0], linear_shapes[i][1], linear_shapes[i][2]);
    for (size_t i = 0; i < sizeof conv_shapes / sizeof *conv_shapes; i++) bench_conv(i);
    for (size_t i = 0; i < sizeof row_shapes / sizeof *row_shapes; i++)
        bench_rows(row_shapes[i][0], row_shapes[i][1]);
    kn_dev_close(&dev);
    return 0;
}
