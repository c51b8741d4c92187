#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/err.h"
#include "base/text.h"
#include "bus/token.h"
#include "cli/cli.h"
#include "os/clock.h"

enum { SLOTS_MAX = 4096, DRAIN_S = 600, DRAIN_S_MAX = 7 * 24 * 3600, FD_MAX = 1 << 20 };

static const char usage[] =
    "usage: tendril agent --join FILE [options]\n"
    "\n"
    "Runs calls of a cluster on this machine, until it is told to end (SIGTERM): then it finishes\n"
    "what it has begun, hands back the rest and leaves.\n"
    "\n"
    "  --join FILE       the agent token that `tendril hub` has written; - is standard input,\n"
    "                    and without it TENDRIL_JOIN_FILE names it\n"
    "  --cores N         calls at once (all of this machine's)\n"
    "  --pool NAME       whose calls to take (default)\n"
    "  --python PATH     the interpreter that runs functions (the one by the path of the\n"
    "                    caller's, else python3)\n"
    "  --folder DIR      where calls run whose caller's folder is not here (/tmp)\n"
    "  --drain SECONDS   how long calls may go on when it is told to end (600)\n"
    "\n"
    "example:  scp hub:agent.token . && chmod 600 agent.token && tendril agent --join "
    "agent.token\n";

static int complain(const char *what, const char *value)
{
    (void)fprintf(stderr, "tendril agent: %s%s; see tendril agent --help\n", what, value);
    return EXIT_USAGE;
}

static bool number(const char *text, uint64_t most, uint64_t *ret_number)
{
    return td_text_u64(text, strlen(text), ret_number) == 0 && *ret_number <= most;
}

static int run(struct td_agent_options options, const char *join)
{
    char self[PATH_MAX];
    struct td_error err = {0};
    struct td_token token;
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    int r = len < 0 ? td_error_set(&err, TD_ESYS, "/proc/self/exe cannot be read") : 0;
    self[len < 0 ? 0 : len] = '\0';
    if (r == 0)
        r = td_token_read(join, &token, &err);
    if (r == 0 && strcmp(token.role, "agent") != 0)
        r = td_error_set(&err, TD_EINVAL,
                         "this token is for a %s: an agent joins by the token for agents",
                         token.role);
    options.token = &token;
    options.supervisor_path = self;
    if (r == 0)
        r = td_agent_run(&options, &err);
    if (r == 0)
        return EXIT_OK;
    (void)fprintf(stderr, "tendril agent: %s\n", err.text);
    return EXIT_FAILED;
}

int td_command_agent(int argc, char **argv)
{
    static const struct option known[] = {{"join", required_argument, NULL, 'j'},
                                          {"cores", required_argument, NULL, 'c'},
                                          {"pool", required_argument, NULL, 'p'},
                                          {"python", required_argument, NULL, 'y'},
                                          {"folder", required_argument, NULL, 'f'},
                                          {"drain", required_argument, NULL, 'd'},
                                          {"ready-fd", required_argument, NULL, 'r'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct td_agent_options options = {
        .folder = "/tmp", .drain_ns = DRAIN_S * TD_NS_PER_S, .ready_fd = -1};
    argc++, argv--; /* getopt passes over the command's name */
    const char *join = getenv("TENDRIL_JOIN_FILE");
    uint64_t value = 0;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'j': join = optarg; break;
        case 'p': options.pool = optarg; break;
        case 'y': options.python = optarg; break;
        case 'f': options.folder = optarg; break;
        case 'c':
            if (!number(optarg, SLOTS_MAX, &value) || value == 0)
                return complain("not a number of cores: ", optarg);
            options.slots = (unsigned)value;
            break;
        case 'd':
            if (!number(optarg, DRAIN_S_MAX, &value))
                return complain("not a number of seconds: ", optarg);
            options.drain_ns = (int64_t)value * TD_NS_PER_S;
            break;
        case 'r':
            if (!number(optarg, FD_MAX, &value) || fcntl((int)value, F_SETFD, FD_CLOEXEC) < 0)
                return complain("not an open descriptor: ", optarg);
            options.ready_fd = (int)value;
            break;
        case 'h': (void)fputs(usage, stdout); return EXIT_OK;
        default: return complain("what is asked for is not known", "");
        }
    }
    if (optind < argc)
        return complain("there is no argument ", argv[optind]);
    if (!join)
        return complain("--join says which cluster", "");
    return run(options, join);
}
