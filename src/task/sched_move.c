#include "base/attr.h"
#include "base/blob.h"
#include "base/mem.h"
#include "task/backoff.h"
#include "task/outcome.h"
#include "task/sched_internal.h"

#define RETRY_BASE_NS ((int64_t)100000000) /* about 0.1 s before the second attempt, doubling */
#define RETRY_MAX_NS  ((int64_t)30000000000)

void td_call_free(struct td_sched *sched, struct call *call)
{
    td_heap_remove(&sched->timers, &call->when);
    td_list_remove(&call->of_map);
    td_list_remove(&call->link);
    td_blob_unref(call->args);
    td_outcome_free(call->outcome);
    td_free(call);
}

void td_lane_free(struct td_sched *sched, struct map *map)
{
    while (!td_list_empty(&map->calls))
        td_call_free(sched, TD_CONTAINER(map->calls.next, struct call, of_map));
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
    if (!map->cancelled || !td_list_empty(&map->calls) || map->asked > 0)
        return;
    td_list_remove(&map->link);
    td_list_append(&sched->dropped, &map->link);
}

bool td_call_takes_slots(const struct call *call)
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
void td_call_move(struct td_sched *sched, struct call *call, enum call_state state)
{
    unsigned cost = call->map->spec.cost;
    bool lent = call->runner && call->runner->lent;
    if (td_call_takes_slots(call) && !lent)
        sched->used -= cost;
    if (call->state == CALL_WAITING)
        call->map->waiting--;
    call->state = state;
    if (td_call_takes_slots(call) && !lent)
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
    if (runner->lent && td_call_takes_slots(call))
        sched->used += call->map->spec.cost;
    runner->lent = false;
    runner->call = NULL;
    call->runner = NULL;
}

void td_call_any_to_done(struct td_sched *sched, struct call *call, uint8_t status)
{
    call_unseat(sched, call);
    td_heap_remove(&sched->timers, &call->when);
    td_list_remove(&call->link);
    td_call_move(sched, call, CALL_DONE);
    call->outcome->status = status;
    td_list_append(&sched->done, &call->link);
}

void td_call_any_to_ready(struct td_sched *sched, struct call *call)
{
    call_unseat(sched, call);
    td_heap_remove(&sched->timers, &call->when);
    td_call_move(sched, call, CALL_READY);
    td_list_append(&sched->ready, &call->link);
}

/* A failed attempt: another one later, or the end. call->outcome tells how it failed. */
void td_call_running_to_waiting_or_done(struct td_sched *sched, struct call *call, int64_t now)
{
    struct td_outcome *outcome = call->outcome;
    bool again = !call->map->cancelled && td_outcome_retriable(outcome->status) &&
                 outcome->attempt <= call->map->spec.retries;
    int64_t pause = td_backoff_ns(RETRY_BASE_NS, RETRY_MAX_NS, outcome->attempt,
                                  call->map->spec.id ^ (outcome->index << 20));
    if (!again || td_heap_set(&sched->timers, &call->when, now + pause) < 0) {
        td_call_any_to_done(sched, call, outcome->status);
        return;
    }
    call_unseat(sched, call);
    td_call_move(sched, call, CALL_WAITING);
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

/* The call ends with this status once its runner is gone. */
void td_call_running_to_stopping(struct td_sched *sched, struct call *call, uint8_t status)
{
    td_heap_remove(&sched->timers, &call->when);
    call->stop_status = status;
    td_runner_any_to_stopping(call->runner);
    td_call_move(sched, call, CALL_STOPPING);
}

void td_runner_any_to_idle(struct td_sched *sched, struct runner *runner)
{
    runner->state = RUNNER_IDLE;
    td_list_remove(&runner->link);
    td_list_append(&sched->runners, &runner->link);
}
