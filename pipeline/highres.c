#include "pipeline/highres.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention/attention.h"
#include "attention/permute.h"
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

/* "auto" (zeros) or "TxHxW". */
static kn_status read_box(const char *flag, const char *text, int out[3])
{
    memset(out, 0, 3 * sizeof *out);
    if (!strcmp(text, "auto")) return KN_OK;
    char copy[32], *at = copy;
    bool good = strlen(text) < sizeof copy;
    snprintf(copy, sizeof copy, "%s", text);
    for (int i = 0; good && i < 3; i++) {
        int64_t v = 0;
        char *x = strpbrk(at, "xX*");
        good = (x != NULL) == (i < 2);
        if (x) *x = '\0';
        good = good && kn_text_to_int(at, &v) && v >= 1 && v <= 4096;
        out[i] = (int)v;
        at = x ? x + 1 : at;
    }
    return good ? KN_OK
                : kn_fail(KN_ERR_ARG, "%s: expected auto or TxHxW, each from 1 to 4096, such as 6x8x8, found '%s'", flag, text);
}

/* What the methods' own programs keep dense: STA 12 of 50 steps; DraftAttention on Wan timesteps above 925
 * and the first layer (attention files of their repositories, see attention/tile3d.h, draft.h). */
static kn_status dense_parts(const kn_options *o, kn_pass *p)
{
    kn_schedule schedule;
    p->dense_layers = o->dense_layers >= 0 ? o->dense_layers : p->attention == KN_ATTENTION_DRAFT;
    p->dense_steps = o->dense_steps >= 0 ? o->dense_steps : 0;
    if (o->dense_steps >= 0) return KN_OK;
    KN_TRY(kn_pass_schedule(o, p, &schedule));
    int64_t run = schedule.steps - schedule.begin;
    if (p->attention == KN_ATTENTION_TILE3D) p->dense_steps = (12 * run + 49) / 50;
    if (p->attention == KN_ATTENTION_DRAFT)
        while (p->dense_steps < run && schedule.timestep[schedule.begin + p->dense_steps] > 925) p->dense_steps++;
    return KN_OK;
}

/* "thw" to its place among kn_axis_orders, or -1. */
static int order_named(const char *name, size_t length)
{
    for (int i = 0; length == 3 && i < KN_AXIS_ORDERS; i++) {
        int same = 0;
        for (int a = 0; a < 3; a++) same += name[a] == "thw"[kn_axis_orders[i][a]];
        if (same == 3) return i;
    }
    return -1;
}

static kn_status read_paro(const kn_options *o, const kn_dit_config *dit, kn_pass *p)
{
    p->paro_alpha = o->paro_alpha;
    p->paro_epsilon = o->paro_epsilon;
    p->paro_share = o->paro_share;
    p->paro_rows = o->paro_rows;
    p->paro_orders = 0;
    if (!strcmp(o->paro_axes, "auto")) return KN_OK;
    for (const char *at = o->paro_axes;; at++) {
        size_t n = strcspn(at, ",");
        int order = order_named(at, n);
        if (order < 0)
            return kn_fail(KN_ERR_ARG, "--paro-axes: expected auto or orders out of thw, twh, hwt, htw, wht, wth with commas between, found '%s'",
                           o->paro_axes);
        if (p->paro_orders == KN_PASS_HEADS) break;
        p->paro_order[p->paro_orders++] = (uint8_t)order;
        at += n;
        if (!*at) break;
    }
    if (p->paro_orders > 1 && p->paro_orders != dit->heads)
        return kn_fail(KN_ERR_ARG, "--paro-axes: expected one order, or one for each of the model's %d heads, found %d%s", dit->heads,
                       p->paro_orders, p->paro_orders == KN_PASS_HEADS ? " or more" : "");
    return KN_OK;
}

static kn_status read_methods(const kn_options *o, const kn_dit_config *dit, kn_pass *p)
{
    static const kn_attention_choice full[] = {KN_ATTENTION_DENSE, KN_ATTENTION_DRAFT, KN_ATTENTION_PERMUTE};
    p->full_attention = full[o->full_attention];
    p->density = o->density;
    p->mass = o->mass;
    if (kn_options_source(o, kn_option_find("density")) > kn_options_source(o, kn_option_find("mass"))) p->mass = 0;
    p->within_density = o->within_density;
    p->reuse_lists = (int)o->reuse_lists;
    KN_TRY(read_paro(o, dit, p));
    KN_TRY(read_box("--attention-tile", o->attention_tile, p->tile));
    KN_TRY(read_box("--tile-window", o->tile_window, p->tile_window));
    p->tile_windows = o->tile_windows;
    if (p->tile_windows && p->attention == KN_ATTENTION_TILE3D && p->tile_window[0])
        return kn_fail(KN_ERR_ARG, "--tile-windows and --tile-window are both given: give one");
    return dense_parts(o, p);
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

static kn_status check_int8_heads(const kn_pass *p, const kn_dit_config *dit, const char *option)
{
    if (!p->int8 || dit->head_dim == KN_ATTN_INT8_HEAD_DIM) return KN_OK;
    return kn_fail(KN_ERR_UNSUPPORTED, "--%s int8: expected a model with heads of %d, found heads of %d", option,
                   KN_ATTN_INT8_HEAD_DIM, dit->head_dim);
}

static kn_status read_override_layers(const kn_options *o, const kn_dit_config *dit, int layers[2])
{
    const char *text = o->override_layers;
    int64_t first = 1, last = dit->layers;
    if (strcmp(text, "all") != 0) {
        char before[24] = "";
        size_t n = strcspn(text, "-");
        if (n < sizeof before) memcpy(before, text, n);
        if (!text[n] || !kn_text_to_int(before, &first) || !kn_text_to_int(text + n + 1, &last) || first < 1 || last < first ||
            last > dit->layers)
            return kn_fail(KN_ERR_ARG, "--override-layers: expected all or FIRST-LAST within 1-%d, found '%s'", dit->layers, text);
    }
    layers[0] = (int)first - 1;
    layers[1] = (int)last;
    return KN_OK;
}

static kn_status base_pass(const kn_options *o, const kn_dit_config *dit, kn_pass *out)
{
    static const kn_attention_choice methods[] = {KN_ATTENTION_DENSE, KN_ATTENTION_DRAFT, KN_ATTENTION_PERMUTE};
    *out = (kn_pass){.name = "denoise",
                 .geo = kn_geometry_of(o->width_px, o->height_px, o->frames, dit->in_channels, dit->patch),
                 .steps = o->steps,
                 .strength = 1,
                 .shift = o->shift,
                 .guidance = o->guidance,
                 .attention = methods[o->base_attention],
                 .int8 = o->base_attention_precision == KN_ATTENTION_INT8,
                 .f8 = o->linear_precision == KN_LINEAR_FP8,
                 .temperature = 1,
                 .refresh = 1};
    KN_TRY(check_int8_heads(out, dit, "base-attention-precision"));
    if (out->int8 && out->attention != KN_ATTENTION_DENSE)
        return kn_fail(KN_ERR_ARG, "--base-attention-precision: expected full with --base-attention draft and permute, found int8");
    return read_methods(o, dit, out);
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
    p->attention = (kn_attention_choice)o->attention;
    p->fitted = o->full_positions == KN_POSITIONS_FITTED;
    p->int8 = o->attention_precision == KN_ATTENTION_INT8;
    p->skip_below = o->attention_skip;
    if (p->int8 && p->skip_below > 0)
        return kn_fail(KN_ERR_ARG, "--attention-skip: expected 0 with --attention-precision int8, found %g", p->skip_below);
    KN_TRY(check_int8_heads(p, dit, "attention-precision"));
    KN_TRY(read_window(o, tokens, p->window));
    const int64_t known[2] = {tokens[0], tokens[1]};
    frame_tokens(&p->geo, dit, tokens);
    p->position_scale[0] = 1;
    for (int i = 0; i < 2; i++) p->position_scale[1 + i] = tokens[i] > known[i] ? (double)known[i] / (double)tokens[i] : 1;
    if (p->attention == KN_ATTENTION_WINDOW && p->window[0] >= tokens[0] && p->window[1] >= tokens[1])
        p->attention = KN_ATTENTION_DENSE; /* the window would hide nothing */
    bool chosen = p->attention >= KN_ATTENTION_DRAFT || (o->cross_override && o->full_attention > 0);
    if (p->int8 && chosen)
        return kn_fail(KN_ERR_ARG, "--attention-precision: expected full with draft, permute and paro, which choose blocks on "
                                   "the device, found int8");
    p->refresh = (int)o->refresh;
    p->dual_steps = (int)o->override_steps;
    KN_TRY(read_override_layers(o, dit, p->dual_layers));
    p->dual = p->attention != KN_ATTENTION_DENSE && o->cross_override; /* dense branches would be equal */
    p->dual_negative = o->override_for == KN_OVERRIDE_BOTH || (o->override_for == KN_OVERRIDE_AUTO && p->refresh == 1);
    return read_methods(o, dit, p);
}

kn_status kn_passes_build(const kn_options *o, const kn_dit_config *dit, const int64_t clip_px[2],
                          kn_pass passes[KN_PASSES_MAX], int *count)
{
    kn_pass base;
    KN_TRY(base_pass(o, dit, &base));
    passes[0] = base;
    if (clip_px) {
        snprintf(passes[0].name, sizeof passes[0].name, "clip");
        passes[0].geo = kn_geometry_of(clip_px[0], clip_px[1], o->frames, dit->in_channels, dit->patch);
    }
    *count = 1;
    const char *at = o->refine_size;
    if (o->tile_windows && (o->attention != KN_ATTENTION_TILE3D || !at))
        return kn_fail(KN_ERR_ARG, "--tile-windows: expected with refine stages and --attention tile3d, which has windows in tiles");
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
