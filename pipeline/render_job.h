/* pipeline/render_job.h - what the phases of one render share. Internal to pipeline/render*.c. */
#ifndef KN_PIPELINE_RENDER_JOB_H
#define KN_PIPELINE_RENDER_JOB_H

#include "dit/config.h"
#include "pipeline/checkpoint.h"
#include "pipeline/geometry.h"
#include "pipeline/model_folder.h"
#include "pipeline/progress.h"

enum { KN_PROMPT, KN_NEGATIVE, KN_PROMPTS };

typedef struct kn_job {
    kn_options *o;
    kn_event_fn *fn;
    void *user;
    kn_model_folder folder;
    kn_dit_config dit;
    kn_geometry geo;
    kn_dev *dev;
    kn_job_identity id;
    char *checkpoint; /* its path */
    bool denoised;    /* a checkpoint holds the finished latents, or --latents-in gives them */
    bool resumed;
    bool guided;      /* two network calls a step */
    size_t budget_bytes; /* device memory that may be used; 0 = not known */
    float *embeds[KN_PROMPTS]; /* host [T, text_dim]; the second only when guided */
    float *latents;   /* host [C,F,H,W], clean, normalised as the transformer sees them */
    double sec[3];    /* text, denoise, decode */
} kn_job;

/* One line for the listener. */
void kn_job_note(kn_job *j, const char *fmt, ...) KN_PRINTF(2, 3);

/* Prompt and negative prompt to j->embeds (or from --embeds-in); writes --embeds-out. */
KN_CHECKED kn_status kn_job_text(kn_job *j);
/* Noise to j->latents through the sampler, with checkpoints; or from --latents-in. Writes --latents-out. */
KN_CHECKED kn_status kn_job_denoise(kn_job *j);
/* j->latents to video, PNG frames and contact sheet; writes the sidecar. */
KN_CHECKED kn_status kn_job_decode(kn_job *j);

/* The same allocations as the phase makes, on a measure device: its peak is the phase's. */
KN_CHECKED kn_status kn_job_text_measure(kn_job *j, kn_dev *measure);
KN_CHECKED kn_status kn_job_denoise_measure(kn_job *j, kn_dev *measure);
KN_CHECKED kn_status kn_job_decode_measure(kn_job *j, kn_dev *measure);

/* A float tensor of known shape from a safetensors file, converted to f32; caller frees with kn_free. */
KN_CHECKED kn_status kn_job_read_tensor(const char *path, const char *name, int rank, const int64_t *dims, float **out);

#endif
