/* agent.h: the daemon on a machine that runs calls for others: a node joined to the engine.
 *
 *      engine ==> bus_agent --> node --> pool --> runners
 *
 * It ends by SIGTERM or SIGINT: it takes no more calls, hands back those that nobody has begun,
 * finishes the others and stores their outcomes; what has not finished at the deadline, or at a
 * second signal, is handed back, too. Killed, it leaves no process behind, and its calls go to
 * others.
 * Threads: single-threaded process. */
#ifndef TD_AGENT_AGENT_H
#define TD_AGENT_AGENT_H

#include <stdint.h>

struct td_error;
struct td_token;

struct td_agent_options {
    const struct td_token *token; /* of an agent; borrowed */
    const char *supervisor_path;  /* the tendril program */
    const char *pool;             /* whose calls to take; NULL: the default one */
    const char *python;           /* the interpreter of its runners; NULL: the caller's, where
                                     there is one by that path, else python3 */
    const char *folder;           /* where calls run whose caller's folder is not here */
    unsigned slots;               /* cores to use; 0: those of this machine */
    int64_t drain_ns;             /* how long calls may go on after SIGTERM */
    int ready_fd;                 /* >= 0: gets one byte when calls can come; closed then */
};

/* Runs until it is told to end. The errors of td_nats_new; TD_EREFUSED later, TD_ESYS, TD_ENOMEM.
 */
int td_agent_run(const struct td_agent_options *options, struct td_error *err);

#endif
