/* Streams: a clip in pieces equals the clip at once, tiles equal whole frames, the plan tells the
 * bytes that are used, and wrong calls are refused. The networks are those of the golden data. */
#include "tests/expect.h"

#include <math.h>

#include "io/memory.h"
#include "vae/vae_stream.h"

#define MODEL(name) KN_SOURCE_DIR "/tests/golden/data/vae_" name

/* Sums of the same values may be taken in another order when shapes differ: single roundings of
 * f32, through 25 layers, on values of about 1. */
static const double equal = 1e-6;

typedef struct clip {
    kn_dev *dev;
    kn_vae *m;
    kn_tensor z;          /* host [z,F,H,W] */
    int64_t frames, each; /* pixel frames; values in one */
    float *pixels;        /* what is encoded */
    float *result;        /* what decoding or encoding gave */
    int64_t given;        /* frames in result so far */
} clip;

static float *new_floats(int64_t count)
{
    void *p;
    expect_ok(kn_alloc_zero((size_t)count * sizeof(float), &p));
    return p;
}

/* Smooth over space and time, with some noise on top. */
static void fill(float *x, int64_t count, float scale)
{
    uint32_t s = 12345;
    for (int64_t i = 0; i < count; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = scale * (0.7f * sinf((float)i * 0.037f) + 0.3f * ((float)(s >> 8) * 0x1p-23f - 1));
    }
}

static clip open_clip(kn_dev_kind kind, int threads, const char *model, int64_t F, int64_t H,
                      int64_t W)
{
    clip c = {0};
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = threads}, &c.dev));
    expect_ok(kn_vae_open(c.dev, model, true, true, &c.m));
    const kn_vae_config *config = kn_vae_get_config(c.m);
    int64_t factor = kn_vae_spatial_factor(config);
    c.z = kn_tensor_of(NULL, KN_F32, config->z, F, H, W);
    c.z.data = new_floats(kn_tensor_count(&c.z));
    fill(c.z.data, kn_tensor_count(&c.z), 1.5f);
    c.frames = 1 + (F - 1) * kn_vae_temporal_factor(config);
    c.each = H * W * factor * factor * 3;
    c.pixels = new_floats(c.frames * c.each);
    fill(c.pixels, c.frames * c.each, 1);
    return c;
}

static void close_clip(clip *c)
{
    kn_vae_close(&c->m);
    assert_int_equal(kn_dev_bytes_now(c->dev), 0);
    kn_dev_close(&c->dev);
    kn_free(c->z.data);
    kn_free(c->pixels);
}

static kn_status keep(void *user, const float *frames, int64_t count)
{
    clip *c = user;
    assert_true(c->given + count <= c->frames);
    memcpy(c->result + c->given * c->each, frames, (size_t)(count * c->each) * sizeof(float));
    c->given += count;
    return KN_OK;
}

static kn_vae_stream_params params_of(const clip *c, int64_t chunk)
{
    return (kn_vae_stream_params){
        .height_lat = c->z.dim[2], .width_lat = c->z.dim[3], .chunk_lat = chunk};
}

/* The clip through a stream in pushes of `chunk`; the result is the caller's to free. */
static float *run(clip *c, kn_vae_side side, const kn_vae_stream_params *p,
                  kn_vae_stream_plan *plan)
{
    kn_vae_stream *s;
    int64_t F = c->z.dim[1], taken = 0;
    c->given = 0;
    kn_tensor out = c->z;
    c->result = out.data =
        new_floats(side == KN_VAE_DECODE ? c->frames * c->each : kn_tensor_count(&c->z));
    expect_ok(kn_vae_stream_open(c->m, side, p, &s));
    for (int64_t f = 0; f < F; f += p->chunk_lat) {
        int64_t n = F - f < p->chunk_lat ? F - f : p->chunk_lat;
        kn_tensor in = kn_tensor_slice(&c->z, 1, f, n), to = kn_tensor_slice(&out, 1, f, n);
        int64_t frames = kn_vae_stream_frames(s, n);
        if (side == KN_VAE_DECODE)
            expect_ok(kn_vae_decode_push(s, &in, keep, c));
        else
            expect_ok(kn_vae_encode_push(s, c->pixels + taken * c->each, &to));
        taken += frames;
        if (side == KN_VAE_DECODE) assert_int_equal(c->given, p->late ? taken - frames : taken);
    }
    expect_ok(kn_vae_decode_flush(s, keep, c));
    if (side == KN_VAE_DECODE) assert_int_equal(c->given, taken);
    assert_int_equal(taken, c->frames);
    if (plan) *plan = *kn_vae_stream_get_plan(s);
    kn_vae_stream_close(&s);
    return c->result;
}

static double distance(const clip *c, kn_vae_side side, const float *a, const float *b)
{
    double most = 0;
    int64_t n = side == KN_VAE_DECODE ? c->frames * c->each : kn_tensor_count(&c->z);
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= most)) most = isfinite(d) ? d : INFINITY;
    }
    return most;
}

static double spread(const float *a, int64_t n)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i], squares += (double)a[i] * a[i];
    return sqrt(squares / (double)n - sum / (double)n * (sum / (double)n));
}

/* ---- time ------------------------------------------------------------------------------------ */

static void check_chunks(kn_dev_kind kind, const char *model)
{
    clip c = open_clip(kind, 1, model, 5, 4, 3);
    for (int side = 0; side < KN_VAE_SIDES; side++) {
        kn_vae_stream_params p = params_of(&c, 5);
        float *whole = run(&c, side, &p, NULL);
        assert_true(spread(whole, side ? c.frames * c.each : kn_tensor_count(&c.z)) > 0.2);
        for (p.chunk_lat = 1; p.chunk_lat < 5; p.chunk_lat++) {
            float *pieces = run(&c, side, &p, NULL);
            double d = distance(&c, side, whole, pieces);
            if (!(d <= equal)) fail_msg("%s by %d: %g", model, (int)p.chunk_lat, d);
            kn_free(pieces);
            /* the length told beforehand, frames a push late: the same bytes */
            kn_vae_stream_params told = p;
            told.total_lat = 5;
            told.late = true;
            float *late = run(&c, side, &told, NULL);
            pieces = run(&c, side, &p, NULL);
            assert_true(distance(&c, side, pieces, late) == 0);
            kn_free(pieces);
            kn_free(late);
        }
        kn_free(whole);
    }
    close_clip(&c);
}

static void a_clip_in_pieces_is_the_clip_at_once(void **state)
{
    (void)state;
    check_chunks(KN_DEV_REF, MODEL("two"));
    check_chunks(KN_DEV_CPU, MODEL("wan"));
    check_chunks(KN_DEV_CPU, MODEL("two"));
    check_chunks(KN_DEV_CPU, MODEL("wide"));
}

/* ---- space ----------------------------------------------------------------------------------- */

static void check_tiles(kn_dev_kind kind, const char *model, int64_t F, int64_t H, int64_t W,
                        int rows, int cols)
{
    clip c = open_clip(kind, 1, model, F, H, W);
    int levels = kn_vae_get_config(c.m)->levels;
    for (int side = 0; side < KN_VAE_SIDES; side++) {
        kn_vae_stream_params p = params_of(&c, 1);
        float *whole = run(&c, side, &p, NULL);
        for (int split = 0; split < levels; split++)
            for (int host = 0; host < 2; host++) {
                kn_vae_stream_plan plan;
                p.tiling = (kn_vae_tiling){rows, cols, split};
                p.past_on_host = host;
                p.chunk_lat = 1 + (split + host) % 2;
                float *tiles = run(&c, side, &p, &plan);
                double d = distance(&c, side, whole, tiles);
                if (!(d <= equal))
                    fail_msg("%s side %d, %d x %d tiles from %d, host %d: %g", model, side, rows,
                             cols, split, host, d);
                assert_in_range(plan.overlap_lat, 1, 9);
                kn_free(tiles);
            }
        kn_free(whole);
    }
    close_clip(&c);
}

static void tiles_give_the_frame(void **state)
{
    (void)state;
    check_tiles(KN_DEV_CPU, MODEL("wan"), 2, 24, 3, 3, 1);
    check_tiles(KN_DEV_CPU, MODEL("two"), 3, 6, 21, 2, 3);
    check_tiles(KN_DEV_CPU, MODEL("wide"), 3, 13, 12, 3, 3);
    check_tiles(KN_DEV_REF, MODEL("image"), 1, 8, 6, 2, 2);
}

/* Frames that a tile's neighbour decides would show if the overlap were too small; this shows that
 * the test above can see it: one latent of other content, just outside the core, changes the tile.
 * */
static void neighbours_matter(void **state)
{
    (void)state;
    clip c = open_clip(KN_DEV_CPU, 1, MODEL("wan"), 1, 4, 16);
    kn_vae_stream_params p = params_of(&c, 1);
    float *before = run(&c, KN_VAE_DECODE, &p, NULL);
    float *z = c.z.data;
    for (int64_t i = 0; i < kn_tensor_count(&c.z); i++)
        if (i % 16 == 8) z[i] += 1;
    float *after = run(&c, KN_VAE_DECODE, &p, NULL);
    double most = 0;
    for (int64_t i = 0; i < c.each; i++) {
        int64_t x = i / 3 % (16 * 8);
        if (x < 64) most = fmax(most, fabs((double)before[i] - after[i]));
    }
    assert_true(most > 1e-3);
    kn_free(before);
    kn_free(after);
    close_clip(&c);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void the_plan_is_what_is_used(void **state)
{
    (void)state;
    clip c = open_clip(KN_DEV_CPU, 1, MODEL("wan"), 2, 6, 8);
    for (int side = 0; side < KN_VAE_SIDES; side++)
        for (int kind = 0; kind < 4; kind++) {
            kn_vae_stream_params p = params_of(&c, 1 + kind % 2);
            kn_vae_stream_plan plan, opened;
            if (kind >= 2) p.tiling = (kn_vae_tiling){2, 2, 2};
            p.past_on_host = kind == 3;
            expect_ok(kn_vae_stream_plan_build(c.m, side, &p, &plan));
            size_t before = kn_dev_bytes_now(c.dev);
            kn_dev_reset_peak(c.dev);
            kn_free(run(&c, side, &p, &opened));
            assert_int_equal(kn_dev_bytes_peak(c.dev) - before, plan.device_bytes);
            assert_int_equal(opened.device_bytes, plan.device_bytes);
            assert_int_equal(opened.host_bytes, plan.host_bytes);
        }
    close_clip(&c);
}

static void memory_limits_cut_frames(void **state)
{
    (void)state;
    clip c = open_clip(KN_DEV_CPU, 1, MODEL("two"), 2, 32, 40);
    for (int side = 0; side < KN_VAE_SIDES; side++) {
        kn_vae_stream_params p = params_of(&c, 1);
        kn_vae_stream_plan whole, cut;
        float *expected = run(&c, side, &p, &whole);
        assert_int_equal(whole.tiling.rows * whole.tiling.cols, 1);
        p.memory_bytes = whole.device_bytes;
        expect_ok(kn_vae_stream_plan_build(c.m, side, &p, &cut));
        assert_int_equal(cut.tiling.rows * cut.tiling.cols, 1);
        p.memory_bytes = whole.device_bytes * 3 / 4;
        p.past_on_host = true;
        float *tiles = run(&c, side, &p, &cut);
        assert_true(cut.tiling.rows * cut.tiling.cols > 1);
        assert_true(cut.device_bytes <= p.memory_bytes);
        assert_true(distance(&c, side, expected, tiles) <= equal);
        p.memory_bytes = 100000;
        expect_fail(kn_vae_stream_plan_build(c.m, side, &p, &cut), KN_ERR_NOMEM,
                    side ? "decoding 160x128" : "encoding 160x128", "at least", "GB are allowed");
        kn_free(expected);
        kn_free(tiles);
    }
    close_clip(&c);
}

static void threads_do_not_change_a_byte(void **state)
{
    (void)state;
    float *results[2][KN_VAE_SIDES];
    clip c[2];
    for (int i = 0; i < 2; i++) {
        c[i] = open_clip(KN_DEV_CPU, 1 + i, MODEL("wan"), 2, 5, 7);
        kn_vae_stream_params p = params_of(&c[i], 1);
        for (int side = 0; side < KN_VAE_SIDES; side++)
            results[i][side] = run(&c[i], side, &p, NULL);
    }
    assert_memory_equal(results[0][1], results[1][1],
                        (size_t)(c[0].frames * c[0].each) * sizeof(float));
    assert_memory_equal(results[0][0], results[1][0], kn_tensor_bytes(&c[0].z));
    for (int i = 0; i < 2; i++) {
        for (int side = 0; side < KN_VAE_SIDES; side++) kn_free(results[i][side]);
        close_clip(&c[i]);
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

static kn_status cancel(void *user, const float *frames, int64_t count)
{
    (void)user, (void)frames, (void)count;
    return kn_fail(KN_ERR_CANCELLED, "enough");
}

static void wrong_calls_are_refused(void **state)
{
    (void)state;
    clip c = open_clip(KN_DEV_CPU, 1, MODEL("two"), 2, 3, 3);
    kn_vae_stream *s;
    kn_vae_stream_params p = params_of(&c, 1), bad = p;
    bad.height_lat = 0;
    expect_fail(kn_vae_stream_open(c.m, KN_VAE_DECODE, &bad, &s), KN_ERR_ARG, "decoder", "0 x 3");
    bad = p;
    bad.tiling = (kn_vae_tiling){2, 2, 3};
    expect_fail(kn_vae_stream_open(c.m, KN_VAE_ENCODE, &bad, &s), KN_ERR_ARG, "level 3", "0 to 2");
    bad.tiling = (kn_vae_tiling){4, 1, 1};
    expect_fail(kn_vae_stream_open(c.m, KN_VAE_ENCODE, &bad, &s), KN_ERR_ARG, "4 x 1 tiles");
    expect_ok(kn_vae_stream_open(c.m, KN_VAE_DECODE, &p, &s));
    expect_fail(kn_vae_decode_push(s, &c.z, keep, &c), KN_ERR_ARG, "[4, 2, 3, 3]", "1..1");
    kn_tensor one = kn_tensor_slice(&c.z, 1, 0, 1);
    expect_fail(kn_vae_encode_push(s, c.pixels, &one), KN_ERR_ARG, "decoder");
    expect_fail(kn_vae_decode_push(s, &one, cancel, NULL), KN_ERR_CANCELLED, "enough");
    kn_vae_stream_close(&s);
    kn_vae_stream_close(&s);
    close_clip(&c);
}

static void values_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    clip c = open_clip(KN_DEV_CPU, 1, MODEL("two"), 2, 3, 3);
    kn_vae_stream *s;
    kn_vae_stream_params p = params_of(&c, 1);
    kn_tensor first = kn_tensor_slice(&c.z, 1, 0, 1), second = kn_tensor_slice(&c.z, 1, 1, 1);
    c.result = new_floats(c.frames * c.each);
    ((float *)second.data)[0] = NAN;
    expect_ok(kn_vae_stream_open(c.m, KN_VAE_DECODE, &p, &s));
    expect_ok(kn_vae_decode_push(s, &first, keep, &c));
    expect_fail(kn_vae_decode_push(s, &second, keep, &c), KN_ERR_NUMERIC, "decoded frame 1", "NaN");
    kn_vae_stream_close(&s);
    c.pixels[5] = INFINITY;
    expect_ok(kn_vae_stream_open(c.m, KN_VAE_ENCODE, &p, &s));
    expect_fail(kn_vae_encode_push(s, c.pixels, &first), KN_ERR_NUMERIC, "frame 0", "NaN");
    kn_vae_stream_close(&s);
    kn_free(c.result);
    close_clip(&c);
}

static void only_the_opened_side_runs(void **state)
{
    (void)state;
    kn_dev *d;
    kn_vae *m;
    kn_vae_stream *s;
    kn_vae_stream_params p = {.height_lat = 2, .width_lat = 2};
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &d));
    expect_ok(kn_vae_open(d, MODEL("two"), false, true, &m));
    expect_fail(kn_vae_stream_open(m, KN_VAE_ENCODE, &p, &s), KN_ERR_ARG, "encoder", "not opened");
    assert_null(s);
    kn_vae_close(&m);
    expect_fail(kn_vae_open(d, MODEL("nothing"), true, true, &m), KN_ERR_IO, "vae_nothing");
    kn_dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clip_in_pieces_is_the_clip_at_once),
        cmocka_unit_test(tiles_give_the_frame),
        cmocka_unit_test(neighbours_matter),
        cmocka_unit_test(the_plan_is_what_is_used),
        cmocka_unit_test(memory_limits_cut_frames),
        cmocka_unit_test(threads_do_not_change_a_byte),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(values_that_are_not_finite_are_refused),
        cmocka_unit_test(only_the_opened_side_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
