#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <libavutil/avstring.h>
#include <libavutil/pixdesc.h>

#include "io/atomic_file.h"
#include "io/log.h"
#include "io/memory.h"
#include "io/video.h"
#include "io/video_codecs.h"
#include "io/video_color.h"
#include "io/video_libav.h"
#include "io/palette.h"

/* A stream that is copied from another file beside the pictures. */
typedef struct audio_copy {
    AVFormatContext *in;
    int in_index;
    int64_t start_us; /* source time that becomes 0 */
    AVStream *out;
    AVPacket *packet; /* the next one to write, when pending */
    bool pending, ended;
} audio_copy;

struct kn_video_writer {
    char *path;
    kn_video_choice choice;
    int width_px, height_px;
    AVRational fps;
    kn_atomic_file *file;
    kn_libav_file bytes;
    AVFormatContext *out;
    AVStream *stream;
    AVCodecContext *encoder;
    AVPacket *packet;
    audio_copy audio;
    kn_palette *palette; /* gif only, with the spool of 8-bit frames */
    kn_atomic_file *spool;
    int64_t frames; /* put so far */
    int64_t packets; /* got from the encoder so far */
    bool has_header, failed, finished;
    char text[192];
};

kn_video_writer_params kn_video_writer_defaults(void)
{
    return (kn_video_writer_params){.quality = KN_VIDEO_QUALITY_DEFAULT};
}

const char *kn_video_writer_text(const kn_video_writer *w)
{
    return w->text;
}

/* The failure of a libav call that writes: the disk's own error when there was one. */
static kn_status fail_write(kn_video_writer *w, int code, const char *what)
{
    if (w->bytes.error)
        return kn_fail(KN_ERR_IO, "cannot write %s: %s failed after %lld frames: %s", w->path, what,
                       (long long)w->frames, strerror(w->bytes.error));
    return kn_libav_fail(code, KN_ERR_IO, "cannot write %s: %s failed after %lld frames", w->path,
                         what, (long long)w->frames);
}

/* ---- audio ----------------------------------------------------------------------------------- */

/* Open `from` and find its first audio stream, which the container must be able to hold. None: *in is
 * NULL. */
static kn_status find_audio(const char *from, const kn_video_choice *choice, const char *path, AVFormatContext **in,
                            int *index)
{
    AVDictionary *options = NULL;
    char *url;
    *in = NULL;
    KN_TRY(kn_asprintf(&url, "file:%s", from)); /* a name may hold a colon */
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    int r = avformat_open_input(in, url, NULL, &options);
    av_dict_free(&options);
    kn_free(url);
    if (r >= 0) r = avformat_find_stream_info(*in, NULL);
    if (r < 0) return kn_libav_fail(r, KN_ERR_FORMAT, "cannot read audio from %s", from);
    *index = av_find_best_stream(*in, AVMEDIA_TYPE_AUDIO, -1, -1, NULL, 0);
    if (*index < 0) {
        avformat_close_input(in);
        return KN_OK;
    }
    enum AVCodecID codec = (*in)->streams[*index]->codecpar->codec_id;
    const AVOutputFormat *format = av_guess_format(choice->muxer, NULL, NULL);
    if (!format || avformat_query_codec(format, codec, FF_COMPLIANCE_NORMAL) <= 0)
        return kn_fail(KN_ERR_ARG, "%s: .%s cannot hold the %s audio of %s: use .mkv, or no audio", path,
                       choice->extension, avcodec_get_name(codec), from);
    return KN_OK;
}

kn_status kn_video_writer_check_audio(const kn_video_writer_params *p)
{
    kn_video_choice choice;
    AVFormatContext *in;
    int index;
    kn_libav_setup();
    if (!p->audio_from) return KN_OK;
    KN_TRY(kn_video_choose(p, &choice));
    kn_status st = find_audio(p->audio_from, &choice, p->path, &in, &index);
    avformat_close_input(&in);
    return st;
}

static kn_status open_audio(kn_video_writer *w, const char *from)
{
    audio_copy *a = &w->audio;
    KN_TRY(find_audio(from, &w->choice, w->path, &a->in, &a->in_index));
    if (!a->in) {
        kn_log(KN_LOG_INFO, "video", "%s has no audio: %s stays silent", from, w->path);
        return KN_OK;
    }
    const AVCodecParameters *par = a->in->streams[a->in_index]->codecpar;
    int video = av_find_best_stream(a->in, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    int64_t start = video >= 0 ? a->in->streams[video]->start_time : AV_NOPTS_VALUE;
    if (start != AV_NOPTS_VALUE)
        a->start_us = av_rescale_q(start, a->in->streams[video]->time_base, AV_TIME_BASE_Q);
    else if (a->in->start_time != AV_NOPTS_VALUE)
        a->start_us = a->in->start_time;
    a->out = avformat_new_stream(w->out, NULL);
    a->packet = av_packet_alloc();
    if (!a->out || !a->packet) return kn_fail(KN_ERR_NOMEM, "out of memory for an audio stream");
    int r = avcodec_parameters_copy(a->out->codecpar, par);
    if (r < 0) return kn_libav_fail(r, KN_ERR_NOMEM, "%s: copying audio parameters", w->path);
    a->out->codecpar->codec_tag = 0; /* tags differ between containers: the muxer finds its own */
    a->out->time_base = a->in->streams[a->in_index]->time_base;
    return KN_OK;
}

/* Write the audio that starts before end_us. */
static kn_status copy_audio(kn_video_writer *w, int64_t end_us)
{
    audio_copy *a = &w->audio;
    while (a->out && !a->ended) {
        AVRational base = a->in->streams[a->in_index]->time_base;
        if (!a->pending) {
            int r = av_read_frame(a->in, a->packet);
            if (r == AVERROR_EOF) {
                a->ended = true;
                break;
            }
            if (r < 0) return kn_libav_fail(r, KN_ERR_FORMAT, "%s: reading audio", a->in->url);
            if (a->packet->stream_index != a->in_index || a->packet->pts == AV_NOPTS_VALUE) {
                av_packet_unref(a->packet);
                continue;
            }
            int64_t shift = av_rescale_q(a->start_us, AV_TIME_BASE_Q, base);
            a->packet->pts -= shift;
            a->packet->dts =
                a->packet->dts == AV_NOPTS_VALUE ? a->packet->pts : a->packet->dts - shift;
            a->pending = true;
        }
        if (av_rescale_q(a->packet->pts, base, AV_TIME_BASE_Q) >= end_us) break;
        a->pending = false;
        av_packet_rescale_ts(a->packet, base, a->out->time_base);
        a->packet->stream_index = a->out->index;
        a->packet->pos = -1;
        int r = av_interleaved_write_frame(w->out, a->packet);
        if (r < 0 || w->bytes.error) return fail_write(w, r, "writing audio");
    }
    return KN_OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* mp4 knows these keys under its own names (movenc.c, mov_write_ilst_tag); others need "mdta". */
static bool is_plain_key(const char *key)
{
    static const char *const plain[] = {"title", "comment",   "artist",      "date",
                                        "genre", "copyright", "description", "synopsis"};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (!strcmp(key, plain[i])) return true;
    return false;
}

static kn_status set_metadata(kn_video_writer *w, const char *const *metadata, bool *needs_mdta)
{
    *needs_mdta = !strcmp(w->choice.extension, "mov");
    for (int i = 0; metadata && metadata[i]; i += 2) {
        if (!metadata[i + 1] || !metadata[i][0])
            return kn_fail(KN_ERR_ARG, "%s: metadata: expected key, value pairs", w->path);
        if (!is_plain_key(metadata[i])) *needs_mdta = true;
        int r = av_dict_set(&w->out->metadata, metadata[i], metadata[i + 1], 0);
        if (r < 0) return kn_libav_fail(r, KN_ERR_NOMEM, "%s: metadata", w->path);
    }
    if (metadata && metadata[0] &&
        (!strcmp(w->choice.extension, "gif") || !strcmp(w->choice.extension, "webp")))
        kn_log(KN_LOG_WARN, "video", "%s: .%s has no place for metadata: not stored", w->path,
               w->choice.extension);
    return KN_OK;
}

static kn_status write_header(kn_video_writer *w, bool needs_mdta)
{
    AVDictionary *options = NULL;
    kn_status st = KN_OK;
    int r = 0;
    if (!strcmp(w->choice.muxer, "mp4") || !strcmp(w->choice.muxer, "mov"))
        r = av_dict_set(&options, "movflags",
                        needs_mdta ? "+faststart+use_metadata_tags" : "+faststart", 0);
    else if (!strcmp(w->choice.muxer, "webp"))
        r = av_dict_set(&options, "loop", "0", 0); /* for ever, as gif does */
    if (r >= 0) r = avformat_write_header(w->out, &options);
    if (r < 0 || w->bytes.error)
        st = fail_write(w, r, "writing the file header");
    else
        w->has_header = true;
    av_dict_free(&options);
    return st;
}

static void describe(kn_video_writer *w)
{
    const kn_video_choice *c = &w->choice;
    char quality[32] = "";
    if (c->quality >= 0)
        snprintf(quality, sizeof quality, ", %s %g",
                 c->pix_fmt == AV_PIX_FMT_BGRA ? "quality" : "crf", c->quality);
    snprintf(w->text, sizeof w->text, "%s (%s, %s%s%s%s) in %s", c->codec, c->encoder->name,
             av_get_pix_fmt_name(c->pix_fmt), quality, *c->preset ? ", preset " : "", c->preset,
             c->extension);
    if (c->chroma_forced)
        kn_log(
            KN_LOG_WARN, "video",
            "%s: %dx%d has an odd side, which %s can only store as 4:4:4; some players do not show "
            "that",
            w->path, w->width_px, w->height_px, c->codec);
}

static kn_status open_output(kn_video_writer *w, const kn_video_writer_params *p)
{
    bool needs_mdta;
    KN_TRY(kn_atomic_open(p->path, &w->file));
    KN_TRY(kn_libav_file_open(&w->bytes, kn_atomic_fd(w->file), true));
    int r = avformat_alloc_output_context2(&w->out, NULL, w->choice.muxer, NULL);
    if (r < 0)
        return kn_libav_fail(r, KN_ERR_UNSUPPORTED, "%s: this build's libavformat cannot write .%s",
                             p->path, w->choice.extension);
    w->out->pb = w->bytes.pb;
    w->out->flags |= AVFMT_FLAG_BITEXACT | AVFMT_FLAG_CUSTOM_IO;
    /* "faststart" opens the file again by name; "file:" because a name may hold a colon. */
    w->out->url = av_asprintf("file:%s", kn_atomic_temp_path(w->file));
    if (!w->out->url) return kn_fail(KN_ERR_NOMEM, "out of memory for a file name");
    KN_TRY(set_metadata(w, p->metadata, &needs_mdta));
    KN_TRY(kn_video_encoder_open(p, &w->choice, w->out->oformat->flags & AVFMT_GLOBALHEADER,
                                 &w->encoder));
    w->stream = avformat_new_stream(w->out, NULL);
    w->packet = av_packet_alloc();
    if (!w->stream || !w->packet) return kn_fail(KN_ERR_NOMEM, "out of memory for a video stream");
    r = avcodec_parameters_from_context(w->stream->codecpar, w->encoder);
    if (r < 0) return kn_libav_fail(r, KN_ERR_NOMEM, "%s: stream parameters", p->path);
    w->stream->time_base = w->encoder->time_base;
    w->stream->avg_frame_rate = w->stream->r_frame_rate = w->fps;
    w->stream->sample_aspect_ratio = w->encoder->sample_aspect_ratio;
    if (p->audio_from) KN_TRY(open_audio(w, p->audio_from));
    return write_header(w, needs_mdta);
}

kn_status kn_video_writer_open(const kn_video_writer_params *p, kn_video_writer **out)
{
    kn_status st;
    void *memory = NULL;
    kn_video_choice choice;
    *out = NULL;
    KN_TRY(kn_video_choose(p, &choice));
    KN_TRY(kn_alloc_zero(sizeof(kn_video_writer), &memory));
    kn_video_writer *w = memory;
    w->choice = choice;
    w->width_px = p->width_px;
    w->height_px = p->height_px;
    w->fps = (AVRational){p->fps_num, p->fps_den};
    KN_TRY_GOTO(kn_strdup(p->path, &w->path));
    describe(w);
    KN_TRY_GOTO(open_output(w, p));
    if (choice.pix_fmt == AV_PIX_FMT_PAL8) {
        KN_TRY_GOTO(kn_palette_new(&w->palette));
        KN_TRY_GOTO(kn_atomic_open(p->path, &w->spool));
    }
    *out = w;
    w = NULL;
done:
    kn_video_writer_close(&w);
    return st;
}

static kn_status new_frame(const kn_video_writer *w, enum AVPixelFormat format, AVFrame **out)
{
    AVFrame *frame = av_frame_alloc();
    if (frame) {
        frame->format = format;
        frame->width = w->width_px;
        frame->height = w->height_px;
        frame->color_primaries = w->encoder->color_primaries;
        frame->color_trc = w->encoder->color_trc;
        frame->colorspace = w->encoder->colorspace;
        frame->color_range = w->encoder->color_range;
        frame->chroma_location = w->encoder->chroma_sample_location;
        frame->sample_aspect_ratio = w->encoder->sample_aspect_ratio;
    }
    if (!frame || av_frame_get_buffer(frame, 0) < 0) {
        av_frame_free(&frame);
        return kn_fail(KN_ERR_NOMEM, "%s: out of memory for a frame of %dx%d %s", w->path,
                       w->width_px, w->height_px, av_get_pix_fmt_name(format));
    }
    *out = frame;
    return KN_OK;
}

/* SVT-AV1 1.4 waits for ever in its own closing unless it was given a picture and told that there
 * are no more (svt_av1_enc_deinit). Do so, and drop what comes. */
static void flush_svtav1(kn_video_writer *w)
{
    AVFrame *frame = NULL;
    if (!w->encoder || !w->packet || w->finished || strcmp(w->choice.encoder->name, "libsvtav1"))
        return;
    if (!w->frames && new_frame(w, w->choice.pix_fmt, &frame) == KN_OK) {
        for (int i = 0; i < 3; i++)
            memset(frame->data[i], 0, frame->buf[i] ? frame->buf[i]->size : 0);
        frame->pts = 0;
        (void)avcodec_send_frame(w->encoder, frame);
        av_frame_free(&frame);
    }
    if (avcodec_send_frame(w->encoder, NULL) < 0) return;
    while (avcodec_receive_packet(w->encoder, w->packet) >= 0) av_packet_unref(w->packet);
}

void kn_video_writer_close(kn_video_writer **handle)
{
    if (!handle || !*handle) return;
    kn_video_writer *w = *handle;
    *handle = NULL;
    flush_svtav1(w);
    avcodec_free_context(&w->encoder);
    av_packet_free(&w->packet);
    av_packet_free(&w->audio.packet);
    avformat_close_input(&w->audio.in);
    if (w->out) {
        w->out->pb = NULL; /* ours, freed below */
        avformat_free_context(w->out);
    }
    kn_libav_file_close(&w->bytes);
    kn_atomic_discard(&w->spool);
    kn_atomic_discard(&w->file);
    kn_palette_free(&w->palette);
    kn_free(w->path);
    kn_free(w);
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* x264 puts its version and all its settings, the number of threads among them, into an SEI message
 * of type 5 (user data unregistered) before the first picture. Take that NAL unit out of an Annex B
 * packet: the stream is complete without it (H.264 annex D). */
static void drop_user_data(AVPacket *packet)
{
    uint8_t *data = packet->data;
    int size = packet->size, kept = 0;
    for (int at = 0; at < size;) {
        int next = at + 3; /* start of the next start code, or the end */
        while (next < size && !(next + 3 <= size && !data[next] && !data[next + 1] &&
                                (data[next + 2] == 1 ||
                                 (next + 4 <= size && !data[next + 2] && data[next + 3] == 1))))
            next++;
        int head = at;
        while (head < next && data[head] == 0) head++;
        head++; /* past the 1 of the start code */
        bool user = head + 1 < next && (data[head] & 0x1F) == 6 && data[head + 1] == 5;
        if (!user) {
            memmove(data + kept, data + at, (size_t)(next - at));
            kept += next - at;
        }
        at = next;
    }
    if (kept) av_shrink_packet(packet, kept);
}

/* Write what the encoder has ready. */
static kn_status drain(kn_video_writer *w)
{
    for (;;) {
        int r = avcodec_receive_packet(w->encoder, w->packet);
        if (r == AVERROR(EAGAIN) || r == AVERROR_EOF) return KN_OK;
        if (r < 0)
            return kn_libav_fail(r, KN_ERR_INTERNAL, "cannot write %s: encoding with %s failed",
                                 w->path, w->choice.encoder->name);
        if (!strcmp(w->choice.encoder->name, "libx264")) {
            r = av_packet_make_writable(w->packet);
            if (r < 0) return kn_libav_fail(r, KN_ERR_NOMEM, "%s: packet", w->path);
            drop_user_data(w->packet);
        }
        /* x265 subtracts from the first two a delay that it learns from the third frame: in a shorter
         * clip it is memory that nobody set (encoder.cpp, m_bframeDelayTime). */
        if (w->frames < 3 && !strcmp(w->choice.encoder->name, "libx265"))
            w->packet->dts = w->packets - 2;
        w->packets++;
        if (w->packet->duration <= 0) w->packet->duration = 1;
        w->packet->stream_index = w->stream->index;
        int64_t end_us = av_rescale_q(w->packet->dts + w->packet->duration, w->encoder->time_base,
                                      AV_TIME_BASE_Q);
        av_packet_rescale_ts(w->packet, w->encoder->time_base, w->stream->time_base);
        if (w->audio.out) KN_TRY(copy_audio(w, end_us));
        r = av_interleaved_write_frame(w->out, w->packet);
        if (r < 0 || w->bytes.error) return fail_write(w, r, "writing");
    }
}

static kn_status encode(kn_video_writer *w, AVFrame *frame, int64_t number)
{
    frame->pts = number;
    int r = avcodec_send_frame(w->encoder, frame);
    if (r < 0)
        return kn_libav_fail(r, KN_ERR_INTERNAL,
                             "cannot write %s: encoding frame %lld with %s failed", w->path,
                             (long long)number, w->choice.encoder->name);
    return drain(w);
}

static kn_status spool_frame(kn_video_writer *w, const AVFrame *frame)
{
    size_t row_bytes = 3 * (size_t)w->width_px;
    for (int y = 0; y < w->height_px; y++) {
        const uint8_t *row = frame->data[0] + (ptrdiff_t)y * frame->linesize[0];
        kn_palette_count(w->palette, row, w->width_px);
        KN_TRY(kn_atomic_write(w->spool, row, row_bytes));
    }
    return KN_OK;
}

static kn_status put(kn_video_writer *w, const float *f, const uint16_t *u)
{
    kn_status st;
    AVFrame *frame = NULL;
    if (w->failed || w->finished)
        return kn_fail(KN_ERR_ARG, "%s: frame %lld was given to a writer that had %s", w->path,
                       (long long)w->frames, w->failed ? "failed" : "finished");
    enum AVPixelFormat format = w->palette ? AV_PIX_FMT_RGB24 : w->choice.pix_fmt;
    KN_TRY_GOTO(new_frame(w, format, &frame));
    KN_TRY_GOTO(kn_color_pack(f, u, frame, w->frames));
    if (w->palette)
        KN_TRY_GOTO(spool_frame(w, frame));
    else
        KN_TRY_GOTO(encode(w, frame, w->frames));
    w->frames++;
done:
    av_frame_free(&frame);
    if (st != KN_OK) w->failed = true;
    return st;
}

kn_status kn_video_writer_put(kn_video_writer *w, const float *rgb)
{
    return put(w, rgb, NULL);
}

kn_status kn_video_writer_put_u16(kn_video_writer *w, const uint16_t *rgb)
{
    return put(w, NULL, rgb);
}

/* ---- finishing ------------------------------------------------------------------------------- */

static kn_status read_spool(kn_video_writer *w, uint8_t *rgb, size_t bytes, int64_t number)
{
    size_t have = 0;
    while (have < bytes) {
        ssize_t n = pread(kn_atomic_fd(w->spool), rgb + have, bytes - have,
                          (off_t)((int64_t)bytes * number + (int64_t)have));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return kn_fail(KN_ERR_IO, "cannot write %s: reading back frame %lld failed: %s",
                           w->path, (long long)number, n ? strerror(errno) : "it is cut short");
        have += (size_t)n;
    }
    return KN_OK;
}

/* gif: the palette of all frames, then every frame from the spool. */
static kn_status encode_spool(kn_video_writer *w)
{
    kn_status st;
    AVFrame *frame = NULL;
    void *rgb = NULL;
    uint32_t argb[256];
    size_t bytes = 3 * (size_t)w->width_px * (size_t)w->height_px;
    KN_TRY_GOTO(kn_alloc(bytes, &rgb));
    KN_TRY_GOTO(kn_palette_build(w->palette, argb));
    for (int64_t i = 0; i < w->frames; i++) {
        KN_TRY_GOTO(read_spool(w, rgb, bytes, i));
        KN_TRY_GOTO(new_frame(w, AV_PIX_FMT_PAL8, &frame));
        memcpy(frame->data[1], argb, sizeof argb);
        kn_palette_map(w->palette, rgb, w->width_px, w->height_px, frame->data[0],
                       frame->linesize[0]);
        KN_TRY_GOTO(encode(w, frame, i));
        av_frame_free(&frame);
    }
done:
    av_frame_free(&frame);
    kn_free(rgb);
    return st;
}

static kn_status finish(kn_video_writer *w)
{
    if (!w->frames) return kn_fail(KN_ERR_ARG, "%s: a video needs at least one frame", w->path);
    if (w->palette) KN_TRY(encode_spool(w));
    int r = avcodec_send_frame(w->encoder, NULL);
    if (r < 0 && r != AVERROR_EOF)
        return kn_libav_fail(r, KN_ERR_INTERNAL, "cannot write %s: ending %s failed", w->path,
                             w->choice.encoder->name);
    KN_TRY(drain(w));
    if (w->audio.out)
        KN_TRY(copy_audio(w, av_rescale_q(w->frames, av_inv_q(w->fps), AV_TIME_BASE_Q)));
    r = av_write_trailer(w->out);
    avio_flush(w->bytes.pb);
    if (r < 0 || w->bytes.error || w->bytes.pb->error < 0)
        return fail_write(w, r < 0 ? r : w->bytes.pb->error, "completing the file");
    return kn_atomic_commit(&w->file);
}

kn_status kn_video_writer_finish(kn_video_writer *w)
{
    if (w->failed || w->finished)
        return kn_fail(KN_ERR_ARG, "%s: finish of a writer that had %s", w->path,
                       w->failed ? "failed" : "finished");
    kn_status st = finish(w);
    w->failed = st != KN_OK;
    w->finished = st == KN_OK;
    return st;
}
