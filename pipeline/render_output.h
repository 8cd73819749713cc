/* pipeline/render_output.h - where finished frames go: video, PNG files, contact sheet, sidecar.
 *
 * Purpose   One sink for a stream of frames in time order. Crops the rendered frame to the asked one, maps
 *           [-1,1] to [0,1], feeds every output that the options name.
 * Shapes    frames [T,H_px,W_px,3] f32, host memory, rendered size.
 * Errors    Of the writers. Until kn_output_finish nothing has its final name but single PNG frames.
 */
#ifndef KN_PIPELINE_RENDER_OUTPUT_H
#define KN_PIPELINE_RENDER_OUTPUT_H

#include "io/frame_writer.h"
#include "io/frames.h"
#include "io/video.h"
#include "pipeline/render_job.h"

typedef struct kn_output {
    const kn_job *job;
    kn_video_writer *video;   /* NULL: no video asked for */
    kn_contact_sheet *sheet;  /* likewise */
    kn_frame_writer *files;   /* likewise */
    float *frame;             /* [height, width, 3] cropped, in [0,1] */
    char *settings;           /* JSON that goes into the files */
    const char *text[3];      /* the same as a text of a PNG file */
    int64_t count;            /* frames taken so far */
} kn_output;

/* Writer parameters that follow from the job: path, codec, quality, rate, size, audio. Strings are borrowed. */
void kn_output_video_params(const kn_job *j, kn_video_writer_params *p);
/* A frame rate as a fraction: 23.976 and its kin are n*1000/1001, others keep three decimals. */
void kn_fps_rational(double fps, int *num, int *den);

/* What an output takes on the host: a frame, the contact sheet, the video encoder. */
size_t kn_output_bytes(const kn_job *j);
KN_CHECKED kn_status kn_output_open(const kn_job *j, kn_output *out);
KN_CHECKED kn_status kn_output_frames(kn_output *x, const float *frames, int64_t count);
/* Complete the video, write contact sheet and sidecar. */
KN_CHECKED kn_status kn_output_finish(kn_output *x);
void kn_output_close(kn_output *x);

#endif
