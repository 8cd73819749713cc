#include "pipeline/made_with.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/memory.h"
#include "io/video.h"
#include "pipeline/columns.h"

enum { VALUES_MAX = 4096, SIDECAR_BYTES = 1 << 20, TEXT_BYTES = 1 << 20 };

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), e = strlen(end);
    return n >= e && !strcasecmp(path + n - e, end);
}

/* ---- PNG --------------------------------------------------------------------------------------*/

static uint32_t big_endian(const unsigned char *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

/* Text of a tEXt chunk, or of an iTXt chunk that is not compressed (PNG specification 11.3.3); NULL: another
 * key. data has a zero byte behind it. */
static const char *chunk_text(const unsigned char *type, const char *data, size_t size)
{
    size_t key = strlen("kinora") + 1, at = key;
    if (size < key || memcmp(data, "kinora", key)) return NULL;
    if (!memcmp(type, "tEXt", 4)) return data + at;
    if (memcmp(type, "iTXt", 4) || size < at + 4 || data[at]) return NULL;
    for (at += 2; at < size && data[at]; at++) {}      /* language */
    for (at += 1; at < size && data[at]; at++) {}      /* translated key */
    return at < size ? data + at + 1 : NULL;
}

static kn_status png_text(const char *path, char **out)
{
    static const unsigned char magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    unsigned char head[8];
    FILE *f = fopen(path, "rb");
    *out = NULL;
    if (!f) return kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno));
    kn_status st = KN_OK;
    if (fread(head, 1, 8, f) != 8 || memcmp(head, magic, 8)) KN_TRY_GOTO(kn_fail(KN_ERR_FORMAT, "%s: expected a PNG picture", path));
    while (!*out && fread(head, 1, 8, f) == 8) {
        uint32_t size = big_endian(head);
        bool text = !memcmp(head + 4, "tEXt", 4) || !memcmp(head + 4, "iTXt", 4);
        if (!text || size > TEXT_BYTES) {
            if (size > 0x7fffffff || fseek(f, (long)size + 4, SEEK_CUR) != 0) break;
            continue;
        }
        char *data;
        KN_TRY_GOTO(kn_alloc_zero((size_t)size + 1, (void **)&data));
        const char *found = fread(data, 1, size, f) == size ? chunk_text(head + 4, data, size) : NULL;
        if (found) st = kn_strdup(found, out);
        kn_free(data);
        if (st != KN_OK || fseek(f, 4, SEEK_CUR) != 0) break;
    }
done:
    fclose(f);
    return st;
}

/* ---- any file ---------------------------------------------------------------------------------*/

static kn_status sidecar_text(const char *path, char **out)
{
    size_t size;
    return kn_file_read(path, SIDECAR_BYTES, out, &size);
}

kn_status kn_made_with_read(const char *path, json_t **out)
{
    char *text = NULL, *beside = NULL;
    kn_status st = KN_OK;
    *out = NULL;
    struct stat info; /* of a pipe, reading might never end */
    if (stat(path, &info) != 0 || access(path, R_OK) != 0) return kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return kn_fail(KN_ERR_IO, "%s: expected a regular file", path);
    if (ends_with(path, ".json"))
        KN_TRY_GOTO(sidecar_text(path, &text));
    else if (ends_with(path, ".png"))
        KN_TRY_GOTO(png_text(path, &text));
    else
        KN_TRY_GOTO(kn_video_metadata_read(path, "comment", &text));
    if (!text) {
        KN_TRY_GOTO(kn_asprintf(&beside, "%s.json", path));
        if (access(beside, R_OK) == 0) KN_TRY_GOTO(sidecar_text(beside, &text));
    }
    json_t *o = NULL;
    if (text && kn_json_parse(path, text, strlen(text), VALUES_MAX, &o) != KN_OK) o = NULL;
    if (!json_is_object(json_object_get(o, "options")) || !json_is_string(json_object_get(o, "kinora"))) {
        json_decref(o);
        KN_TRY_GOTO(kn_fail(KN_ERR_FORMAT, "%s: expected a file that Kinora made, found no settings in it%s", path,
                            beside ? " or beside it" : ""));
    }
    *out = o;
done:
    kn_free(text);
    kn_free(beside);
    return st;
}

/* ---- options ----------------------------------------------------------------------------------*/

/* A JSON scalar as the option table reads it. */
static const char *value_text(const json_t *v, char buf[KN_OPTION_TEXT])
{
    buf[0] = '\0'; /* what has no text, as null */
    if (json_is_string(v)) return json_string_value(v);
    if (json_is_integer(v)) snprintf(buf, KN_OPTION_TEXT, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v)) kn_text_double(json_real_value(v), buf);
    if (json_is_boolean(v)) snprintf(buf, KN_OPTION_TEXT, "%s", json_is_true(v) ? "true" : "false");
    return buf;
}

kn_status kn_made_with_apply(const char *path, kn_options *o)
{
    json_t *record, *value;
    const char *key;
    char buf[KN_OPTION_TEXT], where[512];
    KN_TRY(kn_made_with_read(path, &record));
    kn_status st = KN_OK;
    json_object_foreach(json_object_get(record, "options"), key, value) {
        const kn_option *opt = kn_option_find(key);
        snprintf(where, sizeof where, "%s (made by Kinora %s): %s", path, json_string_value(json_object_get(record, "kinora")), key);
        if (opt && strcmp(opt->key, "model") && !(opt->flags & KN_OPTION_SHAPES_RESULT)) continue;
        st = kn_options_set(o, key, value_text(value, buf), KN_FROM_CONFIG, where);
        if (st != KN_OK) break;
    }
    json_decref(record);
    return st;
}

kn_status kn_made_with_print(const char *path, FILE *f)
{
    json_t *record, *value;
    const char *key;
    char buf[KN_OPTION_TEXT];
    KN_TRY(kn_made_with_read(path, &record));
    const char *job = json_string_value(json_object_get(record, "job"));
    fputs("made by Kinora ", f);
    kn_print_plain(f, json_string_value(json_object_get(record, "kinora")));
    fputs(", job ", f);
    kn_print_plain(f, job ? job : "unknown");
    fputs(", with\n", f);
    json_object_foreach(json_object_get(record, "options"), key, value) {
        const kn_option *opt = kn_option_find(key);
        const char *text = value_text(value, buf);
        if (opt && strcmp(opt->key, "model") && !(opt->flags & KN_OPTION_SHAPES_RESULT)) continue;
        /* what was left at its default says nothing */
        if (opt && opt->initial && !strcmp(opt->initial, text)) continue;
        fputs("  --", f);
        kn_print_plain(f, key);
        fputc(' ', f);
        kn_print_word(f, text);
        fputc('\n', f);
    }
    fputs("again: kinora render --from ", f);
    kn_print_word(f, path);
    fputs(" --model FOLDER --output NEW\n", f);
    json_decref(record);
    return KN_OK;
}
