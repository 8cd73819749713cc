/* text/unicode_tables.h - Unicode data for NFC and width folding, and their lookup.
 *
 * Content   Made by tools/make_text_tables.py (which says which version of Unicode). Sorted by the
 *           first column, compose by the first two. Hangul syllables are computed, not listed.
 * Threads   Constant data.
 */
#ifndef KN_TEXT_UNICODE_TABLES_H
#define KN_TEXT_UNICODE_TABLES_H

#include <stdint.h>

typedef struct kn_unicode_triple {
    uint32_t a, b, c;
} kn_unicode_triple;

extern const kn_unicode_triple kn_unicode_decompose[]; /* code point, first, second or 0 */
extern const kn_unicode_triple kn_unicode_compose[];   /* first, second, composed */
extern const kn_unicode_triple kn_unicode_class[];     /* from, to, combining class */
extern const kn_unicode_triple kn_unicode_width[]; /* full or half width form, first, second or 0 */
extern const int kn_unicode_decompose_count, kn_unicode_compose_count, kn_unicode_class_count,
    kn_unicode_width_count;

#endif
