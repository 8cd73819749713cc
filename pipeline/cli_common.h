/* pipeline/cli_common.h - what the commands share. Internal to pipeline/cli*.c. */
#ifndef KN_PIPELINE_CLI_COMMON_H
#define KN_PIPELINE_CLI_COMMON_H

#include <stdbool.h>
#include <stdio.h>

#include "pipeline/progress.h"

/* Print the error to standard error; its exit code. */
int kn_cli_report(kn_status st);
/* SIGINT and SIGTERM: the first asks to stop at the next step, the second ends the process at once. */
void kn_cli_catch_signals(void);

typedef struct kn_cli_listener {
    kn_progress progress;
    int told;
} kn_cli_listener;

/* Opens the printing of progress as options ask for it; turns previews for a terminal off where none can be. */
void kn_cli_progress(kn_cli_listener *l, kn_options *o);
/* A kn_event_fn: prints, and answers whether a signal asked to stop. */
int kn_cli_on_event(void *user, const kn_event *event);

/* Defaults, flags, config file and preset. o is to be freed also after a failure. */
KN_CHECKED kn_status kn_cli_options(kn_options *o, int argc, char **argv);
/* kinora help; kinora help COMMAND, kinora help OPTION, false when there is no such one; kinora help --man. */
void kn_cli_help(FILE *f);
bool kn_cli_help_command(FILE *f, const char *name);
bool kn_cli_help_option(FILE *f, const char *name);
void kn_cli_man(void);

/* kinora bench ...; its exit code. */
int kn_cli_bench(int argc, char **argv);

/* kinora batch ...; its exit code. */
int kn_cli_batch(int argc, char **argv);

#endif
