#include "io/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/folder.h"
#include "io/json.h"
#include "io/memory.h"

#define SUFFIX       ".safetensors"
#define INDEX_SUFFIX ".safetensors.index.json"

enum {
    MAX_HEADER_BYTES =
        100 << 20, /* the reference's limit: safetensors/src/tensor.rs MAX_HEADER_SIZE */
    MAX_INDEX_BYTES = 64 << 20,
    MAX_VALUES = 1 << 20 /* about 100,000 tensors; the largest models have a few thousand */
};

/* One file. Tensor names and metadata point into its header, which lives as long. */
typedef struct part {
    char *path;
    const unsigned char *map;
    bool borrowed;  /* the bytes are the caller's, not a mapping */
    size_t bytes;   /* of the whole file */
    size_t data_at; /* where the data begins: 8 + header length */
    json_t *header; /* {name: {dtype, shape, data_offsets}, "__metadata__": {...}} */
} part;

typedef struct entry {
    kn_st_tensor t;
    int part;
    size_t begin, end; /* within the part's data */
} entry;

struct kn_safetensors {
    part *parts;
    int part_count;
    entry *entries; /* sorted by name */
    int count;
};

/* safetensors/src/tensor.rs, enum Dtype and its bitsize(). */
static const kn_st_format formats[] = {
    {"F32", KN_ST_F32, 32},      {"F16", KN_ST_F16, 16},          {"BF16", KN_ST_BF16, 16},
    {"F64", KN_ST_F64, 64},      {"I32", KN_ST_I32, 32},          {"I64", KN_ST_I64, 64},
    {"U8", KN_ST_U8, 8},         {"BOOL", KN_ST_OTHER, 8},        {"I8", KN_ST_OTHER, 8},
    {"I16", KN_ST_OTHER, 16},    {"U16", KN_ST_OTHER, 16},        {"U32", KN_ST_OTHER, 32},
    {"U64", KN_ST_OTHER, 64},    {"C64", KN_ST_OTHER, 64},        {"F8_E4M3", KN_ST_OTHER, 8},
    {"F8_E5M2", KN_ST_OTHER, 8}, {"F8_E8M0", KN_ST_OTHER, 8},     {"F8_E4M3FNUZ", KN_ST_OTHER, 8},
    {"F4", KN_ST_OTHER, 4},      {"F8_E5M2FNUZ", KN_ST_OTHER, 8}, {"F6_E2M3", KN_ST_OTHER, 6},
    {"F6_E3M2", KN_ST_OTHER, 6},
};

const kn_st_format *kn_st_format_find(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    return NULL;
}

static const kn_st_format *format_of(kn_st_dtype t)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (t != KN_ST_OTHER && formats[i].dtype == t) return &formats[i];
    return NULL;
}

const char *kn_st_dtype_name(kn_st_dtype t)
{
    const kn_st_format *f = format_of(t);
    return f ? f->name : "other";
}

size_t kn_st_dtype_size(kn_st_dtype t)
{
    const kn_st_format *f = format_of(t);
    return f ? (size_t)f->bits / 8 : 0;
}

int kn_st_format_bytes(const kn_st_format *f, int rank, const int64_t *dim, size_t *bytes)
{
    /* A dim of 0 counts as 1 here, so that strides of an empty tensor cannot overflow either. */
    size_t padded = 1, elements = 1, bits;
    for (int i = 0; i < rank; i++) {
        size_t d = (size_t)dim[i];
        if (!kn_mul_size(padded, d ? d : 1, &padded) || padded > INT64_MAX) return 0;
        elements *= d; /* <= padded */
    }
    if (!kn_mul_size(padded, (size_t)f->bits, &bits)) return 0;
    bits = elements * (size_t)f->bits;
    if (bits % 8) return 0;
    *bytes = bits / 8;
    return 1;
}

/* ---- one tensor of the header ---------------------------------------------------------------- */

static kn_status read_shape(const part *p, const char *name, const json_t *shape, kn_st_tensor *t)
{
    if (!json_is_array(shape))
        return kn_fail(KN_ERR_FORMAT, "%s: tensor '%.200s': shape: expected an array, found %s",
                       p->path, name, kn_json_kind(shape));
    if (json_array_size(shape) > KN_ST_MAX_RANK)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: tensor '%.200s': shape: expected at most %d dims, found %zu", p->path,
                       name, KN_ST_MAX_RANK, json_array_size(shape));
    t->rank = (int)json_array_size(shape);
    for (int i = 0; i < t->rank; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim))
            return kn_fail(KN_ERR_FORMAT,
                           "%s: tensor '%.200s': shape[%d]: expected an integer, found %s", p->path,
                           name, i, kn_json_kind(dim));
        t->dim[i] = json_integer_value(dim);
        if (t->dim[i] < 0)
            return kn_fail(KN_ERR_FORMAT,
                           "%s: tensor '%.200s': shape[%d]: expected 0 or more, found %lld",
                           p->path, name, i, (long long)t->dim[i]);
    }
    return KN_OK;
}

static kn_status read_offsets(const part *p, const char *name, const json_t *offsets, entry *e)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(begin) ||
        !json_is_integer(end))
        return kn_fail(
            KN_ERR_FORMAT,
            "%s: tensor '%.200s': data_offsets: expected an array of 2 integers, found %s "
            "of %zu",
            p->path, name, kn_json_kind(offsets), json_array_size(offsets));
    long long b = json_integer_value(begin), n = json_integer_value(end);
    if (b < 0 || n < b)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: tensor '%.200s': data_offsets: expected 0 <= begin <= end, found "
                       "[%lld, %lld]",
                       p->path, name, b, n);
    e->begin = (size_t)b;
    e->end = (size_t)n;
    if (e->end > p->bytes - p->data_at)
        return kn_fail(
            KN_ERR_FORMAT,
            "%s: tensor '%.200s' ends outside the file (truncated?): expected at least %zu "
            "bytes, found %zu",
            p->path, name, p->data_at + e->end, p->bytes);
    return KN_OK;
}

static kn_status read_tensor(const part *p, const char *name, const json_t *value, entry *e)
{
    if (!json_is_object(value))
        return kn_fail(KN_ERR_FORMAT, "%s: tensor '%.200s': expected an object, found %s", p->path,
                       name, kn_json_kind(value));
    const json_t *dtype = json_object_get(value, "dtype");
    if (!json_is_string(dtype))
        return kn_fail(KN_ERR_FORMAT, "%s: tensor '%.200s': dtype: expected a string, found %s",
                       p->path, name, kn_json_kind(dtype));
    const kn_st_format *f = kn_st_format_find(json_string_value(dtype));
    if (!f)
        return kn_fail(
            KN_ERR_FORMAT,
            "%s: tensor '%.200s': dtype: expected a safetensors dtype such as BF16, found "
            "'%.40s'",
            p->path, name, json_string_value(dtype));
    e->t.name = name;
    e->t.dtype = f->dtype;
    e->t.dtype_name = f->name;
    KN_TRY(read_shape(p, name, json_object_get(value, "shape"), &e->t));
    KN_TRY(read_offsets(p, name, json_object_get(value, "data_offsets"), e));
    if (!kn_st_format_bytes(f, e->t.rank, e->t.dim, &e->t.bytes))
        return kn_fail(
            KN_ERR_FORMAT,
            "%s: tensor '%.200s': shape: expected a whole number of bytes below 2^60, found "
            "a shape of %s that is not",
            p->path, name, f->name);
    if (e->t.bytes != e->end - e->begin)
        return kn_fail(
            KN_ERR_FORMAT,
            "%s: tensor '%.200s': expected %zu bytes for its shape and dtype %s, found %zu",
            p->path, name, e->t.bytes, f->name, e->end - e->begin);
    e->t.data = p->map + p->data_at + e->begin;
    return KN_OK;
}

/* ---- one file -------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* The format wants the data covered without gap or rest: bytes that no tensor owns would be a place
 * to hide things, and are the sign of a damaged file. entries: those of p. */
static kn_status check_cover(const part *p, entry *entries, int count)
{
    size_t at = 0;
    const char *last = "";
    if (count) qsort(entries, (size_t)count, sizeof *entries, by_offset);
    for (int i = 0; i < count; i++) {
        const entry *e = &entries[i];
        if (e->begin < at)
            return kn_fail(
                KN_ERR_FORMAT,
                "%s: tensor '%.200s' overlaps tensor '%.200s': expected it to begin at byte "
                "%zu of the data, found %zu",
                p->path, e->t.name, last, at, e->begin);
        if (e->begin > at)
            return kn_fail(
                KN_ERR_FORMAT,
                "%s: tensor '%.200s': gap before it: expected it to begin at byte %zu of "
                "the data, found %zu",
                p->path, e->t.name, at, e->begin);
        at = e->end;
        last = e->t.name;
    }
    if (at != p->bytes - p->data_at)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: bytes after the last tensor: expected %zu bytes, found %zu", p->path,
                       p->data_at + at, p->bytes);
    return KN_OK;
}

static kn_status check_metadata(const part *p, const json_t *metadata)
{
    if (!json_is_object(metadata))
        return kn_fail(KN_ERR_FORMAT, "%s: __metadata__: expected an object, found %s", p->path,
                       kn_json_kind(metadata));
    json_t *o = (json_t *)metadata; /* jansson's iterators do not change it */
    for (void *it = json_object_iter(o); it; it = json_object_iter_next(o, it)) {
        const json_t *value = json_object_iter_value(it);
        if (!json_is_string(value))
            return kn_fail(KN_ERR_FORMAT,
                           "%s: __metadata__: key '%.200s': expected a string, found %s", p->path,
                           json_object_iter_key(it), kn_json_kind(value));
    }
    return KN_OK;
}

/* Tensors of p's header into entries, which has room for them all. */
static kn_status read_tensors(const part *p, int part_index, entry *entries, int *count)
{
    int n = 0;
    for (void *it = json_object_iter(p->header); it; it = json_object_iter_next(p->header, it)) {
        const char *name = json_object_iter_key(it);
        const json_t *value = json_object_iter_value(it);
        if (strcmp(name, "__metadata__") == 0) {
            KN_TRY(check_metadata(p, value));
            continue;
        }
        entries[n].part = part_index;
        KN_TRY(read_tensor(p, name, value, &entries[n]));
        n++;
    }
    *count = n;
    return check_cover(p, entries, n);
}

static kn_status map_file(part *p)
{
    kn_status st = KN_OK;
    /* O_NONBLOCK: opening a pipe must not wait for a writer before it can be refused. */
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return kn_fail(KN_ERR_IO, "cannot open %s: %s", p->path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0) {
        st = kn_fail(KN_ERR_IO, "cannot read %s: %s", p->path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        st = kn_fail(KN_ERR_IO, "cannot read %s: expected a regular file", p->path);
    } else if (info.st_size > 0) { /* an empty file cannot be mapped; open_header refuses it */
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            st = kn_fail(KN_ERR_IO, "cannot map %s (%lld bytes): %s", p->path,
                         (long long)info.st_size, strerror(errno));
        } else {
            p->map = map;
            p->bytes = (size_t)info.st_size;
        }
    }
    close(fd);
    return st;
}

static kn_status open_header(part *p)
{
    static const char lfs[] = "version https://git-lfs";
    if (p->bytes < 8)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: expected a safetensors file of at least 8 bytes, found %zu", p->path,
                       p->bytes);
    if (p->bytes >= sizeof lfs && memcmp(p->map, lfs, sizeof lfs - 1) == 0)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: expected a safetensors file, found a Git LFS pointer of %zu bytes: the "
                       "weights were not downloaded",
                       p->path, p->bytes);
    uint64_t header_bytes = 0;
    for (int i = 0; i < 8; i++) header_bytes |= (uint64_t)p->map[i] << (8 * i);
    if (header_bytes < 2 || header_bytes > MAX_HEADER_BYTES)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: expected a safetensors header of 2 to %d bytes, found a length of %llu",
                       p->path, MAX_HEADER_BYTES, (unsigned long long)header_bytes);
    if (header_bytes > p->bytes - 8)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: the header ends outside the file (truncated?): expected at least %llu "
                       "bytes, found %zu",
                       p->path, (unsigned long long)header_bytes + 8, p->bytes);
    p->data_at = 8 + (size_t)header_bytes;
    if (p->map[8] != '{')
        return kn_fail(KN_ERR_FORMAT,
                       "%s: expected the header to begin with '{', found byte 0x%02x", p->path,
                       p->map[8]);
    KN_TRY(kn_json_parse(p->path, (const char *)p->map + 8, (size_t)header_bytes, MAX_VALUES,
                         &p->header));
    return KN_OK;
}

/* Appends the tensors of part p, the last one of s, whose bytes are there. */
static kn_status read_part(kn_safetensors *s, part *p)
{
    kn_status st;
    void *grown = NULL;
    KN_TRY(open_header(p));
    size_t room = (size_t)s->count + json_object_size(p->header);
    KN_TRY(kn_alloc_array(room, sizeof(entry), &grown));
    if (s->count) memcpy(grown, s->entries, (size_t)s->count * sizeof(entry));
    kn_free(s->entries);
    s->entries = grown;
    int added = 0;
    st = read_tensors(p, s->part_count - 1, s->entries + s->count, &added);
    if (st == KN_OK) s->count += added;
    return st;
}

/* Opens file `path` as the next part and appends its tensors. Takes a copy of path. */
static kn_status add_part(kn_safetensors *s, const char *path)
{
    part *p = &s->parts[s->part_count];
    KN_TRY(kn_strdup(path, &p->path));
    s->part_count++;
    KN_TRY(map_file(p));
    return read_part(s, p);
}

/* ---- shards ---------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->t.name, ((const entry *)b)->t.name);
}

static kn_status sort_names(kn_safetensors *s)
{
    if (s->count) qsort(s->entries, (size_t)s->count, sizeof(entry), by_name);
    /* Within a file the JSON reader refused duplicates; this finds them across shards. */
    for (int i = 1; i < s->count; i++) {
        const entry *a = &s->entries[i - 1], *b = &s->entries[i];
        if (strcmp(a->t.name, b->t.name) == 0)
            return kn_fail(KN_ERR_FORMAT, "%s: tensor '%.200s' is also in %s: expected it once",
                           s->parts[b->part].path, b->t.name, s->parts[a->part].path);
    }
    return KN_OK;
}

static int ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n > m && strcmp(text + n - m, suffix) == 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of weight_map, sorted; each checked to be a plain name. */
static kn_status list_shards(const char *index, json_t *weight_map, const char **names, int *count)
{
    int n = 0;
    for (void *it = json_object_iter(weight_map); it; it = json_object_iter_next(weight_map, it)) {
        const char *tensor = json_object_iter_key(it);
        const char *file = json_string_value(json_object_iter_value(it));
        if (!file)
            return kn_fail(KN_ERR_FORMAT,
                           "%s: weight_map: tensor '%.200s': expected a file name, found %s", index,
                           tensor, kn_json_kind(json_object_iter_value(it)));
        /* A downloaded index must not make us open files elsewhere. */
        if (strchr(file, '/') || strchr(file, '\\') || strstr(file, "..") ||
            !ends_with(file, SUFFIX))
            return kn_fail(KN_ERR_FORMAT,
                           "%s: weight_map: tensor '%.200s': expected the name of a " SUFFIX
                           " file in the same folder, found '%.200s'",
                           index, tensor, file);
        names[n++] = file;
    }
    if (!n) return kn_fail(KN_ERR_FORMAT, "%s: weight_map: expected tensors, found none", index);
    qsort(names, (size_t)n, sizeof *names, by_text);
    *count = 1;
    for (int i = 1; i < n; i++)
        if (strcmp(names[i], names[*count - 1]) != 0) names[(*count)++] = names[i];
    return KN_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static kn_status check_weight_map(const kn_safetensors *s, const char *index, json_t *weight_map)
{
    for (void *it = json_object_iter(weight_map); it; it = json_object_iter_next(weight_map, it)) {
        const char *name = json_object_iter_key(it);
        const char *file = json_string_value(json_object_iter_value(it));
        int i = 0;
        if (!kn_safetensors_find(s, name, &i))
            return kn_fail(KN_ERR_FORMAT, "%s: tensor '%.200s': expected in %s, found in no shard",
                           index, name, file);
        const char *found = base_name(s->parts[s->entries[i].part].path);
        if (strcmp(found, file) != 0)
            return kn_fail(KN_ERR_FORMAT, "%s: tensor '%.200s': expected in %s, found in %s", index,
                           name, file, found);
    }
    return KN_OK;
}

static kn_status open_index(kn_safetensors *s, const char *index)
{
    kn_status st;
    char *text = NULL, *path = NULL;
    void *names = NULL, *parts = NULL;
    size_t size;
    json_t *root = NULL;
    KN_TRY_GOTO(kn_file_read(index, MAX_INDEX_BYTES, &text, &size));
    KN_TRY_GOTO(kn_json_parse(index, text, size, MAX_VALUES, &root));
    json_t *weight_map = json_object_get(root, "weight_map");
    if (!json_is_object(weight_map)) {
        st = kn_fail(KN_ERR_FORMAT, "%s: weight_map: expected an object, found %s", index,
                     kn_json_kind(weight_map));
        goto done;
    }
    int count = 0;
    KN_TRY_GOTO(kn_alloc_array(json_object_size(weight_map), sizeof(char *), &names));
    KN_TRY_GOTO(list_shards(index, weight_map, names, &count));
    KN_TRY_GOTO(kn_alloc_array((size_t)count, sizeof(part), &parts));
    s->parts = parts;
    for (int i = 0; i < count; i++) {
        kn_free(path);
        KN_TRY_GOTO(kn_asprintf(&path, "%.*s%s", (int)(base_name(index) - index), index,
                                ((const char **)names)[i]));
        st = add_part(s, path);
        if (st == KN_ERR_IO) st = KN_CTX(st, "%s names a shard", index);
        if (st != KN_OK) goto done;
    }
    KN_TRY_GOTO(sort_names(s));
    KN_TRY_GOTO(check_weight_map(s, index, weight_map));
done:
    json_decref(root);
    kn_free(names);
    kn_free(path);
    kn_free(text);
    return st;
}

/* ---- finding the file ------------------------------------------------------------------------ */

static int is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* "model-00001-of-00003.safetensors" */
static int is_shard(const char *name)
{
    size_t n = strlen(name) - strlen(SUFFIX), digits = 0;
    while (n && strchr("0123456789", name[n - 1])) {
        n--;
        digits++;
    }
    return digits && n > 4 && strncmp(name + n - 4, "-of-", 4) == 0;
}

/* The one weights file of a folder. */
static kn_status find_only(const char *folder, char **found)
{
    kn_status st = KN_OK;
    kn_text seen = {0};
    int count = 0, shards = 0;
    DIR *dir = opendir(folder);
    if (!dir) return kn_fail(KN_ERR_IO, "cannot read the folder %s: %s", folder, strerror(errno));
    for (;;) {
        const char *name;
        KN_TRY_GOTO(kn_folder_next(dir, folder, &name));
        if (!name) break;
        int index = ends_with(name, INDEX_SUFFIX);
        if (!index && !ends_with(name, SUFFIX)) continue;
        if (!index && is_shard(name)) {
            shards++;
            continue;
        }
        if (!count) KN_TRY_GOTO(kn_asprintf(found, "%s/%s", folder, name));
        if (count < 8) KN_TRY_GOTO(kn_text_addf(&seen, "%s%s", count ? ", " : "", name));
        count++;
    }
    if (count > 1)
        st = kn_fail(KN_ERR_IO, "%s: expected one " SUFFIX " file or index, found %d: %s", folder,
                     count, seen.data);
    else if (!count && shards)
        st = kn_fail(KN_ERR_IO,
                     "%s: expected an index (*" INDEX_SUFFIX ") for %d shards, found none", folder,
                     shards);
    else if (!count)
        st = kn_fail(KN_ERR_IO, "%s: expected a " SUFFIX " file or index, found none", folder);
done:
    closedir(dir);
    kn_free(seen.data);
    return st;
}

/* *found: the file or index to open, which the caller frees (also on failure). */
static kn_status find_file(const char *path, const char *stem, char **found)
{
    struct stat info;
    *found = NULL;
    if (stat(path, &info) != 0)
        return kn_fail(KN_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode)) return kn_strdup(path, found);
    if (!stem) return find_only(path, found);
    KN_TRY(kn_asprintf(found, "%s/%s" SUFFIX, path, stem));
    if (is_file(*found)) return KN_OK;
    kn_free(*found);
    KN_TRY(kn_asprintf(found, "%s/%s" INDEX_SUFFIX, path, stem));
    if (is_file(*found)) return KN_OK;
    return kn_fail(KN_ERR_IO, "%s: expected %s" SUFFIX " or %s" INDEX_SUFFIX ", found neither",
                   path, stem, stem);
}

kn_status kn_safetensors_open(const char *path, const char *stem, kn_safetensors **out)
{
    kn_status st;
    void *p = NULL, *parts = NULL;
    char *found = NULL;
    kn_safetensors *s = NULL;
    *out = NULL;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *s, &p));
    s = p;
    KN_TRY_GOTO(find_file(path, stem, &found));
    if (ends_with(found, ".json")) {
        KN_TRY_GOTO(open_index(s, found));
    } else {
        KN_TRY_GOTO(kn_alloc_array(1, sizeof(part), &parts));
        s->parts = parts;
        KN_TRY_GOTO(add_part(s, found));
        KN_TRY_GOTO(sort_names(s));
    }
    *out = s;
    s = NULL;
done:
    kn_free(found);
    kn_safetensors_close(&s);
    return st;
}

kn_status kn_safetensors_parse(const char *name, const void *data, size_t size,
                               kn_safetensors **out)
{
    kn_status st;
    void *p = NULL, *parts = NULL;
    kn_safetensors *s = NULL;
    *out = NULL;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *s, &p));
    s = p;
    KN_TRY_GOTO(kn_alloc_array(1, sizeof(part), &parts));
    s->parts = parts;
    KN_TRY_GOTO(kn_strdup(name, &s->parts->path));
    s->part_count = 1;
    s->parts->map = data;
    s->parts->bytes = size;
    s->parts->borrowed = true;
    KN_TRY_GOTO(read_part(s, s->parts));
    KN_TRY_GOTO(sort_names(s));
    *out = s;
    s = NULL;
done:
    kn_safetensors_close(&s);
    return st;
}

void kn_safetensors_close(kn_safetensors **handle)
{
    if (!handle || !*handle) return;
    kn_safetensors *s = *handle;
    *handle = NULL;
    for (int i = 0; i < s->part_count; i++) {
        part *p = &s->parts[i];
        if (p->map && !p->borrowed) munmap((void *)p->map, p->bytes);
        json_decref(p->header);
        kn_free(p->path);
    }
    kn_free(s->parts);
    kn_free(s->entries);
    kn_free(s);
}

/* ---- looking up ------------------------------------------------------------------------------ */

const char *kn_safetensors_path(const kn_safetensors *s)
{
    return s->parts[0].path;
}

int kn_safetensors_count(const kn_safetensors *s)
{
    return s->count;
}

const kn_st_tensor *kn_safetensors_at(const kn_safetensors *s, int i)
{
    return i >= 0 && i < s->count ? &s->entries[i].t : NULL;
}

const kn_st_tensor *kn_safetensors_find(const kn_safetensors *s, const char *name, int *index)
{
    int low = 0, high = s->count;
    while (low < high) {
        int mid = low + (high - low) / 2;
        int order = strcmp(s->entries[mid].t.name, name);
        if (order == 0) {
            if (index) *index = mid;
            return &s->entries[mid].t;
        }
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

const char *kn_safetensors_metadata(const kn_safetensors *s, const char *key)
{
    for (int i = 0; i < s->part_count; i++) {
        const json_t *metadata = json_object_get(s->parts[i].header, "__metadata__");
        const char *value = json_string_value(json_object_get(metadata, key));
        if (value) return value;
    }
    return NULL;
}
