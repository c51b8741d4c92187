/* zygote.h: makes runners of one profile, quickly: a process that has imported what they need
 * and forks them on request. Where forking would be unsafe (an import started threads) or the
 * zygote does not come up, each runner is started as a program of its own instead.
 *
 *      STARTING --ready, one thread--> FORKING --died--> (next request) STARTING
 *          |                               +--too slow to answer--+
 *          +--ready, more threads; died again; too slow-----------+--> EXECUTING, for good
 *
 * Threads: the supervisor's loop. Lifetime: td_zygote_new .. td_zygote_free, which kills it. */
#ifndef TD_POOL_ZYGOTE_H
#define TD_POOL_ZYGOTE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct td_error;
struct td_loop;
struct td_profile;
struct td_zygote;

enum { TD_ZYGOTE_FDS = 3 }; /* a runner's channel, its output, its error output */

struct td_zygote_events {
    /* The runner runs as pid, which is or becomes a child of this process. */
    void (*started)(void *context, uint32_t runner, pid_t pid);
    /* The runner could not be started; reason is a sentence. */
    void (*failed)(void *context, uint32_t runner, const char *reason);
};

/* Takes *profile. Starts the process at once; it is given up when it takes longer than patience_ns
 * to import, or to fork. TD_ENOMEM, TD_ELIMIT, TD_ESYS. */
int td_zygote_new(struct td_loop *loop, struct td_profile **profile, int64_t patience_ns,
                  const struct td_zygote_events *events, void *context,
                  struct td_zygote **ret_zygote, struct td_error *err);
struct td_zygote *td_zygote_free(struct td_zygote *zygote); /* accepts NULL, returns NULL */

const struct td_profile *td_zygote_profile(const struct td_zygote *zygote);

/* Starts a runner on the descriptors, which it takes (sets to -1). The answer comes by event,
 * perhaps before this returns. */
void td_zygote_start(struct td_zygote *zygote, uint32_t runner, int fds[TD_ZYGOTE_FDS]);

/* The process `pid` of this supervisor ended: true when it was this zygote's. */
bool td_zygote_reaped(struct td_zygote *zygote, pid_t pid);

/* Learns now what the zygote has said already, so that no runner of its is taken for a stranger.
 * True: it still owes answers. */
bool td_zygote_settle(struct td_zygote *zygote);

pid_t td_zygote_pid(const struct td_zygote *zygote); /* 0 when none runs */

#endif
