/* text/codepoints.h - growing arrays of code points, which text cleaning works on.
 *
 * Use       kn_codepoints t = {0}; kn_codepoints_add(&t, cp); ... kn_codepoints_free(&t)
 * Errors    KN_ERR_NOMEM; KN_ERR_ARG for bytes that are not UTF-8.
 */
#ifndef KN_TEXT_CODEPOINTS_H
#define KN_TEXT_CODEPOINTS_H

#include <stdbool.h>
#include <stdint.h>

#include "io/text.h"

typedef struct kn_codepoints {
    uint32_t *at;
    size_t count, capacity;
} kn_codepoints;

KN_CHECKED kn_status kn_codepoints_add(kn_codepoints *t, uint32_t cp);
KN_CHECKED kn_status kn_codepoints_add_utf8(kn_codepoints *t, const char *text, size_t bytes);
KN_CHECKED kn_status kn_codepoints_add_all(kn_codepoints *t, kn_codepoints more);
/* Append to a text, as UTF-8. */
KN_CHECKED kn_status kn_codepoints_to_utf8(kn_codepoints t, kn_text *out);
bool kn_codepoints_equal(kn_codepoints a, kn_codepoints b);
/* count entries from `from` on; shares the memory. */
kn_codepoints kn_codepoints_part(kn_codepoints t, size_t from, size_t count);
/* NULL-safe on a zeroed array; zeroes it. */
void kn_codepoints_free(kn_codepoints *t);

#endif
