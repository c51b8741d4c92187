#include "task/sched.h"

#include <assert.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/heap.h"
#include "base/idmap.h"
#include "base/list.h"
#include "base/mem.h"
#include "task/backoff.h"
#include "task/outcome.h"

enum {
    START_FAILURES_MAX = 3, /* in a row, before the calls that wait for a runner are given up */
};
#define RETRY_BASE_NS ((int64_t)100000000) /* about 0.1 s before the second attempt, doubling */
#define RETRY_MAX_NS  ((int64_t)30000000000)
#define START_BASE_NS ((int64_t)20000000) /* the same for starting runners */
#define START_MAX_NS  ((int64_t)1000000000)

enum call_state { CALL_READY, CALL_RUNNING, CALL_STOPPING, CALL_WAITING, CALL_DONE };
enum runner_state { RUNNER_STARTING, RUNNER_IDLE, RUNNER_BUSY, RUNNER_STOPPING };

struct profile {
    uint32_t id;
    unsigned maps;
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

/* -- making and forgetting -------------------------------------------------------------------- */

int td_sched_new(struct td_sched_options options, struct td_sched **ret_sched)
{
    if (options.slots == 0 || options.runners_max == 0)
        return TD_EINVAL;
    struct td_sched *sched = td_alloc_zero(sizeof *sched);
    if (!sched)
        return TD_ENOMEM;
    sched->options = options;
    td_list_init(&sched->maps);
    td_list_init(&sched->dropped);
    td_list_init(&sched->runners);
    td_list_init(&sched->ready);
    td_list_init(&sched->done);
    *ret_sched = sched;
    return 0;
}

static void call_free(struct td_sched *sched, struct call *call)
{
    td_heap_remove(&sched->timers, &call->when);
    td_list_remove(&call->of_map);
    td_list_remove(&call->link);
    td_blob_unref(call->args);
    td_outcome_free(call->outcome);
    td_free(call);
}

static void map_free(struct td_sched *sched, struct map *map)
{
    struct profile *profile = map->profile;
    while (!td_list_empty(&map->calls))
        call_free(sched, TD_CONTAINER(map->calls.next, struct call, of_map));
    td_list_remove(&map->link);
    td_idmap_remove(&sched->map_by_id, map->spec.id);
    td_free(map);
    profile->maps--;
}

static void runner_free(struct td_sched *sched, struct runner *runner)
{
    td_list_remove(&runner->link);
    td_idmap_remove(&sched->runner_by_id, runner->id);
    td_free(runner);
}

/* A cancelled map that has nothing left is on its way out. */
static void map_settle(struct td_sched *sched, struct map *map)
{
    if (!map->cancelled || !td_list_empty(&map->calls) || map->asked > 0)
        return;
    td_list_remove(&map->link);
    td_list_append(&sched->dropped, &map->link);
}

struct td_sched *td_sched_free(struct td_sched *sched)
{
    if (!sched)
        return NULL;
    while (!td_list_empty(&sched->maps))
        map_free(sched, TD_CONTAINER(sched->maps.next, struct map, link));
    while (!td_list_empty(&sched->dropped))
        map_free(sched, TD_CONTAINER(sched->dropped.next, struct map, link));
    while (!td_list_empty(&sched->runners))
        runner_free(sched, TD_CONTAINER(sched->runners.next, struct runner, link));
    size_t cursor = 0;
    for (struct profile *profile = td_idmap_next(&sched->profile_by_id, &cursor); profile;
         profile = td_idmap_next(&sched->profile_by_id, &cursor))
        td_free(profile);
    td_idmap_done(&sched->map_by_id);
    td_idmap_done(&sched->runner_by_id);
    td_idmap_done(&sched->profile_by_id);
    td_heap_done(&sched->timers);
    td_free(sched);
    return NULL;
}

/* Finds or makes; a profile stays known as long as the scheduler lives (there are few). */
static struct profile *profile_get(struct td_sched *sched, uint32_t id)
{
    struct profile *profile = td_idmap_get(&sched->profile_by_id, id);
    if (profile)
        return profile;
    profile = td_alloc_zero(sizeof *profile);
    if (!profile)
        return NULL;
    profile->id = id;
    if (td_idmap_put(&sched->profile_by_id, id, profile) < 0) {
        td_free(profile);
        return NULL;
    }
    return profile;
}

int td_sched_map_add(struct td_sched *sched, const struct td_sched_map *spec)
{
    if (td_idmap_get(&sched->map_by_id, spec->id))
        return TD_EEXISTS;
    struct profile *profile = profile_get(sched, spec->profile);
    struct map *map = td_alloc_zero(sizeof *map);
    if (!profile || !map || td_idmap_put(&sched->map_by_id, spec->id, map) < 0) {
        td_free(map);
        return TD_ENOMEM;
    }
    map->spec = *spec;
    if (map->spec.cost == 0)
        map->spec.cost = 1;
    if (map->spec.cost > sched->options.slots)
        map->spec.cost = sched->options.slots;
    map->profile = profile;
    profile->maps++;
    td_list_init(&map->calls);
    td_list_append(&sched->maps, &map->link);
    return 0;
}

void td_sched_backlog(struct td_sched *sched, uint64_t id, uint64_t waiting)
{
    struct map *map = td_idmap_get(&sched->map_by_id, id);
    if (map)
        map->backlog = waiting;
}

/* -- moving calls between states -------------------------------------------------------------- */

static bool takes_slots(const struct call *call)
{
    switch (call->state) {
    case CALL_READY:
    case CALL_RUNNING:
    case CALL_STOPPING: return true;
    case CALL_WAITING:
    case CALL_DONE: return false;
    }
    return false;
}

/* The one place where a call changes its state and the slots are counted. */
static void call_move(struct td_sched *sched, struct call *call, enum call_state state)
{
    unsigned cost = call->map->spec.cost;
    bool lent = call->runner && call->runner->lent;
    if (takes_slots(call) && !lent)
        sched->used -= cost;
    if (call->state == CALL_WAITING)
        call->map->waiting--;
    call->state = state;
    if (takes_slots(call) && !lent)
        sched->used += cost;
    if (state == CALL_WAITING)
        call->map->waiting++;
}

/* Parts a call from its runner, which keeps its own state. */
static void call_unseat(struct td_sched *sched, struct call *call)
{
    struct runner *runner = call->runner;
    if (!runner)
        return;
    if (runner->lent && takes_slots(call))
        sched->used += call->map->spec.cost;
    runner->lent = false;
    runner->call = NULL;
    call->runner = NULL;
}

static void any_to_done(struct td_sched *sched, struct call *call, uint8_t status)
{
    call_unseat(sched, call);
    td_heap_remove(&sched->timers, &call->when);
    td_list_remove(&call->link);
    call_move(sched, call, CALL_DONE);
    call->outcome->status = status;
    td_list_append(&sched->done, &call->link);
}

static void any_to_ready(struct td_sched *sched, struct call *call)
{
    call_unseat(sched, call);
    td_heap_remove(&sched->timers, &call->when);
    call_move(sched, call, CALL_READY);
    td_list_append(&sched->ready, &call->link);
}

/* A failed attempt: another one later, or the end. call->outcome tells how it failed. */
static void running_to_waiting_or_done(struct td_sched *sched, struct call *call, int64_t now)
{
    struct td_outcome *outcome = call->outcome;
    bool again = !call->map->cancelled && td_outcome_retriable(outcome->status) &&
                 outcome->attempt <= call->map->spec.retries;
    int64_t pause = td_backoff_ns(RETRY_BASE_NS, RETRY_MAX_NS, outcome->attempt,
                                  call->map->spec.id ^ (outcome->index << 20));
    if (!again || td_heap_set(&sched->timers, &call->when, now + pause) < 0) {
        any_to_done(sched, call, outcome->status);
        return;
    }
    call_unseat(sched, call);
    call_move(sched, call, CALL_WAITING);
}

static void runner_stop(struct runner *runner)
{
    if (runner->state == RUNNER_STOPPING)
        return;
    runner->profile->runners--;
    if (runner->state == RUNNER_STARTING)
        runner->profile->starting--;
    runner->state = RUNNER_STOPPING;
    runner->kill_due = true;
}

/* The call ends with this status once its runner is gone. */
static void running_to_stopping(struct td_sched *sched, struct call *call, uint8_t status)
{
    td_heap_remove(&sched->timers, &call->when);
    call->stop_status = status;
    runner_stop(call->runner);
    call_move(sched, call, CALL_STOPPING);
}

static void call_stop(struct td_sched *sched, struct call *call)
{
    switch (call->state) {
    case CALL_READY:
    case CALL_WAITING: any_to_done(sched, call, TD_OUTCOME_CANCELLED); break;
    case CALL_RUNNING: running_to_stopping(sched, call, TD_OUTCOME_CANCELLED); break;
    case CALL_STOPPING: call->stop_status = TD_OUTCOME_CANCELLED; break;
    case CALL_DONE: break;
    }
}

void td_sched_map_cancel(struct td_sched *sched, uint64_t id, int64_t now)
{
    (void)now; /* nothing is timed; the parameter keeps all events alike */
    struct map *map = td_idmap_get(&sched->map_by_id, id);
    if (!map)
        return;
    map->cancelled = true;
    map->backlog = 0;
    TD_LIST_EACH_SAFE(node, &map->calls)
        call_stop(sched, TD_CONTAINER(node, struct call, of_map));
    map_settle(sched, map);
}

static struct call *call_find(struct map *map, uint64_t index)
{
    TD_LIST_EACH(node, &map->calls) {
        struct call *call = TD_CONTAINER(node, struct call, of_map);
        if (call->outcome->index == index)
            return call;
    }
    return NULL;
}

void td_sched_call_cancel(struct td_sched *sched, uint64_t map_id, uint64_t index, int64_t now)
{
    (void)now; /* as above */
    struct map *map = td_idmap_get(&sched->map_by_id, map_id);
    struct call *call = map ? call_find(map, index) : NULL;
    if (call)
        call_stop(sched, call);
}

/* -- fetching --------------------------------------------------------------------------------- */

static void unask(struct td_sched *sched, struct map *map, unsigned count)
{
    assert(map->asked >= count);
    map->asked -= count;
    sched->used -= count * map->spec.cost;
}

int td_sched_fetched(struct td_sched *sched, uint64_t map_id, uint64_t index, struct td_blob *args,
                     int64_t now)
{
    (void)now; /* as above */
    struct map *map = td_idmap_get(&sched->map_by_id, map_id);
    if (!map)
        return TD_ENOTFOUND;
    if (map->asked)
        unask(sched, map, 1);
    if (map->cancelled) {
        map_settle(sched, map);
        return TD_ENOTFOUND;
    }
    struct call *call = td_alloc_zero(sizeof *call);
    struct td_outcome *outcome = td_outcome_new(map_id, index, 0, TD_OUTCOME_CANCELLED);
    if (!call || !outcome) {
        td_free(call);
        td_outcome_free(outcome);
        return TD_ENOMEM;
    }
    call->map = map;
    call->args = td_blob_ref(args);
    call->outcome = outcome;
    call->state = CALL_WAITING; /* never seen: any_to_ready follows */
    map->waiting++;
    td_list_init(&call->link);
    td_list_append(&map->calls, &call->of_map);
    any_to_ready(sched, call);
    return 0;
}

void td_sched_fetch_failed(struct td_sched *sched, uint64_t map_id, unsigned count)
{
    struct map *map = td_idmap_get(&sched->map_by_id, map_id);
    if (!map)
        return;
    unask(sched, map, count < map->asked ? count : map->asked);
    map_settle(sched, map);
}

/* -- runners ---------------------------------------------------------------------------------- */

static void runner_idle(struct td_sched *sched, struct runner *runner)
{
    runner->state = RUNNER_IDLE;
    td_list_remove(&runner->link);
    td_list_append(&sched->runners, &runner->link);
}

void td_sched_runner_up(struct td_sched *sched, uint32_t id, int64_t now)
{
    (void)now; /* as above */
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    if (!runner || runner->state != RUNNER_STARTING)
        return;
    runner->profile->starting--;
    runner->profile->failures = 0;
    runner_idle(sched, runner);
}

bool td_sched_finished(struct td_sched *sched, uint32_t id, struct td_outcome **outcome,
                       bool retire, int64_t now)
{
    TD_CLEANUP(td_outcome_freep) struct td_outcome *got = TD_TAKE(*outcome);
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    struct call *call = runner ? runner->call : NULL;
    if (!call || call->map->spec.id != got->map || call->outcome->index != got->index ||
        call->outcome->attempt != got->attempt)
        return false;
    /* A call that finished while its runner was being stopped for its timeout has finished; one
     * that was cancelled has not. */
    if (call->state == CALL_STOPPING && call->stop_status == TD_OUTCOME_CANCELLED)
        return false;
    got->started_ns = call->outcome->started_ns;
    td_outcome_free(call->outcome);
    call->outcome = TD_TAKE(got);
    running_to_waiting_or_done(sched, call, now);
    if (runner->state == RUNNER_BUSY && !retire)
        runner_idle(sched, runner);
    else
        runner_stop(runner);
    return true;
}

/* Gives up the calls that wait for a runner of this profile. */
static void profile_fail(struct td_sched *sched, struct profile *profile,
                         const struct td_outcome *why)
{
    profile->failures = 0;
    TD_LIST_EACH_SAFE(node, &sched->ready) {
        struct call *call = TD_CONTAINER(node, struct call, link);
        if (call->map->profile != profile)
            continue;
        if (why && !call->outcome->detail)
            call->outcome->detail = td_blob_ref(why->detail);
        if (call->outcome->attempt == 0)
            call->outcome->attempt = 1;
        any_to_done(sched, call, TD_OUTCOME_NOT_STARTED);
    }
}

/* A runner that never came up: try again soon, unless that has been tried enough. */
static void start_failed(struct td_sched *sched, struct profile *profile,
                         const struct td_outcome *why, int64_t now)
{
    profile->failures++;
    profile->start_at_ns = now + td_backoff_ns(START_BASE_NS, START_MAX_NS, profile->failures,
                                               profile->id);
    if (profile->failures >= START_FAILURES_MAX && profile->runners == 0)
        profile_fail(sched, profile, why);
}

/* What the post-mortem says (NULL: there was no memory for one) goes into the call's outcome. */
static void bury(struct call *call, struct td_outcome *dead)
{
    struct td_outcome *outcome = call->outcome;
    outcome->status = dead ? dead->status : (uint8_t)TD_OUTCOME_CRASHED;
    if (call->state == CALL_STOPPING && outcome->status != TD_OUTCOME_OUT_OF_MEMORY)
        outcome->status = call->stop_status;
    if (!dead)
        return;
    outcome->code = dead->code;
    outcome->pid = dead->pid;
    outcome->peak_bytes = dead->peak_bytes;
    outcome->limit_bytes = dead->limit_bytes;
    td_blob_unref(outcome->last_output);
    td_blob_unref(outcome->detail);
    outcome->last_output = TD_TAKE(dead->last_output);
    outcome->detail = TD_TAKE(dead->detail);
}

void td_sched_runner_gone(struct td_sched *sched, uint32_t id, struct td_outcome **post_mortem,
                          int64_t now)
{
    TD_CLEANUP(td_outcome_freep) struct td_outcome *dead = TD_TAKE(*post_mortem);
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    if (!runner)
        return;
    bool never_up = runner->state == RUNNER_STARTING;
    struct profile *profile = runner->profile;
    runner_stop(runner);
    struct call *call = runner->call;
    if (call) {
        bury(call, dead);
        call->outcome->duration_ns = now - call->outcome->started_ns;
        td_heap_remove(&sched->timers, &call->when);
        running_to_waiting_or_done(sched, call, now);
    }
    runner_free(sched, runner);
    if (never_up)
        start_failed(sched, profile, dead, now);
}

void td_sched_lent(struct td_sched *sched, uint32_t id, bool lent, int64_t now)
{
    (void)now; /* as above */
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    if (!runner || !runner->call || runner->lent == lent)
        return;
    runner->lent = lent;
    if (lent)
        sched->used -= runner->call->map->spec.cost;
    else
        sched->used += runner->call->map->spec.cost;
}

/* -- time ------------------------------------------------------------------------------------- */

void td_sched_tick(struct td_sched *sched, int64_t now)
{
    for (struct td_heap_entry *top = td_heap_top(&sched->timers); top && top->when_ns <= now;
         top = td_heap_top(&sched->timers)) {
        struct call *call = TD_CONTAINER(top, struct call, when);
        if (call->state == CALL_WAITING)
            any_to_ready(sched, call);
        else
            running_to_stopping(sched, call, TD_OUTCOME_TIMED_OUT);
    }
}

int64_t td_sched_deadline(const struct td_sched *sched)
{
    const struct td_heap_entry *top = td_heap_top(&sched->timers);
    int64_t when = top ? top->when_ns : INT64_MAX;
    TD_LIST_EACH(node, &sched->ready) {
        const struct profile *profile = TD_CONTAINER(node, struct call, link)->map->profile;
        if (profile->failures && profile->start_at_ns > sched->seen_ns &&
            profile->start_at_ns < when)
            when = profile->start_at_ns;
    }
    return when;
}

/* -- decisions -------------------------------------------------------------------------------- */

static bool next_finish(struct td_sched *sched, struct td_action *ret_action)
{
    struct td_list *node = td_list_pop(&sched->done);
    if (!node)
        return false;
    struct call *call = TD_CONTAINER(node, struct call, link);
    struct map *map = call->map;
    *ret_action = (struct td_action){.type = TD_ACTION_FINISH,
                                     .map = map->spec.id,
                                     .index = call->outcome->index,
                                     .attempt = call->outcome->attempt,
                                     .outcome = TD_TAKE(call->outcome)};
    call_free(sched, call);
    map_settle(sched, map);
    return true;
}

static bool next_drop(struct td_sched *sched, struct td_action *ret_action)
{
    if (td_list_empty(&sched->dropped))
        return false;
    struct map *map = TD_CONTAINER(sched->dropped.next, struct map, link);
    *ret_action = (struct td_action){.type = TD_ACTION_DROP, .map = map->spec.id};
    map_free(sched, map);
    return true;
}

static bool next_kill(struct td_sched *sched, struct td_action *ret_action)
{
    TD_LIST_EACH(node, &sched->runners) {
        struct runner *runner = TD_CONTAINER(node, struct runner, link);
        if (!runner->kill_due)
            continue;
        runner->kill_due = false;
        *ret_action = (struct td_action){.type = TD_ACTION_KILL, .runner = runner->id};
        return true;
    }
    return false;
}

/* The most recently used idle runner of a profile: it is the warmest. */
static struct runner *idle_of(const struct td_sched *sched, const struct profile *profile)
{
    for (struct td_list *node = sched->runners.prev; node != &sched->runners; node = node->prev) {
        struct runner *runner = TD_CONTAINER(node, struct runner, link);
        if (runner->state == RUNNER_IDLE && runner->profile == profile)
            return runner;
    }
    return NULL;
}

static bool next_run(struct td_sched *sched, int64_t now, struct td_action *ret_action)
{
    TD_LIST_EACH(node, &sched->ready) {
        struct call *call = TD_CONTAINER(node, struct call, link);
        struct runner *runner = idle_of(sched, call->map->profile);
        if (!runner)
            continue;
        int64_t timeout = call->map->spec.timeout_ns;
        if (timeout > 0 && td_heap_set(&sched->timers, &call->when, now + timeout) < 0)
            continue; /* no memory for the timeout: wait until there is some */
        runner->state = RUNNER_BUSY;
        runner->call = call;
        td_list_remove(&call->link);
        call->runner = runner;
        call_move(sched, call, CALL_RUNNING);
        call->outcome->attempt++;
        call->outcome->started_ns = now;
        *ret_action = (struct td_action){.type = TD_ACTION_RUN,
                                         .runner = runner->id,
                                         .profile = runner->profile->id,
                                         .map = call->map->spec.id,
                                         .index = call->outcome->index,
                                         .attempt = call->outcome->attempt,
                                         .args = call->args};
        return true;
    }
    return false;
}

/* Makes room for one more runner: true when there is some now, or the longest idle runner of
 * another profile was told to go. */
static bool make_room(struct td_sched *sched, const struct profile *wanted)
{
    if (sched->runner_by_id.len < sched->options.runners_max)
        return true;
    TD_LIST_EACH(node, &sched->runners) {
        struct runner *runner = TD_CONTAINER(node, struct runner, link);
        if (runner->state == RUNNER_STOPPING)
            return false; /* its place is free soon */
        if (runner->state == RUNNER_IDLE && runner->profile != wanted) {
            runner_stop(runner);
            return false;
        }
    }
    return false;
}

/* Every runner waits for a nested map, and no place is left for one that could do the work. */
static bool starved(const struct td_sched *sched)
{
    TD_LIST_EACH(node, &sched->runners)
        if (!TD_CONTAINER(node, struct runner, link)->lent)
            return false;
    return sched->runner_by_id.len >= sched->options.runners_max;
}

static bool start_runner(struct td_sched *sched, struct profile *profile,
                         struct td_action *ret_action)
{
    struct runner *runner = td_alloc_zero(sizeof *runner);
    if (!runner)
        return false;
    runner->id = sched->last_runner + 1;
    if (td_idmap_put(&sched->runner_by_id, runner->id, runner) < 0) {
        td_free(runner);
        return false;
    }
    sched->last_runner++;
    runner->profile = profile;
    runner->state = RUNNER_STARTING;
    profile->runners++;
    profile->starting++;
    td_list_append(&sched->runners, &runner->link);
    *ret_action = (struct td_action){
        .type = TD_ACTION_START, .runner = runner->id, .profile = profile->id};
    return true;
}

/* Ready calls that no runner is coming up for. They are few: fetching stops at the slots. */
static unsigned uncovered(const struct td_sched *sched, const struct profile *profile)
{
    unsigned ready = 0;
    TD_LIST_EACH(node, &sched->ready)
        ready += TD_CONTAINER(node, struct call, link)->map->profile == profile;
    return ready > profile->starting ? ready - profile->starting : 0;
}

static bool next_start(struct td_sched *sched, int64_t now, struct td_action *ret_action)
{
    TD_LIST_EACH_SAFE(node, &sched->ready) {
        struct call *call = TD_CONTAINER(node, struct call, link);
        struct profile *profile = call->map->profile;
        if (profile->failures && now < profile->start_at_ns)
            continue;
        if (uncovered(sched, profile) == 0)
            continue;
        if (make_room(sched, profile))
            return start_runner(sched, profile, ret_action);
        if (starved(sched)) {
            call->outcome->attempt++;
            any_to_done(sched, call, TD_OUTCOME_NOT_STARTED);
            return next_finish(sched, ret_action);
        }
    }
    return false;
}

static bool next_fetch(struct td_sched *sched, struct td_action *ret_action)
{
    if (sched->used >= sched->options.slots)
        return false;
    TD_LIST_EACH(node, &sched->maps) {
        struct map *map = TD_CONTAINER(node, struct map, link);
        unsigned cost = map->spec.cost;
        bool fits = sched->used + cost <= sched->options.slots || sched->used == 0;
        if (map->cancelled || map->backlog == 0 || !fits ||
            map->waiting >= sched->options.waiting_max)
            continue;
        map->backlog--;
        map->asked++;
        sched->used += cost;
        td_list_remove(&map->link); /* its next turn comes after everybody else's */
        td_list_append(&sched->maps, &map->link);
        *ret_action = (struct td_action){.type = TD_ACTION_FETCH, .map = map->spec.id, .count = 1};
        return true;
    }
    return false;
}

bool td_sched_next(struct td_sched *sched, int64_t now, struct td_action *ret_action)
{
    sched->seen_ns = now;
    return next_finish(sched, ret_action) || next_run(sched, now, ret_action) ||
           next_fetch(sched, ret_action) || next_start(sched, now, ret_action) ||
           next_kill(sched, ret_action) || next_drop(sched, ret_action);
}

bool td_sched_runner_call(const struct td_sched *sched, uint32_t id, uint64_t *ret_map,
                          uint64_t *ret_index)
{
    const struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    if (!runner || !runner->call)
        return false;
    *ret_map = runner->call->map->spec.id;
    *ret_index = runner->call->outcome->index;
    return true;
}

/* -- invariants ------------------------------------------------------------------------------- */

static unsigned check_map(const struct map *map)
{
    unsigned used = map->asked * map->spec.cost;
    unsigned waiting = 0;
    TD_LIST_EACH(node, &map->calls) {
        const struct call *call = TD_CONTAINER(node, struct call, of_map);
        const struct runner *runner = call->runner;
        bool seated = call->state == CALL_RUNNING || call->state == CALL_STOPPING;
        assert(call->map == map && call->outcome);
        assert(seated == (runner != NULL));
        assert(!runner || runner->call == call);
        assert(!runner || runner->profile == map->profile);
        assert((call->state == CALL_WAITING) <= (call->when.at != 0));
        waiting += call->state == CALL_WAITING;
        if (takes_slots(call) && !(runner && runner->lent))
            used += map->spec.cost;
    }
    assert(waiting == map->waiting);
    return used;
}

void td_sched_check(const struct td_sched *sched)
{
    unsigned used = 0;
    TD_LIST_EACH(node, &sched->maps)
        used += check_map(TD_CONTAINER(node, struct map, link));
    assert(used == sched->used);
    assert(sched->runner_by_id.len <= sched->options.runners_max);
    TD_LIST_EACH(node, &sched->runners) {
        const struct runner *runner = TD_CONTAINER(node, struct runner, link);
        assert(td_idmap_get(&sched->runner_by_id, runner->id) == runner);
        assert((runner->state == RUNNER_BUSY) <= (runner->call != NULL));
        assert((runner->call != NULL) <=
               (runner->state == RUNNER_BUSY || runner->state == RUNNER_STOPPING));
        assert(!runner->lent || runner->call);
    }
}
