#include "vae/vae_stream.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "io/log.h"
#include "io/memory.h"

/* Tiles are not cut smaller than this: less would mostly compute overlap. */
enum { LEAST_TILE_LAT = 4 };
/* Nor where overlaps would multiply the work by more than this. */
static const double MOST_WORK = 4;
/* cuDNN kernels index with 32 bits. */
static const int64_t CUDA_LARGEST = ((int64_t)1 << 31) - 1;

/* A region [y0,y1) x [x0,x1) of the frame. */
typedef struct region {
    int64_t y0, y1, x0, x1;
} region;

typedef struct tile {
    region core, all; /* in latents; all = core and what its convolutions see around it */
    kn_vae_part *part;
    kn_arena_mark fill; /* past frames on host: bytes in use */
    void *host;         /* their place while other tiles run */
} tile;

struct kn_vae_stream {
    const kn_vae_config *config;
    kn_dev *dev;
    kn_vae_side side;
    kn_vae_stream_params params;
    kn_vae_stream_plan plan;
    kn_vae_part *whole; /* everything, or the levels that are not in tiles */
    tile *tiles;
    int tile_count;
    kn_arena *state, *tile_state, *scratch;
    void *tile_past; /* start of tile_state */
    bool started;
    float *latents;      /* host [n,H,W,z]; NULL when measuring */
    float *frames[2];    /* host [T,H,W,3], of a decoder, in turn; the second of a late one */
    int turn;            /* frames of the push at work */
    int64_t held;        /* late: frames of the last push, not handed out yet */
    int64_t frame_count; /* frames given so far */
    int64_t pushed_lat;
};

/* ---- sizes ------------------------------------------------------------------------------------*/

static int64_t frames_after(const kn_vae_config *c, bool started, int64_t latents)
{
    int64_t factor = kn_vae_temporal_factor(c);
    return started ? latents * factor : 1 + (latents - 1) * factor;
}

int64_t kn_vae_stream_frames(const kn_vae_stream *s, int64_t latents)
{
    return frames_after(s->config, s->started, latents);
}

static bool tiled(const kn_vae_tiling *t)
{
    return t->rows * t->cols > 1;
}

/* Points of one latent at the resolution where tiles begin and where they end. */
static int64_t points_in(const kn_vae_stream *s)
{
    if (s->side == KN_VAE_ENCODE) return kn_vae_spatial_factor(s->config);
    return (int64_t)1 << (s->plan.tiling.split - 1);
}

static int64_t points_out(const kn_vae_stream *s)
{
    if (s->side == KN_VAE_DECODE) return kn_vae_spatial_factor(s->config);
    return (int64_t)1 << (s->config->levels - 1 - s->plan.tiling.split);
}

static int64_t overlap_of(const kn_vae_stream *s)
{
    const kn_vae_tiling *t = &s->plan.tiling;
    bool decode = s->side == KN_VAE_DECODE;
    int64_t reach = kn_vae_part_reach(s->config, s->side, decode ? t->split : 0,
                                      decode ? s->config->levels : t->split);
    return (reach + points_in(s) - 1) / points_in(s);
}

/* Rows y0..y1 and columns x0..x1, given in latents, of frames with `points` per latent. */
static kn_tensor cut(const kn_tensor *t, const region *r, int64_t points)
{
    if (t->rank == 0) return *t;
    kn_tensor rows = kn_tensor_slice(t, 1, r->y0 * points, (r->y1 - r->y0) * points);
    return kn_tensor_slice(&rows, 2, r->x0 * points, (r->x1 - r->x0) * points);
}

/* ---- building ---------------------------------------------------------------------------------*/

static kn_status check_params(const kn_vae_config *c, const kn_vae_stream_params *p)
{
    const kn_vae_tiling *t = &p->tiling;
    if (p->height_lat < 1 || p->width_lat < 1 || p->height_lat > 1 << 16 || p->width_lat > 1 << 16)
        return kn_fail(KN_ERR_ARG,
                       "VAE: latent frames of %" PRId64 " x %" PRId64 ": expected 1 to 65536",
                       p->height_lat, p->width_lat);
    if (p->total_lat < 0)
        return kn_fail(KN_ERR_ARG, "VAE: a clip of %" PRId64 " latent frames", p->total_lat);
    if (p->chunk_lat < 0 || p->chunk_lat > 1 << 16)
        return kn_fail(KN_ERR_ARG, "VAE: %" PRId64 " latent frames at a time: expected 1 to 65536",
                       p->chunk_lat);
    if (t->rows == 0) return KN_OK;
    if (t->rows < 1 || t->cols < 1 || t->rows > p->height_lat || t->cols > p->width_lat)
        return kn_fail(KN_ERR_ARG, "VAE: %d x %d tiles of %" PRId64 " x %" PRId64 " latents",
                       t->rows, t->cols, p->height_lat, p->width_lat);
    if (tiled(t) && (t->split < 0 || t->split >= c->levels))
        return kn_fail(KN_ERR_ARG, "VAE: tiles from level %d: expected 0 to %d", t->split,
                       c->levels - 1);
    return KN_OK;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t not_negative(int64_t a)
{
    return a > 0 ? a : 0;
}

static void place_tile(const kn_vae_stream *s, int row, int col, tile *t)
{
    const kn_vae_tiling *tiling = &s->plan.tiling;
    int64_t H = s->params.height_lat, W = s->params.width_lat, halo = s->plan.overlap_lat;
    t->core = (region){H * row / tiling->rows, H * (row + 1) / tiling->rows, W * col / tiling->cols,
                       W * (col + 1) / tiling->cols};
    t->all = (region){not_negative(t->core.y0 - halo), least(H, t->core.y1 + halo),
                      not_negative(t->core.x0 - halo), least(W, t->core.x1 + halo)};
}

/* The parts: one, or one and a second of which each tile has its own. */
static kn_status open_parts(kn_vae_stream *s, const kn_vae *m)
{
    const kn_vae_tiling *t = &s->plan.tiling;
    const kn_vae_tap *tap = &s->params.tap;
    int levels = s->config->levels;
    bool decode = s->side == KN_VAE_DECODE;
    if (!tiled(t)) return kn_vae_part_open(m, s->dev, s->side, 0, levels, s->state, tap, &s->whole);
    KN_TRY(kn_vae_part_open(m, s->dev, s->side, decode ? 0 : t->split, decode ? t->split : levels,
                            s->state, tap, &s->whole));
    void *memory;
    KN_TRY(kn_alloc_array((size_t)t->rows * (size_t)t->cols, sizeof *s->tiles, &memory));
    s->tiles = memory;
    s->tile_count = t->rows * t->cols;
    for (int i = 0; i < s->tile_count; i++) {
        place_tile(s, i / t->cols, i % t->cols, &s->tiles[i]);
        KN_TRY(kn_vae_part_open(m, s->dev, s->side, decode ? t->split : 0,
                                decode ? levels : t->split, s->tile_state, tap, &s->tiles[i].part));
    }
    return KN_OK;
}

typedef struct sizes {
    size_t state, tile_state, scratch, tile_host;
    int64_t largest;
} sizes;

/* Memory of arenas and parts; sizes of nothing on a measure device. */
static kn_status stream_build(const kn_vae *m, kn_dev *d, kn_vae_side side,
                              const kn_vae_stream_params *params, const kn_vae_tiling *tiling,
                              const sizes *bytes, kn_vae_stream **out)
{
    *out = NULL;
    kn_status st = KN_OK;
    void *memory;
    KN_TRY(kn_alloc_zero(sizeof(kn_vae_stream), &memory));
    kn_vae_stream *s = memory;
    *s = (kn_vae_stream){.config = kn_vae_get_config(m), .dev = d, .side = side, .params = *params};
    if (s->params.chunk_lat == 0) s->params.chunk_lat = 1;
    if (kn_dev_measured(d) == KN_DEV_CUDA) s->params.past_on_host = true;
    s->plan.tiling = *tiling;
    if (tiled(tiling)) s->plan.overlap_lat = overlap_of(s);
    KN_TRY_GOTO(kn_arena_open(d, bytes->state, &s->state));
    KN_TRY_GOTO(kn_arena_open(d, bytes->tile_state, &s->tile_state));
    KN_TRY_GOTO(kn_arena_open(d, bytes->scratch, &s->scratch));
    kn_tensor start;
    KN_TRY_GOTO(kn_arena_take(s->tile_state, &start, KN_U8, 0));
    s->tile_past = start.data;
    KN_TRY_GOTO(open_parts(s, m));
    *out = s;
    s = NULL;
done:
    kn_vae_stream_close(&s);
    return st;
}

void kn_vae_stream_close(kn_vae_stream **stream)
{
    kn_vae_stream *s = *stream;
    if (!s) return;
    for (int i = 0; i < s->tile_count; i++) {
        kn_vae_part_close(&s->tiles[i].part);
        kn_dev_host_free(s->dev, s->tiles[i].host);
    }
    kn_free(s->tiles);
    kn_vae_part_close(&s->whole);
    kn_arena_close(&s->scratch);
    kn_arena_close(&s->tile_state);
    kn_arena_close(&s->state);
    kn_free(s->latents);
    for (int i = 0; i < 2; i++) kn_dev_host_free(s->dev, s->frames[i]);
    kn_free(s);
    *stream = NULL;
}

const kn_vae_stream_plan *kn_vae_stream_get_plan(const kn_vae_stream *s)
{
    return &s->plan;
}

/* ---- running on the device --------------------------------------------------------------------*/

/* The push at work completes the clip; known only when its length is. */
static bool is_last(const kn_vae_stream *s)
{
    return s->params.total_lat > 0 && s->pushed_lat >= s->params.total_lat;
}

/* Counts the latents of a push that begins. */
static void begin_push(kn_vae_stream *s, int64_t n)
{
    s->pushed_lat += n;
    if (!is_last(s)) return;
    kn_vae_part_last(s->whole);
    for (int i = 0; i < s->tile_count; i++) kn_vae_part_last(s->tiles[i].part);
}

/* With the past of all tiles but one on the host, they share the device memory of tile_state. */
static kn_status run_tile(kn_vae_stream *s, tile *t, const kn_vae_frames *in, kn_vae_frames *out)
{
    if (!s->params.past_on_host) return kn_vae_part_run(t->part, in, s->scratch, out);
    kn_tensor past = kn_tensor_of(s->tile_past, KN_U8, (int64_t)t->fill);
    kn_arena_reset(s->tile_state, t->fill);
    if (t->fill) KN_TRY(kn_dev_upload(s->dev, t->host, &past));
    KN_TRY(kn_vae_part_run(t->part, in, s->scratch, out));
    if (is_last(s)) return KN_OK;
    t->fill = kn_arena_get_mark(s->tile_state);
    past.dim[0] = (int64_t)t->fill;
    return t->fill ? kn_dev_download(s->dev, &past, t->host) : KN_OK;
}

/* Each tile of `in` through its part, its core into `out`. */
static kn_status run_tiles(kn_vae_stream *s, const kn_vae_frames *in, const kn_tensor *out)
{
    for (int i = 0; i < s->tile_count; i++) {
        tile *t = &s->tiles[i];
        kn_arena_mark mark = kn_arena_get_mark(s->scratch);
        kn_vae_frames part = {.plain = cut(&in->plain, &t->all, points_in(s)),
                              .pairs = cut(&in->pairs, &t->all, points_in(s))},
                      result;
        KN_TRY(run_tile(s, t, &part, &result));
        region core = {t->core.y0 - t->all.y0, t->core.y1 - t->all.y0, t->core.x0 - t->all.x0,
                       t->core.x1 - t->all.x0};
        kn_tensor from = cut(&result.plain, &core, points_out(s)),
                  to = cut(out, &t->core, points_out(s));
        KN_TRY(kn_copy(s->dev, &from, &to));
        kn_arena_reset(s->scratch, mark);
    }
    return KN_OK;
}

/* s->latents (n frames) to s->frames. */
static kn_status decode_frames(kn_vae_stream *s, int64_t n)
{
    int64_t H = s->params.height_lat, W = s->params.width_lat,
            factor = kn_vae_spatial_factor(s->config);
    kn_vae_frames in = {0}, result;
    kn_tensor out;
    begin_push(s, n);
    kn_arena_reset(s->scratch, 0);
    KN_TRY(kn_arena_take(s->scratch, &in.plain, KN_F32, n, H, W, s->config->z));
    KN_TRY(kn_arena_take(s->scratch, &out, KN_F32, kn_vae_stream_frames(s, n), H * factor,
                         W * factor, 3));
    KN_TRY(kn_dev_upload(s->dev, s->latents, &in.plain));
    KN_TRY(kn_vae_part_run(s->whole, &in, s->scratch, &result));
    if (s->tiles)
        KN_TRY(run_tiles(s, &result, &out));
    else if (result.plain.dtype != KN_F32)
        KN_TRY(kn_copy(s->dev, &result.plain, &out));
    else
        out = result.plain;
    KN_TRY(kn_dev_download_begin(s->dev, &out, s->frames[s->turn]));
    if (!s->params.late) KN_TRY(kn_dev_sync(s->dev));
    s->started = true;
    return KN_OK;
}

/* Memory for what the tiles of an encoder give: frames for the part after. */
static kn_status take_between(kn_vae_stream *s, int64_t T, kn_tensor *out)
{
    const kn_vae_config *c = s->config;
    int split = s->plan.tiling.split, room = kn_vae_part_room(s->whole);
    int64_t points = points_out(s);
    for (int i = 0; i < split - 1; i++)
        if (c->temporal[i]) T = s->started ? T / 2 : 1 + (T - 1) / 2;
    kn_tensor all;
    KN_TRY(kn_arena_take(s->scratch, &all, kn_dev_activation_dtype(s->dev), room + T,
                         s->params.height_lat * points, s->params.width_lat * points,
                         c->encoder_base * c->mult[split - 1]));
    *out = kn_tensor_slice(&all, 0, room, T);
    return KN_OK;
}

/* frames (host) to s->latents: the n latent frames' means. */
static kn_status encode_frames(kn_vae_stream *s, const float *frames, int64_t n)
{
    int64_t H = s->params.height_lat, W = s->params.width_lat,
            factor = kn_vae_spatial_factor(s->config);
    int64_t T = kn_vae_stream_frames(s, n);
    kn_vae_frames in = {0}, result;
    kn_tensor mean;
    begin_push(s, n);
    kn_arena_reset(s->scratch, 0);
    KN_TRY(kn_arena_take(s->scratch, &mean, KN_F32, n, H, W, s->config->z));
    KN_TRY(kn_arena_take(s->scratch, &in.plain, KN_F32, T, H * factor, W * factor, 3));
    KN_TRY(kn_dev_upload(s->dev, frames, &in.plain));
    if (s->tiles) {
        kn_tensor between;
        KN_TRY(take_between(s, T, &between));
        KN_TRY(run_tiles(s, &in, &between));
        in.plain = between;
    }
    KN_TRY(kn_vae_part_run(s->whole, &in, s->scratch, &result));
    kn_tensor mu = kn_tensor_slice(&result.plain, 3, 0, s->config->z);
    KN_TRY(kn_copy(s->dev, &mu, &mean));
    KN_TRY(kn_dev_download(s->dev, &mean, s->latents));
    s->started = true;
    return KN_OK;
}

/* ---- planning ---------------------------------------------------------------------------------*/

static void largest_of(const kn_vae_stream *s, int64_t *largest)
{
    *largest = kn_vae_part_largest(s->whole);
    for (int i = 0; i < s->tile_count; i++) {
        int64_t n = kn_vae_part_largest(s->tiles[i].part);
        if (n > *largest) *largest = n;
    }
}

/* The first two pushes, which take all memory there is to take. */
static kn_status measure(const kn_vae *m, kn_vae_side side, const kn_vae_stream_params *params,
                         const kn_vae_tiling *tiling, sizes *out, int64_t *overlap_lat)
{
    *out = (sizes){0};
    kn_status st = KN_OK;
    kn_dev *d = NULL;
    kn_vae_stream *s = NULL;
    kn_vae_stream_params quiet = *params;
    quiet.tap.fn = NULL;
    KN_TRY_GOTO(kn_dev_open(
        &(kn_dev_params){.kind = KN_DEV_MEASURE, .measured = kn_dev_measured(kn_vae_dev(m))}, &d));
    KN_TRY_GOTO(stream_build(m, d, side, &quiet, tiling, out, &s));
    int64_t n = s->params.chunk_lat, total = s->params.total_lat, left = total ? total : 2 * n;
    for (int push = 0; push < 2 && left > 0; push++, left -= n) {
        if (left < n) n = left;
        if (side == KN_VAE_DECODE)
            KN_TRY_GOTO(decode_frames(s, n));
        else
            KN_TRY_GOTO(encode_frames(s, NULL, n));
    }
    out->state = kn_arena_peak(s->state);
    out->tile_state = kn_arena_peak(s->tile_state);
    out->scratch = kn_arena_peak(s->scratch);
    bool again = total == 0 || total > s->params.chunk_lat;
    if (s->params.past_on_host && again) out->tile_host = (size_t)s->tile_count * out->tile_state;
    largest_of(s, &out->largest);
    *overlap_lat = s->plan.overlap_lat;
done:
    kn_vae_stream_close(&s);
    kn_dev_close(&d);
    return st;
}

static size_t device_total(const sizes *z)
{
    return z->state + z->tile_state + z->scratch;
}

static bool fits(const kn_vae *m, const kn_vae_stream_params *p, const sizes *z)
{
    bool cuda = kn_dev_measured(kn_vae_dev(m)) == KN_DEV_CUDA;
    return (p->memory_bytes == 0 || device_total(z) <= p->memory_bytes) &&
           (!cuda || z->largest <= CUDA_LARGEST);
}

/* Multiplications of a level per latent, up to a common factor: its convolutions of 27 taps and the
 * resampling one of 9. */
static double level_work(const kn_vae_config *c, kn_vae_side side, int level)
{
    bool decode = side == KN_VAE_DECODE;
    int k = decode ? c->levels - 1 - level : level; /* frames are of 1/2^k of the pixels */
    double width = (double)(decode ? c->decoder_base : c->encoder_base) * c->mult[k];
    double points = (double)((int64_t)1 << 2 * (c->levels - 1 - k));
    for (int i = k; i < c->levels - 1; i++) points *= c->temporal[i] ? 2 : 1;
    return points * width * width * (27.0 * 2 * (c->resnets + decode) + 9);
}

/* Work with these tiles over work without, about. overlap_lat: around each tile. */
static double relative_work(const kn_vae_config *c, kn_vae_side side, const kn_vae_stream_params *p,
                            const kn_vae_tiling *t, int64_t overlap_lat)
{
    double H = (double)p->height_lat, W = (double)p->width_lat, cut_work = 0, all = 0;
    double again = (1 + 2.0 * (double)overlap_lat * (t->rows - 1) / H) *
                   (1 + 2.0 * (double)overlap_lat * (t->cols - 1) / W);
    for (int i = 0; i < c->levels; i++) {
        double work = level_work(c, side, i);
        bool in_tiles = side == KN_VAE_DECODE ? i >= t->split : i < t->split;
        all += work;
        cut_work += in_tiles ? work * again : work;
    }
    return cut_work / all;
}

/* Tiles with sides of about 1/parts of the longer side of the frame. */
static kn_vae_tiling tiling_of(const kn_vae_stream_params *p, int64_t parts, int split)
{
    int64_t H = p->height_lat, W = p->width_lat, length = ((H > W ? H : W) + parts - 1) / parts;
    return (kn_vae_tiling){(int)((H + length - 1) / length), (int)((W + length - 1) / length),
                           split};
}

typedef struct choice {
    kn_vae_tiling tiling;
    sizes z;
    int64_t overlap_lat;
    double work;     /* 0: nothing found yet */
    size_t smallest; /* device bytes of the smallest seen */
} choice;

/* The coarsest cut at this split that fits, if it means less work than what was found before. */
static kn_status try_split(const kn_vae *m, kn_vae_side side, const kn_vae_stream_params *p,
                           int split, choice *best)
{
    const kn_vae_config *c = kn_vae_get_config(m);
    int64_t longest = p->height_lat > p->width_lat ? p->height_lat : p->width_lat;
    for (int64_t parts = 2; longest / parts >= LEAST_TILE_LAT; parts += 1 + parts / 4) {
        choice now = {.tiling = tiling_of(p, parts, split)};
        KN_TRY(measure(m, side, p, &now.tiling, &now.z, &now.overlap_lat));
        now.work = relative_work(c, side, p, &now.tiling, now.overlap_lat);
        if (now.work > MOST_WORK || (best->work > 0 && now.work >= best->work)) return KN_OK;
        now.smallest = device_total(&now.z);
        if (now.smallest > best->smallest) now.smallest = best->smallest;
        best->smallest = now.smallest;
        if (!fits(m, p, &now.z)) continue;
        *best = now;
        return KN_OK;
    }
    return KN_OK;
}

/* The frame uncut if that fits; else the cut that fits with the least work. */
static kn_status choose(const kn_vae *m, kn_vae_side side, const kn_vae_stream_params *p,
                        choice *best)
{
    const kn_vae_config *c = kn_vae_get_config(m);
    *best = (choice){.tiling = {1, 1, 0}};
    KN_TRY(measure(m, side, p, &best->tiling, &best->z, &best->overlap_lat));
    if (fits(m, p, &best->z)) return KN_OK;
    best->smallest = device_total(&best->z);
    for (int split = 1; split < c->levels; split++) KN_TRY(try_split(m, side, p, split, best));
    if (best->work > 0) return KN_OK;
    static const char *const verbs[] = {"encoding", "decoding"};
    int64_t factor = kn_vae_spatial_factor(c);
    return kn_fail(KN_ERR_NOMEM,
                   "%s %" PRId64 "x%" PRId64 " takes at least %.2f GB besides the weights, "
                   "with frames cut into tiles; %.2f GB are allowed",
                   verbs[side], p->width_lat * factor, p->height_lat * factor,
                   (double)best->smallest * 1e-9, (double)p->memory_bytes * 1e-9);
}

static kn_status plan(const kn_vae *m, kn_vae_side side, const kn_vae_stream_params *params,
                      kn_vae_stream_plan *out, sizes *z)
{
    *out = (kn_vae_stream_plan){.tiling = params->tiling};
    const kn_vae_config *c = kn_vae_get_config(m);
    KN_TRY(check_params(c, params));
    if (params->tiling.rows) {
        if (out->tiling.split == 0) out->tiling.split = side == KN_VAE_DECODE ? c->levels - 1 : 1;
        KN_TRY(measure(m, side, params, &out->tiling, z, &out->overlap_lat));
    } else {
        choice best;
        KN_TRY(choose(m, side, params, &best));
        out->tiling = best.tiling;
        out->overlap_lat = best.overlap_lat;
        *z = best.z;
    }
    int64_t n = params->chunk_lat ? params->chunk_lat : 1, factor = kn_vae_spatial_factor(c);
    int64_t points = params->height_lat * params->width_lat;
    int64_t values = points * n * c->z;
    if (side == KN_VAE_DECODE)
        values += points * factor * factor * 3 * frames_after(c, true, n) * (1 + params->late);
    out->device_bytes = device_total(z);
    out->host_bytes = (size_t)values * sizeof(float) + z->tile_host;
    return KN_OK;
}

kn_status kn_vae_stream_plan_build(const kn_vae *m, kn_vae_side side,
                                   const kn_vae_stream_params *params, kn_vae_stream_plan *out)
{
    sizes z;
    return plan(m, side, params, out, &z);
}

static kn_status alloc_host(kn_vae_stream *s, const sizes *z)
{
    int64_t points = s->params.height_lat * s->params.width_lat, n = s->params.chunk_lat;
    int64_t factor = kn_vae_spatial_factor(s->config);
    void *memory;
    KN_TRY(kn_alloc((size_t)(points * n * s->config->z) * sizeof(float), &memory));
    s->latents = memory;
    for (int i = 0; i < s->tile_count && z->tile_host > 0; i++)
        KN_TRY(kn_dev_host_alloc(s->dev, z->tile_state, &s->tiles[i].host));
    if (s->side == KN_VAE_ENCODE) return KN_OK;
    int64_t frames = frames_after(s->config, true, n);
    for (int i = 0; i < 1 + s->params.late; i++) {
        KN_TRY(kn_dev_host_alloc(s->dev, (size_t)(points * factor * factor * 3 * frames) *
                                             sizeof(float), &memory));
        s->frames[i] = memory;
    }
    return KN_OK;
}

kn_status kn_vae_stream_open(const kn_vae *m, kn_vae_side side, const kn_vae_stream_params *params,
                             kn_vae_stream **out)
{
    *out = NULL;
    kn_status st = KN_OK;
    kn_vae_stream *s = NULL;
    kn_vae_stream_plan planned;
    sizes z;
    KN_TRY_GOTO(plan(m, side, params, &planned, &z));
    KN_TRY_GOTO(stream_build(m, kn_vae_dev(m), side, params, &planned.tiling, &z, &s));
    s->plan = planned;
    KN_TRY_GOTO(alloc_host(s, &z));
    if (tiled(&planned.tiling))
        kn_log(KN_LOG_DEBUG, "vae", "frames in %d x %d tiles, overlapping by %" PRId64 " latents",
               planned.tiling.rows, planned.tiling.cols, 2 * planned.overlap_lat);
    *out = s;
    s = NULL;
done:
    kn_vae_stream_close(&s);
    return KN_CTX(st,
                  side == KN_VAE_DECODE ? "opening the VAE decoder" : "opening the VAE encoder");
}

/* ---- pushes -----------------------------------------------------------------------------------*/

static kn_status check_total(const kn_vae_stream *s, int64_t n)
{
    int64_t total = s->params.total_lat;
    if (total == 0 || s->pushed_lat + n <= total) return KN_OK;
    return kn_fail(KN_ERR_ARG, "VAE: %" PRId64 " latent frames of a clip of %" PRId64,
                   s->pushed_lat + n, total);
}

static kn_status check_push(const kn_vae_stream *s, kn_vae_side side, const kn_tensor *latents)
{
    char text[KN_SHAPE_TEXT];
    const kn_vae_stream_params *p = &s->params;
    if (s->side != side)
        return kn_fail(KN_ERR_ARG, "VAE: an encoder cannot decode, nor a decoder encode");
    if (latents->rank == 4 && latents->dtype == KN_F32 && latents->dim[0] == s->config->z &&
        latents->dim[1] >= 1 && latents->dim[1] <= p->chunk_lat &&
        latents->dim[2] == p->height_lat && latents->dim[3] == p->width_lat)
        return check_total(s, latents->dim[1]);
    return kn_fail(
        KN_ERR_ARG,
        "VAE: latents are %s: expected f32[%" PRId64 ", 1..%" PRId64 ", %" PRId64 ", %" PRId64 "]",
        kn_tensor_text(latents, text), s->config->z, p->chunk_lat, p->height_lat, p->width_lat);
}

/* Between the caller's [z,n,H,W], normalised, and the network's [n,H,W,z]. */
static void move_latents(kn_vae_stream *s, const kn_tensor *t, bool to_network)
{
    const kn_vae_config *c = s->config;
    float *own = s->latents, *theirs = t->data;
    int64_t n = t->dim[1], H = t->dim[2], W = t->dim[3];
    for (int64_t i = 0; i < n * H * W; i++)
        for (int64_t z = 0; z < c->z; z++) {
            float *a = theirs + z * t->stride[0] + i / (H * W) * t->stride[1] +
                       i / W % H * t->stride[2] + i % W * t->stride[3];
            float *b = own + i * c->z + z;
            if (to_network)
                *b = (float)(*a * c->std[z] + c->mean[z]);
            else
                *a = (float)((*b - c->mean[z]) / c->std[z]);
        }
}

/* Clamps to -1 .. 1; false if a value is not finite. */
static bool clamp(float *x, int64_t count)
{
    int bad = 0;
    for (int64_t i = 0; i < count; i++) {
        float v = x[i];
        bad |= !(fabsf(v) <= 3e38f);
        v = v < -1 ? -1 : v;
        x[i] = v > 1 ? 1 : v;
    }
    return !bad;
}

/* Frames that are complete in host memory, to the caller. */
static kn_status hand_out(kn_vae_stream *s, float *frames, int64_t count, kn_vae_frames_fn *fn,
                          void *user)
{
    int64_t factor = kn_vae_spatial_factor(s->config);
    int64_t each = s->params.height_lat * s->params.width_lat * factor * factor * 3;
    for (int64_t t = 0; t < count; t++)
        if (!clamp(frames + t * each, each))
            return kn_fail(KN_ERR_NUMERIC, "decoded frame %" PRId64 " holds NaN or infinity",
                           s->frame_count + t);
    s->frame_count += count;
    return fn(user, frames, count);
}

kn_status kn_vae_decode_push(kn_vae_stream *s, const kn_tensor *latents, kn_vae_frames_fn *fn,
                             void *user)
{
    KN_TRY(check_push(s, KN_VAE_DECODE, latents));
    int64_t n = latents->dim[1], count = kn_vae_stream_frames(s, n), ready = s->held;
    move_latents(s, latents, true);
    if (ready) KN_TRY(kn_dev_sync(s->dev)); /* for the frames held; a small upload would not wait */
    KN_TRY(decode_frames(s, n));
    float *frames = s->frames[s->turn];
    if (!s->params.late) return hand_out(s, frames, count, fn, user);
    s->turn ^= 1;
    s->held = count;
    return ready ? hand_out(s, s->frames[s->turn], ready, fn, user) : KN_OK;
}

kn_status kn_vae_decode_flush(kn_vae_stream *s, kn_vae_frames_fn *fn, void *user)
{
    int64_t count = s->held;
    if (count == 0) return KN_OK;
    KN_TRY(kn_dev_sync(s->dev));
    s->held = 0;
    return hand_out(s, s->frames[s->turn ^ 1], count, fn, user);
}

kn_status kn_vae_encode_push(kn_vae_stream *s, const float *frames, const kn_tensor *latents)
{
    KN_TRY(check_push(s, KN_VAE_ENCODE, latents));
    int64_t n = latents->dim[1], factor = kn_vae_temporal_factor(s->config);
    KN_TRY(encode_frames(s, frames, n));
    int64_t count = n * s->params.height_lat * s->params.width_lat * s->config->z;
    for (int64_t i = 0; i < count; i++)
        if (!(fabsf(s->latents[i]) <= 3e38f))
            return kn_fail(KN_ERR_NUMERIC,
                           "encoded latents from frame %" PRId64 " on hold NaN or infinity",
                           s->frame_count);
    s->frame_count += s->frame_count ? n * factor : 1 + (n - 1) * factor;
    move_latents(s, latents, false);
    return KN_OK;
}
