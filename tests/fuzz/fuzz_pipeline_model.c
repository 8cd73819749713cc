/* Any bytes as one of a model folder's JSON files; the first says which. Dimensions inside their documented
 * ranges come out, or a refusal. */
#include "dit/config.h"
#include "io/log.h"
#include "pipeline/preset.h"
#include "text/umt5.h"
#include "tests/fuzz/fuzz.h"
#include "vae/config.h"

static void check_dit(const kn_dit_config *c)
{
    require(c->layers >= 1 && c->heads >= 1 && c->head_dim >= 2 && c->head_dim % 2 == 0 && c->in_channels >= 1 &&
            c->out_channels >= 1 && c->text_dim >= 1 && c->ffn_dim >= 1 && c->freq_dim >= 2);
    for (int i = 0; i < 3; i++) require(c->patch[i] >= 1 && c->patch[i] <= 16);
    require(kn_dit_width(c) > 0 && kn_dit_patch_elements(c, c->in_channels) > 0);
}

static void check_vae(const kn_vae_config *c)
{
    require(c->levels >= 1 && c->levels <= KN_VAE_MAX_LEVELS && c->z >= 1 && c->z <= KN_VAE_MAX_Z && c->resnets >= 0 &&
            c->resnets <= KN_VAE_MAX_RESNETS);
    for (int i = 0; i < c->z; i++) require(c->std[i] != 0);
    require(kn_vae_spatial_factor(c) >= 1 && kn_vae_temporal_factor(c) >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    kn_dit_config dit;
    kn_vae_config vae;
    kn_umt5_config umt5;
    kn_options o = {0};
    kn_config *config = NULL;
    kn_log_set_level(KN_LOG_ERR); /* unknown keys are warned about */
    const char *path = fuzz_file("in.json", data + 1, size - 1);
    kn_status st = KN_OK;
    switch (data[0] & 3) {
    case 0:
        st = kn_dit_config_read(path, &dit);
        if (st == KN_OK) check_dit(&dit);
        break;
    case 1:
        st = kn_vae_config_read(path, &vae);
        if (st == KN_OK) check_vae(&vae);
        break;
    case 2:
        st = kn_umt5_config_read(path, &umt5);
        if (st == KN_OK) require(umt5.d_model >= 1 && umt5.num_layers >= 1 && kn_umt5_bucket(&umt5, -5) >= 0);
        break;
    default: /* kinora.json */
        st = kn_options_init(&o);
        if (st == KN_OK) st = kn_config_open(path, &config);
        if (st == KN_OK) st = kn_options_apply(kn_config_root(config), &o, KN_FROM_MODEL);
        kn_config_close(&config);
        kn_options_free(&o);
    }
    if (st != KN_OK) require_blamed(st);
    return 0;
}
