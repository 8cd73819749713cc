/* The tensor table against the published checkpoints, and binding's refusals. */
#include "dit_model.h"

#include "dit/dit.h"

/* FNV-1a 64 over the lines "name AxBxC\n" of all tensors, in byte order. Expectations come from the
 * names and shapes of the published checkpoints (Wan2.1 T2V-1.3B and 14B, Wan2.2 TI2V-5B and
 * I2V-A14B), listed from Wan's own modules and diffusers' conversion script. */
static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

enum { LINE = 160 };

static uint64_t hash_of_table(const kn_dit_config *c, kn_dit_naming naming)
{
    int count = kn_dit_slot_count(c);
    char(*lines)[LINE] = calloc((size_t)count, LINE);
    assert_non_null(lines);
    for (int i = 0; i < count; i++) {
        kn_dit_slot s = kn_dit_slot_at(c, naming, i);
        int n = snprintf(lines[i], LINE, "%s ", s.name);
        for (int k = 0; k < s.rank; k++)
            n += snprintf(lines[i] + n, LINE - (size_t)n, k ? "x%d" : "%d", (int)s.dims[k]);
        snprintf(lines[i] + n, LINE - (size_t)n, "\n");
    }
    qsort(lines, (size_t)count, LINE, by_text);
    uint64_t h = 0xcbf29ce484222325u;
    for (int i = 0; i < count; i++)
        for (const char *p = lines[i]; *p; p++) h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    free(lines);
    return h;
}

static kn_dit_config family(int heads, int layers, int ffn, int in, int out)
{
    return (kn_dit_config){.layers = layers,
                           .heads = heads,
                           .head_dim = 128,
                           .in_channels = in,
                           .out_channels = out,
                           .text_dim = 4096,
                           .freq_dim = 256,
                           .ffn_dim = ffn,
                           .patch = {1, 2, 2},
                           .rope_max_positions = 1024,
                           .cross_attn_norm = true,
                           .eps = 1e-6};
}

static void table_is_the_published_one(void **state)
{
    (void)state;
    const struct {
        kn_dit_config config;
        int count;
        uint64_t diffusers, original;
    } models[] = {
        {family(12, 30, 8960, 16, 16), 825, 0xdccfe3ae7372ad95u, 0x72757dfe7f2cbca3u},
        {family(40, 40, 13824, 16, 16), 1095, 0x13cb618927017967u, 0x1197b4c25d1b3a47u},
        {family(24, 30, 14336, 48, 48), 825, 0x7a9a5c68babe7347u, 0x95d4eb49fe79556du},
        {family(40, 40, 13824, 36, 16), 1095, 0xad5d822c8657f781u, 0xb3dc5bd8cdc8701du},
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        assert_int_equal(kn_dit_slot_count(&models[i].config), models[i].count);
        assert_true(hash_of_table(&models[i].config, KN_DIT_DIFFUSERS) == models[i].diffusers);
        assert_true(hash_of_table(&models[i].config, KN_DIT_ORIGINAL) == models[i].original);
    }
}

static void open_small(kn_dev **d, char folder[64])
{
    must(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF, .threads = 1}, d));
    make_folder(folder);
    write_config(folder, &small_config);
}

/* Opening must fail with the code, and its message must hold the text. */
static void expect_failure(kn_dev *d, const char *path, kn_status code, const char *text)
{
    kn_dit *m = NULL;
    size_t before = kn_dev_bytes_now(d);
    kn_status st = kn_dit_open(d, path, &m);
    if (st != code)
        fail_msg("status %s, expected %s: %s", kn_status_name(st), kn_status_name(code),
                 kn_error_text());
    assert_null(m);
    if (!strstr(kn_error_text(), text)) fail_msg("'%s' does not say '%s'", kn_error_text(), text);
    assert_int_equal(kn_dev_bytes_now(d), before);
}

static void wrong_files_are_named(void **state)
{
    (void)state;
    kn_dev *d;
    char folder[64];
    open_small(&d, folder);
    int last = kn_dit_slot_count(&small_config) - 1;

    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "", last, -1, NULL);
    expect_failure(d, folder, KN_ERR_MODEL, "blocks.1.norm2.bias");
    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "", -1, 4, NULL);
    expect_failure(d, folder, KN_ERR_MODEL,
                   kn_dit_slot_at(&small_config, KN_DIT_DIFFUSERS, 4).name);
    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "", -1, -1, "blocks.0.surprise");
    expect_failure(d, folder, KN_ERR_MODEL, "blocks.0.surprise");
    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "", -1, -1,
                  "condition_embedder.image_embedder.norm1.weight");
    expect_failure(d, folder, KN_ERR_UNSUPPORTED, "image");
    write_weights(folder, &small_config, KN_DIT_ORIGINAL, "", -1, -1, "img_emb.proj.0.weight");
    expect_failure(d, folder, KN_ERR_UNSUPPORTED, "img_emb");
    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "other.", -1, -1, NULL);
    expect_failure(d, folder, KN_ERR_MODEL, "not a Wan transformer");
    expect_failure(d, "no/such/folder", KN_ERR_IO, "no/such/folder");

    char path[128];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "", -1, -1, NULL);
    expect_failure(d, path, KN_ERR_MODEL, "config.json"); /* dimensions cannot be told without it */
    remove_folder(folder);
    kn_dev_close(&d);
}

static void all_layouts_open(void **state)
{
    (void)state;
    kn_dev *d;
    char folder[64];
    kn_dit *m = NULL;
    open_small(&d, folder);
    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "", -1, -1, NULL);
    must(kn_dit_open(d, folder, &m));
    kn_dit_close(&m);
    write_weights(folder, &small_config, KN_DIT_ORIGINAL, "", -1, -1, NULL);
    must(kn_dit_open(d, folder, &m));
    kn_dit_close(&m);
    kn_dit_config plain = small_config;
    plain.cross_attn_norm = false;
    write_config(folder, &plain);
    write_weights(folder, &plain, KN_DIT_ORIGINAL, "model.diffusion_model.", -1, -1, NULL);
    must(kn_dit_open(d, folder, &m));
    assert_memory_equal(kn_dit_get_config(m)->patch, plain.patch, sizeof plain.patch);
    kn_dit_close(&m);
    assert_int_equal(kn_dev_bytes_now(d), 0);

    /* A single file: dimensions from shapes. */
    kn_dit_config wide = small_config;
    wide.head_dim = 128;
    wide.layers = 3;
    char path[128];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    for (int norm = 0; norm < 2; norm++) {
        wide.cross_attn_norm = norm;
        write_weights(folder, &wide, KN_DIT_ORIGINAL, norm ? "" : "model.diffusion_model.", -1, -1,
                      NULL);
        must(kn_dit_open(d, path, &m));
        const kn_dit_config *got = kn_dit_get_config(m);
        assert_int_equal(got->layers, 3);
        assert_int_equal(got->heads, 2);
        assert_int_equal(got->head_dim, 128);
        assert_int_equal(got->in_channels, 4);
        assert_int_equal(got->out_channels, 4);
        assert_int_equal(got->text_dim, 12);
        assert_int_equal(got->freq_dim, 16);
        assert_int_equal(got->ffn_dim, 136);
        assert_int_equal(got->cross_attn_norm, norm);
        kn_dit_close(&m);
    }
    remove_folder(folder);
    kn_dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(table_is_the_published_one),
                                       cmocka_unit_test(wrong_files_are_named),
                                       cmocka_unit_test(all_layouts_open)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
