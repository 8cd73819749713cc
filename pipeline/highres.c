#include "pipeline/highres.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention/window.h"
#include "io/memory.h"
#include "io/text.h"
#include "pipeline/solver.h"

/* ---- options to passes ------------------------------------------------------------------------*/

/* "1280x720" or "2x" (of the size of `from`) at *at, which moves behind it and its comma. */
static kn_status read_size(const kn_options *o, const kn_geometry *from, const char **at, int64_t *width, int64_t *height)
{
    char item[32], *x;
    size_t n = strcspn(*at, ",");
    snprintf(item, sizeof item, "%.*s", (int)n, *at);
    bool more = (*at)[n] == ',';
    *at += n + more;
    double factor;
    x = strpbrk(item, "xX*");
    bool good = n > 0 && n < sizeof item && x && (!more || **at);
    if (good) *x++ = '\0';
    if (good && !*x) {
        good = kn_text_to_double(item, &factor) && factor >= 1 && factor <= 64;
        *width = good ? llround((double)from->out_width_px * factor) : 0;
        *height = good ? llround((double)from->out_height_px * factor) : 0;
    } else if (good) {
        good = kn_text_to_int(item, width) && kn_text_to_int(x, height);
    }
    if (!good || *width < 1 || *height < 1 || *width > 16384 || *height > 16384)
        return kn_fail(KN_ERR_ARG, "--refine-size: expected sizes up to 16384 such as 2x or 1280x720, with commas between, found '%s'",
                       o->refine_size);
    return KN_OK;
}

/* Token grid of a frame: h, w. */
static void frame_tokens(const kn_geometry *g, const kn_dit_config *dit, int64_t out[2])
{
    out[0] = g->height_lat / dit->patch[1];
    out[1] = g->width_lat / dit->patch[2];
}

static kn_status read_window(const kn_options *o, const int64_t base[2], int window[2])
{
    if (!strcmp(o->window, "auto")) {
        for (int a = 0; a < 2; a++) window[a] = (int)(base[a] / 2 * 2 + 1);
        return KN_OK;
    }
    char text[32];
    int64_t w = 0, h = 0;
    snprintf(text, sizeof text, "%s", o->window);
    char *x = strpbrk(text, "xX*");
    if (x) *x = '\0';
    if (!x || strlen(o->window) >= sizeof text || !kn_text_to_int(text, &w) || !kn_text_to_int(x + 1, &h) || w < 1 ||
        h < 1 || w > 4095 || h > 4095 || w % 2 == 0 || h % 2 == 0)
        return kn_fail(KN_ERR_ARG, "--window: expected auto or WIDTHxHEIGHT in tokens, both odd, such as 53x31, found '%s'",
                       o->window);
    window[0] = (int)h;
    window[1] = (int)w;
    return KN_OK;
}

static kn_status read_temperature(const kn_options *o, const int64_t base[2], double *out)
{
    double n = (double)(base[0] * base[1]);
    *out = 1;
    if (!strcmp(o->temperature, "off")) return KN_OK;
    if (!strcmp(o->temperature, "auto")) {
        if (n > 1) *out = sqrt(log(2 * n) / log(n));
        return KN_OK;
    }
    if (!kn_text_to_double(o->temperature, out) || *out < 0.1 || *out > 10)
        return kn_fail(KN_ERR_ARG, "--temperature: expected auto, off or a factor from 0.1 to 10, found '%s'", o->temperature);
    return KN_OK;
}

static kn_pass base_pass(const kn_options *o, const kn_dit_config *dit)
{
    kn_pass p = {.name = "denoise",
                 .geo = kn_geometry_of(o->width_px, o->height_px, o->frames, dit->in_channels, dit->patch),
                 .steps = o->steps,
                 .strength = 1,
                 .shift = o->shift,
                 .guidance = o->guidance,
                 .temperature = 1,
                 .refresh = 1};
    return p;
}

/* base: of the model's own size. from: what factors are of. */
static kn_status refine_pass(const kn_options *o, const kn_dit_config *dit, const kn_pass *base, const kn_geometry *from,
                             int stage, const char **sizes, kn_pass *p)
{
    int64_t width, height, tokens[2];
    *p = *base;
    snprintf(p->name, sizeof p->name, "refine %d", stage + 1);
    snprintf(p->upscale, sizeof p->upscale, "upscale %d", stage + 1);
    KN_TRY(read_size(o, from, sizes, &width, &height));
    p->geo = kn_geometry_of(width, height, o->frames, dit->in_channels, dit->patch);
    p->strength = kn_option_list_at(o->strength, stage);
    p->shift = kn_option_list_at(o->refine_shift, stage);
    double steps = kn_option_list_at(o->refine_steps, stage), guidance = kn_option_list_at(o->refine_guidance, stage);
    if (steps != floor(steps))
        return kn_fail(KN_ERR_ARG, "--refine-steps: expected whole numbers, found '%s'", o->refine_steps);
    if (steps > 0) p->steps = (int64_t)steps;
    if (guidance > 0) p->guidance = guidance;
    frame_tokens(&base->geo, dit, tokens);
    KN_TRY(read_temperature(o, tokens, &p->temperature));
    p->windowed = o->attention == KN_ATTENTION_WINDOW;
    KN_TRY(read_window(o, tokens, p->window));
    frame_tokens(&p->geo, dit, tokens);
    if (p->window[0] >= tokens[0] && p->window[1] >= tokens[1]) p->windowed = false; /* it would hide nothing */
    p->refresh = (int)o->refresh;
    p->dual = p->windowed && o->cross_override; /* dense branches would be equal */
    p->dual_negative = o->override_for == KN_OVERRIDE_BOTH || (o->override_for == KN_OVERRIDE_AUTO && p->refresh == 1);
    return KN_OK;
}

kn_status kn_passes_build(const kn_options *o, const kn_dit_config *dit, const int64_t clip_px[2],
                          kn_pass passes[KN_PASSES_MAX], int *count)
{
    kn_pass base = base_pass(o, dit);
    passes[0] = base;
    if (clip_px) {
        snprintf(passes[0].name, sizeof passes[0].name, "clip");
        passes[0].geo = kn_geometry_of(clip_px[0], clip_px[1], o->frames, dit->in_channels, dit->patch);
    }
    *count = 1;
    const char *at = o->refine_size;
    while (at && *at) {
        if (*count == KN_PASSES_MAX)
            return kn_fail(KN_ERR_ARG, "--refine-size: expected at most %d sizes, found '%s'", KN_PASSES_MAX - 1, o->refine_size);
        kn_pass *p = &passes[*count];
        KN_TRY(refine_pass(o, dit, &base, &passes[0].geo, *count - 1, &at, p));
        const kn_geometry *from = &p[-1].geo, *to = &p->geo;
        bool stage = !clip_px || *count > 1; /* a clip may be made smaller first */
        if (stage && (to->out_width_px < from->out_width_px || to->out_height_px < from->out_height_px))
            return kn_fail(KN_ERR_ARG, "--refine-size: expected each size at least as large as the one before, found %" PRId64 "x%" PRId64 " after %" PRId64 "x%" PRId64,
                           to->out_width_px, to->out_height_px, from->out_width_px, from->out_height_px);
        ++*count;
    }
    return KN_OK;
}

kn_status kn_pass_schedule(const kn_options *o, const kn_pass *pass, kn_schedule *out)
{
    kn_grid grid = o->grid ? (kn_grid)(o->grid - 1) : kn_solver_grid((kn_solver_kind)o->solver);
    return kn_schedule_build(grid, (int)pass->steps, pass->shift, pass->strength, out);
}

/* ---- attention --------------------------------------------------------------------------------*/

kn_status kn_pass_attention_build(const kn_pass *pass, const kn_dit_config *dit, kn_pass_attention *out)
{
    enum { BLOCK = 128 }; /* tokens that the executors take at once */
    memset(out, 0, sizeof *out);
    if (!pass->windowed) return KN_OK;
    int64_t frame[2];
    frame_tokens(&pass->geo, dit, frame);
    kn_grid_search search = {.grid = {(int)(pass->geo.frames_lat / dit->patch[0]), (int)frame[0], (int)frame[1]},
                             .window = {{0}, {.size = pass->window[0]}, {.size = pass->window[1]}},
                             .block_q = BLOCK,
                             .block_k = BLOCK};
    kn_grid_choice best;
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_grid_best_tile(&search, &best));
    kn_window_params params = {.block = BLOCK};
    memcpy(params.layout.grid, search.grid, sizeof search.grid);
    memcpy(params.layout.tile, best.tile, sizeof best.tile);
    memcpy(params.window, search.window, sizeof search.window);
    memcpy(out->tile, best.tile, sizeof best.tile);
    KN_TRY_GOTO(kn_window_plan(&params, &out->plan));
    KN_TRY_GOTO(kn_alloc_array((size_t)kn_grid_tokens(search.grid), sizeof *out->order, (void **)&out->order));
    kn_grid_tile_order(search.grid, best.tile, out->order);
done:
    if (st != KN_OK) kn_pass_attention_free(out);
    return KN_CTX(st, "%s: planning its attention", pass->name);
}

void kn_pass_attention_free(kn_pass_attention *a)
{
    kn_attn_plan_free(&a->plan);
    kn_free(a->order);
    memset(a, 0, sizeof *a);
}
