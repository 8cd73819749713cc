/* kinora help: commands, options and exit codes, for people and as a man page. */
#include <stdbool.h>
#include <string.h>

#include "pipeline/cli.h"
#include "pipeline/cli_common.h"
#include "pipeline/columns.h"
#include "pipeline/options.h"

static const char exit_codes[] =
    "Exit codes: 0 done, 1 some jobs of a batch failed, 2 usage, 3 file or model, 4 memory or "
    "device, 5 not supported, 6 NaN in the computation, 70 bug, 130 stopped by a signal.";

const kn_command kn_commands[] = {
    {"render", "-m MODEL -p PROMPT -o FILE [options]", "make a video from a prompt",
     KN_EVERY_COMMAND},
    {"refine", "VIDEO -m MODEL -o FILE [options]",
     "make an existing video larger and sharper: `refine VIDEO`, with or without a prompt",
     KN_EVERY_COMMAND},
    {"batch", "FILE [options]", "make many videos from a batch file (YAML, JSON or CSV)", "Batch"},
    {"plan", "-m MODEL -p PROMPT [options]",
     "print sizes, memory and work of a render, and whether it fits; renders nothing",
     KN_EVERY_COMMAND},
    {"compare", "A B [-o FILE.png|FILE.mp4] [--csv FILE] [-y]",
     "tell two clips apart: PSNR, SSIM, difference picture (-o x.png) or video (-o x.mp4), --csv; "
     "or two safetensors files",
     NULL},
    {"info", "[--codecs | PATH]",
     "describe a model folder, a video, a sidecar or a safetensors file; alone: this build", NULL},
    {"bench", "-m MODEL -p PROMPT [options]",
     "render with the options of render, show where the time goes; keeps no file it was not asked "
     "for",
     KN_EVERY_COMMAND},
    {"search-windows", "-m MODEL -p PROMPT -o FILE.json [options]",
     "choose the windows of --attention tile3d by layer and head, on a calibration prompt: "
     "-o windows.json",
     "Window search"},
    {"presets", "[--names | show NAME]", "list the presets; `presets show NAME` prints one", NULL},
    {"help", "[COMMAND | OPTION | --man | --markdown | --completion bash|zsh|fish]",
     "this text, a command's or an option's; --man, --markdown, --completion bash|zsh|fish", NULL},
    {NULL, NULL, NULL, NULL},
};

static int columns_of(FILE *f)
{
    enum { UNSAID = 100 }; /* lines that long read well */
    int columns = kn_columns_of(f);
    return columns == KN_UNCUT ? UNSAID : columns;
}

void kn_cli_help(FILE *f)
{
    int columns = columns_of(f);
    kn_print_wrapped(f, "Kinora renders video with pretrained video diffusion transformers.", 0, 0,
                     columns);
    fputs("\nusage: kinora COMMAND [options]\n"
          "       kinora render -m MODEL -p PROMPT -o out.mp4\n"
          "       kinora refine VIDEO -m MODEL -o out.mp4\n\nCommands; `kinora help COMMAND` has "
          "more on one:\n",
          f);
    for (int i = 0; kn_commands[i].name; i++)
        kn_print_wrapped(f, kn_commands[i].about, fprintf(f, "  %-14s ", kn_commands[i].name), 17,
                         columns);
    fputs("\nOptions of render, refine, batch, bench and plan:\n", f);
    kn_options_print_help(f, NULL, columns);
    fputc('\n', f);
    kn_print_wrapped(f, exit_codes, 0, 0, columns);
}

bool kn_cli_help_command(FILE *f, const char *name)
{
    const kn_command *c = kn_commands;
    int columns = columns_of(f);
    while (c->name && strcmp(c->name, name)) c++;
    if (!c->name) return false;
    fprintf(f, "usage: kinora %s %s\n\n", c->name, c->usage);
    kn_print_wrapped(f, c->about, fprintf(f, "  "), 2, columns);
    if (c->options) kn_options_print_help(f, c->options, columns);
    fputc('\n', f);
    kn_print_wrapped(f, exit_codes, 0, 0, columns);
    return true;
}

bool kn_cli_help_option(FILE *f, const char *name)
{
    return kn_options_print_one(f, name, columns_of(f));
}

void kn_cli_man(void)
{
    puts(".TH KINORA 1 \"\" \"Kinora " KN_VERSION "\" \"User Commands\"\n"
         ".SH NAME\nkinora \\- render video with pretrained video diffusion transformers\n"
         ".SH SYNOPSIS\n.B kinora\n.I command\n[\\fIoptions\\fR]\n.SH COMMANDS");
    for (int i = 0; kn_commands[i].name; i++)
        printf(".TP\n.B %s\n%s\n", kn_commands[i].name, kn_commands[i].about);
    puts(".SH OPTIONS\n.ad l\nOptions of \\fBrender\\fR, \\fBrefine\\fR, \\fBbatch\\fR, "
         "\\fBbench\\fR and \\fBplan\\fR. The same keys, without dashes in front, are used in "
         "presets\n"
         "and in files given to \\fB\\-\\-config\\fR.");
    kn_options_print_man(stdout);
    puts(".SH EXIT STATUS\n0 done; 1 some jobs of a batch failed; 2 usage or a bad option; 3 a "
         "file, folder or model that does not fit; 4 memory or device;\n"
         "5 not supported by this build or device; 6 NaN in the computation; 70 a bug; 130 stopped "
         "by a signal.\n"
         ".SH EXAMPLE\n.nf\nkinora render \\-\\-model demo/model \\-\\-prompt \"a red ball "
         "bouncing over grass\" \\-\\-output ball.mp4\n.fi");
}
