/* io/json.h - strict JSON in, deterministic JSON out, over jansson.
 *
 * Purpose   One place for the rules that hold for every JSON text Kinora reads: UTF-8, no duplicate
 *           keys, no NUL in strings, nothing after the value, bounded depth and bounded number of
 *           values (a text of brackets would otherwise cost about 60 times its own size in memory).
 *           And for every JSON file it writes: keys in the order they were set, two blanks of
 *           indentation, doubles in the shortest form that reads back unchanged, UTF-8 as it is.
 * Use       Model configs and option files are read through io/config.h, which stands on this.
 * Errors    KN_ERR_FORMAT: "NAME: line L, column C: what"; KN_ERR_NOMEM.
 */
#ifndef KN_IO_JSON_H
#define KN_IO_JSON_H

#include <jansson.h>

#include "io/text.h"

enum { KN_JSON_MAX_DEPTH = 64 };

/* name: stands in messages. max_values: upper bound on scalars, arrays and objects together.
 * Free *out with json_decref. */
KN_CHECKED kn_status kn_json_parse(const char *name, const char *data, size_t size,
                                   size_t max_values, json_t **out);
/* "string", "integer", "true", ... for messages. */
const char *kn_json_kind(const json_t *value);
/* A string value; NULL: no memory. File names may hold any bytes, JSON only UTF-8: where a text is not, its bytes from
 * 0x80 on stand as question marks. */
json_t *kn_json_text(const char *text);
/* Append `text` (UTF-8) as a quoted JSON string. */
KN_CHECKED kn_status kn_json_add_string(kn_text *t, const char *text);
/* Append the value, without a final newline. NaN and infinity become null. */
KN_CHECKED kn_status kn_json_add_value(kn_text *t, const json_t *value);
/* Write the value and a newline to path, through io/atomic_file.h. */
KN_CHECKED kn_status kn_json_write(const char *path, const json_t *value);

#endif
