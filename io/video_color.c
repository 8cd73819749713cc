#include "io/video_color.h"

#include <math.h>
#include <string.h>

#include <libavutil/pixdesc.h>

#include "io/memory.h"

/* ITU-T H.273 table 4. */
typedef struct weights {
    enum AVColorSpace matrix;
    float kr, kb;
} weights;

static const weights matrices[] = {
    {AVCOL_SPC_BT709, 0.2126f, 0.0722f},   {AVCOL_SPC_FCC, 0.30f, 0.11f},
    {AVCOL_SPC_BT470BG, 0.299f, 0.114f},   {AVCOL_SPC_SMPTE170M, 0.299f, 0.114f},
    {AVCOL_SPC_SMPTE240M, 0.212f, 0.087f}, {AVCOL_SPC_BT2020_NCL, 0.2627f, 0.0593f},
};

static const weights *find_weights(enum AVColorSpace matrix)
{
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++)
        if (matrices[i].matrix == matrix) return &matrices[i];
    return NULL;
}

/* ---- R'G'B' to planes ------------------------------------------------------------------------ */

/* One row as three planes of floats in [0,1]; false when there is a NaN. */
static bool load_row(const float *f, const uint16_t *u, int width, float *r, float *g, float *b)
{
    if (u) {
        for (int x = 0; x < width; x++, u += 3) {
            r[x] = (float)u[0] * (1.0f / 65535.0f);
            g[x] = (float)u[1] * (1.0f / 65535.0f);
            b[x] = (float)u[2] * (1.0f / 65535.0f);
        }
        return true;
    }
    int bad = 0;
    for (int x = 0; x < width; x++, f += 3) {
        float v[3];
        for (int c = 0; c < 3; c++) {
            bad |= f[c] != f[c];
            v[c] = f[c] > 0.0f ? f[c] : 0.0f;
            v[c] = v[c] < 1.0f ? v[c] : 1.0f;
        }
        r[x] = v[0];
        g[x] = v[1];
        b[x] = v[2];
    }
    return !bad;
}

/* Code values are never negative here, so adding a half and cutting rounds to nearest. */
static void store_row(uint8_t *to, int bits, int n, const float *v, float scale, float offset)
{
    if (bits == 8) {
        for (int x = 0; x < n; x++) to[x] = (uint8_t)(v[x] * scale + offset + 0.5f);
    } else {
        uint16_t *wide = (uint16_t *)(void *)to;
        for (int x = 0; x < n; x++) wide[x] = (uint16_t)(v[x] * scale + offset + 0.5f);
    }
}

static void pack_rgb_row(AVFrame *dst, int y, int bits, const float *const rgb[3])
{
    int width = dst->width;
    if (dst->format == AV_PIX_FMT_BGR0 || dst->format == AV_PIX_FMT_BGRA ||
        dst->format == AV_PIX_FMT_RGB24) {
        int step = dst->format == AV_PIX_FMT_RGB24 ? 3 : 4;
        uint8_t *p = dst->data[0] + (ptrdiff_t)y * dst->linesize[0];
        for (int x = 0; x < width; x++, p += step)
            for (int c = 0; c < 3; c++)
                p[step == 3 ? c : 2 - c] = (uint8_t)(rgb[c][x] * 255.0f + 0.5f);
        if (step == 3) return;
        p = dst->data[0] + (ptrdiff_t)y * dst->linesize[0];
        uint8_t fill = dst->format == AV_PIX_FMT_BGRA ? 255 : 0;
        for (int x = 0; x < width; x++) p[4 * x + 3] = fill;
        return;
    }
    static const int source[3] = {1, 2, 0}; /* planes are G B R */
    for (int c = 0; c < 3; c++)
        store_row(dst->data[c] + (ptrdiff_t)y * dst->linesize[c], bits, width, rgb[source[c]],
                  (float)((1 << bits) - 1), 0.0f);
}

/* Chroma at every second column: 1-2-1, the outermost sample repeated past the edge. */
static void halve_row(const float *from, int width, float *to)
{
    for (int i = 0; 2 * i < width; i++) {
        int x = 2 * i, left = x ? x - 1 : 0, right = x + 1 < width ? x + 1 : x;
        to[i] = 0.25f * from[left] + 0.5f * from[x] + 0.25f * from[right];
    }
}

/* Scratch rows of pack: R G B Y Cb Cr, then the chroma of the row above. */
enum { PACK_ROWS = 8 };

typedef struct packer {
    AVFrame *dst;
    int bits, log2_w, log2_h;
    float *row[PACK_ROWS];
} packer;

static void pack_ycc_row(const packer *p, int y)
{
    AVFrame *dst = p->dst;
    int width = dst->width;
    float unit = (float)(1 << (p->bits - 8));
    const float *r = p->row[0], *g = p->row[1], *b = p->row[2];
    float *luma = p->row[3];
    for (int x = 0; x < width; x++) luma[x] = 0.2126f * r[x] + 0.7152f * g[x] + 0.0722f * b[x];
    for (int x = 0; x < width; x++) p->row[4][x] = (b[x] - luma[x]) * (1.0f / 1.8556f);
    for (int x = 0; x < width; x++) p->row[5][x] = (r[x] - luma[x]) * (1.0f / 1.5748f);
    store_row(dst->data[0] + (ptrdiff_t)y * dst->linesize[0], p->bits, width, luma, 219.0f * unit,
              16.0f * unit);
    for (int c = 0; c < 2; c++) {
        float *chroma = p->row[4 + c], *above = p->row[6 + c];
        int n = width;
        if (p->log2_w) {
            halve_row(chroma, width, luma); /* luma is stored: free as scratch */
            n = (width + 1) / 2;
            chroma = luma;
        }
        if (p->log2_h && !(y & 1) && y + 1 < dst->height) {
            memcpy(above, chroma, (size_t)n * sizeof *above); /* wait for the row below */
            continue;
        }
        if (p->log2_h && (y & 1))
            for (int x = 0; x < n; x++) chroma[x] = 0.5f * (chroma[x] + above[x]);
        store_row(dst->data[1 + c] + (ptrdiff_t)(y >> p->log2_h) * dst->linesize[1 + c], p->bits, n,
                  chroma, 224.0f * unit, 128.0f * unit);
    }
}

kn_status kn_color_pack(const float *f, const uint16_t *u, AVFrame *dst, int64_t frame)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(dst->format);
    packer p = {dst, d->comp[0].depth, d->log2_chroma_w, d->log2_chroma_h, {0}};
    size_t width = (size_t)dst->width;
    void *scratch = NULL;
    KN_TRY(kn_alloc(PACK_ROWS * width * sizeof(float), &scratch));
    for (size_t i = 0; i < PACK_ROWS; i++) p.row[i] = (float *)scratch + i * width;
    kn_status st = KN_OK;
    for (int y = 0; y < dst->height; y++) {
        size_t at = (size_t)y * width * 3;
        if (!load_row(f ? f + at : NULL, u ? u + at : NULL, dst->width, p.row[0], p.row[1],
                      p.row[2])) {
            st = kn_fail(KN_ERR_NUMERIC, "frame %lld: NaN in row %d, expected finite colours",
                         (long long)frame, y);
            break;
        }
        if (d->flags & AV_PIX_FMT_FLAG_RGB)
            pack_rgb_row(dst, y, p.bits, (const float *const[3]){p.row[0], p.row[1], p.row[2]});
        else
            pack_ycc_row(&p, y);
    }
    kn_free(scratch);
    return st;
}

/* ---- planes to R'G'B' ------------------------------------------------------------------------ */

kn_status kn_color_source_of(enum AVPixelFormat format, enum AVColorSpace matrix,
                             enum AVColorRange range, int height_px, kn_color_source *out)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(format);
    *out = (kn_color_source){0};
    const uint64_t unreadable = AV_PIX_FMT_FLAG_BITSTREAM | AV_PIX_FMT_FLAG_HWACCEL |
                                AV_PIX_FMT_FLAG_BAYER | AV_PIX_FMT_FLAG_FLOAT;
    bool readable = d && !(d->flags & unreadable) && strncmp(d->name, "xyz", 3);
    for (int i = 0; readable && i < d->nb_components; i++) {
        int top = d->comp[i].depth + d->comp[i].shift;
        readable = top <= 16 && (top > 8 || !(d->flags & AV_PIX_FMT_FLAG_BE));
    }
    if (!readable)
        return kn_fail(KN_ERR_UNSUPPORTED, "pixel format %s cannot be read",
                       d ? d->name : "(none)");
    if (d->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL)) {
        *out = (kn_color_source){AVCOL_SPC_RGB, false, true};
        return KN_OK;
    }
    out->full_range = range == AVCOL_RANGE_JPEG || !strncmp(d->name, "yuvj", 4);
    out->matrix = matrix;
    if (matrix == AVCOL_SPC_UNSPECIFIED || matrix == AVCOL_SPC_RESERVED) {
        out->matrix_guessed = d->nb_components >= 3; /* grey needs none */
        out->matrix = height_px >= 720 ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
    }
    if (out->matrix != AVCOL_SPC_RGB && !find_weights(out->matrix))
        return kn_fail(KN_ERR_UNSUPPORTED, "colour matrix %s cannot be read",
                       av_color_space_name(matrix) ? av_color_space_name(matrix) : "(unknown)");
    return KN_OK;
}

/* n code values of component c, row y of its plane. */
static void read_row(const AVFrame *src, const AVPixFmtDescriptor *d, int c, int y, int n,
                     float *to)
{
    const AVComponentDescriptor *k = &d->comp[c];
    const uint8_t *p = src->data[k->plane] + (ptrdiff_t)y * src->linesize[k->plane] + k->offset;
    unsigned mask = (1u << k->depth) - 1;
    if (k->shift + k->depth <= 8) {
        for (int x = 0; x < n; x++, p += k->step) to[x] = (float)((p[0] >> k->shift) & mask);
    } else if (d->flags & AV_PIX_FMT_FLAG_BE) {
        for (int x = 0; x < n; x++, p += k->step)
            to[x] = (float)((((unsigned)p[0] << 8 | p[1]) >> k->shift) & mask);
    } else {
        for (int x = 0; x < n; x++, p += k->step)
            to[x] = (float)((((unsigned)p[1] << 8 | p[0]) >> k->shift) & mask);
    }
}

static void scale_row(float *v, int n, float scale, float offset)
{
    for (int x = 0; x < n; x++) v[x] = (v[x] - offset) * scale;
}

/* Place of the first chroma sample, in luma samples (H.273 / H.264 figure E-1). */
static void chroma_place(const AVFrame *src, const AVPixFmtDescriptor *d, float *x, float *y)
{
    float middle_x = 0.5f * (float)((1 << d->log2_chroma_w) - 1);
    float middle_y = 0.5f * (float)((1 << d->log2_chroma_h) - 1);
    *x = 0.0f;
    *y = middle_y;
    switch (src->chroma_location) {
    case AVCHROMA_LOC_CENTER: *x = middle_x; break;
    case AVCHROMA_LOC_TOPLEFT: *y = 0.0f; break;
    case AVCHROMA_LOC_TOP: *x = middle_x, *y = 0.0f; break;
    case AVCHROMA_LOC_BOTTOMLEFT: *y = 2.0f * middle_y; break;
    case AVCHROMA_LOC_BOTTOM: *x = middle_x, *y = 2.0f * middle_y; break;
    default: break;
    }
}

/* Linear interpolation point for place x of samples first, first + 2^log2, ... (n of them). */
static void linear(int x, float first, int log2, int n, int *i0, int *i1, float *w1)
{
    float p = ((float)x - first) / (float)(1 << log2);
    int i = (int)floorf(p);
    *w1 = p - (float)i;
    *i0 = i < 0 ? 0 : i >= n ? n - 1 : i;
    *i1 = i + 1 < 0 ? 0 : i + 1 >= n ? n - 1 : i + 1;
}

/* Scratch rows of unpack: 3 components, then 2 rows of chroma as stored. */
enum { UNPACK_ROWS = 5 };

/* Row y of chroma component c at luma resolution. */
static void read_chroma(const AVFrame *src, const AVPixFmtDescriptor *d, int c, int y,
                        float *const row[UNPACK_ROWS])
{
    float *to = row[c], first_x, first_y, w;
    if (!d->log2_chroma_w && !d->log2_chroma_h) {
        read_row(src, d, c, y, src->width, to);
        return;
    }
    int n = AV_CEIL_RSHIFT(src->width, d->log2_chroma_w);
    int rows = AV_CEIL_RSHIFT(src->height, d->log2_chroma_h), i0, i1;
    chroma_place(src, d, &first_x, &first_y);
    linear(y, first_y, d->log2_chroma_h, rows, &i0, &i1, &w);
    read_row(src, d, c, i0, n, row[3]);
    if (w > 0.0f && i1 != i0) {
        read_row(src, d, c, i1, n, row[4]);
        for (int x = 0; x < n; x++) row[3][x] += w * (row[4][x] - row[3][x]);
    }
    if (!d->log2_chroma_w) {
        memcpy(to, row[3], (size_t)n * sizeof *to);
        return;
    }
    for (int x = 0; x < src->width; x++) {
        linear(x, first_x, d->log2_chroma_w, n, &i0, &i1, &w);
        to[x] = row[3][i0] + w * (row[3][i1] - row[3][i0]);
    }
}

static void unpack_rgb(const AVFrame *src, const AVPixFmtDescriptor *d, int y, float *const row[])
{
    if (d->flags & AV_PIX_FMT_FLAG_PAL) {
        const uint8_t *p = src->data[0] + (ptrdiff_t)y * src->linesize[0];
        for (int x = 0; x < src->width; x++) {
            uint32_t argb; /* palette entries are native-endian 0xAARRGGBB */
            memcpy(&argb, src->data[1] + 4 * (size_t)p[x], sizeof argb);
            for (int c = 0; c < 3; c++)
                row[c][x] = (float)(argb >> (16 - 8 * c) & 255) * (1.0f / 255.0f);
        }
        return;
    }
    for (int c = 0; c < 3; c++) {
        read_row(src, d, c, y, src->width, row[c]);
        scale_row(row[c], src->width, 1.0f / (float)((1 << d->comp[c].depth) - 1), 0.0f);
    }
}

static void unpack_ycc(const AVFrame *src, const AVPixFmtDescriptor *d, const kn_color_source *how,
                       int y, float *const row[])
{
    int bits = d->comp[0].depth, width = src->width;
    float unit = (float)(1 << bits) / 256.0f, top = (float)((1 << bits) - 1);
    float luma_scale = how->full_range ? 1.0f / top : 1.0f / (219.0f * unit);
    float luma_offset = how->full_range ? 0.0f : 16.0f * unit;
    read_row(src, d, 0, y, width, row[0]);
    scale_row(row[0], width, luma_scale, luma_offset);
    if (d->nb_components < 3) { /* grey */
        memcpy(row[1], row[0], (size_t)width * sizeof(float));
        memcpy(row[2], row[0], (size_t)width * sizeof(float));
        return;
    }
    read_chroma(src, d, 1, y, row);
    read_chroma(src, d, 2, y, row);
    if (how->matrix ==
        AVCOL_SPC_RGB) { /* the three components are G B R (H.273 table 4, value 0) */
        scale_row(row[1], width, luma_scale, luma_offset);
        scale_row(row[2], width, luma_scale, luma_offset);
        for (int x = 0; x < width; x++) {
            float g = row[0][x], b = row[1][x], r = row[2][x];
            row[0][x] = r, row[1][x] = g, row[2][x] = b;
        }
        return;
    }
    float chroma_scale = how->full_range ? 1.0f / top : 1.0f / (224.0f * unit);
    scale_row(row[1], width, chroma_scale, 128.0f * unit);
    scale_row(row[2], width, chroma_scale, 128.0f * unit);
    const weights *k = find_weights(how->matrix);
    float kg = 1.0f - k->kr - k->kb;
    for (int x = 0; x < width; x++) {
        float r = row[0][x] + (2.0f - 2.0f * k->kr) * row[2][x];
        float b = row[0][x] + (2.0f - 2.0f * k->kb) * row[1][x];
        row[1][x] = (row[0][x] - k->kr * r - k->kb * b) / kg;
        row[0][x] = r;
        row[2][x] = b;
    }
}

/* Row y of the source to its place in the turned picture. */
static void place_row(const float *const row[3], int y, int width, int height, int rotation_deg,
                      float *rgb)
{
    ptrdiff_t w = width, h = height, at, step;
    switch (rotation_deg) {
    case 90: at = h - 1 - y, step = h; break;
    case 180: at = (h - 1 - y) * w + w - 1, step = -1; break;
    case 270: at = (w - 1) * h + y, step = -h; break;
    default: at = (ptrdiff_t)y * w, step = 1; break;
    }
    for (int x = 0; x < width; x++, at += step)
        for (int c = 0; c < 3; c++) {
            float v = row[c][x] > 0.0f ? row[c][x] : 0.0f;
            rgb[3 * at + c] = v < 1.0f ? v : 1.0f;
        }
}

kn_status kn_color_unpack(const AVFrame *src, const kn_color_source *how, int rotation_deg,
                          float *rgb)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(src->format);
    size_t width = (size_t)src->width;
    void *scratch = NULL;
    float *row[UNPACK_ROWS];
    KN_TRY(kn_alloc(UNPACK_ROWS * width * sizeof(float), &scratch));
    for (size_t i = 0; i < UNPACK_ROWS; i++) row[i] = (float *)scratch + i * width;
    for (int y = 0; y < src->height; y++) {
        if (d->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL))
            unpack_rgb(src, d, y, row);
        else
            unpack_ycc(src, d, how, y, row);
        place_row((const float *const[3]){row[0], row[1], row[2]}, y, src->width, src->height,
                  rotation_deg, rgb);
    }
    kn_free(scratch);
    return KN_OK;
}
