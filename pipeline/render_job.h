/* pipeline/render_job.h - one render in its parts: prepare, begin, run, close; and the phases of a run.
 *
 * Internal to pipeline/: render.c runs one job, batch.c drives the parts over many. A kn_job starts as
 * {.o, .session, .fn, .user}, all borrowed. */
#ifndef KN_PIPELINE_RENDER_JOB_H
#define KN_PIPELINE_RENDER_JOB_H

#include "dit/config.h"
#include "io/video.h"
#include "pipeline/checkpoint.h"
#include "pipeline/clip.h"
#include "pipeline/debug.h"
#include "pipeline/geometry.h"
#include "pipeline/highres.h"
#include "pipeline/model_folder.h"
#include "pipeline/progress.h"
#include "pipeline/render.h"
#include "pipeline/session.h"
#include "vae/vae_stream.h"

enum { KN_PROMPT, KN_NEGATIVE, KN_PROMPTS };

/* A finished frame [height,width,3] in [0,1], in time order. Not KN_OK: the job ends with it. */
typedef kn_status kn_frame_fn(void *user, const float *rgb, int width_px, int height_px, int64_t index);

typedef struct kn_job {
    kn_options *o;
    kn_event_fn *fn;
    void *user;
    kn_model_folder folder;
    kn_dit_config dit;
    kn_clip clip;         /* path NULL: none, the base pass makes the clip */
    kn_segments segments; /* one of all frames where there is no clip */
    int64_t segment;      /* in work */
    kn_pass pass[KN_PASSES_MAX]; /* base pass, then refine stages */
    int passes;
    kn_geometry geo;  /* of the last pass: what is decoded and written */
    kn_session *session;
    kn_job_identity id;
    char *checkpoint; /* its path */
    int first;        /* pass to run first; = passes: the finished latents are there */
    bool resumed;     /* the latents of pass `first - 1`, or the state of `first`, are in the checkpoint */
    bool midway;      /* the latter */
    double preview_due_sec;
    bool preview_off;
    kn_frame_fn *frame; /* NULL: nobody takes frames */
    void *frame_user;
    bool makes_folders; /* set by the caller, who makes missing folders of the outputs before kn_job_begin */
    bool guided;      /* a pass evaluates the network for the negative prompt too */
    size_t budget_bytes; /* device memory that may be used; 0 = not known */
    size_t vae_budget_bytes; /* what the VAE's tiles are chosen for: the same, or less of an offloading device */
    float *embeds[KN_PROMPTS]; /* host [T, text_dim]; the second only when guided */
    float *latents;   /* host [C,F,H,W], normalised as the transformer sees them: result of a pass, or what
                         the next one starts from */
    size_t peak_bytes[KN_NETWORKS]; /* planned, of the phases that use the network */
    kn_phase_memory phase[KN_PHASES_MAX];
    int phases;
    struct kn_stage_search *search; /* [KN_PASSES_MAX], of `kinora search-windows`; NULL: a render */
    const char *search_path;        /* where its result will go */
    kn_debug *debug;  /* --debug-dir; NULL: off */
    double sec[3];    /* text, all passes, decode */
    double pass_sec[KN_PASSES_MAX];
    double part_sec[KN_PARTS];
} kn_job;

/* Everything that can be checked about options, model folder and outputs. Writes nothing, needs no
 * device. */
KN_CHECKED kn_status kn_job_prepare(kn_job *j);
/* Opens the device, looks for a checkpoint, draws a seed where none is given, plans memory; tells the listener. */
KN_CHECKED kn_status kn_job_begin(kn_job *j);
/* The phases. Text is left out when the embeddings are there already. */
KN_CHECKED kn_status kn_job_run(kn_job *j);
void kn_job_close(kn_job *j);

/* The first pass that any segment still has to run; `passes` when none has. */
int kn_job_first_pass(const kn_job *j);
/* True when frames go anywhere. */
bool kn_job_wants_frames(const kn_job *j);
/* True when the passes are run: for frames, latents or a search. */
bool kn_job_wants_latents(const kn_job *j);

/* One line for the listener. */
void kn_job_note(kn_job *j, const char *fmt, ...) KN_PRINTF(2, 3);

/* The frame rate to write: of the clip, or --fps. */
void kn_job_rate(const kn_job *j, int *num, int *den);

/* Prompt and negative prompt to j->embeds (or from --embeds-in); writes --embeds-out. */
KN_CHECKED kn_status kn_job_text(kn_job *j);
/* Of a clip in several segments: denoise each, leaving its latents in a file beside the output. */
KN_CHECKED kn_status kn_job_segments(kn_job *j);
/* With --resume: the first segment whose latents are not there. The seed is that of those that are. */
KN_CHECKED kn_status kn_job_segments_find(kn_job *j);
KN_CHECKED kn_status kn_job_segment_path(const kn_job *j, int64_t segment, char **path);
void kn_job_segments_remove(const kn_job *j);
/* Latents of a finished pass from a checkpoint to j->latents. */
KN_CHECKED kn_status kn_job_load(kn_job *j, const char *path, int pass);
/* That the files of --noise-in and --latents-in hold what the passes will read, before any weights are. */
KN_CHECKED kn_status kn_job_check_given(const kn_job *j);
/* Noise to j->latents through all passes, with checkpoints; or from --latents-in. Writes --latents-out. */
KN_CHECKED kn_status kn_job_denoise(kn_job *j);
/* The result of pass - 1 in j->latents, or the clip, brought to the size of `pass`. */
KN_CHECKED kn_status kn_job_upscale(kn_job *j, int pass);
/* Pictures of the pass's steps into --debug-dir. */
KN_CHECKED kn_status kn_job_previews(kn_job *j, int pass);
bool kn_job_wants_previews(const kn_job *j);
/* Does --preview name a WebP picture? And how it is written. */
bool kn_job_preview_is_webp(const char *path);
void kn_job_preview_webp(const char *path, int width_px, int height_px, kn_video_writer_params *p);
/* --preview and --preview-terminal, when due: the clean clip that latents x and velocity v at noise level sigma point to,
 * x - sigma v, middle frame. What goes wrong is a note and ends the previews, not the job. */
void kn_job_live_preview(kn_job *j, const kn_pass *p, const kn_tensor *latents, const kn_tensor *velocity, double sigma);
/* j->latents to video, PNG frames and contact sheet; writes the sidecar. */
KN_CHECKED kn_status kn_job_decode(kn_job *j);

/* Around a phase that has memory planned under that name: what it takes, to j->phase. */
void kn_job_phase_begin(kn_job *j);
void kn_job_phase_end(kn_job *j, const char *name);

/* The same allocations as the phase makes, in a session on a measure device: its peak is the phase's. */
KN_CHECKED kn_status kn_job_text_measure(kn_job *j, int pass, kn_session *measure);
KN_CHECKED kn_status kn_job_upscale_measure(kn_job *j, int pass, kn_session *measure);
KN_CHECKED kn_status kn_job_denoise_measure(kn_job *j, int pass, kn_session *measure);
KN_CHECKED kn_status kn_job_decode_measure(kn_job *j, int pass, kn_session *measure);

/* How the VAE's frames of that size are cut, by --vae-tile or the budget. */
kn_vae_stream_params kn_job_vae_params(const kn_job *j, const kn_geometry *g, size_t budget_bytes);
/* Counts what a stream would take on vae's device, a measure device. */
KN_CHECKED kn_status kn_job_vae_measure(const kn_vae *vae, kn_vae_side side, const kn_vae_stream_params *p);
/* The session's VAE; KN_ERR_MODEL when its latents are not the transformer's. */
KN_CHECKED kn_status kn_job_vae_open(const kn_job *j, kn_session *session, bool encode, kn_vae **out);

/* A float tensor of known shape from a safetensors file, converted to f32; caller frees with kn_free. */
KN_CHECKED kn_status kn_job_read_tensor(const char *path, const char *name, int rank, const int64_t *dims, float **out);
/* Whether it could be read, by the file's header. */
KN_CHECKED kn_status kn_job_check_tensor(const char *path, const char *name, int rank, const int64_t *dims);

#endif
