/* client_internal.h: what client.c (the thread and its queues) and map.c (one map) share.
 *
 * client.lock guards everything in both structs except what is marked. Operations go to the loop
 * thread in the order in which they were made. No callback is called with the lock held. */
#ifndef TD_CLIENT_CLIENT_INTERNAL_H
#define TD_CLIENT_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/idmap.h"
#include "base/list.h"
#include "client/client.h"
#include "client/log.h"
#include "os/event.h"
#include "os/forkmark.h"
#include "os/loop.h"

enum op_kind { OP_OPEN, OP_SUBMIT, OP_CANCEL, OP_FORGET, OP_MUTE, OP_UNMUTE };

/* Something for the loop thread to do. */
struct op {
    struct td_list link;
    enum op_kind kind;
    uint64_t map;
    uint64_t index;
    struct td_spec *spec; /* OPEN: a reference */
    struct td_blob *args; /* SUBMIT: a reference */
};

struct td_map {
    struct td_client *client; /* a reference; never changes */
    uint64_t id;              /* never changes */
    struct td_map_options options;
    unsigned refs;
    struct td_window *window;
    struct td_log log;
    struct td_list notice; /* td_client.notices */
    struct td_event event; /* its own synchronisation */
    bool noticed;
    bool ended;
    bool cancelled;
    bool muted;
};

struct td_client {
    pthread_mutex_t lock;
    atomic_uint refs;
    pthread_t thread;         /* never changes */
    struct td_forkmark *mark; /* never changes */
    struct td_event event;    /* its own synchronisation */
    struct td_idmap maps;
    struct td_list ops;
    struct td_list outputs;
    size_t output_bytes;
    struct td_list notices;
    struct td_client_info info;
    bool muting; /* some map was muted */
    bool woken;  /* td_client_wake was called and nobody has heard yet */
    bool closed;
    bool lost;  /* the bus is gone, or the loop cannot be reached */
    bool stuck; /* closed while the loop could not be reached: its thread stays */

    /* Of the loop thread. */
    struct td_loop *loop;
    struct td_bus *bus;
    struct td_node *node; /* NULL with a link */
    struct td_post post;  /* any thread */
    bool stopping;        /* guarded by the lock */
};

/* Queues an operation and wakes the loop; the lock is held. Takes a reference to spec and args.
 * TD_ENOMEM. */
int td_client_push(struct td_client *client, struct op op);

/* Forked child, closed or lost client: the status to give. The lock is held. */
int td_client_usable(const struct td_client *client);

bool td_client_forked(const struct td_client *client); /* without the lock */

#endif
