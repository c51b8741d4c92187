/* hub.c: `tendril hub`. */
#include "hub/hub.h"

#include <getopt.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"

static const char help[] =
    "usage: tendril hub [--listen HOST:PORT] [--folder DIR] [--nats-server PATH]\n"
    "                   [--client-token FILE] [--agent-token FILE]\n"
    "\n"
    "Runs a hub until it is ended (Ctrl-C or SIGTERM): a nats-server, where agents join and\n"
    "clients submit. Who has a token is let in; tokens stay valid when the hub is started again.\n"
    "\n"
    "  --listen HOST:PORT   where to listen, on loopback (default 127.0.0.1:4222); port 0: the\n"
    "                       one as before, else any that is free\n"
    "  --folder DIR         where everything of it is kept; it is made if need be (default\n"
    "                       tendril/hub in $XDG_STATE_HOME or ~/.local/state)\n"
    "  --nats-server PATH   the program (default $TENDRIL_NATS_SERVER, else nats-server in PATH\n"
    "                       or /usr/sbin)\n"
    "  --client-token FILE  where to write a copy of DIR/client.token: for who submits\n"
    "  --agent-token FILE   where to write a copy of DIR/agent.token: for machines that join\n"
    "\n"
    "Example:\n"
    "  tendril hub --listen 127.0.0.1:4222 --client-token ~/client.token &\n"
    "  TENDRIL_PLACE=~/client.token python my_script.py\n";

enum { LISTEN = 256, FOLDER, NATS_SERVER, CLIENT_TOKEN, AGENT_TOKEN, READY_FD };

static const struct option options[] = {
    {"listen", required_argument, NULL, LISTEN},
    {"folder", required_argument, NULL, FOLDER},
    {"nats-server", required_argument, NULL, NATS_SERVER},
    {"client-token", required_argument, NULL, CLIENT_TOKEN},
    {"agent-token", required_argument, NULL, AGENT_TOKEN},
    {"ready-fd", required_argument, NULL, READY_FD}, /* for `tendril up` and its like */
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void say(void *context, const char *line)
{
    (void)context;
    (void)fprintf(stderr, "tendril hub: %s\n", line); /* a closed log is the user's wish */
}

int td_cli_hub(int argc, char **argv)
{
    char folder[PATH_MAX];
    struct td_error err = {0};
    struct td_hub_options hub = {.listen = "127.0.0.1:4222", .ready_fd = -1, .say = say};
    for (;;) {
        int option = td_cli_option(argc, argv, ":h", options);
        if (option == -1)
            break;
        switch (option) {
        case LISTEN: hub.listen = optarg; break;
        case FOLDER: hub.folder = optarg; break;
        case NATS_SERVER: hub.program = optarg; break;
        case CLIENT_TOKEN: hub.client_token = optarg; break;
        case AGENT_TOKEN: hub.agent_token = optarg; break;
        case READY_FD:
            if (!td_cli_fd(optarg, &hub.ready_fd))
                return td_cli_usage("hub", "--ready-fd '%s' is not an open descriptor", optarg);
            break;
        case 'h': return fputs(help, stdout) < 0 ? EXIT_FAILED : EXIT_OK;
        default: return EXIT_USAGE;
        }
    }
    if (td_hub_check(&hub, &err) < 0)
        return td_cli_usage("hub", "--listen: %s", err.text);
    if (!hub.folder && td_cli_folder("hub", folder, &err) < 0)
        return td_cli_failed("hub", &err);
    hub.folder = hub.folder ? hub.folder : folder;
    return td_hub_run(&hub, &err) < 0 ? td_cli_failed("hub", &err) : EXIT_OK;
}
