/* text/mojibake.c - see mojibake.h. */
#include "text/mojibake.h"

#include <string.h>

#include "text/html.h"
#include "text/utf8.h"

/* Byte that a character is in Windows-1252 or Latin-1; -1 = neither has it. */
static int byte_of(uint32_t cp)
{
    if (cp <= 0xff) return (int)cp;
    for (int i = 0; i < 32; i++)
        if (kn_windows_1252[i] == cp) return 0x80 + i;
    return -1;
}

/* Characters whose bytes make one UTF-8 sequence of 2 to 4 bytes at text[from]; 0 = they do not. */
static int sequence_at(kn_codepoints text, size_t from, uint32_t *cp)
{
    char bytes[4];
    int n = 0;
    for (; n < 4 && from + (size_t)n < text.count; n++) {
        int b = byte_of(text.at[from + (size_t)n]);
        if (b < 0x80) break;
        bytes[n] = (char)b;
    }
    int used = kn_utf8_decode(bytes, (size_t)n, cp);
    return used >= 2 ? used : 0;
}

/* Continuation characters that ordinary text has right after a letter: punctuation and signs. */
static bool follows_letters(uint32_t cp)
{
    static const uint32_t ordinary[] = {0x00a0, 0x00a1, 0x00a9, 0x00ab, 0x00ad, 0x00ae, 0x00b7,
                                        0x00bb, 0x00bf, 0x2013, 0x2014, 0x2018, 0x2019, 0x201a,
                                        0x201c, 0x201d, 0x201e, 0x2022, 0x2026, 0x2039, 0x203a,
                                        0x2122, 0x00b0, 0x00b4, 0x00a7, 0x00b6, 0x00b2, 0x00b3,
                                        0x00b9, 0x0160, 0x0161, 0x017d, 0x017e, 0x0178};
    for (size_t i = 0; i < sizeof ordinary / sizeof *ordinary; i++)
        if (ordinary[i] == cp) return true;
    return false;
}

/* An opening or low quote between two letters ("cÅ“ur") is not one. */
static bool quote_inside_word(kn_codepoints text, size_t at)
{
    uint32_t cp = text.at[at], next = at + 1 < text.count ? text.at[at + 1] : 0;
    bool letter = (next | 0x20) >= 'a' && (next | 0x20) <= 'z';
    return letter && (cp == 0x201a || cp == 0x201c || cp == 0x201e);
}

static bool is_evidence(kn_codepoints text, size_t from, int length)
{
    uint32_t first = text.at[from];
    if (first == 0xc2 || first == 0xc3) return true;                              /* Â Ã */
    if (length == 3 && first == 0xe2 && text.at[from + 1] == 0x20ac) return true; /* â€ */
    for (int i = 1; i < length; i++)
        if (!follows_letters(text.at[from + (size_t)i]) ||
            quote_inside_word(text, from + (size_t)i))
            return true;
    return false;
}

/* One pass; *changed tells whether anything was decoded. */
static kn_status fix_once(kn_codepoints text, kn_codepoints *out, bool *changed)
{
    bool covered = true, evidence = false;
    uint32_t cp;
    *changed = false;
    for (size_t i = 0; i < text.count;) {
        int n = sequence_at(text, i, &cp);
        if (n)
            evidence = evidence || is_evidence(text, i, n);
        else
            covered = covered && text.at[i] < 0x80;
        i += n ? (size_t)n : 1;
    }
    for (size_t i = 0; i < text.count;) {
        size_t end = i;
        bool here = false; /* evidence in this run of adjacent sequences */
        for (int n; end < text.count && (n = sequence_at(text, end, &cp)) > 0; end += (size_t)n)
            here = here || is_evidence(text, end, n);
        if (end == i) {
            KN_TRY(kn_codepoints_add(out, text.at[i++]));
            continue;
        }
        bool decode = here || (covered && evidence);
        *changed = *changed || decode;
        while (i < end) {
            int n = decode ? sequence_at(text, i, &cp) : 1;
            KN_TRY(kn_codepoints_add(out, decode ? cp : text.at[i]));
            i += (size_t)n;
        }
    }
    return KN_OK;
}

kn_status kn_mojibake_fix(kn_codepoints *text)
{
    for (;;) { /* ends: each pass that changes something shortens the text */
        kn_codepoints fixed = {0};
        bool changed;
        kn_status st = fix_once(*text, &fixed, &changed);
        if (st != KN_OK || !changed) {
            kn_codepoints_free(&fixed);
            return st;
        }
        kn_codepoints_free(text);
        *text = fixed;
    }
}
