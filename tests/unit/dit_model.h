/* tests/unit/dit_model.h - small transformers on disk, for the tests of dit/. */
#ifndef KN_TESTS_UNIT_DIT_MODEL_H
#define KN_TESTS_UNIT_DIT_MODEL_H

#include <unistd.h>

#include "dit/weights.h"
#include "tests/golden/compare.h"

static const kn_dit_config small_config = {.layers = 2,
                                           .heads = 2,
                                           .head_dim = 16,
                                           .in_channels = 4,
                                           .out_channels = 4,
                                           .text_dim = 12,
                                           .freq_dim = 16,
                                           .ffn_dim = 136,
                                           .patch = {1, 2, 2},
                                           .rope_max_positions = 1024,
                                           .cross_attn_norm = true,
                                           .eps = 1e-6};

static inline void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* Values in (-1, 1) from a seed. */
static inline void fill_values(float *out, int64_t count, uint32_t seed)
{
    uint32_t s = seed * 2654435761u + 12345u;
    for (int64_t i = 0; i < count; i++) {
        s = s * 1664525u + 1013904223u;
        out[i] = (float)(int32_t)s / 2147483648.0f;
    }
}

/* Writes the weights of c under `folder`. skip: slot to leave out, or -1; bent: slot to write with
 * a wrong first axis, or -1; extra: name of one more tensor, or NULL. */
static inline void write_weights(const char *folder, const kn_dit_config *c, kn_dit_naming naming,
                                 const char *prefix, int skip, int bent, const char *extra)
{
    int slots = kn_dit_slot_count(c), count = 0;
    kn_st_tensor *t = calloc((size_t)slots + 1, sizeof *t);
    assert_non_null(t);
    for (int i = 0; i < slots; i++) {
        if (i == skip) continue;
        kn_dit_slot slot = kn_dit_slot_at(c, naming, i);
        kn_st_tensor *e = &t[count++];
        char *name = malloc(160);
        assert_non_null(name);
        snprintf(name, 160, "%s%s", prefix, slot.name);
        *e = (kn_st_tensor){
            .name = name, .dtype = KN_ST_F32, .dtype_name = "F32", .rank = slot.rank};
        int64_t n = 1;
        for (int k = 0; k < slot.rank; k++) {
            e->dim[k] = slot.dims[k] + (i == bent && k == 0);
            n *= e->dim[k];
        }
        float *values = malloc((size_t)n * sizeof(float));
        assert_non_null(values);
        fill_values(values, n, (uint32_t)i + 1);
        for (int64_t k = 0; k < n; k++) values[k] *= 0.3f;
        e->data = values;
        e->bytes = (size_t)n * sizeof(float);
    }
    static const float one = 1;
    if (extra)
        t[count++] = (kn_st_tensor){.name = extra,
                                    .dtype = KN_ST_F32,
                                    .dtype_name = "F32",
                                    .rank = 1,
                                    .dim = {1},
                                    .data = &one,
                                    .bytes = sizeof one};
    char path[512];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    must(kn_safetensors_write(path, t, count, NULL));
    for (int i = 0; i < count - (extra != NULL); i++) {
        free((void *)(uintptr_t)t[i].name);
        free((void *)(uintptr_t)t[i].data);
    }
    free(t);
}

static inline void write_config(const char *folder, const kn_dit_config *c)
{
    char path[512], text[1024];
    snprintf(path, sizeof path, "%s/config.json", folder);
    snprintf(
        text, sizeof text,
        "{\"_class_name\": \"WanTransformer3DModel\", \"num_layers\": %d, \"num_attention_heads\": "
        "%d,"
        " \"attention_head_dim\": %d, \"in_channels\": %d, \"out_channels\": %d, \"text_dim\": %d,"
        " \"freq_dim\": %d, \"ffn_dim\": %d, \"cross_attn_norm\": %s}",
        c->layers, c->heads, c->head_dim, (int)c->in_channels, (int)c->out_channels,
        (int)c->text_dim, (int)c->freq_dim, (int)c->ffn_dim, c->cross_attn_norm ? "true" : "false");
    write_text(path, text);
}

/* A new folder under the working directory; remove_folder takes it away with its files. */
static inline void make_folder(char folder[64])
{
    strcpy(folder, "kn_dit_test_XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static inline void remove_folder(const char *folder)
{
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors"};
    char path[512];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

#endif
