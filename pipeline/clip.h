/* pipeline/clip.h - the video that is refined: what it is, and its frames at a stage's size.
 *
 * Purpose   kn_clip_open decodes the file once from end to end, so that its number of frames is known,
 *           damage is found before hours of work, and its content has a name (SHA-256). A
 *           kn_clip_reader then gives frames from any place on, brought to the size of a refine stage.
 * Segments  A clip of more frames than a segment has is refined in segments that overlap: segment k
 *           starts at k (length - overlap), the last one where it ends with the clip. Lengths and
 *           overlaps are 4n+1, so the segments' latent frames fall on the same places of the clip.
 * Shapes    frames [H_px,W_px,3] f32 in -1 .. 1, host memory.
 * Cost      One decoding of the whole clip to open it; a reader decodes what lies before its first frame.
 *           Memory does not grow with the clip.
 * Errors    KN_ERR_IO, KN_ERR_FORMAT name the file and the frame.
 */
#ifndef KN_PIPELINE_CLIP_H
#define KN_PIPELINE_CLIP_H

#include "io/sha256.h"
#include "io/video.h"
#include "pipeline/geometry.h"
#include "pipeline/options.h"
#include "pipeline/progress.h"
#include "pipeline/resize.h"

typedef struct kn_clip {
    char *path;
    const char *name;            /* its last part */
    kn_video_info info;
    int64_t width_px, height_px; /* as shown: turned, with square pixels */
    int64_t frames;
    double uneven_sec;           /* farthest that a frame's time is from its place at the constant rate */
    int64_t bytes;               /* of the file, or of all PNG files */
    char sha256[KN_SHA256_TEXT]; /* likewise */
} kn_clip;

KN_CHECKED kn_status kn_clip_open(const char *path, int threads, kn_event_fn *fn, void *user, kn_clip *out);
void kn_clip_close(kn_clip *c);

/* How a clip is cut. */
typedef struct kn_segments {
    int64_t count, length, overlap; /* frames of each; the overlap is what two of them share and blend */
    int64_t frames;                 /* written in all */
} kn_segments;

/* o: resolved; o->frames is the longest segment. KN_ERR_ARG: an overlap that does not go with it. */
KN_CHECKED kn_status kn_segments_of(const kn_clip *c, const kn_options *o, kn_segments *out);
int64_t kn_segment_first(const kn_segments *s, int64_t k);

/* How frames of the clip become frames of size g: by o->fit and o->upscale. */
typedef struct kn_clip_reader kn_clip_reader;
KN_CHECKED kn_status kn_clip_reader_open(const kn_clip *c, const kn_options *o, const kn_geometry *g, int64_t first,
                                         kn_clip_reader **out);
/* The next frame, of the rendered size; past the clip's end its last one again. */
KN_CHECKED kn_status kn_clip_reader_next(kn_clip_reader *r, float *frame);
void kn_clip_reader_close(kn_clip_reader **r);
/* Host memory that a reader takes. */
size_t kn_clip_reader_bytes(const kn_clip *c, const kn_geometry *g);

#endif
