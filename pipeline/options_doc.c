/* pipeline/options_doc.c - help, man page and Markdown, printed from the option table. */
#include <string.h>

#include "pipeline/columns.h"
#include "pipeline/options.h"

static void range_text(const kn_option *opt, char *buf, size_t size)
{
    char range[96] = "";
    if (opt->type == KN_OPTION_INT || opt->type == KN_OPTION_DOUBLE || opt->type == KN_OPTION_LIST) {
        if (opt->max >= 1e18)
            snprintf(range, sizeof range, "%.15g or more", opt->min);
        else
            snprintf(range, sizeof range, "%.15g to %.15g", opt->min, opt->max);
    }
    snprintf(buf, size, "%s%s%s", range, opt->unit && *range ? " " : "", opt->unit ? opt->unit : "");
}

static const char *value_name(const kn_option *opt)
{
    switch (opt->type) {
    case KN_OPTION_STRING: return "TEXT";
    case KN_OPTION_PATH: return "PATH";
    case KN_OPTION_INT: return "N";
    case KN_OPTION_DOUBLE: return "X";
    case KN_OPTION_LIST: return "X,...";
    case KN_OPTION_CHOICE: return opt->choices;
    case KN_OPTION_SIZE: return "WxH";
    case KN_OPTION_BOOL: return "";
    }
    return "";
}

/* The negative prompt is long: shown in full in the man page and docs only. */
static const char *short_default(const kn_option *opt)
{
    if (!opt->initial || !*opt->initial) return NULL;
    if (opt->type == KN_OPTION_BOOL && !strcmp(opt->initial, "false")) return NULL;
    return strlen(opt->initial) > 24 ? "see docs/options.md" : opt->initial;
}

static bool of_one_command(const char *group)
{
    return !strcmp(group, "Window search") || !strcmp(group, "Batch");
}

static void print_row(FILE *f, const kn_option *opt, int columns)
{
    enum { INDENT = 30, NARROW = 64, INDENT_NARROW = 6 };
    int indent = columns < NARROW ? INDENT_NARROW : INDENT;
    char flag[128], text[640], range[128];
    const char *value = value_name(opt), *choices = opt->choices, *initial = short_default(opt);
    snprintf(flag, sizeof flag, "  %c%c%c --%s %s", opt->letter ? '-' : ' ', opt->letter ? opt->letter : ' ',
             opt->letter ? ',' : ' ', opt->key, opt->type == KN_OPTION_CHOICE ? "" : value);
    range_text(opt, range, sizeof range);
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s%s%s%s", opt->help, choices ? " One of " : "", choices ? choices : "",
             choices ? "." : "", *range ? " [" : "", range, *range ? "]" : "", initial ? " (default " : "",
             initial ? initial : "", initial ? ")" : "");
    fprintf(f, "%-*s", indent, flag);
    if ((int)strlen(flag) >= indent) fprintf(f, "\n%*s", indent, "");
    kn_print_wrapped(f, text, indent, indent, columns);
}

void kn_options_print_help(FILE *f, const char *only, int columns)
{
    int count;
    const kn_option *t = kn_option_table(&count);
    const char *group = "";
    for (int i = 0; i < count; i++) {
        if (only && of_one_command(t[i].group) && strcmp(t[i].group, only)) continue;
        if (strcmp(group, t[i].group)) fprintf(f, "\n%s:\n", group = t[i].group);
        print_row(f, &t[i], columns);
    }
}

bool kn_options_print_one(FILE *f, const char *name, int columns)
{
    const char *key = name + strspn(name, "-");
    const kn_option *opt = strlen(key) == 1 ? kn_option_find_letter(*key) : kn_option_find(key);
    if (opt) print_row(f, opt, columns);
    return opt != NULL;
}

/* Text with the characters that troff reads specially escaped. */
static void print_troff(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", f);
        else if (*text == '\\')
            fputs("\\e", f);
        else
            fputc(*text, f);
        /* Chinese has no blanks: let lines break after its comma, U+FF0C */
        if (*text == '\x8c' && text[-1] == '\xbc') fputs("\\:", f);
    }
}

void kn_options_print_man(FILE *f)
{
    int count;
    const kn_option *t = kn_option_table(&count);
    const char *group = "";
    for (int i = 0; i < count; i++) {
        char range[128];
        if (strcmp(group, t[i].group)) fprintf(f, ".SS %s\n", group = t[i].group);
        fputs(".TP\n.B ", f);
        if (t[i].letter) fprintf(f, "\\-%c, ", t[i].letter);
        fputs("\\-\\-", f);
        print_troff(f, t[i].key);
        if (*value_name(&t[i])) {
            fputs(" \\fI", f);
            print_troff(f, value_name(&t[i]));
            fputs("\\fR", f);
        }
        fputs("\n", f);
        print_troff(f, t[i].help);
        range_text(&t[i], range, sizeof range);
        if (*range) {
            fputs(" Range: ", f);
            print_troff(f, range);
            fputs(".", f);
        }
        if (t[i].initial && *t[i].initial) {
            fputs(" Default: ", f);
            print_troff(f, t[i].initial);
            fputs(".", f);
        }
        fputs("\n", f);
    }
}

void kn_options_print_markdown(FILE *f)
{
    int count;
    const kn_option *t = kn_option_table(&count);
    const char *group = "";
    fputs("# Options\n\nMade by `kinora help --markdown` from the option table; do not edit by hand.\n"
          "The same keys, without the dashes, are used in presets and config files.\n", f);
    for (int i = 0; i < count; i++) {
        char range[128];
        if (strcmp(group, t[i].group))
            fprintf(f, "\n## %s\n\n| option | value | default | meaning |\n| --- | --- | --- | --- |\n",
                    group = t[i].group);
        range_text(&t[i], range, sizeof range);
        fputs("| `", f);
        if (t[i].letter) fprintf(f, "-%c`, `", t[i].letter);
        fprintf(f, "--%s` | ", t[i].key);
        for (const char *p = t[i].choices ? t[i].choices : *range ? range : value_name(&t[i]); *p; p++)
            fputs(*p == '|' ? ", " : (char[]){*p, 0}, f);
        fprintf(f, " | %s | %s |\n", t[i].initial && *t[i].initial ? t[i].initial : "–", t[i].help);
    }
}
