/* io/frames.h - frames as PNG files, and a sheet of small frames to look at.
 *
 * Purpose   Writes a clip as numbered PNG files, finds such files again, and builds the contact
 *           sheet that shows a clip in one picture while its frames stream by.
 * Shapes    A frame is [H,W,3] float R'G'B' in [0,1], as in io/video.h; values outside are clipped.
 * Cost      A PNG: one frame of bytes. A sheet: its own pixels as float; frames are never kept.
 * Errors    KN_ERR_IO, KN_ERR_ARG, KN_ERR_FORMAT, KN_ERR_NUMERIC (NaN), KN_ERR_NOMEM; with the
 *           path.
 * Threads   Different files and sheets are independent.
 */
#ifndef KN_IO_FRAMES_H
#define KN_IO_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "io/status.h"

/* ---- sequences of PNG files ------------------------------------------------------------------ */

/* Write folder/frame_%05d.png, index from 0. bits: 8 or 16. The folder is made when it is missing
 * (its parent must exist). text: as for kn_png_write. */
KN_CHECKED kn_status kn_frames_write(const char *folder, int64_t index, const float *rgb,
                                     int width_px, int height_px, int bits,
                                     const char *const *text);

/* Its parts, for a writer that does other things between them (io/frame_writer.h). */
KN_CHECKED kn_status kn_frames_folder(const char *folder);
/* The file's name; freed by the caller. */
KN_CHECKED kn_status kn_frames_path(const char *folder, int64_t index, char **path);
/* The colours as `out`, [H,W,3] of uint8_t or uint16_t. folder and index: for messages. */
KN_CHECKED kn_status kn_frames_pixels(const char *folder, int64_t index, const float *rgb, int width_px,
                                      int height_px, int bits, void *out);

enum { KN_FRAMES_MAX = 1000000 };

typedef struct kn_frame_list {
    int count;
    char **paths;
} kn_frame_list;

/* Could path mean PNG files: a folder, a name that ends in .png, or a pattern with %d or %0Nd? */
bool kn_frames_is_list(const char *path);
/* The files: of a folder every *.png in name order; of a pattern those that exist from number 0 or
 * 1 on, without a gap; of a single name itself. KN_ERR_IO when there is none. */
KN_CHECKED kn_status kn_frames_list(const char *path, kn_frame_list *list);
void kn_frames_list_free(kn_frame_list *list);

/* ---- contact sheet --------------------------------------------------------------------------- */

typedef struct kn_contact_sheet kn_contact_sheet;

/* A sheet of `tiles` frames (at most total_frames), evenly spaced from the first to the last of
 * total_frames, in rows from the left, at most max_width_px wide, 4 pixels apart. Frames are made
 * smaller by the mean over the area of each new pixel; never larger. */
KN_CHECKED kn_status kn_contact_sheet_build(int64_t total_frames, int tiles, int width_px,
                                            int height_px, int max_width_px,
                                            kn_contact_sheet **out);
/* The next frame in order, from 0; those that have no tile cost nothing. */
KN_CHECKED kn_status kn_contact_sheet_add(kn_contact_sheet *s, const float *rgb);
/* text: as for kn_png_write. */
KN_CHECKED kn_status kn_contact_sheet_write(const kn_contact_sheet *s, const char *path,
                                            const char *const *text);
void kn_contact_sheet_free(kn_contact_sheet **s);

#endif
