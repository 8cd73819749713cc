/* io/status.h - status codes and the error record.
 *
 * Purpose   Every function that can fail returns a kn_status; the text of the failure stands in a
 *           thread-local record, so that a message can name the object, what was expected and what
 *           was found without each signature carrying a buffer.
 * Use       The failing line:      return kn_fail(KN_ERR_FORMAT, "%s: ...", path, ...);
 *           Its callers:           KN_TRY(f(x));              returns the status on failure
 *                                  KN_TRY_GOTO(f(x));         stores it in `st`, jumps to `done`
 *           Adding context:        return KN_CTX(st, "loading %s", dir);
 * Threads   The record belongs to the thread that failed. A worker hands its record over with
 *           kn_error_copy() before it ends; see pipeline/.
 */
#ifndef KN_IO_STATUS_H
#define KN_IO_STATUS_H

#include <stddef.h>

typedef enum kn_status {
    KN_OK = 0,
    KN_ERR_ARG = -1,         /* an option or argument is out of its range                 */
    KN_ERR_IO = -2,          /* open, read, write, rename; the message carries errno      */
    KN_ERR_FORMAT = -3,      /* a file's content is malformed or inconsistent             */
    KN_ERR_MODEL = -4,       /* weights or config do not fit the network                  */
    KN_ERR_NOMEM = -5,       /* host or device memory; the message says how much          */
    KN_ERR_DEVICE = -6,      /* a CUDA, cuDNN, cuBLASLt or oneDNN call failed             */
    KN_ERR_UNSUPPORTED = -7, /* valid, but not in this build or on this device            */
    KN_ERR_CANCELLED = -8,   /* stopped by a signal or by a callback                      */
    KN_ERR_NUMERIC = -9,     /* NaN or infinity where finite values are required          */
    KN_ERR_INTERNAL = -10    /* a bug in Kinora                                           */
} kn_status;

#if defined(__GNUC__)
#define KN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define KN_CHECKED __attribute__((warn_unused_result))
#else
#define KN_PRINTF(fmt, args)
#define KN_CHECKED
#endif

/* Store code, place and text in this thread's record and return the code. */
#define kn_fail(code, ...) kn_fail_at((code), __FILE__, __LINE__, __VA_ARGS__)
kn_status kn_fail_at(kn_status code, const char *file, int line, const char *fmt, ...)
    KN_PRINTF(4, 5);

/* Put "phrase: " in front of the record's text; returns st unchanged. */
#define KN_CTX(st, ...) kn_context((st), __VA_ARGS__)
kn_status kn_context(kn_status st, const char *fmt, ...) KN_PRINTF(2, 3);

/* Text of this thread's last failure ("" when there was none). Valid until its next failure. */
const char *kn_error_text(void);
/* "file.c:123" of the line that failed first, for bug reports. */
const char *kn_error_place(void);
/* Forget the record (a caller that handles a failure itself). */
void kn_error_clear(void);
/* Copy the text to dst (NUL-terminated, cut to size); for handing it to another thread. */
void kn_error_copy(char *dst, size_t size);
/* Name of a code, as in "model" for KN_ERR_MODEL; used in JSON output. */
const char *kn_status_name(kn_status st);

#define KN_TRY(expr)                            \
    do {                                        \
        kn_status kn_try_st_ = (expr);          \
        if (kn_try_st_ != KN_OK) return kn_try_st_; \
    } while (0)

/* Needs a local `kn_status st` and a label `done`. */
#define KN_TRY_GOTO(expr)             \
    do {                              \
        st = (expr);                  \
        if (st != KN_OK) goto done;   \
    } while (0)

#ifdef KN_ANALYZE /* analyzers read one file at a time: here they see that a failure is never KN_OK */
#define KN_FAILURE(code) ((code) == KN_OK ? KN_ERR_INTERNAL : (code))
#undef kn_fail
#define kn_fail(code, ...) (kn_fail_at((code), __FILE__, __LINE__, __VA_ARGS__), KN_FAILURE(code))
#endif

#endif
