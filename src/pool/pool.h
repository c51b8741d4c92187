/* pool.h: the runners of one machine: starts them, talks to them, hears what they print, and
 * knows when they are gone. It decides nothing; the node does.
 *
 *      pool ==channel== supervisor            start, kill, gone
 *      pool ==channel== runner                DESK, FUNCTION, CALL / HELLO, FINISH, IDLE, GUEST
 *      pool ==memory=== runner                the desk (desk.h)
 *      pool <--2 pipes-- runner               what is written to descriptors 1 and 2
 *
 * Invariants: every runner that td_pool_start was called for gives exactly one `gone`, after all
 * its other events; its output and messages up to its end are delivered before.
 * Threads: the loop thread. Lifetime: td_pool_new .. td_pool_free; freeing ends every process of
 * the pool, waits for that (at most TD_POOL_END_NS), and gives no events. */
#ifndef TD_POOL_POOL_H
#define TD_POOL_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "pool/death.h"

struct td_blob;
struct td_desk;
struct td_error;
struct td_loop;
struct td_message;
struct td_pool;
struct td_runner_spec;

#define TD_POOL_END_NS ((int64_t)3000000000)

struct td_pool_death {
    enum td_death cause;
    bool unread; /* it had not read all that was sent to it: its last message never reached it */
    int code;    /* EXITED, KILLED: exit code, or minus the signal's number */
    pid_t pid;
    uint64_t peak_bytes;
    struct td_bytes detail; /* why it was not started, or killed; may be empty */
    struct td_desk *desk;   /* what it has left on it; borrowed */
};

struct td_pool_events {
    void (*up)(void *context, uint32_t runner);
    /* FINISH, IDLE and what else a runner says; borrowed during the call. */
    void (*message)(void *context, uint32_t runner, const struct td_message *message);
    /* The runner's call has a client of its own behind this socket, which is the receiver's. */
    void (*guest)(void *context, uint32_t runner, int fd);
    void (*output)(void *context, uint32_t runner, int stream, struct td_bytes text);
    void (*gone)(void *context, uint32_t runner, const struct td_pool_death *death);
    /* What td_pool_supervisor and td_pool_limits say has changed. */
    void (*supervisor)(void *context);
};

struct td_pool_options {
    const char *supervisor_path; /* the tendril program; copied */
};

int td_pool_new(struct td_loop *loop, const struct td_pool_options *options,
                const struct td_pool_events *events, void *context, struct td_pool **ret_pool,
                struct td_error *err);
struct td_pool *td_pool_free(struct td_pool *pool); /* accepts NULL, returns NULL */

/* The number of a profile: an equal one's, or a new one, whose zygote starts warming up if it can.
 * Those unused longest are dropped beyond a maximum. TD_EINVAL, TD_ENOMEM. */
int td_pool_profile(struct td_pool *pool, const struct td_runner_spec *spec, uint32_t *ret_profile,
                    struct td_error *err);

/* Starts a runner under a number of the caller's choice; `up` or `gone` follows. On failure there
 * is no event. TD_ELIMIT (open files), TD_ENOMEM, TD_ENOSUPERVISOR. */
int td_pool_start(struct td_pool *pool, uint32_t runner, uint32_t profile, struct td_error *err);

/* Sends a message with its tail (may be NULL). TD_ECLOSED, TD_ENOMEM, TD_ELIMIT. */
int td_pool_send(struct td_pool *pool, uint32_t runner, const struct td_message *message,
                 struct td_blob *tail);

/* Ends the runner and all its processes; `gone` follows, with the reason if this is what it died
 * of: a constant sentence, or NULL. */
void td_pool_kill(struct td_pool *pool, uint32_t runner, const char *reason);

/* Delivers what the runner has written so far, and, with read, what it has said. */
void td_pool_hear(struct td_pool *pool, uint32_t runner);
void td_pool_read(struct td_pool *pool, uint32_t runner);

/* The memory shared with it; NULL for an unknown runner. */
struct td_desk *td_pool_desk(const struct td_pool *pool, uint32_t runner);

/* Back-pressure: a muted runner is not heard, so that it waits once it has printed much. */
void td_pool_mute(struct td_pool *pool, uint32_t runner, bool muted);

pid_t td_pool_pid(const struct td_pool *pool, uint32_t runner); /* 0 when not known */
const char *td_pool_limits(const struct td_pool *pool); /* how memory is limited: "cgroup v1" */
pid_t td_pool_supervisor(const struct td_pool *pool);   /* 0 when none runs */

#endif
