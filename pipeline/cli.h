/* pipeline/cli.h - the command line.
 *
 * Purpose   kinora COMMAND [options]. Everything that prints or ends the process
 *           is here or in main.c.
 * Exit      0 done; 1 some jobs of a batch failed; 2 usage or a bad option; 3 a file, folder or model that does not fit; 4 memory or
 *           device; 5 not supported by this build or device; 6 NaN in the computation; 70 a bug in
 *           Kinora; 130 stopped by a signal.
 */
#ifndef KN_PIPELINE_CLI_H
#define KN_PIPELINE_CLI_H

#include "io/status.h"

typedef struct kn_command {
    const char *name, *usage, *about;
    const char *options; /* for kn_options_print_help; NULL: takes none of the table */
} kn_command;

/* All commands, for help, man page and completion; one without a name ends the list. */
extern const kn_command kn_commands[];

/* Runs one command; returns the exit code. */
int kn_cli_main(int argc, char **argv);
int kn_cli_exit_code(kn_status st);

#endif
