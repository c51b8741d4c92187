/* cli.h: the commands that have a file of their own, and what they share: how they end, say what
 * is wrong, and where they keep their state.
 *
 * Threads: the main thread. */
#ifndef TD_CLI_CLI_H
#define TD_CLI_CLI_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"

struct option;
struct td_error;

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* argv[0] is the command's name; each returns an exit code. */
int td_cli_agent(int argc, char **argv);
int td_cli_down(int argc, char **argv);
int td_cli_hub(int argc, char **argv);
int td_cli_up(int argc, char **argv);

/* The next option as getopt_long has it, without its words: `letters` begins with ':'. -1 at the
 * end; '?' when it is wrong, or anything is left behind the last one, and that was said. */
int td_cli_option(int argc, char **argv, const char *letters, const struct option *options);

/* A descriptor that who started us has opened for us; from now on nobody else inherits it. */
bool td_cli_fd(const char *text, int *ret_fd);

/* A decimal number, at most `most`. */
bool td_cli_number(const char *text, uint64_t most, uint64_t *ret_number);

/* Says on standard error what is wrong with the command's arguments; returns EXIT_USAGE. */
int td_cli_usage(const char *command, const char *format, ...) TD_PRINTF(2, 3);

/* Says on standard error what went wrong; returns EXIT_FAILED. */
int td_cli_failed(const char *command, const struct td_error *err);

/* The default folder for what a command keeps: NAME in tendril/ of $XDG_STATE_HOME or
 * ~/.local/state. TD_EINVAL: there is no such variable and no home, or it is too long. */
int td_cli_folder(const char *name, char ret_path[PATH_MAX], struct td_error *err);

#endif
