/* agent.c: `tendril agent`. */
#include "agent/agent.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "bus/token.h"
#include "cli/cli.h"
#include "os/clock.h"

enum { CORES_MAX = 4096, DRAIN_S = 600, DRAIN_S_MAX = 7 * 24 * 3600 };

static const char help[] =
    "usage: tendril agent --join FILE [--cores N] [--pool NAME] [--python PATH] [--folder DIR]\n"
    "                     [--drain SECONDS]\n"
    "\n"
    "Runs calls of a cluster on this machine until it is ended (Ctrl-C or SIGTERM): then it\n"
    "finishes what it has begun, hands back the rest and leaves; a second signal hands back all.\n"
    "\n"
    "  --join FILE      the agent token that 'tendril hub' has written; - is standard input\n"
    "                   (default $TENDRIL_JOIN_FILE)\n"
    "  --cores N        calls at once (default: the cores of this machine)\n"
    "  --pool NAME      whose calls to take (default: default)\n"
    "  --python PATH    the interpreter that runs functions (default: the one that has the path\n"
    "                   of the caller's, else python3)\n"
    "  --folder DIR     where calls run whose caller's folder is not here (default /tmp)\n"
    "  --drain SECONDS  how long calls may go on when it is ended (default 600)\n"
    "\n"
    "Example:\n"
    "  scp head:agent.token . && chmod 600 agent.token\n"
    "  tendril agent --join agent.token\n";

enum { JOIN = 256, CORES, POOL, PYTHON, FOLDER, DRAIN, READY_FD };

static const struct option options[] = {
    {"join", required_argument, NULL, JOIN},
    {"cores", required_argument, NULL, CORES},
    {"pool", required_argument, NULL, POOL},
    {"python", required_argument, NULL, PYTHON},
    {"folder", required_argument, NULL, FOLDER},
    {"drain", required_argument, NULL, DRAIN},
    {"ready-fd", required_argument, NULL, READY_FD}, /* for `tendril up` and its like */
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int run(struct td_agent_options agent, const char *join)
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
                         "this token is for a %s; an agent joins by the token for agents",
                         token.role);
    agent.token = &token;
    agent.supervisor_path = self;
    if (r == 0)
        r = td_agent_run(&agent, &err);
    return r < 0 ? td_cli_failed("agent", &err) : EXIT_OK;
}

int td_cli_agent(int argc, char **argv)
{
    struct td_agent_options agent = {
        .folder = "/tmp", .drain_ns = DRAIN_S * TD_NS_PER_S, .ready_fd = -1};
    const char *join = getenv("TENDRIL_JOIN_FILE");
    uint64_t value = 0;
    for (;;) {
        int option = td_cli_option(argc, argv, ":h", options);
        if (option == -1)
            break;
        switch (option) {
        case JOIN: join = optarg; break;
        case POOL: agent.pool = optarg; break;
        case PYTHON: agent.python = optarg; break;
        case FOLDER: agent.folder = optarg; break;
        case CORES:
            if (!td_cli_number(optarg, CORES_MAX, &value) || value == 0)
                return td_cli_usage("agent", "--cores '%s' is not a number of cores", optarg);
            agent.slots = (unsigned)value;
            break;
        case DRAIN:
            if (!td_cli_number(optarg, DRAIN_S_MAX, &value))
                return td_cli_usage("agent", "--drain '%s' is not a number of seconds", optarg);
            agent.drain_ns = (int64_t)value * TD_NS_PER_S;
            break;
        case READY_FD:
            if (!td_cli_fd(optarg, &agent.ready_fd))
                return td_cli_usage("agent", "--ready-fd '%s' is not an open descriptor", optarg);
            break;
        case 'h': return fputs(help, stdout) < 0 ? EXIT_FAILED : EXIT_OK;
        default: return EXIT_USAGE;
        }
    }
    if (!join)
        return td_cli_usage("agent", "--join FILE says which cluster");
    return run(agent, join);
}
