/* io/video_libav.h - what every file of io/video*.c needs around FFmpeg's libraries.
 *
 * Purpose   libav's messages go to io/log.h instead of stderr; its error codes become kn_status
 *           with text; its byte stream is a file descriptor of ours, so that the errno of a full
 *           disk is not lost and the file can be fsynced.
 * Versions  FFmpeg 4.4 to 7.x; differences are guarded here or beside their only use.
 */
#ifndef KN_IO_VIDEO_LIBAV_H
#define KN_IO_VIDEO_LIBAV_H

#include <stdbool.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/error.h>

#include "io/status.h"

/* Route libav's log to kn_log at KN_LOG_DEBUG and above. Cheap to call again. */
void kn_libav_setup(void);

/* Store "<phrase>: <text of code>" with the status that fits the code: errno values of the disk
 * give KN_ERR_IO, ENOMEM KN_ERR_NOMEM, a missing codec KN_ERR_UNSUPPORTED, the rest `otherwise`. */
kn_status kn_libav_fail(int code, kn_status otherwise, const char *fmt, ...) KN_PRINTF(3, 4);

/* Byte stream over a descriptor. */
typedef struct kn_libav_file {
    AVIOContext *pb;
    int fd;
    int error; /* errno of the first failing write, seek or read; 0: none */
} kn_libav_file;

/* fd stays the caller's; f must not move while open. writable: opened for writing. */
KN_CHECKED kn_status kn_libav_file_open(kn_libav_file *f, int fd, bool writable);
/* Flush what is buffered (its failure stands in f->error) and free the stream, not the fd. */
void kn_libav_file_close(kn_libav_file *f);

#endif
