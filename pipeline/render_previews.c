/* pipeline/render_previews.c - pictures of single latents for --debug-dir. */
#include "io/memory.h"
#include "pipeline/render_job.h"

typedef struct previews {
    kn_job *job;
    const kn_geometry *geo;
    kn_vae *vae;
    float *rgb; /* being filled: [height, width, 3] in [0,1] */
} previews;

static kn_status on_frames(void *user, const float *frames, int64_t count)
{
    previews *x = user;
    if (count != 1) return kn_fail(KN_ERR_INTERNAL, "preview: %lld frames of one latent", (long long)count);
    for (int64_t i = 0; i < x->geo->height_px * x->geo->width_px * 3; i++) x->rgb[i] = 0.5f * (frames[i] + 1);
    return KN_OK;
}

/* A stream of its own for each latent: none has a past. */
static kn_status decode(void *user, const kn_tensor *latent, float **rgb, int *width_px, int *height_px)
{
    previews *x = user;
    const kn_job *j = x->job;
    const kn_geometry *g = x->geo;
    kn_vae_stream *stream = NULL;
    kn_status st = KN_OK;
    size_t weights = kn_dev_bytes_now(j->session->dev);
    kn_vae_stream_params p = kn_job_vae_params(j, g, j->budget_bytes > weights ? j->budget_bytes - weights : 0);
    KN_TRY_GOTO(kn_alloc_array((size_t)(g->height_px * g->width_px * 3), sizeof(float), (void **)rgb));
    x->rgb = *rgb;
    KN_TRY_GOTO(kn_vae_stream_open(x->vae, KN_VAE_DECODE, &p, &stream));
    KN_TRY_GOTO(kn_vae_decode_push(stream, latent, on_frames, x));
    *width_px = (int)g->width_px;
    *height_px = (int)g->height_px;
done:
    kn_vae_stream_close(&stream);
    return st;
}

kn_status kn_job_previews(kn_job *j, int pass)
{
    previews x = {.job = j, .geo = &j->pass[pass].geo};
    KN_TRY(kn_job_vae_open(j, j->session, false, &x.vae));
    kn_status st = kn_debug_pass_end(j->debug, decode, &x);
    kn_session_done(j->session, KN_NETWORK_VAE);
    return st;
}
