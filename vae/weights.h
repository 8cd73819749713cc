/* vae/weights.h - the tensors of a Wan VAE, by name and shape.
 *
 * Purpose   Binds diffusers' AutoencoderKLWan checkpoint to the fields that the forward uses.
 * Shapes    Convolutions [Co, Ci, kt, kh, kw]; resample convolutions [Co, Ci, 3, 3]; 1x1
 *           convolutions are opened as linear layers; gamma [C, 1, 1(, 1)].
 * Errors    KN_ERR_MODEL: a tensor is missing, left over or of another shape. KN_ERR_NOMEM.
 * Source    diffusers autoencoder_kl_wan.py.
 */
#ifndef KN_VAE_WEIGHTS_H
#define KN_VAE_WEIGHTS_H

#include "compute/weights.h"
#include "vae/config.h"

typedef struct kn_vae_conv {
    kn_weight weight, bias;
} kn_vae_conv;

/* out = conv2(silu(norm2(conv1(silu(norm1(x)))))) + shortcut(x); shortcut is absent when in = out.
 * */
typedef struct kn_vae_resnet {
    int64_t in, out;
    kn_weight norm1, norm2;
    kn_vae_conv conv1, conv2;
    kn_vae_conv shortcut; /* linear */
} kn_vae_resnet;

/* Between two levels: a 3x3 convolution per frame and, where frames change too, a (3,1,1) one. */
typedef struct kn_vae_resample {
    int64_t in, out;
    bool temporal;
    kn_vae_conv space, time;
} kn_vae_resample;

/* Levels in the order in which data passes them. */
typedef struct kn_vae_level {
    int count;
    kn_vae_resnet resnet[KN_VAE_MAX_RESNETS];
    kn_vae_resample resample; /* after the resnets; the last level has none */
} kn_vae_level;

typedef struct kn_vae_side_weights {
    kn_vae_conv point; /* 1x1x1, linear: post_quant_conv before conv_in, or quant_conv at the end */
    kn_vae_conv conv_in;
    kn_vae_level level[KN_VAE_MAX_LEVELS];
    kn_vae_resnet mid[2];
    kn_weight mid_norm;
    kn_vae_conv mid_qkv, mid_proj; /* linear */
    kn_weight norm_out;
    kn_vae_conv conv_out;
} kn_vae_side_weights;

typedef enum kn_vae_side { KN_VAE_ENCODE, KN_VAE_DECODE, KN_VAE_SIDES } kn_vae_side;

/* Opens the sides that `wanted` has true; the tensors of the others need not be there. */
KN_CHECKED kn_status kn_vae_weights_open(kn_dev *d, kn_safetensors *file, const kn_vae_config *c,
                                         const bool wanted[KN_VAE_SIDES],
                                         kn_vae_side_weights out[KN_VAE_SIDES]);
void kn_vae_weights_close(kn_dev *d, kn_vae_side_weights w[KN_VAE_SIDES]);

#endif
