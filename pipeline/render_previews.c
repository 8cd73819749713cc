/* pipeline/render_previews.c - pictures of single latents for --debug-dir. */
#include <string.h>
#include <strings.h>

#include "io/memory.h"
#include "io/png.h"
#include "io/video.h"
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
    kn_vae_stream_params p = kn_job_vae_params(j, g, j->vae_budget_bytes > weights ? j->vae_budget_bytes - weights : 0);
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

/* ---- while denoising --------------------------------------------------------------------------*/

bool kn_job_preview_is_webp(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && !strcasecmp(path + n - 5, ".webp");
}

void kn_job_preview_webp(const char *path, int width_px, int height_px, kn_video_writer_params *p)
{
    *p = kn_video_writer_defaults();
    p->path = path;
    p->width_px = width_px;
    p->height_px = height_px;
    p->fps_num = p->fps_den = 1;
    p->quality = 90;
}

/* A clip of one frame: a still picture. */
static kn_status write_webp(const char *path, const float *rgb, int width_px, int height_px)
{
    kn_video_writer_params p;
    kn_video_writer *w = NULL;
    kn_status st = KN_OK;
    kn_job_preview_webp(path, width_px, height_px, &p);
    KN_TRY_GOTO(kn_video_writer_open(&p, &w));
    KN_TRY_GOTO(kn_video_writer_put(w, rgb));
    KN_TRY_GOTO(kn_video_writer_finish(w));
done:
    kn_video_writer_close(&w);
    return st;
}

static kn_status put_picture(kn_job *j, const float *rgb, int width_px, int height_px)
{
    const char *path = j->o->preview;
    bool webp = path && kn_job_preview_is_webp(path);
    size_t n = (size_t)width_px * (size_t)height_px * 3;
    unsigned char *bytes;
    KN_TRY(kn_alloc(n, (void **)&bytes));
    for (size_t i = 0; i < n; i++) {
        float v = rgb[i] < 0 ? 0 : rgb[i] > 1 ? 1 : rgb[i];
        bytes[i] = (unsigned char)(v * 255 + 0.5f);
    }
    kn_picture picture = {.width_px = width_px, .height_px = height_px, .channels = 3, .bits = 8, .data = bytes};
    kn_status st = webp ? write_webp(path, rgb, width_px, height_px) : path ? kn_png_write(path, &picture, NULL) : KN_OK;
    kn_event e = {.kind = KN_EVENT_PREVIEW, .picture = &picture};
    if (st == KN_OK && j->fn && j->o->preview_terminal != KN_PREVIEW_OFF) j->fn(j->user, &e);
    kn_free(bytes);
    return st;
}

bool kn_job_wants_previews(const kn_job *j) { return j->o->preview || j->o->preview_terminal != KN_PREVIEW_OFF; }

/* clean [C, 1, H, W]: the middle latent frame of x - sigma v. */
static kn_status middle_frame(kn_job *j, const kn_geometry *g, const kn_tensor *latents, const kn_tensor *velocity, double sigma,
                              float *clean)
{
    size_t plane = (size_t)(g->height_lat * g->width_lat), at = (size_t)(g->frames_lat / 2) * plane;
    float *x = NULL, *v = NULL;
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_alloc(kn_tensor_bytes(latents), (void **)&x));
    KN_TRY_GOTO(kn_alloc(kn_tensor_bytes(velocity), (void **)&v));
    KN_TRY_GOTO(kn_dev_download(j->session->dev, latents, x));
    KN_TRY_GOTO(kn_dev_download(j->session->dev, velocity, v));
    for (int64_t c = 0; c < g->channels_lat; c++)
        for (size_t i = 0; i < plane; i++) {
            size_t from = (size_t)(c * g->frames_lat) * plane + at + i;
            clean[(size_t)c * plane + i] = (float)((double)x[from] - sigma * (double)v[from]);
        }
done:
    kn_free(x);
    kn_free(v);
    return st;
}

static kn_status show(kn_job *j, const kn_pass *p, const kn_tensor *latents, const kn_tensor *velocity, double sigma)
{
    previews x = {.job = j, .geo = &p->geo};
    const kn_geometry *g = &p->geo;
    float *clean = NULL, *rgb = NULL;
    int width, height;
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_alloc_array((size_t)(g->channels_lat * g->height_lat * g->width_lat), sizeof *clean, (void **)&clean));
    KN_TRY_GOTO(middle_frame(j, g, latents, velocity, sigma, clean));
    /* stays open until the pass ends: the check below leaves room for it beside the transformer */
    KN_TRY_GOTO(kn_job_vae_open(j, j->session, false, &x.vae));
    kn_tensor latent = kn_tensor_of(clean, KN_F32, g->channels_lat, 1, g->height_lat, g->width_lat);
    KN_TRY_GOTO(decode(&x, &latent, &rgb, &width, &height));
    KN_TRY_GOTO(put_picture(j, rgb, width, height));
done:
    kn_free(clean);
    kn_free(rgb);
    return st;
}

void kn_job_live_preview(kn_job *j, const kn_pass *p, const kn_tensor *latents, const kn_tensor *velocity, double sigma)
{
    double start = kn_now_sec();
    if (!kn_job_wants_previews(j) || j->preview_off || start < j->preview_due_sec) return;
    size_t both = j->peak_bytes[KN_NETWORK_DIT] + j->peak_bytes[KN_NETWORK_VAE];
    if (j->budget_bytes && both > j->budget_bytes) {
        kn_job_note(j, "no previews: transformer and VAE do not fit in memory together");
        j->preview_off = true;
        return;
    }
    if (show(j, p, latents, velocity, sigma) != KN_OK) {
        kn_job_note(j, "no more previews: %s", kn_error_text());
        kn_error_clear();
        j->preview_off = true;
    }
    j->preview_due_sec = kn_due_again_sec(start);
}
