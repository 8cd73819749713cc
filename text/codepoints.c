/* text/codepoints.c - see codepoints.h. */
#include "text/codepoints.h"

#include <string.h>

#include "io/memory.h"
#include "text/utf8.h"

kn_status kn_codepoints_add(kn_codepoints *t, uint32_t cp)
{
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 64;
        void *grown;
        KN_TRY(kn_alloc_array(capacity, sizeof *t->at, &grown));
        if (t->count) memcpy(grown, t->at, t->count * sizeof *t->at);
        kn_free(t->at);
        t->at = grown;
        t->capacity = capacity;
    }
    t->at[t->count++] = cp;
    return KN_OK;
}

kn_status kn_codepoints_add_utf8(kn_codepoints *t, const char *text, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        uint32_t cp;
        int n = kn_utf8_decode(text + at, bytes - at, &cp);
        if (n == 0)
            return kn_fail(KN_ERR_ARG, "the text is not UTF-8: byte 0x%02x at offset %zu",
                           (unsigned char)text[at], at);
        KN_TRY(kn_codepoints_add(t, cp));
        at += (size_t)n;
    }
    return KN_OK;
}

kn_status kn_codepoints_add_all(kn_codepoints *t, kn_codepoints more)
{
    for (size_t i = 0; i < more.count; i++) KN_TRY(kn_codepoints_add(t, more.at[i]));
    return KN_OK;
}

kn_status kn_codepoints_to_utf8(kn_codepoints t, kn_text *out)
{
    for (size_t i = 0; i < t.count; i++) {
        char bytes[4];
        KN_TRY(kn_text_add_bytes(out, bytes, (size_t)kn_utf8_encode(t.at[i], bytes)));
    }
    return KN_OK;
}

bool kn_codepoints_equal(kn_codepoints a, kn_codepoints b)
{
    return a.count == b.count && (a.count == 0 || memcmp(a.at, b.at, a.count * sizeof *a.at) == 0);
}

kn_codepoints kn_codepoints_part(kn_codepoints t, size_t from, size_t count)
{
    return (kn_codepoints){t.at ? t.at + from : NULL, count, count};
}

void kn_codepoints_free(kn_codepoints *t)
{
    kn_free(t->at);
    *t = (kn_codepoints){0};
}
