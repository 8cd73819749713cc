/* text/nfc.h - Unicode normalisation form C.
 *
 * Source    Unicode Standard Annex 15; canonical ordering and composition of chapter 3.11; Hangul
 *           of chapter 3.12. Tables: text/unicode_tables.h.
 * Errors    KN_ERR_NOMEM.
 */
#ifndef KN_TEXT_NFC_H
#define KN_TEXT_NFC_H

#include "text/codepoints.h"

/* Append the composed form of `in` to out. */
KN_CHECKED kn_status kn_nfc(kn_codepoints in, kn_codepoints *out);

#endif
