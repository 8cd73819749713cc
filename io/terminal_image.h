/* io/terminal_image.h - pictures as the escape sequences that terminals draw.
 *
 * Purpose   A preview where the user already looks. Builds texts only: who prints them, and whether the
 *           terminal can show them, is the caller's business (pipeline/progress_picture.c).
 * Formats   kitty's graphics protocol (sw.kovidgoyal.net/kitty/graphics-protocol): PNG in base64, in pieces
 *           of 4096; a picture sent again under its number takes the place of the one before.
 *           iTerm2's inline images (iterm2.com/documentation-images.html): PNG in base64.
 *           Sixel (DEC STD 070, 9): rows of six pixels, a palette of at most 255 colours, run lengths.
 * Shapes    Pictures are RGB of 8 bits, see io/png.h.
 * Units     Cells of the terminal, and px of the screen; a cell has cell_width_px x cell_height_px.
 * Errors    KN_ERR_NOMEM; KN_ERR_ARG for another kind of picture.
 */
#ifndef KN_IO_TERMINAL_IMAGE_H
#define KN_IO_TERMINAL_IMAGE_H

#include "io/png.h"
#include "io/text.h"

/* Order as in the `choices` of --preview-terminal, after off and auto. */
typedef enum kn_terminal_images { KN_TERMINAL_NONE, KN_TERMINAL_KITTY, KN_TERMINAL_ITERM, KN_TERMINAL_SIXEL } kn_terminal_images;

typedef struct kn_terminal_cells {
    int columns, rows;
    int cell_width_px, cell_height_px;
} kn_terminal_cells;

/* The largest part of `room` that has the picture's shape, at most four times its pixels wide; at least one
 * cell. A sixel picture of that size stays inside it. */
kn_terminal_cells kn_terminal_image_fit(const kn_picture *picture, const kn_terminal_cells *room);

/* Appends what draws the picture over `at` with its upper left corner at the cursor; where the cursor is
 * afterwards differs between terminals. number: 1 or more, of kitty's picture. */
KN_CHECKED kn_status kn_terminal_image_text(kn_terminal_images kind, const kn_picture *picture, const kn_terminal_cells *at,
                                            unsigned number, kn_text *out);

#endif
