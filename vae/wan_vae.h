/* vae/wan_vae.h - the causal 3D VAE of Wan 2.1: the network itself.
 *
 * Purpose   Video to latents and back, a few frames at a time. Each causal convolution keeps the
 *           last two frames of its input, so that a clip fed in pieces of any length gives what the
 *           whole clip at once would give. Programs use vae/vae_stream.h, which feeds it, cuts
 *           frames that do not fit in memory and hands out finished frames.
 * Shapes    Channels last, [T,H,W,C], dense. Latents [T,H,W,z], pixels [T,8H,8W,3] in -1 .. 1.
 * Precision Activations f32 on ref and cpu, bf16 on cuda; norms and softmax accumulate in f32.
 * Cost      Decoding Wan's VAE: 8.5e6 operations per output pixel and frame (1080p, 81 frames:
 *           1.4e15).
 * Errors    KN_ERR_ARG, KN_ERR_MODEL, KN_ERR_UNSUPPORTED, KN_ERR_IO, KN_ERR_NOMEM, KN_ERR_DEVICE.
 * Threads   The device's thread. Results do not depend on the device's thread count.
 * Source    diffusers autoencoder_kl_wan.py; Wan2.1 wan/modules/vae.py; Wan, arXiv 2503.20314.
 */
#ifndef KN_VAE_WAN_VAE_H
#define KN_VAE_WAN_VAE_H

#include "attention/attention.h"
#include "vae/config.h"
#include "vae/weights.h"

typedef struct kn_vae kn_vae;
typedef struct kn_vae_part kn_vae_part;

/* ---- taps -------------------------------------------------------------------------------------
 * Called with intermediate tensors [T,H,W,C] as they are made, under diffusers' module names, for
 * tests and for finding a wrong operation. t is in device memory, valid during the call only. Not
 * KN_OK: the run ends with it.
 */
typedef kn_status kn_vae_tap_fn(void *user, const char *name, const kn_tensor *t);
typedef struct kn_vae_tap {
    kn_vae_tap_fn *fn; /* NULL = off */
    void *user;
} kn_vae_tap;

/* ---- model ------------------------------------------------------------------------------------*/
/* folder: config.json and diffusion_pytorch_model.safetensors (or its shards), as diffusers writes
 * them. A side that is not asked for takes no memory. On the measure device only names, shapes and
 * sizes are read. */
KN_CHECKED kn_status kn_vae_open(kn_dev *d, const char *folder, bool encode, bool decode,
                                 kn_vae **out);
void kn_vae_close(kn_vae **m);
const kn_vae_config *kn_vae_get_config(const kn_vae *m);
kn_dev *kn_vae_dev(const kn_vae *m);

/* ---- parts ------------------------------------------------------------------------------------
 * One side, or a run of its levels, with the past frames of its convolutions. A side in two parts
 * computes the same as in one; frames are then cut in the part with the large tensors (for the
 * decoder the second, for the encoder the first).
 *
 *   decode  post_quant_conv conv_in middle | level 0 .. | norm_out conv_out
 *           part [0,e): to the time convolution of level e-1
 *           part [f,levels): from the nearest-neighbour upsampling of level f-1
 *   encode  conv_in | level 0 .. | middle norm_out conv_out quant_conv
 *           part [0,e): to the strided convolution of level e-1
 *           part [f,levels): from the time convolution of level f-1
 */
typedef struct kn_vae_frames {
    kn_tensor plain; /* [T,H,W,C]: the first frames */
    kn_tensor pairs; /* [T',H,W,2C]: the rest, two frames side by side in C; rank 0: none */
} kn_vae_frames;

/* Memory for past frames is taken from `state` during the first runs. d: the model's device, or a
 * measure device of its kind. state must outlive the part. */
KN_CHECKED kn_status kn_vae_part_open(const kn_vae *m, kn_dev *d, kn_vae_side side, int first,
                                      int end, kn_arena *state, const kn_vae_tap *tap,
                                      kn_vae_part **out);
void kn_vae_part_close(kn_vae_part **p);

/* Frames that must lie free in memory before in.plain: the run keeps its past there. */
int kn_vae_part_room(const kn_vae_part *p);
/* Run on the next frames. in: f32 latents (decode, not normalised) or pixels for a part from 0,
 * else what the part before gave; not kept, but an encoder part from f > 0 overwrites it. Frames:
 * decode any T >= 1. Encode 1 + m factor first and m factor later, with the temporal factor of the
 * levels ahead. out: in scratch, above its mark at entry: pixels [T,8H,8W,3], moments [T,H,W,2z]
 * (mu, then log variance), or the frames for the next part. The caller resets scratch. */
KN_CHECKED kn_status kn_vae_part_run(kn_vae_part *p, const kn_vae_frames *in, kn_arena *scratch,
                                     kn_vae_frames *out);
/* The next run is the clip's last: no past is kept for another. */
void kn_vae_part_last(kn_vae_part *p);
/* Elements of the largest tensor so far; some GPU kernels need less than 2^31. */
int64_t kn_vae_part_largest(const kn_vae_part *p);

/* Input pixels (at the part's input resolution) on each side of a region that its output can depend
 * on; only for parts without the middle block, whose attention sees whole frames. */
int kn_vae_part_reach(const kn_vae_config *c, kn_vae_side side, int first, int end);

#endif
