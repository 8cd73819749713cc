/* Shell completion from the option table. */
#include <string.h>

#include "pipeline/cli.h"
#include "pipeline/options.h"

/* Text between single quotes of a shell. */
static void print_quoted(FILE *f, const char *text)
{
    for (; *text; text++) fputs(*text == '\'' ? "'\\''" : (char[]){*text, 0}, f);
}

static void print_commands(FILE *f)
{
    for (int i = 0; kn_commands[i].name; i++) fprintf(f, "%s%s", i ? " " : "", kn_commands[i].name);
}

/* Words of a choice: "a|b" as "a b". */
static void print_choices(FILE *f, const char *choices)
{
    for (; *choices; choices++) fputc(*choices == '|' ? ' ' : *choices, f);
}

static void print_bash(FILE *f, const kn_option *t, int count)
{
    fputs("# bash completion of kinora; kinora help --completion bash\n_kinora() {\n"
          "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n  COMPREPLY=()\n"
          "  if [ \"$COMP_CWORD\" = 1 ]; then\n    COMPREPLY=($(compgen -W '", f);
    print_commands(f);
    fputs("' -- \"$cur\"))\n    return\n  fi\n  case $prev in\n", f);
    for (int i = 0; i < count; i++) {
        if (t[i].type == KN_OPTION_BOOL) continue;
        fprintf(f, "    --%s", t[i].key);
        if (t[i].letter) fprintf(f, "|-%c", t[i].letter);
        fputs(") ", f);
        if (t[i].type == KN_OPTION_CHOICE) {
            fputs("COMPREPLY=($(compgen -W '", f);
            print_choices(f, t[i].choices);
            fputs("' -- \"$cur\"))", f);
        } else if (!strcmp(t[i].key, "preset")) {
            fputs("COMPREPLY=($(compgen -W \"$(kinora presets --names 2>/dev/null)\" -- \"$cur\"))", f);
        } else if (t[i].type == KN_OPTION_PATH) {
            fputs("COMPREPLY=($(compgen -f -- \"$cur\")); compopt -o filenames 2>/dev/null", f);
        }
        fputs(t[i].type == KN_OPTION_CHOICE || t[i].type == KN_OPTION_PATH || !strcmp(t[i].key, "preset") ? "; return ;;\n" : "return ;;\n", f);
    }
    fputs("  esac\n  case $cur in\n    -*) COMPREPLY=($(compgen -W '", f);
    for (int i = 0; i < count; i++) {
        fprintf(f, "--%s ", t[i].key);
        if (t[i].type == KN_OPTION_BOOL) fprintf(f, "--no-%s ", t[i].key);
    }
    fputs("' -- \"$cur\")) ;;\n    *) COMPREPLY=($(compgen -f -- \"$cur\")); compopt -o filenames 2>/dev/null ;;\n  esac\n}\n"
          "complete -F _kinora kinora\n", f);
}

/* Help as zsh shows it between brackets: those are escaped, and so is the colon. */
static void print_zsh_help(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (strchr("[]:\\", *text)) fputc('\\', f);
        fputs(*text == '\'' ? "'\\''" : (char[]){*text, 0}, f);
    }
}

static void print_zsh(FILE *f, const kn_option *t, int count)
{
    fputs("#compdef kinora\n# zsh completion of kinora; kinora help --completion zsh\n_kinora() {\n  local -a options\n  options=(\n", f);
    for (int i = 0; i < count; i++) {
        fprintf(f, "    '--%s[", t[i].key);
        print_zsh_help(f, t[i].help);
        fputc(']', f);
        if (t[i].type == KN_OPTION_CHOICE) {
            fputs(":value:(", f);
            print_choices(f, t[i].choices);
            fputc(')', f);
        } else if (!strcmp(t[i].key, "preset")) {
            fputs(":preset:($(kinora presets --names 2>/dev/null))", f);
        } else if (t[i].type == KN_OPTION_PATH) {
            fputs(":file:_files", f);
        } else if (t[i].type != KN_OPTION_BOOL) {
            fputs(":value:", f);
        }
        fputs("'\n", f);
        if (t[i].letter)
            fprintf(f, "    '-%c%s'\n", t[i].letter, t[i].type == KN_OPTION_BOOL ? "" : t[i].type == KN_OPTION_PATH ? ":file:_files" : ":value:");
        if (t[i].type == KN_OPTION_BOOL) fprintf(f, "    '--no-%s'\n", t[i].key);
    }
    fputs("  )\n  if (( CURRENT == 2 )); then\n    local -a commands\n    commands=(\n", f);
    for (int i = 0; kn_commands[i].name; i++) {
        fprintf(f, "      '%s:", kn_commands[i].name);
        print_zsh_help(f, kn_commands[i].about);
        fputs("'\n", f);
    }
    fputs("    )\n    _describe command commands\n  else\n    shift words; (( CURRENT-- ))\n"
          "    _arguments $options '*:file:_files'\n  fi\n}\n"
          /* loaded by compinit the file is the function's body; sourced it has to register itself */
          "if [ \"$funcstack[1]\" = _kinora ]; then _kinora \"$@\"; else compdef _kinora kinora; fi\n", f);
}

static void print_fish(FILE *f, const kn_option *t, int count)
{
    fputs("# fish completion of kinora; kinora help --completion fish\n", f);
    for (int i = 0; kn_commands[i].name; i++) {
        fprintf(f, "complete -c kinora -n __fish_use_subcommand -f -a %s -d '", kn_commands[i].name);
        print_quoted(f, kn_commands[i].about);
        fputs("'\n", f);
    }
    for (int i = 0; i < count; i++) {
        fprintf(f, "complete -c kinora -n 'not __fish_use_subcommand' -l %s", t[i].key);
        if (t[i].letter) fprintf(f, " -s %c", t[i].letter);
        if (t[i].type == KN_OPTION_CHOICE) {
            fputs(" -x -a '", f);
            print_choices(f, t[i].choices);
            fputc('\'', f);
        } else if (!strcmp(t[i].key, "preset")) {
            fputs(" -x -a '(kinora presets --names 2>/dev/null)'", f);
        } else if (t[i].type == KN_OPTION_PATH) {
            fputs(" -r -F", f);
        } else if (t[i].type != KN_OPTION_BOOL) {
            fputs(" -x", f);
        }
        fputs(" -d '", f);
        print_quoted(f, t[i].help);
        fputs("'\n", f);
        if (t[i].type == KN_OPTION_BOOL) fprintf(f, "complete -c kinora -n 'not __fish_use_subcommand' -f -l no-%s\n", t[i].key);
    }
}

kn_status kn_options_print_completion(FILE *f, const char *shell)
{
    int count;
    const kn_option *t = kn_option_table(&count);
    if (!strcmp(shell, "bash"))
        print_bash(f, t, count);
    else if (!strcmp(shell, "zsh"))
        print_zsh(f, t, count);
    else if (!strcmp(shell, "fish"))
        print_fish(f, t, count);
    else
        return kn_fail(KN_ERR_ARG, "help --completion: expected bash, zsh or fish, found '%s'", shell);
    return KN_OK;
}
