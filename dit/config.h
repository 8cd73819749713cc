/* dit/config.h - the dimensions of a Wan diffusion transformer, from its checkpoint.
 *
 * Purpose   Reads config.json as diffusers writes it (WanTransformer3DModel) or as Wan's own
 *           repositories do (WanModel), or, without a config.json (single files as Comfy-Org packs
 *           them), takes the dimensions from the shapes of the tensors.
 * Letters   d = heads * head_dim; the rest as in compute/tensor.h.
 * Errors    KN_ERR_FORMAT: a key is missing or out of range. KN_ERR_MODEL: dimensions do not fit
 *           each other. KN_ERR_UNSUPPORTED: the network has parts that Kinora does not compute
 *           (image conditioning); the message names the key and value.
 * Source    diffusers transformer_wan.py WanTransformer3DModel.__init__; Wan2.1
 *           wan/modules/model.py WanModel.__init__ (defaults of keys that a config leaves out).
 */
#ifndef KN_DIT_CONFIG_H
#define KN_DIT_CONFIG_H

#include <stdbool.h>

#include "io/safetensors.h"

typedef struct kn_dit_config {
    int layers;
    int heads, head_dim;        /* N, D; D is even */
    int64_t in_channels;        /* C of the latents given to the network */
    int64_t out_channels;       /* C of the velocity */
    int64_t text_dim, freq_dim; /* widths of the text embeddings and of the time sinusoid */
    int64_t ffn_dim;
    int patch[3]; /* t, h, w */
    int rope_max_positions;
    bool cross_attn_norm; /* a LayerNorm before cross-attention */
    double eps;
} kn_dit_config;

/* d */
int64_t kn_dit_width(const kn_dit_config *c);
/* Elements of one patch of `channels` channels. */
int64_t kn_dit_patch_elements(const kn_dit_config *c, int64_t channels);

/* path: config.json. */
KN_CHECKED kn_status kn_dit_config_read(const char *path, kn_dit_config *out);
/* From tensor shapes; file must use the original names, with `prefix` before each. Heads are 128
 * wide in every Wan model, which no shape tells. */
KN_CHECKED kn_status kn_dit_config_infer(const kn_safetensors *file, const char *prefix,
                                         kn_dit_config *out);

#endif
