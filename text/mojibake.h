/* text/mojibake.h - undoing text that was UTF-8 and was read as Latin-1 or Windows-1252.
 *
 * Purpose   "cafÃ©" -> "café", "itâ€™s" -> "it’s", "ä¸­æ–‡" -> "中文", also when it happened twice,
 *           and when only a part of the text has it.
 * Method    Characters that Windows-1252 (or Latin-1: U+0080..U+009F) has are seen as its bytes.
 *           Where bytes make well-formed UTF-8 of two to four bytes, that is a candidate. A
 *           candidate is evidence when it begins with Â, Ã or â€ or holds a character that does not
 *           follow a letter in ordinary text (¤, ƒ, ¼, €, a control character ...). If candidates
 *           cover every character past ASCII, one piece of evidence is enough for all of them; else
 *           each run of adjacent candidates needs its own. Repeated until nothing changes.
 * Limits    Other code pages (1250, 1251, 1253, 1254, 1257, Latin-2, MacRoman, 437), bytes that
 *           were lost (U+FFFD, or a no-break space that became a blank), surrogates written as
 *           UTF-8, and confusions of two one-byte code pages are left as they are.
 *           Where damage stands among undamaged text past ASCII, some is repaired that ftfy leaves.
 * Source    Behaviour after ftfy 6.3 fix_encoding, for the code pages above;
 *           tests/golden/text_clean.c.
 * Errors    KN_ERR_NOMEM.
 */
#ifndef KN_TEXT_MOJIBAKE_H
#define KN_TEXT_MOJIBAKE_H

#include "text/codepoints.h"

/* Replace *text by the repaired text. */
KN_CHECKED kn_status kn_mojibake_fix(kn_codepoints *text);

#endif
