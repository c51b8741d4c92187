/* bus_link.h: the client's side of another process's bus, over a unix socket: how a call that
 * maps uses the pool it runs in. The other end is a node's guest (node/guest.h).
 *
 * Threads: the loop thread. Lifetime: td_bus_link_new takes the socket; td_bus_free closes it. */
#ifndef TD_BUS_BUS_LINK_H
#define TD_BUS_BUS_LINK_H

struct td_bus;
struct td_bus_sink;
struct td_error;
struct td_loop;

/* sink hears of every map; those given to td_bus_open must be the same. Takes *fd. */
int td_bus_link_new(struct td_loop *loop, int *fd, const struct td_bus_sink *sink, void *context,
                    struct td_bus **ret_bus, struct td_error *err);

#endif
