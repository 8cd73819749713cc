/* pipeline/debug_sheet.h - inside pipeline/: the contact sheet of --debug-dir.
 *
 * Purpose   One row of small pictures per pass, at most KN_SHEET_COLUMNS steps of it, spread evenly; under
 *           each its step, sigma, time, density and recall. Pictures are made small as they come.
 * Errors    KN_ERR_NOMEM; those of kn_png_write.
 */
#ifndef KN_PIPELINE_DEBUG_SHEET_H
#define KN_PIPELINE_DEBUG_SHEET_H

#include <jansson.h>

#include "io/canvas.h"

enum { KN_SHEET_COLUMNS = 8, KN_SHEET_PICTURE_PX = 224, KN_SHEET_LINES = 3 };

typedef struct kn_sheet_cell {
    char pass[24];
    char line[KN_SHEET_LINES][40];
    kn_canvas picture;
    struct kn_sheet_cell *next;
} kn_sheet_cell;

typedef struct kn_debug_sheet {
    kn_sheet_cell *first, *last;
} kn_debug_sheet;

/* step: its entry of run.json. rgb [height, width, 3]. */
KN_CHECKED kn_status kn_debug_sheet_add(kn_debug_sheet *s, const char *pass, const json_t *step, const float *rgb, int width_px,
                                        int height_px);
KN_CHECKED kn_status kn_debug_sheet_write(const kn_debug_sheet *s, const char *title, const char *path);
void kn_debug_sheet_free(kn_debug_sheet *s);

#endif
