/* guest.h: the other end of a bus_link: serves a client inside a runner, so that a call that maps
 * uses the pool it runs in.
 *
 * Invariant: when the guest's socket closes, or it is freed, its maps are forgotten.
 * Threads: the loop thread. Lifetime: td_guest_new takes the socket; td_guest_free, also from
 * inside its events. */
#ifndef TD_NODE_GUEST_H
#define TD_NODE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

struct td_bus;
struct td_error;
struct td_guest;
struct td_loop;
struct td_spec;

/* busy: the guest has calls without an outcome, so its runner waits (or could). */
typedef void td_guest_busy_fn(void *context, bool busy);

/* Takes *fd. Borrows the bus. TD_ENOMEM, TD_ELIMIT, TD_ESYS. */
int td_guest_new(struct td_loop *loop, struct td_bus *bus, int *fd, td_guest_busy_fn *busy,
                 void *context, struct td_guest **ret_guest, struct td_error *err);
/* The maps that are opened from now on are inside a call of the map `outer`. */
void td_guest_nest(struct td_guest *guest, uint64_t outer, const struct td_spec *spec);

/* The runner's call has ended: what it has not waited for is cancelled, and no longer counts as
 * work that it waits for. */
void td_guest_rest(struct td_guest *guest);

struct td_guest *td_guest_free(struct td_guest *guest); /* accepts NULL, returns NULL */

#endif
