/* io/video_codecs.h - which codec, container, encoder and pixel format a set of parameters means.
 *
 * Purpose   The one table of codecs, and the only place that knows encoders by name: their option
 *           names, defaults, limits, and what each needs for bytes that do not depend on threads.
 *           io/video_write.c uses the choice and does not ask which codec it is.
 * Source    Option names: libavcodec/libx264.c, libx265.c, libsvtav1.c, libaomenc.c, libvpxenc.c,
 *           proresenc_kostya.c, ffv1enc.c, libwebpenc_common.c (FFmpeg 4.4 to 7.1).
 */
#ifndef KN_IO_VIDEO_CODECS_H
#define KN_IO_VIDEO_CODECS_H

#include <stdbool.h>

#include <libavcodec/avcodec.h>

#include "io/video.h"

typedef struct kn_video_choice {
    const char *codec;     /* name in the table                                            */
    const char *extension; /* "mp4": without the dot                                       */
    const char *muxer;     /* libavformat's name                                           */
    const AVCodec *encoder;
    enum AVPixelFormat pix_fmt; /* what the encoder gets                                        */
    int bit_depth;
    double quality;     /* resolved default; negative: the codec has no such setting    */
    const char *preset; /* resolved default; "" when the codec has none                 */
    int threads;        /* resolved                                                     */
    bool chroma_forced; /* 4:4:4 because the size is odd                                */
    uint32_t codec_tag; /* for the stream; 0: the muxer's own choice                    */
} kn_video_choice;

/* Check every field of params that needs no file, and choose. */
KN_CHECKED kn_status kn_video_choose(const kn_video_writer_params *params, kn_video_choice *choice);
/* An open encoder for the choice. global_header: parameter sets go to the container, not in band.
 * Free with avcodec_free_context. */
KN_CHECKED kn_status kn_video_encoder_open(const kn_video_writer_params *params,
                                           const kn_video_choice *choice, bool global_header,
                                           AVCodecContext **out);

#endif
