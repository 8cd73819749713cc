#include "pipeline/pass_attention.h"
#include "pipeline/render_output.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/folder.h"
#include "io/json.h"
#include "io/log.h"
#include "io/memory.h"

enum { SHEET_TILES = 9, SHEET_WIDTH_PX = 1600 };

/* 23.976 and its kin are n*1000/1001; other rates keep three decimals. */
void kn_fps_rational(double fps, int *num, int *den)
{
    double n = round(fps * 1001 / 1000);
    if (fabs(fps - round(fps)) > 1e-9 && fabs(n * 1000 / 1001 - fps) < 5e-4) {
        *num = (int)n * 1000;
        *den = 1001;
        return;
    }
    *num = (int)lround(fps * 1000);
    *den = 1000;
    for (int a = *num, b = *den; a > 0;) {
        int r = b % a;
        if (r == 0) {
            *num /= a;
            *den /= a;
        }
        b = a;
        a = r;
    }
}

void kn_output_video_params(const kn_job *j, kn_video_writer_params *p)
{
    const kn_options *o = j->o;
    const kn_geometry *g = &j->geo;
    p->path = o->output;
    p->codec = o->codec;
    p->width_px = (int)g->out_width_px;
    p->height_px = (int)g->out_height_px;
    kn_job_rate(j, &p->fps_num, &p->fps_den);
    p->quality = o->crf < 0 ? KN_VIDEO_QUALITY_DEFAULT : o->crf;
    p->preset = o->encoder_preset;
    p->bit_depth = (int)o->bit_depth;
    p->threads = (int)o->threads;
    if (o->audio && j->clip.info.has_audio) p->audio_from = j->clip.path;
}

/* What was refined; json null when nothing was, NULL when memory ran out. */
static json_t *source_json(const kn_job *j)
{
    const kn_clip *c = &j->clip;
    if (!c->path) return json_null();
    return json_pack("{s:o, s:I, s:s, s:I, s:I, s:I, s:I}", "name", kn_json_text(c->name), "bytes", (json_int_t)c->bytes, "sha256", c->sha256,
                     "width_px", (json_int_t)c->width_px, "height_px", (json_int_t)c->height_px, "frames",
                     (json_int_t)c->frames, "segments", (json_int_t)j->segments.count);
}

/* Takes `value` into `o`; a null is left out. False: out of memory. */
static bool put(json_t *o, const char *key, json_t *value)
{
    if (json_is_null(value)) return true;
    return json_object_set_new(o, key, value) == 0;
}

/* What shaped the result, and nothing that may differ between two equal runs. */
static kn_status settings_text(const kn_job *j, char **out)
{
    json_t *o = json_pack("{s:s, s:s}", "kinora", KN_VERSION, "job", j->id.fingerprint);
    bool whole = o && put(o, "options", kn_options_json(j->o, KN_OPTION_SHAPES_RESULT)) && put(o, "source", source_json(j));
    kn_text text = {0};
    kn_status st = whole ? kn_json_add_value(&text, o) : kn_fail(KN_ERR_NOMEM, "out of memory: settings as JSON");
    json_decref(o);
    *out = text.data;
    return st;
}

static kn_status open_video(const kn_job *j, kn_output *x)
{
    if (!j->o->output) return KN_OK;
    kn_video_writer_params p = kn_video_writer_defaults();
    kn_output_video_params(j, &p);
    const char *metadata[] = {"title", j->o->prompt ? j->o->prompt : "", "comment", x->settings, NULL};
    p.metadata = metadata;
    return kn_video_writer_open(&p, &x->video);
}

/* A GPU decodes frames faster than one thread compresses them. On a CPU the decoder has the threads, and an
 * overlap would win nothing. */
static int file_threads(const kn_job *j)
{
    if (kn_dev_get_kind(j->session->dev) != KN_DEV_CUDA) return 0;
    int most = kn_dev_threads(j->session->dev);
    return most < KN_FRAME_WRITER_THREADS ? most : KN_FRAME_WRITER_THREADS;
}

static kn_status open_files(const kn_job *j, kn_output *x)
{
    if (!j->o->frames_dir) return KN_OK;
    return kn_frame_writer_open(&(kn_frame_writer_params){.folder = j->o->frames_dir,
                                                          .width_px = (int)j->geo.out_width_px,
                                                          .height_px = (int)j->geo.out_height_px,
                                                          .bits = (int)j->o->frames_depth,
                                                          .text = x->text,
                                                          .threads = file_threads(j)},
                                &x->files);
}

size_t kn_output_bytes(const kn_job *j)
{
    const kn_geometry *g = &j->geo;
    size_t bytes = kn_job_wants_frames(j) ? (size_t)(3 * g->out_width_px * g->out_height_px) * sizeof(float) : 0;
    if (j->o->output) {
        kn_video_writer_params p = kn_video_writer_defaults();
        kn_output_video_params(j, &p);
        bytes += kn_video_writer_memory(&p, j->segments.frames);
    }
    return bytes;
}

kn_status kn_output_open(const kn_job *j, kn_output *out)
{
    const kn_options *o = j->o;
    int width = (int)j->geo.out_width_px, height = (int)j->geo.out_height_px;
    *out = (kn_output){.job = j};
    kn_status st = KN_OK;
    KN_TRY_GOTO(settings_text(j, &out->settings));
    KN_TRY_GOTO(kn_alloc((size_t)(3 * width) * (size_t)height * sizeof(float), (void **)&out->frame));
    KN_TRY_GOTO(open_video(j, out));
    out->text[0] = "kinora";
    out->text[1] = out->settings;
    KN_TRY_GOTO(open_files(j, out));
    if (o->contact_sheet)
        KN_TRY_GOTO(kn_contact_sheet_build(j->segments.frames, SHEET_TILES, width, height, SHEET_WIDTH_PX, &out->sheet));
done:
    if (st != KN_OK) kn_output_close(out);
    return st;
}

static kn_status put_frame(kn_output *x)
{
    if (x->video) KN_TRY(kn_video_writer_put(x->video, x->frame));
    if (x->sheet) KN_TRY(kn_contact_sheet_add(x->sheet, x->frame));
    if (x->files) KN_TRY(kn_frame_writer_put(x->files, x->frame));
    if (x->job->frame)
        KN_TRY(x->job->frame(x->job->frame_user, x->frame, (int)x->job->geo.out_width_px,
                             (int)x->job->geo.out_height_px, x->count));
    x->count++;
    return KN_OK;
}

kn_status kn_output_frames(kn_output *x, const float *frames, int64_t count)
{
    const kn_geometry *g = &x->job->geo;
    int64_t row = 3 * g->width_px, kept = 3 * g->out_width_px;
    for (int64_t t = 0; t < count; t++) {
        for (int64_t y = 0; y < g->out_height_px; y++) {
            const float *from = frames + (t * g->height_px + y) * row;
            float *to = x->frame + y * kept;
            for (int64_t i = 0; i < kept; i++) to[i] = from[i] * 0.5f + 0.5f;
        }
        KN_TRY(put_frame(x));
    }
    return KN_OK;
}

static json_t *pass_json(const kn_job *j, int i)
{
    const kn_pass *p = &j->pass[i];
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:s, s:[i, i], s:f, s:b, s:i, s:i, s:[i, i], s:s, s:f}", "name", p->name, "width_px",
                     (json_int_t)p->geo.width_px, "height_px", (json_int_t)p->geo.height_px, "tokens",
                     (json_int_t)p->geo.tokens, "steps", (json_int_t)p->steps, "strength", p->strength, "shift", p->shift,
                     "guidance", p->guidance, "attention", kn_attention_name(p->attention), "window_tok", p->window[1], p->window[0],
                     "temperature", p->temperature, "override", p->dual, "refresh", p->refresh,
                     "override_steps", p->dual_steps, "override_layers", p->dual_layers[0] + 1, p->dual_layers[1],
                     "full_positions", p->fitted ? "fitted" : "own", "seconds", j->pass_sec[i]);
}

static json_t *memory_json(const kn_job *j)
{
    json_t *all = json_array();
    bool whole = all != NULL;
    for (int i = 0; whole && i < j->phases; i++) {
        const kn_phase_memory *m = &j->phase[i];
        json_t *phase = json_pack("{s:s, s:I, s:I, s:I, s:I}", "phase", m->name, "planned_bytes",
                                  (json_int_t)m->planned_bytes, "peak_bytes", (json_int_t)m->peak_bytes,
                                  "planned_host_bytes", (json_int_t)m->planned_host_bytes, "peak_host_bytes",
                                  (json_int_t)m->peak_host_bytes);
        whole = json_array_append_new(all, phase) == 0;
    }
    if (whole) return all;
    json_decref(all);
    return NULL;
}

/* Everything about the run, for people and scripts; unlike the settings inside the video it may hold
 * times and paths. */
static kn_status write_sidecar(const kn_output *x)
{
    const kn_job *j = x->job;
    char *path;
    KN_TRY(kn_asprintf(&path, "%s.json", j->o->output));
    json_t *o = json_pack("{s:s, s:s}", "kinora", KN_VERSION, "job", j->id.fingerprint);
    json_t *run = json_pack("{s:{s:s, s:s}, s:{s:I, s:I, s:I, s:I}, s:[], s:{s:f, s:f, s:f}}", "made_with", "device",
                            kn_dev_describe(j->session->dev), "encoder", kn_video_writer_text(x->video), "geometry",
                            "rendered_width_px", (json_int_t)j->geo.width_px, "rendered_height_px",
                            (json_int_t)j->geo.height_px, "latent_frames", (json_int_t)j->geo.frames_lat, "tokens",
                            (json_int_t)j->geo.tokens, "passes", "seconds", "text", j->sec[0], "denoise", j->sec[1],
                            "decode", j->sec[2]);
    bool whole = o && run && put(o, "options", kn_options_json(j->o, 0)) && put(o, "source", source_json(j)) &&
                 put(run, "memory", memory_json(j));
    for (int i = j->o->input ? 1 : 0; whole && i < j->passes; i++)
        whole = json_array_append_new(json_object_get(run, "passes"), pass_json(j, i)) == 0;
    whole = whole && json_object_update(o, run) == 0;
    kn_status st = whole ? kn_json_write(path, o) : kn_fail(KN_ERR_NOMEM, "out of memory: sidecar");
    json_decref(run);
    json_decref(o);
    kn_free(path);
    return st;
}

/* Frames of an earlier, longer clip would be taken for this one's. */
static kn_status warn_of_others(const kn_output *x)
{
    const char *folder = x->job->o->frames_dir;
    char *path;
    bool there;
    KN_TRY(kn_frames_path(folder, x->count, &path));
    kn_status st = kn_path_exists(path, &there);
    kn_free(path);
    if (st == KN_OK && there)
        kn_log(KN_LOG_WARN, "render", "%s holds frames of an earlier, longer clip, from number %lld on", folder, (long long)x->count);
    return st;
}

kn_status kn_output_finish(kn_output *x)
{
    if (x->files) {
        KN_TRY(kn_frame_writer_finish(x->files));
        KN_TRY(warn_of_others(x));
    }
    if (x->video) KN_TRY(kn_video_writer_finish(x->video));
    if (x->sheet) KN_TRY(kn_contact_sheet_write(x->sheet, x->job->o->contact_sheet, x->text));
    if (x->video && x->job->o->sidecar) KN_TRY(write_sidecar(x));
    return KN_OK;
}

void kn_output_close(kn_output *x)
{
    kn_frame_writer_close(&x->files);
    kn_video_writer_close(&x->video);
    kn_contact_sheet_free(&x->sheet);
    kn_free(x->frame);
    kn_free(x->settings);
    *x = (kn_output){0};
}
