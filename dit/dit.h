/* dit/dit.h - the Wan diffusion transformer.
 *
 * Purpose   One evaluation of the network: latents, a noise level and a prompt in, velocity out.
 * Shapes    latents [C,F,H,W] and velocity [C_out,F,H,W] f32; F, H, W multiples of the patch.
 *           L = F h w tokens of width d, in the order that the kn_dit_rope was built with.
 * Precision Activations f32 on ref and cpu, bf16 on cuda; f32 for the time embedding, modulation,
 *           norms, softmax, latents and velocity, as in the reference.
 * Cost      per block 8 L d^2 (self-attention projections) + 4 L^2 d + 4 L d^2 (cross-attention) +
 *           4 L T d + 4 L d ffn operations.
 * Memory    weights; per prompt 2 T d per layer; per call the scratch of kn_dit_scratch_bytes:
 *           5 L d activations, and the feed-forward's hidden rows where they are more than 3 L d:
 *           they lie in the place of q, k and v. Self-attention in 8 bits has its bytes in those buffers too (beside
 *           them with attn_fn). Stored
 *           cross-attention contexts: see contexts.h. On a device that offloads: two blocks of
 *           weights on it, all of them in host memory.
 * Errors    KN_ERR_ARG, KN_ERR_MODEL, KN_ERR_UNSUPPORTED, KN_ERR_IO, KN_ERR_NOMEM, KN_ERR_DEVICE.
 * Threads   The device's thread. Results do not depend on the device's thread count.
 * Source    Wan, arXiv 2503.20314; diffusers transformer_wan.py; Wan2.1 wan/modules/model.py.
 */
#ifndef KN_DIT_DIT_H
#define KN_DIT_DIT_H

#include "attention/attention.h"
#include "compute/record.h"
#include "dit/config.h"
#include "dit/contexts.h"
#include "dit/rope.h"

typedef struct kn_dit kn_dit;
typedef struct kn_dit_context kn_dit_context;

/* ---- taps -------------------------------------------------------------------------------------
 * Called with intermediate tensors as they are made, for tests and for finding a wrong operation.
 * t is in device memory and valid during the call only. Not KN_OK: the forward ends with it.
 */
typedef kn_status kn_dit_tap_fn(void *user, const char *name, const kn_tensor *t);
typedef struct kn_dit_tap {
    kn_dit_tap_fn *fn; /* NULL = off */
    void *user;
} kn_dit_tap;

/* ---- model ------------------------------------------------------------------------------------*/
/* path: a folder with config.json and diffusion_pytorch_model.safetensors (or its shards), as
 * diffusers or Wan's own repositories have it, or a single .safetensors file. On the measure device
 * only names, shapes and sizes are read. */
KN_CHECKED kn_status kn_dit_open(kn_dev *d, const char *path, kn_dit **out);
void kn_dit_close(kn_dit **m);
const kn_dit_config *kn_dit_get_config(const kn_dit *m);

/* Token grid of F x H x W latents, on the model's device. KN_ERR_ARG when a side is no multiple of
 * the patch. order: as kn_dit_rope_open_grid. Close with kn_dit_rope_close. */
KN_CHECKED kn_status kn_dit_rope_open(const kn_dit *m, int64_t frames_lat, int64_t height_lat,
                                      int64_t width_lat, const int32_t *order, kn_dit_rope *out);
/* The same with the positions of each axis scaled; NULL: 1. */
KN_CHECKED kn_status kn_dit_rope_open_scaled(const kn_dit *m, const int64_t latents[3],
                                             const double scale[3], const int32_t *order,
                                             kn_dit_rope *out);

/* ---- prompt -----------------------------------------------------------------------------------
 * What every step needs of a prompt and no timestep changes: each block's cross-attention keys and
 * values. embeds: [T, text_dim] f32 in device memory, rows past the prompt's end zero; not kept.
 * Taps: "text". The model must outlive the context.
 */
KN_CHECKED kn_status kn_dit_context_open(const kn_dit *m, const kn_tensor *embeds,
                                         const kn_dit_tap *tap, kn_dit_context **out);
void kn_dit_context_close(kn_dit_context **c);

/* ---- forward ----------------------------------------------------------------------------------
 * Cross-attention override: one forward stores each block's cross-attention context (the heads'
 * output before the output projection), another uses those instead of its own. FreeSwim lets a
 * branch with full self-attention steer one whose self-attention sees a window
 * (nocache/attention_processor_.py).
 */
typedef enum kn_dit_cross {
    KN_DIT_CROSS_OWN,
    KN_DIT_CROSS_STORE, /* as OWN, and writes contexts */
    KN_DIT_CROSS_USE    /* reads contexts; queries and attention are not computed */
} kn_dit_cross;

/* Asked at each block for the plan of its self-attention, with its queries and keys after RoPE,
 * [L,N,D] in device memory in the order of args->rope; NULL with int8, whose plans do not depend on them, unless
 * there is a tap. *plan NULL: dense. The plan must stay valid until the next call. */
typedef kn_status kn_dit_plan_fn(void *user, int block, const kn_tensor *q, const kn_tensor *k,
                                 const kn_attn_plan **plan);

/* Called after each block's self-attention with its arguments: queries and keys after RoPE, values, and
 * what came out of each head, before the output projection. Valid during the call. */
typedef kn_status kn_dit_attn_fn(void *user, int block, const kn_attn_args *attn);

enum { KN_DIT_FFN_IN_PLACE = -1 };

typedef struct kn_dit_args {
    const kn_dit_context *context;
    const kn_dit_rope *rope;  /* token grid; its sides times the patch are F, H, W */
    kn_tensor latents;        /* [C,F,H,W] f32 */
    double timestep;          /* 1000 sigma, see pipeline/schedule.h */
    kn_tensor velocity;       /* out: [C_out,F,H,W] f32; may be latents if C = C_out */
    kn_arena *scratch;        /* kn_dit_scratch_bytes; left as found */
    kn_records *records;      /* a small forward that comes again with the same args but for `timestep` is
                                 recorded in it. What args point to must outlive it. NULL: launched each time */
    const kn_attn_plan *plan; /* self-attention of all blocks; NULL = dense */
    kn_dit_plan_fn *plan_fn;  /* not NULL: asked instead of `plan`; never when measuring, which counts for
                                 `plan` and for dense */
    void *plan_user;
    int plans;                /* of plan_fn: a number of the plans that it will give, the same at each call with
                                 that number; 0: not known before */
    kn_dit_attn_fn *attn_fn;  /* NULL = off; not called when measuring, where it counts all the same */
    void *attn_user;
    double softmax_scale;     /* of self-attention; 0 = 1/sqrt(D). A plan's own scale wins */
    bool f8;                  /* the blocks' linear layers with both factors in e4m3 (kn_linear_f8) */
    bool int8;                /* self-attention with 8-bit products (attention/attention.h) */
    double skip_below;        /* of self-attention, as there; 0 = nothing is skipped */
    int64_t ffn_rows;         /* tokens that the feed-forward takes at a time; 0 = all, in even
                                 pieces of at most 32768, which cost no speed;
                                 KN_DIT_FFN_IN_PLACE = as many as need no memory of their own */
    kn_dit_cross cross;
    kn_dit_contexts *contexts; /* of kn_dit_contexts_open; not for OWN. NULL: the same when measuring */
    int context_set;
    int cross_blocks[2];      /* first block, and one past the last, that store or use; the others are
                                 OWN. Both 0: all */
    bool contexts_only;       /* STORE: stop at the last context. velocity is not written and may be
                                 absent */
    /* patch_embed temb timestep_proj; per block blocks.N. attn1.q attn1.k attn1 attn2 ffn (when
     * it is taken in one piece) out; norm_out output */
    kn_dit_tap tap;
} kn_dit_args;

KN_CHECKED kn_status kn_dit_forward(const kn_dit *m, const kn_dit_args *args);

/* Contexts of a token grid, for `sets` prompts, of blocks as kn_dit_args.cross_blocks has them; close with
 * kn_dit_contexts_close. */
KN_CHECKED kn_status kn_dit_contexts_open(const kn_dit *m, const kn_dit_rope *rope,
                                          kn_dit_place place, const int blocks[2], int sets,
                                          kn_dit_contexts **out);

/* Bytes of scratch that kn_dit_forward takes with these args: runs it on the measure device. No
 * data is read: args->scratch and all data pointers may be NULL. */
KN_CHECKED kn_status kn_dit_scratch_bytes(const kn_dit *m, const kn_dit_args *args, size_t *bytes);

#endif
