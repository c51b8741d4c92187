#include <assert.h>

#include "base/attr.h"
#include "task/outcome.h"
#include "task/sched_internal.h"

static unsigned check_map(const struct map *map)
{
    unsigned used = map->asked * map->spec.cost;
    unsigned waiting = 0;
    TD_LIST_EACH(node, &map->batches) {
        const struct batch *batch = TD_CONTAINER(node, struct batch, of_map);
        const struct runner *runner = batch->runner;
        bool seated = batch->state == BATCH_RUNNING || batch->state == BATCH_STOPPING;
        assert(batch->map == map && batch->outcome);
        assert(seated || batch->outcome->count > 0);
        assert(!batch->spare || batch->state == BATCH_RUNNING);
        assert(batch->origin <= batch->outcome->index);
        assert(seated == (runner != NULL));
        assert(!runner || runner->batch == batch);
        assert(!runner || runner->profile == map->profile);
        assert((batch->state == BATCH_WAITING) <= (batch->when.at != 0));
        waiting += batch->state == BATCH_WAITING;
        if (td_batch_takes_slots(batch) && !(runner && runner->lent))
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
        assert((runner->state == RUNNER_BUSY) <= (runner->batch != NULL));
        assert((runner->batch != NULL) <=
               (runner->state == RUNNER_BUSY || runner->state == RUNNER_STOPPING));
        assert(!runner->lent || runner->batch);
    }
}
