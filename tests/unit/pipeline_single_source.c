/* The option table is the single source: command line, YAML, help, man page, Markdown and the three
 * completions list the same keys, ranges and defaults; and ranges hold where they are said to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/preset.h"

typedef struct form {
    const char *name;
    char *text;
    size_t size;
} form;

enum { HELP, MAN, MARKDOWN, BASH, ZSH, FISH, FORMS };
static form forms[FORMS] = {{"help", 0, 0}, {"man", 0, 0}, {"markdown", 0, 0}, {"bash", 0, 0}, {"zsh", 0, 0}, {"fish", 0, 0}};

static int print_all(void **state)
{
    (void)state;
    for (int i = 0; i < FORMS; i++) {
        FILE *f = open_memstream(&forms[i].text, &forms[i].size);
        if (!f) return -1;
        if (i == HELP) kn_options_print_help(f, NULL, 4000);
        if (i == MAN) kn_options_print_man(f);
        if (i == MARKDOWN) kn_options_print_markdown(f);
        if (i >= BASH && kn_options_print_completion(f, forms[i].name) != KN_OK) return -1;
        fclose(f);
    }
    /* the man page escapes dashes, and marks where Chinese may break: undo both */
    char *to = forms[MAN].text;
    for (char *p = forms[MAN].text; *p; p++) {
        if (p[0] == '\\' && p[1] == '-') continue;
        if (p[0] == '\\' && p[1] == ':') {
            p++;
            continue;
        }
        *to++ = *p;
    }
    *to = '\0';
    return 0;
}

static int free_all(void **state)
{
    (void)state;
    for (int i = 0; i < FORMS; i++) free(forms[i].text);
    return 0;
}

/* The part of a form that is about one option, as a copy that the caller frees; NULL: not listed. */
static char *entry_of(int f, const kn_option *opt)
{
    static const char *const mark[FORMS] = {"--%s", "--%s", "`--%s`", "    --%s", "'--%s[", " -l %s"};
    char flag[96];
    snprintf(flag, sizeof flag, mark[f], opt->key);
    char *from = NULL;
    for (char *p = forms[f].text; (p = strstr(p, flag)); p++) {
        char after = p[strlen(flag)];
        bool whole = f == MARKDOWN || f == ZSH || strchr(" \n)|", after);
        /* a mention in another option's help is no entry: entries start a line */
        char *line = p;
        while (line > forms[f].text && line[-1] != '\n') line--;
        bool heads = f == HELP ? p - line <= 8 : f == MAN ? !strncmp(line, ".B ", 3) : true;
        if (whole && heads) {
            from = p;
            break;
        }
    }
    if (!from) return NULL;
    char *end = strstr(from, f == MAN ? "\n.TP" : "\n");
    if (f == HELP && end && !strncmp(end + 1, "          ", 10)) end = strchr(end + 1, '\n'); /* a long flag: text below */
    if (!end) end = from + strlen(from);
    char *copy = strndup(from, (size_t)(end - from));
    assert_non_null(copy);
    return copy;
}

static void must_hold(int f, const kn_option *opt, const char *entry, const char *text)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): the caller has failed the test without one */
    if (!strstr(entry, text))
        fail_msg("%s: --%s: expected '%s' in its entry, found: %.300s", forms[f].name, opt->key, text, entry);
}

static void same_in_every_form(void **state)
{
    (void)state;
    int count;
    const kn_option *t = kn_option_table(&count);
    assert_true(count > 40);
    for (int i = 0; i < count; i++)
        for (int f = 0; f < FORMS; f++) {
            if (f == BASH && t[i].type == KN_OPTION_BOOL) {
                char word[80];
                snprintf(word, sizeof word, "--%s ", t[i].key);
                must_hold(f, &t[i], forms[f].text, word);
                continue;
            }
            char *entry = entry_of(f, &t[i]), number[40];
            if (!entry) fail_msg("%s does not list --%s", forms[f].name, t[i].key);
            bool ranged = t[i].type == KN_OPTION_INT || t[i].type == KN_OPTION_DOUBLE || t[i].type == KN_OPTION_LIST;
            if (ranged && f <= MARKDOWN) {
                snprintf(number, sizeof number, "%.15g", t[i].min);
                must_hold(f, &t[i], entry, number);
                snprintf(number, sizeof number, "%.15g", t[i].max);
                if (t[i].max < 1e18) must_hold(f, &t[i], entry, number);
            }
            if (t[i].initial && *t[i].initial && f <= MARKDOWN && !(f == HELP && strlen(t[i].initial) > 24) &&
                !(f == HELP && !strcmp(t[i].initial, "false")))
                must_hold(f, &t[i], entry, t[i].initial);
            for (const char *p = t[i].choices; p && *p;) { /* every choice, everywhere */
                size_t n = strcspn(p, "|");
                snprintf(number, sizeof number, "%.*s", (int)n, p);
                must_hold(f, &t[i], entry, number);
                p += n + (p[n] == '|');
            }
            free(entry);
        }
}

/* Nothing is listed that the table does not have. */
static void no_stranger(void **state)
{
    (void)state;
    for (const char *p = forms[MARKDOWN].text; (p = strstr(p, "`--")); p++) {
        char key[64];
        snprintf(key, sizeof key, "%.*s", (int)strcspn(p + 3, "` "), p + 3);
        if (!strncmp(p, "`--", 3) && strchr(p, '|') && !kn_option_find(key)) fail_msg("docs list --%s", key);
    }
}

static kn_status by_flag(const kn_option *opt, const char *value)
{
    kn_options o;
    assert_int_equal(kn_options_init(&o), KN_OK);
    kn_status st = kn_options_set(&o, opt->key, value, KN_FROM_COMMAND_LINE, "flag");
    kn_options_free(&o);
    return st;
}

static kn_status by_yaml(const kn_option *opt, const char *value)
{
    kn_options o;
    kn_config *config;
    char text[256];
    snprintf(text, sizeof text, "%s: '%s'\n", opt->key, value);
    assert_int_equal(kn_options_init(&o), KN_OK);
    assert_int_equal(kn_config_parse("test.yaml", KN_CONFIG_YAML, text, strlen(text), &config), KN_OK);
    kn_status st = kn_options_apply(kn_config_root(config), &o, KN_FROM_CONFIG);
    kn_config_close(&config);
    kn_options_free(&o);
    return st;
}

static void number_text(const kn_option *opt, double v, char out[40])
{
    snprintf(out, 40, opt->type == KN_OPTION_INT ? "%.0f" : "%.17g", v);
}

static void ranges_hold(void **state)
{
    (void)state;
    int count;
    const kn_option *t = kn_option_table(&count);
    for (int i = 0; i < count; i++) {
        char text[40];
        bool flag_only = t[i].flags & KN_OPTION_COMMAND_LINE;
        bool ranged = t[i].type == KN_OPTION_INT || t[i].type == KN_OPTION_DOUBLE || t[i].type == KN_OPTION_LIST;
        if (flag_only) assert_int_equal(by_yaml(&t[i], "1"), KN_ERR_ARG);
        if (t[i].type == KN_OPTION_CHOICE) assert_int_equal(by_flag(&t[i], "no-such-choice"), KN_ERR_ARG);
        if (!ranged) continue;
        double edge[4] = {t[i].min, t[i].max, t[i].min - 1, t[i].max + 1};
        for (int k = 0; k < 4; k++) {
            if ((k & 1) && t[i].max >= 1e18) continue;
            number_text(&t[i], edge[k], text);
            kn_status want = k < 2 ? KN_OK : KN_ERR_ARG;
            if (by_flag(&t[i], text) != want) fail_msg("--%s %s: expected %s", t[i].key, text, kn_status_name(want));
            if (!flag_only && by_yaml(&t[i], text) != want) fail_msg("%s: %s in YAML: expected %s", t[i].key, text, kn_status_name(want));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_in_every_form), cmocka_unit_test(no_stranger),
                                       cmocka_unit_test(ranges_hold)};
    return cmocka_run_group_tests(tests, print_all, free_all);
}
