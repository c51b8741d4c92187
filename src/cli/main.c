/* main.c: the command `tendril`. Each verb is a row of the table; `supervise` is not for people
 * (the pool starts it) and is therefore not in the help. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/text.h"
#include "cli/cli.h"
#include "pool/supervisor.h"

typedef int command_fn(int argc, char **argv); /* argv[0]: its name */

struct command {
    const char *name;
    const char *arguments;
    const char *help; /* NULL: not shown */
    command_fn *run;
};

static command_fn run_help, run_supervise, run_version;

static const struct command commands[] = {
    {"up", "[-n N]", "start a hub and agents on this machine", td_cli_up},
    {"down", "", "end what 'up' started", td_cli_down},
    {"agent", "--join", "run calls of a cluster on this machine", td_cli_agent},
    {"hub", "", "run a hub, where agents join and clients submit", td_cli_hub},
    {"version", "", "print the version", run_version},
    {"help", "", "print this text", run_help},
    {"supervise", "FD PID", NULL, run_supervise},
};

static int run_version(int argc, char **argv)
{
    (void)argc, (void)argv;
    (void)puts("tendril " TD_VERSION); /* a closed stdout is the user's wish */
    return EXIT_OK;
}

static int run_help(int argc, char **argv)
{
    (void)argc, (void)argv;
    (void)puts("Tendril runs Python functions on as many machines as the work wants.\n\n"
               "usage: tendril COMMAND\n");
    for (size_t i = 0; i < TD_COUNT(commands); i++)
        if (commands[i].help)
            (void)printf("  %-10s %-8s %s\n", commands[i].name, commands[i].arguments,
                         commands[i].help);
    (void)puts("\n'tendril COMMAND --help' says more of those that have options.\n"
               "From Python: import tendril; help(tendril.function)\n"
               "TENDRIL_PLACE=local runs decorated functions on this machine.");
    return EXIT_OK;
}

static int run_supervise(int argc, char **argv)
{
    struct td_error err = {0};
    uint64_t fd, pid;
    if (argc != 3 || td_text_u64(argv[1], strlen(argv[1]), &fd) < 0 || fd > 1 << 20 ||
        td_text_u64(argv[2], strlen(argv[2]), &pid) < 0 || pid > 1 << 30) {
        (void)fputs("tendril supervise: expects a descriptor and a process id\n", stderr);
        return EXIT_USAGE;
    }
    if (td_supervisor_run((int)fd, (pid_t)pid, &err) < 0) {
        (void)fprintf(stderr, "tendril supervise: %s\n", err.text);
        return EXIT_FAILED;
    }
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    for (size_t i = 0; i < TD_COUNT(commands); i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    (void)fprintf(stderr, "tendril: there is no command '%s'; see 'tendril help'\n", name);
    return EXIT_USAGE;
}
