/* server.h: the nats-server of a hub: a child process that is configured, started, and started
 * again when it dies.
 *
 *      td_server_new --> starting --ready--> ready --died--> pause --> starting --> ...
 *                            |                                  ^________|
 *                            +--never was ready--> failed
 *
 * It is ready when it says so itself: to whom connects it says its name and whether it has
 * JetStream, and nothing else has that name. Everything of it lies in one folder: configuration
 * (with passwords), log, pid file and store. One that a killed hub left behind is ended first.
 * Threads: the loop thread. Lifetime: td_server_new .. td_server_free, not inside a callback. */
#ifndef TD_HUB_SERVER_H
#define TD_HUB_SERVER_H

#include <stdint.h>
#include <sys/types.h>

struct td_error;
struct td_loop;
struct td_program;
struct td_server;

/* Users client, agent and hub may connect, each with its secret. */
struct td_server_options {
    const char *folder;  /* an absolute path; it is there, and ours alone */
    const char *name;    /* of the server, among all: letters, digits, hyphens */
    const char *host;    /* an address in numbers */
    uint16_t port;       /* not 0 */
    const char *program; /* NULL: see program.h */
    const char *client_secret, *agent_secret, *hub_secret; /* base64url */
    int64_t memory_max, store_max; /* bytes for streams, in memory and on disk; 0: a default */
};

/* Every text is borrowed during the call. Nothing is called before td_server_new has returned. */
struct td_server_events {
    void (*ready)(void *context); /* also each time that it was started again */
    void (*died)(void *context, const char *reason, int64_t pause_ns); /* will start after that */
    void (*failed)(void *context, const char *reason); /* for good: it never was ready */
};

/* Starts it; blocks until it is known which version the program has. The strings are copied.
 * As td_program_find and td_port_check; TD_EINVAL, TD_ENOMEM, TD_ETIMEOUT, TD_ESYS. */
int td_server_new(struct td_loop *loop, const struct td_server_options *options,
                  const struct td_server_events *events, void *context,
                  struct td_server **ret_server, struct td_error *err);

/* Ends it: asks, waits for some seconds, kills. Accepts NULL, returns NULL. */
struct td_server *td_server_free(struct td_server *server);

const struct td_program *td_server_program(const struct td_server *server);
pid_t td_server_pid(const struct td_server *server); /* 0: it does not run just now */

/* Ends the one that a killed hub left behind in its folder, if any; td_server_new does so, too.
 * TD_EINVAL: its pid file is damaged. */
int td_server_end_left(const char *folder, struct td_error *err);

#endif
