#include "io/text.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/memory.h"

kn_status kn_text_add_bytes(kn_text *t, const void *data, size_t bytes)
{
    if (bytes > SIZE_MAX / 2 - 1 - t->size)
        return kn_fail(KN_ERR_NOMEM, "out of memory: a text of %zu bytes asked for", bytes);
    size_t need = t->size + bytes + 1;
    if (need > t->capacity) {
        size_t capacity = t->capacity ? t->capacity : 64;
        while (capacity < need) capacity *= 2;
        void *p;
        KN_TRY(kn_alloc(capacity, &p));
        if (t->size) memcpy(p, t->data, t->size);
        kn_free(t->data);
        t->data = p;
        t->capacity = capacity;
    }
    if (bytes) memcpy(t->data + t->size, data, bytes);
    t->size += bytes;
    t->data[t->size] = '\0';
    return KN_OK;
}

kn_status kn_text_add(kn_text *t, const char *text)
{
    return kn_text_add_bytes(t, text, strlen(text));
}

kn_status kn_text_addf(kn_text *t, const char *fmt, ...)
{
    char small[256];
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    kn_status st;
    void *large = NULL;
    if (n < 0) {
        st = kn_fail(KN_ERR_INTERNAL, "vsnprintf failed on '%s'", fmt);
    } else if ((size_t)n < sizeof small) {
        st = kn_text_add_bytes(t, small, (size_t)n);
    } else {
        st = kn_alloc((size_t)n + 1, &large);
        if (st == KN_OK) {
            vsnprintf(large, (size_t)n + 1, fmt, again);
            st = kn_text_add_bytes(t, large, (size_t)n);
        }
    }
    va_end(again);
    kn_free(large);
    return st;
}

int kn_text_is_utf8(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s) {
        /* more: continuation bytes; [low, high]: the range of the first of them */
        int more = 0;
        unsigned char first = *s++, low = 0x80, high = 0xbf;
        if (first < 0x80) continue;
        if (first >= 0xc2 && first <= 0xdf) {
            more = 1;
        } else if (first >= 0xe0 && first <= 0xef) {
            more = 2;
            if (first == 0xe0) low = 0xa0;
            if (first == 0xed) high = 0x9f;
        } else if (first >= 0xf0 && first <= 0xf4) {
            more = 3;
            if (first == 0xf0) low = 0x90;
            if (first == 0xf4) high = 0x8f;
        } else {
            return 0;
        }
        for (; more; more--, low = 0x80, high = 0xbf) {
            if (*s < low || *s > high) return 0; /* the final 0 too */
            s++;
        }
    }
    return 1;
}

/* The decimal point of printf and strtod in this process, most often ".". */
static const char *decimal_point(void)
{
    const char *point = localeconv()->decimal_point;
    return point && *point ? point : ".";
}

char *kn_text_double(double value, char out[KN_DOUBLE_CHARS])
{
    if (!isfinite(value)) {
        snprintf(out, KN_DOUBLE_CHARS, "%s", isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return out;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, KN_DOUBLE_CHARS, "%.*g", digits, value);
        if (strtod(out, NULL) == value) break;
    }
    const char *point = decimal_point();
    char *at = strstr(out, point);
    if (at) {
        size_t wide = strlen(point);
        *at = '.';
        memmove(at + 1, at + wide, strlen(at + wide) + 1);
    } else if (!strchr(out, 'e')) {
        memcpy(out + strlen(out), ".0", 3); /* at most 17 digits and a sign precede: it fits */
    }
    return out;
}

/* [+-] digits [. digits] [e [+-] digits] with at least one digit before the exponent. */
static int is_decimal(const char *s)
{
    size_t digits = 0, n;
    s += *s == '+' || *s == '-';
    digits += n = strspn(s, "0123456789");
    s += n;
    if (*s == '.') {
        s++;
        digits += n = strspn(s, "0123456789");
        s += n;
    }
    if (!digits) return 0;
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '+' || *s == '-';
        n = strspn(s, "0123456789");
        if (!n) return 0;
        s += n;
    }
    return !*s;
}

int kn_text_to_double(const char *text, double *value)
{
    char local[512];
    const char *dot = strchr(text, '.'), *point = decimal_point();
    if (!is_decimal(text)) return 0;
    if (dot && strcmp(point, ".") != 0) {
        int n = snprintf(local, sizeof local, "%.*s%s%s", (int)(dot - text), text, point, dot + 1);
        if (n < 0 || (size_t)n >= sizeof local) return 0;
        text = local;
    }
    double v = strtod(text, NULL);
    if (!isfinite(v)) return 0;
    *value = v;
    return 1;
}

int kn_text_to_int(const char *text, int64_t *value)
{
    const char *s = text + (*text == '+' || *text == '-');
    if (!*s || s[strspn(s, "0123456789")]) return 0;
    errno = 0;
    long long v = strtoll(text, NULL, 10);
    if (errno == ERANGE) return 0;
    *value = v;
    return 1;
}

void kn_text_make_plain(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if ((*p < 0x20 && *p != '\n') || *p == 0x7f) *p = '?';
        if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) p[0] = p[1] = '?';
    }
}
