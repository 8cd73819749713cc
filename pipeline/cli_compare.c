/* kinora compare: two clips, read together frame by frame. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/canvas.h"
#include "io/folder.h"
#include "io/memory.h"
#include "io/text.h"
#include "io/video.h"
#include "pipeline/cli_common.h"
#include "pipeline/compare.h"

enum { SIDES = 2, FRAMES_MAX = 1 << 20 };

typedef struct comparison {
    const char *path[SIDES], *output, *csv;
    bool overwrite;
    kn_video_reader *reader[SIDES];
    int width, height;
    float *frame[SIDES], *heat, *wide; /* [H,W,3]; wide: three of them side by side */
    float *worst[SIDES];               /* frame of the lowest SSIM */
    int64_t worst_at;
    kn_video_writer *video;
    double *psnr, *ssim;
    int64_t count, room;
    bool uneven; /* one clip went on */
} comparison;

static bool is_picture(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && !strcasecmp(path + n - 4, ".png");
}

/* ---- opening ----------------------------------------------------------------------------------*/

static kn_status open_video(comparison *c, const kn_video_info *info)
{
    kn_video_writer_params p = kn_video_writer_defaults();
    p.path = c->output;
    p.width_px = 3 * c->width;
    p.height_px = c->height;
    p.fps_num = info->fps_num > 0 ? info->fps_num : 16;
    p.fps_den = info->fps_num > 0 ? info->fps_den : 1;
    return kn_video_writer_open(&p, &c->video);
}

/* Before clips are read: what can be written at their end. */
static kn_status check_target(const comparison *c, const char *flag, const char *path)
{
    bool there;
    KN_TRY(kn_path_exists(path, &there));
    if (there && !c->overwrite)
        return kn_fail(KN_ERR_ARG, "%s %s: exists; give --overwrite (-y) to replace it", flag, path);
    kn_atomic_file *trial;
    KN_TRY(kn_atomic_open(path, &trial));
    kn_atomic_discard(&trial);
    return KN_OK;
}

static kn_status open_all(comparison *c)
{
    const kn_video_info *info[SIDES];
    for (int i = 0; i < SIDES; i++) {
        KN_TRY(kn_video_reader_open(c->path[i], 0, &c->reader[i]));
        info[i] = kn_video_reader_info(c->reader[i]);
    }
    c->width = info[0]->width_px;
    c->height = info[0]->height_px;
    if (c->width != info[1]->width_px || c->height != info[1]->height_px)
        return kn_fail(KN_ERR_ARG, "%s is %dx%d, %s is %dx%d: expected the same size", c->path[0], c->width, c->height,
                       c->path[1], info[1]->width_px, info[1]->height_px);
    size_t bytes = (size_t)c->width * (size_t)c->height * 3 * sizeof(float);
    for (int i = 0; i < SIDES; i++) {
        KN_TRY(kn_alloc(bytes, (void **)&c->frame[i]));
        KN_TRY(kn_alloc(bytes, (void **)&c->worst[i]));
    }
    KN_TRY(kn_alloc(bytes, (void **)&c->heat));
    if (c->csv) KN_TRY(check_target(c, "--csv", c->csv));
    if (!c->output) return KN_OK;
    KN_TRY(check_target(c, "--output", c->output));
    if (is_picture(c->output)) return KN_OK;
    KN_TRY(kn_alloc(3 * bytes, (void **)&c->wide));
    return open_video(c, info[0]);
}

static void close_all(comparison *c)
{
    kn_video_writer_close(&c->video);
    for (int i = 0; i < SIDES; i++) {
        kn_video_reader_close(&c->reader[i]);
        kn_free(c->frame[i]);
        kn_free(c->worst[i]);
    }
    kn_free(c->heat);
    kn_free(c->wide);
    kn_free(c->psnr);
    kn_free(c->ssim);
}

/* ---- frames -----------------------------------------------------------------------------------*/

/* Black, blue, red, yellow, white at differences 0, 1/64, 1/16, 1/4, 1: four steps of two f-stops, so that
 * what the eye cannot see is seen too. */
static void heat_of(double difference, float rgb[3])
{
    static const float colour[5][3] = {{0, 0, 0}, {0.1F, 0.15F, 0.7F}, {0.85F, 0.1F, 0.15F}, {1, 0.85F, 0.1F}, {1, 1, 1}};
    static const double stop[5] = {0, 1.0 / 64, 1.0 / 16, 1.0 / 4, 1};
    int i = 0;
    while (i < 3 && difference > stop[i + 1]) i++;
    double t = (difference - stop[i]) / (stop[i + 1] - stop[i]);
    for (int k = 0; k < 3; k++) rgb[k] = (float)((1 - t) * (double)colour[i][k] + t * (double)colour[i + 1][k]);
}

static void draw_heat(const comparison *c, const float *a, const float *b)
{
    int64_t pixels = (int64_t)c->width * c->height;
    for (int64_t i = 0; i < pixels; i++) {
        double most = 0;
        for (int k = 0; k < 3; k++) most = fmax(most, fabs((double)a[3 * i + k] - (double)b[3 * i + k]));
        heat_of(most, c->heat + 3 * i);
    }
}

static kn_status put_video(comparison *c)
{
    size_t row = (size_t)c->width * 3;
    const float *part[3] = {c->frame[0], c->frame[1], c->heat};
    draw_heat(c, c->frame[0], c->frame[1]);
    for (int y = 0; y < c->height; y++)
        for (int i = 0; i < 3; i++)
            memcpy(c->wide + ((size_t)y * 3 + (size_t)i) * row, part[i] + (size_t)y * row, row * sizeof(float));
    return kn_video_writer_put(c->video, c->wide);
}

static kn_status grow(comparison *c)
{
    if (c->count < c->room) return KN_OK;
    if (c->room >= FRAMES_MAX) return kn_fail(KN_ERR_ARG, "%s: more than %d frames", c->path[0], (int)FRAMES_MAX);
    int64_t room = c->room ? 2 * c->room : 128;
    double **list[] = {&c->psnr, &c->ssim};
    for (int i = 0; i < 2; i++) {
        double *grown;
        KN_TRY(kn_alloc_array((size_t)room, sizeof *grown, (void **)&grown));
        memcpy(grown, *list[i] ? *list[i] : grown, (size_t)c->count * sizeof *grown);
        kn_free(*list[i]);
        *list[i] = grown;
    }
    c->room = room;
    return KN_OK;
}

static kn_status take_frame(comparison *c)
{
    KN_TRY(grow(c));
    size_t bytes = (size_t)c->width * (size_t)c->height * 3 * sizeof(float);
    c->psnr[c->count] = kn_compare_psnr(c->frame[0], c->frame[1], c->width, c->height);
    KN_TRY(kn_compare_ssim(c->frame[0], c->frame[1], c->width, c->height, &c->ssim[c->count]));
    if (c->count == 0 || c->ssim[c->count] < c->ssim[c->worst_at]) {
        c->worst_at = c->count;
        for (int i = 0; i < SIDES; i++) memcpy(c->worst[i], c->frame[i], bytes);
    }
    c->count++;
    return c->video ? put_video(c) : KN_OK;
}

static kn_status read_all(comparison *c)
{
    for (;;) {
        bool end[SIDES];
        for (int i = 0; i < SIDES; i++) KN_TRY(kn_video_reader_next(c->reader[i], c->frame[i], &end[i]));
        c->uneven = end[0] != end[1];
        if (end[0] || end[1]) break;
        KN_TRY(take_frame(c));
    }
    if (c->count == 0) return kn_fail(KN_ERR_FORMAT, "%s: expected frames, found none", c->path[0]);
    return c->video ? kn_video_writer_finish(c->video) : KN_OK;
}

/* ---- results ----------------------------------------------------------------------------------*/

typedef struct range {
    double low, high, mean;
    int64_t low_at, counted;
} range;

static range range_of(const double *v, int64_t count)
{
    range r = {.low = INFINITY, .high = -INFINITY};
    for (int64_t i = 0; i < count; i++) {
        if (isinf(v[i])) continue;
        if (v[i] < r.low) r.low = v[i], r.low_at = i;
        if (v[i] > r.high) r.high = v[i];
        r.mean += v[i];
        r.counted++;
    }
    if (r.counted) r.mean /= (double)r.counted;
    return r;
}

static void print_result(const comparison *c)
{
    range p = range_of(c->psnr, c->count), s = range_of(c->ssim, c->count);
    printf("%lld frames of %dx%d%s\n", (long long)c->count, c->width, c->height,
           c->uneven ? "; one clip is longer, its rest was not compared" : "");
    if (p.counted == 0)
        printf("PSNR  infinite: all frames are equal\n");
    else
        printf("PSNR  mean %.2f dB, lowest %.2f dB at frame %lld; %lld frames are equal\n", p.mean, p.low,
               (long long)p.low_at, (long long)(c->count - p.counted));
    printf("SSIM  mean %.5f, lowest %.5f at frame %lld\n", s.mean, s.low, (long long)s.low_at);
}

static kn_status write_csv(const comparison *c)
{
    kn_text t = {0};
    kn_status st = kn_text_add(&t, "frame,psnr_db,ssim\n");
    for (int64_t i = 0; st == KN_OK && i < c->count; i++)
        st = isinf(c->psnr[i]) ? kn_text_addf(&t, "%lld,inf,%.6f\n", (long long)i, c->ssim[i])
                               : kn_text_addf(&t, "%lld,%.4f,%.6f\n", (long long)i, c->psnr[i], c->ssim[i]);
    if (st == KN_OK) st = kn_file_write(c->csv, t.data, t.size);
    kn_free(t.data);
    return st;
}

enum { TILE_PX = 480, GAP = 12, HEAD = 24, PLOT_PX = 150, LABEL = 64 };
static const kn_rgb PAPER = 0xffffff, INK = 0x202020, GRID = 0xdddddd, CURVE = 0x2060c0;

/* One curve over all frames, its axis from low to high. */
static void plot(kn_canvas *k, int y, int width, const char *title, const double *v, int64_t count, double low, double high)
{
    char text[32];
    int x0 = GAP + LABEL, w = width - x0 - GAP;
    kn_canvas_text(k, x0, y, 2, INK, title);
    y += HEAD;
    for (int i = 0; i <= 4; i++) {
        int at = y + i * (PLOT_PX - 1) / 4;
        kn_canvas_fill(k, x0, at, w, 1, GRID);
        snprintf(text, sizeof text, high - low < 1 ? "%.4f" : "%.1f", high - (high - low) * i / 4);
        kn_canvas_text(k, GAP, at - 3, 1, INK, text);
    }
    kn_canvas_frame(k, x0, y, w, PLOT_PX, INK);
    for (int64_t i = 0; i < count; i++) {
        double share = isinf(v[i]) ? 1 : (v[i] - low) / (high - low);
        int left = x0 + (int)(i * w / count), right = x0 + (int)((i + 1) * w / count);
        int at = y + (int)((1 - fmin(fmax(share, 0), 1)) * (PLOT_PX - 3));
        kn_canvas_fill(k, left, at, right > left ? right - left : 1, 3, CURVE);
    }
    snprintf(text, sizeof text, "frame 0 .. %lld", (long long)count - 1);
    kn_canvas_text(k, x0, y + PLOT_PX + 4, 1, INK, text);
}

/* The worst frame of both, their difference, and the curves. */
static kn_status write_picture(const comparison *c)
{
    int shrink = (c->width + TILE_PX - 1) / TILE_PX, w = c->width / shrink, h = c->height / shrink;
    int cell = w < 160 ? 160 : w, width = 3 * cell + 4 * GAP;
    int height = 4 * GAP + 3 * HEAD + h + 2 * (PLOT_PX + 2 * GAP);
    range p = range_of(c->psnr, c->count), s = range_of(c->ssim, c->count);
    const char *title[3] = {"a", "b", "difference"};
    const float *part[3] = {c->worst[0], c->worst[1], c->heat};
    kn_canvas k;
    char text[96];
    KN_TRY(kn_canvas_build(width, height, PAPER, &k));
    draw_heat(c, c->worst[0], c->worst[1]);
    for (int i = 0; i < 3; i++) {
        int x = GAP + i * (cell + GAP);
        snprintf(text, sizeof text, i < 2 ? "%s, frame %lld" : "%s", title[i], (long long)c->worst_at);
        kn_canvas_text(&k, x, GAP, 1, INK, text);
        kn_canvas_picture(&k, x, GAP + HEAD - 8, part[i], c->width, c->height, shrink);
    }
    /* the scale of the heat map */
    int y = GAP + HEAD + h - 4;
    for (int i = 0; i < cell; i++) {
        float rgb[3];
        double d = pow(2, -8 + 8.0 * i / cell);
        heat_of(d, rgb);
        kn_canvas_fill(&k, GAP + 2 * (cell + GAP) + i, y, 1, 6,
                       (kn_rgb)(rgb[0] * 255) << 16 | (kn_rgb)(rgb[1] * 255) << 8 | (kn_rgb)(rgb[2] * 255));
    }
    kn_canvas_text(&k, GAP + 2 * (cell + GAP), y + 8, 1, INK, "1/256  1/64  1/16  1/4  1");
    y += 2 * GAP + 8;
    double low = p.counted ? floor(p.low) : 0, high = p.counted ? ceil(p.high) : 1;
    plot(&k, y, width, p.counted ? "PSNR dB" : "PSNR: all frames equal", c->psnr, c->count, low, high > low ? high : low + 1);
    plot(&k, y + HEAD + PLOT_PX + 2 * GAP, width, "SSIM", c->ssim, c->count, s.low < 0.9999 ? s.low : 0.9999, 1);
    kn_status st = kn_canvas_write(&k, c->output);
    kn_canvas_free(&k);
    return st;
}

/* ---- the command ------------------------------------------------------------------------------*/

static kn_status parse(comparison *c, int argc, char **argv)
{
    int paths = 0;
    for (int i = 0; i < argc; i++) {
        bool output = !strcmp(argv[i], "-o") || !strcmp(argv[i], "--output"), csv = !strcmp(argv[i], "--csv");
        if (!strcmp(argv[i], "-y") || !strcmp(argv[i], "--overwrite"))
            c->overwrite = true;
        else if ((output || csv) && i + 1 < argc)
            *(output ? &c->output : &c->csv) = argv[++i];
        else if (argv[i][0] != '-' && paths < SIDES)
            c->path[paths++] = argv[i];
        else
            return kn_fail(KN_ERR_ARG, "compare: unexpected argument '%s'", argv[i]);
    }
    if (paths == SIDES) return KN_OK;
    return kn_fail(KN_ERR_ARG, "expected `kinora compare A B [--output FILE.png|FILE.mp4] [--csv FILE] [-y]`");
}

int kn_cli_compare(int argc, char **argv)
{
    comparison c = {0};
    kn_status st = parse(&c, argc, argv);
    if (st == KN_OK && kn_compare_is_tensors(c.path[0]) && kn_compare_is_tensors(c.path[1])) {
        st = c.output || c.csv ? kn_fail(KN_ERR_ARG, "compare: --output and --csv are of clips, not of tensors")
                               : kn_compare_tensors(c.path[0], c.path[1]);
        return kn_cli_report(st);
    }
    if (st == KN_OK) st = open_all(&c);
    if (st == KN_OK) st = read_all(&c);
    if (st == KN_OK) print_result(&c);
    if (st == KN_OK && c.csv) st = write_csv(&c);
    if (st == KN_OK && c.output && is_picture(c.output)) st = write_picture(&c);
    close_all(&c);
    return kn_cli_report(st);
}
