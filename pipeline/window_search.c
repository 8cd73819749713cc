#include "pipeline/window_search.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/memory.h"
#include "io/text.h"
#include "pipeline/render_job.h"
#include "pipeline/tile_windows.h"

enum { BLOCK = 128 /* as pipeline/pass_attention.c */ };
_Static_assert((int)KN_WINDOW_RANGES_MAX == 16, "kn_stage_search.sigma_min is too short");

/* ---- a stage ----------------------------------------------------------------------------------*/

/* Range of a step of the stage: the steps that are looked at, in even parts. */
static int range_at(const kn_stage_search *s, int step)
{
    int looked = s->steps - s->dense_steps;
    return (int)((int64_t)(step - s->dense_steps) * s->ranges / looked);
}

kn_status kn_stage_search_begin(kn_stage_search *s, kn_dev *dev, kn_dtype activation, const kn_dit_config *dit,
                                const kn_pass_attention *attention, kn_arena **memory)
{
    int64_t tokens = kn_grid_tokens(attention->layout.grid);
    kn_tensor shape = kn_tensor_of(NULL, activation, tokens, dit->heads, dit->head_dim);
    enum { SLACK = 256 };
    KN_TRY(kn_arena_open(dev, kn_tensor_bytes(&shape) + SLACK, memory));
    KN_TRY(kn_arena_tensor(*memory, activation, 3, shape.dim, &s->out));
    s->dev = dev;
    s->attention = attention;
    return KN_OK;
}

kn_status kn_stage_search_look(void *user, int layer, const kn_attn_args *attn)
{
    kn_stage_search *s = user;
    int step = s->attention->step;
    if (step < s->dense_steps) return KN_OK;
    int range = range_at(s, step);
    if (layer == 0) s->looks[range]++;
    int64_t at = ((int64_t)range * s->layers + layer) * s->candidates.windows * s->heads;
    return kn_tile_search_look(s->dev, &s->candidates, attn, &s->out, s->error + at, s->own + at);
}

/* "3x3x5,5x1x1", in tiles. */
static kn_status read_candidates(const char *text, const kn_attn_layout *layout, int window[KN_TILE_WINDOWS_MAX][3], int *count)
{
    *count = 0;
    if (!strcmp(text, "auto")) {
        *count = kn_tile_search_candidates(layout, window);
        return KN_OK;
    }
    for (const char *at = text;; at++) {
        char item[32];
        size_t n = strcspn(at, ",");
        int end = 0, *w = window[*count];
        snprintf(item, sizeof item, "%.*s", (int)n, at);
        bool good = n < sizeof item && *count < KN_TILE_WINDOWS_MAX && /* NOLINTNEXTLINE(cert-err34-c): four digits at most */
                    sscanf(item, "%4dx%4dx%4d%n", &w[0], &w[1], &w[2], &end) == 3 && item[end] == '\0' && w[0] > 0 &&
                    w[1] > 0 && w[2] > 0;
        if (!good)
            return kn_fail(KN_ERR_ARG, "--candidates: expected auto or up to %d windows in tiles, TxHxW, with commas between, found '%s'",
                           KN_TILE_WINDOWS_MAX, text);
        ++*count;
        at += n;
        if (!*at) return KN_OK;
    }
}

static kn_status open_stage(kn_job *j, kn_pass *pass, kn_stage_search *s)
{
    const kn_options *o = j->o;
    kn_schedule schedule;
    kn_pass_attention attention;
    int window[KN_TILE_WINDOWS_MAX][3], count = 0;
    KN_TRY(kn_pass_schedule(o, pass, &schedule));
    *s = (kn_stage_search){.pass = pass, .layers = j->dit.layers, .heads = j->dit.heads, .steps = schedule.steps - schedule.begin};
    s->dense_steps = (int)pass->dense_steps;
    int looked = s->steps - s->dense_steps;
    if (looked < 1)
        return kn_fail(KN_ERR_ARG, "%s: all of its %d steps stay dense (--dense-steps): no window to search for", pass->name, s->steps);
    s->ranges = o->ranges < looked ? (int)o->ranges : looked;
    for (int i = 0; i < looked; i++) /* the last of the range wins */
        s->sigma_min[range_at(s, s->dense_steps + i)] = schedule.sigma[schedule.begin + s->dense_steps + i];
    s->sigma_min[s->ranges - 1] = 0;
    pass->dual = false; /* dense branches are equal */
    pass->dense_steps = s->steps;
    KN_TRY(kn_pass_attention_build(pass, &j->dit, j->session->dev, &attention));
    s->layout = attention.layout;
    kn_pass_attention_free(&attention);
    KN_TRY(read_candidates(o->candidates, &s->layout, window, &count));
    KN_TRY(kn_tile_search_open(&s->layout, BLOCK, (const int (*)[3])window, count, &s->candidates));
    size_t cells = (size_t)(s->ranges * s->layers * s->candidates.windows) * (size_t)s->heads;
    KN_TRY(kn_alloc_zero(cells * sizeof *s->error, (void **)&s->error));
    return kn_alloc_zero(cells * sizeof *s->own, (void **)&s->own);
}

static void close_stage(kn_stage_search *s)
{
    kn_tile_search_close(&s->candidates);
    kn_free(s->error);
    kn_free(s->own);
}

/* ---- the choice -------------------------------------------------------------------------------*/

typedef struct choosing {
    const kn_stage_search *s;
    int units;              /* ranges x layers x heads */
    double *error, *own;    /* [units][windows]: sum, and mean, over looks */
    double *weight;         /* [units] */
    int *choice, *trial;    /* [units] */
} choosing;

static void free_choosing(choosing *c)
{
    kn_free(c->error);
    kn_free(c->own);
    kn_free(c->weight);
    kn_free(c->choice);
    kn_free(c->trial);
}

/* Errors by unit instead of by window. */
static kn_status sort_errors(const kn_stage_search *s, choosing *c)
{
    int W = s->candidates.windows, H = s->heads;
    *c = (choosing){.s = s, .units = s->ranges * s->layers * H};
    size_t units = (size_t)c->units;
    KN_TRY(kn_alloc_array(units * (size_t)W, sizeof *c->error, (void **)&c->error));
    KN_TRY(kn_alloc_array(units * (size_t)W, sizeof *c->own, (void **)&c->own));
    KN_TRY(kn_alloc_array(units, sizeof *c->weight, (void **)&c->weight));
    KN_TRY(kn_alloc_array(units, sizeof *c->choice, (void **)&c->choice));
    KN_TRY(kn_alloc_array(units, sizeof *c->trial, (void **)&c->trial));
    for (int64_t u = 0; u < c->units; u++) {
        int64_t group = u / H, head = u % H; /* group: range and layer */
        int64_t range = group / s->layers;
        double looks = (double)s->looks[range];
        c->weight[u] = looks;
        for (int64_t w = 0; w < W; w++) {
            int64_t from = (group * W + w) * H + head;
            c->error[u * W + w] = s->error[from];
            c->own[u * W + w] = looks > 0 ? s->own[from] / looks : 0;
        }
    }
    return KN_OK;
}

/* Relative L2 of attention outputs, root mean square over forwards and layers; mean density. */
static void judge(const choosing *c, const int *choice, double *error, double *density)
{
    const kn_stage_search *s = c->s;
    double off = 0, dense = 0, all = 0, looks = 0;
    for (int64_t u = 0; u < c->units; u++) {
        off += c->error[u * s->candidates.windows + choice[u]];
        dense += c->weight[u] * s->candidates.density[choice[u]];
        all += c->weight[u];
    }
    for (int r = 0; r < s->ranges; r++) looks += (double)s->looks[r];
    *error = sqrt(off / (looks * s->layers));
    *density = dense / all;
}

static kn_status choose(const choosing *c, const kn_options *o, int *choice)
{
    const kn_stage_search *s = c->s;
    if (o->max_error > 0) {
        kn_tile_choose_bound(&s->candidates, c->units, c->own, o->max_error * o->max_error, choice);
        return KN_OK;
    }
    return kn_tile_choose_budget(&s->candidates, c->units, c->error, c->weight, o->budget, choice);
}

/* What one window for all heads would lose, and what the choice loses at its density. */
static kn_status tell_uniform(kn_job *j, choosing *c)
{
    const kn_tile_search *t = &c->s->candidates;
    for (int w = 0; w < t->windows; w++) {
        double error, density, own_error, own_density;
        if (w == t->full) continue;
        for (int u = 0; u < c->units; u++) c->trial[u] = w;
        judge(c, c->trial, &error, &density);
        KN_TRY(kn_tile_choose_budget(t, c->units, c->error, c->weight, density, c->trial));
        judge(c, c->trial, &own_error, &own_density);
        kn_job_note(j, "%s: %dx%dx%d tiles for all: density %.4f, error %.4f; by layer and head: %.4f, %.4f", c->s->pass->name,
                    t->window[w][0], t->window[w][1], t->window[w][2], density, error, own_density, own_error);
    }
    return KN_OK;
}

static json_t *calibration_json(const kn_job *j, const kn_stage_search *s, double density, double error)
{
    const kn_options *o = j->o;
    json_t *bound = o->max_error > 0 ? json_pack("{s:f}", "max_error", o->max_error) : json_pack("{s:f}", "budget", o->budget);
    json_t *c = json_pack("{s:s, s:I, s:i, s:i, s:f, s:f, s:f}", "prompt", o->prompt ? o->prompt : "", "seed", (json_int_t)o->seed,
                          "steps", s->steps, "dense_steps", s->dense_steps, "temperature", s->pass->temperature, "density",
                          density, "error", error);
    if (c && json_object_update(c, bound) != 0) {
        json_decref(c);
        c = NULL;
    }
    json_decref(bound);
    return c;
}

static kn_status finish_stage(kn_job *j, const kn_stage_search *s, json_t *stages)
{
    choosing c;
    double error, density;
    kn_tile_windows w = {.layout = s->layout, .ranges = s->ranges, .layers = s->layers, .heads = s->heads};
    kn_status st = KN_OK;
    KN_TRY_GOTO(sort_errors(s, &c));
    KN_TRY_GOTO(choose(&c, j->o, c.choice));
    judge(&c, c.choice, &error, &density);
    KN_TRY_GOTO(kn_alloc_array((size_t)c.units, sizeof *w.window, (void **)&w.window));
    for (int u = 0; u < c.units; u++) memcpy(w.window[u], s->candidates.window[c.choice[u]], sizeof w.window[u]);
    memcpy(w.sigma_min, s->sigma_min, (size_t)s->ranges * sizeof *w.sigma_min);
    if (j->o->verbose) KN_TRY_GOTO(tell_uniform(j, &c));
    kn_job_note(j, "%s: %.2f%% of dense, relative error of attention outputs %.4f", s->pass->name, 100 * density, error);
    if (json_array_append_new(stages, kn_tile_windows_json(&w, calibration_json(j, s, density, error))) != 0)
        st = kn_fail(KN_ERR_NOMEM, "out of memory: windows as JSON");
done:
    kn_free(w.window);
    free_choosing(&c);
    return st;
}

/* ---- the run ----------------------------------------------------------------------------------*/

static kn_status check_options(const kn_options *o)
{
    size_t n = o->output ? strlen(o->output) : 0;
    const char *wrong = o->debug_dir ? "--debug-dir" : o->tile_windows ? "--tile-windows" : o->resume ? "--resume" : NULL;
    if (n < 6 || strcmp(o->output + n - 5, ".json"))
        return kn_fail(KN_ERR_ARG, "--output: expected the file for the windows, *.json, found %s", o->output ? o->output : "none");
    if (wrong) return kn_fail(KN_ERR_ARG, "%s: not with search-windows", wrong);
    if (!o->refine_size && !o->input) return kn_fail(KN_ERR_ARG, "--refine-size: expected a refine stage to search windows for, found none");
    return KN_OK;
}

static kn_status run_search(kn_job *j, const char *path)
{
    kn_options *o = j->o;
    kn_stage_search stage[KN_PASSES_MAX] = {0};
    json_t *stages = json_array();
    kn_status st = stages ? KN_OK : kn_fail(KN_ERR_NOMEM, "out of memory: windows as JSON");
    KN_TRY_GOTO(st);
    KN_TRY_GOTO(kn_job_prepare(j));
    if (j->segments.count > 1) {
        st = kn_fail(KN_ERR_ARG, "search-windows: expected a clip of one segment, found %lld frames and segments of %lld (--frames)",
                     (long long)j->clip.frames, (long long)j->segments.length);
        goto done;
    }
    KN_TRY_GOTO(kn_session_device(j->session, o));
    for (int i = 1; i < j->passes; i++) KN_TRY_GOTO(open_stage(j, &j->pass[i], &stage[i]));
    j->search = stage;
    KN_TRY_GOTO(kn_job_begin(j));
    if (o->dry_run) goto done;
    for (int i = 1; i < j->passes; i++)
        kn_job_note(j, "%s: %d candidate windows at each of %d steps, %d ranges", j->pass[i].name, stage[i].candidates.windows,
                    stage[i].steps - stage[i].dense_steps, stage[i].ranges);
    KN_TRY_GOTO(kn_job_run(j));
    for (int i = 1; i < j->passes; i++) KN_TRY_GOTO(finish_stage(j, &stage[i], stages));
    st = kn_tile_windows_write(path, j->dit.layers, j->dit.heads, stages);
    stages = NULL;
    if (st == KN_OK && j->fn) {
        kn_event e = {.kind = KN_EVENT_DONE, .text = path};
        j->fn(j->user, &e);
    }
done:
    json_decref(stages);
    for (int i = 0; i < KN_PASSES_MAX; i++) close_stage(&stage[i]);
    return st;
}

kn_status kn_window_search(kn_options *o, kn_event_fn *fn, void *user)
{
    kn_session session = {0};
    kn_job j = {.o = o, .session = &session, .fn = fn, .user = user};
    KN_TRY(check_options(o));
    char *path = o->output; /* no video */
    o->output = NULL;
    kn_status st = kn_options_set(o, "attention", "tile3d", KN_FROM_COMMAND_LINE, "search-windows");
    j.search_path = path;
    if (st == KN_OK) st = run_search(&j, path);
    kn_job_close(&j);
    kn_session_close(&session);
    o->output = path;
    return st;
}
