#include "pipeline/clip.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <errno.h>

#include "io/frames.h"
#include "io/memory.h"

/* ---- what it is -------------------------------------------------------------------------------*/

static kn_status hash_list(const char *path, kn_clip *c)
{
    kn_frame_list list;
    kn_sha256 all;
    char one[KN_SHA256_TEXT];
    struct stat s;
    kn_status st = KN_OK;
    KN_TRY(kn_frames_list(path, &list));
    kn_sha256_init(&all);
    for (int i = 0; i < list.count; i++) {
        KN_TRY_GOTO(kn_sha256_file(list.paths[i], one));
        kn_sha256_add(&all, one, sizeof one - 1);
        if (stat(list.paths[i], &s) != 0) KN_TRY_GOTO(kn_fail(KN_ERR_IO, "%s: %s", list.paths[i], strerror(errno)));
        c->bytes += s.st_size;
    }
    kn_sha256_text(&all, c->sha256);
done:
    kn_frames_list_free(&list);
    return st;
}

static kn_status name_content(kn_clip *c)
{
    struct stat s;
    if (kn_frames_is_list(c->path)) return hash_list(c->path, c);
    if (stat(c->path, &s) != 0) return kn_fail(KN_ERR_IO, "%s: %s", c->path, strerror(errno));
    c->bytes = s.st_size;
    return kn_sha256_file(c->path, c->sha256);
}

static kn_status count_frames(kn_clip *c, kn_video_reader *r, kn_stage *stage)
{
    double start = 0, rate = (double)c->info.fps_num / c->info.fps_den;
    for (;;) {
        bool end;
        KN_TRY(kn_video_reader_skip(r, &end));
        if (end) break;
        double at = kn_video_reader_time_s(r);
        if (c->frames == 0) start = at;
        if (rate > 0) c->uneven_sec = fmax(c->uneven_sec, fabs(at - start - (double)c->frames / rate));
        KN_TRY(kn_stage_step(stage, ++c->frames));
    }
    if (c->frames == 0) return kn_fail(KN_ERR_FORMAT, "%s: expected a video, found no frame in it", c->path);
    return KN_OK;
}

kn_status kn_clip_open(const char *path, int threads, kn_event_fn *fn, void *user, kn_clip *out)
{
    kn_video_reader *r = NULL;
    kn_stage stage;
    kn_clip *c = out;
    memset(c, 0, sizeof *c);
    kn_status st = kn_strdup(path, &c->path);
    KN_TRY_GOTO(st);
    if (access(path, R_OK) != 0 && !strchr(path, '%')) KN_TRY_GOTO(kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno)));
    const char *slash = strrchr(c->path, '/');
    c->name = slash && slash[1] ? slash + 1 : c->path;
    KN_TRY_GOTO(kn_video_reader_open(path, threads > 64 ? 64 : threads, &r));
    c->info = *kn_video_reader_info(r);
    c->height_px = c->info.height_px;
    c->width_px = llround((double)c->info.width_px * c->info.sar_num / c->info.sar_den);
    if (c->width_px < 1) c->width_px = 1;
    kn_stage_begin(&stage, fn, user, "read", "frames", 0, c->info.frames);
    KN_TRY_GOTO(count_frames(c, r, &stage));
    kn_stage_end(&stage);
    KN_TRY_GOTO(name_content(c));
done:
    kn_video_reader_close(&r);
    if (st != KN_OK) kn_clip_close(c);
    return st;
}

void kn_clip_close(kn_clip *c)
{
    kn_free(c->path);
    memset(c, 0, sizeof *c);
}

/* ---- segments ---------------------------------------------------------------------------------*/

kn_status kn_segments_of(const kn_clip *c, const kn_options *o, kn_segments *out)
{
    int64_t longest = o->frames, n = c->frames;
    *out = (kn_segments){.count = 1, .length = longest, .frames = n};
    if (n <= longest) {
        bool keep = o->tail == KN_TAIL_KEEP;
        out->length = (n - 1 + (keep ? 3 : 0)) / 4 * 4 + 1;
        if (!keep) out->frames = out->length;
        return KN_OK;
    }
    out->overlap = o->overlap;
    if (o->overlap % 4 != 1 || 2 * o->overlap > longest)
        return kn_fail(KN_ERR_ARG, "--overlap: expected 4n+1 frames, at most half of a segment of %" PRId64 " (--frames), found %" PRId64,
                       longest, o->overlap);
    int64_t stride = longest - o->overlap;
    out->count += (n - longest + stride - 1) / stride;
    return KN_OK;
}

int64_t kn_segment_first(const kn_segments *s, int64_t k)
{
    int64_t first = k * (s->length - s->overlap), last = s->frames - s->length;
    return s->count == 1 ? 0 : first < last ? first : last;
}

/* ---- frames -----------------------------------------------------------------------------------*/

struct kn_clip_reader {
    const kn_clip *clip;
    kn_geometry geo;
    kn_video_reader *video;
    kn_resize *resize;
    float *frame;            /* of the clip */
    float *inner;            /* the picture without bars; NULL: it fills the frame */
    int64_t inner_width, inner_height;
    bool ended;
};

/* Where the picture lies. s: shown pixels of the clip for one of the output. */
static void place(const kn_clip *c, int64_t fit, const kn_geometry *g, kn_resize_params *p, kn_clip_reader *r)
{
    double width = (double)p->from_width, height = (double)p->from_height, shown = (double)c->width_px / width;
    double sx = (double)c->width_px / (double)g->out_width_px, sy = height / (double)g->out_height_px;
    double s = fit == KN_FIT_CROP ? fmin(sx, sy) : fmax(sx, sy);
    p->to_width = g->width_px;
    p->to_height = g->height_px;
    p->step_x = width / (double)g->out_width_px;
    p->step_y = sy;
    if (fit == KN_FIT_CROP) {
        p->step_x = s / shown;
        p->step_y = s;
        p->first_x = (width - (double)g->out_width_px * p->step_x) / 2;
        p->first_y = (height - (double)g->out_height_px * p->step_y) / 2;
    } else if (fit == KN_FIT_PAD) {
        p->to_width = r->inner_width = (int64_t)fmax(1, round((double)c->width_px / s));
        p->to_height = r->inner_height = (int64_t)fmax(1, round(height / s));
        p->step_x = width / (double)p->to_width;
        p->step_y = height / (double)p->to_height;
    }
}

kn_status kn_clip_reader_open(const kn_clip *c, const kn_options *o, const kn_geometry *g, int64_t first,
                              kn_clip_reader **out)
{
    kn_clip_reader *r = NULL;
    kn_status st = KN_OK;
    bool end;
    *out = NULL;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *r, (void **)&r));
    r->clip = c;
    r->geo = *g;
    KN_TRY_GOTO(kn_video_reader_open(c->path, (int)(o->threads > 64 ? 64 : o->threads), &r->video));
    kn_resize_params p = {.filter = o->upscale == KN_UPSCALE_LANCZOS ? KN_RESIZE_LANCZOS : KN_RESIZE_BILINEAR,
                          .from_width = c->info.width_px,
                          .from_height = c->info.height_px,
                          .channels = 3};
    place(c, o->fit, g, &p, r);
    KN_TRY_GOTO(kn_resize_build(&p, &r->resize));
    KN_TRY_GOTO(kn_alloc_array((size_t)(p.from_width * p.from_height), 3 * sizeof(float), (void **)&r->frame));
    if (r->inner_width)
        KN_TRY_GOTO(kn_alloc_array((size_t)(p.to_width * p.to_height), 3 * sizeof(float), (void **)&r->inner));
    for (int64_t i = 0; i < first; i++) KN_TRY_GOTO(kn_video_reader_skip(r->video, &end));
    *out = r;
    r = NULL;
done:
    kn_clip_reader_close(&r);
    return st;
}

void kn_clip_reader_close(kn_clip_reader **r)
{
    if (!*r) return;
    kn_video_reader_close(&(*r)->video);
    kn_resize_free(&(*r)->resize);
    kn_free((*r)->frame);
    kn_free((*r)->inner);
    kn_free(*r);
    *r = NULL;
}

size_t kn_clip_reader_bytes(const kn_clip *c, const kn_geometry *g)
{
    int64_t own = (int64_t)c->info.width_px * c->info.height_px, rows = c->info.height_px * g->width_px;
    return (size_t)(own + rows + g->width_px * g->height_px) * 3 * sizeof(float);
}

/* Black frame with the picture in the middle of what is shown. */
static void put_inner(const kn_clip_reader *r, float *frame)
{
    const kn_geometry *g = &r->geo;
    int64_t left = (g->out_width_px - r->inner_width) / 2, top = (g->out_height_px - r->inner_height) / 2;
    for (int64_t i = 0; i < 3 * g->width_px * g->height_px; i++) frame[i] = 0;
    for (int64_t y = 0; y < r->inner_height; y++)
        memcpy(frame + 3 * ((top + y) * g->width_px + left), r->inner + 3 * y * r->inner_width,
               (size_t)r->inner_width * 3 * sizeof *frame);
}

kn_status kn_clip_reader_next(kn_clip_reader *r, float *frame)
{
    bool end = true;
    if (!r->ended) KN_TRY(kn_video_reader_next(r->video, r->frame, &end));
    r->ended |= end; /* r->frame still holds the last one */
    kn_resize_run(r->resize, r->frame, r->inner ? r->inner : frame);
    if (r->inner) put_inner(r, frame);
    for (int64_t i = 0; i < 3 * r->geo.width_px * r->geo.height_px; i++)
        frame[i] = fminf(fmaxf(2 * frame[i] - 1, -1), 1); /* lanczos overshoots */
    return KN_OK;
}
