/* text/utf8.h - UTF-8 decoding, and the two notions of white space that prompts meet.
 *
 * Units     bytes; code points are Unicode scalar values (surrogates are invalid, as in Unicode
 *           chapter 3.9 table 3-7).
 * Threads   Pure functions.
 */
#ifndef KN_TEXT_UTF8_H
#define KN_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the code point at s (1 to 4), which goes to *cp; 0 when malformed or size is 0. */
int kn_utf8_decode(const char *s, size_t size, uint32_t *cp);
/* Bytes written to out (1 to 4). cp must be a scalar value. */
int kn_utf8_encode(uint32_t cp, char out[4]);
/* Offset of the first malformed byte; size when there is none. */
size_t kn_utf8_check(const char *s, size_t size);
/* Unicode property White_Space (Rust's char::is_whitespace). */
bool kn_utf8_is_space(uint32_t cp);
/* Python's str.isspace and regular expression \s: White_Space and U+001C..U+001F. */
bool kn_utf8_is_python_space(uint32_t cp);

#endif
