/* pipeline/render_upscale.c - between two passes: a clip's latents, enlarged to the next pass's size.
 *
 * Before the first refine stage of a video: its frames, brought to that stage's size, encoded. Pixel way: decode, resize, encode, a latent frame at a time; only the latents stand in memory as a
 * whole. Latent way: every latent plane is resized as a picture.
 */

#include "io/memory.h"
#include "pipeline/render_job.h"
#include "pipeline/resize.h"

enum { FRAMES_PER_LATENT = 4, SMALL_BESIDE = 16 /* sizes that differ so much are budgeted by need */ };

typedef struct upscale {
    kn_job *job;
    kn_session *session; /* the job's, or one on the measure device */
    const kn_geometry *from, *to;
    kn_vae *vae;
    kn_vae_stream *decode, *encode;
    kn_workers *workers; /* of resize; a device that is not this machine's processor has none of its own */
    kn_resize *resize;
    kn_clip_reader *clip; /* in place of decode and resize */
    float *frames; /* [<= 4, H, W, 3] of the next pass's size, waiting to be encoded */
    int64_t waiting, done;
    float *latents; /* of the next pass's size */
    kn_stage stage;
} upscale;

static size_t frames_bytes(const upscale *x)
{
    return (size_t)(x->to->height_px * x->to->width_px) * FRAMES_PER_LATENT * 3 * sizeof(float);
}

static bool from_clip(const upscale *x)
{
    return x->job->o->input && x->to == &x->job->pass[1].geo;
}

static kn_status open_resize(upscale *x, int channels, int64_t unit)
{
    const kn_geometry *from = x->from, *to = x->to;
    KN_TRY(kn_workers_open(kn_dev_threads(x->session->dev), &x->workers));
    kn_resize_params p = {.filter = x->job->o->upscale == KN_UPSCALE_LANCZOS ? KN_RESIZE_LANCZOS : KN_RESIZE_BILINEAR,
                          .from_width = from->width_px / unit,
                          .from_height = from->height_px / unit,
                          .to_width = to->width_px / unit,
                          .to_height = to->height_px / unit,
                          /* what is shown is enlarged to what is shown, whatever the padding */
                          .step_x = (double)from->out_width_px / (double)to->out_width_px,
                          .step_y = (double)from->out_height_px / (double)to->out_height_px,
                          .channels = channels,
                          .workers = x->workers};
    return kn_resize_build(&p, &x->resize);
}

/* Of host memory: the frames between the two streams, and those of the clip's reader. */
static size_t host_bytes(const upscale *x)
{
    return frames_bytes(x) + (from_clip(x) ? kn_clip_reader_bytes(&x->job->clip, x->to) : 0);
}

/* Both streams at once; what memory there is goes by the size of their frames. */
static kn_status open_vae(upscale *x, kn_vae_stream_params *decode, kn_vae_stream_params *encode)
{
    kn_job *j = x->job;
    KN_TRY(kn_job_vae_open(j, x->session, true, &x->vae));
    bool gpu = kn_dev_measured(x->session->dev) == KN_DEV_CUDA; /* whose memory is its own */
    size_t used = kn_dev_bytes_now(x->session->dev) + (gpu ? 0 : host_bytes(x));
    double spare = j->vae_budget_bytes > used ? (double)(j->vae_budget_bytes - used) : 0;
    double small = from_clip(x) ? 0 : (double)(x->from->width_px * x->from->height_px), large = (double)(x->to->width_px * x->to->height_px);
    size_t share = (size_t)(spare * small / (small + large));
    *decode = kn_job_vae_params(j, x->from, share);
    /* Large factors leave the small stream less than it needs, though that is nothing beside the other. */
    if (small > 0 && large >= SMALL_BESIDE * small && share > 0 && decode->tiling.rows == 0) {
        kn_vae_stream_plan uncut;
        decode->memory_bytes = 0;
        KN_TRY(kn_vae_stream_plan_build(x->vae, KN_VAE_DECODE, decode, &uncut));
        if (uncut.device_bytes > share && (double)uncut.device_bytes * SMALL_BESIDE <= spare) share = uncut.device_bytes;
        decode->memory_bytes = share;
    }
    *encode = kn_job_vae_params(j, x->to, (size_t)spare - share);
    return KN_OK;
}

static void close_all(upscale *x)
{
    kn_vae_stream_close(&x->decode);
    kn_vae_stream_close(&x->encode);
    kn_session_done(x->session, KN_NETWORK_VAE);
    kn_resize_free(&x->resize);
    kn_workers_close(&x->workers);
    kn_clip_reader_close(&x->clip);
    kn_free(x->frames);
    kn_free(x->latents);
}

static kn_status on_frames(void *user, const float *frames, int64_t count)
{
    upscale *x = user;
    for (int64_t i = 0; i < count; i++) {
        if (x->waiting == FRAMES_PER_LATENT)
            return kn_fail(KN_ERR_INTERNAL, "%s: more than %d frames of one latent", x->stage.event.stage, FRAMES_PER_LATENT);
        kn_resize_run(x->resize, frames + i * x->from->height_px * x->from->width_px * 3,
                      x->frames + x->waiting++ * x->to->height_px * x->to->width_px * 3);
        KN_TRY(kn_stage_step(&x->stage, ++x->done));
    }
    return KN_OK;
}

static kn_tensor host_latents(float *data, const kn_geometry *g)
{
    return kn_tensor_of(data, KN_F32, g->channels_lat, g->frames_lat, g->height_lat, g->width_lat);
}

static kn_status through_pixels(upscale *x)
{
    const kn_job *j = x->job;
    kn_tensor from = host_latents(j->latents, x->from), to = host_latents(x->latents, x->to);
    kn_vae_stream_params decode, encode;
    KN_TRY(open_vae(x, &decode, &encode));
    KN_TRY(kn_vae_stream_open(x->vae, KN_VAE_DECODE, &decode, &x->decode));
    KN_TRY(kn_vae_stream_open(x->vae, KN_VAE_ENCODE, &encode, &x->encode));
    KN_TRY(open_resize(x, 3, 1));
    KN_TRY(kn_alloc(frames_bytes(x), (void **)&x->frames));
    for (int64_t f = 0; f < x->from->frames_lat; f++) {
        kn_tensor in = kn_tensor_slice(&from, 1, f, 1), out = kn_tensor_slice(&to, 1, f, 1);
        x->waiting = 0;
        double start = kn_now_sec();
        KN_TRY(kn_vae_decode_push(x->decode, &in, on_frames, x));
        x->job->part_sec[KN_PART_UPSAMPLE] += kn_now_sec() - start;
        if (x->waiting != kn_vae_stream_frames(x->encode, 1))
            return kn_fail(KN_ERR_INTERNAL, "%s: %lld frames decoded, %lld to encode", x->stage.event.stage,
                           (long long)x->waiting, (long long)kn_vae_stream_frames(x->encode, 1));
        start = kn_now_sec();
        KN_TRY(kn_vae_encode_push(x->encode, x->frames, &out));
        x->job->part_sec[KN_PART_ENCODE] += kn_now_sec() - start;
    }
    return KN_OK;
}

static kn_status through_clip(upscale *x)
{
    const kn_job *j = x->job;
    kn_tensor to = host_latents(x->latents, x->to);
    kn_vae_stream_params decode, encode;
    KN_TRY(open_vae(x, &decode, &encode));
    KN_TRY(kn_vae_stream_open(x->vae, KN_VAE_ENCODE, &encode, &x->encode));
    KN_TRY(kn_clip_reader_open(&j->clip, j->o, x->to, kn_segment_first(&j->segments, j->segment), &x->clip));
    KN_TRY(kn_alloc(frames_bytes(x), (void **)&x->frames));
    for (int64_t f = 0; f < x->to->frames_lat; f++) {
        kn_tensor out = kn_tensor_slice(&to, 1, f, 1);
        int64_t count = kn_vae_stream_frames(x->encode, 1);
        for (x->waiting = 0; x->waiting < count; x->waiting++) {
            KN_TRY(kn_clip_reader_next(x->clip, x->frames + x->waiting * x->to->height_px * x->to->width_px * 3));
            KN_TRY(kn_stage_step(&x->stage, ++x->done));
        }
        KN_TRY(kn_vae_encode_push(x->encode, x->frames, &out));
    }
    return KN_OK;
}

static kn_status through_latents(upscale *x)
{
    const kn_geometry *from = x->from, *to = x->to;
    KN_TRY(open_resize(x, 1, from->width_px / from->width_lat));
    int64_t planes = from->channels_lat * from->frames_lat;
    for (int64_t i = 0; i < planes; i++)
        kn_resize_run(x->resize, x->job->latents + i * from->height_lat * from->width_lat,
                      x->latents + i * to->height_lat * to->width_lat);
    return kn_stage_step(&x->stage, from->frames);
}

kn_status kn_job_upscale(kn_job *j, int pass)
{
    upscale x = {.job = j, .session = j->session, .from = &j->pass[pass - 1].geo, .to = &j->pass[pass].geo};
    kn_tensor shape = host_latents(NULL, x.to);
    kn_status st = KN_OK;
    kn_stage_begin(&x.stage, j->fn, j->user, j->pass[pass].upscale, "frames", 0, x.from->frames);
    KN_TRY_GOTO(kn_alloc(kn_tensor_bytes(&shape), (void **)&x.latents));
    if (from_clip(&x))
        KN_TRY_GOTO(through_clip(&x));
    else
        KN_TRY_GOTO(j->o->upscale == KN_UPSCALE_LATENT ? through_latents(&x) : through_pixels(&x));
    kn_stage_end(&x.stage);
    kn_free(j->latents);
    j->latents = x.latents;
    x.latents = NULL;
done:
    close_all(&x);
    return st;
}

kn_status kn_job_upscale_measure(kn_job *j, int pass, kn_session *measure)
{
    upscale x = {.job = j, .session = measure, .from = &j->pass[pass - 1].geo, .to = &j->pass[pass].geo};
    kn_vae_stream_params decode, encode;
    kn_status st = open_vae(&x, &decode, &encode);
    if (st == KN_OK && !from_clip(&x)) st = kn_job_vae_measure(x.vae, KN_VAE_DECODE, &decode);
    if (st == KN_OK) st = kn_job_vae_measure(x.vae, KN_VAE_ENCODE, &encode);
    kn_dev_measure_host(measure->dev, host_bytes(&x));
    close_all(&x);
    return st;
}
