/* pipeline/debug.h - --debug-dir: what happened inside a run, in files.
 *
 * Purpose   A wrong frame is found by looking at the steps that made it. Under the folder:
 *             PASS/step_NNN.safetensors  latents before the step, and `denoised`, what the network took
 *                                        them for there (latents - sigma velocity)
 *             PASS/step_NNN.png          first, middle and last latent frame of `denoised`, decoded alone
 *             PASS/attention_*.png       pipeline/attention_map.h, of the middle layer: once for a plan that
 *                                        does not change, else at the first, middle and last step
 *             contact_sheet.png          the run at a glance
 *             run.json                   per pass, step, branch and layer: density, attention-mass recall
 *                                        (attention/recall.h), seconds
 *             trace.json                 the same as a timeline, Chrome trace format (chrome://tracing,
 *                                        ui.perfetto.dev)
 * Cost      Off: one comparison with NULL per forward. On: the files, and for each sparse layer SAMPLES
 *           queries against all keys; a device is waited for at each layer. Seconds leave that out.
 * Memory    Host: one latent, and on a GPU one layer's queries and keys. Previews: the VAE with one
 *           latent frame, which the decode phase needs too.
 * Errors    KN_ERR_IO and those of the parts; the run ends with it.
 */
#ifndef KN_PIPELINE_DEBUG_H
#define KN_PIPELINE_DEBUG_H

#include "dit/dit.h"

typedef struct kn_debug kn_debug;

/* Makes the folder; one that exists must be empty or an earlier run's (it has a run.json). */
KN_CHECKED kn_status kn_debug_open(const char *folder, kn_debug **out);
void kn_debug_close(kn_debug **debug);
/* Writes run.json, trace.json and contact_sheet.png. Text that describes the run is the caller's. */
KN_CHECKED kn_status kn_debug_finish(kn_debug *debug, const char *title);

/* Something that began at start_sec (kn_now_sec) and ends now. debug may be NULL. */
void kn_debug_span(kn_debug *debug, const char *category, const char *name, double start_sec);

/* Memory of a phase that is over, to run.json and trace.json. debug may be NULL. */
struct kn_phase_memory;
void kn_debug_memory(kn_debug *debug, const struct kn_phase_memory *memory);

typedef struct kn_debug_pass {
    const char *name;      /* "denoise", "refine 1": blanks become _ in names of folders */
    const char *attention; /* for people */
    int begin, steps;      /* of the schedule: steps begin + 1 .. steps are run */
    int layers;
    double softmax_scale;
} kn_debug_pass;
KN_CHECKED kn_status kn_debug_pass_begin(kn_debug *debug, const kn_debug_pass *pass);

/* Before a forward: looks at it through its tap and its plan_fn. branch: "prompt", "negative", "full", "full, negative".
 * step counts from 1. args must outlive the forward. */
KN_CHECKED kn_status kn_debug_forward(kn_debug *debug, kn_dev *d, const char *branch, int step, kn_dit_args *args);
void kn_debug_forward_end(kn_debug *debug);

/* Before the solver's step: latents and the guided velocity at sigma. */
KN_CHECKED kn_status kn_debug_step(kn_debug *debug, kn_dev *d, double sigma, const kn_tensor *latents,
                                   const kn_tensor *velocity);
/* After it. */
void kn_debug_step_end(kn_debug *debug);

/* Decodes one latent frame [C,1,H,W] to rgb [height, width, 3] in [0,1], which it allocates. */
typedef kn_status kn_debug_decode_fn(void *user, const kn_tensor *latent, float **rgb, int *width_px, int *height_px);
/* Previews of the pass's steps. */
KN_CHECKED kn_status kn_debug_pass_end(kn_debug *debug, kn_debug_decode_fn *decode, void *user);

#endif
