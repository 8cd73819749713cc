/* io/text.h - growing strings, and numbers as text.
 *
 * Purpose   Builds a text of unknown length (a header, a list of names for a message, a JSON file),
 *           and converts numbers without regard to the process's locale: a host program that runs
 *           with a comma as decimal point reads and writes the same files.
 * Use       kn_text t = {0}; kn_text_addf(&t, ...); ... kn_free(t.data)
 * Errors    KN_ERR_NOMEM; the text stays as it was.
 */
#ifndef KN_IO_TEXT_H
#define KN_IO_TEXT_H

#include <stdint.h>

#include "io/status.h"

typedef struct kn_text {
    char *data;      /* NUL-terminated once something was added; NULL before */
    size_t size;     /* bytes, without the NUL */
    size_t capacity; /* bytes allocated */
} kn_text;

KN_CHECKED kn_status kn_text_add(kn_text *t, const char *text);
KN_CHECKED kn_status kn_text_add_bytes(kn_text *t, const void *data, size_t bytes);
KN_CHECKED kn_status kn_text_addf(kn_text *t, const char *fmt, ...) KN_PRINTF(2, 3);

/* True for well-formed UTF-8: shortest forms only, no surrogates, at most U+10FFFF (RFC 3629). */
int kn_text_is_utf8(const char *text);
/* Text from files reaches terminals: control characters (C0 but for line ends, DEL, C1 in UTF-8), with
 * which it could move the cursor or set a title, become question marks. */
void kn_text_make_plain(char *text);

enum { KN_DOUBLE_CHARS = 32 };
/* The shortest of %.15g, %.16g, %.17g that reads back as the same double, always with a '.' or an
 * exponent ("1.0", "1e+30"); "nan", "inf", "-inf" for the rest. Returns out. */
char *kn_text_double(double value, char out[KN_DOUBLE_CHARS]);
/* The whole text as a finite decimal number; 0 when it is not one (as hexadecimal, nan, blanks). */
int kn_text_to_double(const char *text, double *value);
/* The whole text as a decimal integer; 0 when it is not one or does not fit. */
int kn_text_to_int(const char *text, int64_t *value);

#endif
