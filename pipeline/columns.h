/* pipeline/columns.h - text in the columns of a terminal.
 *
 * Purpose   Tables, help and notes break between words, at any width, and stay in one line where a file or a
 *           pipe reads them.
 * Units     columns; a character of Chinese, Japanese or Korean takes two.
 */
#ifndef KN_PIPELINE_COLUMNS_H
#define KN_PIPELINE_COLUMNS_H

#include <stdio.h>

enum { KN_UNCUT = 1 << 14 }; /* of what is no terminal */

/* Columns of the terminal that f is, or KN_UNCUT. */
int kn_columns_of(FILE *f);
/* The text's words from column `at`, where the cursor is, on; what does not fit goes on in lines that start at
 * column `indent`. A word that is too long for such a line stays where it is, whole. Ends with a line end. */
void kn_print_wrapped(FILE *f, const char *text, int at, int indent, int columns);
/* As it is, but for control characters: see kn_text_make_plain. */
void kn_print_plain(FILE *f, const char *text);
/* The same as one word of a shell's command line, in quotes where it needs them. */
void kn_print_word(FILE *f, const char *text);

#endif
