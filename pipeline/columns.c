#include "pipeline/columns.h"

#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "io/text.h"

int kn_columns_of(FILE *f)
{
    struct winsize w;
    int fd = fileno(f); /* -1: of a stream in memory */
    return fd >= 0 && isatty(fd) && ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : KN_UNCUT;
}

/* Columns of n bytes of UTF-8. Three-byte characters from U+3000 on are drawn double, but for few. */
static int width_of(const char *text, size_t n)
{
    int width = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c & 0xC0) != 0x80) width += c >= 0xE3 && c <= 0xEF ? 2 : 1;
    }
    return width;
}

void kn_print_wrapped(FILE *f, const char *text, int at, int indent, int columns)
{
    bool first = true; /* word of the line */
    while (*text) {
        size_t n = strcspn(text, " ");
        int width = width_of(text, n);
        bool fits_below = indent + width <= columns && (!first || at > indent);
        if (at + !first + width > columns && fits_below) {
            fprintf(f, "\n%*s", indent, "");
            at = indent;
            first = true;
        }
        fprintf(f, "%s%.*s", first ? "" : " ", (int)n, text);
        at += width + !first;
        first = false;
        text += n + (text[n] == ' ');
    }
    fputc('\n', f);
}

static void print_bytes(FILE *f, const char *text, size_t bytes)
{
    char part[256];
    for (const char *end = text + bytes; text < end;) {
        size_t left = (size_t)(end - text), n = left < sizeof part ? left : sizeof part - 1;
        while (n < left && n > 1 && ((unsigned char)text[n] & 0xC0) == 0x80) n--; /* no character is cut in two */
        memcpy(part, text, n);
        part[n] = '\0';
        kn_text_make_plain(part);
        fputs(part, f);
        text += n;
    }
}

void kn_print_plain(FILE *f, const char *text)
{
    print_bytes(f, text, strlen(text));
}

void kn_print_word(FILE *f, const char *text)
{
    static const char bare[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:,+=-%@";
    bool quotes = !*text || text[strspn(text, bare)], single = strpbrk(text, "\"$`\\!") != NULL;
    const char *quote = !quotes ? "" : single ? "'" : "\"";
    fputs(quote, f);
    while (*text) {
        size_t n = single ? strcspn(text, "'") : strlen(text);
        print_bytes(f, text, n);
        text += n;
        if (*text) fputs("'\\''", f), text++;
    }
    fputs(quote, f);
}
