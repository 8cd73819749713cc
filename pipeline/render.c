#include "pipeline/render.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/folder.h"
#include "io/frames.h"
#include "io/memory.h"
#include "io/path.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "pipeline/memory_plan.h"
#include "pipeline/attention_map.h"
#include "pipeline/pass_attention.h"
#include "pipeline/render_output.h"
#include "pipeline/work.h"
#include "text/utf8.h"

void kn_job_note(kn_job *j, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    kn_text_make_plain(text);
    kn_event e = {.kind = KN_EVENT_NOTE, .text = text};
    if (j->fn) j->fn(j->user, &e);
}

/* ---- checks before any work -------------------------------------------------------------------*/

static kn_status check_utf8(const char *what, const char *text)
{
    size_t n = strlen(text), bad = kn_utf8_check(text, n);
    if (bad < n) return kn_fail(KN_ERR_ARG, "%s: expected UTF-8 text, found byte 0x%02x at offset %zu", what, (unsigned char)text[bad], bad);
    return KN_OK;
}

/* --prompt-file takes the place of --prompt. */
static kn_status read_prompt(kn_options *o)
{
    enum { LIMIT_BYTES = 1 << 20 };
    if (o->prompt_file) {
        char *text;
        size_t size;
        KN_TRY(kn_file_read(o->prompt_file, LIMIT_BYTES, &text, &size));
        kn_status st = strlen(text) == size ? KN_OK : kn_fail(KN_ERR_ARG, "%s: expected UTF-8 text, found a zero byte", o->prompt_file);
        if (st == KN_OK) st = check_utf8(o->prompt_file, text);
        if (st == KN_OK) st = kn_options_set(o, "prompt", text, KN_FROM_COMMAND_LINE, "--prompt-file");
        kn_free(text);
        KN_TRY(st);
        kn_free(o->prompt_file);
        o->prompt_file = NULL;
    }
    if (!o->prompt && o->input) KN_TRY(kn_options_set(o, "prompt", "", KN_FROM_DEFAULT, "prompt"));
    if (!o->prompt && !o->embeds_in && (!o->latents_in || o->refine_size))
        return kn_fail(KN_ERR_ARG, "nothing to render: give --prompt TEXT or --prompt-file FILE");
    if (o->prompt) KN_TRY(check_utf8("--prompt", o->prompt));
    return o->negative_prompt ? check_utf8("--negative-prompt", o->negative_prompt) : KN_OK;
}

/* Where a file or folder is to be made: its name, without slashes behind it, and the folder before that. */
typedef struct place {
    char folder[4096];
    const char *name;
    size_t name_bytes;
} place;

static place place_of(const char *path)
{
    place at;
    size_t end = kn_path_bare_bytes(path), n = end;
    while (n > 0 && path[n - 1] != '/') n--;
    at.name = path + n;
    at.name_bytes = end - n;
    while (n > 1 && path[n - 1] == '/') n--;
    snprintf(at.folder, sizeof at.folder, "%.*s", n ? (int)n : 1, n ? path : ".");
    return at;
}

static bool same_place(const char *a, const char *b)
{
    place x = place_of(a), y = place_of(b);
    struct stat s, t;
    if (x.name_bytes != y.name_bytes || memcmp(x.name, y.name, x.name_bytes)) return false;
    if (stat(x.folder, &s) != 0 || stat(y.folder, &t) != 0) return !strcmp(x.folder, y.folder);
    return s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

/* The folder a file or folder would go to must be there and writable before hours are spent. */
static kn_status check_parent(const kn_job *j, const char *flag, const char *path)
{
    struct stat s;
    place at = place_of(path);
    if (j->makes_folders && stat(at.folder, &s) != 0) return KN_OK;
    if (stat(at.folder, &s) != 0 || !S_ISDIR(s.st_mode) || access(at.folder, W_OK) != 0)
        return kn_fail(KN_ERR_IO, "%s %s: the folder '%s' is missing or not writable", flag, path, at.folder);
    return KN_OK;
}

static kn_status check_target(const kn_job *j, const char *flag, const char *path)
{
    const kn_options *o = j->o;
    struct stat s;
    bool there;
    if (kn_path_bare_bytes(path) < strlen(path)) return kn_fail(KN_ERR_ARG, "%s %s: is a folder's name, expected a file's", flag, path);
    KN_TRY(check_parent(j, flag, path));
    KN_TRY(kn_path_exists(path, &there)); /* an unreadable disk must not look like a free name */
    if (!there || stat(path, &s) != 0) return KN_OK;
    if (S_ISDIR(s.st_mode)) return kn_fail(KN_ERR_ARG, "%s %s: is a folder, expected a file", flag, path);
    if (!o->overwrite) return kn_fail(KN_ERR_ARG, "%s %s: exists; give --overwrite (-y) to replace it", flag, path);
    return KN_OK;
}

int kn_job_first_pass(const kn_job *j)
{
    /* Only the segment that a checkpoint stands in begins late. */
    return j->segment + 1 < j->segments.count && j->first > 1 ? 1 : j->first;
}

bool kn_job_wants_frames(const kn_job *j)
{
    const kn_options *o = j->o;
    bool elsewhere = o->latents_out || o->embeds_out || j->search_path;
    /* a plan need not say where its video would go */
    return j->frame || o->output || o->frames_dir || o->contact_sheet || (o->dry_run && !elsewhere);
}

bool kn_job_wants_latents(const kn_job *j)
{
    return kn_job_wants_frames(j) || j->o->latents_out || j->search_path;
}

/* Before a long clip is read. */
static kn_status check_somewhere(const kn_job *j)
{
    if (!kn_job_wants_latents(j) && !j->o->embeds_out)
        return kn_fail(KN_ERR_ARG, "nowhere to write: give --output FILE (or --frames-dir, --latents-out)");
    return KN_OK;
}

static kn_status check_frames_dir(const kn_job *j)
{
    const char *path = j->o->frames_dir;
    char *frame;
    bool there;
    struct stat s;
    if (stat(path, &s) != 0) return check_parent(j, "--frames-dir", path);
    if (!S_ISDIR(s.st_mode)) return kn_fail(KN_ERR_ARG, "--frames-dir %s: is a file, expected a folder", path);
    if (access(path, W_OK) != 0) return kn_fail(KN_ERR_IO, "--frames-dir %s: the folder is not writable", path);
    if (j->o->overwrite || j->o->resume) return KN_OK; /* those of a run that was stopped may be there */
    KN_TRY(kn_frames_path(path, 0, &frame));
    kn_status st = kn_path_exists(frame, &there);
    if (st == KN_OK && there) st = kn_fail(KN_ERR_ARG, "--frames-dir %s: holds frames; give --overwrite (-y) to replace them", path);
    kn_free(frame);
    return st;
}

/* Of two results under one name the later would replace the earlier. */
static kn_status check_distinct(const kn_job *j)
{
    const kn_options *o = j->o;
    const struct {
        const char *flag, *path;
    } all[] = {{"--output", o->output},         {"--output", j->search_path},      {"--contact-sheet", o->contact_sheet},
               {"--preview", o->preview},       {"--latents-out", o->latents_out}, {"--embeds-out", o->embeds_out},
               {"--frames-dir", o->frames_dir}, {"--debug-dir", o->debug_dir}};
    for (size_t i = 1; i < sizeof all / sizeof all[0]; i++)
        for (size_t k = 0; all[i].path && k < i; k++)
            if (all[k].path && same_place(all[i].path, all[k].path))
                return kn_fail(KN_ERR_ARG, "%s %s: expected a name of its own, found that of %s", all[i].flag, all[i].path, all[k].flag);
    return KN_OK;
}

static kn_status check_picture(const char *flag, const char *path, bool webp)
{
    size_t n = strlen(path);
    if ((n > 4 && !strcasecmp(path + n - 4, ".png")) || (webp && kn_job_preview_is_webp(path))) return KN_OK;
    return kn_fail(KN_ERR_ARG, "%s %s: expected a name that ends in .png%s", flag, path, webp ? " or .webp" : "");
}

static kn_status check_outputs(const kn_job *j)
{
    const kn_options *o = j->o;
    if (o->output) {
        size_t n = strlen(o->output);
        if (n > 4 && !strcasecmp(o->output + n - 4, ".png"))
            return kn_fail(KN_ERR_ARG, "--output %s: expected a video file; PNG frames go to --frames-dir FOLDER, frames side by side in one "
                                       "picture to --contact-sheet FILE", o->output);
        KN_TRY(check_target(j, "--output", o->output));
        kn_video_writer_params p = kn_video_writer_defaults();
        kn_output_video_params(j, &p);
        KN_TRY(kn_video_writer_check(&p));
        KN_TRY(kn_video_writer_check_audio(&p));
    }
    if (j->search_path) KN_TRY(check_target(j, "--output", j->search_path));
    if (o->contact_sheet) {
        KN_TRY(check_picture("--contact-sheet", o->contact_sheet, false));
        KN_TRY(check_target(j, "--contact-sheet", o->contact_sheet));
    }
    if (o->preview) { /* made to be replaced: what stands there does not matter */
        kn_options any = *o;
        any.overwrite = true;
        KN_TRY(check_picture("--preview", o->preview, true));
        kn_job at = {.o = &any, .makes_folders = j->makes_folders};
        KN_TRY(check_target(&at, "--preview", o->preview));
        if (kn_job_preview_is_webp(o->preview)) {
            kn_video_writer_params p;
            kn_job_preview_webp(o->preview, 16, 16, &p);
            KN_TRY(kn_video_writer_check(&p));
        }
    }
    if (o->attention_map) {
        KN_TRY(check_picture("--attention-map", o->attention_map, false));
        KN_TRY(check_target(j, "--attention-map", o->attention_map));
    }
    if (o->latents_out) KN_TRY(check_target(j, "--latents-out", o->latents_out));
    if (o->embeds_out) KN_TRY(check_target(j, "--embeds-out", o->embeds_out));
    if (o->frames_dir) KN_TRY(check_frames_dir(j));
    return check_distinct(j);
}

/* ---- a clip in place of the base pass ---------------------------------------------------------*/

void kn_job_rate(const kn_job *j, int *num, int *den)
{
    *num = j->clip.info.fps_num;
    *den = j->clip.info.fps_den;
    if (*num < 1) kn_fps_rational(j->o->fps, num, den);
}

static kn_status check_clip_options(const kn_job *j)
{
    const kn_options *o = j->o;
    const kn_option *fps = kn_option_find("fps");
    const char *whole = o->latents_out ? "--latents-out" : o->noise_in ? "--noise-in" : NULL;
    if (o->latents_in) return kn_fail(KN_ERR_ARG, "--input and --latents-in are both given: give one");
    if (j->clip.info.fps_num > 0 && kn_options_source(o, fps) == KN_FROM_COMMAND_LINE)
        return kn_fail(KN_ERR_ARG, "--fps: %s keeps its own rate, %d/%d frames/s", j->clip.name, j->clip.info.fps_num,
                       j->clip.info.fps_den);
    if (j->segments.count > 1 && whole)
        return kn_fail(KN_ERR_ARG, "%s: expected a clip of one segment, found %" PRId64 " frames and segments of %" PRId64 " (--frames)",
                       whole, j->clip.frames, j->segments.length);
    return KN_OK;
}

static kn_status open_clip(kn_job *j)
{
    kn_options *o = j->o;
    KN_TRY(kn_clip_open(o->input, (int)o->threads, j->fn, j->user, &j->clip));
    KN_TRY(kn_segments_of(&j->clip, o, &j->segments));
    KN_TRY(check_clip_options(j));
    o->frames = j->segments.length;
    if (j->clip.info.fps_num > 0) o->fps = (double)j->clip.info.fps_num / j->clip.info.fps_den;
    if (!o->refine_size) KN_TRY(kn_options_set(o, "refine-size", "2x", KN_FROM_DEFAULT, "refine-size"));
    return KN_OK;
}

static void tell_clip(kn_job *j)
{
    const kn_clip *c = &j->clip;
    const kn_segments *s = &j->segments;
    int num, den;
    kn_job_rate(j, &num, &den);
    kn_job_note(j, "%s: %" PRId64 "x%" PRId64 "%s, %" PRId64 " frames at %d/%d per second%s; seed %" PRId64 "; %s", c->name,
                c->width_px, c->height_px, c->info.rotation_deg ? " (turned)" : "", c->frames, num, den,
                c->info.has_audio ? j->o->audio ? ", audio is copied" : ", audio is left out" : "", j->o->seed,
                kn_dev_describe(j->session->dev));
    if (c->info.matrix_guessed)
        kn_job_note(j, "%s does not state its colour matrix: read as %s, by its height", c->name, c->info.matrix);
    if (c->uneven_sec * num > 0.75 * den)
        kn_job_note(j, "%s has a variable frame rate: its frames are written evenly, up to %.3f s from their time", c->name,
                    c->uneven_sec);
    if (s->frames < c->frames)
        kn_job_note(j, "the last %" PRId64 " of %" PRId64 " frames are left out, for 4n+1; --tail keep keeps them",
                    c->frames - s->frames, c->frames);
    if (s->count > 1)
        kn_job_note(j, "%" PRId64 " segments of %" PRId64 " frames, %" PRId64 " of which blend with the next", s->count,
                    s->length, s->overlap);
}

static kn_status pick_seed(kn_options *o)
{
    if (o->seed >= 0) return KN_OK;
    /* 32 bits: all that torch's CPU generator uses, and short enough to type again */
    uint32_t drawn;
    if (getrandom(&drawn, sizeof drawn, 0) != (ssize_t)sizeof drawn)
        return kn_fail(KN_ERR_IO, "drawing a seed: %s", strerror(errno));
    o->seed = drawn;
    return KN_OK;
}

/* ---- preparing --------------------------------------------------------------------------------*/

static kn_status open_model(kn_job *j)
{
    kn_options *o = j->o;
    if (!o->model) return kn_fail(KN_ERR_ARG, "no model: give --model FOLDER");
    KN_TRY(kn_model_folder_open(o->model, &j->folder));
    KN_TRY(kn_model_folder_defaults(&j->folder, o));
    char *path;
    KN_TRY(kn_asprintf(&path, "%s/config.json", j->folder.transformer));
    kn_status st = kn_dit_config_read(path, &j->dit);
    kn_free(path);
    return st;
}

static kn_status find_checkpoint(kn_job *j)
{
    const kn_options *o = j->o;
    const char *beside = o->output ? o->output : o->frames_dir ? o->frames_dir : o->latents_out;
    j->first = o->latents_in || o->input ? 1 : 0;
    if (!beside || j->first == j->passes) return KN_OK;
    KN_TRY(kn_checkpoint_path(beside, &j->checkpoint));
    if (!o->resume) return KN_OK;
    kn_checkpoint_place at;
    KN_TRY(kn_job_segments_find(j));
    KN_TRY(kn_checkpoint_peek(j->checkpoint, &at));
    if (!at.exists || at.segment != j->segment) return KN_OK;
    if (o->seed < 0) j->o->seed = at.seed;
    j->resumed = true;
    /* a pass that this job does not have is another job's: loading will say which options differ */
    int pass = at.pass < 0 ? 0 : at.pass < j->passes ? (int)at.pass : j->passes - 1;
    j->midway = at.step < j->pass[pass].steps;
    j->first = pass + !j->midway;
    return KN_OK;
}

kn_status kn_job_prepare(kn_job *j)
{
    kn_options *o = j->o;
    KN_TRY(open_model(j));
    KN_TRY(read_prompt(o));
    KN_TRY(kn_options_resolve(o));
    KN_TRY(check_somewhere(j));
    j->segments = (kn_segments){.count = 1, .length = o->frames, .frames = o->frames};
    if (o->input) KN_TRY(open_clip(j));
    const int64_t clip_px[2] = {j->clip.width_px, j->clip.height_px};
    KN_TRY(kn_passes_build(o, &j->dit, o->input ? clip_px : NULL, j->pass, &j->passes));
    j->geo = j->pass[j->passes - 1].geo;
    for (int i = o->input ? 1 : 0; i < j->passes; i++) j->guided |= j->pass[i].guidance != 1.0;
    return check_outputs(j);
}

/* Where a refine stage starts, and what its tokens see. */
static kn_status tell_refine(kn_job *j, const kn_pass *p)
{
    kn_schedule schedule;
    kn_pass_attention attention;
    char sees[KN_ATTENTION_TEXT];
    KN_TRY(kn_pass_schedule(j->o, p, &schedule));
    KN_TRY(kn_pass_attention_build(p, &j->dit, j->session->dev, &attention));
    kn_pass_attention_text(&attention, sees);
    kn_pass_attention_free(&attention);
    kn_job_note(j, "%s: %" PRId64 "x%" PRId64 ", %" PRId64 " tokens; %d of %d steps from sigma %.4f, guidance %g, shift %g; %s%s, temperature %.4f",
                p->name, p->geo.out_width_px, p->geo.out_height_px, p->geo.tokens, schedule.steps - schedule.begin,
                schedule.steps, schedule.sigma[schedule.begin], p->guidance, p->shift, sees, p->dual ? ", override" : "", p->temperature);
    if (schedule.begin == 0)
        kn_job_note(j, "%s: starts from noise (strength 1): of the clip before it %.2f%% is left", p->name, 100 * (1 - schedule.sigma[0]));
    if (p->fitted && (p->dual || p->dense_steps || p->attention == KN_ATTENTION_DENSE))
        kn_job_note(j, "%s: full self-attention at positions times %.3g x %.3g", p->name, p->position_scale[2], p->position_scale[1]);
    if (p->dual) {
        char steps[48] = "";
        if (p->dual_steps) snprintf(steps, sizeof steps, " of the first %d", p->dual_steps);
        kn_job_note(j, "%s: full branch every %d step%s%s, for %s, layers %d to %d", p->name, p->refresh,
                    p->refresh > 1 ? "s" : "", steps, p->dual_negative ? "both prompts" : "the prompt only",
                    p->dual_layers[0] + 1, p->dual_layers[1]);
    }
    return KN_OK;
}

/* What was asked for and means nothing on the device that there is. */
static void tell_device(kn_job *j)
{
    const kn_options *o = j->o;
    bool host = kn_dev_measured(j->session->dev) != KN_DEV_CUDA, dual = false;
    if (*j->session->no_gpu) kn_job_note(j, "rendering on the CPU: %s", j->session->no_gpu);
    *j->session->no_gpu = 0; /* a batch is told once */
    for (int i = 0; i < j->passes; i++) dual |= j->pass[i].dual;
    if (o->offload && !kn_dev_offloads(j->session->dev))
        kn_job_note(j, "--offload: changes nothing on the CPU, whose weights are in host memory");
    if (o->context_cache == KN_CACHE_HOST && host && dual)
        kn_job_note(j, "--context-cache host: the same as device on the CPU");
}

static kn_status tell_what_follows(kn_job *j)
{
    const kn_options *o = j->o;
    const kn_geometry *g = &j->geo;
    tell_device(j);
    if (o->input)
        tell_clip(j);
    else
        kn_job_note(j, "%" PRId64 "x%" PRId64 ", %" PRId64 " frame%s at %g fps, %" PRId64 " tokens; %" PRId64 " step%s, guidance %g, shift %g, "
                       "seed %" PRId64 "; %s", o->width_px, o->height_px, o->frames, o->frames == 1 ? "" : "s", o->fps,
                j->pass[0].geo.tokens, o->steps, o->steps == 1 ? "" : "s", o->guidance, o->shift, o->seed,
                kn_dev_describe(j->session->dev));
    for (int i = 1; i < j->passes; i++) KN_TRY(tell_refine(j, &j->pass[i]));
    if (g->width_px != g->out_width_px || g->height_px != g->out_height_px)
        kn_job_note(j, "rendered at %" PRId64 "x%" PRId64 " and cropped", g->width_px, g->height_px);
    if (o->resume && !j->resumed) kn_job_note(j, "no checkpoint at %s: starting from the beginning", j->checkpoint ? j->checkpoint : "(none)");
    if (j->resumed) kn_job_note(j, "going on from %s", j->checkpoint);
    return KN_OK;
}

/* --attention-map: the last pass. */
static kn_status draw_attention(kn_job *j)
{
    const kn_options *o = j->o;
    const kn_pass *p = &j->pass[j->passes - 1];
    kn_pass_attention attention;
    char sees[KN_ATTENTION_TEXT], title[KN_ATTENTION_TEXT + 32];
    bool host = kn_dev_measured(j->session->dev) != KN_DEV_CUDA;
    kn_attention_map map = {.title = title, .host_dim = host ? j->dit.head_dim : 0, .has_query = o->attention_query != NULL};
    if (!o->dry_run) return kn_fail(KN_ERR_ARG, "--attention-map: expected with `kinora plan`; a render draws its maps into --debug-dir");
    if (o->attention_query) KN_TRY(kn_attention_query_parse(o->attention_query, map.query));
    KN_TRY(kn_pass_attention_build(p, &j->dit, j->session->dev, &attention));
    snprintf(title, sizeof title, "%s: %s", p->name, kn_pass_attention_text(&attention, sees));
    kn_status st = kn_pass_attention_known(&attention, &map.plan);
    if (st == KN_OK) st = map.plan ? kn_attention_map_write(&map, o->attention_map) :
        kn_fail(KN_ERR_UNSUPPORTED, "--attention-map: the attention of %s (%s) has no plan before the run; %s", p->name, sees,
                p->attention == KN_ATTENTION_DENSE ? "dense attention sees everything"
                                                   : "it is chosen from queries and keys: render with --debug-dir, which draws it");
    kn_pass_attention_free(&attention);
    return st;
}

/* --attention-precision, --attention-skip and --linear-precision exist on some devices only. */
static kn_status check_precision_device(kn_job *j)
{
    for (int i = j->o->input ? 1 : 0; i < j->passes; i++) {
        const kn_pass *p = &j->pass[i];
        bool attention = p->int8 || p->skip_below > 0;
        if ((!attention || kn_attn_approximates(j->session->dev)) && (!p->f8 || kn_dev_multiplies_f8(j->session->dev))) continue;
        const char *name = p->int8 ? i ? "attention-precision" : "base-attention-precision"
                           : p->f8 ? "linear-precision"
                                   : "attention-skip";
        return kn_fail(KN_ERR_UNSUPPORTED, "--%s: expected a Hopper GPU (or --device ref), found %s", name,
                       kn_dev_kind_name(kn_dev_get_kind(j->session->dev)));
    }
    return KN_OK;
}

/* What the passes and the VAE compute, and how long that takes where the device is here to be timed. */
static kn_status tell_work(kn_job *j)
{
    double operations, rate;
    char took[32];
    if (!kn_job_wants_latents(j)) return KN_OK; /* the text alone is no work to speak of */
    KN_TRY(kn_work_of(j, &operations));
    bool peta = operations >= 1e15;
    double amount = operations / (peta ? 1e15 : 1e12);
    const char *unit = peta ? "PFLOP" : "TFLOP";
    if (kn_dev_get_kind(j->session->dev) == KN_DEV_MEASURE) {
        kn_job_note(j, "%-9s %8.3f %s", "work", amount, unit);
        return KN_OK;
    }
    KN_TRY(kn_work_rate(j, &rate));
    kn_job_note(j, "%-9s %8.3f %s, some %s at the speed measured just now", "work", amount, unit,
                kn_duration_text(operations / rate, took, sizeof took));
    return KN_OK;
}

kn_status kn_job_begin(kn_job *j)
{
    kn_memory_plan plan;
    KN_TRY(kn_session_device(j->session, j->o));
    KN_TRY(check_precision_device(j));
    KN_TRY(find_checkpoint(j));
    KN_TRY(pick_seed(j->o));
    KN_TRY(kn_job_identity_build(j->o, (const char *const *)j->folder.files, j->folder.files_count, j->clip.sha256, &j->id));
    KN_TRY(tell_what_follows(j));
    KN_TRY(kn_memory_plan_build(j, &plan));
    if (j->o->dry_run)
        kn_memory_plan_tell(j, &plan);
    else
        kn_memory_plan_tell_contexts(j, &plan);
    kn_memory_plan_keep(j, &plan);
    if (j->o->attention_map) KN_TRY(draw_attention(j));
    KN_TRY(kn_memory_plan_check(j, &plan));
    return j->o->dry_run ? tell_work(j) : KN_OK;
}

const char *kn_part_name(kn_part part)
{
    static const char *const names[KN_PARTS] = {"load", "text", "base", "upsample", "encode", "refine", "decode", "mux"};
    return names[part];
}

/* Networks are opened in the midst of text, passes and decode. */
static void split_seconds(kn_job *j, double load_sec[4])
{
    double *part = j->part_sec;
    part[KN_PART_LOAD] = load_sec[3] - load_sec[0];
    part[KN_PART_TEXT] = j->sec[0] - (load_sec[1] - load_sec[0]);
    part[KN_PART_DECODE] = j->sec[2] - (load_sec[3] - load_sec[2]) - part[KN_PART_MUX];
}

static kn_status finish_debug(const kn_job *j)
{
    char title[160];
    for (int i = 0; i < j->phases; i++) kn_debug_memory(j->debug, &j->phase[i]);
    snprintf(title, sizeof title, "%" PRId64 "x%" PRId64 ", %" PRId64 " frames, seed %" PRId64 ", %s", j->geo.out_width_px,
             j->geo.out_height_px, j->o->frames, j->o->seed, kn_dev_describe(j->session->dev));
    return kn_debug_finish(j->debug, title);
}

kn_status kn_job_run(kn_job *j)
{
    double load_sec[4] = {j->session->load_sec};
    const kn_options *o = j->o;
    bool frames = kn_job_wants_frames(j), texts = kn_job_first_pass(j) < j->passes || o->embeds_out;
    if (o->debug_dir) KN_TRY(kn_debug_open(o->debug_dir, &j->debug));
    if (kn_job_wants_latents(j)) KN_TRY(kn_job_check_given(j));
    double start = kn_now_sec();
    if (texts && !j->embeds[KN_PROMPT]) {
        kn_job_phase_begin(j);
        KN_TRY(kn_job_text(j));
        kn_job_phase_end(j, "text");
    }
    kn_debug_span(j->debug, "phase", "text", start);
    load_sec[1] = j->session->load_sec;
    if (kn_job_wants_latents(j)) KN_TRY(j->segments.count > 1 ? kn_job_segments(j) : kn_job_denoise(j));
    load_sec[2] = j->session->load_sec;
    start = kn_now_sec();
    if (frames) KN_TRY(kn_job_decode(j));
    load_sec[3] = j->session->load_sec;
    split_seconds(j, load_sec);
    kn_debug_span(j->debug, "phase", "decode", start);
    if (j->debug) KN_TRY(finish_debug(j));
    if (j->checkpoint && !o->keep_checkpoint) {
        unlink(j->checkpoint);
        kn_job_segments_remove(j);
    }
    if (o->output && j->fn) {
        kn_event e = {.kind = KN_EVENT_DONE, .text = o->output};
        j->fn(j->user, &e);
    }
    return KN_OK;
}

void kn_job_close(kn_job *j)
{
    for (int i = 0; i < KN_PROMPTS; i++) kn_free(j->embeds[i]);
    kn_free(j->latents);
    kn_free(j->checkpoint);
    kn_debug_close(&j->debug);
    kn_job_identity_free(&j->id);
    kn_model_folder_close(&j->folder);
    kn_clip_close(&j->clip);
    memset(j, 0, sizeof *j);
}

static kn_status render(kn_session *session, kn_options *o, kn_event_fn *fn, void *user, kn_render_cost *cost)
{
    kn_job j = {.o = o, .session = session, .fn = fn, .user = user};
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_job_prepare(&j));
    KN_TRY_GOTO(kn_job_begin(&j));
    if (!o->dry_run) KN_TRY_GOTO(kn_job_run(&j));
done:
    if (st == KN_ERR_CANCELLED && j.checkpoint && access(j.checkpoint, F_OK) == 0)
        st = kn_fail(st, "%s; the same command with --resume goes on from there", kn_error_text());
    if (cost && st == KN_OK) {
        memcpy(cost->part_sec, j.part_sec, sizeof j.part_sec);
        memcpy(cost->phase, j.phase, sizeof j.phase);
        cost->phases = j.phases;
        for (int i = 0; i < j.phases; i++) {
            if (j.phase[i].planned_bytes > cost->planned_bytes) cost->planned_bytes = j.phase[i].planned_bytes;
            if (j.phase[i].peak_bytes > cost->peak_bytes) cost->peak_bytes = j.phase[i].peak_bytes;
        }
    }
    kn_job_close(&j);
    return st;
}

kn_status kn_render_in(kn_session *session, kn_options *o, kn_event_fn *fn, void *user)
{
    return render(session, o, fn, user, NULL);
}

kn_status kn_render_timed(kn_options *o, kn_event_fn *fn, void *user, kn_render_cost *cost)
{
    kn_session session = {0};
    kn_status st = render(&session, o, fn, user, cost);
    kn_session_close(&session);
    return st;
}

kn_status kn_render(kn_options *o, kn_event_fn *fn, void *user)
{
    kn_session session = {0};
    kn_status st = kn_render_in(&session, o, fn, user);
    kn_session_close(&session);
    return st;
}
