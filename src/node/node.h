/* node.h: one machine at work: joins its pool of runners to a bus and carries out what the
 * scheduler decides.
 *
 *      bus --call--> sched --RUN--> pool --> runner            "place" and "run"
 *      bus <--finish-- sched <--FINISH-- pool <-- runner       "finish"
 *
 * Events only feed the scheduler; its actions are carried out once the events of a turn are in,
 * so that a result and the death right behind it are seen together.
 * Threads: the loop thread. Lifetime: td_node_new .. td_node_free, which ends every runner. */
#ifndef TD_NODE_NODE_H
#define TD_NODE_NODE_H

#include <stdint.h>

struct td_bus;
struct td_error;
struct td_loop;
struct td_node;
struct td_pool;

struct td_node_options {
    const char *supervisor_path;    /* the tendril program; copied */
    unsigned slots;                 /* cores to use; 0: those of this machine */
    unsigned runners_max;           /* 0: a default */
    void (*changed)(void *context); /* what td_node_pool tells of its supervisor; may be NULL */
    void *context;
};

/* Borrows loop and bus. TD_EINVAL, TD_ENOMEM. */
int td_node_new(struct td_loop *loop, struct td_bus *bus, const struct td_node_options *options,
                struct td_node **ret_node, struct td_error *err);
struct td_node *td_node_free(struct td_node *node); /* accepts NULL, returns NULL */

const struct td_pool *td_node_pool(const struct td_node *node);
unsigned td_node_slots(const struct td_node *node);

#endif
