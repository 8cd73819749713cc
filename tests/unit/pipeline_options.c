/* The option table: layers, ranges, messages, and that every form of documentation lists every key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/options.h"

static kn_status set(kn_options *o, const char *key, const char *value, kn_option_source from)
{
    return kn_options_set(o, key, value, from, key);
}

static void expect_message(kn_status st, kn_status want, const char *text)
{
    assert_int_equal(st, want);
    if (!strstr(kn_error_text(), text)) fail_msg("message '%s' does not hold '%s'", kn_error_text(), text);
}

static void test_later_layers_win(void **state)
{
    (void)state;
    kn_options o;
    assert_int_equal(kn_options_init(&o), KN_OK);
    assert_int_equal(o.width_px, 832);
    assert_int_equal(set(&o, "width", "320", KN_FROM_COMMAND_LINE), KN_OK);
    assert_int_equal(set(&o, "width", "640", KN_FROM_PRESET), KN_OK);
    assert_int_equal(o.width_px, 320);
    assert_int_equal(set(&o, "height", "160", KN_FROM_MODEL), KN_OK);
    assert_int_equal(set(&o, "height", "176", KN_FROM_CONFIG), KN_OK);
    assert_int_equal(o.height_px, 176);
    assert_int_equal(kn_options_source(&o, kn_option_find("height")), KN_FROM_CONFIG);
    /* What a later layer hides is still checked. */
    expect_message(set(&o, "width", "big", KN_FROM_PRESET), KN_ERR_ARG, "found 'big'");
    kn_options_free(&o);
}

static void test_bad_values_name_option_range_and_value(void **state)
{
    (void)state;
    kn_options o;
    assert_int_equal(kn_options_init(&o), KN_OK);
    expect_message(set(&o, "width", "8", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "from 16 to 16384 px, found '8'");
    expect_message(set(&o, "width", "1e3", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "found '1e3'");
    expect_message(set(&o, "width", "", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "found ''");
    expect_message(set(&o, "seed", "99999999999999999999", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "seed");
    expect_message(set(&o, "guidance", "nan", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "found 'nan'");
    expect_message(set(&o, "solver", "heun", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "unipc|euler|dpm++");
    expect_message(set(&o, "overwrite", "maybe", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "true or false");
    expect_message(set(&o, "guidence", "3", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "did you mean 'guidance'");
    expect_message(set(&o, "cfg", "3", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "did you mean 'guidance'");
    expect_message(set(&o, "num_frames", "3", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "did you mean 'frames'");
    expect_message(set(&o, "negative", "x", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "did you mean 'negative-prompt'");
    expect_message(set(&o, "zzzzzzzz", "3", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "unknown option 'zzzzzzzz'");
    expect_message(set(&o, "resume", "true", KN_FROM_PRESET), KN_ERR_ARG, "only be given on the command line");
    expect_message(set(&o, "output", "x", KN_FROM_MODEL), KN_ERR_ARG, "not a property of a model");
    expect_message(set(&o, "size", "320", KN_FROM_COMMAND_LINE), KN_ERR_ARG, "WIDTHxHEIGHT");
    assert_int_equal(o.width_px, 832);
    assert_int_equal(set(&o, "size", "832*480", KN_FROM_COMMAND_LINE), KN_OK);
    assert_int_equal(set(&o, "frames_dir", "x", KN_FROM_COMMAND_LINE), KN_OK);
    assert_string_equal(o.frames_dir, "x");
    kn_options_free(&o);
}

static void test_frames(void **state)
{
    (void)state;
    static const struct {
        const char *frames, *seconds, *text;
        int want;
    } cases[] = {
        {"81", NULL, NULL, 81}, {"1", NULL, NULL, 1}, {"80", NULL, "77 and 81", 0}, {"2", NULL, "1 and 5", 0},
        {NULL, "5", NULL, 81},  {NULL, "0.01", NULL, 1}, {"81", "5", "give one", 0}, {NULL, "600", "at most 4097", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kn_options o;
        assert_int_equal(kn_options_init(&o), KN_OK);
        if (cases[i].frames) assert_int_equal(set(&o, "frames", cases[i].frames, KN_FROM_COMMAND_LINE), KN_OK);
        if (cases[i].seconds) assert_int_equal(set(&o, "seconds", cases[i].seconds, KN_FROM_COMMAND_LINE), KN_OK);
        kn_status st = kn_options_resolve(&o);
        if (cases[i].text) {
            expect_message(st, KN_ERR_ARG, cases[i].text);
        } else {
            assert_int_equal(st, KN_OK);
            assert_int_equal(o.frames, cases[i].want);
        }
        kn_options_free(&o);
    }
}

static void test_text_and_json_round_trip(void **state)
{
    (void)state;
    kn_options o, again;
    int count;
    const kn_option *t = kn_option_table(&count);
    assert_int_equal(kn_options_init(&o), KN_OK);
    assert_int_equal(set(&o, "prompt", "ein Würfel \"rot\"", KN_FROM_COMMAND_LINE), KN_OK);
    assert_int_equal(set(&o, "guidance", "0.1", KN_FROM_COMMAND_LINE), KN_OK);
    assert_int_equal(set(&o, "seed", "9007199254740993", KN_FROM_COMMAND_LINE), KN_OK);
    assert_int_equal(kn_options_init(&again), KN_OK);
    for (int i = 0; i < count; i++) {
        char text[KN_OPTION_TEXT];
        kn_options_text(&o, &t[i], text);
        if (*text) assert_int_equal(set(&again, t[i].key, text, KN_FROM_COMMAND_LINE), KN_OK);
    }
    json_t *a = kn_options_json(&o, 0), *b = kn_options_json(&again, 0);
    assert_true(json_equal(a, b));
    assert_int_equal(json_integer_value(json_object_get(a, "seed")), 9007199254740993);
    json_decref(a);
    json_decref(b);
    kn_options_free(&o);
    kn_options_free(&again);
}

static char *printed(void (*print)(FILE *))
{
    char *data = NULL;
    size_t size;
    FILE *f = open_memstream(&data, &size);
    assert_non_null(f);
    print(f);
    fclose(f);
    return data;
}

static void print_help(FILE *f) { kn_options_print_help(f, NULL, 100); }

static void test_documentation_lists_every_option(void **state)
{
    (void)state;
    char *help = printed(print_help), *man = printed(kn_options_print_man), *md = printed(kn_options_print_markdown);
    int count;
    const kn_option *t = kn_option_table(&count);
    for (int i = 0; i < count; i++) {
        char flag[80], escaped[160], *e = escaped;
        snprintf(flag, sizeof flag, "--%s", t[i].key);
        for (const char *p = flag; *p; p++) {
            if (*p == '-') *e++ = '\\';
            *e++ = *p;
        }
        *e = '\0';
        if (!strstr(help, flag) || !strstr(md, flag) || !strstr(man, escaped)) fail_msg("%s is not documented", flag);
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(t[i].key, t[k].key);
            if (t[i].letter) assert_int_not_equal(t[i].letter, t[k].letter);
        }
    }
    free(help);
    free(man);
    free(md);
}

/* docs/options.md is the table, printed. */
static void test_options_page_is_current(void **state)
{
    (void)state;
    FILE *f = fopen(KN_SOURCE_DIR "/docs/options.md", "rb");
    assert_non_null(f);
    static char page[1 << 17];
    size_t n = fread(page, 1, sizeof page - 1, f);
    fclose(f);
    page[n] = '\0';
    char *md = printed(kn_options_print_markdown);
    if (strcmp(page, md)) fail_msg("docs/options.md is not what `kinora help --markdown` prints");
    free(md);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_later_layers_win),
        cmocka_unit_test(test_bad_values_name_option_range_and_value),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_text_and_json_round_trip),
        cmocka_unit_test(test_documentation_lists_every_option),
        cmocka_unit_test(test_options_page_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
