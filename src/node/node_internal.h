/* node_internal.h: what node.c (bus, pool and scheduler joined) and node_runner.c (one runner: what
 * it is sent, says and writes, and the outcomes that are made of it) share.
 *
 * Threads: the loop thread. */
#ifndef TD_NODE_NODE_INTERNAL_H
#define TD_NODE_NODE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/idmap.h"
#include "node/lines.h"
#include "node/marks.h"
#include "os/loop.h"
#include "wire/message.h"

struct td_action;
struct td_pool_death;

enum { TD_FUNCTIONS_MAX = 16 }; /* that one runner keeps */

/* A map as this node knows it. */
struct lane {
    uint64_t id;
    struct td_spec *spec;
    bool muted;
    bool raw; /* its calls write past Python: each is marked, from then on */
};

/* A runner as this node knows it, and the batch that was sent to it last; what it runs is the
 * scheduler's knowledge. */
struct runner {
    struct td_node *node;
    uint32_t id;
    struct td_lines lines;
    struct td_marks marks[2];
    struct td_guest *guest;
    uint64_t map, index;
    uint32_t count;
    uint32_t attempt;
    bool seated; /* it was sent one at all */
    bool packed; /* it is one of several calls, which are on its desk, and under way */
    bool marked;
    uint64_t heard;                            /* bytes that it has written since */
    uint32_t taken;                            /* of its calls: their outcomes are known */
    uint32_t taken_bytes;                      /* of their results */
    int64_t sent_ns, spent_ns;                 /* and how long those took */
    struct td_key functions[TD_FUNCTIONS_MAX]; /* bodies it has, least recently used first */
    size_t nfunctions;
};

struct td_node {
    struct td_loop *loop;
    struct td_bus *bus;
    struct td_pool *pool;
    struct td_sched *sched;
    struct td_idmap lanes;
    struct td_idmap runners;
    struct td_post pump;   /* carry out what was decided */
    struct td_timer alarm; /* the scheduler's next deadline */
    struct td_timer round; /* a look at the desks */
    bool rounds;           /* it is set */
    unsigned slots;
    unsigned room; /* of these, as the bus was told */
    unsigned runners_max;
    uint64_t memory_bytes;
    void (*changed)(void *context);
    void *changed_context;
};

/* The decisions that wait are carried out soon. */
void td_node_wake(struct td_node *node);
/* The desks are looked at in a few milliseconds. */
void td_node_look_soon(struct td_node *node);

void td_node_runner_init(struct runner *runner, struct td_node *node, uint32_t id);
void td_node_runner_free(struct td_node *node, struct runner *runner);

/* Sends what the runner lacks of a function's body: the one it used longest ago goes. The statuses
 * of td_pool_send. */
int td_node_runner_teach(struct runner *runner, const struct td_spec *spec);
/* A batch is on its way to it. */
void td_node_runner_seat(struct runner *runner, const struct td_action *action,
                         const struct lane *lane);

/* What it has written; said. */
void td_node_runner_wrote(struct runner *runner, int stream, struct td_bytes text);
void td_node_runner_finished(struct runner *runner, const struct td_message *message);
void td_node_runner_idle(struct runner *runner, const struct td_msg_idle *said);

/* Results that lie on its desk, without waiting for the others of their batch. */
void td_node_runner_look(struct runner *runner);

/* It has died. What it had finished outlives it; the rest has this post-mortem: new, or NULL when
 * memory is out. */
struct td_outcome *td_node_runner_bury(struct runner *runner, const struct td_pool_death *death);

#endif
