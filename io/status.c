#include "io/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "io/text.h"

enum { TEXT_BYTES = 2048 };

static _Thread_local char record_text[TEXT_BYTES];
static _Thread_local char record_place[128];

kn_status kn_fail_at(kn_status code, const char *file, int line, const char *fmt, ...)
{
    /* A message may quote the previous record (kn_error_text() as an argument): format apart. */
    char text[TEXT_BYTES] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    kn_text_make_plain(text); /* messages quote names from files */
    memcpy(record_text, text, sizeof text);
    snprintf(record_place, sizeof record_place, "%s:%d", file, line);
    return code;
}

kn_status kn_context(kn_status st, const char *fmt, ...)
{
    if (st == KN_OK) return st;
    char text[TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0) return st;
    size_t used = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    kn_text_make_plain(text);
    snprintf(text + used, sizeof text - used, ": %.*s", (int)(sizeof text - used), record_text);
    memcpy(record_text, text, sizeof text);
    return st;
}

const char *kn_error_text(void) { return record_text; }

const char *kn_error_place(void) { return record_place; }

void kn_error_clear(void)
{
    record_text[0] = '\0';
    record_place[0] = '\0';
}

void kn_error_copy(char *dst, size_t size)
{
    if (size) snprintf(dst, size, "%s", record_text);
}

const char *kn_status_name(kn_status st)
{
    switch (st) {
    case KN_OK: return "ok";
    case KN_ERR_ARG: return "argument";
    case KN_ERR_IO: return "io";
    case KN_ERR_FORMAT: return "format";
    case KN_ERR_MODEL: return "model";
    case KN_ERR_NOMEM: return "memory";
    case KN_ERR_DEVICE: return "device";
    case KN_ERR_UNSUPPORTED: return "unsupported";
    case KN_ERR_CANCELLED: return "cancelled";
    case KN_ERR_NUMERIC: return "numeric";
    case KN_ERR_INTERNAL: return "internal";
    }
    return "unknown";
}
