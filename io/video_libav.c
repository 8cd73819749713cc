#include "io/video_libav.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libavutil/mem.h>

#include "io/log.h"

/* ---- messages -------------------------------------------------------------------------------- */

static void log_line(void *object, int level, const char *fmt, va_list ap)
{
    /* libav's own errors come back as codes and are reported there, with our context. */
    kn_log_level to = level <= AV_LOG_INFO ? KN_LOG_DEBUG : KN_LOG_TRACE;
    if (level > AV_LOG_VERBOSE || to > kn_log_get_level()) return;
    char text[1024];
    int prefix = 1;
    av_log_format_line(object, level, fmt, ap, text, (int)sizeof text, &prefix);
    size_t n = strlen(text);
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r')) text[--n] = '\0';
    if (n) kn_log(to, "libav", "%s", text);
}

static void setup_once(void)
{
    av_log_set_callback(log_line);
}

void kn_libav_setup(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, setup_once);
}

static kn_status status_of(int code, kn_status otherwise)
{
    switch (code) {
    case AVERROR(ENOMEM):
    case AVERROR(EAGAIN): return KN_ERR_NOMEM; /* EAGAIN: no thread could be started */
    case AVERROR(ENOSPC):
    case AVERROR(EFBIG):
    case AVERROR(EDQUOT):
    case AVERROR(EIO):
    case AVERROR(EROFS):
    case AVERROR(EACCES):
    case AVERROR(EPERM):
    case AVERROR(ENOENT):
    case AVERROR(EISDIR):
    case AVERROR(EMFILE):
    case AVERROR(ENFILE): return KN_ERR_IO;
    case AVERROR_ENCODER_NOT_FOUND:
    case AVERROR_DECODER_NOT_FOUND:
    case AVERROR_MUXER_NOT_FOUND:
    case AVERROR_PATCHWELCOME: return KN_ERR_UNSUPPORTED;
    default: return otherwise;
    }
}

kn_status kn_libav_fail(int code, kn_status otherwise, const char *fmt, ...)
{
    char phrase[768], reason[AV_ERROR_MAX_STRING_SIZE] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(phrase, sizeof phrase, fmt, ap);
    va_end(ap);
    av_strerror(code, reason, sizeof reason);
    return kn_fail(status_of(code, otherwise), "%s: %s", phrase, reason);
}

/* ---- byte stream ----------------------------------------------------------------------------- */

enum { BUFFER_BYTES = 1 << 16 };

static int read_bytes(void *opaque, uint8_t *to, int bytes)
{
    kn_libav_file *f = opaque;
    ssize_t n;
    do n = read(f->fd, to, (size_t)bytes);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        if (!f->error) f->error = errno;
        return AVERROR(errno);
    }
    return n ? (int)n : AVERROR_EOF;
}

#if LIBAVFORMAT_VERSION_MAJOR >= 61
static int write_bytes(void *opaque, const uint8_t *from, int bytes)
#else
static int write_bytes(void *opaque, uint8_t *from, int bytes)
#endif
{
    kn_libav_file *f = opaque;
    for (int done = 0; done < bytes;) {
        ssize_t n = write(f->fd, from + done, (size_t)(bytes - done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            int code = n < 0 ? errno : ENOSPC;
            if (!f->error) f->error = code;
            return AVERROR(code);
        }
        done += (int)n;
    }
    return bytes;
}

static int64_t seek_bytes(void *opaque, int64_t offset, int whence)
{
    kn_libav_file *f = opaque;
    if (whence == AVSEEK_SIZE) {
        struct stat s;
        if (fstat(f->fd, &s) == 0) return (int64_t)s.st_size;
    } else {
        off_t at = lseek(f->fd, (off_t)offset, whence & ~AVSEEK_FORCE);
        if (at >= 0) return (int64_t)at;
    }
    /* Muxers go on when they cannot seek back to complete a header: the writer must know of it. */
    if (!f->error) f->error = errno;
    return AVERROR(errno);
}

kn_status kn_libav_file_open(kn_libav_file *f, int fd, bool writable)
{
    *f = (kn_libav_file){.fd = fd};
    uint8_t *buffer = av_malloc(BUFFER_BYTES);
    if (buffer)
        f->pb = avio_alloc_context(buffer, BUFFER_BYTES, writable, f, read_bytes,
                                   writable ? write_bytes : NULL, seek_bytes);
    if (!f->pb) {
        av_free(buffer);
        return kn_fail(KN_ERR_NOMEM, "out of memory for a libavformat byte stream");
    }
    return KN_OK;
}

void kn_libav_file_close(kn_libav_file *f)
{
    if (!f->pb) return;
    if (f->pb->write_flag) avio_flush(f->pb);
    av_freep(&f->pb->buffer);
    avio_context_free(&f->pb);
}
