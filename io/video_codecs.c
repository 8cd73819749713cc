#include "io/video_codecs.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>

#include "io/video_libav.h"

/* ---- tables ---------------------------------------------------------------------------------- */

typedef enum chroma { CHROMA_420, CHROMA_422, CHROMA_444, CHROMA_RGB, CHROMA_PALETTE } chroma;

typedef struct codec_row {
    const char *name;
    const char *encoders[3]; /* in order of preference */
    const char *containers;
    int depths[4]; /* the first is the default; 0 ends the list */
    const char *bit_depths;
    double quality_min, quality_max, quality_default; /* default < 0: no quality setting */
    const char *quality;
    const char *presets; /* allowed words, or NULL with preset_max >= 0: a number 0..preset_max */
    int preset_max;
    const char *preset_default;
    const char *preset;
    chroma layout;
    bool odd_in_420; /* an odd size fits 4:2:0 */
    /* Memory, see kn_video_writer_memory: MiB whatever the clip, MiB per thread, and bytes per pixel:
     * whatever the clip, and for each frame that is held back, up to `held`. */
    double fixed_mib, thread_mib, pixel_bytes, frame_bytes;
    int held;
} codec_row;

#define X26X_PRESETS "ultrafast superfast veryfast faster fast medium slow slower veryslow placebo"

/* clang-format off */
static const codec_row codecs[] = {
    {"h264", {"libx264"}, "mp4 mov mkv", {8, 10}, "8 10",
     0, 51, 16, "crf 0..51, lower is better; default 16",
     X26X_PRESETS, -1, "medium", "ultrafast..placebo; default medium", CHROMA_420, false,
     4, 0, 27, 7.4, 35},
    {"h265", {"libx265"}, "mp4 mov mkv", {10, 8}, "10 8",
     0, 51, 18, "crf 0..51, lower is better; default 18",
     X26X_PRESETS, -1, "medium", "ultrafast..placebo; default medium", CHROMA_420, false,
     36, 0, 0, 15, 30},
    {"av1", {"libsvtav1", "libaom-av1"}, "mp4 mkv webm", {10, 8}, "10 8",
     0, 63, 24, "crf 0..63, lower is better; default 24",
     NULL, 8, "6", "speed 0..8, lower is slower and better; default 6", CHROMA_420, true,
     47, 0, 142, 6, 40},
    {"vp9", {"libvpx-vp9"}, "webm mkv mp4", {8, 10}, "8 10",
     0, 63, 20, "crf 0..63, lower is better; default 20",
     NULL, 5, "2", "speed 0..5, lower is slower and better; default 2", CHROMA_420, true,
     24, 6, 131, 0, 0},
    {"prores", {"prores_ks"}, "mov mkv", {10}, "10",
     0, 0, -1, "none: the preset decides",
     "proxy lt standard hq 4444", -1, "hq", "profile: proxy lt standard hq 4444; default hq",
     CHROMA_422, true, 2.5, 0, 10, 1.7, 14},
    {"ffv1", {"ffv1"}, "mkv", {8, 10, 12, 16}, "8 10 12 16",
     0, 0, -1, "none: lossless RGB",
     "", -1, "", "none", CHROMA_RGB, true, 4, 0, 178, 0, 0},
    {"gif", {"gif"}, "gif", {8}, "8",
     0, 0, -1, "none: one palette of 256 colours for the clip",
     "", -1, "", "none", CHROMA_PALETTE, true, 11.2, 0, 12, 0, 0},
    {"webp", {"libwebp_anim"}, "webp", {8}, "8",
     0, 100, 90, "0..100, higher is better; default 90",
     "lossy lossless", -1, "lossy", "lossy or lossless; default lossy", CHROMA_RGB, true,
     4, 0, 26, 0, 0},
};
/* clang-format on */
enum { CODECS = sizeof codecs / sizeof codecs[0] };

/* Extension, libavformat muxer, and what "auto" tries first. */
static const struct container_row {
    const char *extension, *muxer, *first_codec;
} containers[] = {
    {"mp4", "mp4", "h264"},  {"mov", "mov", "prores"}, {"mkv", "matroska", "h264"},
    {"webm", "webm", "vp9"}, {"gif", "gif", "gif"},    {"webp", "webp", "webp"},
};
enum { CONTAINERS = sizeof containers / sizeof containers[0] };

/* True when `word` stands in the blank-separated list. */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    if (!n) return false;
    for (const char *p = list; (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0')) return true;
    return false;
}

/* SVT-AV1 can code no side under 64 pixels and no odd side (its own check of settings). */
static bool encoder_fits(const char *encoder, int width_px, int height_px)
{
    if (strcmp(encoder, "libsvtav1")) return true;
    return width_px >= 64 && height_px >= 64 && !((width_px | height_px) & 1);
}

/* The first linked encoder of a row that can code the size; size 0: any. */
static const AVCodec *find_encoder(const codec_row *row, int width_px, int height_px)
{
    for (int i = 0; i < 3 && row->encoders[i]; i++) {
        const AVCodec *c = avcodec_find_encoder_by_name(row->encoders[i]);
        if (c && (!width_px || encoder_fits(row->encoders[i], width_px, height_px))) return c;
    }
    return NULL;
}

int kn_video_codecs_count(void)
{
    return CODECS;
}

kn_video_codec_info kn_video_codecs_at(int i)
{
    const codec_row *row = &codecs[i];
    const AVCodec *c = find_encoder(row, 0, 0);
    return (kn_video_codec_info){.name = row->name,
                                 .encoder = c ? c->name : NULL,
                                 .containers = row->containers,
                                 .bit_depths = row->bit_depths,
                                 .quality = row->quality,
                                 .preset = row->preset,
                                 .available = c != NULL};
}

/* Names of the codecs that are linked, and that fit the extension unless it is NULL. */
static const char *list_codecs(const char *extension, char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < CODECS; i++) {
        if (!find_encoder(&codecs[i], 0, 0)) continue;
        if (extension && !has_word(codecs[i].containers, extension)) continue;
        at += (size_t)snprintf(text + at, size - at, "%s%s", at ? ", " : "", codecs[i].name);
        if (at >= size) break;
    }
    return text[0] ? text : "none";
}

/* ---- the choice ------------------------------------------------------------------------------ */

static kn_status choose_container(const char *path, const struct container_row **out)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    if (dot && dot != name)
        for (int i = 0; i < CONTAINERS; i++)
            if (!strcasecmp(dot + 1, containers[i].extension)) {
                *out = &containers[i];
                return KN_OK;
            }
    return kn_fail(
        KN_ERR_ARG,
        "%s: expected a video file name that ends in .mp4 .mov .mkv .webm .gif or .webp, "
        "found '%s'",
        path, dot ? dot : "no extension");
}

static kn_status choose_codec(const kn_video_writer_params *p, const struct container_row *box,
                              const codec_row **out)
{
    char list[160];
    const char *name = p->codec ? p->codec : "auto";
    bool any = !strcmp(name, "auto");
    const codec_row *row = NULL;
    if (any) name = box->first_codec;
    for (int i = 0; i < CODECS; i++)
        if (!strcmp(codecs[i].name, name)) row = &codecs[i];
    for (int i = 0; any && i < CODECS && !find_encoder(row, 0, 0); i++)
        if (has_word(codecs[i].containers, box->extension)) row = &codecs[i];
    if (!row)
        return kn_fail(KN_ERR_ARG, "unknown codec '%s': this build has %s", name,
                       list_codecs(NULL, list, sizeof list));
    if (!find_encoder(row, 0, 0))
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "no %s encoder (%s) in this build's libavcodec: it has encoders for %s",
                       row->name, row->encoders[0], list_codecs(NULL, list, sizeof list));
    if (!has_word(row->containers, box->extension))
        return kn_fail(KN_ERR_ARG, "%s: %s cannot be stored in .%s: %s fits in %s; .%s takes %s",
                       p->path, row->name, box->extension, row->name, row->containers,
                       box->extension, list_codecs(box->extension, list, sizeof list));
    *out = row;
    return KN_OK;
}

static enum AVPixelFormat pixel_format(chroma layout, int depth, const char *encoder)
{
    bool is_webp = !strcmp(encoder, "libwebp_anim");
    switch (layout) {
    case CHROMA_420: return depth == 8 ? AV_PIX_FMT_YUV420P : AV_PIX_FMT_YUV420P10LE;
    case CHROMA_422: return AV_PIX_FMT_YUV422P10LE;
    case CHROMA_444: return depth == 8 ? AV_PIX_FMT_YUV444P : AV_PIX_FMT_YUV444P10LE;
    case CHROMA_RGB:
        if (is_webp) return AV_PIX_FMT_BGRA;
        return depth == 8    ? AV_PIX_FMT_BGR0
               : depth == 10 ? AV_PIX_FMT_GBRP10LE
               : depth == 12 ? AV_PIX_FMT_GBRP12LE
                             : AV_PIX_FMT_GBRP16LE;
    case CHROMA_PALETTE: return AV_PIX_FMT_PAL8;
    }
    return AV_PIX_FMT_NONE;
}

/* Can this build of the encoder take the format? (x264 and x265 may be built for one depth
 * only.) */
static bool takes_format(const AVCodec *c, enum AVPixelFormat format)
{
    const enum AVPixelFormat *list = NULL;
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(61, 13, 100)
    const void *configs = NULL;
    if (avcodec_get_supported_config(NULL, c, AV_CODEC_CONFIG_PIX_FORMAT, 0, &configs, NULL) >= 0)
        list = configs;
#else
    list = c->pix_fmts;
#endif
    if (!list) return true; /* not stated: avcodec_open2 decides */
    for (; *list != AV_PIX_FMT_NONE; list++)
        if (*list == format) return true;
    return false;
}

static kn_status check_size_and_rate(const kn_video_writer_params *p)
{
    if (p->width_px < 2 || p->height_px < 2 || p->width_px > KN_VIDEO_MAX_SIDE_PX ||
        p->height_px > KN_VIDEO_MAX_SIDE_PX ||
        (int64_t)p->width_px * p->height_px > KN_VIDEO_MAX_PIXELS)
        return kn_fail(
            KN_ERR_ARG,
            "%s: expected a frame size of 2..%d pixels a side and at most %d pixels, found "
            "%dx%d",
            p->path, KN_VIDEO_MAX_SIDE_PX, KN_VIDEO_MAX_PIXELS, p->width_px, p->height_px);
    /* 1000 frames per second: mp4, mkv and gif clocks still keep frames apart. */
    if (p->fps_num <= 0 || p->fps_den <= 0 || p->fps_num / p->fps_den > 1000 ||
        p->fps_den / p->fps_num > 1000)
        return kn_fail(KN_ERR_ARG,
                       "%s: expected a frame rate of 1/1000..1000 per second, found %d/%d", p->path,
                       p->fps_num, p->fps_den);
    if (p->threads < 0)
        return kn_fail(KN_ERR_ARG, "threads: expected 0 or more, found %d", p->threads);
    return KN_OK;
}

/* A GIF's frames last hundredths of a second, and players take one hundredth for "not said" and wait ten (so do browsers
 * and libavformat's reader, `default_delay`). */
static kn_status check_gif_rate(const kn_video_writer_params *p)
{
    enum { MOST = 50 };
    if (p->fps_num <= (int64_t)MOST * p->fps_den) return KN_OK;
    return kn_fail(KN_ERR_ARG, "%s: expected at most %d frames per second in a GIF, whose clock has no more, found %d/%d",
                   p->path, MOST, p->fps_num, p->fps_den);
}

static kn_status choose_preset(const codec_row *row, const char *preset, const char **out)
{
    *out = row->preset_default;
    if (!preset || !*preset) return KN_OK;
    char *end = NULL;
    bool fits;
    if (row->presets) {
        fits = has_word(row->presets, preset);
    } else {
        long v = strtol(preset, &end, 10);
        fits = end != preset && !*end && v >= 0 && v <= row->preset_max;
    }
    if (!fits)
        return kn_fail(KN_ERR_ARG, "codec %s: expected a preset of: %s; found '%s'", row->name,
                       row->preset, preset);
    *out = preset;
    return KN_OK;
}

/* Threads for encoders that take them; x264 is held to its own number, see open_x264. */
static int count_threads(int asked)
{
    long n = asked > 0 ? asked : sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 64 ? 64 : (int)n;
}

static kn_status choose_depth_and_quality(const kn_video_writer_params *p, const codec_row *row,
                                          kn_video_choice *c)
{
    c->bit_depth = p->bit_depth ? p->bit_depth : row->depths[0];
    bool fits = false;
    for (int i = 0; i < 4 && row->depths[i]; i++) fits |= row->depths[i] == c->bit_depth;
    if (!fits)
        return kn_fail(KN_ERR_ARG, "codec %s: expected a bit depth of: %s; found %d", row->name,
                       row->bit_depths, p->bit_depth);
    c->quality = p->quality;
    if (p->quality == KN_VIDEO_QUALITY_DEFAULT)
        c->quality = row->quality_default;
    else if (row->quality_default < 0)
        return kn_fail(KN_ERR_ARG, "codec %s has no quality setting (%s); found %g", row->name,
                       row->quality, p->quality);
    else if (!(p->quality >= row->quality_min && p->quality <= row->quality_max))
        return kn_fail(KN_ERR_ARG, "codec %s: expected a quality of: %s; found %g", row->name,
                       row->quality, p->quality);
    return KN_OK;
}

kn_status kn_video_choose(const kn_video_writer_params *p, kn_video_choice *c)
{
    const struct container_row *box = NULL;
    const codec_row *row = NULL;
    kn_libav_setup();
    *c = (kn_video_choice){0};
    if (!p->path || !*p->path) return kn_fail(KN_ERR_ARG, "video output: expected a file name");
    KN_TRY(check_size_and_rate(p));
    KN_TRY(choose_container(p->path, &box));
    if (!strcmp(box->extension, "gif")) KN_TRY(check_gif_rate(p));
    KN_TRY(choose_codec(p, box, &row));
    KN_TRY(choose_depth_and_quality(p, row, c));
    KN_TRY(choose_preset(row, p->preset, &c->preset));
    c->codec = row->name;
    c->extension = box->extension;
    c->muxer = box->muxer;
    c->threads = count_threads(p->threads);
    c->encoder = find_encoder(row, p->width_px, p->height_px);
    if (!c->encoder)
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "%s: %s in this build cannot code %dx%d: expected even sides of at least 64",
                       p->path, row->encoders[0], p->width_px, p->height_px);
    chroma layout = row->layout;
    if (layout == CHROMA_420 && !row->odd_in_420 && ((p->width_px | p->height_px) & 1)) {
        layout = CHROMA_444;
        c->chroma_forced = true;
    }
    if (layout == CHROMA_422 && !strcmp(c->preset, "4444")) layout = CHROMA_444;
    c->pix_fmt = pixel_format(layout, c->bit_depth, c->encoder->name);
    if (!takes_format(c->encoder, c->pix_fmt))
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "this build's %s cannot code %d bits (%s): choose another bit depth of: %s",
                       c->encoder->name, c->bit_depth, av_get_pix_fmt_name(c->pix_fmt),
                       row->bit_depths);
    /* QuickTime and Safari play HEVC only under this sample entry name (Apple's HLS authoring specification). */
    if (!strcmp(row->name, "h265") && strcmp(box->extension, "mkv"))
        c->codec_tag = MKTAG('h', 'v', 'c', '1');
    return KN_OK;
}

size_t kn_video_writer_memory(const kn_video_writer_params *params, int64_t frames)
{
    kn_video_choice c;
    const codec_row *row = codecs;
    if (kn_video_choose(params, &c) != KN_OK) {
        kn_error_clear();
        return 0;
    }
    while (strcmp(row->name, c.codec)) row++;
    double held = (double)(frames < row->held ? frames : row->held);
    double pixels = (double)params->width_px * params->height_px;
    return (size_t)((row->fixed_mib + c.threads * row->thread_mib) * 1048576 +
                    pixels * (row->pixel_bytes + held * row->frame_bytes));
}

kn_status kn_video_writer_check(const kn_video_writer_params *params)
{
    kn_video_choice unused;
    return kn_video_choose(params, &unused);
}

/* ---- encoder options ------------------------------------------------------------------------- */

/* Options as the encoder takes them; a failing av_dict_set shows as a missing option, so it is
 * counted here and checked once. */
typedef struct options {
    AVDictionary *dict;
    int failure;
} options;

static void set(options *o, const char *key, const char *fmt, ...) KN_PRINTF(3, 4);

static void set(options *o, const char *key, const char *fmt, ...)
{
    char value[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    int r = av_dict_set(&o->dict, key, value, 0);
    if (r < 0) o->failure = r;
}

/* x264 gives other bytes for another number of frame threads (measured: 1, 2 and 8 all differ), so
 * the number is fixed; 8 keeps an ordinary desktop busy and costs 8 frames of memory. */
enum { X264_THREADS = 8, X265_FRAME_THREADS = 4 };

/* x264's AVX-512 code for the macroblock tree reads memory that was never written when B frames are
 * references (seen in 0.164.3095: equal frames gave other bytes for another fill of fresh memory,
 * with one thread as well; never with the AVX2 code, without B pyramid, or without the tree). */
static bool has_avx512(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f");
#else
    return false;
#endif
}

static void options_x264(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    set(o, "crf", "%g", c->quality);
    set(o, "preset", "%s", c->preset);
    /* Every CPU with AVX-512 has these; x264 has no way to name what to leave out. */
    if (has_avx512())
        set(o, "x264-params", "asm=MMX2,SSE2Fast,SSSE3,SSE4.2,AVX,FMA3,BMI2,AVX2");
    ctx->thread_count = X264_THREADS;
}

static void options_x265(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    set(o, "crf", "%g", c->quality);
    set(o, "preset", "%s", c->preset);
    /* Frame threads change the bytes, the pool's size does not. info=0: no SEI with version and
     * options. x265 wants a picture of at least one coding tree block (x265 docs, --ctu). */
    int side = ctx->width < ctx->height ? ctx->width : ctx->height;
    set(o, "x265-params", "log-level=none:info=0:frame-threads=%d:pools=%d%s%s", X265_FRAME_THREADS,
        c->threads,
        /* Its vector code for the coding unit tree writes past the end of rows of fewer than four
         * units (valgrind, 3.5: widths below 64). */
        ctx->width < 64 ? ":cutree=0" : "",
        side < 32   ? ":ctu=16"
        : side < 64 ? ":ctu=32"
                    : "");
}

static void quiet_svt(void)
{
    /* SVT-AV1 writes its banner to stderr and has no call to stop it, only this variable
     * (EbLog.c); a value that the user has set stays. */
    setenv("SVT_LOG", "1", 0);
}

static void options_svtav1(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, quiet_svt);
    set(o, "preset", "%s", c->preset);
    if (av_opt_find(ctx->priv_data, "crf", NULL, 0, 0)) {
        set(o, "crf", "%g", c->quality);
    } else { /* FFmpeg 4.4: constant quantiser only */
        set(o, "rc", "cqp");
        set(o, "qp", "%d", (int)lrint(c->quality));
    }
    if (av_opt_find(ctx->priv_data, "svtav1-params", NULL, 0, 0))
        set(o, "svtav1-params", "lp=%d", c->threads);
}

static void options_aom(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    set(o, "crf", "%g", c->quality);
    set(o, "cpu-used", "%s", c->preset);
    set(o, "row-mt", "1");
    ctx->bit_rate = 0;
    /* One thread takes another path than two or more (measured); those agree among themselves. */
    ctx->thread_count = c->threads < 2 ? 2 : c->threads;
}

static void options_vp9(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    set(o, "crf", "%g", c->quality);
    set(o, "deadline", "good");
    set(o, "cpu-used", "%s", c->preset);
    set(o, "row-mt", "1");
    ctx->bit_rate = 0;
    ctx->thread_count = c->threads < 2 ? 2 : c->threads; /* as for libaom */
}

static void options_prores(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    set(o, "profile", "%s", c->preset);
    set(o, "vendor", "apl0"); /* some editors refuse other vendors' files */
    ctx->thread_count = c->threads;
}

static void options_ffv1(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    /* Version 3 with slices and their checksums, every frame on its own (RFC 9043 section 4). */
    set(o, "level", "3");
    set(o, "slicecrc", "1");
    set(o, "coder", "range_tab");
    ctx->gop_size = 1;
    ctx->slices = ctx->width >= 640 && ctx->height >= 352 ? 16 : 4;
    ctx->thread_count = c->threads;
}

static void options_webp(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    (void)ctx;
    set(o, "lossless", "%d", !strcmp(c->preset, "lossless"));
    set(o, "quality", "%g", c->quality);
}

static void options_none(AVCodecContext *ctx, const kn_video_choice *c, options *o)
{
    (void)ctx;
    (void)c;
    (void)o;
}

static const struct encoder_row {
    const char *name;
    void (*options)(AVCodecContext *, const kn_video_choice *, options *);
} encoders[] = {
    {"libx264", options_x264},   {"libx265", options_x265},      {"libsvtav1", options_svtav1},
    {"libaom-av1", options_aom}, {"libvpx-vp9", options_vp9},    {"prores_ks", options_prores},
    {"ffv1", options_ffv1},      {"libwebp_anim", options_webp}, {"gif", options_none},
};

static void tag_colour(AVCodecContext *ctx)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(ctx->pix_fmt);
    bool rgb = d->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL);
    ctx->color_primaries = AVCOL_PRI_BT709;
    ctx->color_trc = AVCOL_TRC_BT709;
    ctx->colorspace = rgb ? AVCOL_SPC_RGB : AVCOL_SPC_BT709;
    ctx->color_range = rgb ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
    if (!rgb && d->log2_chroma_w) ctx->chroma_sample_location = AVCHROMA_LOC_LEFT;
}

kn_status kn_video_encoder_open(const kn_video_writer_params *p, const kn_video_choice *c,
                                bool global_header, AVCodecContext **out)
{
    kn_status st = KN_OK;
    options o = {0};
    *out = NULL;
    AVCodecContext *ctx = avcodec_alloc_context3(c->encoder);
    if (!ctx) return kn_fail(KN_ERR_NOMEM, "out of memory for the %s encoder", c->encoder->name);
    ctx->width = p->width_px;
    ctx->height = p->height_px;
    ctx->pix_fmt = c->pix_fmt;
    ctx->time_base = (AVRational){p->fps_den, p->fps_num};
    ctx->framerate = (AVRational){p->fps_num, p->fps_den};
    ctx->sample_aspect_ratio = (AVRational){1, 1};
    ctx->codec_tag = c->codec_tag;
    ctx->flags |= AV_CODEC_FLAG_BITEXACT;
    if (global_header) ctx->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    tag_colour(ctx);
    for (size_t i = 0; i < sizeof encoders / sizeof encoders[0]; i++)
        if (!strcmp(encoders[i].name, c->encoder->name)) encoders[i].options(ctx, c, &o);
    if (o.failure < 0) {
        st = kn_libav_fail(o.failure, KN_ERR_INTERNAL, "%s: options of %s", p->path,
                           c->encoder->name);
        goto done;
    }
    int r = avcodec_open2(ctx, c->encoder, &o.dict);
    if (r < 0) {
        st = kn_libav_fail(r, KN_ERR_UNSUPPORTED, "%s: opening encoder %s for %dx%d %s failed",
                           p->path, c->encoder->name, p->width_px, p->height_px,
                           av_get_pix_fmt_name(c->pix_fmt));
        goto done;
    }
    const AVDictionaryEntry *left = av_dict_get(o.dict, "", NULL, AV_DICT_IGNORE_SUFFIX);
    if (left) {
        st = kn_fail(KN_ERR_UNSUPPORTED, "%s: encoder %s of this build has no option '%s'", p->path,
                     c->encoder->name, left->key);
        goto done;
    }
    *out = ctx;
    ctx = NULL;
done:
    av_dict_free(&o.dict);
    avcodec_free_context(&ctx);
    return st;
}
