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
    td_list_init(&sched->outcomes);
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
    for (struct td_list *node = td_list_pop(&sched->outcomes); node;
         node = td_list_pop(&sched->outcomes))
        td_outcome_free(TD_CONTAINER(node, struct td_outcome, link));
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
    td_list_init(&map->batches);
    td_list_init(&map->held);
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

static void batch_stop(struct td_sched *sched, struct batch *batch)
{
    switch (batch->state) {
    case BATCH_READY:
    case BATCH_HELD:
    case BATCH_WAITING: td_batch_any_to_end(sched, batch, TD_OUTCOME_CANCELLED); break;
    case BATCH_RUNNING: td_batch_running_to_stopping(sched, batch, TD_OUTCOME_CANCELLED); break;
    case BATCH_STOPPING: batch->stop_status = TD_OUTCOME_CANCELLED; break;
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
    TD_LIST_EACH_SAFE(node, &map->batches)
        batch_stop(sched, TD_CONTAINER(node, struct batch, of_map));
    td_lane_settle(sched, map);
}

/* -- fetching --------------------------------------------------------------------------------- */

static void unask(struct td_sched *sched, struct map *map)
{
    if (map->asked == 0)
        return;
    map->asked--;
    sched->used -= map->spec.cost;
}

unsigned td_sched_room(const struct td_sched *sched)
{
    return sched->used < sched->options.slots ? sched->options.slots - sched->used : 0;
}

int td_sched_fetched(struct td_sched *sched, uint64_t map_id, uint64_t index, uint32_t count,
                     uint32_t skip, struct td_blob *args, int64_t now)
{
    (void)now; /* as above */
    struct map *map = td_idmap_get(&sched->map_by_id, map_id);
    if (!map)
        return TD_ENOTFOUND;
    unask(sched, map);
    if (map->cancelled) {
        td_lane_settle(sched, map);
        return TD_ENOTFOUND;
    }
    struct batch *batch = td_batch_new(map, index, count, args, index - skip);
    if (!batch)
        return TD_ENOMEM;
    td_list_append(&map->batches, &batch->of_map);
    td_batch_any_to_ready(sched, batch);
    return 0;
}

void td_sched_fetch_failed(struct td_sched *sched, uint64_t map_id)
{
    struct map *map = td_idmap_get(&sched->map_by_id, map_id);
    if (!map)
        return;
    unask(sched, map);
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

/* The first call of a batch has failed and is tried again: by itself. False: it is not, or memory
 * is out. */
static bool retry_first(struct td_sched *sched, struct batch *batch, struct td_outcome **failed,
                        int64_t now)
{
    if ((*failed)->status == TD_OUTCOME_OK || !td_batch_again(batch, *failed))
        return false;
    struct batch *again = td_batch_new(batch->map, (*failed)->index, 1, batch->args, batch->origin);
    if (!again)
        return false;
    td_list_append(&batch->map->batches, &again->of_map);
    td_outcome_free(again->outcome);
    again->outcome = TD_TAKE(*failed);
    td_batch_any_to_waiting_or_end(sched, again, now);
    return true;
}

bool td_sched_finished(struct td_sched *sched, uint32_t id, struct td_outcome **outcome,
                       int64_t now)
{
    TD_CLEANUP(td_outcome_freep) struct td_outcome *got = TD_TAKE(*outcome);
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    struct batch *batch = runner ? runner->batch : NULL;
    struct td_outcome *open = batch ? batch->outcome : NULL;
    if (!batch || batch->map->spec.id != got->map || open->index != got->index ||
        open->attempt != got->attempt || got->count > open->count)
        return false;
    /* A call that finished while its runner was being stopped for its timeout has finished; one
     * that was cancelled has not. */
    if (batch->state == BATCH_STOPPING && batch->stop_status == TD_OUTCOME_CANCELLED)
        return false;
    got->started_ns = open->started_ns;
    open->index += got->count;
    open->count -= got->count;
    if (!retry_first(sched, batch, &got, now))
        td_list_append(&sched->outcomes, &TD_TAKE(got)->link);
    return true;
}

void td_sched_idle(struct td_sched *sched, uint32_t id, bool retire, int64_t now)
{
    (void)now; /* as above */
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    struct batch *batch = runner ? runner->batch : NULL;
    if (!batch || batch->state == BATCH_STOPPING)
        return; /* what it has left ends when the runner does */
    batch->outcome->attempt--;
    if (batch->outcome->count > 0)
        td_batch_any_to_held(sched, batch);
    else
        td_batch_any_to_end(sched, batch, TD_OUTCOME_OK);
    if (retire)
        td_runner_any_to_stopping(runner);
    else
        td_runner_any_to_idle(sched, runner);
}

/* -- cutting ---------------------------------------------------------------------------------- */

void td_sched_cut(struct td_sched *sched, uint32_t id, uint64_t end, int64_t since_ns, int64_t now)
{
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    struct batch *batch = runner ? runner->batch : NULL;
    if (!batch || batch->state != BATCH_RUNNING || !batch->spare)
        return;
    const struct td_outcome *open = batch->outcome;
    int64_t timeout = batch->map->spec.timeout_ns;
    struct batch *rest = TD_TAKE(batch->spare);
    if (end < open->index + open->count && end >= open->index) {
        td_batch_cut(batch, end, rest);
        rest->outcome->attempt--;
        td_batch_any_to_held(sched, rest);
    } else {
        td_batch_free(sched, rest);
    }
    if (timeout > 0 && open->count > 0 && now >= since_ns + timeout)
        td_batch_running_to_stopping(sched, batch, TD_OUTCOME_TIMED_OUT);
    else if (timeout > 0) /* the entry was in the heap a moment ago: its place is still there */
        (void)td_heap_set(&sched->timers, &batch->when, since_ns + timeout);
}

/* -- ends of runners -------------------------------------------------------------------------- */

/* Gives up the calls that wait for a runner of this profile. */
static void profile_fail(struct td_sched *sched, struct profile *profile,
                         const struct td_outcome *why)
{
    profile->failures = 0;
    TD_LIST_EACH_SAFE(node, &sched->ready) {
        struct batch *batch = TD_CONTAINER(node, struct batch, link);
        if (batch->map->profile != profile)
            continue;
        if (why && !batch->outcome->detail)
            batch->outcome->detail = td_blob_ref(why->detail);
        if (batch->outcome->attempt == 0)
            batch->outcome->attempt = 1;
        td_batch_any_to_end(sched, batch, TD_OUTCOME_NOT_STARTED);
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

/* What the post-mortem says (NULL: there was no memory for one) goes into the batch's outcome. */
static void bury(struct batch *batch, struct td_outcome *dead)
{
    struct td_outcome *outcome = batch->outcome;
    outcome->status = dead ? dead->status : (uint8_t)TD_OUTCOME_CRASHED;
    if (batch->state == BATCH_STOPPING && outcome->status != TD_OUTCOME_OUT_OF_MEMORY)
        outcome->status = batch->stop_status;
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
static bool never_begun(struct batch *batch, const struct td_outcome *dead)
{
    return batch->state == BATCH_RUNNING && dead && dead->status == TD_OUTCOME_NOT_STARTED &&
           ++batch->unread < START_FAILURES_MAX;
}

/* Only the call that ran dies with its runner; the others of its batch are for another one, unless
 * memory is out or all are being cancelled. */
static void save_rest(struct td_sched *sched, struct batch *batch)
{
    const struct td_outcome *open = batch->outcome;
    if (open->count <= 1 || batch->map->cancelled)
        return;
    struct batch *rest = td_batch_new(batch->map, open->index + 1, open->count - 1, batch->args,
                                      batch->origin);
    if (!rest)
        return;
    td_batch_cut(batch, open->index + 1, rest);
    rest->outcome->attempt--;
    td_batch_any_to_held(sched, rest);
}

static void die_with(struct td_sched *sched, struct batch *batch, struct td_outcome *dead,
                     int64_t now)
{
    if (batch->outcome->count == 0) {
        td_batch_any_to_end(sched, batch, TD_OUTCOME_OK);
        return;
    }
    if (never_begun(batch, dead)) {
        batch->outcome->attempt--;
        td_batch_any_to_held(sched, batch);
        return;
    }
    save_rest(sched, batch);
    bury(batch, dead);
    batch->outcome->duration_ns = now - batch->outcome->started_ns;
    td_batch_any_to_waiting_or_end(sched, batch, now);
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
    if (runner->batch)
        die_with(sched, runner->batch, dead, now);
    td_runner_free(sched, runner);
    if (never_up)
        start_failed(sched, profile, dead, now);
}

void td_sched_lent(struct td_sched *sched, uint32_t id, bool lent, int64_t now)
{
    (void)now; /* as above */
    struct runner *runner = td_idmap_get(&sched->runner_by_id, id);
    if (!runner || !runner->batch || runner->lent == lent)
        return;
    runner->lent = lent;
    if (lent)
        sched->used -= runner->batch->map->spec.cost;
    else
        sched->used += runner->batch->map->spec.cost;
    /* What it has left would wait for the nested map, too. */
    runner->batch->cut_due |= lent && runner->batch->packed && runner->state == RUNNER_BUSY;
}

/* -- time ------------------------------------------------------------------------------------- */

void td_sched_tick(struct td_sched *sched, int64_t now)
{
    for (struct td_heap_entry *top = td_heap_top(&sched->timers); top && top->when_ns <= now;
         top = td_heap_top(&sched->timers)) {
        struct batch *batch = TD_CONTAINER(top, struct batch, when);
        td_heap_remove(&sched->timers, top);
        if (batch->state == BATCH_WAITING)
            td_batch_any_to_held(sched, batch);
        else if (batch->packed)
            batch->cut_due = true;
        else
            td_batch_running_to_stopping(sched, batch, TD_OUTCOME_TIMED_OUT);
    }
}

int64_t td_sched_deadline(const struct td_sched *sched)
{
    const struct td_heap_entry *top = td_heap_top(&sched->timers);
    int64_t when = top ? top->when_ns : INT64_MAX;
    TD_LIST_EACH(node, &sched->ready) {
        const struct profile *profile = TD_CONTAINER(node, struct batch, link)->map->profile;
        if (profile->failures && profile->start_at_ns > sched->seen_ns &&
            profile->start_at_ns < when)
            when = profile->start_at_ns;
    }
    return when;
}
