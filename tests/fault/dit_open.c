/* Opening a transformer when memory runs out at every point, and when its file is cut anywhere. */
#include "tests/unit/dit_model.h"

#include "dit/dit.h"

static char folder[64];

static int setup(void **state)
{
    (void)state;
    make_folder(folder);
    write_config(folder, &small_config);
    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "", -1, -1, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_folder(folder);
    return 0;
}

/* Model, prompt, token grid, scratch, one forward. */
static kn_status use_model(kn_dev *d)
{
    kn_status st = KN_OK;
    kn_dit *m = NULL;
    kn_dit_context *context = NULL;
    kn_dit_rope rope = {0};
    kn_arena *arena = NULL;
    static float embeds[3 * 12], latents[4 * 2 * 4 * 4], velocity[4 * 2 * 4 * 4];
    kn_tensor text = kn_tensor_of(embeds, KN_F32, 3, 12);
    static const int32_t order[8] = {7, 6, 5, 4, 3, 2, 1, 0};
    size_t bytes;
    KN_TRY_GOTO(kn_dit_open(d, folder, &m));
    KN_TRY_GOTO(kn_dit_context_open(m, &text, NULL, &context));
    KN_TRY_GOTO(kn_dit_rope_open(m, 2, 4, 4, order, &rope));
    kn_dit_args args = {.context = context,
                        .rope = &rope,
                        .timestep = 10,
                        .latents = kn_tensor_of(latents, KN_F32, 4, 2, 4, 4),
                        .velocity = kn_tensor_of(velocity, KN_F32, 4, 2, 4, 4)};
    KN_TRY_GOTO(kn_dit_scratch_bytes(m, &args, &bytes));
    KN_TRY_GOTO(kn_arena_open(d, bytes, &arena));
    args.scratch = arena;
    KN_TRY_GOTO(kn_dit_forward(m, &args));
done:
    kn_arena_close(&arena);
    kn_dit_rope_close(&rope);
    kn_dit_context_close(&context);
    kn_dit_close(&m);
    return st;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    static const kn_dev_kind kinds[] = {KN_DEV_REF, KN_DEV_CPU};
    for (int i = 0; i < 2; i++) {
        kn_dev *d = NULL;
        must(kn_dev_open(&(kn_dev_params){.kind = kinds[i], .threads = 1}, &d));
        long k = 1;
        kn_status st;
        do {
            kn_memory_fail_at(k++);
            st = use_model(d);
            if (st != KN_OK && st != KN_ERR_NOMEM)
                fail_msg("allocation %ld: %s: %s", k - 1, kn_status_name(st), kn_error_text());
            assert_int_equal(kn_dev_bytes_now(d), 0);
        } while (st != KN_OK);
        kn_memory_fail_at(0);
        assert_true(k > 50); /* one per weight at least */
        must(use_model(d));
        kn_dev_close(&d);
    }
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    kn_dev *d = NULL;
    must(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF, .threads = 1}, &d));
    char path[128];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long size = ftell(f);
    fclose(f);
    for (long cut = size - 1; cut > 0; cut = cut * 3 / 4) {
        assert_int_equal(truncate(path, cut), 0);
        assert_true(use_model(d) != KN_OK);
        assert_int_equal(kn_dev_bytes_now(d), 0);
    }
    kn_dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_allocation_may_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(cut_files_are_refused, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
