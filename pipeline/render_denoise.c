/* pipeline/render_denoise.c - the denoise phase: noise, transformer, sampler, checkpoints. */
#include <inttypes.h>
#include <string.h>

#include "io/memory.h"
#include "io/safetensors.h"
#include "pipeline/noise.h"
#include "pipeline/render_job.h"
#include "pipeline/sampler.h"

/* Device side of the phase; everything is closed in reverse. */
typedef struct denoise {
    kn_job *job;
    kn_dev *dev; /* job->dev, or the measure device */
    kn_dit *dit;
    kn_dit_rope rope;
    kn_dit_context *context[KN_PROMPTS];
    kn_schedule schedule;
    kn_solver *solver;
    kn_arena *arena;
    kn_sampler sampler;
} denoise;

static kn_status save_step(void *user, int done, int total)
{
    denoise *x = user;
    const kn_job *j = x->job;
    int64_t every = j->o->checkpoint_every;
    if (!j->checkpoint || (done < total && (every == 0 || done % every))) return KN_OK;
    return kn_checkpoint_save(j->checkpoint, x->dev, &j->id, j->o->seed, &x->sampler.latents, x->solver);
}

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

static kn_status open_arena(denoise *x)
{
    const kn_job *j = x->job;
    const kn_geometry *g = &j->geo;
    int64_t dims[4] = {g->channels_lat, g->frames_lat, g->height_lat, g->width_lat};
    kn_tensor shape = kn_tensor_make(NULL, KN_F32, 4, dims);
    kn_dit_args args = {.context = x->context[KN_PROMPT], .rope = &x->rope, .latents = shape, .velocity = shape};
    size_t scratch, latent = kn_tensor_bytes(&shape);
    KN_TRY(kn_dit_scratch_bytes(x->dit, &args, &scratch));
    /* 3 latents and slack for the alignment of each piece */
    KN_TRY(kn_arena_open(x->dev, scratch + 3 * (latent + 256), &x->arena));
    KN_TRY(kn_arena_tensor(x->arena, KN_F32, 4, dims, &x->sampler.latents));
    KN_TRY(kn_arena_tensor(x->arena, KN_F32, 4, dims, &x->sampler.velocity));
    if (j->guided) KN_TRY(kn_arena_tensor(x->arena, KN_F32, 4, dims, &x->sampler.velocity_negative));
    return KN_OK;
}

/* The latents to start from: a checkpoint, a file, or the noise of the seed. */
static kn_status fill_latents(denoise *x)
{
    kn_job *j = x->job;
    const kn_tensor *latents = &x->sampler.latents;
    if (j->resumed) return kn_checkpoint_load(j->checkpoint, x->dev, &j->id, latents, x->solver);
    float *noise;
    if (j->o->noise_in) {
        KN_TRY(kn_job_read_tensor(j->o->noise_in, "noise", 4, latents->dim, &noise));
    } else {
        KN_TRY(kn_alloc(kn_tensor_bytes(latents), (void **)&noise));
        kn_noise gen;
        kn_noise_init(&gen, (uint64_t)j->o->seed);
        kn_noise_normal(&gen, noise, kn_tensor_count(latents));
    }
    kn_status st = kn_dev_upload(x->dev, noise, latents);
    kn_free(noise);
    return st;
}

/* Everything that the steps need, on j->dev; the same on the measure device, which reads and computes
 * nothing but counts. */
static kn_status open_all(denoise *x)
{
    kn_job *j = x->job;
    const kn_geometry *g = &j->geo;
    kn_solver_kind solver = (kn_solver_kind)j->o->solver;
    kn_grid grid = j->o->grid ? (kn_grid)(j->o->grid - 1) : kn_solver_grid(solver);
    KN_TRY(kn_schedule_build(grid, (int)j->o->steps, j->o->shift, 1.0, &x->schedule));
    KN_TRY(kn_dit_open(x->dev, j->folder.transformer, &x->dit));
    KN_TRY(kn_dit_rope_open(x->dit, g->frames_lat, g->height_lat, g->width_lat, NULL, &x->rope));
    KN_TRY(kn_arena_open(x->dev, (size_t)(j->o->text_length_tok * j->dit.text_dim) * sizeof(float) + 256, &x->arena));
    KN_TRY(open_context(x, KN_PROMPT));
    if (j->guided) KN_TRY(open_context(x, KN_NEGATIVE));
    kn_arena_close(&x->arena);
    KN_TRY(open_arena(x));
    return kn_solver_open(x->dev, solver, &x->schedule, 4, x->sampler.latents.dim, &x->solver);
}

static void close_all(denoise *x)
{
    kn_solver_close(&x->solver);
    for (int i = 0; i < KN_PROMPTS; i++) kn_dit_context_close(&x->context[i]);
    kn_dit_rope_close(&x->rope);
    kn_arena_close(&x->arena);
    kn_dit_close(&x->dit);
}

static kn_status run(denoise *x)
{
    kn_job *j = x->job;
    KN_TRY(open_all(x));
    KN_TRY(fill_latents(x));
    x->sampler.dit = x->dit;
    x->sampler.rope = &x->rope;
    x->sampler.prompt = x->context[KN_PROMPT];
    x->sampler.negative = x->context[KN_NEGATIVE];
    x->sampler.guidance = j->o->guidance;
    x->sampler.schedule = &x->schedule;
    x->sampler.solver = x->solver;
    x->sampler.scratch = x->arena;
    x->sampler.hook = save_step;
    x->sampler.hook_user = x;
    KN_TRY(kn_sampler_run(&x->sampler, j->fn, j->user));
    KN_TRY(kn_alloc(kn_tensor_bytes(&x->sampler.latents), (void **)&j->latents));
    return kn_dev_download(x->dev, &x->sampler.latents, j->latents);
}

static kn_status denoise_all(kn_job *j)
{
    denoise x = {.job = j, .dev = j->dev};
    kn_status st = run(&x);
    close_all(&x);
    return st;
}

kn_status kn_job_denoise_measure(kn_job *j, kn_dev *measure)
{
    denoise x = {.job = j, .dev = measure};
    kn_status st = open_all(&x);
    close_all(&x);
    return st;
}

/* ---- finished latents, from or to a file ------------------------------------------------------ */

static kn_status load_finished(kn_job *j)
{
    const kn_geometry *g = &j->geo;
    int64_t dims[4] = {g->channels_lat, g->frames_lat, g->height_lat, g->width_lat};
    if (j->o->latents_in) return kn_job_read_tensor(j->o->latents_in, "latents", 4, dims, &j->latents);
    kn_tensor device, host = kn_tensor_make(NULL, KN_F32, 4, dims);
    kn_arena *arena;
    KN_TRY(kn_arena_open(j->dev, kn_tensor_bytes(&host), &arena));
    kn_status st = kn_arena_tensor(arena, KN_F32, 4, dims, &device);
    if (st == KN_OK) st = kn_checkpoint_load(j->checkpoint, j->dev, &j->id, &device, NULL);
    if (st == KN_OK) st = kn_alloc(kn_tensor_bytes(&device), (void **)&j->latents);
    if (st == KN_OK) st = kn_dev_download(j->dev, &device, j->latents);
    kn_arena_close(&arena);
    return st;
}

static kn_status write_latents(const kn_job *j)
{
    const kn_geometry *g = &j->geo;
    kn_st_tensor t = {.name = "latents", .dtype = KN_ST_F32, .rank = 4, .data = j->latents,
                      .dim = {g->channels_lat, g->frames_lat, g->height_lat, g->width_lat}};
    t.bytes = (size_t)(t.dim[0] * t.dim[1] * t.dim[2] * t.dim[3]) * sizeof(float);
    const char *metadata[] = {"kinora", KN_VERSION, "options", j->id.options, NULL};
    return kn_safetensors_write(j->o->latents_out, &t, 1, metadata);
}

kn_status kn_job_denoise(kn_job *j)
{
    double start = kn_now_sec();
    KN_TRY(j->denoised ? load_finished(j) : denoise_all(j));
    if (j->o->latents_out) KN_TRY(write_latents(j));
    j->sec[1] = kn_now_sec() - start;
    return KN_OK;
}
