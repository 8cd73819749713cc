/* text/html.h - character references of HTML ("&amp;", "&#233;", "&#xe9;") to characters.
 *
 * Source    HTML 5 standard, named character references; Python's html.unescape and ftfy 6.3
 *           unescape_html, whose two behaviours the two functions have.
 * Errors    KN_ERR_NOMEM.
 * Threads   Pure functions.
 */
#ifndef KN_TEXT_HTML_H
#define KN_TEXT_HTML_H

#include "text/codepoints.h"

enum { KN_HTML_SEMICOLON = 1, KN_HTML_BARE = 2, KN_HTML_UPPER = 4 };

typedef struct kn_html_entity {
    const char *name;  /* without & and ; */
    const char *value; /* UTF-8 */
    int flags;         /* SEMICOLON: "&name;" is standard; BARE: so is "&name" alone;
                          UPPER: not standard, the upper-case form of a name in lower case */
} kn_html_entity;

extern const kn_html_entity kn_html_entities[];
extern const int kn_html_entity_count;

/* Windows-1252 characters of bytes 0x80 to 0x9F; 0 where the byte stands for itself. */
extern const uint16_t kn_windows_1252[32];

/* Append `in` to out with every reference replaced, as Python's html.unescape: semicolons may be
 * missing, and the longest known name counts. */
KN_CHECKED kn_status kn_html_unescape(kn_codepoints in, kn_codepoints *out);
/* The same with the rules of ftfy: only what ends in a semicolon, and upper-case names too. */
KN_CHECKED kn_status kn_html_unescape_strict(kn_codepoints in, kn_codepoints *out);

#endif
