/* jet.h: JetStream over one connection: questions to its API, messages that are stored for certain,
 * messages that are asked for, and their acknowledgement.
 *
 *      td_jet_ask -----> $JS.API... -----> answered once, or too late
 *      td_jet_store ---> a stream -------> stored: sent again until the server has said so
 *      td_jet_pull ----> a consumer -----> messages, as many as were asked for
 *      td_jet_ack -----> the message is done with
 *
 * A message to be stored carries an id, by which the server knows those that are sent again. The
 * connection is made anew for as long as it takes; questions and messages wait for that.
 * Threads: the loop thread. Lifetime: asks and pulls are embedded in their owners, who withdraw
 * them before they die; td_jet_free comes last, and nothing is called any more.
 * Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference */
#ifndef TD_BUS_JET_H
#define TD_BUS_JET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/list.h"
#include "bus/js_api.h"
#include "bus/nats.h"
#include "os/loop.h"

struct td_buf;
struct td_error;
struct td_jet;

struct td_jet_events {
    /* Also each time that it was made anew. restarted: the server is not the one from before:
     * consumers are to be made anew, and what waited for them to be asked for again. */
    void (*connected)(void *context, bool restarted);
    void (*disconnected)(void *context, const char *reason);
    void (*closed)(void *context, const char *reason); /* for good */
};

/* The errors of td_nats_new. The options are copied, events are borrowed. */
int td_jet_new(struct td_loop *loop, const struct td_nats_options *options,
               const struct td_jet_events *events, void *context, struct td_jet **ret_jet,
               struct td_error *err);
struct td_jet *td_jet_free(struct td_jet *jet); /* accepts NULL, returns NULL */

struct td_nats *td_jet_nats(struct td_jet *jet);
const char *td_jet_server(const struct td_jet *jet); /* its id; empty before it is connected */
size_t td_jet_payload_max(const struct td_jet *jet); /* for a message with all that belongs to it */

/* -- questions -------------------------------------------------------------------------------- */

/* status 0: there is an answer, which may be an error of its own; TD_ETIMEOUT. The ask is free
 * again when fn is called. */
typedef void td_jet_ask_fn(void *context, int status, const struct td_nats_message *answer);

struct td_jet_ask {
    td_jet_ask_fn *fn;
    void *context;
    uint64_t id; /* 0: nothing is asked */
    struct td_jet *jet;
    struct td_list link;
    char *subject;
    char *payload;
    size_t len;
    int64_t deadline_ns, again_ns;
};

/* Asks until it is answered. The subject is without "$JS.API." if it does not begin by "$".
 * TD_EINVAL when it asks already, TD_ENOMEM. */
int td_jet_ask(struct td_jet *jet, struct td_jet_ask *ask, const char *subject,
               struct td_bytes payload, int64_t deadline_ns);
void td_jet_unask(struct td_jet_ask *ask); /* no-op when nothing is asked */

/* What an answer of the API means: td_js_answer_status of it, or why it could not be read. */
int td_jet_answer(int status, const struct td_nats_message *answer,
                  struct td_js_answer *ret_answer);

/* -- storing ---------------------------------------------------------------------------------- */

/* 0: it is stored; TD_ELIMIT: it never can be (too large), or the stream was full for too long;
 * TD_EREFUSED. sequence: its number in the stream. */
typedef void td_jet_store_fn(void *context, int status, uint64_t sequence);

/* Copies the payload. fn NULL: nobody wants to know. TD_ENOMEM, TD_ELIMIT: see payload_max. */
int td_jet_store(struct td_jet *jet, const char *subject, struct td_bytes payload,
                 td_jet_store_fn *fn, void *context);
/* Nothing of this context is told any more; what waits is sent all the same. */
void td_jet_unstore(struct td_jet *jet, const void *context);
size_t td_jet_storing(const struct td_jet *jet); /* bytes that are on their way */
uint64_t td_jet_full(const struct td_jet *jet);  /* how often a stream had no room */

/* -- messages that are asked for -------------------------------------------------------------- */

struct td_jet_pull;

struct td_jet_pull_events {
    /* One that was asked for; its reply is for td_jet_ack and td_js_read_numbers. The last one
     * comes behind `over`. */
    void (*message)(struct td_jet_pull *pull, const struct td_nats_message *message);
    /* What was asked for has come, or the rest will not. status: 408 no more just now, 404 no
     * messages, 409 something about the consumer, 503 no such consumer; 0: all came. */
    void (*over)(struct td_jet_pull *pull, unsigned status);
};

struct td_jet_pull {
    const struct td_jet_pull_events *events;
    uint64_t id; /* 0: nothing is asked */
    struct td_jet *jet;
    struct td_list link;
    char consumer[TD_JS_NAME_MAX];
    unsigned wanted; /* messages of this request that are still to come */
    int64_t deadline_ns;
};

/* TD_EINVAL while it asks already, TD_EAGAIN without a connection. */
int td_jet_pull(struct td_jet *jet, struct td_jet_pull *pull, const char *stream,
                const char *consumer, unsigned messages, int64_t expires_ns);
void td_jet_unpull(
    struct td_jet_pull *pull); /* what still comes is lost: redelivered, if it acks */

/* "+ACK", "-NAK", "+WPI", "+TERM". What is lost on the way comes again. */
void td_jet_ack(struct td_jet *jet, const char *reply, const char *what);

#endif
