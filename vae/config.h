/* vae/config.h - the dimensions of a Wan VAE, from its config.json.
 *
 * Purpose   Reads what diffusers writes for AutoencoderKLWan and refuses, by name, what Kinora does
 *           not compute.
 * Letters   Level k of 0 .. levels-1 works on frames of 1/2^k of the pixels (encoder) and has
 *           base * mult[k] channels; the decoder walks the same levels backwards.
 * Errors    KN_ERR_IO, KN_ERR_FORMAT. KN_ERR_UNSUPPORTED: the Wan 2.2 VAE (is_residual, patch_size,
 *           12 image channels) or attention outside the middle block.
 * Source    diffusers autoencoder_kl_wan.py AutoencoderKLWan.__init__; Wan2.1 wan/modules/vae.py.
 */
#ifndef KN_VAE_CONFIG_H
#define KN_VAE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "io/status.h"

enum { KN_VAE_MAX_LEVELS = 6, KN_VAE_MAX_RESNETS = 8, KN_VAE_MAX_Z = 64 };

typedef struct kn_vae_config {
    int64_t encoder_base, decoder_base; /* channels of level 0 per unit of mult */
    int64_t z;                          /* C of the latents */
    int levels;
    int mult[KN_VAE_MAX_LEVELS];
    bool temporal[KN_VAE_MAX_LEVELS]; /* halve the frames too between levels k and k+1 */
    int resnets;                      /* per encoder level; one more per decoder level */
    double mean[KN_VAE_MAX_Z], std[KN_VAE_MAX_Z]; /* normalised latent = (mu - mean) / std */
} kn_vae_config;

/* Pixels per latent along height and width; frames per latent frame after the first. */
int kn_vae_spatial_factor(const kn_vae_config *c);
int kn_vae_temporal_factor(const kn_vae_config *c);

/* path: config.json. */
KN_CHECKED kn_status kn_vae_config_read(const char *path, kn_vae_config *out);

#endif
