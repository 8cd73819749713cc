/* io/canvas.h - drawing rectangles and words into a picture: maps, charts, labelled sheets.
 *
 * Purpose   Pictures that explain a run must carry their own axes and legends. No font files, no
 *           other library: one small bitmap font, capitals only.
 * Shapes    rgb [height_px, width_px, 3] uint8_t, rows from the top. What lies outside is clipped.
 * Units     px. A letter is 5 x 7 px times its scale, and takes 6 px of the line.
 * Errors    KN_ERR_NOMEM, KN_ERR_ARG; those of kn_png_write.
 */
#ifndef KN_IO_CANVAS_H
#define KN_IO_CANVAS_H

#include <stdint.h>

#include "io/status.h"

typedef struct kn_canvas {
    int width_px, height_px;
    uint8_t *rgb;
} kn_canvas;

typedef uint32_t kn_rgb; /* 0xRRGGBB */

/* A picture of one colour. Sides from 1 to KN_PNG_MAX_PX. */
KN_CHECKED kn_status kn_canvas_build(int width_px, int height_px, kn_rgb colour, kn_canvas *out);
void kn_canvas_free(kn_canvas *c);

void kn_canvas_fill(kn_canvas *c, int x, int y, int width_px, int height_px, kn_rgb colour);
/* The rectangle's outline, inside it. */
void kn_canvas_frame(kn_canvas *c, int x, int y, int width_px, int height_px, kn_rgb colour);
/* Words with their upper left corner at x, y; returns the x behind them. Small letters are drawn as
 * capitals, what the font lacks as a box. */
int kn_canvas_text(kn_canvas *c, int x, int y, int scale, kn_rgb colour, const char *text);
/* The same upwards, from the lower left corner x, y: for vertical axes. */
void kn_canvas_text_up(kn_canvas *c, int x, int y, int scale, kn_rgb colour, const char *text);
int kn_canvas_text_width(int scale, const char *text);
/* [height, width, 3] floats in [0,1] (clipped) with their upper left corner at x, y, each new pixel
 * the mean of `shrink` x `shrink` old ones; shrink >= 1. */
void kn_canvas_picture(kn_canvas *c, int x, int y, const float *rgb, int width_px, int height_px,
                       int shrink);

KN_CHECKED kn_status kn_canvas_write(const kn_canvas *c, const char *path);

#endif
