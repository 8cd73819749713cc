/* text/prompt_clean.c - see prompt_clean.h. */
#include "text/prompt_clean.h"

#include <string.h>

#include "io/memory.h"
#include "text/codepoints.h"
#include "text/html.h"
#include "text/mojibake.h"
#include "text/nfc.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

enum { MAX_TEXT_BYTES = 1 << 16 };

/* A step appends its form of `in` to out. */
typedef kn_status step_fn(kn_codepoints in, kn_codepoints *out);

static kn_status run_step(step_fn *step, kn_codepoints *text)
{
    kn_codepoints out = {0};
    kn_status st = step(*text, &out);
    if (st != KN_OK) {
        kn_codepoints_free(&out);
        return st;
    }
    kn_codepoints_free(text);
    *text = out;
    return KN_OK;
}

/* ---- ftfy's fixes of single characters --------------------------------------------------------*/

static kn_status fix_c1(kn_codepoints in, kn_codepoints *out)
{
    for (size_t i = 0; i < in.count; i++) {
        uint32_t cp = in.at[i];
        if (cp >= 0x80 && cp <= 0x9f && kn_windows_1252[cp - 0x80]) cp = kn_windows_1252[cp - 0x80];
        KN_TRY(kn_codepoints_add(out, cp));
    }
    return KN_OK;
}

/* Ligatures and digraphs of Latin letters, apart (ae and oe are letters, and stay). */
static kn_status fix_ligatures(kn_codepoints in, kn_codepoints *out)
{
    static const struct {
        uint32_t cp;
        const char *parts;
    } table[] = {
        {0x0132, "IJ"},        {0x0133, "ij"}, {0x0149, "\xca\xbcn"}, {0x01f1, "DZ"},
        {0x01f2, "Dz"},        {0x01f3, "dz"}, {0x01c4, "D\xc5\xbd"}, {0x01c5, "D\xc5\xbe"},
        {0x01c6, "d\xc5\xbe"}, {0x01c7, "LJ"}, {0x01c8, "Lj"},        {0x01c9, "lj"},
        {0x01ca, "NJ"},        {0x01cb, "Nj"}, {0x01cc, "nj"},        {0xfb00, "ff"},
        {0xfb01, "fi"},        {0xfb02, "fl"}, {0xfb03, "ffi"},       {0xfb04, "ffl"},
        {0xfb05, "\xc5\xbft"}, {0xfb06, "st"}};
    for (size_t i = 0; i < in.count; i++) {
        const char *parts = NULL;
        for (size_t k = 0; in.at[i] >= 0x80 && k < sizeof table / sizeof *table; k++)
            if (table[k].cp == in.at[i]) parts = table[k].parts;
        KN_TRY(parts ? kn_codepoints_add_utf8(out, parts, strlen(parts))
                     : kn_codepoints_add(out, in.at[i]));
    }
    return KN_OK;
}

static kn_status fix_width(kn_codepoints in, kn_codepoints *out)
{
    for (size_t i = 0; i < in.count; i++) {
        kn_unicode_triple form = {0, in.at[i] == 0x3000 ? ' ' : in.at[i], 0};
        for (int k = 0; in.at[i] >= 0xff01 && in.at[i] < 0xfff0 && k < kn_unicode_width_count; k++)
            if (kn_unicode_width[k].a == in.at[i]) form = kn_unicode_width[k];
        KN_TRY(kn_codepoints_add(out, form.b));
        if (form.c) KN_TRY(kn_codepoints_add(out, form.c));
    }
    return KN_OK;
}

static kn_status uncurl_quotes(kn_codepoints in, kn_codepoints *out)
{
    for (size_t i = 0; i < in.count; i++) {
        uint32_t cp = in.at[i];
        bool single = cp == 0x02bc || (cp >= 0x2018 && cp <= 0x201b);
        bool pair = cp >= 0x201c && cp <= 0x201f;
        KN_TRY(kn_codepoints_add(out, single ? '\'' : pair ? '"' : cp));
    }
    return KN_OK;
}

static kn_status fix_line_ends(kn_codepoints in, kn_codepoints *out)
{
    for (size_t i = 0; i < in.count; i++) {
        uint32_t cp = in.at[i];
        if (cp == '\r' && i + 1 < in.count && in.at[i + 1] == '\n') continue;
        bool end = cp == '\r' || cp == 0x2028 || cp == 0x2029 || cp == 0x85;
        KN_TRY(kn_codepoints_add(out, end ? '\n' : cp));
    }
    return KN_OK;
}

/* ESC [ numbers letter */
static kn_status remove_terminal_escapes(kn_codepoints in, kn_codepoints *out)
{
    for (size_t i = 0; i < in.count; i++) {
        if (in.at[i] == 0x1b && i + 1 < in.count && in.at[i + 1] == '[') {
            size_t k = i + 2;
            while (k < in.count && ((in.at[k] >= '0' && in.at[k] <= '9') || in.at[k] == ';')) k++;
            uint32_t end = k < in.count ? in.at[k] | 0x20 : 0;
            if (end >= 'a' && end <= 'z') {
                i = k;
                continue;
            }
        }
        KN_TRY(kn_codepoints_add(out, in.at[i]));
    }
    return KN_OK;
}

static kn_status remove_controls(kn_codepoints in, kn_codepoints *out)
{
    for (size_t i = 0; i < in.count; i++) {
        uint32_t cp = in.at[i];
        bool control = cp <= 0x08 || cp == 0x0b || (cp >= 0x0e && cp <= 0x1f) || cp == 0x7f ||
                       (cp >= 0x206a && cp <= 0x206f) || cp == 0xfeff ||
                       (cp >= 0xfff9 && cp <= 0xfffc);
        if (!control) KN_TRY(kn_codepoints_add(out, cp));
    }
    return KN_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* ftfy.fix_text on one line: all fixes, again until none changes anything. */
static kn_status fix_line(kn_codepoints *line, bool unescape)
{
    static step_fn *const steps[] = {fix_c1,          fix_ligatures, fix_width,
                                     uncurl_quotes,   fix_line_ends, remove_terminal_escapes,
                                     remove_controls, kn_nfc};
    kn_status st = KN_OK;
    kn_codepoints before = {0};
    do {
        kn_codepoints_free(&before);
        KN_TRY_GOTO(kn_codepoints_add_all(&before, *line));
        if (unescape) KN_TRY_GOTO(run_step(kn_html_unescape_strict, line));
        KN_TRY_GOTO(kn_mojibake_fix(line));
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
            KN_TRY_GOTO(run_step(steps[i], line));
    } while (!kn_codepoints_equal(before, *line));
done:
    kn_codepoints_free(&before);
    return st;
}

static kn_status fix_text(kn_codepoints in, kn_codepoints *out)
{
    kn_status st = KN_OK;
    kn_codepoints line = {0};
    bool unescape = true; /* until a "<": from there on the text may be markup */
    for (size_t from = 0; from < in.count;) {
        size_t end = from;
        while (end < in.count && in.at[end] != '\n') {
            unescape = unescape && in.at[end] != '<';
            end++;
        }
        end += end < in.count;
        KN_TRY_GOTO(kn_codepoints_add_all(&line, kn_codepoints_part(in, from, end - from)));
        KN_TRY_GOTO(fix_line(&line, unescape));
        KN_TRY_GOTO(kn_codepoints_add_all(out, line));
        kn_codepoints_free(&line);
        from = end;
    }
done:
    kn_codepoints_free(&line);
    return st;
}

static kn_status collapse_space(kn_codepoints in, kn_codepoints *out)
{
    bool pending = false;
    for (size_t i = 0; i < in.count; i++) {
        bool space = kn_utf8_is_python_space(in.at[i]);
        if (!space && pending && out->count > 0) KN_TRY(kn_codepoints_add(out, ' '));
        if (!space) KN_TRY(kn_codepoints_add(out, in.at[i]));
        pending = space;
    }
    return KN_OK;
}

kn_status kn_prompt_clean(const char *text, char **out)
{
    static step_fn *const steps[] = {fix_text, kn_html_unescape, kn_html_unescape, collapse_space};
    *out = NULL;
    kn_status st = KN_OK;
    kn_codepoints t = {0};
    kn_text result = {0};
    size_t bytes = strlen(text);
    if (bytes > MAX_TEXT_BYTES)
        return kn_fail(KN_ERR_ARG, "the prompt has %zu bytes; at most %d are taken", bytes,
                       MAX_TEXT_BYTES);
    KN_TRY_GOTO(kn_codepoints_add_utf8(&t, text, bytes));
    for (int i = 0; i < 4; i++) KN_TRY_GOTO(run_step(steps[i], &t));
    KN_TRY_GOTO(kn_text_add(&result, ""));
    KN_TRY_GOTO(kn_codepoints_to_utf8(t, &result));
    *out = result.data;
    result.data = NULL;
done:
    kn_free(result.data);
    kn_codepoints_free(&t);
    return st != KN_OK ? KN_CTX(st, "cleaning the prompt") : KN_OK;
}
