/* text/utf8.c - see utf8.h. */
#include "text/utf8.h"

int kn_utf8_decode(const char *s, size_t size, uint32_t *cp)
{
    if (size == 0) return 0;
    unsigned char first = (unsigned char)s[0];
    if (first < 0x80) {
        *cp = first;
        return 1;
    }
    int length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length == 0 || (size_t)length > size) return 0;
    uint32_t c = first & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        unsigned char next = (unsigned char)s[i];
        if ((next & 0xc0) != 0x80) return 0;
        c = c << 6 | (next & 0x3f);
    }
    bool overlong = (length == 3 && c < 0x800) || (length == 4 && c < 0x10000);
    if (overlong || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return 0;
    *cp = c;
    return length;
}

int kn_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int length = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = length - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)(lead[length] | cp);
    return length;
}

size_t kn_utf8_check(const char *s, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint32_t cp;
        int n = kn_utf8_decode(s + at, size - at, &cp);
        if (n == 0) break;
        at += (size_t)n;
    }
    return at;
}

bool kn_utf8_is_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0d) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

bool kn_utf8_is_python_space(uint32_t cp)
{
    return kn_utf8_is_space(cp) || (cp >= 0x1c && cp <= 0x1f);
}
