/* io/png.h - reading and writing PNG pictures.
 *
 * Purpose   First frames and image conditions in, stills and contact sheets out.
 * Shapes    Pixels are rows from the top, R G B (or grey) interleaved, without padding:
 *           [height_px, width_px, channels].
 * Units     8-bit: uint8_t 0..255; 16-bit: uint16_t 0..65535 in the host's byte order. Values are
 *           the file's own: no gamma or colour-profile conversion, as in PyTorch pipelines (PIL
 *           does none).
 * Limits    KN_PNG_MAX_PX in each direction, KN_PNG_MAX_PIXELS when reading; text chunks of a file
 *           that is read are skipped.
 * Errors    KN_ERR_IO; KN_ERR_FORMAT names the file and libpng's words; KN_ERR_NOMEM names the
 *           size.
 */
#ifndef KN_IO_PNG_H
#define KN_IO_PNG_H

#include <stdint.h>

#include "io/status.h"
#include "io/text.h"

/* Each way; and in all, of a picture that is read (0.75 GiB of 16-bit colours). */
enum { KN_PNG_MAX_PX = 16384, KN_PNG_MAX_PIXELS = 1 << 27 };

typedef struct kn_picture {
    int width_px, height_px;
    int channels; /* 3 = RGB; 1 = grey (writing only) */
    int bits;     /* 8 or 16 */
    void *data;   /* uint8_t or uint16_t [height_px, width_px, channels] */
} kn_picture;

/* Read any PNG as RGB of `bits` (8 or 16) per channel. Grey and palette become RGB; fewer bits are
 * scaled up (15 of 4 bits becomes 255), 16 become 8 by rounding; what is transparent is blended
 * over `background` (three values in 8-bit units; NULL: black). Free with kn_picture_free. */
KN_CHECKED kn_status kn_png_read(const char *path, int bits, const uint8_t background[3],
                                 kn_picture *out);
/* The same from memory; name stands in messages. */
KN_CHECKED kn_status kn_png_parse(const char *name, const void *data, size_t size, int bits,
                                  const uint8_t background[3], kn_picture *out);
void kn_picture_free(kn_picture *picture);

/* Write through io/atomic_file.h. text: key, value, key, value, ..., NULL, or NULL; keys are 1 to
 * 79 printable ASCII characters without blanks at the ends or two in a row (PNG specification
 * 11.3.3.2), values UTF-8. ASCII values become tEXt chunks, others iTXt. KN_ERR_ARG otherwise. The
 * same arguments give the same bytes, given the same libpng and zlib. */
KN_CHECKED kn_status kn_png_write(const char *path, const kn_picture *picture,
                                  const char *const *text);
/* The same file, without text, appended to out. name stands in messages. */
KN_CHECKED kn_status kn_png_encode(const char *name, const kn_picture *picture, kn_text *out);

#endif
