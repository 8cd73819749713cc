/* pipeline/render_denoise.c - the passes: noise, transformer, sampler, checkpoints. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "io/log.h"
#include "io/memory.h"
#include "io/safetensors.h"
#include "pipeline/noise.h"
#include "pipeline/pass_attention.h"
#include "pipeline/render_job.h"
#include "pipeline/sampler.h"
#include "pipeline/window_search.h"

/* Device side of one pass; everything is closed in reverse. */
typedef struct denoise {
    kn_job *job;
    const kn_pass *pass;
    kn_session *session; /* the job's, or one on the measure device */
    kn_dev *dev;         /* the session's */
    kn_dit *dit;
    kn_pass_attention attention;
    kn_dit_rope rope, full_rope; /* the second: absent unless full attention has positions of its own */
    kn_dit_context *context[KN_PROMPTS];
    kn_schedule schedule;
    kn_solver *solver;
    kn_arena *arena, *search_arena;
    kn_records *records;
    kn_dual_path dual;
    kn_sampler sampler;
    int saved;      /* the step of the last checkpoint, or the one that this run began with */
    double due_sec; /* when the next is due that comes by itself */
} denoise;

static int number_of(const denoise *x)
{
    return (int)(x->pass - x->job->pass);
}

static kn_checkpoint checkpoint_of(const denoise *x)
{
    return (kn_checkpoint){
        .segment = x->job->segment, .pass = number_of(x), .latents = x->sampler.latents, .refresh = x->dual.latents, .solver = x->solver};
}

/* Written after every step, checkpoints took 0.05 of the 0.7 s of a 480p step on a good disk; on a slow one they would take
 * most of the time. By themselves they take one part in KN_BESIDE_SHARE of it: a run that is killed loses at most that many
 * times what writing one takes, and a step. */
static bool is_due(const denoise *x, int done)
{
    int64_t every = x->job->o->checkpoint_every;
    if (every == KN_CHECKPOINTS_AUTO) return kn_now_sec() >= x->due_sec;
    return every > 0 && done - x->saved >= every;
}

/* Nothing where lists of the step could not be found again: the checkpoint before stays. */
static kn_status save(denoise *x, int done)
{
    kn_job *j = x->job;
    double start = kn_now_sec();
    kn_checkpoint c = checkpoint_of(x);
    if (done < x->schedule.steps && !kn_pass_attention_restartable(&x->attention, done - x->schedule.begin)) return KN_OK;
    x->saved = done;
    KN_TRY(kn_checkpoint_save(j->checkpoint, x->dev, &j->id, j->o->seed, &c));
    x->due_sec = kn_due_again_sec(start);
    kn_log(KN_LOG_DEBUG, "checkpoint", "%s step %d of %d, %.3f s", x->pass->name, done, x->schedule.steps, kn_now_sec() - start);
    return KN_OK;
}

static kn_status after_step(void *user, int done, int total)
{
    denoise *x = user;
    kn_job_live_preview(x->job, x->pass, &x->sampler.latents, &x->sampler.velocity, x->schedule.sigma[done]);
    return x->job->checkpoint && (done == total || is_due(x, done)) ? save(x, done) : KN_OK;
}

/* Who stops a run keeps all its steps. */
static kn_status save_stopped(denoise *x)
{
    int done = kn_solver_index(x->solver);
    return x->job->checkpoint && x->job->o->checkpoint_every != 0 && done > x->saved ? save(x, done) : KN_OK;
}

/* ---- opening ----------------------------------------------------------------------------------*/

/* Upload the embeddings of one prompt and let the transformer project them. */
static kn_status open_context(denoise *x, int which)
{
    kn_job *j = x->job;
    kn_arena_mark mark = kn_arena_get_mark(x->arena);
    kn_tensor embeds;
    KN_TRY(kn_arena_take(x->arena, &embeds, KN_F32, j->o->text_length_tok, j->dit.text_dim));
    if (j->embeds[which]) KN_TRY(kn_dev_upload(x->dev, j->embeds[which], &embeds)); /* none when measuring */
    KN_TRY(kn_dit_context_open(x->dit, &embeds, NULL, &x->context[which]));
    kn_arena_reset(x->arena, mark);
    return KN_OK;
}

static kn_tensor latents_shape(const kn_pass *pass)
{
    const kn_geometry *g = &pass->geo;
    return kn_tensor_of(NULL, KN_F32, g->channels_lat, g->frames_lat, g->height_lat, g->width_lat);
}

/* Scratch of the largest forward. */
static kn_status scratch_bytes(denoise *x, size_t *bytes)
{
    kn_dit_args args = kn_sampler_args(&x->sampler);
    KN_TRY(kn_dit_scratch_bytes(x->dit, &args, bytes));
    if (!x->sampler.dual) return KN_OK;
    size_t full;
    args = kn_sampler_full_args(&x->sampler);
    KN_TRY(kn_dit_scratch_bytes(x->dit, &args, &full));
    if (full > *bytes) *bytes = full;
    return KN_OK;
}

/* All device tensors of the pass in one arena, and the contexts. */
static kn_status open_arena(denoise *x)
{
    enum { SLACK = 256 }; /* each piece is rounded up */
    kn_tensor latent = latents_shape(x->pass);
    kn_tensor *tensors[4] = {&x->sampler.latents, &x->sampler.velocity};
    int count = 2;
    kn_dual_path *dual = x->sampler.dual ? &x->dual : NULL;
    x->sampler.latents = x->sampler.velocity = x->sampler.velocity_negative = latent;
    if (x->sampler.negative) tensors[count++] = &x->sampler.velocity_negative;
    if (dual && dual->refresh > 1) *(tensors[count++] = &dual->latents) = latent;

    size_t bytes;
    KN_TRY(scratch_bytes(x, &bytes));
    for (int i = 0; i < count; i++) bytes += kn_tensor_bytes(tensors[i]) + SLACK;
    KN_TRY(kn_arena_open(x->dev, bytes, &x->arena));
    for (int i = 0; i < count; i++) {
        kn_tensor shape = *tensors[i];
        KN_TRY(kn_arena_tensor(x->arena, shape.dtype, shape.rank, shape.dim, tensors[i]));
    }
    if (kn_dev_get_kind(x->dev) == KN_DEV_MEASURE) { /* the rest, of the forwards, lies beside all of these */
        kn_tensor rest;
        KN_TRY(kn_arena_take(x->arena, &rest, KN_U8, (int64_t)(bytes - kn_arena_get_mark(x->arena))));
    }
    if (!dual) return KN_OK;
    dual->two = dual->negative_too && x->sampler.negative && dual->refresh > 1; /* else made anew */
    return kn_dit_contexts_open(x->dit, &x->rope, x->pass->context_cache, dual->blocks, 1 + dual->two, &x->dual.contexts);
}

/* Positions of the tokens. Full self-attention may have fitted ones, the window never: it sees no further than
 * the base pass, whose positions the model knows. */
static kn_status open_positions(denoise *x)
{
    const kn_pass *p = x->pass;
    const int64_t latents[3] = {p->geo.frames_lat, p->geo.height_lat, p->geo.width_lat};
    const double *fitted = p->fitted ? p->position_scale : NULL;
    bool all = p->attention == KN_ATTENTION_DENSE;
    KN_TRY(kn_dit_rope_open_scaled(x->dit, latents, all ? fitted : NULL, x->attention.order, &x->rope));
    if (!fitted || all || !(p->dual || p->dense_steps)) return KN_OK;
    return kn_dit_rope_open_scaled(x->dit, latents, fitted, x->attention.order, &x->full_rope);
}

/* Everything that the steps need, on x->dev; the same on the measure device, which reads and computes
 * nothing but counts. */
static kn_status open_all(denoise *x)
{
    kn_job *j = x->job;
    const kn_pass *p = x->pass;
    KN_TRY(kn_pass_schedule(j->o, p, &x->schedule));
    KN_TRY(kn_pass_attention_build(p, &j->dit, x->dev, &x->attention));
    KN_TRY(kn_pass_attention_measure(&x->attention));
    kn_session_spare(x->session, KN_NETWORK_DIT, j->peak_bytes[KN_NETWORK_DIT], j->budget_bytes);
    KN_TRY(kn_session_dit(x->session, &j->folder, &x->dit));
    KN_TRY(open_positions(x));
    KN_TRY(kn_arena_open(x->dev, (size_t)(j->o->text_length_tok * j->dit.text_dim) * sizeof(float) + 256, &x->arena));
    KN_TRY(open_context(x, KN_PROMPT));
    if (p->guidance != 1) KN_TRY(open_context(x, KN_NEGATIVE));
    kn_arena_close(&x->arena);
    x->dual = (kn_dual_path){.refresh = p->refresh,
                             .steps = p->dual_steps,
                             .blocks = {p->dual_layers[0], p->dual_layers[1]},
                             .negative_too = p->dual_negative};
    x->sampler = (kn_sampler){.name = p->name,
                              .dit = x->dit,
                              .rope = &x->rope,
                              .full_rope = x->full_rope.tokens ? &x->full_rope : NULL,
                              .prompt = x->context[KN_PROMPT],
                              .negative = x->context[KN_NEGATIVE],
                              .guidance = p->guidance,
                              .attention = &x->attention,
                              .softmax_scale = p->temperature / sqrt(j->dit.head_dim),
                              .f8 = p->f8,
                              .int8 = p->int8,
                              .skip_below = p->skip_below,
                              .dual = p->dual ? &x->dual : NULL,
                              .ffn_in_place = p->ffn_in_place,
                              .attn_fn = j->search && number_of(x) > 0 ? kn_stage_search_look : NULL,
                              .schedule = &x->schedule,
                              .hook = after_step,
                              .hook_user = x,
                              .debug = x->session == j->session ? j->debug : NULL};
    KN_TRY(open_arena(x));
    x->sampler.scratch = x->arena;
    if (j->o->cuda_graphs && !j->debug) KN_TRY(kn_records_open(x->dev, &x->records));
    x->sampler.records = x->records;
    if (x->sampler.attn_fn) {
        kn_stage_search *search = &j->search[number_of(x)];
        KN_TRY(kn_stage_search_begin(search, x->dev, kn_dev_activation_dtype(x->dev), &j->dit, &x->attention, &x->search_arena));
        x->sampler.attn_user = search;
    }
    KN_TRY(kn_solver_open(x->dev, (kn_solver_kind)j->o->solver, &x->schedule, 4, x->sampler.latents.dim, &x->solver));
    x->sampler.solver = x->solver;
    return KN_OK;
}

static void close_all(denoise *x)
{
    kn_records_close(&x->records);
    kn_solver_close(&x->solver);
    kn_dit_contexts_close(&x->dual.contexts);
    for (int i = 0; i < KN_PROMPTS; i++) kn_dit_context_close(&x->context[i]);
    kn_dit_rope_close(&x->rope);
    kn_dit_rope_close(&x->full_rope);
    kn_pass_attention_free(&x->attention);
    kn_arena_close(&x->arena);
    kn_arena_close(&x->search_arena);
    kn_session_done(x->session, KN_NETWORK_DIT);
}

/* ---- running ----------------------------------------------------------------------------------*/

/* Segments share the noise of the latent frames that they share, so that they make the same of them: each
 * latent frame of the clip has a stream of its own, from the seed, the pass and its place (a mix of
 * splitmix64, Steele et al. 2014). */
static void segment_noise(const denoise *x, float *out)
{
    const kn_job *j = x->job;
    kn_tensor all = latents_shape(x->pass);
    int64_t plane = all.dim[2] * all.dim[3], start = (kn_segment_first(&j->segments, j->segment) + 2) / 4;
    for (int64_t f = 0; f < all.dim[1]; f++) {
        uint64_t h = (uint64_t)j->o->seed + UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)((start + f) * KN_PASSES_MAX + number_of(x));
        h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
        kn_noise gen;
        kn_noise_init(&gen, (h ^ (h >> 31)) & UINT32_MAX); /* all that the generator takes */
        for (int64_t c = 0; c < all.dim[0]; c++) kn_noise_normal(&gen, out + (c * all.dim[1] + f) * plane, plane);
    }
}

enum { NOISE_NAME = 24 };

/* Of a pass's tensor in the file of --noise-in. */
static const char *noise_name(int pass, char name[NOISE_NAME])
{
    if (pass == 0) return "noise";
    snprintf(name, NOISE_NAME, "noise.%d", pass);
    return name;
}

/* Noise of the pass: from a file, or where the stream of the seed stands after the passes before. */
static kn_status make_noise(denoise *x, float **out)
{
    const kn_job *j = x->job;
    int number = number_of(x);
    kn_tensor shape = latents_shape(x->pass);
    char name[NOISE_NAME];
    if (j->o->noise_in) return kn_job_read_tensor(j->o->noise_in, noise_name(number, name), 4, shape.dim, out);
    KN_TRY(kn_alloc(kn_tensor_bytes(&shape), (void **)out));
    if (j->segments.count > 1) {
        segment_noise(x, *out);
        return KN_OK;
    }
    kn_noise gen;
    kn_noise_init(&gen, (uint64_t)j->o->seed);
    for (int i = j->o->input ? 1 : 0; i <= number; i++) { /* sizes never shrink: earlier draws fit */
        shape = latents_shape(&j->pass[i]);
        kn_noise_normal(&gen, *out, kn_tensor_count(&shape));
    }
    return KN_OK;
}

/* The latents to start from: a checkpoint, the noise, or the pass before with noise over it. */
static kn_status fill_latents(denoise *x)
{
    kn_job *j = x->job;
    const kn_tensor *latents = &x->sampler.latents, *noise = &x->sampler.velocity;
    if (j->midway && number_of(x) == j->first) {
        kn_checkpoint c = checkpoint_of(x);
        return kn_checkpoint_load(j->checkpoint, x->dev, &j->id, &c);
    }
    float *values = NULL;
    kn_status st = make_noise(x, &values);
    if (st == KN_OK) st = kn_dev_upload(x->dev, values, number_of(x) > 0 ? noise : latents);
    kn_free(values);
    if (st != KN_OK || number_of(x) == 0) return st;
    double sigma = x->schedule.sigma[x->schedule.begin];
    KN_TRY(kn_dev_upload(x->dev, j->latents, latents));
    return kn_axpby(x->dev, (float)(1 - sigma), latents, (float)sigma, noise, latents);
}

static kn_status begin_debug(const denoise *x)
{
    char text[KN_ATTENTION_TEXT];
    kn_debug_pass about = {.name = x->pass->name,
                           .attention = kn_pass_attention_text(&x->attention, text),
                           .begin = x->schedule.begin,
                           .steps = x->schedule.steps,
                           .layers = x->job->dit.layers,
                           .softmax_scale = x->sampler.softmax_scale};
    return kn_debug_pass_begin(x->job->debug, &about);
}

static kn_status run(denoise *x)
{
    kn_job *j = x->job;
    KN_TRY(open_all(x));
    KN_TRY(fill_latents(x));
    kn_free(j->latents);
    j->latents = NULL;
    if (j->debug) KN_TRY(begin_debug(x));
    x->saved = kn_solver_index(x->solver);
    kn_status st = kn_sampler_run(&x->sampler, j->fn, j->user);
    if (st == KN_ERR_CANCELLED) KN_TRY(save_stopped(x));
    KN_TRY(st);
    const kn_pass_attention *a = &x->attention;
    if (a->density_count > 0 && !a->plan) /* of a method whose lists no one knew before */
        kn_job_note(j, "%s: self-attention did %.1f%% of dense work", x->pass->name,
                    100 * a->density_sum / (double)a->density_count);
    KN_TRY(kn_alloc(kn_tensor_bytes(&x->sampler.latents), (void **)&j->latents));
    return kn_dev_download(x->dev, &x->sampler.latents, j->latents);
}

static kn_status run_pass(kn_job *j, int number)
{
    double start = kn_now_sec();
    bool midway = j->midway && number == j->first;
    if (number > 0 && !midway) {
        kn_job_phase_begin(j);
        KN_TRY(kn_job_upscale(j, number));
        kn_job_phase_end(j, j->pass[number].upscale);
        kn_debug_span(j->debug, "step", "upscale", start);
    }
    kn_job_phase_begin(j);
    denoise x = {.job = j, .pass = &j->pass[number], .session = j->session, .dev = j->session->dev};
    double passed = kn_now_sec(), load_sec = j->session->load_sec;
    kn_status st = run(&x);
    kn_job_phase_end(j, x.pass->name);
    close_all(&x);
    if (kn_job_wants_previews(j)) kn_session_done(j->session, KN_NETWORK_VAE);
    j->part_sec[number ? KN_PART_REFINE : KN_PART_BASE] +=
        kn_now_sec() - passed - (j->session->load_sec - load_sec);
    if (st == KN_OK && j->debug) st = kn_job_previews(j, number);
    kn_debug_span(j->debug, "phase", j->pass[number].name, start);
    j->pass_sec[number] += kn_now_sec() - start;
    return st;
}

kn_status kn_job_denoise_measure(kn_job *j, int pass, kn_session *measure)
{
    denoise x = {.job = j, .pass = &j->pass[pass], .session = measure, .dev = measure->dev};
    kn_status st = open_all(&x);
    if (kn_dev_measured(measure->dev) != KN_DEV_CUDA) measure->outside_bytes = kn_pass_attention_bytes(&x.attention);
    close_all(&x);
    return st;
}

/* ---- finished latents, from or to a file ------------------------------------------------------ */

kn_status kn_job_load(kn_job *j, const char *path, int pass)
{
    kn_tensor host = latents_shape(&j->pass[pass]);
    kn_checkpoint c = {.segment = j->segment, .pass = pass};
    kn_arena *arena;
    kn_free(j->latents);
    j->latents = NULL;
    KN_TRY(kn_arena_open(j->session->dev, kn_tensor_bytes(&host), &arena));
    kn_status st = kn_arena_tensor(arena, KN_F32, 4, host.dim, &c.latents);
    if (st == KN_OK) st = kn_checkpoint_load(path, j->session->dev, &j->id, &c);
    if (st == KN_OK) st = kn_alloc(kn_tensor_bytes(&host), (void **)&j->latents);
    if (st == KN_OK) st = kn_dev_download(j->session->dev, &c.latents, j->latents);
    kn_arena_close(&arena);
    return st;
}

kn_status kn_job_check_given(const kn_job *j)
{
    char name[NOISE_NAME];
    kn_tensor shape = latents_shape(&j->pass[0]);
    if (j->o->latents_in && !j->resumed) KN_TRY(kn_job_check_tensor(j->o->latents_in, "latents", 4, shape.dim));
    for (int i = j->first + j->midway; j->o->noise_in && i < j->passes; i++) {
        shape = latents_shape(&j->pass[i]);
        KN_TRY(kn_job_check_tensor(j->o->noise_in, noise_name(i, name), 4, shape.dim));
    }
    return KN_OK;
}

/* Those of the pass before j->first. */
static kn_status load_finished(kn_job *j)
{
    kn_tensor host = latents_shape(&j->pass[j->first - 1]);
    if (j->resumed) return kn_job_load(j, j->checkpoint, j->first - 1);
    return kn_job_read_tensor(j->o->latents_in, "latents", 4, host.dim, &j->latents);
}

static kn_status write_latents(const kn_job *j)
{
    kn_tensor shape = latents_shape(&j->pass[j->passes - 1]);
    kn_st_tensor t = {.name = "latents", .dtype = KN_ST_F32, .rank = 4, .data = j->latents, .bytes = kn_tensor_bytes(&shape)};
    for (int i = 0; i < 4; i++) t.dim[i] = shape.dim[i];
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRId64, j->o->seed);
    const char *metadata[] = {"kinora", KN_VERSION, "options", j->id.options, "job", j->id.fingerprint, "seed", seed, NULL};
    return kn_safetensors_write(j->o->latents_out, &t, 1, metadata);
}

kn_status kn_job_denoise(kn_job *j)
{
    double start = kn_now_sec();
    bool from_clip = j->o->input && j->first == 1;
    if (j->first > 0 && !j->midway && !from_clip) KN_TRY(load_finished(j));
    for (int i = j->first; i < j->passes; i++) KN_TRY(run_pass(j, i));
    if (j->o->latents_out) KN_TRY(write_latents(j));
    j->sec[1] += kn_now_sec() - start;
    return KN_OK;
}
