/* text/spm_model.c - see spm_model.h. Field numbers: sentencepiece_model.proto. */
#include "text/spm_model.h"

#include <math.h>
#include <string.h>

#include "io/memory.h"
#include "text/utf8.h"

/* Far above what is trained (pieces of at most 16 characters: sentencepiece_model.proto max_sentencepiece_length;
 * replaced sequences of a few characters): memory grows with the count, time with text bytes times these. */
enum { MAX_PIECES = 4 << 20, MAX_PIECE_BYTES = 1 << 10, MAX_SOURCE_BYTES = 1 << 8 };

/* ---- protocol buffer wire format --------------------------------------------------------------*/

typedef struct span {
    const unsigned char *at, *end;
} span;

typedef struct field {
    uint32_t number;
    int wire;       /* 0 varint, 1 fixed 64, 2 bytes, 5 fixed 32 */
    uint64_t value; /* varint and fixed */
    span bytes;
} field;

static bool read_varint(span *s, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && s->at < s->end; shift += 7) {
        unsigned char byte = *s->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool read_fixed(span *s, int bytes, uint64_t *value)
{
    if (s->end - s->at < bytes) return false;
    *value = 0;
    for (int i = 0; i < bytes; i++) *value |= (uint64_t)s->at[i] << (8 * i);
    s->at += bytes;
    return true;
}

/* Next field of a message; false when malformed (call only while at < end). */
static bool next_field(span *s, field *f)
{
    uint64_t key, size;
    if (!read_varint(s, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff) return false;
    f->number = (uint32_t)(key >> 3);
    f->wire = (int)(key & 7);
    f->value = 0;
    switch (f->wire) {
    case 0: return read_varint(s, &f->value);
    case 1: return read_fixed(s, 8, &f->value);
    case 5: return read_fixed(s, 4, &f->value);
    case 2:
        if (!read_varint(s, &size) || size > (uint64_t)(s->end - s->at)) return false;
        f->bytes = (span){s->at, s->at + size};
        s->at += size;
        return true;
    default: return false; /* groups are not used by this message */
    }
}

/* ---- ModelProto -------------------------------------------------------------------------------*/

static kn_status malformed(const char *name, const char *what)
{
    return kn_fail(KN_ERR_FORMAT, "%s: not a sentencepiece model: %s", name, what);
}

static kn_status parse_piece(const char *name, span s, int id, kn_spm_piece *out)
{
    *out = (kn_spm_piece){.kind = KN_SPM_NORMAL};
    while (s.at < s.end) {
        field f;
        if (!next_field(&s, &f)) return malformed(name, "a piece is cut short");
        if (f.number == 1 && f.wire == 2) {
            ptrdiff_t size = f.bytes.end - f.bytes.at;
            if (size > MAX_PIECE_BYTES) return malformed(name, "a piece is over 1 KiB");
            out->text = (const char *)f.bytes.at;
            out->size = (int)size;
        } else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&out->score, &bits, sizeof bits);
        } else if (f.number == 3 && f.wire == 0) {
            if (f.value < KN_SPM_NORMAL || f.value > KN_SPM_BYTE)
                return malformed(name, "a piece has an unknown type");
            out->kind = (kn_spm_kind)f.value;
        }
    }
    if (out->size == 0 || kn_utf8_check(out->text, (size_t)out->size) != (size_t)out->size)
        return kn_fail(KN_ERR_FORMAT, "%s: piece %d is empty or not UTF-8", name, id);
    if (!isfinite(out->score))
        return kn_fail(KN_ERR_FORMAT, "%s: piece %d has a score that is not finite", name, id);
    return KN_OK;
}

static kn_status parse_trainer(const char *name, span s, kn_spm_model *m)
{
    uint64_t type = 1; /* UNIGRAM */
    while (s.at < s.end) {
        field f;
        if (!next_field(&s, &f)) return malformed(name, "trainer_spec is cut short");
        if (f.wire != 0) continue;
        if (f.number == 3) type = f.value;
        if (f.number == 35) m->byte_fallback = f.value != 0;
    }
    static const char *const types[] = {"?", "unigram", "bpe", "word", "char"};
    if (type != 1)
        return kn_fail(KN_ERR_UNSUPPORTED, "%s: a %s model; a unigram model is expected", name,
                       types[type <= 4 ? type : 0]);
    return KN_OK;
}

static kn_status parse_normalizer(const char *name, span s, kn_spm_model *m)
{
    while (s.at < s.end) {
        field f;
        if (!next_field(&s, &f)) return malformed(name, "normalizer_spec is cut short");
        if (f.number == 2 && f.wire == 2 && f.bytes.at < f.bytes.end) {
            m->charsmap = (const char *)f.bytes.at;
            m->charsmap_size = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == 4 && f.wire == 0) {
            m->remove_extra_spaces = f.value != 0;
        }
    }
    return KN_OK;
}

static kn_status parse_model(const char *name, span file, kn_spm_model *m)
{
    m->remove_extra_spaces = true; /* default of the message */
    int count = 0;
    for (span s = file; s.at < s.end;) {
        field f;
        if (!next_field(&s, &f)) return malformed(name, "the file is cut short");
        count += f.number == 1 && f.wire == 2;
    }
    if (count == 0) return malformed(name, "no pieces");
    if (count > MAX_PIECES) return malformed(name, "more than 4,194,304 pieces");
    KN_TRY(kn_alloc_array((size_t)count, sizeof *m->piece, (void **)&m->piece));
    for (span s = file; s.at < s.end;) {
        field f = {0};
        (void)next_field(&s, &f); /* the first pass saw that it is well formed */
        if (f.wire != 2) continue;
        if (f.number == 1) {
            KN_TRY(parse_piece(name, f.bytes, m->count, &m->piece[m->count]));
            m->count++;
        }
        if (f.number == 2) KN_TRY(parse_trainer(name, f.bytes, m));
        if (f.number == 3) KN_TRY(parse_normalizer(name, f.bytes, m));
    }
    return KN_OK;
}

kn_status kn_spm_model_parse(const char *name, const void *data, size_t size, kn_spm_model *out)
{
    *out = (kn_spm_model){0};
    KN_TRY(kn_alloc(size, (void **)&out->file));
    memcpy(out->file, data, size);
    const unsigned char *at = (const unsigned char *)out->file;
    kn_status st = parse_model(name, (span){at, at + size}, out);
    if (st != KN_OK) kn_spm_model_close(out);
    return st;
}

void kn_spm_model_close(kn_spm_model *m)
{
    if (!m) return;
    kn_free(m->piece);
    kn_free(m->file);
    *m = (kn_spm_model){0};
}

/* ---- character map ----------------------------------------------------------------------------*/

static uint32_t u32_at(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* Longest source in the trie that starts text: its bytes (0 = none) and the offset of its
 * replacement; -1 when the trie is broken. Unit layout: darts-clone DoubleArrayUnit. */
static int longest_match(const char *trie, uint32_t units, const char *text, size_t size,
                         uint32_t *replacement)
{
    int best = 0;
    uint32_t unit = u32_at(trie);
    uint32_t node = (unit >> 10) << ((unit & 0x200) >> 6);
    for (size_t i = 0; i < size && i < MAX_SOURCE_BYTES; i++) {
        unsigned char c = (unsigned char)text[i];
        node ^= c;
        if (node >= units) return -1;
        unit = u32_at(trie + 4 * (size_t)node);
        if ((unit & 0x800000ff) != c) break;
        node ^= (unit >> 10) << ((unit & 0x200) >> 6);
        if (unit & 0x100) { /* a source ends here; its value is the child's unit */
            if (node >= units) return -1;
            *replacement = u32_at(trie + 4 * (size_t)node) & 0x7fffffff;
            best = (int)i + 1;
        }
    }
    return best;
}

kn_status kn_spm_charsmap_apply(const char *charsmap, size_t size, const char *text,
                                size_t text_size, kn_text *out)
{
    uint32_t trie_bytes = size >= 4 ? u32_at(charsmap) : 0;
    if (trie_bytes < 4 || trie_bytes % 4 != 0 || trie_bytes > size - 4)
        return kn_fail(KN_ERR_FORMAT, "character map: trie of %u bytes in a map of %zu", trie_bytes,
                       size);
    const char *trie = charsmap + 4;
    const char *strings = trie + trie_bytes;
    size_t string_bytes = size - 4 - trie_bytes;
    for (size_t at = 0; at < text_size;) {
        uint32_t offset = 0, cp;
        int n = longest_match(trie, trie_bytes / 4, text + at, text_size - at, &offset);
        if (n < 0) return kn_fail(KN_ERR_FORMAT, "character map: the trie leads outside itself");
        if (n == 0) {
            n = kn_utf8_decode(text + at, text_size - at, &cp);
            if (n == 0) return kn_fail(KN_ERR_ARG, "text is not UTF-8 at byte %zu", at);
            KN_TRY(kn_text_add_bytes(out, text + at, (size_t)n));
        } else {
            const char *end =
                offset < string_bytes ? memchr(strings + offset, 0, string_bytes - offset) : NULL;
            if (!end || kn_utf8_check(strings + offset, (size_t)(end - strings) - offset) !=
                            (size_t)(end - strings) - offset)
                return kn_fail(KN_ERR_FORMAT, "character map: replacement %u is not a string",
                               offset);
            KN_TRY(kn_text_add_bytes(out, strings + offset, (size_t)(end - strings) - offset));
        }
        at += (size_t)n;
    }
    return KN_OK;
}
