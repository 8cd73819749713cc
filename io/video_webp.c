#include "io/video_webp.h"

#include <stdio.h>
#include <string.h>

#include <libavutil/pixdesc.h>

#include "io/atomic_file.h"
#include "io/memory.h"
#include "io/video.h"
#include "io/video_color.h"
#include "io/video_libav.h"

enum { FILE_LIMIT_BYTES = 1 << 30, FRAMES_LIMIT = 100000, ANMF_HEADER = 16 };
/* Two canvases of floats are kept, and a file of 60 bytes can ask for the largest: 8K UHD and no more. */
enum { MAX_PIXELS = 1 << 25 };

/* One frame: where it goes and where its data stands. */
typedef struct webp_frame {
    int x, y, width, height, duration_ms;
    bool blend;          /* over the canvas; otherwise it replaces */
    bool dispose;        /* clear its place afterwards */
    const uint8_t *data; /* chunks of a still picture */
    size_t bytes;
} webp_frame;

struct kn_webp {
    char *path;
    char *file;
    kn_webp_info info;
    webp_frame *frames;
    int next;
    int64_t clock_ms;
    AVCodecContext *decoder;
    AVPacket *packet;
    AVFrame *frame;
    float *canvas; /* [H,W,3] */
    float *part;   /* decoded frame, [h,w,3] */
};

/* ---- parsing --------------------------------------------------------------------------------- */

static uint32_t get24(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
}

static uint32_t get32(const uint8_t *p)
{
    return get24(p) | (uint32_t)p[3] << 24;
}

typedef struct chunk {
    const uint8_t *head, *data;
    size_t bytes;
} chunk;

/* The chunk at *at, which moves on. False at the end, and with *whole false when the chunk claims
 * more bytes than there are. */
static bool next_chunk(const uint8_t *base, size_t size, size_t *at, chunk *c, bool *whole)
{
    *whole = true;
    if (size - *at < 8) return false;
    c->head = base + *at;
    c->data = c->head + 8;
    c->bytes = get32(c->head + 4);
    size_t left = size - *at - 8;
    if (c->bytes > left) {
        *whole = false;
        return false;
    }
    size_t padded = c->bytes + (c->bytes & 1);
    *at += 8 + (padded < left ? padded : left);
    return true;
}

static bool is_chunk(const chunk *c, const char *name)
{
    return !memcmp(c->head, name, 4);
}

bool kn_webp_is(const char *path)
{
    uint8_t head[12] = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    return n == sizeof head && !memcmp(head, "RIFF", 4) && !memcmp(head + 8, "WEBP", 4);
}

/* Size of a still picture from its VP8 key frame header (RFC 6386 9.1) or VP8L header. */
static bool still_size(const uint8_t *base, size_t size, int *width, int *height)
{
    chunk c;
    bool whole;
    for (size_t at = 0; next_chunk(base, size, &at, &c, &whole);) {
        if (is_chunk(&c, "VP8 ") && c.bytes >= 10) {
            *width = (c.data[6] | c.data[7] << 8) & 0x3FFF;
            *height = (c.data[8] | c.data[9] << 8) & 0x3FFF;
            return true;
        }
        if (is_chunk(&c, "VP8L") && c.bytes >= 5) {
            uint32_t bits = get32(c.data + 1);
            *width = (int)(bits & 0x3FFF) + 1;
            *height = (int)(bits >> 14 & 0x3FFF) + 1;
            return true;
        }
    }
    return false;
}

static bool frame_fits(const kn_webp *w, const webp_frame *f)
{
    int width, height;
    return f->x + f->width <= w->info.width_px && f->y + f->height <= w->info.height_px &&
           still_size(f->data, f->bytes, &width, &height) && width == f->width &&
           height == f->height;
}

static kn_status add_frame(kn_webp *w, const webp_frame *f)
{
    if (w->info.frames == FRAMES_LIMIT)
        return kn_fail(KN_ERR_FORMAT, "%s: expected at most %d frames", w->path, FRAMES_LIMIT);
    if (!frame_fits(w, f))
        return kn_fail(KN_ERR_FORMAT,
                       "%s: frame %lld of %dx%d at %d,%d does not fit its data or %dx%d", w->path,
                       (long long)w->info.frames, f->width, f->height, f->x, f->y, w->info.width_px,
                       w->info.height_px);
    /* frames is NULL in the first pass, which counts. */
    if (w->frames) w->frames[w->info.frames] = *f;
    w->info.frames++;
    w->info.duration_ms += f->duration_ms;
    return KN_OK;
}

static kn_status scan(kn_webp *w, const uint8_t *base, size_t size)
{
    chunk c;
    bool whole = true, animated = false;
    w->info.frames = w->info.duration_ms = 0;
    for (size_t at = 0; next_chunk(base, size, &at, &c, &whole);) {
        if (is_chunk(&c, "VP8X") && c.bytes >= 10) {
            /* A second header could shrink the canvas below frames that were checked already. */
            if (c.head != base)
                return kn_fail(KN_ERR_FORMAT, "%s: expected VP8X as the first chunk only", w->path);
            animated = c.data[0] & 2;
            w->info.width_px = (int)get24(c.data + 4) + 1;
            w->info.height_px = (int)get24(c.data + 7) + 1;
        } else if (is_chunk(&c, "ANMF") && c.bytes > ANMF_HEADER) {
            webp_frame f = {.x = 2 * (int)get24(c.data),
                            .y = 2 * (int)get24(c.data + 3),
                            .width = (int)get24(c.data + 6) + 1,
                            .height = (int)get24(c.data + 9) + 1,
                            .duration_ms = (int)get24(c.data + 12),
                            .blend = !(c.data[15] & 2),
                            .dispose = c.data[15] & 1,
                            .data = c.data + ANMF_HEADER,
                            .bytes = c.bytes - ANMF_HEADER};
            KN_TRY(add_frame(w, &f));
        }
    }
    if (!whole) return kn_fail(KN_ERR_FORMAT, "%s: cut short within a chunk", w->path);
    if (!animated && !w->info.frames) {
        webp_frame f = {.data = base, .bytes = size};
        if (!still_size(base, size, &f.width, &f.height))
            return kn_fail(KN_ERR_FORMAT, "%s: expected a VP8 or VP8L picture, found none",
                           w->path);
        w->info.width_px = f.width;
        w->info.height_px = f.height;
        KN_TRY(add_frame(w, &f));
    }
    int64_t pixels = (int64_t)w->info.width_px * w->info.height_px;
    if (!w->info.frames || w->info.width_px > KN_VIDEO_MAX_SIDE_PX ||
        w->info.height_px > KN_VIDEO_MAX_SIDE_PX || pixels < 1 || pixels > MAX_PIXELS)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: %lld frames of %dx%d, expected 1 or more of a size up to %d and %d pixels",
                       w->path, (long long)w->info.frames, w->info.width_px, w->info.height_px,
                       KN_VIDEO_MAX_SIDE_PX, MAX_PIXELS);
    return KN_OK;
}

static kn_status open_file(kn_webp *w)
{
    size_t size;
    void *memory;
    KN_TRY(kn_file_read(w->path, FILE_LIMIT_BYTES, &w->file, &size));
    if (size < 12) return kn_fail(KN_ERR_FORMAT, "%s: too short for a WebP", w->path);
    const uint8_t *base = (const uint8_t *)w->file + 12;
    KN_TRY(scan(w, base, size - 12));
    KN_TRY(kn_alloc_array((size_t)w->info.frames, sizeof(webp_frame), &memory));
    w->frames = memory;
    KN_TRY(scan(w, base, size - 12));
    size_t pixels = (size_t)w->info.width_px * (size_t)w->info.height_px;
    KN_TRY(kn_alloc_array(pixels, 3 * sizeof(float), &memory));
    w->canvas = memory;
    KN_TRY(kn_alloc_array(pixels, 3 * sizeof(float), &memory));
    w->part = memory;
    const AVCodec *codec = avcodec_find_decoder(AV_CODEC_ID_WEBP);
    if (!codec)
        return kn_fail(KN_ERR_UNSUPPORTED, "%s: no decoder for webp in this build's libavcodec",
                       w->path);
    w->decoder = avcodec_alloc_context3(codec);
    w->packet = av_packet_alloc();
    w->frame = av_frame_alloc();
    if (!w->decoder || !w->packet || !w->frame)
        return kn_fail(KN_ERR_NOMEM, "%s: out of memory for a decoder", w->path);
    w->decoder->max_pixels = MAX_PIXELS;
    w->decoder->thread_count = 1;
    int r = avcodec_open2(w->decoder, codec, NULL);
    if (r < 0) return kn_libav_fail(r, KN_ERR_FORMAT, "%s: opening the webp decoder", w->path);
    return KN_OK;
}

kn_status kn_webp_open(const char *path, kn_webp **out)
{
    void *memory = NULL;
    kn_status st;
    *out = NULL;
    KN_TRY(kn_alloc_zero(sizeof(kn_webp), &memory));
    kn_webp *w = memory;
    KN_TRY_GOTO(kn_strdup(path, &w->path));
    KN_TRY_GOTO(open_file(w));
    *out = w;
    w = NULL;
done:
    kn_webp_close(&w);
    return st;
}

kn_webp_info kn_webp_get_info(const kn_webp *w)
{
    return w->info;
}

void kn_webp_close(kn_webp **handle)
{
    if (!handle || !*handle) return;
    kn_webp *w = *handle;
    *handle = NULL;
    avcodec_free_context(&w->decoder);
    av_packet_free(&w->packet);
    av_frame_free(&w->frame);
    kn_free(w->canvas);
    kn_free(w->part);
    kn_free(w->frames);
    kn_free(w->file);
    kn_free(w->path);
    kn_free(w);
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* Wrap a frame's chunks into a still WebP file of their own. An ALPH chunk needs a VP8X header that
 * announces alpha. */
static kn_status make_still(kn_webp *w, const webp_frame *f)
{
    chunk c;
    bool whole, alpha = false, extended = false;
    for (size_t at = 0; next_chunk(f->data, f->bytes, &at, &c, &whole);) {
        alpha |= is_chunk(&c, "ALPH");
        extended |= is_chunk(&c, "VP8X");
    }
    size_t header = alpha && !extended ? 30 : 12, bytes = header + f->bytes + (f->bytes & 1);
    av_packet_unref(w->packet);
    int r = av_new_packet(w->packet, (int)bytes);
    if (r < 0) return kn_libav_fail(r, KN_ERR_NOMEM, "%s: frame %d", w->path, w->next);
    uint8_t *p = w->packet->data;
    memset(p, 0, bytes);
    memcpy(p, "RIFF", 4);
    for (int i = 0; i < 4; i++) p[4 + i] = (uint8_t)((bytes - 8) >> (8 * i));
    memcpy(p + 8, "WEBP", 4);
    if (header == 30) {
        memcpy(p + 12, "VP8X", 4);
        p[16] = 10;   /* bytes of the header that follow */
        p[20] = 0x10; /* has alpha */
        for (int i = 0; i < 3; i++) {
            p[24 + i] = (uint8_t)((unsigned)(f->width - 1) >> (8 * i));
            p[27 + i] = (uint8_t)((unsigned)(f->height - 1) >> (8 * i));
        }
    }
    memcpy(p + header, f->data, f->bytes);
    return KN_OK;
}

static kn_status decode(kn_webp *w, const webp_frame *f)
{
    KN_TRY(make_still(w, f));
    int r = avcodec_send_packet(w->decoder, w->packet);
    if (r >= 0) r = avcodec_receive_frame(w->decoder, w->frame);
    if (r < 0) return kn_libav_fail(r, KN_ERR_FORMAT, "%s: decoding frame %d", w->path, w->next);
    if (w->frame->width != f->width || w->frame->height != f->height)
        return kn_fail(KN_ERR_FORMAT, "%s: frame %d is %dx%d, expected %dx%d", w->path, w->next,
                       w->frame->width, w->frame->height, f->width, f->height);
    kn_color_source how;
    /* Lossy WebP is BT.601, limited range (its specification, "VP8 key frame"). */
    KN_TRY(kn_color_source_of(w->frame->format, AVCOL_SPC_SMPTE170M, AVCOL_RANGE_MPEG, f->height,
                              &how));
    return kn_color_unpack(w->frame, &how, 0, w->part);
}

/* Lay the decoded frame on the canvas, by its alpha where it blends. */
static void compose(kn_webp *w, const webp_frame *f)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(w->frame->format);
    const AVComponentDescriptor *k = &d->comp[d->nb_components - 1];
    bool has_alpha = d->flags & AV_PIX_FMT_FLAG_ALPHA;
    for (int y = 0; y < f->height; y++) {
        const uint8_t *alpha =
            w->frame->data[k->plane] + (ptrdiff_t)y * w->frame->linesize[k->plane] + k->offset;
        const float *from = w->part + 3 * (size_t)y * (size_t)f->width;
        float *to = w->canvas + 3 * ((size_t)(f->y + y) * (size_t)w->info.width_px + (size_t)f->x);
        for (int x = 0; x < f->width; x++) {
            float a = has_alpha ? (float)alpha[x * k->step] * (1.0f / 255.0f) : 1.0f;
            for (int c = 0; c < 3; c++) {
                float under = f->blend ? to[3 * x + c] : 0.0f;
                to[3 * x + c] = a * from[3 * x + c] + (1.0f - a) * under;
            }
        }
    }
}

static void clear(kn_webp *w, const webp_frame *f)
{
    for (int y = 0; y < f->height; y++)
        memset(w->canvas + 3 * ((size_t)(f->y + y) * (size_t)w->info.width_px + (size_t)f->x), 0,
               3 * (size_t)f->width * sizeof(float));
}

kn_status kn_webp_next(kn_webp *w, float *rgb, int64_t *start_ms, bool *end)
{
    *end = w->next >= w->info.frames;
    if (*end) return KN_OK;
    const webp_frame *f = &w->frames[w->next];
    KN_TRY(decode(w, f));
    compose(w, f);
    av_frame_unref(w->frame);
    if (rgb)
        memcpy(rgb, w->canvas,
           3 * (size_t)w->info.width_px * (size_t)w->info.height_px * sizeof(float));
    if (f->dispose) clear(w, f);
    *start_ms = w->clock_ms;
    w->clock_ms += f->duration_ms;
    w->next++;
    return KN_OK;
}
