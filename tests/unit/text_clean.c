/* UTF-8 helpers and what prompt cleaning refuses. Results against diffusers:
 * tests/golden/text_clean.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "io/memory.h"
#include "text/prompt_clean.h"
#include "text/utf8.h"

static void every_code_point_survives_utf8(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        if (cp >= 0xd800 && cp <= 0xdfff) continue;
        char bytes[4];
        uint32_t back = 0;
        int n = kn_utf8_encode(cp, bytes);
        assert_int_equal(kn_utf8_decode(bytes, (size_t)n, &back), n);
        assert_int_equal(back, cp);
        assert_int_equal(kn_utf8_decode(bytes, (size_t)n - 1, &back), 0);
    }
}

static void malformed_utf8_is_found(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80",         "\xc0\x80",     "\xc1\xbf",         "\xe0\x80\x80",     "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80",
        "\xff",         "\xc3(",        "\xe2\x82",         "\xf0\x9f\xa6"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[16] = "ok ";
        strcat(text, bad[i]);
        assert_int_equal(kn_utf8_check(text, strlen(text)), 3);
        char *out = (char *)1;
        assert_int_equal(kn_prompt_clean(text, &out), KN_ERR_ARG);
        assert_non_null(strstr(kn_error_text(), "offset 3"));
        assert_null(out);
    }
}

static void long_prompts_are_refused(void **state)
{
    (void)state;
    size_t size = (1 << 16) + 1;
    char *text = malloc(size + 1), *out;
    assert_non_null(text);
    memset(text, 'a', size);
    text[size] = 0;
    assert_int_equal(kn_prompt_clean(text, &out), KN_ERR_ARG);
    text[size - 1] = 0;
    assert_int_equal(kn_prompt_clean(text, &out), KN_OK);
    assert_string_equal(out, text);
    kn_free(out);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_survives_utf8),
        cmocka_unit_test(malformed_utf8_is_found),
        cmocka_unit_test(long_prompts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
