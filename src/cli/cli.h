/* cli.h: the commands of `tendril`, each in a file of its own; main.c has the table. */
#ifndef TD_CLI_CLI_H
#define TD_CLI_CLI_H

enum exit_code { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Arguments behind the command's name; the exit code. */
typedef int td_command_fn(int argc, char **argv);

td_command_fn td_command_agent;

#endif
