#include "vae/config.h"

#include <string.h>

#include "io/config.h"
#include "io/log.h"

/* Limits that keep every product of dimensions far inside int64_t. */
enum { MAX_BASE = 1 << 14, MAX_MULT = 64 };
static const double MAX_STATISTIC = 1e6;

int kn_vae_spatial_factor(const kn_vae_config *c)
{
    return 1 << (c->levels - 1);
}

int kn_vae_temporal_factor(const kn_vae_config *c)
{
    int factor = 1;
    for (int i = 0; i < c->levels - 1; i++) factor *= c->temporal[i] ? 2 : 1;
    return factor;
}

static const char wan22[] =
    "this is the Wan 2.2 VAE (high compression); Kinora runs the Wan 2.1 VAE, "
    "which the Wan 2.1 models and the 14B models of Wan 2.2 use";

/* What would need another network. */
static kn_status refuse_unsupported(const kn_node *root)
{
    int residual, channels;
    KN_TRY(kn_node_bool_or(root, "is_residual", 0, &residual));
    if (residual)
        return kn_node_fail(KN_ERR_UNSUPPORTED, kn_node_find(root, "is_residual"),
                            "expected false, found true: %s", wan22);
    if (kn_node_has(root, "patch_size"))
        return kn_node_fail(KN_ERR_UNSUPPORTED, kn_node_find(root, "patch_size"),
                            "expected null, found a value: %s", wan22);
    static const char *const keys[] = {"in_channels", "out_channels"};
    for (int i = 0; i < 2; i++) {
        KN_TRY(kn_node_int_or(root, keys[i], 1, MAX_BASE, 3, &channels));
        if (channels != 3)
            return kn_node_fail(KN_ERR_UNSUPPORTED, kn_node_find(root, keys[i]),
                                "expected 3, found %d: %s", channels, wan22);
    }
    const kn_node *scales = kn_node_find(root, "attn_scales");
    if (scales && (scales->kind != KN_NODE_LIST ? !kn_node_is_null(scales) : scales->count > 0))
        return kn_node_fail(
            KN_ERR_UNSUPPORTED, scales,
            "expected an empty list: Kinora runs VAEs whose only attention is in the "
            "middle block");
    return KN_OK;
}

/* temperal_downsample, as diffusers spells it: one truth value per step between levels. */
static kn_status read_temporal(const kn_node *root, kn_vae_config *c)
{
    static const char key[] = "temperal_downsample";
    static const bool usual[3] = {false, true, true};
    const kn_node *list = kn_node_find(root, key);
    if (!list && c->levels == 4) {
        memcpy(c->temporal, usual, sizeof usual);
        return KN_OK;
    }
    if (!list) return kn_node_fail(KN_ERR_MODEL, root, "key '%s' is missing", key);
    if (list->kind != KN_NODE_LIST || list->count != c->levels - 1)
        return kn_node_fail(KN_ERR_MODEL, list, "expected a list of %d, one less than dim_mult has",
                            c->levels - 1);
    for (int i = 0; i < list->count; i++) {
        const char *text = list->item[i].text;
        c->temporal[i] = text && strcmp(text, "true") == 0;
        if (!c->temporal[i] && (!text || strcmp(text, "false") != 0))
            return kn_node_fail(KN_ERR_FORMAT, &list->item[i], "expected true or false");
    }
    return KN_OK;
}

static kn_status read_dims(const kn_node *root, kn_vae_config *c)
{
    static const int usual[4] = {1, 2, 4, 4};
    int base, decoder_base, z;
    KN_TRY(kn_node_int_or(root, "base_dim", 1, MAX_BASE, 96, &base));
    KN_TRY(kn_node_int_or(root, "decoder_base_dim", 1, MAX_BASE, base, &decoder_base));
    KN_TRY(kn_node_int_or(root, "z_dim", 1, KN_VAE_MAX_Z, 16, &z));
    KN_TRY(kn_node_int_or(root, "num_res_blocks", 1, KN_VAE_MAX_RESNETS - 1, 2, &c->resnets));
    c->encoder_base = base;
    c->decoder_base = decoder_base;
    c->z = z;
    c->levels = 4;
    memcpy(c->mult, usual, sizeof usual);
    if (kn_node_has(root, "dim_mult"))
        KN_TRY(
            kn_node_ints(root, "dim_mult", 1, MAX_MULT, 2, KN_VAE_MAX_LEVELS, c->mult, &c->levels));
    /* The decoder halves its channels on each step up. */
    for (int i = 1; i < c->levels; i++)
        if (c->decoder_base * c->mult[i] % 2)
            return kn_node_fail(KN_ERR_MODEL, kn_node_find(root, "dim_mult"),
                                "expected even decoder widths above level 0, found %d x %d",
                                decoder_base, c->mult[i]);
    return read_temporal(root, c);
}

static kn_status read_statistics(const kn_node *root, kn_vae_config *c)
{
    int z = (int)c->z;
    KN_TRY(
        kn_node_doubles(root, "latents_mean", -MAX_STATISTIC, MAX_STATISTIC, z, z, c->mean, NULL));
    return kn_node_doubles(root, "latents_std", 1 / MAX_STATISTIC, MAX_STATISTIC, z, z, c->std,
                           NULL);
}

static void warn_unknown_keys(const kn_node *root)
{
    /* Those after out_channels do not change what is computed: training, or implied by the rest. */
    static const char *const known[] = {"base_dim",
                                        "decoder_base_dim",
                                        "z_dim",
                                        "dim_mult",
                                        "num_res_blocks",
                                        "attn_scales",
                                        "temperal_downsample",
                                        "latents_mean",
                                        "latents_std",
                                        "is_residual",
                                        "patch_size",
                                        "in_channels",
                                        "out_channels",
                                        "dropout",
                                        "scale_factor_temporal",
                                        "scale_factor_spatial",
                                        "clip_output",
                                        NULL};
    for (int i = 0; i < root->count; i++) {
        const char *key = root->item[i].key;
        int k = 0;
        while (known[k] && strcmp(known[k], key) != 0) k++;
        if (!known[k] && key[0] != '_')
            kn_log(KN_LOG_WARN, "vae", "%s: key '%s' is not known and has no effect",
                   kn_config_path(root->config), key);
    }
}

kn_status kn_vae_config_read(const char *path, kn_vae_config *out)
{
    memset(out, 0, sizeof *out);
    kn_config *file;
    KN_TRY(kn_config_open(path, &file));
    const kn_node *root = kn_config_root(file);
    kn_status st = refuse_unsupported(root);
    if (st == KN_OK) st = read_dims(root, out);
    if (st == KN_OK) st = read_statistics(root, out);
    if (st == KN_OK) warn_unknown_keys(root);
    kn_config_close(&file);
    return st;
}
