/* nats.h: a connection to nats-server that belongs to an event loop. The one file that knows the
 * C client of NATS; of that only core calls are used: connect, publish, subscribe.
 *
 *      loop thread: td_nats_publish ----------------> the client's socket
 *      loop thread: callbacks <--queue, post-- the client's threads <-- the same socket
 *
 * The client's threads do nothing but put what arrives into one queue and wake the loop. When the
 * queue is full they wait, and then the client drops what it cannot keep: `lost` says how much. The
 * connection is made anew for as long as it takes; what is published meanwhile is refused, and
 * what was published a moment before may be lost: whoever needs to know asks for an answer.
 * Threads: the loop thread. Lifetime: td_nats_new .. td_nats_free, which comes after the last
 * subscription's end and not inside a callback; a subscription may be ended inside any. */
#ifndef TD_BUS_NATS_H
#define TD_BUS_NATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct td_error;
struct td_loop;
struct td_nats;
struct td_nats_subscription;

struct td_nats_options {
    const char *url;            /* nats://HOST:PORT, without credentials */
    const char *token;          /* who we are: a token, */
    const char *user, *secret;  /* or a user with its password, */
    const char *credentials;    /* or the path of a credentials file; NULL: none */
    const char *name;           /* of this client, for the server's operators; NULL: none */
    int64_t connect_timeout_ns; /* for the first connection; 0: a default */
    size_t queue_max;           /* bytes that wait for the loop; 0: a default */
};

/* What the server said of itself. */
struct td_nats_server {
    const char *id; /* another one each time that it is started */
    size_t payload_max;
    bool restarted; /* it is not the one that we were connected to before */
};

/* Every text is borrowed during the call. Nothing is called before td_nats_new has returned. */
struct td_nats_events {
    /* Also each time that it was made anew; subscriptions hold. */
    void (*connected)(void *context, const struct td_nats_server *server);
    void (*disconnected)(void *context, const char *reason);
    void (*closed)(void *context, const char *reason); /* for good: our credential is refused */
    void (*refused)(void *context, const char *what);  /* something we did; the server's words */
    void (*lost)(void *context, uint64_t messages);    /* that the loop was too slow for */
};

/* One that has arrived; borrowed during the call. */
struct td_nats_message {
    const char *subject;
    const char *reply; /* NULL: none is asked for */
    struct td_bytes payload;
    unsigned status;             /* the server's, without a payload; 0: an ordinary message */
    const struct td_nats_in *in; /* for td_nats_header */
};

typedef void td_nats_fn(void *context, const struct td_nats_message *message);

struct td_nats_header {
    const char *name, *value;
};

/* Blocks until the first connection is made. The strings are copied. TD_EINVAL, TD_ENOMEM,
 * TD_ETIMEOUT, TD_EREFUSED (our credential), TD_ESYS (nobody listens there). */
int td_nats_new(struct td_loop *loop, const struct td_nats_options *options,
                const struct td_nats_events *events, void *context, struct td_nats **ret_nats,
                struct td_error *err);
struct td_nats *td_nats_free(struct td_nats *nats); /* accepts NULL, returns NULL */

bool td_nats_connected(const struct td_nats *nats);

/* The beginning of subjects for answers to us alone, random: nobody else guesses it. */
const char *td_nats_inbox(const struct td_nats *nats);

/* Sends it, if there is a connection; reply may be NULL. TD_EAGAIN: there is none just now;
 * TD_ELIMIT: larger than the server takes; TD_EINVAL (the subject), TD_ENOMEM, TD_ECLOSED. */
int td_nats_publish(struct td_nats *nats, const char *subject, const char *reply,
                    const struct td_nats_header *headers, size_t nheaders, struct td_bytes payload);

/* fn gets what is published to the subject, or to those of the pattern, from now on, in order.
 * TD_EINVAL, TD_ENOMEM, TD_ECLOSED. */
int td_nats_subscribe(struct td_nats *nats, const char *subject, td_nats_fn *fn, void *context,
                      struct td_nats_subscription **ret_subscription, struct td_error *err);
/* What had arrived is dropped. Accepts NULL, returns NULL. */
struct td_nats_subscription *td_nats_subscription_free(struct td_nats_subscription *subscription);

/* A header of a message that is being handed over, or NULL. */
const char *td_nats_header(const struct td_nats_message *message, const char *name);

#endif
