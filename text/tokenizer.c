/* text/tokenizer.c - see tokenizer.h. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/folder.h"
#include "io/memory.h"
#include "text/spm_model.h"
#include "text/utf8.h"

enum {
    MAX_STEPS = 8,
    MAX_FILE_BYTES = 256 << 20,
    MAX_JSON_VALUES = 8 << 20, /* umt5-xxl has 0.8 million */
    NO_ID = -1
};

static const char BLANK[] = "\xe2\x96\x81"; /* U+2581, sentencepiece's visible blank */
enum { BLANK_BYTES = 3 };

typedef enum step {
    STEP_CHARSMAP,
    STEP_TRIM_LEFT,
    STEP_TRIM_RIGHT,
    STEP_COLLAPSE /* runs of two and more blanks become one */
} step;

/* A piece or a special token: a string with its id. */
typedef struct entry {
    const char *text;
    int size;
    int32_t id;
    double score;
} entry;

struct kn_tokenizer {
    kn_spm_model model;
    char *json_text; /* what the special tokens of tokenizer.json point into */
    entry *piece;    /* by text, for prefix search */
    int piece_count;
    entry *special; /* matched in the raw text */
    int special_count;
    step steps[MAX_STEPS]; /* normaliser, in order */
    int step_count;
    bool byte_fallback;
    int32_t byte_id[256]; /* NO_ID where the model has no such piece */
    int32_t pad_id, eos_id, unk_id;
    int id_limit;
    double unk_score;
};

/* ---- opening: pieces --------------------------------------------------------------------------*/

static int compare_bytes(const char *a, int a_size, const char *b, int b_size)
{
    int c = memcmp(a, b, (size_t)(a_size < b_size ? a_size : b_size));
    return c != 0 ? c : a_size - b_size;
}

static int by_text(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int c = compare_bytes(x->text, x->size, y->text, y->size);
    return c != 0 ? c : (x->id > y->id) - (x->id < y->id);
}

static const entry *find_piece(const kn_tokenizer *t, const char *text, int size)
{
    int lo = 0, hi = t->piece_count;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        const entry *e = &t->piece[mid];
        int c = compare_bytes(e->text, e->size, text, size);
        if (c == 0) return e;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static int32_t find_id(const kn_tokenizer *t, const char *text)
{
    const entry *e = find_piece(t, text, (int)strlen(text));
    return e ? e->id : NO_ID;
}

/* Pieces of the model, then special tokens that are not among them (umt5's <extra_id_n>), which
 * tokenizer.json has as pieces of score 0. */
static kn_status build_pieces(const char *folder, kn_tokenizer *t)
{
    const kn_spm_model *m = &t->model;
    KN_TRY(kn_alloc_array((size_t)m->count + (size_t)t->special_count, sizeof *t->piece,
                          (void **)&t->piece));
    double lowest = 0.0;
    for (int i = 0; i < m->count; i++) {
        const kn_spm_piece *p = &m->piece[i];
        t->piece[i] = (entry){p->text, p->size, i, (double)p->score};
        if (i == 0 || (double)p->score < lowest) lowest = (double)p->score;
    }
    t->piece_count = m->count;
    qsort(t->piece, (size_t)m->count, sizeof *t->piece, by_text);
    /* of equal pieces the last id counts, as in a map that is filled in id order */
    int kept = 0;
    for (int i = 0; i < m->count; i++) {
        bool last =
            i + 1 == m->count || compare_bytes(t->piece[i].text, t->piece[i].size,
                                               t->piece[i + 1].text, t->piece[i + 1].size) != 0;
        if (last) t->piece[kept++] = t->piece[i];
    }
    t->piece_count = kept;
    t->id_limit = m->count;
    int added = 0;
    for (int i = 0; i < t->special_count; i++) {
        const entry *s = &t->special[i];
        const entry *p = find_piece(t, s->text, s->size);
        if (p && p->id != s->id)
            return kn_fail(KN_ERR_FORMAT,
                           "%s: tokenizer.json gives %.*s the id %d, spiece.model %d", folder,
                           s->size, s->text, s->id, p->id);
        if (!p) t->piece[t->piece_count + added++] = *s;
        if (s->id >= t->id_limit) t->id_limit = s->id + 1;
    }
    t->piece_count += added;
    if (added) qsort(t->piece, (size_t)t->piece_count, sizeof *t->piece, by_text);
    if (added && lowest > 0.0) lowest = 0.0;
    t->unk_score = lowest - 10.0;
    return KN_OK;
}

static kn_status find_named_ids(const char *folder, kn_tokenizer *t)
{
    t->eos_id = find_id(t, "</s>");
    t->pad_id = find_id(t, "<pad>");
    if (t->eos_id == NO_ID || t->pad_id == NO_ID)
        return kn_fail(KN_ERR_FORMAT, "%s: no %s piece; a T5 or UMT5 tokenizer is expected", folder,
                       t->eos_id == NO_ID ? "</s>" : "<pad>");
    for (int i = 0; i < 256; i++) {
        char name[8] = "<0x00>";
        name[3] = "0123456789ABCDEF"[i >> 4];
        name[4] = "0123456789ABCDEF"[i & 15];
        t->byte_id[i] = find_id(t, name);
    }
    for (int i = 0; i < t->model.count && t->unk_id == NO_ID; i++)
        if (t->model.piece[i].kind == KN_SPM_UNKNOWN) t->unk_id = i;
    if (t->unk_id == NO_ID) return kn_fail(KN_ERR_FORMAT, "%s: no unknown piece", folder);
    return KN_OK;
}

/* ---- opening: tokenizer.json ------------------------------------------------------------------*/

static const char *string_of(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static kn_status unsupported(const char *path, const char *part, const json_t *value)
{
    kn_text text = {0};
    kn_status st = kn_json_add_value(&text, value);
    if (st == KN_OK)
        st = kn_fail(KN_ERR_UNSUPPORTED, "%s: %s is none that Kinora knows: %.400s", path, part,
                     text.data);
    kn_free(text.data);
    return st;
}

static kn_status add_step(const char *path, kn_tokenizer *t, step s)
{
    if (t->step_count == MAX_STEPS)
        return kn_fail(KN_ERR_UNSUPPORTED, "%s: more than %d normaliser steps", path, MAX_STEPS);
    t->steps[t->step_count++] = s;
    return KN_OK;
}

static kn_status read_normalizer(const char *path, const json_t *value, kn_tokenizer *t)
{
    const char *type = string_of(value, "type");
    if (json_is_null(value)) return KN_OK;
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(value, "normalizers");
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *item = json_array_get(list, i);
            if (strcmp(string_of(item, "type"), "Sequence") == 0)
                return unsupported(path, "normalizer", item);
            KN_TRY(read_normalizer(path, item, t));
        }
        return KN_OK;
    }
    if (strcmp(type, "Precompiled") == 0) {
        /* the map itself is read from spiece.model, which holds the same bytes */
        if (!t->model.charsmap)
            return kn_fail(KN_ERR_FORMAT, "%s: a character map, but none in spiece.model", path);
        return add_step(path, t, STEP_CHARSMAP);
    }
    if (strcmp(type, "Strip") == 0) {
        if (json_is_true(json_object_get(value, "strip_left")))
            KN_TRY(add_step(path, t, STEP_TRIM_LEFT));
        if (json_is_true(json_object_get(value, "strip_right")))
            KN_TRY(add_step(path, t, STEP_TRIM_RIGHT));
        return KN_OK;
    }
    const char *content = string_of(value, "content");
    const json_t *pattern = json_object_get(value, "pattern");
    bool to_blank = strcmp(content, " ") == 0 || strcmp(content, BLANK) == 0;
    if (strcmp(type, "Replace") == 0 && to_blank) {
        if (strcmp(string_of(pattern, "Regex"), " {2,}") == 0)
            return add_step(path, t, STEP_COLLAPSE);
        if (strcmp(string_of(pattern, "String"), " ") == 0) return KN_OK; /* the cut does it */
    }
    return unsupported(path, "normalizer", value);
}

static kn_status check_pre_tokenizer(const char *path, const json_t *value)
{
    const json_t *split = json_object_get(value, "split");
    const char *scheme = string_of(value, "prepend_scheme");
    bool prepends = *scheme ? strcmp(scheme, "always") == 0
                            : json_is_true(json_object_get(value, "add_prefix_space"));
    if (strcmp(string_of(value, "type"), "Metaspace") != 0 || !prepends || json_is_false(split) ||
        strcmp(string_of(value, "replacement"), BLANK) != 0)
        return unsupported(path, "pre_tokenizer", value);
    return KN_OK;
}

/* A text, then </s>: {"single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}]} */
static kn_status check_post_processor(const char *path, const json_t *value)
{
    const json_t *single = json_object_get(value, "single");
    const json_t *text = json_object_get(json_array_get(single, 0), "Sequence");
    const json_t *end = json_object_get(json_array_get(single, 1), "SpecialToken");
    if (json_array_size(single) != 2 || strcmp(string_of(text, "id"), "A") != 0 ||
        strcmp(string_of(end, "id"), "</s>") != 0)
        return unsupported(path, "post_processor", value);
    return KN_OK;
}

static kn_status read_specials(const char *path, const json_t *list, kn_tokenizer *t)
{
    size_t bytes = 0, count = json_array_size(list);
    for (size_t i = 0; i < count; i++)
        bytes += strlen(string_of(json_array_get(list, i), "content")) + 1;
    KN_TRY(kn_alloc(bytes, (void **)&t->json_text));
    KN_TRY(kn_alloc_array(count, sizeof *t->special, (void **)&t->special));
    char *to = t->json_text;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        const char *content = string_of(item, "content");
        const json_t *id = json_object_get(item, "id");
        static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
        for (int k = 0; k < 4; k++)
            if (json_is_true(json_object_get(item, flags[k])))
                return unsupported(path, "an entry of added_tokens", item);
        if (!*content || !json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= MAX_JSON_VALUES)
            return kn_fail(KN_ERR_FORMAT, "%s: added_tokens[%zu]: content and id are expected",
                           path, i);
        size_t size = strlen(content);
        memcpy(to, content, size + 1);
        t->special[i] = (entry){to, (int)size, (int32_t)json_integer_value(id), 0.0};
        to += size + 1;
    }
    t->special_count = (int)count;
    return KN_OK;
}

static kn_status read_json(const char *path, const char *data, size_t size, kn_tokenizer *t)
{
    kn_status st = KN_OK;
    json_t *root = NULL;
    KN_TRY_GOTO(kn_json_parse(path, data, size, MAX_JSON_VALUES, &root));
    const json_t *model = json_object_get(root, "model");
    if (strcmp(string_of(model, "type"), "Unigram") != 0) {
        st = kn_fail(KN_ERR_UNSUPPORTED, "%s: model.type is \"%s\"; \"Unigram\" is expected", path,
                     string_of(model, "type"));
        goto done;
    }
    t->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    json_int_t unk = json_integer_value(json_object_get(model, "unk_id"));
    size_t vocab = json_array_size(json_object_get(model, "vocab"));
    if (vocab < (size_t)t->model.count || unk < 0 || unk >= t->model.count) {
        st = kn_fail(KN_ERR_FORMAT, "%s: %zu pieces, unk_id %lld; spiece.model has %d pieces", path,
                     vocab, (long long)unk, t->model.count);
        goto done;
    }
    t->unk_id = (int32_t)unk;
    KN_TRY_GOTO(read_normalizer(path, json_object_get(root, "normalizer"), t));
    KN_TRY_GOTO(check_pre_tokenizer(path, json_object_get(root, "pre_tokenizer")));
    KN_TRY_GOTO(check_post_processor(path, json_object_get(root, "post_processor")));
    KN_TRY_GOTO(read_specials(path, json_object_get(root, "added_tokens"), t));
done:
    json_decref(root);
    return st;
}

/* No tokenizer.json: what spiece.model says of itself. */
static kn_status use_model_settings(const char *name, kn_tokenizer *t)
{
    const kn_spm_model *m = &t->model;
    t->byte_fallback = m->byte_fallback;
    if (m->charsmap) KN_TRY(add_step(name, t, STEP_CHARSMAP));
    if (m->remove_extra_spaces) {
        KN_TRY(add_step(name, t, STEP_TRIM_LEFT));
        KN_TRY(add_step(name, t, STEP_TRIM_RIGHT));
        KN_TRY(add_step(name, t, STEP_COLLAPSE));
    }
    KN_TRY(kn_alloc_array((size_t)m->count, sizeof *t->special, (void **)&t->special));
    for (int i = 0; i < m->count; i++) {
        const kn_spm_piece *p = &m->piece[i];
        if (p->kind == KN_SPM_CONTROL || p->kind == KN_SPM_UNKNOWN)
            t->special[t->special_count++] = (entry){p->text, p->size, i, 0.0};
    }
    return KN_OK;
}

kn_status kn_tokenizer_parse(const char *name, const void *spm, size_t spm_size, const char *json,
                             size_t json_size, kn_tokenizer **out)
{
    *out = NULL;
    kn_status st = KN_OK;
    kn_tokenizer *t = NULL;
    char *spm_name = NULL, *json_name = NULL;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *t, (void **)&t));
    t->unk_id = NO_ID;
    KN_TRY_GOTO(kn_asprintf(&spm_name, "%s/spiece.model", name));
    KN_TRY_GOTO(kn_asprintf(&json_name, "%s/tokenizer.json", name));
    KN_TRY_GOTO(kn_spm_model_parse(spm_name, spm, spm_size, &t->model));
    if (json)
        KN_TRY_GOTO(read_json(json_name, json, json_size, t));
    else
        KN_TRY_GOTO(use_model_settings(spm_name, t));
    KN_TRY_GOTO(build_pieces(name, t));
    KN_TRY_GOTO(find_named_ids(name, t));
    *out = t;
    t = NULL;
done:
    kn_free(json_name);
    kn_free(spm_name);
    kn_tokenizer_close(&t);
    return st;
}

kn_status kn_tokenizer_open(const char *folder, kn_tokenizer **out)
{
    *out = NULL;
    kn_status st = KN_OK;
    char *spm_path = NULL, *json_path = NULL, *spm = NULL, *json = NULL;
    size_t spm_size, json_size = 0;
    KN_TRY_GOTO(kn_asprintf(&spm_path, "%s/spiece.model", folder));
    KN_TRY_GOTO(kn_asprintf(&json_path, "%s/tokenizer.json", folder));
    bool have_spm, have_json;
    KN_TRY_GOTO(kn_path_exists(spm_path, &have_spm));
    KN_TRY_GOTO(kn_path_exists(json_path, &have_json));
    if (!have_spm) {
        st = kn_fail(KN_ERR_IO,
                     "%s: no spiece.model (the sentencepiece model of the text encoder)%s", folder,
                     have_json ? "; tokenizer.json alone is not enough" : "");
        goto done;
    }
    KN_TRY_GOTO(kn_file_read(spm_path, MAX_FILE_BYTES, &spm, &spm_size));
    if (have_json) KN_TRY_GOTO(kn_file_read(json_path, MAX_FILE_BYTES, &json, &json_size));
    KN_TRY_GOTO(kn_tokenizer_parse(folder, spm, spm_size, json, json_size, out));
done:
    kn_free(json);
    kn_free(spm);
    kn_free(json_path);
    kn_free(spm_path);
    return st != KN_OK ? KN_CTX(st, "opening the tokenizer") : KN_OK;
}

void kn_tokenizer_close(kn_tokenizer **tp)
{
    kn_tokenizer *t = tp ? *tp : NULL;
    if (!t) return;
    kn_free(t->special);
    kn_free(t->piece);
    kn_free(t->json_text);
    kn_spm_model_close(&t->model);
    kn_free(t);
    *tp = NULL;
}

int kn_tokenizer_id_limit(const kn_tokenizer *t)
{
    return t->id_limit;
}

/* ---- encoding ---------------------------------------------------------------------------------*/

/* One encoding under way. Ids past max are dropped. */
typedef struct encoder {
    const kn_tokenizer *t;
    int32_t *ids;
    int count, max;
    kn_text scratch[2]; /* normaliser steps go from one to the other */
    struct node {
        double score; /* of the best path that ends before this byte */
        int start;    /* where that path's last piece starts; -1 = not reached */
        int32_t id;
    } * node;
    size_t node_capacity;
} encoder;

static void emit(encoder *e, int32_t id)
{
    if (e->count < e->max) e->ids[e->count++] = id;
}

/* A run of unknown characters: bytes where the model has pieces for all of them, else one <unk>. */
static void emit_unknown(encoder *e, const char *text, int size)
{
    const kn_tokenizer *t = e->t;
    const entry *known = find_piece(t, text, size);
    bool bytes = t->byte_fallback;
    for (int i = 0; i < size; i++) bytes = bytes && t->byte_id[(unsigned char)text[i]] != NO_ID;
    if (known) {
        emit(e, known->id);
    } else if (bytes) {
        for (int i = 0; i < size; i++) emit(e, t->byte_id[(unsigned char)text[i]]);
    } else {
        emit(e, t->unk_id);
    }
}

static void relax(struct node *to, double score, int start, int32_t id)
{
    if (to->start < 0 || score > to->score) *to = (struct node){score, start, id};
}

/* Every piece that starts at text[at] reaches a node. [lo, hi) is the range of sorted pieces that
 * share the bytes read so far; it narrows by two binary searches a byte. */
static void relax_from(const kn_tokenizer *t, struct node *node, const char *text, int size, int at)
{
    double score = node[at].score;
    uint32_t cp;
    int char_bytes = kn_utf8_decode(text + at, (size_t)(size - at), &cp);
    bool single = false;
    int lo = 0, hi = t->piece_count;
    for (int n = 0; at + n < size && lo < hi; n++) {
        unsigned char c = (unsigned char)text[at + n];
        int bounds[2], ends[2] = {lo, hi};
        for (int side = 0; side < 2; side++) { /* first piece with byte >= c; first with byte > c */
            int a = ends[0], b = ends[1];
            while (a < b) {
                int mid = a + (b - a) / 2;
                const entry *p = &t->piece[mid];
                int byte = p->size > n ? (unsigned char)p->text[n] : -1;
                if (byte < (int)c + side)
                    a = mid + 1;
                else
                    b = mid;
            }
            bounds[side] = a;
        }
        lo = bounds[0];
        hi = bounds[1];
        if (lo < hi && t->piece[lo].size == n + 1) { /* the shortest of the range sorts first */
            relax(&node[at + n + 1], score + t->piece[lo].score, at, t->piece[lo].id);
            single = single || n + 1 == char_bytes;
        }
    }
    if (!single) relax(&node[at + char_bytes], score + t->unk_score, at, t->unk_id);
}

/* Pieces of one word (from a U+2581 to before the next). */
static kn_status encode_word(encoder *e, const char *text, int size)
{
    size_t need = (size_t)size + 1;
    if (need > e->node_capacity) {
        kn_free(e->node);
        e->node = NULL;
        e->node_capacity = 0;
        KN_TRY(kn_alloc_array(need, sizeof *e->node, (void **)&e->node));
        e->node_capacity = need;
    }
    struct node *node = e->node;
    node[0] = (struct node){0.0, 0, 0};
    for (int i = 1; i <= size; i++) node[i].start = -1;
    for (int at = 0; at < size; at++) {
        bool starts_char = ((unsigned char)text[at] & 0xc0) != 0x80;
        if (starts_char) relax_from(e->t, node, text, size, at);
    }
    /* walk back, turning each node's start into the end of the piece that starts there */
    int next_end = -1;
    for (int end = size; end > 0;) {
        int start = node[end].start;
        node[end].start = next_end;
        next_end = end;
        end = start;
    }
    int unknown_from = -1;
    for (int start = 0, end = next_end; end >= 0; start = end, end = node[end].start) {
        bool unknown = node[end].id == e->t->unk_id;
        if (!unknown && unknown_from >= 0) {
            emit_unknown(e, text + unknown_from, start - unknown_from);
            unknown_from = -1;
        }
        if (unknown && unknown_from < 0) unknown_from = start;
        if (!unknown) emit(e, node[end].id);
    }
    if (unknown_from >= 0) emit_unknown(e, text + unknown_from, size - unknown_from);
    return KN_OK;
}

static size_t leading_space(const char *text, size_t size)
{
    size_t at = 0;
    uint32_t cp;
    for (int n; (n = kn_utf8_decode(text + at, size - at, &cp)) > 0 && kn_utf8_is_space(cp);)
        at += (size_t)n;
    return at;
}

static size_t without_trailing_space(const char *text, size_t size)
{
    size_t end = 0;
    uint32_t cp;
    for (size_t at = 0; at < size;) {
        int n = kn_utf8_decode(text + at, size - at, &cp);
        if (n == 0) break;
        at += (size_t)n;
        if (!kn_utf8_is_space(cp)) end = at;
    }
    return end;
}

static kn_status collapse_blanks(const char *text, size_t size, kn_text *out)
{
    for (size_t at = 0; at < size;) {
        size_t end = at + 1;
        if (text[at] == ' ') {
            while (end < size && text[end] == ' ') end++;
            KN_TRY(kn_text_add(out, " "));
        } else {
            while (end < size && text[end] != ' ') end++;
            KN_TRY(kn_text_add_bytes(out, text + at, end - at));
        }
        at = end;
    }
    return KN_OK;
}

/* Normaliser steps in order; *text becomes a view of the argument or of a scratch text. */
static kn_status normalise(encoder *e, const char **text, size_t *size)
{
    const kn_spm_model *m = &e->t->model;
    for (int i = 0, side = 0; i < e->t->step_count; i++) {
        kn_text *to = &e->scratch[side];
        size_t skipped;
        switch (e->t->steps[i]) {
        case STEP_TRIM_LEFT:
            skipped = leading_space(*text, *size);
            *text += skipped;
            *size -= skipped;
            continue;
        case STEP_TRIM_RIGHT: *size = without_trailing_space(*text, *size); continue;
        case STEP_COLLAPSE:
            to->size = 0;
            KN_TRY(collapse_blanks(*text, *size, to));
            break;
        case STEP_CHARSMAP:
            to->size = 0;
            KN_TRY(kn_spm_charsmap_apply(m->charsmap, m->charsmap_size, *text, *size, to));
            break;
        }
        *text = to->size > 0 ? to->data : "";
        *size = to->size;
        side = !side;
    }
    return KN_OK;
}

/* Text between special tokens. */
static kn_status encode_part(encoder *e, const char *text, size_t size)
{
    kn_status st = KN_OK;
    kn_text words = {0};
    KN_TRY(normalise(e, &text, &size));
    if (size == 0) return KN_OK;
    bool has_blank =
        text[0] == ' ' || (size >= BLANK_BYTES && memcmp(text, BLANK, BLANK_BYTES) == 0);
    if (!has_blank) KN_TRY_GOTO(kn_text_add(&words, BLANK));
    for (size_t at = 0; at < size;) {
        size_t end = at;
        while (end < size && text[end] != ' ') end++;
        KN_TRY_GOTO(kn_text_add_bytes(&words, text + at, end - at));
        if (end < size) KN_TRY_GOTO(kn_text_add(&words, BLANK));
        at = end + 1;
    }
    for (size_t at = 0; at < words.size && e->count < e->max;) {
        size_t end = at + BLANK_BYTES;
        while (end < words.size && (words.size - end < BLANK_BYTES ||
                                    memcmp(words.data + end, BLANK, BLANK_BYTES) != 0))
            end++;
        KN_TRY_GOTO(encode_word(e, words.data + at, (int)(end - at)));
        at = end;
    }
done:
    kn_free(words.data);
    return st;
}

/* Longest special token at text, or NULL. */
static const entry *special_at(const kn_tokenizer *t, const char *text, size_t size)
{
    const entry *best = NULL;
    for (int i = 0; i < t->special_count; i++) {
        const entry *s = &t->special[i];
        if (s->text[0] == text[0] && (size_t)s->size <= size && (!best || s->size > best->size) &&
            memcmp(s->text, text, (size_t)s->size) == 0)
            best = s;
    }
    return best;
}

enum { MAX_TEXT_BYTES = 1 << 20 };

kn_status kn_tokenizer_encode(const kn_tokenizer *t, const char *text, int max_len, int32_t *ids,
                              int *count)
{
    *count = 0;
    if (max_len < 1) return kn_fail(KN_ERR_ARG, "token limit %d; at least 1 is expected", max_len);
    size_t size = strlen(text), good = kn_utf8_check(text, size);
    if (good < size)
        return kn_fail(KN_ERR_ARG, "the prompt is not UTF-8: byte 0x%02x at offset %zu",
                       (unsigned char)text[good], good);
    if (size > MAX_TEXT_BYTES)
        return kn_fail(KN_ERR_ARG, "the prompt has %zu bytes; at most %d are taken", size,
                       MAX_TEXT_BYTES);
    kn_status st = KN_OK;
    encoder e = {.t = t, .ids = ids, .max = max_len - 1};
    size_t from = 0;
    for (size_t at = 0; at < size && e.count < e.max;) {
        const entry *s = special_at(t, text + at, size - at);
        if (!s) {
            at++;
            continue;
        }
        KN_TRY_GOTO(encode_part(&e, text + from, at - from));
        emit(&e, s->id);
        at += (size_t)s->size;
        from = at;
    }
    if (e.count < e.max) KN_TRY_GOTO(encode_part(&e, text + from, size - from));
    e.max = max_len;
    emit(&e, t->eos_id);
    *count = e.count;
    for (int i = e.count; i < max_len; i++) ids[i] = t->pad_id;
done:
    kn_free(e.node);
    kn_free(e.scratch[0].data);
    kn_free(e.scratch[1].data);
    return st;
}
