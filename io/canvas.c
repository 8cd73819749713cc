#include "io/canvas.h"

#include <string.h>

#include "io/memory.h"
#include "io/png.h"

/* Seven rows of five bits, the left pixel is bit 4. From space to underscore (ASCII 32 to 95). */
static const uint8_t font[64][7] = {
    {0, 0, 0, 0, 0, 0, 0},                /* space */
    {4, 4, 4, 4, 4, 0, 4},                /* ! */
    {10, 10, 10, 0, 0, 0, 0},             /* " */
    {10, 10, 31, 10, 31, 10, 10},         /* # */
    {4, 15, 20, 14, 5, 30, 4},            /* $ */
    {24, 25, 2, 4, 8, 19, 3},             /* % */
    {12, 18, 20, 8, 21, 18, 13},          /* & */
    {4, 4, 8, 0, 0, 0, 0},                /* ' */
    {2, 4, 8, 8, 8, 4, 2},                /* ( */
    {8, 4, 2, 2, 2, 4, 8},                /* ) */
    {0, 4, 21, 14, 21, 4, 0},             /* * */
    {0, 4, 4, 31, 4, 4, 0},               /* + */
    {0, 0, 0, 0, 12, 4, 8},               /* , */
    {0, 0, 0, 31, 0, 0, 0},               /* - */
    {0, 0, 0, 0, 0, 12, 12},              /* . */
    {0, 1, 2, 4, 8, 16, 0},               /* / */
    {14, 17, 19, 21, 25, 17, 14},         /* 0 */
    {4, 12, 4, 4, 4, 4, 14},              /* 1 */
    {14, 17, 1, 2, 4, 8, 31},             /* 2 */
    {31, 2, 4, 2, 1, 17, 14},             /* 3 */
    {2, 6, 10, 18, 31, 2, 2},             /* 4 */
    {31, 16, 30, 1, 1, 17, 14},           /* 5 */
    {6, 8, 16, 30, 17, 17, 14},           /* 6 */
    {31, 1, 2, 4, 8, 8, 8},               /* 7 */
    {14, 17, 17, 14, 17, 17, 14},         /* 8 */
    {14, 17, 17, 15, 1, 2, 12},           /* 9 */
    {0, 12, 12, 0, 12, 12, 0},            /* : */
    {0, 12, 12, 0, 12, 4, 8},             /* ; */
    {2, 4, 8, 16, 8, 4, 2},               /* < */
    {0, 0, 31, 0, 31, 0, 0},              /* = */
    {8, 4, 2, 1, 2, 4, 8},                /* > */
    {14, 17, 1, 2, 4, 0, 4},              /* ? */
    {14, 17, 1, 13, 21, 21, 14},          /* @ */
    {14, 17, 17, 17, 31, 17, 17},         /* A */
    {30, 17, 17, 30, 17, 17, 30},         /* B */
    {14, 17, 16, 16, 16, 17, 14},         /* C */
    {28, 18, 17, 17, 17, 18, 28},         /* D */
    {31, 16, 16, 30, 16, 16, 31},         /* E */
    {31, 16, 16, 30, 16, 16, 16},         /* F */
    {14, 17, 16, 23, 17, 17, 15},         /* G */
    {17, 17, 17, 31, 17, 17, 17},         /* H */
    {14, 4, 4, 4, 4, 4, 14},              /* I */
    {7, 2, 2, 2, 2, 18, 12},              /* J */
    {17, 18, 20, 24, 20, 18, 17},         /* K */
    {16, 16, 16, 16, 16, 16, 31},         /* L */
    {17, 27, 21, 21, 17, 17, 17},         /* M */
    {17, 17, 25, 21, 19, 17, 17},         /* N */
    {14, 17, 17, 17, 17, 17, 14},         /* O */
    {30, 17, 17, 30, 16, 16, 16},         /* P */
    {14, 17, 17, 17, 21, 18, 13},         /* Q */
    {30, 17, 17, 30, 20, 18, 17},         /* R */
    {15, 16, 16, 14, 1, 1, 30},           /* S */
    {31, 4, 4, 4, 4, 4, 4},               /* T */
    {17, 17, 17, 17, 17, 17, 14},         /* U */
    {17, 17, 17, 17, 17, 10, 4},          /* V */
    {17, 17, 17, 21, 21, 21, 10},         /* W */
    {17, 17, 10, 4, 10, 17, 17},          /* X */
    {17, 17, 17, 10, 4, 4, 4},            /* Y */
    {31, 1, 2, 4, 8, 16, 31},             /* Z */
    {14, 8, 8, 8, 8, 8, 14},              /* [ */
    {0, 16, 8, 4, 2, 1, 0},               /* \ */
    {14, 2, 2, 2, 2, 2, 14},              /* ] */
    {4, 10, 17, 0, 0, 0, 0},              /* ^ */
    {0, 0, 0, 0, 0, 0, 31},               /* _ */
};
static const uint8_t unknown[7] = {31, 17, 17, 17, 17, 17, 31};

static const uint8_t *glyph(char letter)
{
    unsigned char c = (unsigned char)letter;
    if (c >= 'a' && c <= 'z') c = (unsigned char)(c - 'a' + 'A');
    return c >= 32 && c < 96 ? font[c - 32] : unknown;
}

kn_status kn_canvas_build(int width_px, int height_px, kn_rgb colour, kn_canvas *out)
{
    *out = (kn_canvas){0};
    if (width_px < 1 || height_px < 1 || width_px > KN_PNG_MAX_PX || height_px > KN_PNG_MAX_PX)
        return kn_fail(KN_ERR_ARG, "canvas: %d x %d px, expected sides from 1 to %d", width_px,
                       height_px, (int)KN_PNG_MAX_PX);
    void *memory;
    KN_TRY(kn_alloc((size_t)width_px * (size_t)height_px * 3, &memory));
    *out = (kn_canvas){width_px, height_px, memory};
    kn_canvas_fill(out, 0, 0, width_px, height_px, colour);
    return KN_OK;
}

void kn_canvas_free(kn_canvas *c)
{
    kn_free(c->rgb);
    *c = (kn_canvas){0};
}

void kn_canvas_fill(kn_canvas *c, int x, int y, int width_px, int height_px, kn_rgb colour)
{
    int x1 = x + width_px < c->width_px ? x + width_px : c->width_px;
    int y1 = y + height_px < c->height_px ? y + height_px : c->height_px;
    for (int i = y > 0 ? y : 0; i < y1; i++)
        for (int j = x > 0 ? x : 0; j < x1; j++) {
            uint8_t *p = c->rgb + ((size_t)i * (size_t)c->width_px + (size_t)j) * 3;
            p[0] = (uint8_t)(colour >> 16);
            p[1] = (uint8_t)(colour >> 8);
            p[2] = (uint8_t)colour;
        }
}

void kn_canvas_frame(kn_canvas *c, int x, int y, int width_px, int height_px, kn_rgb colour)
{
    kn_canvas_fill(c, x, y, width_px, 1, colour);
    kn_canvas_fill(c, x, y + height_px - 1, width_px, 1, colour);
    kn_canvas_fill(c, x, y, 1, height_px, colour);
    kn_canvas_fill(c, x + width_px - 1, y, 1, height_px, colour);
}

int kn_canvas_text_width(int scale, const char *text)
{
    return (int)strlen(text) * 6 * scale;
}

int kn_canvas_text(kn_canvas *c, int x, int y, int scale, kn_rgb colour, const char *text)
{
    for (; *text; text++, x += 6 * scale)
        for (int i = 0; i < 7; i++)
            for (int j = 0; j < 5; j++)
                if (glyph(*text)[i] >> (4 - j) & 1)
                    kn_canvas_fill(c, x + j * scale, y + i * scale, scale, scale, colour);
    return x;
}

void kn_canvas_text_up(kn_canvas *c, int x, int y, int scale, kn_rgb colour, const char *text)
{
    for (; *text; text++, y -= 6 * scale)
        for (int i = 0; i < 7; i++)
            for (int j = 0; j < 5; j++)
                if (glyph(*text)[i] >> (4 - j) & 1)
                    kn_canvas_fill(c, x + i * scale, y - (j + 1) * scale, scale, scale, colour);
}

void kn_canvas_picture(kn_canvas *c, int x, int y, const float *rgb, int width_px, int height_px,
                       int shrink)
{
    for (int i = 0; i + shrink <= height_px; i += shrink)
        for (int j = 0; j + shrink <= width_px; j += shrink) {
            kn_rgb colour = 0;
            for (int k = 0; k < 3; k++) {
                float sum = 0;
                for (int a = 0; a < shrink; a++)
                    for (int b = 0; b < shrink; b++)
                        sum += rgb[((int64_t)(i + a) * width_px + j + b) * 3 + k];
                sum /= (float)(shrink * shrink);
                sum = sum > 0 ? sum < 1 ? sum : 1 : 0; /* NaN becomes 0 */
                colour = colour << 8 | (kn_rgb)(sum * 255 + 0.5f);
            }
            kn_canvas_fill(c, x + j / shrink, y + i / shrink, 1, 1, colour);
        }
}

kn_status kn_canvas_write(const kn_canvas *c, const char *path)
{
    kn_picture picture = {c->width_px, c->height_px, 3, 8, c->rgb};
    return kn_png_write(path, &picture, NULL);
}
