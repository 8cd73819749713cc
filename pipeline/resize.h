/* pipeline/resize.h - pictures of another size.
 *
 * Purpose   Separable resampling of one picture: between the stages of a high-resolution render, frames
 *           (three channels) or latent planes (one); frames of a clip that is refined.
 * Filters   bilinear  two taps; cv2.resize INTER_LINEAR, torch interpolate(align_corners=False)
 *           lanczos   windowed sinc of radius 3, taps outside the picture dropped and the rest brought
 *                     back to sum 1; Pillow's LANCZOS
 *           When a picture is made smaller (step > 1) both are as many times wider, as in Pillow.
 * Units     Output pixel x takes the input at first_x + (x + 0.5) step_x - 0.5; positions beyond the
 *           input's edge take the edge (frames are padded to the latent grid at the right and bottom).
 * Shapes    [height, width, channels] f32, host memory, rows dense.
 * Errors    KN_ERR_ARG (a step that is not in (0, 1024]), KN_ERR_NOMEM.
 * Threads   A built resizer is used by one thread at a time; results do not depend on its workers.
 */
#ifndef KN_PIPELINE_RESIZE_H
#define KN_PIPELINE_RESIZE_H

#include <stdint.h>

#include "compute/workers.h"

typedef enum kn_resize_filter { KN_RESIZE_BILINEAR, KN_RESIZE_LANCZOS } kn_resize_filter;

typedef struct kn_resize_params {
    kn_resize_filter filter;
    int64_t from_width, from_height, to_width, to_height;
    double step_x, step_y;   /* input pixels per output pixel */
    double first_x, first_y; /* input position of the output's left and top edge, in pixels */
    int channels;
    kn_workers *workers; /* share the rows; borrowed. NULL: the calling thread alone */
} kn_resize_params;

typedef struct kn_resize kn_resize;

KN_CHECKED kn_status kn_resize_build(const kn_resize_params *params, kn_resize **out);
void kn_resize_free(kn_resize **r);
void kn_resize_run(kn_resize *r, const float *from, float *to);

#endif
