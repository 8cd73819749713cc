/* pipeline/render_decode.c - the decode phase: latents to frames, frames to files as they come. */
#include "pipeline/render_output.h"

#include <string.h>

#include "io/memory.h"
/* Latent frames per push where frames are cut into tiles on a GPU. */
enum { CUT_CHUNK_LAT = 5 };

typedef struct decode {
    kn_job *job;
    kn_vae *vae;
    kn_vae_stream *stream;
    kn_output output;
    kn_stage stage;
    float *tail;  /* [overlap, H, W, 3]: the last frames of the segment before */
    float *mixed; /* one frame */
    int64_t at;   /* frame of the clip that comes next out of the stream */
} decode;

static size_t frame_values(const kn_job *j)
{
    return (size_t)(3 * j->geo.width_px * j->geo.height_px);
}

/* Frames that wait for the next segment, on the host. */
static size_t blend_bytes(const kn_job *j)
{
    return j->segments.count > 1 ? (size_t)(j->segments.overlap + 1) * frame_values(j) * sizeof(float) : 0;
}

/* One frame in time order. Where two segments overlap, the first one's last frames fade into the second:
 * linearly, in the values that are shown. What the second has before them is dropped. */
static kn_status put_frame(decode *x, const float *frame)
{
    const kn_job *j = x->job;
    const kn_segments *s = &j->segments;
    int64_t at = x->at++, k = j->segment, overlap = s->overlap;
    size_t n = frame_values(j);
    if (k > 0) {
        int64_t end = kn_segment_first(s, k - 1) + s->length, i = at - (end - overlap);
        if (i < 0) return KN_OK;
        if (i < overlap) {
            float w = (float)(i + 1) / (float)(overlap + 1);
            const float *before = x->tail + (size_t)i * n;
            for (size_t v = 0; v < n; v++) x->mixed[v] = before[v] + w * (frame[v] - before[v]);
            frame = x->mixed;
        }
    }
    int64_t waits = at - (kn_segment_first(s, k) + s->length - overlap);
    if (k + 1 < s->count && waits >= 0) {
        memcpy(x->tail + (size_t)waits * n, frame, n * sizeof *frame);
        return KN_OK;
    }
    return at < s->frames ? kn_output_frames(&x->output, frame, 1) : KN_OK;
}

static kn_status on_frames(void *user, const float *frames, int64_t count)
{
    decode *x = user;
    double start = kn_now_sec();
    for (int64_t i = 0; i < count; i++) KN_TRY(put_frame(x, frames + (size_t)i * frame_values(x->job)));
    x->job->part_sec[KN_PART_MUX] += kn_now_sec() - start;
    return kn_stage_step(&x->stage, x->output.count);
}

/* 0 leaves the choice to the memory budget. */
kn_vae_stream_params kn_job_vae_params(const kn_job *j, const kn_geometry *g, size_t budget_bytes)
{
    kn_vae_stream_params p = {.height_lat = g->height_lat, .width_lat = g->width_lat, .memory_bytes = budget_bytes,
                              .total_lat = g->frames_lat};
    int64_t tile = j->o->vae_tile_px;
    if (tile > 0) {
        p.tiling.rows = (int)((g->height_px + tile - 1) / tile);
        p.tiling.cols = (int)((g->width_px + tile - 1) / tile);
    }
    return p;
}

kn_status kn_job_vae_open(const kn_job *j, kn_session *session, bool encode, kn_vae **out)
{
    kn_session_spare(session, KN_NETWORK_VAE, j->peak_bytes[KN_NETWORK_VAE], j->budget_bytes);
    KN_TRY(kn_session_vae(session, &j->folder, encode, out));
    const kn_vae_config *c = kn_vae_get_config(*out);
    if (c->z == j->geo.channels_lat) return KN_OK;
    return kn_fail(KN_ERR_MODEL, "%s: transformer and VAE do not fit: %lld and %lld latent channels", j->o->model,
                   (long long)j->geo.channels_lat, (long long)c->z);
}

static kn_status open_vae(decode *x, kn_session *session, kn_vae_stream_params *p)
{
    kn_job *j = x->job;
    KN_TRY(kn_job_vae_open(j, session, false, &x->vae));
    size_t weights = kn_dev_bytes_now(session->dev);
    size_t budget = j->vae_budget_bytes > weights ? j->vae_budget_bytes - weights : 0;
    *p = kn_job_vae_params(j, &j->geo, budget);
    if (kn_dev_measured(session->dev) != KN_DEV_CUDA) return KN_OK;
    p->late = true; /* frames are converted and encoded while the GPU decodes the next */
    kn_vae_stream_plan plan;
    kn_status st = kn_vae_stream_plan_build(x->vae, KN_VAE_DECODE, p, &plan);
    if (st != KN_OK || plan.tiling.rows * plan.tiling.cols == 1) return st;
    kn_vae_stream_params more = *p; /* fewer transfers of past frames, if there is room */
    more.chunk_lat = j->geo.frames_lat < CUT_CHUNK_LAT ? j->geo.frames_lat : CUT_CHUNK_LAT;
    st = kn_vae_stream_plan_build(x->vae, KN_VAE_DECODE, &more, &plan);
    if (st == KN_OK) *p = more;
    if (st != KN_ERR_NOMEM) return st;
    kn_error_clear();
    return KN_OK;
}

/* The latents of j->segment. */
static kn_status push_segment(decode *x, const kn_vae_stream_params *p)
{
    kn_job *j = x->job;
    const kn_geometry *g = &j->geo;
    kn_tensor all = kn_tensor_of(j->latents, KN_F32, g->channels_lat, g->frames_lat, g->height_lat, g->width_lat);
    kn_status st = KN_OK;
    int64_t chunk = p->chunk_lat ? p->chunk_lat : 1;
    KN_TRY_GOTO(kn_vae_stream_open(x->vae, KN_VAE_DECODE, p, &x->stream));
    x->at = kn_segment_first(&j->segments, j->segment);
    for (int64_t f = 0; f < g->frames_lat; f += chunk) {
        kn_tensor latent = kn_tensor_slice(&all, 1, f, g->frames_lat - f < chunk ? g->frames_lat - f : chunk);
        KN_TRY_GOTO(kn_vae_decode_push(x->stream, &latent, on_frames, x));
    }
    KN_TRY_GOTO(kn_vae_decode_flush(x->stream, on_frames, x));
done:
    kn_vae_stream_close(&x->stream);
    return st;
}

static kn_status push_all(decode *x, const kn_vae_stream_params *p)
{
    kn_job *j = x->job;
    const kn_segments *s = &j->segments;
    kn_stage_begin(&x->stage, j->fn, j->user, "decode", "frames", 0, s->frames);
    if (s->count > 1) {
        KN_TRY(kn_alloc(blend_bytes(j), (void **)&x->tail));
        x->mixed = x->tail + (size_t)s->overlap * frame_values(j);
    }
    for (j->segment = 0; j->segment < s->count; j->segment++) {
        char *path = NULL;
        if (s->count > 1) {
            KN_TRY(kn_job_segment_path(j, j->segment, &path));
            kn_status st = kn_job_load(j, path, j->passes - 1);
            kn_free(path);
            KN_TRY(st);
        }
        KN_TRY(push_segment(x, p));
    }
    kn_stage_end(&x->stage);
    return KN_OK;
}

kn_status kn_job_decode(kn_job *j)
{
    double start = kn_now_sec();
    decode x = {.job = j};
    kn_status st = KN_OK;
    kn_vae_stream_params p;
    kn_job_phase_begin(j);
    KN_TRY_GOTO(open_vae(&x, j->session, &p));
    KN_TRY_GOTO(kn_output_open(j, &x.output));
    KN_TRY_GOTO(push_all(&x, &p));
    j->sec[2] = kn_now_sec() - start;
    kn_job_phase_end(j, "decode");
    KN_TRY_GOTO(kn_output_finish(&x.output));
done:
    kn_output_close(&x.output);
    kn_free(x.tail);
    kn_session_done(j->session, KN_NETWORK_VAE);
    return st;
}

kn_status kn_job_vae_measure(const kn_vae *vae, kn_vae_side side, const kn_vae_stream_params *p)
{
    kn_vae_stream_plan plan;
    void *memory;
    KN_TRY(kn_vae_stream_plan_build(vae, side, p, &plan));
    if (kn_dev_measured(kn_vae_dev(vae)) == KN_DEV_CUDA) kn_dev_measure_host(kn_vae_dev(vae), plan.host_bytes);
    return kn_dev_alloc(kn_vae_dev(vae), plan.device_bytes, &memory);
}

kn_status kn_job_decode_measure(kn_job *j, int pass, kn_session *measure)
{
    (void)pass;
    decode x = {.job = j};
    kn_vae_stream_params p;
    kn_status st = open_vae(&x, measure, &p);
    if (st == KN_OK) st = kn_job_vae_measure(x.vae, KN_VAE_DECODE, &p);
    kn_dev_measure_host(measure->dev, blend_bytes(j));
    if (kn_dev_measured(measure->dev) != KN_DEV_CUDA) measure->outside_bytes = kn_output_bytes(j);
    kn_session_done(measure, KN_NETWORK_VAE);
    return st;
}
