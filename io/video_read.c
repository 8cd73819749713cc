#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <libavutil/display.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>

#include "io/frames.h"
#include "io/log.h"
#include "io/memory.h"
#include "io/png.h"
#include "io/video.h"
#include "io/video_color.h"
#include "io/video_libav.h"
#include "io/video_webp.h"

struct kn_video_reader {
    char *path;
    kn_video_info info;
    int64_t frames; /* given so far */
    double time_s;
    /* One of three sources. */
    bool is_list;
    kn_frame_list list;
    kn_webp *webp;
    AVFormatContext *in;
    /* With `in`: */
    int index;
    AVCodecContext *decoder;
    AVPacket *packet;
    AVFrame *frame;
    bool flushed;
    int coded_width_px, coded_height_px; /* before rotation */
    kn_color_source color;
    int color_format; /* pixel format that color was made for */
    float *floats;    /* one frame, for next_u16 on 8-bit sources; NULL until needed */
};

/* Containers of single streams that a video can come in; playlists (hls, concat, dash) and devices,
 * which could make a file name others, are not among them. */
static const char formats[] =
    "mov,mp4,matroska,webm,gif,avi,mpegts,mpeg,mpegvideo,h264,hevc,av1,obu,"
    "ivf,flv,ogg,mjpeg,yuv4mpegpipe,mxf,asf,nut,apng,png_pipe,jpeg_pipe";

/* Of a pipe or a device, reading might never end; libav would not ask. */
static kn_status check_regular(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) return kn_fail(KN_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (S_ISREG(info.st_mode)) return KN_OK;
    return kn_fail(KN_ERR_IO, "cannot read %s: expected a regular file", path);
}

/* ---- opening a container --------------------------------------------------------------------- */

static kn_status open_container(const char *path, AVFormatContext **in)
{
    AVDictionary *options = NULL;
    char *url = NULL;
    *in = NULL;
    KN_TRY(check_regular(path));
    KN_TRY(kn_asprintf(&url, "file:%s", path)); /* a name may hold a colon */
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    av_dict_set(&options, "format_whitelist", formats, 0);
    int r = avformat_open_input(in, url, NULL, &options);
    av_dict_free(&options);
    kn_free(url);
    if (r < 0) return kn_libav_fail(r, KN_ERR_FORMAT, "cannot open %s as a video", path);
    return KN_OK;
}

/* Look into the streams for their parameters; the decoders that libavformat opens for it get our
 * limit on pixels too. */
static kn_status probe_streams(AVFormatContext *in, const char *path)
{
    unsigned n = in->nb_streams;
    AVDictionary **options = n ? av_calloc(n, sizeof(AVDictionary *)) : NULL;
    if (n && !options) return kn_fail(KN_ERR_NOMEM, "%s: out of memory for %u streams", path, n);
    for (unsigned i = 0; i < n; i++)
        av_dict_set_int(&options[i], "max_pixels", KN_VIDEO_MAX_PIXELS, 0);
    int r = avformat_find_stream_info(in, options);
    for (unsigned i = 0; i < n; i++) av_dict_free(&options[i]);
    av_free(options);
    if (r < 0) return kn_libav_fail(r, KN_ERR_FORMAT, "%s: reading stream parameters", path);
    return KN_OK;
}

static const uint8_t *display_matrix(const AVStream *stream)
{
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    const AVPacketSideData *side =
        av_packet_side_data_get(stream->codecpar->coded_side_data,
                                stream->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    return side && side->size >= 9 * sizeof(int32_t) ? side->data : NULL;
#else
#if LIBAVFORMAT_VERSION_MAJOR >= 59
    size_t size = 0;
#else
    int size = 0;
#endif
    const uint8_t *data = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
    return data && (size_t)size >= 9 * sizeof(int32_t) ? data : NULL;
#endif
}

static int rotation_of(const AVStream *stream, const char *path)
{
    const uint8_t *data = display_matrix(stream);
    int32_t matrix[9];
    if (!data) return 0;
    memcpy(matrix, data, sizeof matrix);
    double counterclockwise = av_display_rotation_get(matrix);
    if (isnan(counterclockwise)) return 0;
    int quarters = (int)lround(-counterclockwise / 90.0);
    if (fabs(-counterclockwise - 90.0 * quarters) > 1.0)
        kn_log(KN_LOG_WARN, "video",
               "%s: shown turned by %g degrees; only quarter turns are applied", path,
               -counterclockwise);
    return ((quarters % 4) + 4) % 4 * 90;
}

static void fill_rates(kn_video_reader *r, const AVStream *stream)
{
    kn_video_info *info = &r->info;
    AVRational average = stream->avg_frame_rate, nominal = stream->r_frame_rate;
    AVRational rate = average.num > 0 && average.den > 0 ? average : nominal;
    info->fps_den = 1;
    if (rate.num > 0 && rate.den > 0) {
        info->fps_num = rate.num;
        info->fps_den = rate.den;
    }
    if (average.num > 0 && average.den > 0 && nominal.num > 0 && nominal.den > 0) {
        /* A clock of whole milliseconds or hundredths makes a constant rate look uneven:
         * differences of less than one tick, or 1 %, do not count. */
        double interval_s = 1 / av_q2d(average), off_s = fabs(interval_s - 1 / av_q2d(nominal));
        info->variable_rate = off_s > 0.01 * interval_s && off_s > av_q2d(stream->time_base);
    }
    if (stream->duration != AV_NOPTS_VALUE && stream->duration > 0)
        info->duration_s = (double)stream->duration * av_q2d(stream->time_base);
    else if (r->in->duration != AV_NOPTS_VALUE && r->in->duration > 0)
        info->duration_s = (double)r->in->duration / AV_TIME_BASE;
    /* Only the index of mp4 and mov counts every frame; other headers are claims. */
    if (stream->nb_frames > 0 && strstr(r->in->iformat->name, "mp4")) {
        info->frames = stream->nb_frames;
        info->frames_exact = true;
    } else if (info->duration_s > 0 && info->duration_s < 1e7 && info->fps_num) {
        info->frames = llround(info->duration_s * info->fps_num / info->fps_den);
    }
}

static kn_status check_size(const char *path, int width, int height)
{
    if (width < 1 || height < 1 || width > KN_VIDEO_MAX_SIDE_PX || height > KN_VIDEO_MAX_SIDE_PX ||
        (int64_t)width * height > KN_VIDEO_MAX_PIXELS)
        return kn_fail(
            KN_ERR_FORMAT,
            "%s: expected frames of 1..%d pixels a side and at most %d pixels, found %dx%d", path,
            KN_VIDEO_MAX_SIDE_PX, KN_VIDEO_MAX_PIXELS, width, height);
    return KN_OK;
}

static void fill_color(kn_video_reader *r, enum AVPixelFormat format)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(format);
    const char *matrix = av_color_space_name(r->color.matrix);
    kn_video_info *info = &r->info;
    if (r->color.matrix == AVCOL_SPC_RGB) matrix = "rgb";
    snprintf(info->pixel_format, sizeof info->pixel_format, "%s", d->name);
    snprintf(info->matrix, sizeof info->matrix, "%s", matrix ? matrix : "unknown");
    info->bit_depth = d->flags & AV_PIX_FMT_FLAG_PAL ? 8 : d->comp[0].depth;
    info->matrix_guessed = r->color.matrix_guessed;
    info->full_range = r->color.full_range;
}

static kn_status open_decoder(kn_video_reader *r, const AVStream *stream, int threads)
{
    const AVCodecParameters *par = stream->codecpar;
    const AVCodec *codec = avcodec_find_decoder(par->codec_id);
    if (!codec)
        return kn_fail(KN_ERR_UNSUPPORTED, "%s: no decoder for %s in this build's libavcodec",
                       r->path, avcodec_get_name(par->codec_id));
    r->decoder = avcodec_alloc_context3(codec);
    r->packet = av_packet_alloc();
    r->frame = av_frame_alloc();
    if (!r->decoder || !r->packet || !r->frame)
        return kn_fail(KN_ERR_NOMEM, "%s: out of memory for a decoder", r->path);
    int code = avcodec_parameters_to_context(r->decoder, par);
    if (code >= 0) {
        r->decoder->pkt_timebase = stream->time_base;
        r->decoder->thread_count = threads;
        r->decoder->max_pixels = KN_VIDEO_MAX_PIXELS;
        /* ffv1 has checksums for every slice: use them. */
        if (par->codec_id == AV_CODEC_ID_FFV1)
            r->decoder->err_recognition = AV_EF_CRCCHECK | AV_EF_EXPLODE;
        code = avcodec_open2(r->decoder, codec, NULL);
    }
    if (code < 0)
        return kn_libav_fail(code, KN_ERR_FORMAT, "%s: opening the %s decoder", r->path,
                             codec->name);
    snprintf(r->info.codec, sizeof r->info.codec, "%s", avcodec_get_name(par->codec_id));
    return KN_OK;
}

static kn_status open_libav(kn_video_reader *r, int threads)
{
    KN_TRY(open_container(r->path, &r->in));
    KN_TRY(probe_streams(r->in, r->path));
    r->index = av_find_best_stream(r->in, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (r->index < 0)
        return kn_fail(KN_ERR_FORMAT, "%s: expected a video stream, found none", r->path);
    for (unsigned i = 0; i < r->in->nb_streams; i++) {
        if ((int)i != r->index) r->in->streams[i]->discard = AVDISCARD_ALL;
        if (r->in->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_AUDIO) r->info.has_audio = true;
    }
    const AVStream *stream = r->in->streams[r->index];
    const AVCodecParameters *par = stream->codecpar;
    KN_TRY(check_size(r->path, par->width, par->height));
    KN_TRY(open_decoder(r, stream, threads));
    if (r->decoder->pix_fmt == AV_PIX_FMT_NONE)
        return kn_fail(KN_ERR_FORMAT, "%s: the %s stream does not state a pixel format", r->path,
                       r->info.codec);
    kn_status st = kn_color_source_of(r->decoder->pix_fmt, par->color_space, par->color_range,
                                      par->height, &r->color);
    if (st != KN_OK) return KN_CTX(st, "%s", r->path);
    r->color_format = AV_PIX_FMT_NONE; /* frames may say more than the header */
    fill_color(r, r->decoder->pix_fmt);
    fill_rates(r, stream);
    r->coded_width_px = par->width;
    r->coded_height_px = par->height;
    r->info.rotation_deg = rotation_of(stream, r->path);
    bool turned = r->info.rotation_deg % 180 != 0;
    r->info.width_px = turned ? par->height : par->width;
    r->info.height_px = turned ? par->width : par->height;
    AVRational sar =
        stream->sample_aspect_ratio.num ? stream->sample_aspect_ratio : par->sample_aspect_ratio;
    if (sar.num > 0 && sar.den > 0) {
        r->info.sar_num = turned ? sar.den : sar.num;
        r->info.sar_den = turned ? sar.num : sar.den;
    }
    snprintf(r->info.container, sizeof r->info.container, "%s", r->in->iformat->name);
    return KN_OK;
}

/* ---- opening files of pictures --------------------------------------------------------------- */

static void fill_rgb8(kn_video_info *info, const char *container)
{
    snprintf(info->container, sizeof info->container, "%s", container);
    snprintf(info->codec, sizeof info->codec, "%s", container);
    snprintf(info->pixel_format, sizeof info->pixel_format, "rgb");
    snprintf(info->matrix, sizeof info->matrix, "rgb");
    info->bit_depth = 8;
    info->full_range = true;
    info->frames_exact = true;
}

static kn_status open_list(kn_video_reader *r)
{
    kn_picture first;
    KN_TRY(kn_frames_list(r->path, &r->list));
    KN_TRY(kn_png_read(r->list.paths[0], 16, NULL, &first));
    r->info.width_px = first.width_px;
    r->info.height_px = first.height_px;
    kn_picture_free(&first);
    fill_rgb8(&r->info, "png");
    r->info.bit_depth = 16; /* what they are read as */
    r->info.frames = r->list.count;
    return check_size(r->path, r->info.width_px, r->info.height_px);
}

static kn_status open_webp(kn_video_reader *r)
{
    KN_TRY(kn_webp_open(r->path, &r->webp));
    kn_webp_info w = kn_webp_get_info(r->webp);
    fill_rgb8(&r->info, "webp");
    r->info.width_px = w.width_px;
    r->info.height_px = w.height_px;
    r->info.frames = w.frames;
    r->info.duration_s = (double)w.duration_ms / 1000.0;
    if (w.duration_ms > 0)
        av_reduce(&r->info.fps_num, &r->info.fps_den, 1000 * w.frames, w.duration_ms, 1000000);
    return KN_OK;
}

kn_status kn_video_reader_open(const char *path, int threads, kn_video_reader **out)
{
    kn_status st;
    void *memory = NULL;
    *out = NULL;
    kn_libav_setup();
    if (threads < 0 || threads > 64)
        return kn_fail(KN_ERR_ARG, "threads: expected 0..64, found %d", threads);
    KN_TRY(kn_alloc_zero(sizeof(kn_video_reader), &memory));
    kn_video_reader *r = memory;
    r->info.fps_den = r->info.sar_num = r->info.sar_den = 1;
    KN_TRY_GOTO(kn_strdup(path, &r->path));
    r->is_list = kn_frames_is_list(path);
    if (r->is_list)
        KN_TRY_GOTO(open_list(r));
    else {
        KN_TRY_GOTO(check_regular(path));
        KN_TRY_GOTO(kn_webp_is(path) ? open_webp(r) : open_libav(r, threads));
    }
    *out = r;
    r = NULL;
done:
    kn_video_reader_close(&r);
    return st;
}

void kn_video_reader_close(kn_video_reader **handle)
{
    if (!handle || !*handle) return;
    kn_video_reader *r = *handle;
    *handle = NULL;
    avcodec_free_context(&r->decoder);
    av_packet_free(&r->packet);
    av_frame_free(&r->frame);
    avformat_close_input(&r->in);
    kn_webp_close(&r->webp);
    kn_frames_list_free(&r->list);
    kn_free(r->floats);
    kn_free(r->path);
    kn_free(r);
}

const kn_video_info *kn_video_reader_info(const kn_video_reader *r)
{
    return &r->info;
}

double kn_video_reader_time_s(const kn_video_reader *r)
{
    return r->time_s;
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* Give the decoder the next packet of the stream, or tell it that there is none. */
static kn_status feed(kn_video_reader *r)
{
    int code;
    do {
        av_packet_unref(r->packet);
        code = av_read_frame(r->in, r->packet);
    } while (code >= 0 && r->packet->stream_index != r->index);
    if (code == AVERROR_EOF) {
        r->flushed = true;
        code = avcodec_send_packet(r->decoder, NULL);
    } else if (code < 0) {
        return kn_libav_fail(code, KN_ERR_FORMAT, "%s: reading after frame %lld", r->path,
                             (long long)r->frames);
    } else if (r->packet->flags & AV_PKT_FLAG_CORRUPT) {
        return kn_fail(KN_ERR_FORMAT, "%s: damaged or cut short after frame %lld", r->path,
                       (long long)r->frames);
    } else {
        code = avcodec_send_packet(r->decoder, r->packet);
    }
    if (code < 0 && code != AVERROR_EOF)
        return kn_libav_fail(code, KN_ERR_FORMAT, "%s: decoding %s after frame %lld", r->path,
                             r->info.codec, (long long)r->frames);
    return KN_OK;
}

/* r->frame = the next decoded frame. */
static kn_status decode(kn_video_reader *r, bool *end)
{
    for (;;) {
        int code = avcodec_receive_frame(r->decoder, r->frame);
        if (code == AVERROR_EOF || (code == AVERROR(EAGAIN) && r->flushed)) {
            *end = true;
            return KN_OK;
        }
        if (code == AVERROR(EAGAIN)) {
            KN_TRY(feed(r));
            continue;
        }
        if (code < 0)
            return kn_libav_fail(code, KN_ERR_FORMAT, "%s: decoding %s after frame %lld", r->path,
                                 r->info.codec, (long long)r->frames);
        break;
    }
    const AVFrame *f = r->frame;
    if (f->decode_error_flags || (f->flags & AV_FRAME_FLAG_CORRUPT))
        return kn_fail(KN_ERR_FORMAT, "%s: frame %lld is damaged", r->path, (long long)r->frames);
    if (f->width != r->coded_width_px || f->height != r->coded_height_px)
        return kn_fail(KN_ERR_FORMAT, "%s: frame %lld is %dx%d, expected %dx%d like those before",
                       r->path, (long long)r->frames, f->width, f->height, r->coded_width_px,
                       r->coded_height_px);
    return KN_OK;
}

/* rgb NULL: the frame is not wanted. */
static kn_status next_libav(kn_video_reader *r, float *rgb, bool *end)
{
    KN_TRY(decode(r, end));
    if (*end) return KN_OK;
    AVFrame *f = r->frame;
    int64_t at = f->best_effort_timestamp;
    if (at != AV_NOPTS_VALUE) r->time_s = (double)at * av_q2d(r->in->streams[r->index]->time_base);
    if (!rgb) {
        av_frame_unref(f);
        return KN_OK;
    }
    if (f->format != r->color_format) {
        const AVCodecParameters *par = r->in->streams[r->index]->codecpar;
        enum AVColorSpace matrix =
            f->colorspace != AVCOL_SPC_UNSPECIFIED ? f->colorspace : par->color_space;
        enum AVColorRange range =
            f->color_range != AVCOL_RANGE_UNSPECIFIED ? f->color_range : par->color_range;
        kn_status st = kn_color_source_of(f->format, matrix, range, f->height, &r->color);
        if (st != KN_OK) return KN_CTX(st, "%s", r->path);
        r->color_format = f->format;
        fill_color(r, f->format);
    }
    kn_status st = kn_color_unpack(f, &r->color, r->info.rotation_deg, rgb);
    av_frame_unref(f);
    return st;
}

static kn_status next_picture(kn_video_reader *r, float *rgb, bool *end)
{
    kn_picture picture;
    *end = r->frames >= r->list.count;
    if (*end) return KN_OK;
    const char *path = r->list.paths[r->frames];
    KN_TRY(kn_png_read(path, 16, NULL, &picture));
    kn_status st = KN_OK;
    if (picture.width_px != r->info.width_px || picture.height_px != r->info.height_px) {
        st = kn_fail(KN_ERR_FORMAT, "%s is %dx%d, expected %dx%d like the first of %s", path,
                     picture.width_px, picture.height_px, r->info.width_px, r->info.height_px,
                     r->path);
    } else {
        const uint16_t *from = picture.data;
        size_t n = 3 * (size_t)picture.width_px * (size_t)picture.height_px;
        for (size_t i = 0; i < n; i++) rgb[i] = (float)from[i] * (1.0f / 65535.0f);
    }
    kn_picture_free(&picture);
    return st;
}

kn_status kn_video_reader_next(kn_video_reader *r, float *rgb, bool *end)
{
    *end = false;
    if (r->is_list) {
        KN_TRY(next_picture(r, rgb, end));
    } else if (r->webp) {
        int64_t start_ms = 0;
        KN_TRY(kn_webp_next(r->webp, rgb, &start_ms, end));
        r->time_s = (double)start_ms / 1000.0;
    } else {
        KN_TRY(next_libav(r, rgb, end));
    }
    if (!*end) r->frames++;
    return KN_OK;
}

kn_status kn_video_reader_skip(kn_video_reader *r, bool *end)
{
    *end = false;
    if (r->is_list)
        *end = r->frames >= r->list.count;
    else if (r->webp)
        return kn_video_reader_next(r, NULL, end);
    else
        KN_TRY(next_libav(r, NULL, end));
    if (!*end) r->frames++;
    return KN_OK;
}

kn_status kn_video_reader_next_u16(kn_video_reader *r, uint16_t *rgb, bool *end)
{
    size_t n = 3 * (size_t)r->info.width_px * (size_t)r->info.height_px;
    if (!r->floats) {
        void *memory;
        KN_TRY(kn_alloc_array(n, sizeof(float), &memory));
        r->floats = memory;
    }
    KN_TRY(kn_video_reader_next(r, r->floats, end));
    if (!*end)
        for (size_t i = 0; i < n; i++) rgb[i] = (uint16_t)(r->floats[i] * 65535.0f + 0.5f);
    return KN_OK;
}

/* ---- tags ------------------------------------------------------------------------------------ */

bool kn_video_reader_metadata(const kn_video_reader *r, int i, const char **key, const char **value)
{
    const AVDictionaryEntry *e = NULL;
    if (!r->in) return false;
    for (int k = 0; k <= i; k++) {
        e = av_dict_get(r->in->metadata, "", e, AV_DICT_IGNORE_SUFFIX);
        if (!e) return false;
    }
    if (!e) return false;
    *key = e->key;
    *value = e->value;
    return true;
}

kn_status kn_video_metadata_read(const char *path, const char *key, char **value)
{
    AVFormatContext *in = NULL;
    kn_status st = KN_OK;
    *value = NULL;
    kn_libav_setup();
    KN_TRY(open_container(path, &in));
    /* matroska names its tags in capitals: keys are compared without case. */
    const AVDictionaryEntry *e = av_dict_get(in->metadata, key, NULL, 0);
    if (e) st = kn_strdup(e->value, value);
    avformat_close_input(&in);
    return st;
}
