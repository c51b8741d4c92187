/* bus_local.h: the bus inside one process: maps and their waiting calls in memory, one node.
 *
 * Threads: the loop thread. Lifetime: td_bus_local_new .. td_bus_free. */
#ifndef TD_BUS_BUS_LOCAL_H
#define TD_BUS_BUS_LOCAL_H

struct td_bus;
struct td_error;

int td_bus_local_new(struct td_bus **ret_bus, struct td_error *err);

#endif
