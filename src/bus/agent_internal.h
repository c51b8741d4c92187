/* agent_internal.h: what the files of an agent's end of the bus share.
 *
 *      bus_agent.c    the bus: maps, jobs given to the node, and their outcomes
 *      agent_lane.c   lanes: their consumers, turns, and asking for jobs
 *      agent_job.c    a job from its message to the moment when it can run
 *
 * Threads: the loop thread. */
#ifndef TD_BUS_AGENT_INTERNAL_H
#define TD_BUS_AGENT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/idmap.h"
#include "base/list.h"
#include "bus/bus.h"
#include "bus/bus_agent.h"
#include "bus/cluster.h"
#include "bus/jet.h"
#include "wire/message.h"

struct td_haul;
struct td_nats_subscription;
struct td_outcome;
struct td_reader;

enum { TD_OVER_MAX = 8192 };

/* Where jobs come from; the agent takes turns at them. */
struct lane {
    struct td_list link; /* struct agent.lanes */
    struct agent *agent;
    uint64_t map; /* whose it is; 0: shared */
    struct td_name consumer;
    struct td_jet_ask ask; /* of its making */
    struct td_jet_pull pull;
    struct td_timer again;
    bool made;
    bool listens;     /* what it has asked for is no more than a sign that something is there */
    uint64_t backlog; /* jobs that are believed to wait there */
    unsigned unseen;  /* looks at the stream's subjects in a row that did not find it */
    int64_t spent_ns; /* by its calls here, in comparison with the others' */
};

/* A specification, and the jobs that wait for it. */
struct function {
    struct td_list link; /* struct agent.functions */
    struct agent *agent;
    uint64_t session;
    uint32_t number;
    struct td_spec *spec; /* NULL: it is still to come */
    struct td_list jobs;  /* struct job.link */
    struct td_jet_ask ask;
    struct td_haul *haul; /* its body */
    struct td_spec *bare; /* without it */
    struct td_timer again;
    int64_t deadline_ns;
};

/* Reads which calls have outcomes already, for jobs that were delivered before. */
struct ledger {
    struct td_list link; /* struct agent.ledgers */
    struct agent *agent;
    uint64_t session, lane; /* name the results that it reads */
    struct td_reader *reader;
    struct td_list jobs; /* struct job.link */
};

/* A map of which there are jobs here. */
struct agent_map {
    uint64_t id, session;
    struct td_list waiting, running; /* struct job.link */
    unsigned jobs;                   /* that there were */
    int64_t idle_ns;                 /* since when there are none */
};

/* Calls [index, index + count) of a map, in one message of the engine. */
struct job {
    struct td_list link; /* struct ledger.jobs, function.jobs, agent_map.waiting or running */
    struct agent *agent;
    struct agent_map *map; /* NULL: it cannot run yet */
    struct function *function;
    uint64_t map_id, session, index;
    uint32_t count, spec;
    uint64_t lane;              /* its map, or 0 */
    uint64_t sequence;          /* in the stream: its name here */
    char reply[TD_SUBJECT_MAX]; /* where it is acknowledged */
    bool again;                 /* it was delivered before: its calls go singly */
    bool old;                   /* it was stored before we came: we may not have heard of its end */
    bool doubtful;              /* some of its outcomes may be stored */
    struct td_blob *args;
    struct td_msg_parcel parcel; /* size > 0: the arguments lie apart */
    struct td_haul *haul;
    struct td_jet_ask ask; /* for what is known of its map */
    uint64_t since;        /* its outcomes are behind this result */
    unsigned char *has;    /* a bit for each call that has an outcome; NULL: none has */
    uint32_t next;         /* the first call that was not given to the node */
    uint32_t left;         /* calls without an outcome */
    int64_t came_ns, begun_ns;
    struct td_buf out;      /* frames that are not on their way yet */
    unsigned sending;       /* messages and values that are */
    struct td_list results; /* these values */
};

struct agent {
    struct td_bus bus;
    struct td_loop *loop;
    struct td_jet *jet;
    struct td_bus_agent_options options;
    struct td_name pool, stream, host;
    struct td_bus *inner; /* of maps that calls open here: they stay on this machine */
    const struct td_bus_worker *worker;
    void *worker_context;
    uint64_t id;
    uint64_t last_blob;
    struct td_list lanes, functions, ledgers;
    struct td_list later;       /* jobs of a map that the node is about to forget */
    struct td_idmap maps;       /* struct agent_map */
    struct td_idmap cancelled;  /* maps that are over, as far as they are remembered */
    uint64_t over[TD_OVER_MAX]; /* these; the next to be forgotten is over[next_over] */
    unsigned next_over;
    struct td_idmap jobs; /* sequence -> struct job: all that we hold */
    unsigned free, slots; /* batches that could run, of the node's */
    unsigned stock;       /* jobs that do not run yet */
    unsigned busy;        /* jobs of which a call was given to the node */
    int64_t job_ns;       /* how long one takes, smoothed */
    int64_t since_ns;     /* unix: when this connection was made */
    bool draining, muting;
    struct td_nats_subscription *cancels, *asks, *news;
    struct td_jet_ask find; /* for lanes */
    struct td_timer flush, hold;
    bool flushes; /* the timer is set */
};

/* -- lanes ------------------------------------------------------------------------------------ */

/* The map's lane, or the shared one for 0, from now on. TD_ENOMEM. */
int td_lane_open(struct agent *agent, uint64_t map);
void td_lane_close(struct agent *agent, uint64_t map);
void td_lanes_connected(struct agent *agent); /* all consumers are to be looked at anew */
void td_lanes_find(struct agent *agent);      /* opens those where jobs wait */
void td_lanes_pull(struct agent *agent);      /* asks for as many jobs as there is room for */
void td_lanes_spent(struct agent *agent, uint64_t lane, int64_t spent_ns);

/* -- a job's way ------------------------------------------------------------------------------ */

/* One has come: takes it from the message. */
void td_job_receive(struct lane *lane, const struct td_nats_message *message,
                    const struct td_js_numbers *numbers);
/* Lets go of it: what ("+ACK", "-NAK", "+TERM") is said to the engine; NULL: nothing. */
struct job *td_job_free(struct job *job, const char *what);
struct function *td_function_free(struct function *function);
struct ledger *td_ledger_free(struct ledger *ledger);

/* Whether a call of it has an outcome. */
bool td_job_has(const struct job *job, uint32_t at);

/* -- the bus ---------------------------------------------------------------------------------- */

void td_job_drop_results(struct job *job);
/* Whether nobody wants what becomes of the map's calls. */
bool td_agent_is_over(const struct agent *agent, uint64_t map);
/* It can run: the node hears of it. */
void td_agent_enqueue(struct agent *agent, struct job *job);
/* It cannot: all calls of it end with these words. */
void td_agent_refuse(struct agent *agent, struct job *job, const char *why);

#endif
