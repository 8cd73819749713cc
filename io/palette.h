/* io/palette.h - the colours of a GIF, or of a picture in a terminal.
 *
 * Purpose   One palette for a whole clip, so that still areas stay still: frames are counted first,
 *           then the palette is built, then every frame is mapped.
 * Method    Histogram of 2^18 cells; boxes of cells are split at their mean along the axis of
 *           largest variance, largest total variance first (the variance form of median cut:
 *           Heckbert 1982, Wan, Wong, Prusinkiewicz 1988). Colours that the palette lacks are
 *           dithered by an 8x8 ordered matrix (Bayer 1973), which, unlike error diffusion, does not
 *           flicker.
 * Shapes    rgb: [pixels,3] bytes.
 * Cost      16 MiB; building takes some 10 ms, mapping a table look-up per pixel.
 */
#ifndef KN_IO_PALETTE_H
#define KN_IO_PALETTE_H

#include <stdint.h>

#include "io/status.h"

/* 255 colours and one transparent entry, which the encoder uses for pixels that did not change. */
enum { KN_PALETTE_COLORS = 255 };

typedef struct kn_palette kn_palette;

KN_CHECKED kn_status kn_palette_new(kn_palette **out);
void kn_palette_free(kn_palette **p);
void kn_palette_count(kn_palette *p, const uint8_t *rgb, int64_t pixels);
/* After the last count. argb: 256 entries 0xAARRGGBB; unused ones are transparent. */
KN_CHECKED kn_status kn_palette_build(kn_palette *p, uint32_t argb[256]);
/* rgb [height,width,3] to indices; linesize: bytes from one row of indices to the next. */
void kn_palette_map(kn_palette *p, const uint8_t *rgb, int width, int height, uint8_t *index,
                    int linesize);

#endif
