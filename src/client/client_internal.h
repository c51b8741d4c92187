/* client_internal.h: what client.c (the thread and its queues) and map.c (one map) share.
 *
 * client.lock guards everything in both structs except what is marked. Operations go to the loop
 * thread in the order in which they were made. No callback is called with the lock held. */
#ifndef TD_CLIENT_CLIENT_INTERNAL_H
#define TD_CLIENT_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/idmap.h"
#include "base/list.h"
#include "client/client.h"
#include "client/log.h"
#include "os/event.h"
#include "os/forkmark.h"
#include "os/loop.h"
#include "task/packing.h"

enum op_kind { OP_OPEN, OP_SUBMIT, OP_CANCEL, OP_FORGET, OP_MUTE, OP_UNMUTE };

/* Something for the loop thread to do. */
struct op {
    struct td_list link;
    enum op_kind kind;
    uint64_t map;
    uint64_t index; /* SUBMIT: of the first of `count` */
    uint32_t count;
    struct td_spec *spec; /* OPEN: a reference */
    struct td_blob *args; /* SUBMIT: a reference */
};

struct td_map {
    struct td_client *client; /* a reference; never changes */
    uint64_t id;              /* never changes */
    struct td_map_options options;
    unsigned refs;
    struct td_window *window;
    struct td_packing packing;
    struct td_blob *foot;  /* never changes */
    struct td_buf pack;    /* a batch that is being filled: the head, then arguments */
    size_t head;           /* bytes of it; never changes */
    uint32_t packed;       /* calls in there */
    uint32_t goal;         /* when there are so many it goes */
    uint64_t calls;        /* submitted so far, */
    uint64_t bytes;        /* and their arguments */
    struct td_list opened; /* td_client.opened, while packed > 0 */
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
    struct td_list opened; /* maps with a batch that is being filled */
    struct td_client_info info;
    bool muting; /* some map was muted */
    bool woken;  /* td_client_wake was called and nobody has heard yet */
    bool closed;
    bool lost;  /* the bus is gone, or the loop cannot be reached */
    bool stuck; /* closed while the loop could not be reached: its thread stays */

    /* Of the loop thread. */
    struct td_loop *loop;
    struct td_bus *bus;
    struct td_node *node;    /* NULL with a link */
    struct td_post post;     /* any thread */
    struct td_post opening;  /* any thread: a batch is being filled */
    struct td_timer sealing; /* and has been for a moment */
    bool stopping;           /* guarded by the lock */
};

/* Queues an operation and wakes the loop; the lock is held. Takes a reference to spec and args.
 * TD_ENOMEM. td_client_push_lazy does not wake it: the next operation does, or whatever else. */
int td_client_push(struct td_client *client, struct op op);
int td_client_push_lazy(struct td_client *client, struct op op);

/* Submits the batch that is being filled, as far as it is; the lock is held. The statuses of
 * td_map_submit; on failure it stays as it is. */
int td_map_seal(struct td_map *map);

/* Forked child, closed or lost client: the status to give. The lock is held. */
int td_client_usable(const struct td_client *client);

bool td_client_forked(const struct td_client *client); /* without the lock */

#endif
