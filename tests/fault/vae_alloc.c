/* Opening a VAE, a stream and pushing frames while memory runs out at every point. */
#include "tests/expect.h"

#include "io/memory.h"
#include "vae/vae_stream.h"

static kn_status ignore_frames(void *user, const float *frames, int64_t count)
{
    (void)user, (void)frames, (void)count;
    return KN_OK;
}

/* Two pushes each way; tiles with their past on the host take the most allocations. */
static kn_status use_model(kn_dev *d, bool tiles)
{
    kn_status st = KN_OK;
    kn_vae *m = NULL;
    kn_vae_stream *s = NULL;
    static float latents[4 * 2 * 4 * 4], pixels[2 * 16 * 16 * 3];
    kn_tensor z = kn_tensor_of(latents, KN_F32, 4, 2, 4, 4);
    kn_vae_stream_params p = {.height_lat = 4, .width_lat = 4, .past_on_host = tiles};
    if (tiles) p.tiling = (kn_vae_tiling){2, 1, 1};
    KN_TRY_GOTO(kn_vae_open(d, KN_SOURCE_DIR "/tests/golden/data/vae_two", true, true, &m));
    for (int side = 0; side < KN_VAE_SIDES; side++) {
        KN_TRY_GOTO(kn_vae_stream_open(m, side, &p, &s));
        for (int f = 0; f < 2; f++) {
            kn_tensor one = kn_tensor_slice(&z, 1, f, 1);
            if (side == KN_VAE_DECODE)
                KN_TRY_GOTO(kn_vae_decode_push(s, &one, ignore_frames, NULL));
            else
                KN_TRY_GOTO(kn_vae_encode_push(s, pixels, &one));
        }
        kn_vae_stream_close(&s);
    }
done:
    kn_vae_stream_close(&s);
    kn_vae_close(&m);
    return st;
}

static void check(kn_dev_kind kind, bool tiles)
{
    kn_dev *d = NULL;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = 1}, &d));
    kn_status st = KN_ERR_NOMEM;
    long k = 0;
    while (st != KN_OK) {
        kn_memory_fail_at(++k);
        st = use_model(d, tiles);
        if (st != KN_OK && st != KN_ERR_NOMEM)
            fail_msg("allocation %ld: %s: %s", k, kn_status_name(st), kn_error_text());
        assert_int_equal(kn_dev_bytes_now(d), 0);
    }
    kn_memory_fail_at(0);
    assert_true(k > 100); /* one per weight at least */
    kn_dev_close(&d);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    check(KN_DEV_CPU, false);
    check(KN_DEV_CPU, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
