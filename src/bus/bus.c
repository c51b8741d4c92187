#include "bus/bus.h"

#include <stddef.h>

struct td_bus *td_bus_free(struct td_bus *bus)
{
    if (bus)
        bus->ops->free(bus);
    return NULL;
}

int td_bus_open(struct td_bus *bus, const struct td_bus_sink *sink, void *context, uint64_t map,
                struct td_spec *spec, struct td_error *err)
{
    return bus->ops->open(bus, sink, context, map, spec, err);
}

int td_bus_submit(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count,
                  struct td_blob *args)
{
    return bus->ops->submit(bus, map, index, count, args);
}

void td_bus_cancel(struct td_bus *bus, uint64_t map)
{
    bus->ops->cancel(bus, map);
}

void td_bus_forget(struct td_bus *bus, uint64_t map)
{
    bus->ops->forget(bus, map);
}

void td_bus_mute(struct td_bus *bus, uint64_t map, bool muted)
{
    bus->ops->mute(bus, map, muted);
}

void td_bus_join(struct td_bus *bus, const struct td_bus_worker *worker, void *context)
{
    bus->ops->join(bus, worker, context);
}

void td_bus_room(struct td_bus *bus, unsigned free, unsigned slots)
{
    if (bus->ops->room)
        bus->ops->room(bus, free, slots);
}

bool td_bus_fetch(struct td_bus *bus, uint64_t map)
{
    return bus->ops->fetch(bus, map);
}

void td_bus_started(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count)
{
    bus->ops->started(bus, map, index, count);
}

void td_bus_output(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count, int stream,
                   struct td_bytes text)
{
    bus->ops->output(bus, map, index, count, stream, text);
}

void td_bus_finish(struct td_bus *bus, struct td_outcome **outcome)
{
    bus->ops->finish(bus, outcome);
}
