/* bus_caller.h: a caller's end of the bus over the engine: calls go into the stream of a pool of
 * machines, and what becomes of them comes back through the stream of results.
 *
 *      open, submit --> td.spec, td.calls ==> agents ==> td.res --> started, output, outcome
 *
 * Threads: the loop thread, but td_bus_caller_new, which waits for the first connection.
 * See cluster.h for what is stored where. */
#ifndef TD_BUS_BUS_CALLER_H
#define TD_BUS_BUS_CALLER_H

#include <stdint.h>

struct td_bus;
struct td_bus_sink;
struct td_error;
struct td_loop;
struct td_nats_options;

struct td_bus_caller_options {
    const struct td_nats_options *server; /* copied */
    const char *pool;                     /* of machines; copied */
    const struct td_bus_sink *sink;       /* one for all maps; borrowed */
    void *context;
    /* How many calls the pool's machines can run at once, when that has changed. */
    void (*slots)(void *context, unsigned slots);
};

/* The errors of td_nats_new; TD_EINVAL: no pool can have that name. */
int td_bus_caller_new(struct td_loop *loop, const struct td_bus_caller_options *options,
                      struct td_bus **ret_bus, struct td_error *err);

#endif
