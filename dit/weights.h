/* dit/weights.h - the tensors of a Wan diffusion transformer: names, shapes, and where each goes.
 *
 * Purpose   One table states every tensor once, under both of its published names; binding,
 *           closing and the tests walk it.
 * Names     diffusers  WanTransformer3DModel:  blocks.0.attn1.to_q.weight
 *           original   Wan's own repositories: blocks.0.self_attn.q.weight; in repacked single
 *                      files with the prefix "model.diffusion_model."
 *           The norms swap numbers: the affine one before cross-attention is diffusers' norm2 and
 *           the original's norm3.
 * Source    diffusers scripts/convert_wan_to_diffusers.py; Wan2.1 wan/modules/model.py.
 */
#ifndef KN_DIT_WEIGHTS_H
#define KN_DIT_WEIGHTS_H

#include "compute/offload.h"
#include "compute/weights.h"
#include "dit/config.h"

typedef struct kn_dit_linear {
    kn_weight weight, bias; /* [N, K], [N] */
} kn_dit_linear;

typedef struct kn_dit_attention {
    kn_dit_linear q, k, v, out; /* [d, d] */
    kn_weight norm_q, norm_k;   /* [d]: RMS over the whole width, not per head */
} kn_dit_attention;

typedef struct kn_dit_block {
    kn_weight modulation; /* [1, 6, d]: shift, scale, gate of self-attention; the same of the ffn */
    kn_dit_attention self, cross;
    kn_dit_linear norm; /* [d], [d]: LayerNorm before cross-attention; absent without it */
    kn_dit_linear up, down;
} kn_dit_block;

typedef struct kn_dit_weights {
    kn_dit_linear patch; /* [d, C pt ph pw] */
    kn_dit_linear text_1, text_2;
    kn_dit_linear time_1, time_2, time_proj; /* time_proj [6 d, d] */
    kn_dit_linear head;                      /* [pt ph pw C_out, d] */
    kn_weight head_modulation;               /* [1, 2, d]: shift, scale */
    kn_dit_block *blocks;
    int layers;
    kn_offload *offload; /* of the blocks but their modulation; NULL: all on the device */
} kn_dit_weights;

typedef enum kn_dit_naming { KN_DIT_DIFFUSERS, KN_DIT_ORIGINAL } kn_dit_naming;

/* One tensor of the network. */
typedef struct kn_dit_slot {
    char name[96]; /* without prefix */
    kn_weight_kind kind;
    int rank;
    int64_t dims[5]; /* as stored */
    int block;       /* -1: not of a block */
    size_t offset;   /* of the kn_weight in kn_dit_weights or kn_dit_block */
} kn_dit_slot;

/* Number of tensors: 825 for Wan 2.1 T2V-1.3B, 1095 for 14B. */
int kn_dit_slot_count(const kn_dit_config *c);
/* The i-th of them. */
kn_dit_slot kn_dit_slot_at(const kn_dit_config *c, kn_dit_naming naming, int i);

/* Which names a file uses; *prefix is "" or "model.diffusion_model.". KN_ERR_MODEL if neither;
 * KN_ERR_UNSUPPORTED for an image-conditioned network. */
KN_CHECKED kn_status kn_dit_naming_detect(const kn_safetensors *file, kn_dit_naming *naming,
                                          const char **prefix);

/* Open every tensor of the network on the device; each tensor of the file must be used. */
KN_CHECKED kn_status kn_dit_weights_open(kn_dev *d, kn_safetensors *file, const kn_dit_config *c,
                                         kn_dit_weights *out);
/* NULL-safe on a zeroed struct; zeroes it. */
void kn_dit_weights_close(kn_dev *d, kn_dit_weights *w);

#endif
