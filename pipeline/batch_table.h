/* pipeline/batch_table.h - a table of text from a CSV file.
 *
 * Format    RFC 4180: fields with commas between, fields in double quotes may hold commas, line breaks and
 *           doubled quotes. LF or CRLF; a byte-order mark is skipped; blank lines are skipped. Every row
 *           has as many fields as the first.
 * Errors    KN_ERR_IO, KN_ERR_FORMAT "file line N: ...".
 */
#ifndef KN_PIPELINE_BATCH_TABLE_H
#define KN_PIPELINE_BATCH_TABLE_H

#include "io/status.h"

enum { KN_TABLE_COLS_MAX = 128, KN_TABLE_ROWS_MAX = 1 << 16 };

typedef struct kn_batch_table {
    char *text;  /* the file; the cells point into it */
    char **cell; /* [rows, cols]; row 0 is the heading */
    int *line;   /* of each row, from 1 */
    int rows, cols;
} kn_batch_table;

KN_CHECKED kn_status kn_batch_table_read(const char *path, kn_batch_table *out);
void kn_batch_table_free(kn_batch_table *t);

#endif
