#include "base/attr.h"
#include "base/blob.h"
#include "base/mem.h"
#include "task/backoff.h"
#include "task/outcome.h"
#include "task/sched_internal.h"

#define RETRY_BASE_NS ((int64_t)100000000) /* about 0.1 s before the second attempt, doubling */
#define RETRY_MAX_NS  ((int64_t)30000000000)

void td_batch_free(struct td_sched *sched, struct batch *batch)
{
    td_heap_remove(&sched->timers, &batch->when);
    td_list_remove(&batch->of_map);
    td_list_remove(&batch->link);
    if (batch->spare)
        td_batch_free(sched, batch->spare);
    td_blob_unref(batch->args);
    td_outcome_free(batch->outcome);
    td_free(batch);
}

void td_lane_free(struct td_sched *sched, struct map *map)
{
    while (!td_list_empty(&map->batches))
        td_batch_free(sched, TD_CONTAINER(map->batches.next, struct batch, of_map));
    td_list_remove(&map->link);
    td_idmap_remove(&sched->map_by_id, map->spec.id);
    td_free(map);
}

void td_runner_free(struct td_sched *sched, struct runner *runner)
{
    td_list_remove(&runner->link);
    td_idmap_remove(&sched->runner_by_id, runner->id);
    td_free(runner);
}

/* A cancelled map that has nothing left is on its way out. */
void td_lane_settle(struct td_sched *sched, struct map *map)
{
    if (!map->cancelled || !td_list_empty(&map->batches) || map->asked > 0)
        return;
    td_list_remove(&map->link);
    td_list_append(&sched->dropped, &map->link);
}

bool td_batch_takes_slots(const struct batch *batch)
{
    switch (batch->state) {
    case BATCH_READY:
    case BATCH_RUNNING:
    case BATCH_STOPPING: return true;
    case BATCH_WAITING:
    case BATCH_HELD: return false;
    }
    return false;
}

/* The one place where a batch changes its state and the slots are counted. */
void td_batch_move(struct td_sched *sched, struct batch *batch, enum batch_state state)
{
    unsigned cost = batch->map->spec.cost;
    bool lent = batch->runner && batch->runner->lent;
    if (td_batch_takes_slots(batch) && !lent)
        sched->used -= cost;
    if (batch->state == BATCH_WAITING)
        batch->map->waiting--;
    batch->state = state;
    if (td_batch_takes_slots(batch) && !lent)
        sched->used += cost;
    if (state == BATCH_WAITING)
        batch->map->waiting++;
}

struct batch *td_batch_new(struct map *map, uint64_t index, uint32_t count, struct td_blob *args,
                           uint64_t origin)
{
    struct batch *batch = td_alloc_zero(sizeof *batch);
    struct td_outcome *outcome = td_outcome_new(map->spec.id, index, 0, TD_OUTCOME_CANCELLED);
    if (!batch || !outcome) {
        td_free(batch);
        td_outcome_free(outcome);
        return NULL;
    }
    outcome->count = count;
    *batch = (struct batch){.map = map,
                            .args = td_blob_ref(args),
                            .origin = origin,
                            .outcome = outcome,
                            .state = BATCH_HELD};
    td_list_init(&batch->link);
    td_list_init(&batch->of_map);
    return batch;
}

void td_batch_cut(struct batch *batch, uint64_t index, struct batch *rest)
{
    struct td_outcome *kept = batch->outcome, *cut = rest->outcome;
    uint64_t end = kept->index + kept->count;
    cut->index = index;
    cut->count = (uint32_t)(end - index);
    cut->attempt = kept->attempt;
    kept->count = (uint32_t)(index - kept->index);
    td_list_append(&rest->map->batches, &rest->of_map);
}

/* Parts a batch from its runner, which keeps its own state. */
static void batch_unseat(struct td_sched *sched, struct batch *batch)
{
    struct runner *runner = batch->runner;
    td_heap_remove(&sched->timers, &batch->when);
    td_list_remove(&batch->link);
    batch->cut_due = false;
    if (batch->spare)
        td_batch_free(sched, batch->spare);
    batch->spare = NULL;
    if (!runner)
        return;
    if (runner->lent && td_batch_takes_slots(batch))
        sched->used += batch->map->spec.cost;
    runner->lent = false;
    runner->batch = NULL;
    batch->runner = NULL;
}

void td_batch_any_to_end(struct td_sched *sched, struct batch *batch, uint8_t status)
{
    batch_unseat(sched, batch);
    td_batch_move(sched, batch, BATCH_HELD);
    struct map *map = batch->map;
    if (batch->outcome->count > 0) {
        struct td_outcome *outcome = TD_TAKE(batch->outcome);
        outcome->status = status;
        td_list_append(&sched->outcomes, &outcome->link);
    }
    td_batch_free(sched, batch);
    td_lane_settle(sched, map);
}

void td_batch_any_to_ready(struct td_sched *sched, struct batch *batch)
{
    batch_unseat(sched, batch);
    td_batch_move(sched, batch, BATCH_READY);
    td_list_append(&sched->ready, &batch->link);
}

void td_batch_any_to_held(struct td_sched *sched, struct batch *batch)
{
    batch_unseat(sched, batch);
    td_batch_move(sched, batch, BATCH_HELD);
    td_list_append(&batch->map->held, &batch->link);
}

bool td_batch_again(const struct batch *batch, const struct td_outcome *outcome)
{
    return !batch->map->cancelled && td_outcome_retriable(outcome->status) &&
           outcome->attempt <= batch->map->spec.retries;
}

/* A failed attempt: another one later, or the end. batch->outcome tells how it failed. */
void td_batch_any_to_waiting_or_end(struct td_sched *sched, struct batch *batch, int64_t now)
{
    struct td_outcome *outcome = batch->outcome;
    int64_t pause = td_backoff_ns(RETRY_BASE_NS, RETRY_MAX_NS, outcome->attempt,
                                  batch->map->spec.id ^ (outcome->index << 20));
    batch_unseat(sched, batch);
    if (!td_batch_again(batch, outcome) ||
        td_heap_set(&sched->timers, &batch->when, now + pause) < 0) {
        td_batch_any_to_end(sched, batch, outcome->status);
        return;
    }
    td_batch_move(sched, batch, BATCH_WAITING);
}

void td_runner_any_to_stopping(struct runner *runner)
{
    if (runner->state == RUNNER_STOPPING)
        return;
    runner->profile->runners--;
    if (runner->state == RUNNER_STARTING)
        runner->profile->starting--;
    runner->state = RUNNER_STOPPING;
    runner->kill_due = true;
}

/* It ends with this status once its runner is gone. */
void td_batch_running_to_stopping(struct td_sched *sched, struct batch *batch, uint8_t status)
{
    td_heap_remove(&sched->timers, &batch->when);
    batch->cut_due = false;
    batch->stop_status = status;
    td_runner_any_to_stopping(batch->runner);
    td_batch_move(sched, batch, BATCH_STOPPING);
}

void td_runner_any_to_idle(struct td_sched *sched, struct runner *runner)
{
    runner->state = RUNNER_IDLE;
    td_list_remove(&runner->link);
    td_list_append(&sched->runners, &runner->link);
}
