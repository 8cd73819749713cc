#include "dit/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/config.h"
#include "io/log.h"

int64_t kn_dit_width(const kn_dit_config *c)
{
    return (int64_t)c->heads * c->head_dim;
}

int64_t kn_dit_patch_elements(const kn_dit_config *c, int64_t channels)
{
    return channels * c->patch[0] * c->patch[1] * c->patch[2];
}

/* Limits that keep every product of dimensions far inside int64_t. */
enum { MAX_WIDTH = 1 << 20, MAX_HEADS = 1024, MAX_LAYERS = 1024, MAX_PATCH = 16 };

static kn_status int_or(const kn_node *root, const char *key, int low, int high, int fallback,
                        int64_t *out)
{
    int value;
    KN_TRY(kn_node_int_or(root, key, low, high, fallback, &value));
    *out = value;
    return KN_OK;
}

static kn_status refuse_unless_null(const kn_node *root, const char *key)
{
    if (!kn_node_has(root, key)) return KN_OK;
    return kn_node_fail(
        KN_ERR_UNSUPPORTED, kn_node_find(root, key),
        "an image-conditioned transformer; Kinora runs text-to-video ones, where this "
        "is null");
}

/* Values that name a way of computing: only the one that Kinora computes is accepted. */
static kn_status require_text(const kn_node *root, const char *key, const char *only)
{
    const kn_node *node = kn_node_find(root, key);
    if (!node || kn_node_is_null(node) || (node->text && strcmp(node->text, only) == 0))
        return KN_OK;
    return kn_node_fail(KN_ERR_UNSUPPORTED, node, "Kinora knows '%s', found '%s'", only,
                        node->text ? node->text : "a list or map");
}

static void warn_unknown_keys(const kn_config *file, const char *const *known)
{
    const kn_node *root = kn_config_root(file);
    for (int i = 0; i < root->count; i++) {
        const char *key = root->item[i].key;
        int k = 0;
        while (known[k] && strcmp(known[k], key) != 0) k++;
        if (!known[k] && key[0] != '_')
            kn_log(KN_LOG_WARN, "dit", "%s: key '%s' is not known and has no effect",
                   kn_config_path(file), key);
    }
}

static kn_status read_patch(const kn_node *root, int patch[3])
{
    static const int usual[3] = {1, 2, 2};
    memcpy(patch, usual, sizeof usual);
    if (!kn_node_has(root, "patch_size")) return KN_OK;
    return kn_node_ints(root, "patch_size", 1, MAX_PATCH, 3, 3, patch, NULL);
}

/* diffusers' WanTransformer3DModel */
static kn_status read_diffusers(const kn_config *file, kn_dit_config *c)
{
    static const char *const known[] = {"patch_size",
                                        "num_attention_heads",
                                        "attention_head_dim",
                                        "in_channels",
                                        "out_channels",
                                        "text_dim",
                                        "freq_dim",
                                        "ffn_dim",
                                        "num_layers",
                                        "cross_attn_norm",
                                        "qk_norm",
                                        "eps",
                                        "image_dim",
                                        "added_kv_proj_dim",
                                        "rope_max_seq_len",
                                        "pos_embed_seq_len",
                                        NULL};
    const kn_node *root = kn_config_root(file);
    int norm;
    KN_TRY(refuse_unless_null(root, "image_dim"));
    KN_TRY(refuse_unless_null(root, "added_kv_proj_dim"));
    KN_TRY(refuse_unless_null(root, "pos_embed_seq_len"));
    KN_TRY(require_text(root, "qk_norm", "rms_norm_across_heads"));
    KN_TRY(kn_node_int(root, "num_attention_heads", 1, MAX_HEADS, &c->heads));
    KN_TRY(kn_node_int(root, "attention_head_dim", 2, MAX_HEADS, &c->head_dim));
    KN_TRY(kn_node_int(root, "num_layers", 1, MAX_LAYERS, &c->layers));
    KN_TRY(int_or(root, "in_channels", 1, MAX_WIDTH, 16, &c->in_channels));
    KN_TRY(int_or(root, "out_channels", 1, MAX_WIDTH, (int)c->in_channels, &c->out_channels));
    KN_TRY(int_or(root, "text_dim", 1, MAX_WIDTH, 4096, &c->text_dim));
    KN_TRY(int_or(root, "freq_dim", 2, MAX_WIDTH, 256, &c->freq_dim));
    KN_TRY(int_or(root, "ffn_dim", 1, MAX_WIDTH, 13824, &c->ffn_dim));
    KN_TRY(read_patch(root, c->patch));
    KN_TRY(kn_node_int_or(root, "rope_max_seq_len", 1, MAX_WIDTH, 1024, &c->rope_max_positions));
    KN_TRY(kn_node_bool_or(root, "cross_attn_norm", 1, &norm));
    KN_TRY(kn_node_double_or(root, "eps", 0, 1, 1e-6, &c->eps));
    c->cross_attn_norm = norm;
    warn_unknown_keys(file, known);
    return KN_OK;
}

/* Wan's own WanModel */
static kn_status read_original(const kn_config *file, kn_dit_config *c)
{
    static const char *const known[] = {
        "model_type", "patch_size",      "text_len", "in_dim",    "dim",        "ffn_dim",
        "freq_dim",   "text_dim",        "out_dim",  "num_heads", "num_layers", "window_size",
        "qk_norm",    "cross_attn_norm", "eps",      NULL};
    static const char *const types[] = {"t2v", "ti2v", "i2v"};
    const kn_node *root = kn_config_root(file);
    int norm, type, width;
    /* i2v: Wan 2.2's is a plain network with more input channels; Wan 2.1's has an image branch,
     * which its tensors show (dit/weights.c). */
    KN_TRY(kn_node_choice_or(root, "model_type", types, 3, 0, &type));
    KN_TRY(require_text(root, "qk_norm", "true"));
    KN_TRY(kn_node_int(root, "dim", 2, MAX_WIDTH, &width));
    KN_TRY(kn_node_int(root, "num_heads", 1, MAX_HEADS, &c->heads));
    KN_TRY(kn_node_int(root, "num_layers", 1, MAX_LAYERS, &c->layers));
    if (width % c->heads)
        return kn_node_fail(KN_ERR_MODEL, kn_node_find(root, "dim"),
                            "expected a multiple of num_heads (%d), found %d", c->heads, width);
    c->head_dim = width / c->heads;
    KN_TRY(int_or(root, "in_dim", 1, MAX_WIDTH, 16, &c->in_channels));
    KN_TRY(int_or(root, "out_dim", 1, MAX_WIDTH, 16, &c->out_channels));
    KN_TRY(int_or(root, "text_dim", 1, MAX_WIDTH, 4096, &c->text_dim));
    KN_TRY(int_or(root, "freq_dim", 2, MAX_WIDTH, 256, &c->freq_dim));
    KN_TRY(int_or(root, "ffn_dim", 1, MAX_WIDTH, 8192, &c->ffn_dim));
    KN_TRY(read_patch(root, c->patch));
    KN_TRY(kn_node_bool_or(root, "cross_attn_norm", 1, &norm));
    KN_TRY(kn_node_double_or(root, "eps", 0, 1, 1e-6, &c->eps));
    c->cross_attn_norm = norm;
    c->rope_max_positions = 1024; /* WanModel: rope_params(1024, ...) */
    warn_unknown_keys(file, known);
    return KN_OK;
}

static kn_status check(const char *path, const kn_dit_config *c)
{
    if (c->head_dim % 2)
        return kn_fail(KN_ERR_MODEL,
                       "%s: heads are %d wide: expected an even number, for rotary "
                       "positions",
                       path, c->head_dim);
    if (c->freq_dim % 2)
        return kn_fail(KN_ERR_MODEL, "%s: freq_dim is %" PRId64 ": expected an even number", path,
                       c->freq_dim);
    return KN_OK;
}

kn_status kn_dit_config_read(const char *path, kn_dit_config *out)
{
    memset(out, 0, sizeof *out);
    kn_status st = KN_OK;
    kn_config *file = NULL;
    KN_TRY_GOTO(kn_config_open(path, &file));
    const kn_node *root = kn_config_root(file);
    const char *name;
    KN_TRY_GOTO(kn_node_string_or(root, "_class_name", "WanTransformer3DModel", &name));
    if (strcmp(name, "WanTransformer3DModel") == 0)
        KN_TRY_GOTO(read_diffusers(file, out));
    else if (strcmp(name, "WanModel") == 0)
        KN_TRY_GOTO(read_original(file, out));
    else
        KN_TRY_GOTO(kn_node_fail(KN_ERR_UNSUPPORTED, kn_node_find(root, "_class_name"),
                                 "Kinora knows WanTransformer3DModel and WanModel, found '%s'",
                                 name));
    KN_TRY_GOTO(check(path, out));
done:
    kn_config_close(&file);
    return st;
}

/* ---- from shapes ------------------------------------------------------------------------------*/
static kn_status shape_of(const kn_safetensors *file, const char *prefix, const char *name,
                          int rank, const int64_t **dims)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const kn_st_tensor *t = kn_safetensors_find(file, full, NULL);
    if (!t || t->rank != rank)
        return kn_fail(KN_ERR_MODEL, "%s: tensor %s: expected rank %d, found %s",
                       kn_safetensors_path(file), full, rank, t ? "another" : "none");
    for (int i = 0; i < rank; i++)
        if (t->dim[i] < 1 || t->dim[i] > MAX_WIDTH)
            return kn_fail(KN_ERR_MODEL, "%s: tensor %s: axis %d is %" PRId64 ", expected 1 to %d",
                           kn_safetensors_path(file), full, i, t->dim[i], MAX_WIDTH);
    *dims = t->dim;
    return KN_OK;
}

kn_status kn_dit_config_infer(const kn_safetensors *file, const char *prefix, kn_dit_config *out)
{
    enum { HEAD_DIM = 128 }; /* of every published Wan model */
    const int64_t *dims = NULL;
    char name[64];
    memset(out, 0, sizeof *out);
    kn_dit_config c = {.head_dim = HEAD_DIM, .eps = 1e-6, .rope_max_positions = 1024};
    KN_TRY(shape_of(file, prefix, "patch_embedding.weight", 5, &dims));
    int64_t width = dims[0];
    if (width % HEAD_DIM)
        return kn_fail(KN_ERR_MODEL,
                       "%s: the model is %" PRId64 " wide: without a config.json beside it, "
                       "expected a multiple of %d",
                       kn_safetensors_path(file), width, HEAD_DIM);
    c.heads = (int)(width / HEAD_DIM);
    c.in_channels = dims[1];
    for (int i = 0; i < 3; i++) c.patch[i] = dims[2 + i] > MAX_PATCH ? MAX_PATCH : (int)dims[2 + i];
    KN_TRY(shape_of(file, prefix, "text_embedding.0.weight", 2, &dims));
    c.text_dim = dims[1];
    KN_TRY(shape_of(file, prefix, "time_embedding.0.weight", 2, &dims));
    c.freq_dim = dims[1];
    KN_TRY(shape_of(file, prefix, "blocks.0.ffn.0.weight", 2, &dims));
    c.ffn_dim = dims[0];
    KN_TRY(shape_of(file, prefix, "head.head.weight", 2, &dims));
    c.out_channels = dims[0] / kn_dit_patch_elements(&c, 1);
    snprintf(name, sizeof name, "%sblocks.0.norm3.weight", prefix);
    c.cross_attn_norm = kn_safetensors_find(file, name, NULL) != NULL;
    do {
        snprintf(name, sizeof name, "%sblocks.%d.modulation", prefix, ++c.layers);
    } while (c.layers < MAX_LAYERS && kn_safetensors_find(file, name, NULL));
    KN_TRY(check(kn_safetensors_path(file), &c));
    *out = c;
    return KN_OK;
}
