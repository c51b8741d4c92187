/* hub.h: the service that makes a cluster: it runs a nats-server, lets clients and agents in by
 * their tokens, and makes the streams that calls and outcomes travel through. No call passes it.
 *
 *      hub --- nats-server <==== agents, clients (each with its token)
 *       \_________/ user "hub"
 *
 * Everything of a cluster lies in its folder, which is locked: the server's configuration, log and
 * store, hub.pid, and a token of each role, where the secrets are kept. So tokens stay valid when
 * the hub is started again; one that is deleted is made anew then, and the old one refused.
 * Threads: the main thread, which it keeps until a signal ends it. */
#ifndef TD_HUB_HUB_H
#define TD_HUB_HUB_H

#include <stdint.h>

struct td_error;

struct td_hub_options {
    const char *folder;  /* made if need be */
    const char *listen;  /* HOST:PORT, loopback only; port 0: the one as before, else any */
    const char *program; /* nats-server; NULL: see program.h */
    const char *client_token, *agent_token; /* where to write copies of them; NULL: nowhere */
    int64_t memory_max, store_max;          /* bytes for streams; 0: defaults, see server.h */
    int ready_fd; /* gets one byte when all is ready, and is closed; -1: none */
    /* A line about what happens, without a newline, for the log. */
    void (*say)(void *context, const char *line);
    void *context;
};

/* Could they be right? TD_EINVAL. Looks at nothing but them. */
int td_hub_check(const struct td_hub_options *options, struct td_error *err);

/* Runs the hub until SIGTERM, SIGINT or SIGHUP, then ends the server. 0; TD_EEXISTS: another one
 * uses the folder, or another program the port; TD_EINVAL, TD_ECLOSED (the server cannot run) and
 * what td_server_new, td_nats_new, td_file_folder and td_token_read return. */
int td_hub_run(const struct td_hub_options *options, struct td_error *err);

#endif
