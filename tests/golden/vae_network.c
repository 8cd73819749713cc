/* The VAE against diffusers' AutoencoderKLWan, module by module, on every case folder vae_* of the
 * data (tools/golden_vae.py): decoding and encoding, one latent frame at a time, two, and the whole
 * clip at once. The first line printed as wrong names the first wrong operation.
 */
#include "compare.h"

#include <dirent.h>

#include "vae/vae_stream.h"

/* Relative L2. Both sides compute in float32 with sums in different orders: about 1e-7 sqrt(K) per
 * product, K <= 2000 here, through up to 25 convolutions. 1e-5 leaves no room for a wrong formula.
 * */
static const double bound = 1e-5;

enum { SAMPLES = 256, MAX_TAPS = 64 };
static const int64_t STEP = 1000003; /* of tools/golden_vae.py */

/* What a module gave so far, over all pushes. */
typedef struct record {
    char name[64];
    float *values;
    int64_t count;
} record;

typedef struct collector {
    kn_dev *dev;
    record records[MAX_TAPS];
    int count;
} collector;

static void append(collector *c, const char *name, const float *values, int64_t count)
{
    int i = 0;
    while (i < c->count && strcmp(c->records[i].name, name) != 0) i++;
    assert_true(i < MAX_TAPS);
    record *r = &c->records[i];
    if (i == c->count) snprintf(c->records[c->count++].name, sizeof r->name, "%s", name);
    r->values = realloc(r->values, (size_t)(r->count + count) * sizeof(float));
    assert_non_null(r->values);
    memcpy(r->values + r->count, values, (size_t)count * sizeof(float));
    r->count += count;
}

static kn_status collect_tap(void *user, const char *name, const kn_tensor *t)
{
    collector *c = user;
    void *p;
    KN_TRY(kn_alloc(kn_tensor_bytes(t), &p));
    kn_status st = kn_dev_download(c->dev, t, p);
    if (st == KN_OK) append(c, name, p, kn_tensor_count(t));
    kn_free(p);
    return st;
}

static void discard(collector *c)
{
    for (int i = 0; i < c->count; i++) free(c->records[i].values);
    *c = (collector){.dev = c->dev};
} /* NOLINT(clang-analyzer-unix.Malloc): all that a record holds was freed here */

/* Every module against its golden sample; returns the number of wrong ones. */
static int compare(const collector *c, const kn_safetensors *golden, const char *side,
                   const char *label, double *worst)
{
    int wrong = 0;
    for (int i = 0; i < c->count; i++) {
        const record *r = &c->records[i];
        float got[SAMPLES + 1];
        double norm = 0;
        for (int k = 0; k < SAMPLES; k++) got[k] = r->values[k * STEP % r->count];
        for (int64_t k = 0; k < r->count; k++) norm += (double)r->values[k] * r->values[k];
        got[SAMPLES] = (float)sqrt(norm);
        float *want = golden_floats(golden, NULL, "%s/%s", side, r->name);
        double gap = relative_l2(got, want, SAMPLES);
        gap = fmax(gap, relative_l2(got + SAMPLES, want + SAMPLES, 1));
        if (!(gap <= bound)) {
            print_message("%s: %s/%s is wrong: relative L2 %.3g, bound %.3g\n", label, side,
                          r->name, gap, bound);
            wrong++;
        }
        *worst = fmax(*worst, gap);
        kn_free(want);
    }
    return wrong;
}

typedef struct frame_sink {
    collector *c;
    int64_t each; /* values of a frame */
} frame_sink;

static kn_status keep_frames(void *user, const float *frames, int64_t count)
{
    frame_sink *sink = user;
    append(sink->c, "frames", frames, count * sink->each);
    return KN_OK;
}

static void decode(kn_vae *m, const kn_tensor *latents, int64_t chunk, collector *c)
{
    kn_vae_stream *s = NULL;
    int64_t factor = kn_vae_spatial_factor(kn_vae_get_config(m)), F = latents->dim[1];
    kn_vae_stream_params params = {.height_lat = latents->dim[2],
                                   .width_lat = latents->dim[3],
                                   .chunk_lat = chunk,
                                   .tap = {collect_tap, c}};
    must(kn_vae_stream_open(m, KN_VAE_DECODE, &params, &s));
    frame_sink sink = {c, latents->dim[2] * latents->dim[3] * factor * factor * 3};
    for (int64_t f = 0; f < F; f += chunk) {
        kn_tensor next = kn_tensor_slice(latents, 1, f, F - f < chunk ? F - f : chunk);
        must(kn_vae_decode_push(s, &next, keep_frames, &sink));
    }
    kn_vae_stream_close(&s);
}

static void encode(kn_vae *m, const float *video, int64_t frame_count, const kn_tensor *like,
                   int64_t chunk, collector *c)
{
    kn_vae_stream *s = NULL;
    void *p;
    int64_t F = like->dim[1], taken = 0;
    kn_vae_stream_params params = {.height_lat = like->dim[2],
                                   .width_lat = like->dim[3],
                                   .chunk_lat = chunk,
                                   .tap = {collect_tap, c}};
    must(kn_vae_stream_open(m, KN_VAE_ENCODE, &params, &s));
    must(kn_alloc(kn_tensor_bytes(like), &p));
    kn_tensor latents = kn_tensor_make(p, KN_F32, 4, like->dim);
    for (int64_t f = 0; f < F; f += chunk) {
        int64_t n = F - f < chunk ? F - f : chunk, frames = kn_vae_stream_frames(s, n);
        kn_tensor next = kn_tensor_slice(&latents, 1, f, n);
        must(kn_vae_encode_push(s, video, &next));
        int64_t factor = kn_vae_spatial_factor(kn_vae_get_config(m));
        video += frames * like->dim[2] * like->dim[3] * factor * factor * 3;
        taken += frames;
    }
    assert_int_equal(taken, frame_count);
    /* golden samples are channels last */
    float *rows;
    int64_t z = like->dim[0], n = kn_tensor_count(like) / z;
    must(kn_alloc(kn_tensor_bytes(like), (void **)&rows));
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < z; k++) rows[i * z + k] = ((float *)p)[k * n + i];
    append(c, "latents", rows, n * z);
    kn_free(rows);
    kn_free(p);
    kn_vae_stream_close(&s);
}

static int modules_of(const kn_safetensors *golden, const char *side)
{
    int n = 0;
    for (int i = 0; i < kn_safetensors_count(golden); i++) {
        const char *name = kn_safetensors_at(golden, i)->name;
        n += strncmp(name, side, strlen(side)) == 0 && name[strlen(side)] == '/';
    }
    return n;
}

static int check_case(kn_dev *d, const char *name)
{
    char path[1200], label[300];
    kn_safetensors *golden = NULL;
    kn_vae *m = NULL;
    int wrong = 0;
    size_t before = kn_dev_bytes_now(d);
    snprintf(path, sizeof path, "%s/%s", golden_dir, name);
    must(kn_vae_open(d, path, true, true, &m));
    snprintf(path, sizeof path, "%s/%s/golden.safetensors", golden_dir, name);
    must(kn_safetensors_open(path, NULL, &golden));
    const kn_st_tensor *shape = kn_safetensors_find(golden, "latents", NULL);
    const kn_st_tensor *video_shape = kn_safetensors_find(golden, "video", NULL);
    float *latents = golden_floats(golden, NULL, "latents"),
          *video = golden_floats(golden, NULL, "video");
    kn_tensor z = kn_tensor_make(latents, KN_F32, 4, shape->dim);
    for (int64_t chunk = 1; chunk <= z.dim[1];
         chunk = chunk == z.dim[1] || 2 * chunk < z.dim[1] ? 2 * chunk : z.dim[1]) {
        collector c = {.dev = d};
        double worst = 0;
        snprintf(label, sizeof label, "%s on %s by %d", name, kn_dev_kind_name(kn_dev_get_kind(d)),
                 (int)chunk);
        decode(m, &z, chunk, &c);
        assert_int_equal(c.count, modules_of(golden, "decode"));
        wrong += compare(&c, golden, "decode", label, &worst);
        discard(&c);
        encode(m, video, video_shape->dim[0], &z, chunk, &c);
        assert_int_equal(c.count, modules_of(golden, "encode"));
        wrong += compare(&c, golden, "encode", label, &worst);
        discard(&c);
        print_message("%s: worst relative L2 %.2g\n", label, worst);
    }
    kn_free(latents);
    kn_free(video);
    kn_vae_close(&m);
    kn_safetensors_close(&golden);
    assert_int_equal(kn_dev_bytes_now(d), before);
    return wrong;
}

static void check_all(kn_dev_kind kind)
{
    kn_dev *d = NULL;
    must(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = 1}, &d));
    DIR *dir = opendir(golden_dir);
    assert_non_null(dir);
    int cases = 0, wrong = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, "vae_", 4) != 0) continue;
        wrong += check_case(d, e->d_name);
        cases++;
    }
    closedir(dir);
    kn_dev_close(&d);
    assert_true(cases > 0);
    assert_int_equal(wrong, 0);
}

static void ref_equals_diffusers(void **state)
{
    (void)state;
    check_all(KN_DEV_REF);
}

static void cpu_equals_diffusers(void **state)
{
    (void)state;
    check_all(KN_DEV_CPU);
}

int main(int argc, char **argv)
{
    golden_main_args(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(ref_equals_diffusers),
                                       cmocka_unit_test(cpu_equals_diffusers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
