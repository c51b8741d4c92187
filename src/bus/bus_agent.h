/* bus_agent.h: an agent's end of the bus over the engine: takes calls out of the lanes of its pool
 * as there is room for them, and stores their outcomes before it lets go of the calls.
 *
 *      td.calls ==> pulled --> specification, arguments, what is stored already --> waiting, call
 *      td.res  <== frames <-- started, output, finish
 *
 * A message is the engine's unit: a job, some calls of a map that follow each other. It is
 * acknowledged when all its outcomes are stored. While we live we say every TD_HELD_NS / 3 that it
 * is in progress; TD_HELD_NS after the last time another agent gets it, which asks first for what
 * is stored and runs only the rest, call by call. What is delivered to us again while we hold it
 * goes on. Lanes take turns by the time that their calls have taken.
 *
 * Maps that calls open in turn stay on this machine: they are on a local bus within.
 *
 * Threads: the loop thread, but td_bus_agent_new, which waits for the first connection. */
#ifndef TD_BUS_BUS_AGENT_H
#define TD_BUS_BUS_AGENT_H

#include <stdbool.h>
#include <stdint.h>

struct td_bus;
struct td_error;
struct td_loop;
struct td_nats_options;
struct td_spec;

#define TD_HELD_NS ((int64_t)6000000000)

struct td_bus_agent_options {
    const struct td_nats_options *server; /* copied */
    const char *pool;                     /* copied */
    const char *host;                     /* how to call this machine; copied */
    /* What to make of a caller's specification here, as a new reference; fails with words for the
     * caller. */
    int (*adapt)(void *context, struct td_spec *spec, struct td_spec **ret_spec,
                 struct td_error *err);
    void (*drained)(void *context);                    /* see td_bus_agent_drain */
    void (*closed)(void *context, const char *reason); /* the server will not have us any more */
    void *context;
};

/* The errors of td_nats_new; TD_EINVAL: no pool can have that name. */
int td_bus_agent_new(struct td_loop *loop, const struct td_bus_agent_options *options,
                     struct td_bus **ret_bus, struct td_error *err);

/* Takes no more calls, hands back those that nobody has begun, and says `drained` when all others
 * have their outcomes stored. */
void td_bus_agent_drain(struct td_bus *bus);

/* Hands back all that is left, begun or not. */
void td_bus_agent_hand_back(struct td_bus *bus);

#endif
