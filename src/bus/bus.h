/* bus.h: carries calls from a client to the nodes and outcomes back: the seam between "here" and
 * "anywhere". bus_local keeps everything in this process; bus_link reaches the bus of another
 * process over a socket; others reach other machines.
 *
 *      client --open, submit, cancel, forget--> bus --opened, waiting, call, cancelled--> node
 *      client <--started, output, outcome------ bus <--fetch, started, output, finish---- node
 *
 * A map is named by a number that its client made at random; a call by map and index. Calls that
 * follow each other travel together, as index and count, with one blob of arguments. Nodes
 * fetch; nothing is pushed at them that they did not ask for. Calls of an unknown map, from
 * either side, are ignored: the map was forgotten a moment ago.
 * Threads: one loop thread owns a bus and everybody that it calls.
 * Callbacks may come before the function that causes them returns, and may call the bus. */
#ifndef TD_BUS_BUS_H
#define TD_BUS_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct td_blob;
struct td_bus;
struct td_error;
struct td_outcome;
struct td_spec;

/* What the client's side hears. */
struct td_bus_sink {
    void (*started)(void *context, uint64_t map, uint64_t index, uint32_t count);
    /* Of one call; or of one of `count`, nobody knows which. */
    void (*output)(void *context, uint64_t map, uint64_t index, uint32_t count, int stream,
                   struct td_bytes text);
    void (*outcome)(void *context, struct td_outcome **outcome); /* may take it */
    void (*lost)(void *context, const char *reason); /* the bus is gone, and all that it held */
};

/* What a node hears. */
struct td_bus_worker {
    int (*opened)(void *context, uint64_t map, struct td_spec *spec); /* borrows spec */
    void (*waiting)(void *context, uint64_t map, uint64_t batches);
    /* The arguments come after those of `skip` other calls in args. */
    void (*call)(void *context, uint64_t map, uint64_t index, uint32_t count, uint32_t skip,
                 struct td_blob *args);
    void (*cancelled)(void *context, uint64_t map);
    void (*muted)(void *context, uint64_t map, bool muted);
};

struct td_bus_ops {
    int (*open)(struct td_bus *bus, const struct td_bus_sink *sink, void *context, uint64_t map,
                struct td_spec *spec, struct td_error *err);
    int (*submit)(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count,
                  struct td_blob *args);
    void (*cancel)(struct td_bus *bus, uint64_t map);
    void (*forget)(struct td_bus *bus, uint64_t map);
    void (*mute)(struct td_bus *bus, uint64_t map, bool muted);
    /* The node's side; NULL where a bus has only a client's. */
    void (*join)(struct td_bus *bus, const struct td_bus_worker *worker, void *context);
    void (*room)(struct td_bus *bus, unsigned free, unsigned slots); /* NULL: of no interest */
    bool (*fetch)(struct td_bus *bus, uint64_t map);
    void (*started)(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count);
    void (*output)(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count, int stream,
                   struct td_bytes text);
    void (*finish)(struct td_bus *bus, struct td_outcome **outcome);
    void (*free)(struct td_bus *bus);
};

/* The first member of every bus. */
struct td_bus {
    const struct td_bus_ops *ops;
};

struct td_bus *td_bus_free(struct td_bus *bus); /* accepts NULL, returns NULL */

/* Client's side. open: sink hears of this map from now on. TD_EEXISTS, TD_ENOMEM, TD_ECLOSED. */
int td_bus_open(struct td_bus *bus, const struct td_bus_sink *sink, void *context, uint64_t map,
                struct td_spec *spec, struct td_error *err);
/* Takes a reference to args. TD_ENOTFOUND, TD_ENOMEM, TD_ELIMIT, TD_ECLOSED. */
int td_bus_submit(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count,
                  struct td_blob *args);
/* Each call that had no outcome yet gets one, CANCELLED. */
void td_bus_cancel(struct td_bus *bus, uint64_t map);
/* Cancels and drops everything about the map; the sink hears no more of it. */
void td_bus_forget(struct td_bus *bus, uint64_t map);
/* Back-pressure: the sink has more of this map's output than it can take. */
void td_bus_mute(struct td_bus *bus, uint64_t map, bool muted);

/* Node's side. */
void td_bus_join(struct td_bus *bus, const struct td_bus_worker *worker, void *context);
/* How many batches could run at once, and how many of these if they came now. */
void td_bus_room(struct td_bus *bus, unsigned free, unsigned slots);
/* Asks for calls that were submitted together; they come by `call`. False: they will not. */
bool td_bus_fetch(struct td_bus *bus, uint64_t map);
void td_bus_started(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count);
void td_bus_output(struct td_bus *bus, uint64_t map, uint64_t index, uint32_t count, int stream,
                   struct td_bytes text);
/* Takes *outcome. */
void td_bus_finish(struct td_bus *bus, struct td_outcome **outcome);

#endif
