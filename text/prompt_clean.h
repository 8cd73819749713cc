/* text/prompt_clean.h - the cleaning that Wan pipelines give a prompt before the tokenizer.
 *
 * Purpose   The same bytes as diffusers' prompt_clean: ftfy.fix_text, html.unescape twice, every
 *           run of white space to one blank, none at the ends.
 * Covered   Of ftfy 6.3 (default options), line by line, until nothing changes:
 *             character references with a semicolon (until a line holds "<")
 *             UTF-8 read as Latin-1 or Windows-1252 (what and what not: text/mojibake.h)
 *             U+0080..U+009F as Windows-1252
 *             Latin ligatures (fi, ffl, IJ, dz ...), full and half width forms, U+3000
 *             curly quotes to straight ones
 *             line ends (CR LF, CR, U+2028, U+2029, U+0085)
 *             terminal colour sequences, control characters, U+FEFF, U+FFF9..U+FFFC
 *             normalisation form C
 *           Of html.unescape: all of it. White space: Python's \s.
 * Left      what text/mojibake.h lists: damage that prompts typed today do not have.
 * Cost      Linear in the text.
 * Errors    KN_ERR_ARG for a text that is not UTF-8 (names the byte) or longer than 64 KiB;
 *           KN_ERR_NOMEM.
 * Threads   Pure functions.
 * Source    diffusers pipelines/wan/pipeline_wan.py prompt_clean; ftfy 6.3; Python html.unescape.
 */
#ifndef KN_TEXT_PROMPT_CLEAN_H
#define KN_TEXT_PROMPT_CLEAN_H

#include "io/status.h"

/* *out: new string, to be freed with kn_free; NULL on failure. */
KN_CHECKED kn_status kn_prompt_clean(const char *text, char **out);

#endif
