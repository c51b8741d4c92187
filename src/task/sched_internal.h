/* sched_internal.h: the scheduler's state, and the moves between states, for the files of sched.
 *
 *      sched.c        events: what happened
 *      sched_move.c   moves: a batch or runner changes its state; the slots are counted here
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

enum batch_state { BATCH_READY, BATCH_RUNNING, BATCH_STOPPING, BATCH_WAITING, BATCH_HELD };
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
    struct td_list batches; /* struct batch.of_map */
    struct td_list held;    /* those in BATCH_HELD, by struct batch.link */
    uint64_t backlog;
    unsigned asked;   /* fetches under way */
    unsigned waiting; /* batches in BATCH_WAITING */
    bool cancelled;
};

struct runner {
    struct td_list link; /* td_sched.runners; idle ones: least recently used first */
    struct profile *profile;
    uint32_t id;
    enum runner_state state;
    bool lent;
    bool kill_due;       /* STOPPING: the KILL action was not handed out yet */
    struct batch *batch; /* BUSY, and STOPPING when it took a batch with it */
};

/* Calls [outcome->index, + outcome->count) of the map; of one that runs, those that have not
 * finished, so that a runner may have one with none left. */
struct batch {
    struct td_list of_map;
    struct td_list link;       /* READY: td_sched.ready; HELD: map.held */
    struct td_heap_entry when; /* WAITING: next attempt; RUNNING: a look at it, or its timeout */
    struct map *map;
    struct runner *runner; /* RUNNING, STOPPING */
    struct td_blob *args;
    uint64_t origin;            /* the call whose arguments come first in args */
    struct td_outcome *outcome; /* made with the batch, so that ending it never needs memory */
    struct batch *spare;        /* while it is being cut: for the rest */
    enum batch_state state;
    uint8_t stop_status; /* STOPPING: the outcome it will have */
    unsigned unread;     /* runners that died before they had read it */
    bool packed;         /* RUNNING: it was sent as more than one call */
    bool cut_due;        /* RUNNING: the CUT action was not handed out yet */
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
    struct td_list outcomes; /* to be handed out as FINISH */
    struct td_heap timers;
    unsigned used; /* cost of asked, ready, running and stopping batches, less what is lent */
    uint32_t last_runner;
    int64_t seen_ns; /* the latest time anybody told us */
};

/* Frees it and takes it out of every table; a map with its batches. */
void td_batch_free(struct td_sched *sched, struct batch *batch);
void td_lane_free(struct td_sched *sched, struct map *map);
void td_runner_free(struct td_sched *sched, struct runner *runner);

/* A cancelled map that has nothing left is on its way out: it is put among the dropped. */
void td_lane_settle(struct td_sched *sched, struct map *map);

bool td_batch_takes_slots(const struct batch *batch);
void td_batch_move(struct td_sched *sched, struct batch *batch, enum batch_state state);

/* A batch of the map with these calls, in no list yet; a move to another state follows. NULL when
 * memory is out. */
struct batch *td_batch_new(struct map *map, uint64_t index, uint32_t count, struct td_blob *args,
                           uint64_t origin);
/* Takes the calls from `index` on into `rest`, which td_batch_new made for them and which is one of
 * the map's from now on. */
void td_batch_cut(struct batch *batch, uint64_t index, struct batch *rest);

/* All that is left of it ends with this status. */
void td_batch_any_to_end(struct td_sched *sched, struct batch *batch, uint8_t status);
void td_batch_any_to_ready(struct td_sched *sched, struct batch *batch);
void td_batch_any_to_held(struct td_sched *sched, struct batch *batch);
/* A failed attempt (batch->outcome tells how): another one later, or the end. */
void td_batch_any_to_waiting_or_end(struct td_sched *sched, struct batch *batch, int64_t now);
/* It ends with this status once its runner is gone. */
void td_batch_running_to_stopping(struct td_sched *sched, struct batch *batch, uint8_t status);

/* Whether a call that failed in this way is tried again. */
bool td_batch_again(const struct batch *batch, const struct td_outcome *outcome);

void td_runner_any_to_idle(struct td_sched *sched, struct runner *runner);
void td_runner_any_to_stopping(struct runner *runner);

#endif
