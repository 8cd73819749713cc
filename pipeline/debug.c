#include "pipeline/debug.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attention/recall.h"
#include "io/atomic_file.h"
#include "io/memory.h"
#include "io/png.h"
#include "io/safetensors.h"
#include "pipeline/attention_map.h"
#include "pipeline/debug_sheet.h"
#include "pipeline/progress.h"
#include "pipeline/render.h"

enum { SAMPLES = 16 /* queries whose attention is compared with dense */, HEADS_MAX = 256 };

struct kn_debug {
    char *folder;
    char *pass_folder;
    double start_sec;
    json_t *events; /* of trace.json */
    json_t *passes; /* of run.json */
    json_t *memory; /* likewise, by phase */
    json_t *pass, *step; /* entries being filled, owned by passes */
    kn_debug_pass about;
    kn_debug_sheet sheet;
    int step_number;
    double step_start_sec, own_sec; /* own: spent looking, in this step */
    double density_sum, recall_sum; /* over the step's layers that have a recall */
    int density_count, recall_count;
    bool map_drawn; /* of a plan that does not change */

    /* the forward at hand */
    kn_dev *dev;
    const char *branch;
    kn_dit_plan_fn *plan_fn;
    void *plan_user;
    const kn_attn_plan *plan; /* args->plan */
    double forward_sec, block_sec, attention_sec;
    double density, recall; /* of the block; recall < 0: not known */
    double plan_sec;
};

/* ---- opening ----------------------------------------------------------------------------------*/

/* Missing, empty, or an earlier run's. */
static kn_status check_folder(const char *folder)
{
    struct stat s;
    char *run = NULL;
    if (stat(folder, &s) != 0) {
        if (mkdir(folder, 0777) == 0) return KN_OK;
        return kn_fail(KN_ERR_IO, "--debug-dir %s: %s", folder, strerror(errno));
    }
    if (!S_ISDIR(s.st_mode)) return kn_fail(KN_ERR_ARG, "--debug-dir %s: is a file, expected a folder", folder);
    KN_TRY(kn_asprintf(&run, "%s/run.json", folder));
    bool ours = access(run, F_OK) == 0, empty = true;
    kn_free(run);
    DIR *dir = opendir(folder);
    if (!dir) return kn_fail(KN_ERR_IO, "--debug-dir %s: %s", folder, strerror(errno));
    errno = 0;
    for (struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) empty = false;
    int unread = errno;
    closedir(dir);
    if (unread) return kn_fail(KN_ERR_IO, "--debug-dir %s: %s", folder, strerror(unread));
    if (ours || empty) return KN_OK;
    return kn_fail(KN_ERR_ARG, "--debug-dir %s: holds other files; expected a new or empty folder", folder);
}

kn_status kn_debug_open(const char *folder, kn_debug **out)
{
    *out = NULL;
    void *memory;
    kn_status st;
    KN_TRY(check_folder(folder));
    KN_TRY(kn_alloc_zero(sizeof(kn_debug), &memory));
    kn_debug *d = memory;
    KN_TRY_GOTO(kn_strdup(folder, &d->folder));
    d->events = json_array();
    d->passes = json_array();
    d->memory = json_object();
    if (!d->events || !d->passes || !d->memory) KN_TRY_GOTO(kn_fail(KN_ERR_NOMEM, "--debug-dir: no memory"));
    d->start_sec = kn_now_sec();
    *out = d;
    d = NULL;
done:
    kn_debug_close(&d);
    return st;
}

void kn_debug_close(kn_debug **debug)
{
    kn_debug *d = *debug;
    *debug = NULL;
    if (!d) return;
    json_decref(d->events);
    json_decref(d->passes);
    json_decref(d->memory);
    kn_debug_sheet_free(&d->sheet);
    kn_free(d->folder);
    kn_free(d->pass_folder);
    kn_free(d);
}

/* ---- timeline ---------------------------------------------------------------------------------*/

static void add_span(kn_debug *d, const char *category, const char *name, double from_sec, double to_sec)
{
    /* A full timeline is not worth ending a run for: without memory the event is left out. */
    json_array_append_new(d->events, json_pack("{s:s, s:s, s:s, s:f, s:f, s:i, s:i}", "ph", "X", "cat", category, "name", name,
                                               "ts", 1e6 * (from_sec - d->start_sec), "dur", 1e6 * (to_sec - from_sec), "pid", 1,
                                               "tid", 1));
}

void kn_debug_span(kn_debug *d, const char *category, const char *name, double start_sec)
{
    if (d) add_span(d, category, name, start_sec, kn_now_sec());
}

/* A counter of the timeline, at its end, and an entry of run.json. */
void kn_debug_memory(kn_debug *d, const kn_phase_memory *m)
{
    if (!d) return;
    json_t *numbers = json_pack("{s:I, s:I, s:I, s:I}", "planned_bytes", (json_int_t)m->planned_bytes, "peak_bytes",
                                (json_int_t)m->peak_bytes, "planned_host_bytes", (json_int_t)m->planned_host_bytes,
                                "peak_host_bytes", (json_int_t)m->peak_host_bytes);
    json_array_append_new(d->events, json_pack("{s:s, s:s, s:s, s:f, s:i, s:i, s:O*}", "ph", "C", "cat", "memory", "name", m->name,
                                               "ts", 1e6 * (kn_now_sec() - d->start_sec), "pid", 1, "tid", 1, "args", numbers));
    json_object_set_new(d->memory, m->name, numbers);
}

/* ---- passes and steps -------------------------------------------------------------------------*/

static json_t *rounded(double x)
{
    return x < 0 ? json_null() : json_real(round(x * 1e6) / 1e6);
}

kn_status kn_debug_pass_begin(kn_debug *d, const kn_debug_pass *pass)
{
    d->about = *pass;
    d->map_drawn = false;
    kn_free(d->pass_folder);
    d->pass_folder = NULL;
    KN_TRY(kn_asprintf(&d->pass_folder, "%s/%s", d->folder, pass->name));
    for (char *c = d->pass_folder + strlen(d->folder); *c; c++)
        if (*c == ' ') *c = '_';
    if (mkdir(d->pass_folder, 0777) != 0 && errno != EEXIST)
        return kn_fail(KN_ERR_IO, "--debug-dir: making the folder %s: %s", d->pass_folder, strerror(errno));
    d->pass = json_pack("{s:s, s:s, s:i, s:i, s:[]}", "pass", pass->name, "attention", pass->attention, "first_step",
                        pass->begin + 1, "steps", pass->steps, "step");
    if (json_array_append_new(d->passes, d->pass) != 0) return kn_fail(KN_ERR_NOMEM, "--debug-dir: no memory");
    d->about.attention = json_string_value(json_object_get(d->pass, "attention")); /* the caller's ends */
    return KN_OK;
}

static kn_status begin_step(kn_debug *d, int step)
{
    if (d->step && d->step_number == step) return KN_OK;
    d->step = json_pack("{s:i, s:[]}", "step", step, "layers");
    if (json_array_append_new(json_object_get(d->pass, "step"), d->step) != 0) return kn_fail(KN_ERR_NOMEM, "--debug-dir: no memory");
    d->step_number = step;
    d->step_start_sec = kn_now_sec();
    d->own_sec = d->density_sum = d->recall_sum = 0;
    d->density_count = d->recall_count = 0;
    return KN_OK;
}

static kn_status write_step(const kn_debug *d, kn_dev *dev, double sigma, const kn_tensor *latents, const kn_tensor *velocity)
{
    float *x = NULL, *denoised = NULL;
    char *path = NULL;
    kn_status st;
    size_t bytes = kn_tensor_bytes(latents);
    KN_TRY_GOTO(kn_alloc(bytes, (void **)&x));
    KN_TRY_GOTO(kn_alloc(bytes, (void **)&denoised));
    KN_TRY_GOTO(kn_dev_download(dev, latents, x));
    KN_TRY_GOTO(kn_dev_download(dev, velocity, denoised));
    for (int64_t i = 0; i < kn_tensor_count(latents); i++) denoised[i] = x[i] - (float)sigma * denoised[i];
    KN_TRY_GOTO(kn_asprintf(&path, "%s/step_%03d.safetensors", d->pass_folder, d->step_number));
    kn_st_tensor t[2] = {{.name = "latents", .dtype = KN_ST_F32, .rank = 4, .data = x, .bytes = bytes},
                         {.name = "denoised", .dtype = KN_ST_F32, .rank = 4, .data = denoised, .bytes = bytes}};
    for (int i = 0; i < 4; i++) t[0].dim[i] = t[1].dim[i] = latents->dim[i];
    KN_TRY_GOTO(kn_safetensors_write(path, t, 2, NULL));
done:
    kn_free(x);
    kn_free(denoised);
    kn_free(path);
    return st;
}

kn_status kn_debug_step(kn_debug *d, kn_dev *dev, double sigma, const kn_tensor *latents, const kn_tensor *velocity)
{
    double start = kn_now_sec();
    KN_TRY(write_step(d, dev, sigma, latents, velocity));
    json_object_set_new(d->step, "sigma", json_real(sigma));
    add_span(d, "debug", "write latents", start, kn_now_sec());
    d->own_sec += kn_now_sec() - start;
    return KN_OK;
}

void kn_debug_step_end(kn_debug *d)
{
    if (!d->step) return;
    char name[24];
    double now = kn_now_sec(), seconds = now - d->step_start_sec - d->own_sec;
    double density = d->density_count ? d->density_sum / d->density_count : 1;
    double recall = d->recall_count ? d->recall_sum / d->recall_count : -1;
    snprintf(name, sizeof name, "step %d", d->step_number);
    add_span(d, "step", name, d->step_start_sec, now);
    json_object_set_new(d->step, "seconds", rounded(seconds));
    json_object_set_new(d->step, "density", rounded(density));
    json_object_set_new(d->step, "recall", rounded(recall));
    d->step = NULL;
}

/* ---- forwards ---------------------------------------------------------------------------------*/

/* Queries or keys in host memory: themselves, or a copy that the caller frees. */
static kn_status on_host(kn_dev *dev, const kn_tensor *t, kn_tensor *host, void **copy)
{
    *copy = NULL;
    *host = *t;
    if (kn_dev_get_kind(dev) != KN_DEV_CUDA) return KN_OK;
    KN_TRY(kn_alloc(kn_tensor_bytes(t), copy));
    *host = kn_tensor_make(*copy, t->dtype, t->rank, t->dim);
    return kn_dev_download(dev, t, *copy);
}

static kn_status measure_recall(kn_debug *d, const kn_attn_plan *plan, const kn_tensor *q, const kn_tensor *k)
{
    double recall[HEADS_MAX];
    kn_tensor hq, hk;
    void *cq = NULL, *ck = NULL;
    kn_status st = KN_OK;
    if (q->dim[1] > HEADS_MAX) return KN_OK;
    KN_TRY_GOTO(on_host(d->dev, q, &hq, &cq));
    KN_TRY_GOTO(on_host(d->dev, k, &hk, &ck));
    KN_TRY_GOTO(kn_attn_plan_recall(d->dev, plan, &hq, &hk, d->about.softmax_scale, SAMPLES, recall));
    d->recall = 0;
    for (int64_t h = 0; h < q->dim[1]; h++) d->recall += recall[h] / (double)q->dim[1];
done:
    kn_free(cq);
    kn_free(ck);
    return st;
}

static kn_status draw_map(kn_debug *d, int layer, const kn_attn_plan *plan, int64_t dim)
{
    const kn_debug_pass *p = &d->about;
    int middle = (p->begin + 1 + p->steps) / 2, step = d->step_number;
    bool fixed = plan == d->plan, chosen = step == p->begin + 1 || step == middle || step == p->steps;
    if (layer != p->layers / 2 || strcmp(d->branch, "prompt") != 0) return KN_OK;
    if (fixed ? d->map_drawn : !chosen) return KN_OK;
    char *path, title[320];
    snprintf(title, sizeof title, "%s, step %d, layer %d: %s", p->name, step, layer, p->attention);
    KN_TRY(kn_asprintf(&path, "%s/attention_step_%03d_layer_%02d.png", d->pass_folder, step, layer));
    bool host = kn_dev_get_kind(d->dev) != KN_DEV_CUDA;
    kn_attention_map map = {.plan = plan, .title = title, .host_dim = host ? dim : 0};
    kn_status st = kn_attention_map_write(&map, path);
    kn_free(path);
    d->map_drawn = true;
    return st;
}

/* In the place of the forward's own: asks that one, and looks at what it says. */
static kn_status look_at_plan(void *user, int layer, const kn_tensor *q, const kn_tensor *k, const kn_attn_plan **plan)
{
    kn_debug *d = user;
    double start = kn_now_sec();
    *plan = d->plan;
    if (d->plan_fn) KN_TRY(d->plan_fn(d->plan_user, layer, q, k, plan));
    double planned = kn_now_sec();
    d->plan_sec = planned - start;
    d->density = d->recall = 1;
    if (*plan) {
        add_span(d, "plan", "choose blocks", start, planned);
        d->density = (*plan)->density;
        d->recall = -1;
        KN_TRY(kn_attn_plan_fetch(*plan));
        KN_TRY(measure_recall(d, *plan, q, k));
        KN_TRY(draw_map(d, layer, *plan, q->dim[2]));
        add_span(d, "debug", "recall", planned, kn_now_sec());
    }
    double own = kn_now_sec() - planned;
    d->own_sec += own;
    d->block_sec += own; /* so that the block's time leaves it out */
    d->attention_sec = kn_now_sec();
    return KN_OK;
}

static void end_block(kn_debug *d, int block, double now)
{
    char name[24];
    snprintf(name, sizeof name, "block %d", block);
    add_span(d, "block", name, d->block_sec, now);
    json_array_append_new(json_object_get(d->step, "layers"),
                          json_pack("{s:s, s:i, s:o, s:o, s:o, s:o}", "branch", d->branch, "layer", block, "density",
                                    rounded(d->density), "recall", rounded(d->recall), "plan_seconds", rounded(d->plan_sec),
                                    "block_seconds", rounded(now - d->block_sec)));
    if (strncmp(d->branch, "full", 4) != 0) {
        d->density_sum += d->density;
        d->density_count++;
        if (d->recall >= 0) d->recall_sum += d->recall, d->recall_count++;
    }
    d->block_sec = now;
}

static kn_status on_tap(void *user, const char *name, const kn_tensor *t)
{
    (void)t;
    kn_debug *d = user;
    char *what;
    if (strcmp(name, "patch_embed") == 0) {
        KN_TRY(kn_dev_sync(d->dev));
        d->block_sec = kn_now_sec();
    }
    if (strncmp(name, "blocks.", 7) != 0) return KN_OK;
    int block = (int)strtol(name + 7, &what, 10);
    bool attention = strcmp(what, ".attn1") == 0, last = strcmp(what, ".out") == 0;
    if (!attention && !last) return KN_OK;
    KN_TRY(kn_dev_sync(d->dev));
    double now = kn_now_sec();
    if (attention)
        add_span(d, "attention", "self-attention", d->attention_sec, now);
    else
        end_block(d, block, now);
    return KN_OK;
}

kn_status kn_debug_forward(kn_debug *d, kn_dev *dev, const char *branch, int step, kn_dit_args *args)
{
    KN_TRY(begin_step(d, step));
    d->dev = dev;
    d->branch = branch;
    d->plan_fn = args->plan_fn;
    d->plan_user = args->plan_user;
    d->plan = args->plan;
    args->plan_fn = look_at_plan;
    args->plan_user = d;
    args->tap = (kn_dit_tap){on_tap, d};
    d->forward_sec = d->block_sec = d->attention_sec = kn_now_sec();
    return KN_OK;
}

void kn_debug_forward_end(kn_debug *d)
{
    char name[48];
    snprintf(name, sizeof name, "transformer, %s", d->branch);
    add_span(d, "forward", name, d->forward_sec, kn_now_sec());
}

/* ---- previews ---------------------------------------------------------------------------------*/

/* Frames side by side, 4 px apart. */
static kn_status write_strip(const char *path, float *const *rgb, int count, int width, int height)
{
    kn_canvas c;
    KN_TRY(kn_canvas_build(count * (width + 4) - 4, height, 0x808080, &c));
    for (int i = 0; i < count; i++) kn_canvas_picture(&c, i * (width + 4), 0, rgb[i], width, height, 1);
    kn_status st = kn_canvas_write(&c, path);
    kn_canvas_free(&c);
    return st;
}

static kn_status preview(kn_debug *d, const json_t *step, kn_debug_decode_fn *decode, void *user)
{
    int number = (int)json_integer_value(json_object_get(step, "step")), count = 0, width = 0, height = 0;
    float *rgb[3] = {0};
    char *path = NULL, *picture = NULL;
    kn_safetensors *file = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_asprintf(&path, "%s/step_%03d.safetensors", d->pass_folder, number));
    KN_TRY_GOTO(kn_asprintf(&picture, "%s/step_%03d.png", d->pass_folder, number));
    KN_TRY_GOTO(kn_safetensors_open(path, NULL, &file));
    const kn_st_tensor *t = kn_safetensors_find(file, "denoised", NULL);
    if (!t) KN_TRY_GOTO(kn_fail(KN_ERR_FORMAT, "%s: tensor denoised is missing", path));
    kn_tensor all = kn_tensor_make((void *)(uintptr_t)t->data, KN_F32, 4, t->dim);
    int64_t frames[3] = {0, t->dim[1] / 2, t->dim[1] - 1};
    for (int i = 0; i < 3; i++) {
        if (i > 0 && frames[i] == frames[i - 1]) continue;
        kn_tensor latent = kn_tensor_slice(&all, 1, frames[i], 1);
        KN_TRY_GOTO(decode(user, &latent, &rgb[count], &width, &height));
        count++;
    }
    if (count * (width + 4) > KN_PNG_MAX_PX) count = 1;
    KN_TRY_GOTO(write_strip(picture, rgb, count, width, height));
    KN_TRY_GOTO(kn_debug_sheet_add(&d->sheet, d->about.name, step, rgb[count / 2], width, height));
done:
    for (int i = 0; i < 3; i++) kn_free(rgb[i]);
    kn_safetensors_close(&file);
    kn_free(path);
    kn_free(picture);
    return st;
}

kn_status kn_debug_pass_end(kn_debug *d, kn_debug_decode_fn *decode, void *user)
{
    double start = kn_now_sec();
    size_t i;
    json_t *step;
    json_array_foreach (json_object_get(d->pass, "step"), i, step)
        if (json_object_get(step, "sigma")) KN_TRY(preview(d, step, decode, user));
    add_span(d, "debug", "previews", start, kn_now_sec());
    return KN_OK;
}

/* ---- the end ----------------------------------------------------------------------------------*/

static kn_status write_json(const kn_debug *d, const char *name, json_t *value)
{
    char *path = NULL, *text = value ? json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    kn_status st;
    json_decref(value);
    if (!text) return kn_fail(KN_ERR_NOMEM, "--debug-dir: no memory for %s", name);
    KN_TRY_GOTO(kn_asprintf(&path, "%s/%s", d->folder, name));
    KN_TRY_GOTO(kn_file_write(path, text, strlen(text)));
done:
    free(text); /* jansson's */
    kn_free(path);
    return st;
}

kn_status kn_debug_finish(kn_debug *d, const char *title)
{
    char *path = NULL;
    add_span(d, "run", "run", d->start_sec, kn_now_sec());
    KN_TRY(write_json(d, "trace.json", json_pack("{s:O, s:s}", "traceEvents", d->events, "displayTimeUnit", "ms")));
    KN_TRY(write_json(d, "run.json", json_pack("{s:s, s:O, s:O}", "title", title, "memory", d->memory, "passes", d->passes)));
    KN_TRY(kn_asprintf(&path, "%s/contact_sheet.png", d->folder));
    kn_status st = kn_debug_sheet_write(&d->sheet, title, path);
    kn_free(path);
    return st;
}
