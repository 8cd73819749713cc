/* Reading of transformer configs: the published ones, and what is refused. */
#include "dit_model.h"

#include "dit/config.h"

static char folder[64], path[128];

static kn_status read_text(const char *text, kn_dit_config *c)
{
    write_text(path, text);
    return kn_dit_config_read(path, c);
}

static int setup(void **state)
{
    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/config.json", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_folder(folder);
    return 0;
}

static void assert_is_1_3b(const kn_dit_config *c)
{
    assert_int_equal(c->layers, 30);
    assert_int_equal(c->heads, 12);
    assert_int_equal(c->head_dim, 128);
    assert_int_equal(kn_dit_width(c), 1536);
    assert_int_equal(c->in_channels, 16);
    assert_int_equal(c->out_channels, 16);
    assert_int_equal(kn_dit_patch_elements(c, 16), 64);
    assert_int_equal(c->text_dim, 4096);
    assert_int_equal(c->freq_dim, 256);
    assert_int_equal(c->ffn_dim, 8960);
    assert_int_equal(c->rope_max_positions, 1024);
    assert_true(c->cross_attn_norm);
    assert_true(c->eps == 1e-6);
}

/* Wan-AI/Wan2.1-T2V-1.3B-Diffusers transformer/config.json; Wan-AI/Wan2.1-T2V-1.3B config.json */
static void published_configs(void **state)
{
    (void)state;
    kn_dit_config c;
    must(read_text(
        "{\"_class_name\": \"WanTransformer3DModel\", \"_diffusers_version\": \"0.33.0.dev0\","
        "\"added_kv_proj_dim\": null, \"attention_head_dim\": 128, \"cross_attn_norm\": true,"
        "\"eps\": 1e-06, \"ffn_dim\": 8960, \"freq_dim\": 256, \"image_dim\": null,"
        "\"in_channels\": 16, \"num_attention_heads\": 12, \"num_layers\": 30,"
        "\"out_channels\": 16, \"patch_size\": [1, 2, 2], \"qk_norm\": \"rms_norm_across_heads\","
        "\"rope_max_seq_len\": 1024, \"text_dim\": 4096}",
        &c));
    assert_is_1_3b(&c);
    must(read_text(
        "{\"_class_name\": \"WanModel\", \"_diffusers_version\": \"0.30.0\", \"dim\": 1536,"
        "\"eps\": 1e-06, \"ffn_dim\": 8960, \"freq_dim\": 256, \"in_dim\": 16,"
        "\"model_type\": \"t2v\", \"num_heads\": 12, \"num_layers\": 30, \"out_dim\": 16,"
        "\"text_len\": 512}",
        &c));
    assert_is_1_3b(&c);
}

static void refusals_name_the_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        kn_status code;
    } cases[] = {
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 8, \"num_layers\": 1, "
         "\"image_dim\": 1280}",
         "image_dim", KN_ERR_UNSUPPORTED},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 8, \"num_layers\": 1,"
         " \"added_kv_proj_dim\": 5120}",
         "added_kv_proj_dim", KN_ERR_UNSUPPORTED},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 8, \"num_layers\": 1,"
         " \"pos_embed_seq_len\": 514}",
         "pos_embed_seq_len", KN_ERR_UNSUPPORTED},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 8, \"num_layers\": 1,"
         " \"qk_norm\": \"layer_norm\"}",
         "layer_norm", KN_ERR_UNSUPPORTED},
        {"{\"_class_name\": \"FluxTransformer2DModel\"}", "FluxTransformer2DModel",
         KN_ERR_UNSUPPORTED},
        {"{\"attention_head_dim\": 8, \"num_layers\": 1}", "num_attention_heads", KN_ERR_FORMAT},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 8, \"num_layers\": 0}", "num_layers",
         KN_ERR_FORMAT},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 7, \"num_layers\": 1}", "even",
         KN_ERR_MODEL},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 8, \"num_layers\": 1, \"freq_dim\": "
         "3}",
         "freq_dim", KN_ERR_MODEL},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 8, \"num_layers\": 1,"
         " \"patch_size\": [1, 2]}",
         "patch_size", KN_ERR_FORMAT},
        {"{\"_class_name\": \"WanModel\", \"dim\": 10, \"num_heads\": 3, \"num_layers\": 1}", "dim",
         KN_ERR_MODEL},
        {"{\"_class_name\": \"WanModel\", \"dim\": 12, \"num_heads\": 3, \"num_layers\": 1,"
         " \"model_type\": \"vace\"}",
         "vace", KN_ERR_FORMAT},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 8, \"num_layers\": 1, \"qk_norm\": [1]}", "a list or map",
         KN_ERR_UNSUPPORTED},
        {"{\"_class_name\": \"WanModel\", \"dim\": 12, \"num_heads\": 3, \"num_layers\": 1, \"in_dim\": 0}", "in_dim",
         KN_ERR_FORMAT},
        {"[1]", "", KN_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kn_dit_config c;
        kn_status st = read_text(cases[i].text, &c);
        if (st != cases[i].code)
            fail_msg("%s: status %s: %s", cases[i].text, kn_status_name(st), kn_error_text());
        if (!strstr(kn_error_text(), cases[i].says))
            fail_msg("'%s' does not name '%s'", kn_error_text(), cases[i].says);
    }
}

/* What is missing or odd in a file of weights alone; the good ones are opened by tests/unit/dit_weights.c. */
static void shapes_that_tell_nothing_are_named(void **state)
{
    (void)state;
    typedef struct shape {
        const char *name;
        int rank;
        int64_t dim[5];
    } shape;
    static const shape good[] = {{"patch_embedding.weight", 5, {128, 4, 1, 2, 2}}, {"text_embedding.0.weight", 2, {128, 12}},
                                 {"time_embedding.0.weight", 2, {128, 16}},        {"blocks.0.ffn.0.weight", 2, {136, 128}},
                                 {"head.head.weight", 2, {16, 128}},               {"blocks.0.modulation", 3, {1, 6, 128}},
                                 {"blocks.1.modulation", 3, {1, 6, 128}}};
    enum { COUNT = sizeof good / sizeof *good };
    static const struct {
        int at;        /* which of them */
        shape by;      /* what stands there instead; no name: nothing */
        const char *says;
    } cases[] = {
        {0, {NULL, 0, {0}}, "patch_embedding.weight: expected rank 5, found none"},
        {0, {"patch_embedding.weight", 2, {128, 16}}, "expected rank 5, found another"},
        {0, {"patch_embedding.weight", 5, {120, 4, 1, 2, 2}}, "the model is 120 wide: without a config.json"},
        {1, {NULL, 0, {0}}, "text_embedding.0.weight"},
        {1, {"text_embedding.0.weight", 2, {1, (1 << 20) + 1}}, "axis 1 is 1048577, expected 1 to 1048576"},
        {1, {"text_embedding.0.weight", 2, {0, 12}}, "axis 0 is 0"},
        {2, {NULL, 0, {0}}, "time_embedding.0.weight"},
        {2, {"time_embedding.0.weight", 2, {128, 15}}, "freq_dim is 15: expected an even number"},
        {3, {NULL, 0, {0}}, "blocks.0.ffn.0.weight"},
        {4, {"head.head.weight", 1, {16}}, "head.head.weight"},
    };
    char file[128];
    snprintf(file, sizeof file, "%s/diffusion_pytorch_model.safetensors", folder);
    void *zeros = calloc((1 << 20) + 1, 1);
    assert_non_null(zeros);
    for (size_t i = 0; i <= sizeof cases / sizeof cases[0]; i++) {
        bool bad = i < sizeof cases / sizeof cases[0];
        kn_st_tensor t[COUNT];
        int count = 0;
        for (int k = 0; k < COUNT; k++) {
            const shape *s = bad && cases[i].at == k ? &cases[i].by : &good[k];
            if (!s->name) continue;
            kn_st_tensor *e = &t[count++];
            *e = (kn_st_tensor){.name = s->name, .dtype = KN_ST_U8, .rank = s->rank, .data = zeros, .bytes = 1};
            for (int a = 0; a < s->rank; a++) e->bytes *= (size_t)(e->dim[a] = s->dim[a]);
        }
        must(kn_safetensors_write(file, t, count, NULL));
        kn_safetensors *st = NULL;
        kn_dit_config c;
        must(kn_safetensors_open(file, NULL, &st));
        kn_status got = kn_dit_config_infer(st, "", &c);
        kn_safetensors_close(&st);
        if (!bad) {
            must(got);
            assert_int_equal(c.layers, 2);
            assert_int_equal(c.heads, 1);
            assert_int_equal(c.out_channels, 4);
            assert_false(c.cross_attn_norm);
        } else if (got != KN_ERR_MODEL || !strstr(kn_error_text(), cases[i].says)) {
            fail_msg("'%s': status %s: %s", cases[i].says, kn_status_name(got), kn_error_text());
        }
    }
    free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(published_configs, setup, teardown),
        cmocka_unit_test_setup_teardown(refusals_name_the_key, setup, teardown),
        cmocka_unit_test_setup_teardown(shapes_that_tell_nothing_are_named, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
