/* Words wrap at any width: nothing is lost, no line is too long unless one word is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/columns.h"

static char *wrapped(const char *text, int at, int indent, int columns)
{
    char *data = NULL;
    size_t size;
    FILE *f = open_memstream(&data, &size);
    assert_non_null(f);
    fprintf(f, "%*s", at, "");
    kn_print_wrapped(f, text, at, indent, columns);
    fclose(f);
    return data;
}

static void expect(const char *text, int at, int indent, int columns, const char *want)
{
    char *got = wrapped(text, at, indent, columns);
    assert_string_equal(got, want);
    free(got);
}

static void test_lines(void **state)
{
    (void)state;
    expect("", 0, 0, 10, "\n");
    expect("one two three", 0, 0, 7, "one two\nthree\n");
    expect("one two three", 0, 0, 6, "one\ntwo\nthree\n");
    expect("one two three", 4, 2, 8, "    one\n  two\n  three\n");
    expect("one two", 6, 2, 8, "      \n  one\n  two\n"); /* nothing fits behind what stands there */
    expect("a/path/too/long b", 4, 2, 8, "    a/path/too/long\n  b\n");
    expect("one two three", 0, 0, KN_UNCUT, "one two three\n");
    expect("一二 三", 0, 0, 5, "一二\n三\n"); /* two columns each */
    expect("一二 三", 0, 0, 7, "一二 三\n");
}

static int longest_word(const char *line)
{
    int longest = 0;
    for (int n; *line; line += n + (line[n] == ' ')) {
        n = (int)strcspn(line, " ");
        if (n > longest) longest = n;
    }
    return longest;
}

static void test_every_width_keeps_every_word(void **state)
{
    (void)state;
    static const char text[] = "--frames: expected 4n+1 (the VAE packs four frames into one latent), found 10; nearest are 9 and 13";
    for (int columns = 1; columns < 120; columns++) {
        char *got = wrapped(text, 0, 0, columns), *p = got;
        char *copy = strdup(got);
        for (char *line = strtok(copy, "\n"); line; line = strtok(NULL, "\n"))
            assert_true((int)strlen(line) <= columns || longest_word(line) > columns);
        free(copy);
        for (; *p; p++)
            if (*p == '\n' && p[1]) *p = ' ';
        assert_int_equal(strlen(got), strlen(text) + 1);
        assert_memory_equal(got, text, strlen(text));
        free(got);
    }
}

/* What is printed as a word, a shell reads as the same word. */
static void test_words_of_a_command(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"3.5", "3.5"},
        {"", "\"\""},
        {"a red ball", "\"a red ball\""},
        {"it's", "\"it's\""},
        {"say \"hi\"", "'say \"hi\"'"},
        {"it's $5!", "'it'\\''s $5!'"},
        {"'\\", "''\\''\\'"},
        {"\xc3\xa9", "\"\xc3\xa9\""},
        {"a\x1b[2J", "\"a?[2J\""},
        {"a;b", "\"a;b\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        kn_print_word(f, cases[i][0]);
        fclose(f);
        assert_string_equal(text, cases[i][1]);
        free(text);
    }
    char accents[600], *text; /* longer than what is printed at once: no character is cut in two */
    size_t size;
    for (int i = 0; i < 299; i++) memcpy(accents + 2 * i, "\xc3\xa9", 2);
    accents[598] = 0;
    FILE *f = open_memstream(&text, &size);
    kn_print_plain(f, accents);
    fclose(f);
    assert_string_equal(text, accents);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_every_width_keeps_every_word),
                                       cmocka_unit_test(test_words_of_a_command)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
