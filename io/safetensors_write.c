#include <stdlib.h>
#include <string.h>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/memory.h"
#include "io/safetensors.h"

typedef struct item {
    const kn_st_tensor *t;
    const kn_st_format *format;
} item;

typedef struct pair {
    const char *key, *value;
} pair;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const item *)a)->t->name, ((const item *)b)->t->name);
}

/* Largest element first, so that each tensor starts at a multiple of its element size. */
static int by_size_then_name(const void *a, const void *b)
{
    const item *x = a, *y = b;
    if (x->format->bits != y->format->bits) return x->format->bits > y->format->bits ? -1 : 1;
    return by_name(a, b);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const pair *)a)->key, ((const pair *)b)->key);
}

static kn_status check_item(const char *path, const kn_st_tensor *t, item *out)
{
    size_t bytes = 0;
    if (!t->name || !*t->name || strcmp(t->name, "__metadata__") == 0 || !kn_text_is_utf8(t->name))
        return kn_fail(KN_ERR_ARG,
                       "%s: a tensor to write: expected a name in UTF-8, found '%.200s'", path,
                       t->name ? t->name : "");
    const char *dtype = t->dtype == KN_ST_OTHER ? t->dtype_name : kn_st_dtype_name(t->dtype);
    const kn_st_format *f = kn_st_format_find(dtype ? dtype : "");
    if (!f)
        return kn_fail(KN_ERR_ARG, "%s: tensor '%.200s': expected a safetensors dtype, found '%s'",
                       path, t->name, dtype ? dtype : "");
    if (t->rank < 0 || t->rank > KN_ST_MAX_RANK)
        return kn_fail(KN_ERR_ARG, "%s: tensor '%.200s': expected 0 to %d dims, found %d", path,
                       t->name, KN_ST_MAX_RANK, t->rank);
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] < 0)
            return kn_fail(KN_ERR_ARG,
                           "%s: tensor '%.200s': dim %d: expected 0 or more, found %lld", path,
                           t->name, i, (long long)t->dim[i]);
    if (!kn_st_format_bytes(f, t->rank, t->dim, &bytes) || bytes != t->bytes)
        return kn_fail(
            KN_ERR_ARG,
            "%s: tensor '%.200s': expected %zu bytes for its shape and dtype %s, found %zu", path,
            t->name, bytes, f->name, t->bytes);
    if (bytes && !t->data)
        return kn_fail(KN_ERR_ARG, "%s: tensor '%.200s': expected data, found none", path, t->name);
    *out = (item){t, f};
    return KN_OK;
}

static kn_status sort_items(const char *path, const kn_st_tensor *tensors, int count, item *items)
{
    for (int i = 0; i < count; i++) KN_TRY(check_item(path, &tensors[i], &items[i]));
    if (count) qsort(items, (size_t)count, sizeof *items, by_name);
    for (int i = 1; i < count; i++)
        if (strcmp(items[i - 1].t->name, items[i].t->name) == 0)
            return kn_fail(KN_ERR_ARG, "%s: tensor '%.200s': expected once, found twice", path,
                           items[i].t->name);
    if (count) qsort(items, (size_t)count, sizeof *items, by_size_then_name);
    return KN_OK;
}

static kn_status add_metadata(const char *path, kn_text *header, const char *const *metadata)
{
    kn_status st = KN_OK;
    void *p = NULL;
    size_t count = 0;
    while (metadata[2 * count]) count++;
    KN_TRY_GOTO(kn_alloc_array(count, sizeof(pair), &p));
    pair *pairs = p;
    for (size_t i = 0; i < count; i++) {
        pairs[i] = (pair){metadata[2 * i], metadata[2 * i + 1]};
        if (!pairs[i].value || !kn_text_is_utf8(pairs[i].key) || !kn_text_is_utf8(pairs[i].value)) {
            st = kn_fail(KN_ERR_ARG, "%s: metadata '%.200s': expected a key and a value in UTF-8",
                         path, pairs[i].key);
            goto done;
        }
    }
    if (count) qsort(pairs, count, sizeof *pairs, by_key);
    KN_TRY_GOTO(kn_text_add(header, "\"__metadata__\":{"));
    for (size_t i = 0; i < count; i++) {
        if (i && strcmp(pairs[i - 1].key, pairs[i].key) == 0) {
            st = kn_fail(KN_ERR_ARG, "%s: metadata '%.200s': expected once, found twice", path,
                         pairs[i].key);
            goto done;
        }
        if (i) KN_TRY_GOTO(kn_text_add(header, ","));
        KN_TRY_GOTO(kn_json_add_string(header, pairs[i].key));
        KN_TRY_GOTO(kn_text_add(header, ":"));
        KN_TRY_GOTO(kn_json_add_string(header, pairs[i].value));
    }
    KN_TRY_GOTO(kn_text_add(header, "}"));
done:
    kn_free(p);
    return st;
}

static kn_status build_header(const char *path, const item *items, int count,
                              const char *const *metadata, kn_text *header)
{
    size_t at = 0;
    KN_TRY(kn_text_add(header, "{"));
    if (metadata) KN_TRY(add_metadata(path, header, metadata));
    for (int i = 0; i < count; i++) {
        const kn_st_tensor *t = items[i].t;
        if (i || metadata) KN_TRY(kn_text_add(header, ","));
        KN_TRY(kn_json_add_string(header, t->name));
        KN_TRY(kn_text_addf(header, ":{\"dtype\":\"%s\",\"shape\":[", items[i].format->name));
        for (int d = 0; d < t->rank; d++)
            KN_TRY(kn_text_addf(header, "%s%lld", d ? "," : "", (long long)t->dim[d]));
        KN_TRY(kn_text_addf(header, "],\"data_offsets\":[%zu,%zu]}", at, at + t->bytes));
        at += t->bytes;
    }
    KN_TRY(kn_text_add(header, "}"));
    /* Blanks up to a multiple of 8, so that the data is aligned in a mapped file. */
    while (header->size % 8) KN_TRY(kn_text_add(header, " "));
    return KN_OK;
}

kn_status kn_safetensors_write(const char *path, const kn_st_tensor *tensors, int count,
                               const char *const *metadata)
{
    kn_status st;
    void *items = NULL;
    kn_text header = {0};
    kn_atomic_file *f = NULL;
    if (count < 0)
        return kn_fail(KN_ERR_ARG, "%s: expected 0 or more tensors, found %d", path, count);
    KN_TRY_GOTO(kn_alloc_array((size_t)count, sizeof(item), &items));
    KN_TRY_GOTO(sort_items(path, tensors, count, items));
    KN_TRY_GOTO(build_header(path, items, count, metadata, &header));
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.size >> (8 * i));
    KN_TRY_GOTO(kn_atomic_open(path, &f));
    KN_TRY_GOTO(kn_atomic_write(f, length, sizeof length));
    KN_TRY_GOTO(kn_atomic_write(f, header.data, header.size));
    for (int i = 0; i < count; i++) {
        const kn_st_tensor *t = ((item *)items)[i].t;
        if (t->bytes) KN_TRY_GOTO(kn_atomic_write(f, t->data, t->bytes));
    }
    KN_TRY_GOTO(kn_atomic_commit(&f));
done:
    kn_atomic_discard(&f);
    kn_free(header.data);
    kn_free(items);
    return st;
}
