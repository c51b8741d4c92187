#include <assert.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "task/backoff.h"
#include "task/outcome.h"
#include "task/sched_internal.h"

enum {
    START_FAILURES_MAX = 3, /* in a row, before the calls that wait for a runner are given up */
};
#define START_BASE_NS ((int64_t)20000000) /* before a runner is started again, doubling */
#define START_MAX_NS  ((int64_t)1000000000)

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

struct td_sched *td_sched_free(struct td_sched *sched)
{
    if (!sched)
        return NULL;
    while (!td_list_empty(&sched->maps))
        td_lane_free(sched, TD_CONTAINER(sched->maps.next, struct map, link));
    while (!td_list_empty(&sched->dropped))
        td_lane_free(sched, TD_CONTAINER(sched->dropped.next, struct map, link));
    while (!td_list_empty(&sched->runners))
        td_runner_free(sched, TD_CONTAINER(sched->runners.next, struct runner, link));
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
    if (map->spec.root == 0)
        map->spec.root = map->spec.id;
    map->profile = profile;
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

/* -- cancelling ------------------------------------------------------------------------------- */

static void call_stop(struct td_sched *sched, struct call *call)
{
    switch (call->state) {
    case CALL_READY:
    case CALL_WAITING: td_call_any_to_done(sched, call, TD_OUTCOME_CANCELLED); break;
    case CALL_RUNNING: td_call_running_to_stopping(sched, call, TD_OUTCOME_CANCELLED); break;
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
    td_lane_settle(sched, map);
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
        td_lane_settle(sched, map);
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
    td_call_any_to_ready(sched, call);
    return 0;
}

void td_sched_fetch_failed(struct td_sched *sched, uint64_t map_id, unsigned count)
{
    struct map *map = td_idmap_get(&sched->map_by_id, map_id);
    if (!map)
        return;
    unask(sched, map, count < map->asked ? count : map->asked);
    td_lane_settle(sched, map);
}

/* -- runners ---------------------------------------------------------------------------------- */

void td_sched_runner_up(struct td_sched *sched, uint32_t id, int64_t now)
{
    (void)now; /* as above */
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    if (!runner || runner->state != RUNNER_STARTING)
        return;
    runner->profile->starting--;
    runner->profile->failures = 0;
    td_runner_any_to_idle(sched, runner);
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
    td_call_running_to_waiting_or_done(sched, call, now);
    if (runner->state == RUNNER_BUSY && !retire)
        td_runner_any_to_idle(sched, runner);
    else
        td_runner_any_to_stopping(runner);
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
        td_call_any_to_done(sched, call, TD_OUTCOME_NOT_STARTED);
    }
}

/* A runner that never came up: try again soon, unless that has been tried enough. Those that fail
 * together (nobody was started since the last failure) have failed once. */
static void start_failed(struct td_sched *sched, struct profile *profile,
                         const struct td_outcome *why, int64_t now)
{
    if (profile->failures == 0 || now >= profile->start_at_ns) {
        profile->failures++;
        profile->start_at_ns = now + td_backoff_ns(START_BASE_NS, START_MAX_NS, profile->failures,
                                                   profile->id);
    }
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

/* Did the runner die before it had the call (it died idle, in the moment it was given work)? Then
 * that was no attempt. It is not believed for ever: runners may die as soon as they are up. */
static bool never_begun(struct call *call, const struct td_outcome *dead)
{
    return call->state == CALL_RUNNING && dead && dead->status == TD_OUTCOME_NOT_STARTED &&
           ++call->unread < START_FAILURES_MAX;
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
    td_runner_any_to_stopping(runner);
    struct call *call = runner->call;
    if (call && never_begun(call, dead)) {
        call->outcome->attempt--;
        td_call_any_to_ready(sched, call);
    } else if (call) {
        bury(call, dead);
        call->outcome->duration_ns = now - call->outcome->started_ns;
        td_heap_remove(&sched->timers, &call->when);
        td_call_running_to_waiting_or_done(sched, call, now);
    }
    td_runner_free(sched, runner);
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
            td_call_any_to_ready(sched, call);
        else
            td_call_running_to_stopping(sched, call, TD_OUTCOME_TIMED_OUT);
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
