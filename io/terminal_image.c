#include "io/terminal_image.h"

#include <stdbool.h>
#include <string.h>

#include "io/memory.h"
#include "io/palette.h"

enum { GROW_MAX = 4, SIXEL_ROWS = 6 };

kn_terminal_cells kn_terminal_image_fit(const kn_picture *p, const kn_terminal_cells *room)
{
    kn_terminal_cells c = *room;
    double width_px = (double)room->columns * room->cell_width_px, most_px = (double)GROW_MAX * p->width_px;
    if (width_px > most_px) width_px = most_px;
    double height_px = width_px * p->height_px / p->width_px, room_px = (double)room->rows * room->cell_height_px;
    if (height_px > room_px) {
        width_px *= room_px / height_px;
        height_px = room_px;
    }
    c.columns = (int)(width_px / room->cell_width_px + 0.5);
    c.rows = (int)(height_px / room->cell_height_px + 0.5);
    if (c.columns < 1) c.columns = 1;
    if (c.rows < 1) c.rows = 1;
    return c;
}

/* ---- pixels -----------------------------------------------------------------------------------*/

/* Each new pixel is the mean of the old ones that it covers: of one where the picture grows. */
static void resample(const kn_picture *from, const kn_picture *to)
{
    const uint8_t *in = from->data;
    uint8_t *out = to->data;
    for (int y = 0; y < to->height_px; y++) {
        int64_t y0 = (int64_t)y * from->height_px / to->height_px, y1 = (int64_t)(y + 1) * from->height_px / to->height_px;
        if (y1 <= y0) y1 = y0 + 1;
        for (int x = 0; x < to->width_px; x++) {
            int64_t x0 = (int64_t)x * from->width_px / to->width_px, x1 = (int64_t)(x + 1) * from->width_px / to->width_px;
            if (x1 <= x0) x1 = x0 + 1;
            int64_t sum[3] = {0}, n = (y1 - y0) * (x1 - x0);
            for (int64_t v = y0; v < y1; v++)
                for (int64_t u = x0; u < x1; u++)
                    for (int k = 0; k < 3; k++) sum[k] += in[(v * from->width_px + u) * 3 + k];
            for (int k = 0; k < 3; k++) *out++ = (uint8_t)((sum[k] + n / 2) / n);
        }
    }
}

/* A copy of so many pixels; free with kn_picture_free. */
static kn_status resized(const kn_picture *from, int width_px, int height_px, kn_picture *out)
{
    *out = (kn_picture){.width_px = width_px, .height_px = height_px, .channels = 3, .bits = 8};
    KN_TRY(kn_alloc((size_t)width_px * (size_t)height_px * 3, &out->data));
    resample(from, out);
    return KN_OK;
}

/* ---- PNG in base64 ----------------------------------------------------------------------------*/

static kn_status base64(const unsigned char *data, size_t size, kn_text *out)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        unsigned left = (unsigned)(size - i < 3 ? size - i : 3), v = (unsigned)data[i] << 16;
        if (left > 1) v |= (unsigned)data[i + 1] << 8;
        if (left > 2) v |= data[i + 2];
        char four[4] = {digit[v >> 18], digit[v >> 12 & 63], digit[v >> 6 & 63], digit[v & 63]};
        for (unsigned k = 1 + left; k < 4; k++) four[k] = '=';
        KN_TRY(kn_text_add_bytes(out, four, sizeof four));
    }
    return KN_OK;
}

/* The picture, no larger than the place it is drawn at, as a PNG file in base64. */
static kn_status encoded(const kn_picture *p, const kn_terminal_cells *at, kn_text *out)
{
    int width = at->columns * at->cell_width_px, height = at->rows * at->cell_height_px;
    kn_picture small = {0};
    kn_text png = {0};
    kn_status st = KN_OK;
    if (width < p->width_px && height < p->height_px) {
        KN_TRY_GOTO(resized(p, width, height, &small));
        p = &small;
    }
    KN_TRY_GOTO(kn_png_encode("preview", p, &png));
    KN_TRY_GOTO(base64((const unsigned char *)png.data, png.size, out));
done:
    kn_picture_free(&small);
    kn_free(png.data);
    return st;
}

static kn_status kitty(const kn_picture *p, const kn_terminal_cells *at, unsigned number, kn_text *out)
{
    enum { PIECE = 4096 };
    kn_text data = {0};
    kn_status st = KN_OK;
    KN_TRY_GOTO(encoded(p, at, &data));
    for (size_t i = 0; i < data.size; i += PIECE) {
        size_t n = data.size - i < PIECE ? data.size - i : PIECE;
        int more = i + n < data.size;
        if (i == 0) /* send and show; q=2: no answer, which would be read as input; C=1: the cursor stays */
            KN_TRY_GOTO(kn_text_addf(out, "\033_Ga=T,f=100,i=%u,p=1,q=2,C=1,c=%d,r=%d,m=%d;", number, at->columns, at->rows, more));
        else
            KN_TRY_GOTO(kn_text_addf(out, "\033_Gm=%d;", more));
        KN_TRY_GOTO(kn_text_add_bytes(out, data.data + i, n));
        KN_TRY_GOTO(kn_text_add(out, "\033\\"));
    }
done:
    kn_free(data.data);
    return st;
}

static kn_status iterm(const kn_picture *p, const kn_terminal_cells *at, kn_text *out)
{
    kn_text data = {0};
    kn_status st = KN_OK;
    KN_TRY_GOTO(encoded(p, at, &data));
    KN_TRY_GOTO(kn_text_addf(out, "\033]1337;File=inline=1;size=%zu;width=%d;height=%d;preserveAspectRatio=0:", data.size / 4 * 3,
                             at->columns, at->rows));
    KN_TRY_GOTO(kn_text_add_bytes(out, data.data, data.size));
    KN_TRY_GOTO(kn_text_add(out, "\a"));
done:
    kn_free(data.data);
    return st;
}

/* ---- sixel ------------------------------------------------------------------------------------*/

static kn_status put_run(kn_text *out, char sixel, int count)
{
    if (count > 3) return kn_text_addf(out, "!%d%c", count, sixel);
    char text[3] = {sixel, sixel, sixel};
    return kn_text_add_bytes(out, text, (size_t)count);
}

/* One colour of a band: a character per column, whose six bits are the band's rows from the top. */
static kn_status put_colour(kn_text *out, const uint8_t *index, int width, int rows, int colour)
{
    int run = 0;
    char last = 0;
    KN_TRY(kn_text_addf(out, "#%d", colour));
    for (int x = 0; x < width; x++) {
        int bits = 0;
        for (int y = 0; y < rows; y++) bits |= (index[(size_t)y * (size_t)width + (size_t)x] == colour) << y;
        char sixel = (char)('?' + bits);
        if (run && sixel != last) {
            KN_TRY(put_run(out, last, run));
            run = 0;
        }
        last = sixel;
        run++;
    }
    if (last != '?') KN_TRY(put_run(out, last, run)); /* blanks at the end need not be said */
    return kn_text_add(out, "$");
}

static kn_status put_bands(const kn_picture *p, const uint8_t *index, const uint32_t argb[256], kn_text *out)
{
    KN_TRY(kn_text_addf(out, "\033P0;1;0q\"1;1;%d;%d", p->width_px, p->height_px));
    for (int i = 0; i < KN_PALETTE_COLORS; i++)
        if (argb[i] >> 24)
            KN_TRY(kn_text_addf(out, "#%d;2;%d;%d;%d", i, (int)((argb[i] >> 16 & 255) * 100 + 127) / 255,
                                (int)((argb[i] >> 8 & 255) * 100 + 127) / 255, (int)((argb[i] & 255) * 100 + 127) / 255));
    for (int y = 0; y < p->height_px; y += SIXEL_ROWS) {
        int rows = p->height_px - y < SIXEL_ROWS ? p->height_px - y : SIXEL_ROWS;
        const uint8_t *band = index + (size_t)y * (size_t)p->width_px;
        bool used[256] = {0};
        for (size_t i = 0; i < (size_t)rows * (size_t)p->width_px; i++) used[band[i]] = true;
        for (int i = 0; i < KN_PALETTE_COLORS; i++)
            if (used[i]) KN_TRY(put_colour(out, band, p->width_px, rows, i));
        KN_TRY(kn_text_add(out, "-"));
    }
    return kn_text_add(out, "\033\\");
}

static kn_status sixel(const kn_picture *from, const kn_terminal_cells *at, kn_text *out)
{
    int height = at->rows * at->cell_height_px;
    if (height > SIXEL_ROWS) height -= height % SIXEL_ROWS; /* no band reaches below the place */
    kn_picture p = {0};
    kn_palette *palette = NULL;
    uint8_t *index = NULL;
    uint32_t argb[256];
    kn_status st = KN_OK;
    KN_TRY_GOTO(resized(from, at->columns * at->cell_width_px, height, &p));
    int64_t pixels = (int64_t)p.width_px * p.height_px;
    KN_TRY_GOTO(kn_palette_new(&palette));
    kn_palette_count(palette, p.data, pixels);
    KN_TRY_GOTO(kn_palette_build(palette, argb));
    KN_TRY_GOTO(kn_alloc((size_t)pixels, (void **)&index));
    kn_palette_map(palette, p.data, p.width_px, p.height_px, index, p.width_px);
    KN_TRY_GOTO(put_bands(&p, index, argb, out));
done:
    kn_palette_free(&palette);
    kn_picture_free(&p);
    kn_free(index);
    return st;
}

kn_status kn_terminal_image_text(kn_terminal_images kind, const kn_picture *p, const kn_terminal_cells *at, unsigned number,
                                 kn_text *out)
{
    if (p->channels != 3 || p->bits != 8 || p->width_px < 1 || p->height_px < 1)
        return kn_fail(KN_ERR_ARG, "terminal picture: expected RGB of 8 bits, found %d channels of %d bits, %dx%d px", p->channels,
                       p->bits, p->width_px, p->height_px);
    switch (kind) {
    case KN_TERMINAL_NONE: return KN_OK;
    case KN_TERMINAL_KITTY: return kitty(p, at, number, out);
    case KN_TERMINAL_ITERM: return iterm(p, at, out);
    case KN_TERMINAL_SIXEL: return sixel(p, at, out);
    }
    return kn_fail(KN_ERR_INTERNAL, "terminal picture: kind %d", (int)kind);
}
