/* compute/weights.c - binding a checkpoint's tensors by name; see weights.h. */
#include "compute/weights.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "io/memory.h"

enum { NAME_MAX_CHARS = 256, SHAPE_CHARS = 160 };

kn_status kn_binder_open(kn_dev *d, kn_safetensors *file, kn_binder *out)
{
    *out = (kn_binder){.dev = d, .file = file};
    void *used;
    KN_TRY(kn_alloc_array((size_t)kn_safetensors_count(file), 1, &used));
    out->used = used;
    return KN_OK;
}

void kn_binder_close(kn_binder *b)
{
    if (b->dev) kn_dev_trim(b->dev);
    kn_free(b->used);
    *b = (kn_binder){0};
}

/* "[256, 128]" */
static const char *shape_text(int rank, const int64_t *dims, char buf[SHAPE_CHARS])
{
    int n = snprintf(buf, SHAPE_CHARS, "[");
    for (int i = 0; i < rank; i++)
        n += snprintf(buf + n, (size_t)(SHAPE_CHARS - n), "%s%" PRId64, i ? ", " : "", dims[i]);
    snprintf(buf + n, (size_t)(SHAPE_CHARS - n), "]");
    return buf;
}

/* ---- a missing name -------------------------------------------------------------------------- */

/* Fewest single-character edits from a to b (Levenshtein), counted row by row. */
static int edit_distance(const char *a, const char *b)
{
    int row[NAME_MAX_CHARS + 1];
    size_t nb = strlen(b);
    if (nb > NAME_MAX_CHARS) nb = NAME_MAX_CHARS;
    for (size_t j = 0; j <= nb; j++) row[j] = (int)j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}

/* Nearest name among the tensors that nothing has asked for yet, or NULL. */
static const char *nearest_name(const kn_binder *b, const char *name)
{
    const char *best = NULL;
    int least = NAME_MAX_CHARS;
    for (int i = 0; i < kn_safetensors_count(b->file); i++) {
        if (b->used[i]) continue;
        const char *other = kn_safetensors_at(b->file, i)->name;
        int edits = edit_distance(name, other);
        if (edits < least) {
            least = edits;
            best = other;
        }
    }
    return best;
}

/* ---- binding --------------------------------------------------------------------------------- */

static kn_status stored_dtype(const kn_binder *b, const kn_st_tensor *t, kn_dtype *out)
{
    switch (t->dtype) {
    case KN_ST_F32: *out = KN_F32; return KN_OK;
    case KN_ST_BF16: *out = KN_BF16; return KN_OK;
    case KN_ST_F16: *out = KN_F16; return KN_OK;
    default:
        return kn_fail(KN_ERR_MODEL, "%s: tensor %s: dtype F32, BF16 or F16 expected, found %s",
                       kn_safetensors_path(b->file), t->name, t->dtype_name);
    }
}

static kn_status check_shape(const kn_binder *b, const kn_st_tensor *t, int rank,
                             const int64_t *dims)
{
    if (rank == 0) return KN_OK;
    bool same = t->rank == rank;
    for (int i = 0; same && i < rank; i++) same = t->dim[i] == dims[i];
    if (same) return KN_OK;
    char want[SHAPE_CHARS], found[SHAPE_CHARS];
    return kn_fail(KN_ERR_MODEL, "%s: tensor %s: expected shape %s, found %s",
                   kn_safetensors_path(b->file), t->name, shape_text(rank, dims, want),
                   shape_text(t->rank, t->dim, found));
}

/* Opens a tensor of the file; data that is not aligned for its dtype is copied first. */
static kn_status open_stored(kn_binder *b, const kn_st_tensor *t, kn_dtype dtype,
                             kn_weight_kind kind, kn_weight *w)
{
    void *aligned = NULL;
    int64_t scalar = 1; /* rank 0 in the file: one value */
    kn_tensor host = kn_tensor_make((void *)(uintptr_t)t->data, dtype, t->rank ? t->rank : 1,
                                    t->rank ? t->dim : &scalar);
    if ((uintptr_t)t->data % kn_dtype_size(dtype)) {
        KN_TRY(kn_alloc(t->bytes, &aligned));
        memcpy(aligned, t->data, t->bytes);
        host.data = aligned;
    }
    kn_status st = kn_weight_open(b->dev, kind, &host, w);
    kn_free(aligned);
    if (st == KN_OK) b->bytes += w->bytes;
    return st ? KN_CTX(st, "%s: tensor %s", kn_safetensors_path(b->file), t->name) : KN_OK;
}

kn_status kn_bind(kn_binder *b, kn_weight *w, kn_weight_kind kind, int rank, const int64_t *dims,
                  const char *format, ...)
{
    *w = (kn_weight){0};
    char name[NAME_MAX_CHARS];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(name, sizeof name, format, args);
    va_end(args);
    if (n < 0 || n >= NAME_MAX_CHARS)
        return kn_fail(KN_ERR_INTERNAL, "weight name %s... is too long", name);
    int index;
    const kn_st_tensor *t = kn_safetensors_find(b->file, name, &index);
    if (t == NULL) {
        const char *near = nearest_name(b, name);
        return kn_fail(KN_ERR_MODEL, "%s: tensor %s is missing%s%s", kn_safetensors_path(b->file),
                       name, near ? "; the nearest name in the file is " : "", near ? near : "");
    }
    kn_dtype dtype = KN_F32;
    KN_TRY(stored_dtype(b, t, &dtype));
    KN_TRY(check_shape(b, t, rank, dims));
    KN_TRY(open_stored(b, t, dtype, kind, w));
    b->used[index] = 1;
    return KN_OK;
}

kn_status kn_binder_finish(kn_binder *b)
{
    enum { NAMED = 3 };
    char names[NAMED * (NAME_MAX_CHARS + 2)] = "";
    int extra = 0;
    for (int i = 0; i < kn_safetensors_count(b->file); i++) {
        if (b->used[i]) continue;
        size_t n = strlen(names);
        if (extra < NAMED)
            snprintf(names + n, sizeof names - n, "%s%.*s", extra ? ", " : "", NAME_MAX_CHARS,
                     kn_safetensors_at(b->file, i)->name);
        extra++;
    }
    if (extra == 0) return KN_OK;
    return kn_fail(KN_ERR_MODEL, "%s: %d tensor%s that this network does not have: %s%s",
                   kn_safetensors_path(b->file), extra, extra == 1 ? "" : "s", names,
                   extra > NAMED ? ", ..." : "");
}
