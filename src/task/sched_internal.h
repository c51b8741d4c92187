/* sched_internal.h: the scheduler's state, and the moves between states, for the files of sched.
 *
 *      sched.c        events: what happened
 *      sched_move.c   moves: a call or runner changes its state; the slots are counted here
 *      sched_next.c   decisions: what to do now
 *      sched_check.c  invariants
 *
 * Moves are named by their ends and never need memory they may not get. */
#ifndef TD_TASK_SCHED_INTERNAL_H
#define TD_TASK_SCHED_INTERNAL_H

#include "base/heap.h"
#include "base/idmap.h"
#include "base/list.h"
#include "task/sched.h"

enum call_state { CALL_READY, CALL_RUNNING, CALL_STOPPING, CALL_WAITING, CALL_DONE };
enum runner_state { RUNNER_STARTING, RUNNER_IDLE, RUNNER_BUSY, RUNNER_STOPPING };

struct profile {
    uint32_t id;
    unsigned runners;    /* in any state but STOPPING */
    unsigned starting;   /* of these, STARTING */
    unsigned failures;   /* starts that failed since the last that worked */
    int64_t start_at_ns; /* no start before this time */
};

struct map {
    struct td_list link; /* td_sched.maps, in the order of their turn */
    struct td_sched_map spec;
    struct profile *profile;
    struct td_list calls; /* struct call.of_map */
    uint64_t backlog;
    unsigned asked;   /* fetches under way */
    unsigned waiting; /* calls in CALL_WAITING */
    bool cancelled;
};

struct runner {
    struct td_list link; /* td_sched.runners; idle ones: least recently used first */
    struct profile *profile;
    uint32_t id;
    enum runner_state state;
    bool lent;
    bool kill_due;     /* STOPPING: the KILL action was not handed out yet */
    struct call *call; /* BUSY, and STOPPING when it took a call with it */
};

struct call {
    struct td_list of_map;
    struct td_list link;       /* READY: td_sched.ready; DONE: td_sched.done */
    struct td_heap_entry when; /* WAITING: next attempt; RUNNING: end of the timeout */
    struct map *map;
    struct runner *runner; /* RUNNING, STOPPING */
    struct td_blob *args;
    struct td_outcome *outcome; /* made with the call, so that ending it never needs memory */
    enum call_state state;
    uint8_t stop_status; /* STOPPING: the outcome it will have */
    unsigned unread;     /* runners that died before they had read it */
};

struct td_sched {
    struct td_sched_options options;
    struct td_idmap map_by_id;
    struct td_idmap runner_by_id;
    struct td_idmap profile_by_id;
    struct td_list maps;
    struct td_list dropped; /* cancelled maps without calls, to be told of */
    struct td_list runners;
    struct td_list ready;
    struct td_list done;
    struct td_heap timers;
    unsigned used; /* cost of asked, ready, running and stopping calls, less what is lent */
    uint32_t last_runner;
    int64_t seen_ns; /* the latest time anybody told us */
};

/* Frees it and takes it out of every table; a map with its calls. */
void td_call_free(struct td_sched *sched, struct call *call);
void td_lane_free(struct td_sched *sched, struct map *map);
void td_runner_free(struct td_sched *sched, struct runner *runner);

/* A cancelled map that has nothing left is on its way out: it is put among the dropped. */
void td_lane_settle(struct td_sched *sched, struct map *map);

bool td_call_takes_slots(const struct call *call);
void td_call_move(struct td_sched *sched, struct call *call, enum call_state state);

void td_call_any_to_done(struct td_sched *sched, struct call *call, uint8_t status);
void td_call_any_to_ready(struct td_sched *sched, struct call *call);
/* A failed attempt (call->outcome tells how): another one later, or the end. */
void td_call_running_to_waiting_or_done(struct td_sched *sched, struct call *call, int64_t now);
/* The call ends with this status once its runner is gone. */
void td_call_running_to_stopping(struct td_sched *sched, struct call *call, uint8_t status);

void td_runner_any_to_idle(struct td_sched *sched, struct runner *runner);
void td_runner_any_to_stopping(struct runner *runner);

#endif
