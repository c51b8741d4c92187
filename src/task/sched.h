/* sched.h: what one machine does next: which calls to fetch, which runner gets which, what to
 * try again, what to stop. The decisions of "place" and "finish", pure.
 *
 * (state, event, now) -> actions. The node feeds events in and carries out the actions that
 * td_sched_next hands over; nothing here does I/O or reads a clock, so simulations drive this
 * very code.
 *
 * Its unit is the batch: calls of one map that follow each other and were packed together. A
 * runner goes through a batch in order, and each call leaves it with its outcome:
 *
 *      fetched --> READY --RUN--> RUNNING --finished, call by call--> FINISH
 *                    ^               | what is left when its runner is idle, dies or is cut off
 *                    +---- HELD <----+
 *                           ^        | a failed call, attempts left
 *                           +--WAITING
 *                                (RUNNING --KILL--> STOPPING --gone--> FINISH)
 *
 * A call that takes long never holds back others: a batch that runs longer than expected is cut
 * off behind the call at which it is, and the rest goes to other runners.
 *
 * Invariants (td_sched_check): a batch is in one state; the cost of what is asked for, ready and
 * running (less what is lent) is counted in slots, and nothing is fetched or taken from the held
 * beyond them, except that one batch may always run; each fetched call is in exactly one FINISH.
 * Threads: one owner. Times: ns on one monotonic clock, never going back. */
#ifndef TD_TASK_SCHED_H
#define TD_TASK_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct td_blob;
struct td_outcome;
struct td_sched;

struct td_sched_options {
    unsigned slots;       /* cost that may run at once; one slot is one core */
    unsigned runners_max; /* processes, those lent to nested maps included */
    unsigned idle_max;    /* runners that are kept warm for later; those idle longest go */
    unsigned waiting_max; /* batches of one map that wait for a later attempt before fetching
                             pauses */
};

struct td_sched_map {
    uint64_t id;
    uint32_t profile;   /* what kind of runner its calls need */
    unsigned cost;      /* slots a runner with its calls takes; at least 1, cut to what there is */
    uint32_t retries;   /* further attempts after a failed one */
    int64_t timeout_ns; /* for one attempt; 0: none */
    uint32_t depth; /* of nesting: calls of a map's own nested maps go before its further ones */
    uint64_t root;  /* the outermost map of its family; equal for all of it */
};

enum td_action_type {
    TD_ACTION_FETCH,  /* ask the bus for a batch of `map` */
    TD_ACTION_START,  /* start runner `runner` of kind `profile` */
    TD_ACTION_RUN,    /* send the batch (map, index, count, skip, attempt, args) to `runner` */
    TD_ACTION_CUT,    /* let `runner` begin no further call of its batch; then td_sched_cut */
    TD_ACTION_KILL,   /* end `runner` with all its processes */
    TD_ACTION_FINISH, /* `outcome` is final */
    TD_ACTION_DROP,   /* the cancelled map `map` has no call left: forget it */
};

struct td_action {
    enum td_action_type type;
    uint32_t runner;
    uint32_t profile;
    uint32_t attempt;
    uint32_t count;
    uint32_t skip; /* calls of others that come first in args */
    uint64_t map;
    uint64_t index;
    struct td_blob *args;       /* RUN: borrowed until the next event */
    struct td_outcome *outcome; /* FINISH: the receiver's */
};

int td_sched_new(struct td_sched_options options, struct td_sched **ret_sched);
struct td_sched *td_sched_free(struct td_sched *sched); /* accepts NULL, returns NULL */

/* Maps. TD_EEXISTS, TD_ENOMEM. */
int td_sched_map_add(struct td_sched *sched, const struct td_sched_map *map);
/* How many batches of the map wait at the bus. Unknown maps are ignored, here and below. */
void td_sched_backlog(struct td_sched *sched, uint64_t map, uint64_t waiting);
/* No more fetching; what is held ends CANCELLED; the map is forgotten when its last call is. */
void td_sched_map_cancel(struct td_sched *sched, uint64_t map, int64_t now);

/* Slots that are free: for a batch that comes now, as far as they go. */
unsigned td_sched_room(const struct td_sched *sched);

/* Fetching: a batch came (takes a reference to args, where those of `skip` other calls come first),
 * or one that was asked for will not come. TD_ENOTFOUND: the map is unknown or cancelled; the batch
 * is not taken. TD_ENOMEM. */
int td_sched_fetched(struct td_sched *sched, uint64_t map, uint64_t index, uint32_t count,
                     uint32_t skip, struct td_blob *args, int64_t now);
void td_sched_fetch_failed(struct td_sched *sched, uint64_t map);

/* Runners. A late message of a runner or of an earlier attempt is ignored (false). */
void td_sched_runner_up(struct td_sched *sched, uint32_t runner, int64_t now);
/* The runner's next calls have ended. Takes *outcome: OK of any number of calls, or RAISED of
 * one. False, and ignored: they are not the next calls of its batch, or are being cancelled. */
bool td_sched_finished(struct td_sched *sched, uint32_t runner, struct td_outcome **outcome,
                       int64_t now);
/* It has come to the end of its batch, or leaves the rest to others. retire: it may not be used
 * again. */
void td_sched_idle(struct td_sched *sched, uint32_t runner, bool retire, int64_t now);
/* Done what TD_ACTION_CUT asked for: the runner keeps its calls below `end`, of which the one that
 * runs began at since_ns. */
void td_sched_cut(struct td_sched *sched, uint32_t runner, uint64_t end, int64_t since_ns,
                  int64_t now);
/* The runner is no more. Takes *post_mortem: CRASHED, OUT_OF_MEMORY or NOT_STARTED with what is
 * known (NULL: nothing); it becomes the outcome of the call that was on it, if any: the next that
 * has not finished. */
void td_sched_runner_gone(struct td_sched *sched, uint32_t runner, struct td_outcome **post_mortem,
                          int64_t now);
/* The runner's call waits for a map of its own: its slots go to others until it is back. */
void td_sched_lent(struct td_sched *sched, uint32_t runner, bool lent, int64_t now);

void td_sched_tick(struct td_sched *sched, int64_t now);

/* The next time td_sched_tick has something to do; INT64_MAX for never. */
int64_t td_sched_deadline(const struct td_sched *sched);

/* Takes the next action. False: none is left; wait for an event. */
bool td_sched_next(struct td_sched *sched, int64_t now, struct td_action *ret_action);

/* Asserts the invariants; for tests and simulations. */
void td_sched_check(const struct td_sched *sched);

#endif
