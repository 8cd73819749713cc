/* tests/check/check.c - harness and program; see check.h.
 *
 *     kn_check [--device cpu|ref|cuda] [--op REGEX] [--isa base|avx2|avx512] [--seed N] [--bench]
 *     [--list]
 */
#include "check.h"

#include <inttypes.h>
#include <math.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    GUARD = 64,
    REPEATS = 3, /* runs: 2 threads twice, 1 thread; on cuda one open device twice, another once */
    SKIPPED = 77 /* exit status when there is no such device, which ctest counts as skipped */
};

typedef struct slot {
    kn_dtype dtype;
    int rank;
    int64_t dim[KN_MAX_RANK], pitch; /* pitch: elements from row to row of the last axis */
    bool output;
    int in_place;                   /* index of the input that is this output, or -1 */
    size_t bytes;                   /* of the buffer with guards */
    unsigned char *initial, *after; /* host copies of the buffer */
    double *value;                  /* inputs: packed values, for ref */
    void *device;                   /* buffer on the device of the current run */
} slot;

typedef struct stored_weight {
    kn_weight_kind kind;
    kn_tensor host;
} stored_weight;

struct check {
    kn_dev *ref, *dev[2]; /* under test: with 2 threads, with 1 */
    kn_dev_kind kind;
    const char *isa; /* name, for the repeat command */
    regex_t filter;
    bool filtered, bench, list;
    uint64_t seed, state;
    char name[160];
    slot slot[CHECK_MAX_TENSORS];
    stored_weight weight[CHECK_MAX_WEIGHTS];
    int slots, weights;
    long cases, failures;
};

/* ---- small things ---------------------------------------------------------------------------- */

static void *grab(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (p == NULL) {
        fprintf(stderr, "kn_check: out of memory (%zu bytes)\n", bytes);
        exit(2);
    }
    return p;
}

static void need(kn_status st)
{
    if (st == KN_OK) return;
    fprintf(stderr, "kn_check: %s\n", kn_error_text());
    exit(2);
}

static double now_sec(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* splitmix64, Steele, Lea, Flood 2014 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Sum of 12 uniform numbers less 6: near enough to a gaussian, bounded by 6. */
static double gaussian(uint64_t *state)
{
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += (double)(next_random(state) >> 11) * 0x1p-53;
    return sum;
}

double check_eps(kn_dtype t)
{
    switch (t) {
    case KN_BF16: return 0x1p-8;
    case KN_F16: return 0x1p-12;
    case KN_F64: return 0x1p-54;
    default: return 0x1p-25;
    }
}

const char *check_fill_name(check_fill f)
{
    static const char *const names[] = {"normal", "huge", "tiny", "constant", "spike", "zero"};
    return names[f];
}

bool check_activation(const check *c, int i, kn_dtype *out)
{
    static const kn_dtype all[] = {KN_F32, KN_BF16};
    if (i >= (c->kind == KN_DEV_CUDA ? 2 : 1)) return false;
    *out = all[i];
    return true;
}

kn_dev_kind check_kind(const check *c)
{
    return c->kind;
}

kn_dev *check_dev(const check *c)
{
    return c->dev[0];
}

static void put_value(void *dst, kn_dtype dtype, int64_t i, double v)
{
    switch (dtype) {
    case KN_F32: ((float *)dst)[i] = (float)v; break;
    case KN_BF16: ((uint16_t *)dst)[i] = kn_f32_to_bf16((float)v); break;
    case KN_F16: ((uint16_t *)dst)[i] = kn_f32_to_f16((float)v); break;
    case KN_F64: ((double *)dst)[i] = v; break;
    case KN_I32: ((int32_t *)dst)[i] = (int32_t)v; break;
    case KN_I64: ((int64_t *)dst)[i] = (int64_t)v; break;
    default: ((uint8_t *)dst)[i] = (uint8_t)v; break;
    }
}

static double get_value(const void *src, kn_dtype dtype, int64_t i)
{
    switch (dtype) {
    case KN_F32: return ((const float *)src)[i];
    case KN_BF16: return kn_bf16_to_f32(((const uint16_t *)src)[i]);
    case KN_F16: return kn_f16_to_f32(((const uint16_t *)src)[i]);
    case KN_F64: return ((const double *)src)[i];
    case KN_I32: return ((const int32_t *)src)[i];
    case KN_I64: return (double)((const int64_t *)src)[i];
    default: return ((const uint8_t *)src)[i];
    }
}

/* ---- declaring ------------------------------------------------------------------------------- */

bool check_begin(check *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->name, sizeof c->name, format, args);
    va_end(args);
    if (c->filtered && regexec(&c->filter, c->name, 0, NULL, 0) != 0) return false;
    if (c->list) {
        puts(c->name);
        return false;
    }
    c->slots = c->weights = 0;
    c->state = c->seed; /* a case's data depends on the seed only, not on the cases before it */
    return true;
}

static int64_t count_of(int rank, const int64_t *dims)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    return n;
}

static double fill_value(check *c, check_fill fill, int64_t column, int64_t width, double *held)
{
    double v = gaussian(&c->state);
    switch (fill) {
    case CHECK_HUGE: return v * 1e4;
    case CHECK_TINY: return v * 1e-20;
    case CHECK_CONSTANT:
        if (column == 0) *held = v;
        return *held;
    case CHECK_SPIKE: return column == width / 3 ? v * 1000 : v;
    case CHECK_ZERO: return 0;
    default: return v;
    }
}

static slot *new_slot(check *c, kn_dtype dtype, int rank, const int64_t *dims, int64_t extra)
{
    slot *s = &c->slot[c->slots++];
    *s = (slot){.dtype = dtype, .rank = rank, .in_place = -1};
    memcpy(s->dim, dims, (size_t)rank * sizeof *dims);
    s->pitch = dims[rank - 1] + extra;
    int64_t rows = count_of(rank - 1, dims);
    s->bytes = 2 * GUARD + (size_t)(rows * s->pitch) * kn_dtype_size(dtype);
    s->initial = grab(s->bytes);
    s->after = grab(s->bytes);
    memset(s->initial, 0xff, s->bytes); /* NaN in every float dtype, guards as well */
    return s;
}

void check_in_strided(check *c, check_fill fill, kn_dtype dtype, int rank, const int64_t *dims,
                      int64_t extra)
{
    slot *s = new_slot(c, dtype, rank, dims, extra);
    int64_t width = dims[rank - 1], count = count_of(rank, dims);
    s->value = grab((size_t)count * sizeof(double));
    double held = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = i / width * s->pitch + i % width;
        put_value(s->initial + GUARD, dtype, at, fill_value(c, fill, i % width, width, &held));
        s->value[i] = get_value(s->initial + GUARD, dtype, at);
    }
}

void check_in(check *c, check_fill fill, kn_dtype dtype, int rank, const int64_t *dims)
{
    check_in_strided(c, fill, dtype, rank, dims, 0);
}

void check_out_strided(check *c, kn_dtype dtype, int rank, const int64_t *dims, int64_t extra)
{
    new_slot(c, dtype, rank, dims, extra)->output = true;
}

void check_out(check *c, kn_dtype dtype, int rank, const int64_t *dims)
{
    check_out_strided(c, dtype, rank, dims, 0);
}

void check_out_in_place(check *c, int i)
{
    slot *s = &c->slot[c->slots++];
    *s = c->slot[i];
    s->initial = s->after = NULL;
    s->value = NULL;
    s->output = true;
    s->in_place = i;
}

void check_weight(check *c, kn_weight_kind kind, check_fill fill, kn_dtype dtype, int rank,
                  const int64_t *dims)
{
    int64_t count = count_of(rank, dims), width = dims[rank - 1];
    stored_weight *w = &c->weight[c->weights++];
    double held = 0;
    w->kind = kind;
    w->host = kn_tensor_make(grab((size_t)count * kn_dtype_size(dtype)), dtype, rank, dims);
    /* cuda keeps matrices in bf16 whatever they are stored in: give both sides such values */
    bool bf16 = c->kind == KN_DEV_CUDA && kind != KN_WEIGHT_VECTOR && kind != KN_WEIGHT_TABLE;
    for (int64_t i = 0; i < count; i++) {
        double v = fill_value(c, fill, i % width, width, &held);
        put_value(w->host.data, dtype, i, bf16 ? kn_bf16_to_f32(kn_f32_to_bf16((float)v)) : v);
    }
}

static void drop_case(check *c)
{
    for (int i = 0; i < c->slots; i++) {
        free(c->slot[i].initial);
        free(c->slot[i].after);
        free(c->slot[i].value);
    }
    for (int i = 0; i < c->weights; i++) free(c->weight[i].host.data);
}

/* ---- running --------------------------------------------------------------------------------- */

static void open_weights(check *c, kn_dev *d, bool absolute, check_args *a)
{
    for (int i = 0; i < c->weights; i++) {
        kn_tensor host = c->weight[i].host;
        size_t bytes = kn_tensor_bytes(&host);
        if (absolute) {
            void *copy = grab(bytes);
            for (int64_t k = 0; k < kn_tensor_count(&host); k++)
                put_value(copy, host.dtype, k, fabs(get_value(host.data, host.dtype, k)));
            host.data = copy;
        }
        need(kn_weight_open(d, c->weight[i].kind, &host, &a->w[i]));
        if (absolute) free(host.data);
    }
}

static void close_weights(check *c, kn_dev *d, check_args *a)
{
    for (int i = 0; i < c->weights; i++) kn_weight_close(d, &a->w[i]);
}

/* The function on ref with f64 tensors; absolute: of the absolute values. Fills *a, whose tensors
 * are freed by free_ref. */
static kn_status run_ref(check *c, check_fn *fn, const void *params, const int32_t *index,
                         bool absolute, check_args *a)
{
    *a = (check_args){.params = params, .index = index, .magnitude = absolute};
    for (int i = 0; i < c->slots; i++) {
        slot *s = &c->slot[i];
        int64_t count = count_of(s->rank, s->dim);
        kn_dtype dtype =
            s->dtype == KN_I32 || s->dtype == KN_I64 || s->dtype == KN_U8 ? s->dtype : KN_F64;
        if (s->in_place >= 0) {
            a->t[i] = a->t[s->in_place];
            continue;
        }
        a->t[i] = kn_tensor_make(grab((size_t)count * 8), dtype, s->rank, s->dim);
        for (int64_t k = 0; k < count; k++)
            put_value(a->t[i].data, dtype, k,
                      s->output  ? (double)NAN
                      : absolute ? fabs(s->value[k])
                                 : s->value[k]);
    }
    open_weights(c, c->ref, absolute, a);
    kn_status st = fn(c->ref, a);
    close_weights(c, c->ref, a);
    return st;
}

static void free_ref(check *c, check_args *a)
{
    for (int i = 0; i < c->slots; i++)
        if (c->slot[i].in_place < 0) free(a->t[i].data);
}

/* Uploads every buffer with its guards; a->t are the views inside. */
static void place_buffers(check *c, kn_dev *d, check_args *a)
{
    for (int i = 0; i < c->slots; i++) {
        slot *s = &c->slot[i];
        if (s->in_place >= 0) {
            a->t[i] = a->t[s->in_place];
            continue;
        }
        need(kn_dev_alloc(d, s->bytes, &s->device));
        kn_tensor all = kn_tensor_of(s->device, KN_U8, (int64_t)s->bytes);
        need(kn_dev_upload(d, s->initial, &all));
        kn_tensor t = kn_tensor_make((char *)s->device + GUARD, s->dtype, s->rank, s->dim);
        int64_t stride = s->pitch;
        for (int k = s->rank - 2; k >= 0; k--) {
            t.stride[k] = stride;
            stride *= s->dim[k];
        }
        a->t[i] = t;
    }
}

static void fetch_buffers(check *c, kn_dev *d)
{
    for (int i = 0; i < c->slots; i++) {
        slot *s = &c->slot[i];
        if (s->in_place >= 0) continue;
        kn_tensor all = kn_tensor_of(s->device, KN_U8, (int64_t)s->bytes);
        need(kn_dev_download(d, &all, s->after));
        kn_dev_free(d, s->device, s->bytes);
        s->device = NULL;
    }
}

static void time_runs(check *c, kn_dev *d, check_fn *fn, const check_args *a, const check_bound *b)
{
    double best = 1e30, start = now_sec(), bytes = 0;
    for (int i = 0; i < c->slots; i++) bytes += (double)c->slot[i].bytes;
    for (int n = 0; n < 3 || (n < 1000 && now_sec() - start < 0.2); n++) {
        double t = now_sec();
        need(fn(d, a));
        need(kn_dev_sync(d));
        t = now_sec() - t;
        if (t < best) best = t;
    }
    printf("%-60s %10.4f ms %8.1f %s\n", c->name, best * 1e3,
           1e-9 * (b->flops > 0 ? b->flops : bytes) / best, b->flops > 0 ? "GFLOP/s" : "GB/s");
}

static bool fail(check *c, const char *format, ...) KN_PRINTF(2, 3);
static bool fail(check *c, const char *format, ...)
{
    va_list args;
    printf("FAIL %s\n     ", c->name);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n     repeat: kn_check --device %s%s%s --seed %" PRIu64 " --op '^%s$'\n",
           kn_dev_kind_name(c->kind), c->isa ? " --isa " : "", c->isa ? c->isa : "", c->seed,
           c->name);
    return false;
}

/* Guards, gaps between rows, and inputs hold what they held; every output was written. */
static bool untouched(check *c)
{
    for (int i = 0; i < c->slots; i++) {
        slot *s = &c->slot[i];
        if (s->in_place >= 0) continue;
        bool written = s->output;
        for (int k = 0; k < c->slots; k++) written = written || c->slot[k].in_place == i;
        size_t size = kn_dtype_size(s->dtype), row = (size_t)s->pitch * size;
        size_t used = (size_t)s->dim[s->rank - 1] * size;
        for (size_t k = 0; k < s->bytes; k++) {
            bool inside = k >= GUARD && k < s->bytes - GUARD && (k - GUARD) % row < used;
            if ((written && inside) || s->after[k] == s->initial[k]) continue;
            return fail(c, "tensor %d: byte %lld %s was changed", i, (long long)k - GUARD,
                        inside ? "of an input" : "outside the rows");
        }
    }
    return true;
}

static bool compare(check *c, int index, const check_args *ref, const double *magnitude,
                    const check_bound *b)
{
    const slot *s = &c->slot[index];
    const slot *held = s->in_place >= 0 ? &c->slot[s->in_place] : s;
    int64_t width = s->dim[s->rank - 1], count = count_of(s->rank, s->dim), worst = 0;
    double errors = 0, magnitudes = 0, excess = 0, tiny = b->tiny > 0 ? b->tiny : 1e-30;
    for (int64_t i = 0; i < count; i++) {
        double got = get_value(held->after + GUARD, s->dtype, i / width * s->pitch + i % width);
        double want = get_value(ref->t[index].data, ref->t[index].dtype, i);
        double m = magnitude ? magnitude[i] + 1e-30 : fabs(want) + tiny, err = got - want;
        errors += err * err;
        magnitudes += m * m;
        double over = fabs(err) / m;
        if (!(over <= excess)) {
            excess = over;
            worst = i;
        }
        if (isnan(over)) break;
    }
    if (excess <= b->tol && errors <= b->nmse * magnitudes) return true;
    int64_t at = worst / width * s->pitch + worst % width;
    double got = get_value(held->after + GUARD, s->dtype, at);
    double want = get_value(ref->t[index].data, ref->t[index].dtype, worst);
    return fail(
        c,
        "tensor %d, element %lld: got %.9g, expected %.9g; error %.3g of magnitude (bound %.3g); "
        "normalised square error %.3g (bound %.3g)",
        index, (long long)worst, got, want, excess, b->tol, errors / magnitudes, b->nmse);
}

/* One run on d; `first`: keep its output bytes in *kept, else compare with them. */
static bool run_once(check *c, kn_dev *d, check_fn *fn, const check_args *proto, bool first,
                     unsigned char **kept, const check_bound *b)
{
    check_args a = *proto;
    open_weights(c, d, false, &a);
    place_buffers(c, d, &a);
    kn_status st = fn(d, &a);
    if (st == KN_OK) st = kn_dev_sync(d);
    fetch_buffers(c, d);
    if (st == KN_OK && first && c->bench) {
        place_buffers(c, d, &a);
        time_runs(c, d, fn, &a, b);
        unsigned char *result[CHECK_MAX_TENSORS] = {NULL}; /* the bytes of the first run stay the result */
        for (int i = 0; i < c->slots; i++) {
            result[i] = c->slot[i].after;
            if (result[i]) c->slot[i].after = grab(c->slot[i].bytes);
        }
        fetch_buffers(c, d);
        for (int i = 0; i < c->slots; i++) {
            free(c->slot[i].after);
            c->slot[i].after = result[i];
        }
    }
    close_weights(c, d, &a);
    if (st != KN_OK) return fail(c, "%s", kn_error_text());
    for (int i = 0; i < c->slots; i++) {
        slot *s = &c->slot[i];
        if (s->in_place >= 0) continue;
        if (first) {
            kept[i] = grab(s->bytes);
            /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): every buffer was fetched */
            memcpy(kept[i], s->after, s->bytes);
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): the first run kept it */
        } else if (memcmp(kept[i], s->after, s->bytes) != 0) {
            return fail(
                c,
                "tensor %d: another run, or one with another number of threads, gave other bytes",
                i);
        }
    }
    return true;
}

static bool run_case(check *c, check_fn *fn, const void *params, const int32_t *index,
                     const check_bound *b)
{
    check_args ref, absolute;
    double *magnitude = NULL;
    int out = 0;
    while (out < c->slots && !c->slot[out].output) out++;
    int64_t count = count_of(c->slot[out].rank, c->slot[out].dim);
    if (run_ref(c, fn, params, index, false, &ref) != KN_OK) {
        free_ref(c, &ref);
        return fail(c, "on ref: %s", kn_error_text());
    }
    if (b->magnitude || b->abs_magnitude) {
        magnitude = grab((size_t)count * sizeof(double));
        if (b->magnitude) {
            b->magnitude(&ref, magnitude);
        } else {
            need(run_ref(c, fn, params, index, true, &absolute));
            memcpy(magnitude, absolute.t[out].data, (size_t)count * sizeof(double));
            free_ref(c, &absolute);
        }
    }
    unsigned char *kept[CHECK_MAX_TENSORS] = {0};
    check_args proto = {.params = params, .index = index};
    bool good = true;
    for (int r = 0; r < REPEATS && good; r++) {
        good = run_once(c, c->dev[r == REPEATS - 1], fn, &proto, r == 0, kept, b);
        if (r > 0 || !good) continue;
        good = untouched(c);
        for (int i = 0; i < c->slots && good; i++)
            if (c->slot[i].output) good = compare(c, i, &ref, i == out ? magnitude : NULL, b);
    }
    for (int i = 0; i < c->slots; i++) free(kept[i]);
    free(magnitude);
    free_ref(c, &ref);
    return good;
}

void check_run(check *c, check_fn *fn, const void *params, const int32_t *index,
               const check_bound *b)
{
    c->cases++;
    if (!run_case(c, fn, params, index, b)) c->failures++;
    drop_case(c);
}

/* ---- program --------------------------------------------------------------------------------- */

static void run_suites(check *c)
{
#define X(suite) check_##suite(c);
    CHECK_SUITES(X)
#undef X
}

/* All suites on one device; isa 0 where the kind has none. */
static void run_device(check *c, int isa)
{
    static const char *const isa_names[] = {NULL, "base", "avx2", "avx512"};
    long cases = c->cases, failures = c->failures;
    for (int i = 0; i < 2; i++) {
        kn_dev_params p = {.kind = c->kind, .threads = 2 - i, .isa_mask = isa};
        kn_status st = kn_dev_open(&p, &c->dev[i]);
        if (st == KN_ERR_UNSUPPORTED && c->kind == KN_DEV_CUDA) {
            printf("kn_check: skipped: %s\n", kn_error_text());
            exit(SKIPPED);
        }
        need(st);
    }
    c->isa = isa_names[isa];
    if (isa && kn_dev_isa(c->dev[0]) != isa) {
        printf("%s: this machine has no %s: not run\n", kn_dev_kind_name(c->kind), c->isa);
    } else {
        run_suites(c);
        if (!c->list)
            printf("%s: %ld cases, %ld failed\n", kn_dev_describe(c->dev[0]), c->cases - cases,
                   c->failures - failures);
    }
    kn_dev_close(&c->dev[0]);
    kn_dev_close(&c->dev[1]);
}

static int usage(void)
{
    fprintf(stderr, "usage: kn_check [--device cpu|ref|cuda] [--op REGEX] [--isa base|avx2|avx512] "
                    "[--seed N] [--bench] [--list]\n");
    return 2;
}

/* 0 when understood. *isa: 0 all. */
static int parse(check *c, int argc, char **argv, int *isa)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(a, "--bench") == 0)
            c->bench = true;
        else if (strcmp(a, "--list") == 0)
            c->list = true;
        else if (strcmp(a, "--device") == 0) {
            if (strcmp(v, "cpu") == 0)
                c->kind = KN_DEV_CPU;
            else if (strcmp(v, "ref") == 0)
                c->kind = KN_DEV_REF;
            else if (strcmp(v, "cuda") == 0)
                c->kind = KN_DEV_CUDA;
            else
                return usage();
            i++;
        } else if (strcmp(a, "--isa") == 0) {
            *isa = strcmp(v, "base") == 0     ? 1
                   : strcmp(v, "avx2") == 0   ? 2
                   : strcmp(v, "avx512") == 0 ? 3
                                              : -1;
            if (*isa < 0) return usage();
            i++;
        } else if (strcmp(a, "--seed") == 0) {
            c->seed = strtoull(v, NULL, 10);
            i++;
        } else if (strcmp(a, "--op") == 0) {
            if (regcomp(&c->filter, v, REG_EXTENDED | REG_NOSUB) != 0) return usage();
            c->filtered = true;
            i++;
        } else
            return usage();
    }
    return 0;
}

int main(int argc, char **argv)
{
    check c = {.kind = KN_DEV_CPU, .seed = 1};
    int isa = 0;
    if (parse(&c, argc, argv, &isa) != 0) return 2;
    need(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF, .threads = 2}, &c.ref));
    if (c.kind != KN_DEV_CPU || c.list)
        run_device(&c, isa);
    else if (isa)
        run_device(&c, isa);
    else
        for (isa = 1; isa <= 3; isa++) run_device(&c, isa);
    kn_dev_close(&c.ref);
    if (c.filtered) regfree(&c.filter);
    if (!c.list) printf("kn_check: %ld cases, %ld failed\n", c.cases, c.failures);
    return c.failures || (c.cases == 0 && !c.list) ? 1 : 0;
}
