#include "pipeline/cli.h"

int main(int argc, char **argv) { return kn_cli_main(argc, argv); }
