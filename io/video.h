/* io/video.h - video files: frames in, frames out, through libavformat and libavcodec.
 *
 * Purpose   A writer that takes RGB frames one by one and leaves either a whole, colour-tagged file
 *           under its final name or nothing; a reader that gives RGB frames from any file that
 *           libavformat opens, and from a folder or pattern of PNG files in the same way.
 * Shapes    A frame is [H,W,3], row-major, R G B interleaved, not premultiplied.
 * Units     Samples are non-linear (display-referred) R'G'B' in [0,1] as float, or 0..65535 as
 *           uint16_t. Frame rates are rationals in frames per second. Sizes are pixels.
 * Colour    Written YCbCr is BT.709, limited range, chroma sited left (ITU-R BT.709; ITU-T
 *           H.273 code 1), and both the container and the bitstream say so. Written
 *           RGB (ffv1, gif, webp) keeps the numbers. Read files are converted by the matrix and
 *           range that they state; unstated matrix: BT.709 from 720 rows, BT.601 below (and the
 *           info says that it was a guess).
 * Same in,  The same frames and options give the same bytes, for any number of threads: times and
 * same out  program versions are left out of the file. (The same libraries, that is: another
 *           version of an encoder writes other bytes.)
 * Cost      Writer: 1 frame of the pixel format plus the encoder's look-ahead; gif also spools 3
 *           bytes per pixel and frame to a temporary file beside the target.
 * Errors    KN_ERR_ARG (an option; the message lists what would do), KN_ERR_UNSUPPORTED (encoder
 *           not in this build), KN_ERR_IO (disk), KN_ERR_FORMAT (a file read is malformed),
 *           KN_ERR_NUMERIC (NaN in a frame), KN_ERR_NOMEM. Messages name the path.
 * Threads   One writer or reader belongs to one thread at a time; different ones are independent.
 */
#ifndef KN_IO_VIDEO_H
#define KN_IO_VIDEO_H

#include <stdbool.h>
#include <stdint.h>

#include "io/status.h"

/* No side of a video is longer (read or written), and none has more pixels. */
enum { KN_VIDEO_MAX_SIDE_PX = 16384, KN_VIDEO_MAX_PIXELS = 1 << 27 };

/* ---- codecs ---------------------------------------------------------------------------------- */

typedef struct kn_video_codec_info {
    const char *name;       /* "h264", "h265", "av1", "vp9", "prores", "ffv1", "gif", "webp"   */
    const char *encoder;    /* the libavcodec encoder used; NULL when none is linked           */
    const char *containers; /* file extensions that hold it: "mp4 mov mkv"                     */
    const char *bit_depths; /* "8 10"; the first is the default                                */
    const char *quality;    /* what params.quality means, its range and default                */
    const char *preset;     /* what params.preset takes and its default                        */
    bool available;
} kn_video_codec_info;

int kn_video_codecs_count(void);
/* i in [0, count); in order of preference. Strings are static. */
kn_video_codec_info kn_video_codecs_at(int i);

/* ---- writer ---------------------------------------------------------------------------------- */

typedef struct kn_video_writer kn_video_writer;

typedef struct kn_video_writer_params {
    const char *path;  /* final name; the extension names the container:
                            mp4 mov mkv webm gif webp                                          */
    const char *codec; /* a name above; NULL or "auto": mp4, mkv: h264, mov: prores, webm: vp9
                            (the next available one that fits if that one is missing)          */
    int width_px;      /* 2..KN_VIDEO_MAX_SIDE_PX. Odd sizes are kept, never cropped or padded:
                            vp9, av1 (libaom), prores, ffv1, gif, webp store them as they are;
                            h264 and h265 cannot in 4:2:0 and switch to 4:4:4, with a warning  */
    int height_px;
    int fps_num; /* frames per second = fps_num / fps_den, both > 0                    */
    int fps_den;
    double quality;     /* KN_VIDEO_QUALITY_DEFAULT, or the codec's own scale (see codecs)    */
    const char *preset; /* NULL: the codec's default                                          */
    int bit_depth;      /* 0: the codec's default                                             */
    int threads;        /* 0: one per CPU. x264 always uses 8 and vp9, libaom at least 2, as their
                            bytes depend on it                                                 */
    const char *const *metadata; /* key, value, ..., NULL; or NULL. "title" and "comment" are
                            understood everywhere; mov and, with other keys, mp4 store them as
                            QuickTime "mdta" keys. gif and webp have no place for them: ignored,
                            with a warning                                                     */
    const char *audio_from;      /* file whose first audio stream is copied, cut to the clip's
                            length; NULL: silent. A file without audio is not an error         */
} kn_video_writer_params;

#define KN_VIDEO_QUALITY_DEFAULT (-1.0)

/* All defaults; set path, width_px, height_px, fps_num, fps_den. */
kn_video_writer_params kn_video_writer_defaults(void);

/* Check everything about params that needs no file: codec, container, encoder, size, depth, preset
 * names. The same checks as open, so that a job can be refused before hours of work. */
KN_CHECKED kn_status kn_video_writer_check(const kn_video_writer_params *params);
/* Can the file hold the audio of params->audio_from? Opens that one only. */
KN_CHECKED kn_status kn_video_writer_check_audio(const kn_video_writer_params *params);
/* Opens the encoder and a temporary file beside params->path. Strings are copied. */
KN_CHECKED kn_status kn_video_writer_open(const kn_video_writer_params *params,
                                          kn_video_writer **out);
/* Append one frame. rgb: [H,W,3] in [0,1]; values outside are clipped, NaN is an error. After a
 * failure every later call fails too. */
KN_CHECKED kn_status kn_video_writer_put(kn_video_writer *w, const float *rgb);
KN_CHECKED kn_status kn_video_writer_put_u16(kn_video_writer *w, const uint16_t *rgb);
/* Flush, complete, fsync and rename to the final name. The writer is done afterwards: close it. */
KN_CHECKED kn_status kn_video_writer_finish(kn_video_writer *w);
/* Free. Without a successful finish the temporary file is removed. Sets *w to NULL; NULL-safe. */
void kn_video_writer_close(kn_video_writer **w);

/* Memory that writing a clip of `frames` takes, the encoder's own included, by its default preset: a fit
 * to what the encoders of FFmpeg 5.1 were seen to take, good to some 10 % at 320x192 to 1280x768 and 5 to
 * 49 frames. 0 for params that open would refuse. */
size_t kn_video_writer_memory(const kn_video_writer_params *params, int64_t frames);

/* What was chosen, e.g. "h265 (libx265, yuv420p10le, crf 18, preset medium) in mp4". */
const char *kn_video_writer_text(const kn_video_writer *w);

/* ---- reader ---------------------------------------------------------------------------------- */

typedef struct kn_video_reader kn_video_reader;

typedef struct kn_video_info {
    int width_px, height_px; /* of the frames that next() gives: after rotation                */
    int fps_num, fps_den;    /* average rate; 0/1: unknown (PNG files, or not stated)          */
    int64_t frames;          /* 0: unknown                                                     */
    bool frames_exact;       /* false: estimated from duration and rate                        */
    double duration_s;       /* 0: unknown                                                     */
    char container[32];      /* libavformat's name, "png" for PNG files                        */
    char codec[32];
    char pixel_format[32];
    int bit_depth;
    char matrix[24];     /* "bt709", "smpte170m", "rgb", ...: what the conversion uses     */
    bool matrix_guessed; /* the file does not state one                                    */
    bool full_range;
    int rotation_deg;     /* 0, 90, 180, 270: clockwise turn that next() applies            */
    int sar_num, sar_den; /* sample aspect ratio; 1/1 when square or not stated; not applied*/
    bool variable_rate;   /* container gives different average and nominal rates            */
    bool has_audio;
} kn_video_info;

/* path: a video file; a folder of PNG files (all of one size, in name order); or a pattern with one
 * %d or %0Nd, counted from the lowest of 0 or 1 that exists. Audio is ignored.
 * threads: decoder threads, 0: one per CPU. */
KN_CHECKED kn_status kn_video_reader_open(const char *path, int threads, kn_video_reader **out);
const kn_video_info *kn_video_reader_info(const kn_video_reader *r);
/* The next frame in display order into rgb [height_px,width_px,3], or *end = true and rgb
 * untouched. */
KN_CHECKED kn_status kn_video_reader_next(kn_video_reader *r, float *rgb, bool *end);
KN_CHECKED kn_status kn_video_reader_next_u16(kn_video_reader *r, uint16_t *rgb, bool *end);
/* Pass over the next frame: decodes it, converts nothing. */
KN_CHECKED kn_status kn_video_reader_skip(kn_video_reader *r, bool *end);
/* Presentation time in seconds of the frame that next gave last. */
double kn_video_reader_time_s(const kn_video_reader *r);
/* Container tags: i-th key and value, or false. Valid until close. */
bool kn_video_reader_metadata(const kn_video_reader *r, int i, const char **key,
                              const char **value);
void kn_video_reader_close(kn_video_reader **r);

/* Value of one container tag of a video file (key compared without case); *value NULL when the file
 * does not have it. Free with kn_free. */
KN_CHECKED kn_status kn_video_metadata_read(const char *path, const char *key, char **value);

#endif
