#include "bus/bus_local.h"

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/list.h"
#include "base/mem.h"
#include "bus/bus.h"
#include "task/outcome.h"
#include "task/spec.h"

/* Calls that wait to be fetched, together. */
struct waiting {
    struct td_list link; /* struct map.batches */
    uint64_t index;
    uint32_t count;
    struct td_blob *args;
};

struct map {
    uint64_t id;
    struct td_spec *spec;
    const struct td_bus_sink *sink;
    void *context;
    struct td_list batches;
    uint64_t count; /* of batches */
};

struct local {
    struct td_bus bus;
    struct td_idmap maps;
    const struct td_bus_worker *worker;
    void *worker_context;
};

static struct local *local_of(struct td_bus *bus)
{
    return TD_CONTAINER(bus, struct local, bus);
}

static void waiting_free(struct waiting *batch)
{
    td_list_remove(&batch->link);
    td_blob_unref(batch->args);
    td_free(batch);
}

static void map_free(struct map *map)
{
    while (!td_list_empty(&map->batches))
        waiting_free(TD_CONTAINER(map->batches.next, struct waiting, link));
    td_spec_unref(map->spec);
    td_free(map);
}

static int local_open(struct td_bus *bus, const struct td_bus_sink *sink, void *context,
                      uint64_t id, struct td_spec *spec, struct td_error *err)
{
    struct local *local = local_of(bus);
    struct map *map = td_alloc_zero(sizeof *map);
    if (!map)
        return td_error_set(err, TD_ENOMEM, "map: out of memory");
    *map = (struct map){.id = id, .spec = td_spec_ref(spec), .sink = sink, .context = context};
    td_list_init(&map->batches);
    int r = td_idmap_put(&local->maps, id, map);
    if (r == 0 && local->worker) {
        r = local->worker->opened(local->worker_context, id, spec);
        if (r < 0)
            td_idmap_remove(&local->maps, id);
    }
    if (r < 0) {
        map_free(map);
        return td_error_set(err, r, "map: %s", td_status_text(r));
    }
    return 0;
}

static int local_submit(struct td_bus *bus, uint64_t id, uint64_t index, uint32_t count,
                        struct td_blob *args)
{
    struct local *local = local_of(bus);
    struct map *map = td_idmap_get(&local->maps, id);
    if (!map)
        return TD_ENOTFOUND;
    struct waiting *batch = td_alloc(sizeof *batch);
    if (!batch)
        return TD_ENOMEM;
    *batch = (struct waiting){.index = index, .count = count, .args = td_blob_ref(args)};
    td_list_append(&map->batches, &batch->link);
    map->count++;
    local->worker->waiting(local->worker_context, id, map->count);
    return 0;
}

static void cancel_waiting(struct map *map, struct waiting *batch)
{
    TD_CLEANUP(td_outcome_freep)
    struct td_outcome *outcome = td_outcome_new(map->id, batch->index, 0, TD_OUTCOME_CANCELLED);
    if (outcome)
        outcome->count = batch->count;
    waiting_free(batch);
    map->count--;
    if (outcome) /* without memory for it the caller, who asked for this, has only silence */
        map->sink->outcome(map->context, &outcome);
}

static void local_cancel(struct td_bus *bus, uint64_t id)
{
    struct local *local = local_of(bus);
    struct map *map = td_idmap_get(&local->maps, id);
    if (!map)
        return;
    TD_LIST_EACH_SAFE(node, &map->batches)
        cancel_waiting(map, TD_CONTAINER(node, struct waiting, link));
    local->worker->waiting(local->worker_context, id, map->count);
    local->worker->cancelled(local->worker_context, id);
}

static void local_forget(struct td_bus *bus, uint64_t id)
{
    struct local *local = local_of(bus);
    struct map *map = td_idmap_remove(&local->maps, id);
    if (!map)
        return;
    map_free(map);
    local->worker->cancelled(local->worker_context, id);
}

static void local_mute(struct td_bus *bus, uint64_t id, bool muted)
{
    struct local *local = local_of(bus);
    local->worker->muted(local->worker_context, id, muted);
}

static void local_join(struct td_bus *bus, const struct td_bus_worker *worker, void *context)
{
    struct local *local = local_of(bus);
    local->worker = worker;
    local->worker_context = context;
}

static bool local_fetch(struct td_bus *bus, uint64_t id)
{
    struct local *local = local_of(bus);
    struct map *map = td_idmap_get(&local->maps, id);
    if (!map || td_list_empty(&map->batches))
        return false;
    struct waiting *batch = TD_CONTAINER(map->batches.next, struct waiting, link);
    map->count--;
    local->worker->call(local->worker_context, id, batch->index, batch->count, 0, batch->args);
    waiting_free(batch);
    return true;
}

static void local_started(struct td_bus *bus, uint64_t id, uint64_t index, uint32_t count)
{
    struct map *map = td_idmap_get(&local_of(bus)->maps, id);
    if (map)
        map->sink->started(map->context, id, index, count);
}

static void local_output(struct td_bus *bus, uint64_t id, uint64_t index, uint32_t count,
                         int stream, struct td_bytes text)
{
    struct map *map = td_idmap_get(&local_of(bus)->maps, id);
    if (map)
        map->sink->output(map->context, id, index, count, stream, text);
}

static void local_finish(struct td_bus *bus, struct td_outcome **outcome)
{
    TD_CLEANUP(td_outcome_freep) struct td_outcome *own = TD_TAKE(*outcome);
    struct map *map = td_idmap_get(&local_of(bus)->maps, own->map);
    if (map)
        map->sink->outcome(map->context, &own);
}

static void local_free(struct td_bus *bus)
{
    struct local *local = local_of(bus);
    size_t cursor = 0;
    for (struct map *map = td_idmap_next(&local->maps, &cursor); map;
         map = td_idmap_next(&local->maps, &cursor))
        map_free(map);
    td_idmap_done(&local->maps);
    td_free(local);
}

int td_bus_local_new(struct td_bus **ret_bus, struct td_error *err)
{
    static const struct td_bus_ops ops = {
        .open = local_open,
        .submit = local_submit,
        .cancel = local_cancel,
        .forget = local_forget,
        .mute = local_mute,
        .join = local_join,
        .fetch = local_fetch,
        .started = local_started,
        .output = local_output,
        .finish = local_finish,
        .free = local_free,
    };
    struct local *local = td_alloc_zero(sizeof *local);
    if (!local)
        return td_error_set(err, TD_ENOMEM, "bus: out of memory");
    local->bus.ops = &ops;
    *ret_bus = &local->bus;
    return 0;
}
