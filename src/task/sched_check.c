#include <assert.h>

#include "base/attr.h"
#include "task/sched_internal.h"

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
        if (td_call_takes_slots(call) && !(runner && runner->lent))
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
