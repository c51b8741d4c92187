#include "base/attr.h"
#include "base/mem.h"
#include "task/outcome.h"
#include "task/sched_internal.h"

/* How long a batch may take before what it has not begun goes to others. They are packed for a
 * fraction of this (see packing.h). */
#define CUT_NS ((int64_t)100000000)

static bool next_finish(struct td_sched *sched, struct td_action *ret_action)
{
    struct td_list *node = td_list_pop(&sched->outcomes);
    if (!node)
        return false;
    struct td_outcome *outcome = TD_CONTAINER(node, struct td_outcome, link);
    *ret_action = (struct td_action){.type = TD_ACTION_FINISH,
                                     .map = outcome->map,
                                     .index = outcome->index,
                                     .count = outcome->count,
                                     .attempt = outcome->attempt,
                                     .outcome = outcome};
    return true;
}

/* Cuts a batch off, if there is memory for the rest; if not, it goes on and is cut off later. */
static bool next_cut(struct td_sched *sched, int64_t now, struct td_action *ret_action)
{
    TD_LIST_EACH(node, &sched->runners) {
        struct runner *runner = TD_CONTAINER(node, struct runner, link);
        struct batch *batch = runner->batch;
        if (!batch || !batch->cut_due || batch->state != BATCH_RUNNING)
            continue;
        batch->cut_due = false;
        batch->spare = td_batch_new(batch->map, 0, 0, batch->args, batch->origin);
        if (!batch->spare) {
            (void)td_heap_set(&sched->timers, &batch->when, now + CUT_NS); /* it was in there */
            continue;
        }
        *ret_action = (struct td_action){
            .type = TD_ACTION_CUT, .runner = runner->id, .map = batch->map->spec.id};
        return true;
    }
    return false;
}

/* Lets the runner that has been idle longest go when more are idle than shall be kept. */
static void trim_idle(struct td_sched *sched)
{
    unsigned idle = 0;
    struct runner *oldest = NULL;
    TD_LIST_EACH(node, &sched->runners) {
        struct runner *runner = TD_CONTAINER(node, struct runner, link);
        if (runner->state != RUNNER_IDLE)
            continue;
        oldest = oldest ? oldest : runner;
        idle++;
    }
    if (idle > sched->options.idle_max)
        td_runner_any_to_stopping(oldest);
}

static bool next_drop(struct td_sched *sched, struct td_action *ret_action)
{
    if (td_list_empty(&sched->dropped))
        return false;
    struct map *map = TD_CONTAINER(sched->dropped.next, struct map, link);
    *ret_action = (struct td_action){.type = TD_ACTION_DROP, .map = map->spec.id};
    td_lane_free(sched, map);
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
        struct batch *batch = TD_CONTAINER(node, struct batch, link);
        struct runner *runner = idle_of(sched, batch->map->profile);
        if (!runner)
            continue;
        int64_t look = batch->outcome->count > 1 ? CUT_NS : INT64_MAX;
        int64_t timeout = batch->map->spec.timeout_ns;
        if (timeout > 0 && timeout < look)
            look = timeout;
        if (look != INT64_MAX && td_heap_set(&sched->timers, &batch->when, now + look) < 0)
            continue; /* no memory for the timer: wait until there is some */
        runner->state = RUNNER_BUSY;
        runner->batch = batch;
        td_list_remove(&batch->link);
        batch->runner = runner;
        td_batch_move(sched, batch, BATCH_RUNNING);
        struct td_outcome *open = batch->outcome;
        batch->packed = open->count > 1;
        open->attempt++;
        open->started_ns = now;
        *ret_action = (struct td_action){.type = TD_ACTION_RUN,
                                         .runner = runner->id,
                                         .profile = runner->profile->id,
                                         .map = open->map,
                                         .index = open->index,
                                         .count = open->count,
                                         .skip = (uint32_t)(open->index - batch->origin),
                                         .attempt = open->attempt,
                                         .args = batch->args};
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
            td_runner_any_to_stopping(runner);
            return false;
        }
    }
    return false;
}

/* Every runner waits for a nested map, and no place is left for one that could do the work. */
static bool starved(const struct td_sched *sched)
{
    TD_LIST_EACH(node, &sched->runners) {
        const struct runner *runner = TD_CONTAINER(node, struct runner, link);
        if (!runner->lent || runner->state == RUNNER_STOPPING)
            return false;
    }
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
        ready += TD_CONTAINER(node, struct batch, link)->map->profile == profile;
    return ready > profile->starting ? ready - profile->starting : 0;
}

static bool next_start(struct td_sched *sched, int64_t now, struct td_action *ret_action)
{
    TD_LIST_EACH_SAFE(node, &sched->ready) {
        struct batch *batch = TD_CONTAINER(node, struct batch, link);
        struct profile *profile = batch->map->profile;
        if (profile->failures && now < profile->start_at_ns)
            continue;
        if (uncovered(sched, profile) == 0)
            continue;
        if (make_room(sched, profile))
            return start_runner(sched, profile, ret_action);
        if (starved(sched)) {
            batch->outcome->attempt++;
            td_batch_any_to_end(sched, batch, TD_OUTCOME_NOT_STARTED);
            return next_finish(sched, ret_action);
        }
    }
    return false;
}

static bool may_fetch(const struct td_sched *sched, const struct map *map)
{
    bool fits = sched->used + map->spec.cost <= sched->options.slots || sched->used == 0;
    bool more = map->backlog > 0 && map->waiting < sched->options.waiting_max;
    return fits && !map->cancelled && (more || !td_list_empty(&map->held));
}

/* Families of nested maps take turns. Within one the deepest goes first: so calls that wait for
 * nested ones are finished before more of their like are begun, and their runners stay few. */
static struct map *next_map(struct td_sched *sched)
{
    struct map *chosen = NULL;
    TD_LIST_EACH(node, &sched->maps) {
        struct map *map = TD_CONTAINER(node, struct map, link);
        bool related = !chosen || map->spec.root == chosen->spec.root;
        if (related && may_fetch(sched, map) && (!chosen || map->spec.depth > chosen->spec.depth))
            chosen = map;
    }
    return chosen;
}

/* The next turn of its whole family comes after everybody else's, and in there its own after its
 * siblings'. */
static void end_turn(struct td_sched *sched, struct map *map)
{
    struct td_list family;
    td_list_init(&family);
    TD_LIST_EACH_SAFE(node, &sched->maps) {
        struct map *other = TD_CONTAINER(node, struct map, link);
        if (other == map || other->spec.root != map->spec.root)
            continue;
        td_list_remove(node);
        td_list_append(&family, node);
    }
    td_list_remove(&map->link);
    td_list_append(&family, &map->link);
    for (struct td_list *node = td_list_pop(&family); node; node = td_list_pop(&family))
        td_list_append(&sched->maps, node);
}

static bool next_fetch(struct td_sched *sched, struct td_action *ret_action)
{
    for (;;) {
        struct map *map = sched->used < sched->options.slots ? next_map(sched) : NULL;
        if (!map)
            return false;
        end_turn(sched, map);
        if (td_list_empty(&map->held)) {
            map->backlog--;
            map->asked++;
            sched->used += map->spec.cost;
            *ret_action = (struct td_action){.type = TD_ACTION_FETCH, .map = map->spec.id};
            return true;
        }
        td_batch_any_to_ready(sched, TD_CONTAINER(map->held.next, struct batch, link));
    }
}

bool td_sched_next(struct td_sched *sched, int64_t now, struct td_action *ret_action)
{
    sched->seen_ns = now;
    if (next_finish(sched, ret_action) || next_cut(sched, now, ret_action) ||
        next_run(sched, now, ret_action) || next_fetch(sched, ret_action) ||
        next_run(sched, now, ret_action) || next_start(sched, now, ret_action))
        return true;
    trim_idle(sched);
    return next_kill(sched, ret_action) || next_drop(sched, ret_action);
}
