#include "pipeline/batch_table.h"

#include <stdbool.h>

#include <string.h>

#include "io/atomic_file.h"
#include "io/memory.h"
#include "io/text.h"

enum { LIMIT_BYTES = 16 << 20 };

typedef struct cursor {
    const char *path;
    char *at;
    int line;
    char *field[KN_TABLE_COLS_MAX];
    int fields;
} cursor;

/* One field at c->at, made a string in place; c->at moves behind its separator. *last: the row ends. */
static kn_status read_field(cursor *c, bool *last)
{
    char *from = c->at, *to = c->at, *start = c->at;
    int line = c->line;
    if (*from == '"') {
        for (from++;; from++) {
            if (!*from) return kn_fail(KN_ERR_FORMAT, "%s line %d: a quote is not closed", c->path, line);
            if (*from == '\n') c->line++;
            if (*from == '"' && from[1] == '"')
                from++;
            else if (*from == '"')
                break;
            *to++ = *from;
        }
        from++;
        if (*from && !strchr(",\r\n", *from))
            return kn_fail(KN_ERR_FORMAT, "%s line %d: expected a comma after the closing quote, found '%c'", c->path, c->line, *from);
    } else {
        size_t n = strcspn(from, ",\r\n");
        from += n;
        to += n;
    }
    *last = *from != ',';
    char sign = *from;
    if (sign == '\r' && from[1] == '\n') from++;
    c->at = sign ? from + 1 : from;
    if (*last && sign) c->line++;
    *to = '\0';
    if (c->fields == KN_TABLE_COLS_MAX)
        return kn_fail(KN_ERR_FORMAT, "%s line %d: more than %d fields", c->path, line, (int)KN_TABLE_COLS_MAX);
    c->field[c->fields++] = start;
    return KN_OK;
}

static kn_status add_row(kn_batch_table *t, const cursor *c, int line)
{
    if (t->rows == 0) t->cols = c->fields;
    if (c->fields != t->cols)
        return kn_fail(KN_ERR_FORMAT, "%s line %d: expected %d fields, as in the first line, found %d", c->path, line, t->cols, c->fields);
    if (t->rows == KN_TABLE_ROWS_MAX) return kn_fail(KN_ERR_FORMAT, "%s: more than %d rows", c->path, (int)KN_TABLE_ROWS_MAX);
    if ((t->rows & (t->rows - 1)) == 0) { /* grow at powers of two */
        size_t rows = t->rows ? 2 * (size_t)t->rows : 1;
        char **cell;
        int *lines;
        KN_TRY(kn_alloc_array(rows * (size_t)t->cols, sizeof *cell, (void **)&cell));
        memcpy(cell, t->cell ? t->cell : cell, (size_t)(t->rows * t->cols) * sizeof *cell);
        kn_free(t->cell);
        t->cell = cell;
        KN_TRY(kn_alloc_array(rows, sizeof *lines, (void **)&lines));
        memcpy(lines, t->line ? t->line : lines, (size_t)t->rows * sizeof *lines);
        kn_free(t->line);
        t->line = lines;
    }
    for (int i = 0; i < t->cols; i++) t->cell[t->rows * t->cols + i] = c->field[i];
    t->line[t->rows++] = line;
    return KN_OK;
}

kn_status kn_batch_table_read(const char *path, kn_batch_table *out)
{
    size_t size;
    *out = (kn_batch_table){0};
    KN_TRY(kn_file_read(path, LIMIT_BYTES, &out->text, &size));
    cursor c = {.path = path, .at = out->text, .line = 1};
    kn_status st = KN_OK;
    if (strlen(out->text) != size || !kn_text_is_utf8(out->text))
        KN_TRY_GOTO(kn_fail(KN_ERR_FORMAT, "%s: expected UTF-8 text", path));
    if (!strncmp(c.at, "\xef\xbb\xbf", 3)) c.at += 3;
    while (*c.at) {
        bool last = false;
        int line = c.line;
        c.fields = 0;
        while (!last) KN_TRY_GOTO(read_field(&c, &last));
        if (c.fields == 1 && !*c.field[0]) continue; /* a blank line */
        KN_TRY_GOTO(add_row(out, &c, line));
    }
    if (out->rows < 2) KN_TRY_GOTO(kn_fail(KN_ERR_FORMAT, "%s: expected a line of option names and a line per job, found %d lines", path, out->rows));
done:
    if (st != KN_OK) kn_batch_table_free(out);
    return st;
}

void kn_batch_table_free(kn_batch_table *t)
{
    kn_free(t->text);
    kn_free(t->cell);
    kn_free(t->line);
    *t = (kn_batch_table){0};
}
