/* text/html.c - see html.h. */
#include "text/html.h"

#include <string.h>

enum { MAX_NAME = 32 }; /* characters of the longest name that html.unescape looks at */

static const kn_html_entity *find(const char *name)
{
    int lo = 0, hi = kn_html_entity_count;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        int c = strcmp(kn_html_entities[mid].name, name);
        if (c == 0) return &kn_html_entities[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static int digit(uint32_t c, int base)
{
    int value = c >= '0' && c <= '9'   ? (int)(c - '0')
                : c >= 'a' && c <= 'f' ? (int)(c - 'a') + 10
                : c >= 'A' && c <= 'F' ? (int)(c - 'A') + 10
                                       : 99;
    return value < base ? value : -1;
}

const uint16_t kn_windows_1252[32] = {
    0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178};

/* Character of a numeric reference, or 0 for none (the reference vanishes). HTML 5 standard,
 * "numeric character reference end state", as html.unescape follows it. */
static uint32_t numeric_character(uint32_t n)
{
    if (n == 0 || n > 0x10ffff || (n >= 0xd800 && n <= 0xdfff)) return 0xfffd;
    if (n >= 0x80 && n <= 0x9f) return kn_windows_1252[n - 0x80] ? kn_windows_1252[n - 0x80] : n;
    bool control = (n < 0x20 && n != '\t' && n != '\n' && n != '\f' && n != '\r') || n == 0x7f;
    bool noncharacter = (n >= 0xfdd0 && n <= 0xfdef) || (n & 0xfffe) == 0xfffe;
    return control || noncharacter ? 0 : n;
}

/* "#233;", "#xE9" at t[0]: its length (0 = none) and number, which saturates. */
static size_t numeric_reference(kn_codepoints t, uint32_t *number, bool *semicolon)
{
    size_t i = 1;
    int base = 10;
    *number = 0;
    *semicolon = false;
    if (t.count < 2 || t.at[0] != '#') return 0;
    if (t.at[1] == 'x' || t.at[1] == 'X') {
        base = 16;
        i = 2;
    }
    size_t first = i;
    for (int d; i < t.count && (d = digit(t.at[i], base)) >= 0; i++)
        if (*number <= 0x10ffff) *number = *number * (uint32_t)base + (uint32_t)d;
    if (i == first) return 0;
    *semicolon = i < t.count && t.at[i] == ';';
    return i + *semicolon;
}

static kn_status add_value(const kn_html_entity *e, kn_codepoints *out)
{
    return kn_codepoints_add_utf8(out, e->value, strlen(e->value));
}

/* Name at t[0] (after the &): the characters that html.unescape takes for one. */
static size_t name_length(kn_codepoints t)
{
    size_t n = 0;
    while (n < t.count && n < MAX_NAME && !(t.at[n] < 0x80 && strchr("\t\n\f <&#;", (int)t.at[n])))
        n++;
    return n;
}

/* Appends what the reference after an & at t stands for; *taken = characters of t used (0 = no
 * reference). */
static kn_status unescape_one(kn_codepoints t, size_t *taken, kn_codepoints *out)
{
    uint32_t number;
    bool semicolon;
    *taken = numeric_reference(t, &number, &semicolon);
    if (*taken) {
        uint32_t cp = numeric_character(number);
        return cp ? kn_codepoints_add(out, cp) : KN_OK;
    }
    char name[MAX_NAME + 1];
    size_t n = 0;
    size_t length = name_length(t);
    while (n < length && t.at[n] < 0x80 && t.at[n] != 0) {
        name[n] = (char)t.at[n];
        n++;
    }
    semicolon = length > 0 && length < t.count && t.at[length] == ';';
    if (n == length && semicolon) {
        name[n] = 0;
        const kn_html_entity *e = find(name);
        if (e && (e->flags & KN_HTML_SEMICOLON)) {
            *taken = n + 1;
            return add_value(e, out);
        }
    }
    for (; n >= 2; n--) { /* the longest known name that starts it; two letters at least */
        name[n] = 0;
        const kn_html_entity *e = find(name);
        if (e && (e->flags & KN_HTML_BARE)) {
            *taken = n;
            return add_value(e, out);
        }
    }
    return KN_OK;
}

kn_status kn_html_unescape(kn_codepoints in, kn_codepoints *out)
{
    for (size_t i = 0; i < in.count; i++) {
        size_t taken = 0;
        if (in.at[i] == '&') {
            kn_codepoints rest = kn_codepoints_part(in, i + 1, in.count - i - 1);
            KN_TRY(unescape_one(rest, &taken, out));
        }
        if (taken)
            i += taken;
        else
            KN_TRY(kn_codepoints_add(out, in.at[i]));
    }
    return KN_OK;
}

/* Length of "&name;" or "&#...;" at t, with at most 24 letters and digits between; 0 = none. */
static size_t strict_reference(kn_codepoints t)
{
    size_t start = t.count > 1 && t.at[1] == '#' ? 2 : 1, n = start;
    while (n < t.count && n - start < 24 && t.at[n] < 0x80 &&
           (digit(t.at[n], 10) >= 0 || (t.at[n] >= 'a' && t.at[n] <= 'z') ||
            (t.at[n] >= 'A' && t.at[n] <= 'Z')))
        n++;
    return n > start && n < t.count && t.at[n] == ';' ? n + 1 : 0;
}

kn_status kn_html_unescape_strict(kn_codepoints in, kn_codepoints *out)
{
    for (size_t i = 0; i < in.count; i++) {
        size_t length = 0;
        if (in.at[i] == '&') length = strict_reference(kn_codepoints_part(in, i, in.count - i));
        if (length && in.at[i + 1] == '#') {
            uint32_t number;
            bool semicolon;
            kn_codepoints after = kn_codepoints_part(in, i + 1, length - 1);
            size_t used = numeric_reference(after, &number, &semicolon);
            /* a reference that stands for ; itself stays, as in ftfy */
            if (used == length - 1 && semicolon && number != ';') {
                uint32_t cp = numeric_character(number);
                if (cp) KN_TRY(kn_codepoints_add(out, cp));
                i += length - 1;
                continue;
            }
        } else if (length) {
            char name[MAX_NAME];
            for (size_t k = 0; k < length - 2; k++) name[k] = (char)in.at[i + 1 + k];
            name[length - 2] = 0;
            const kn_html_entity *e = find(name);
            if (e && (e->flags & (KN_HTML_SEMICOLON | KN_HTML_UPPER))) {
                KN_TRY(add_value(e, out));
                i += length - 1;
                continue;
            }
        }
        KN_TRY(kn_codepoints_add(out, in.at[i]));
    }
    return KN_OK;
}
