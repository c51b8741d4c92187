/* server.h: a nats-server of a test's own: on a free port of loopback, with a store in a temporary
 * folder. It ends with the test, whatever becomes of that.
 *
 * Helpers fail the test themselves. */
#ifndef TESTS_UNIT_SERVER_H
#define TESTS_UNIT_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct td_loop;

struct support_server {
    pid_t pid; /* 0: it does not run */
    unsigned port;
    char folder[64];
    char url[64];
};

/* Starts it with JetStream and waits until it can be reached. config: more lines of its
 * configuration, or NULL. */
void support_server_start(struct support_server *server, const char *config);

/* Ends it by the signal; then it can be started again, on the same port and store. */
void support_server_kill(struct support_server *server, int signal);
void support_server_again(struct support_server *server);

/* Ends it and removes its folder; no-op when it was never started. */
void support_server_stop(struct support_server *server);

/* Turns the loop until done says so; fails the test after ten seconds. */
void support_turn(struct td_loop *loop, bool (*done)(void *context), void *context);

#endif
