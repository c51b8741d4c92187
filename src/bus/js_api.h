/* js_api.h: what JetStream's API is asked and answers, as JSON: https://docs.nats.io, "JetStream
 * wire API reference". Pure. js_api.c leaves JSON to jansson, which is strict, small
 * and in every distribution, and reads an answer by a pattern in one call.
 *
 * Threads: any. */
#ifndef TD_BUS_JS_API_H
#define TD_BUS_JS_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct td_buf;

enum {
    TD_JS_NAME_MAX = 64,
    TD_JS_TEXT_MAX = 128,
    TD_JS_SUBJECTS_MAX = 4,
    TD_JS_TOO_LARGE = 10054, /* td_js_answer.number: a message that will never fit */
};

/* Zero of a maximum or time: none. */
struct td_js_stream {
    const char *name;
    const char *subjects[TD_JS_SUBJECTS_MAX]; /* up to the first NULL */
    bool work_queue;                          /* what was acknowledged goes */
    bool memory;                              /* not on disk */
    bool discard_old;                         /* when it is full, else what is new is refused */
    bool direct;                              /* td_js_last may be asked for */
    int64_t bytes_max;
    int64_t each_max; /* messages of a subject: the oldest goes */
    int64_t age_ns;
    int64_t duplicates_ns; /* how long message ids are remembered; at most age_ns */
};

struct td_js_consumer {
    const char *stream;
    const char *name;
    const char *filter;  /* a subject or a pattern; NULL: all */
    bool durable;        /* until it is deleted; else until nobody has asked it for inactive_ns */
    bool acks;           /* each message is to be acknowledged, else none */
    uint64_t start;      /* with this sequence number; 0: the first */
    bool headers_only;   /* without payloads */
    int64_t ack_wait_ns; /* until a message that nobody acknowledged is delivered again */
    int64_t inactive_ns;
    int64_t unacked_max; /* messages delivered and not acknowledged */
    int64_t asks_max;    /* that wait for messages */
};

/* An answer to anything; what does not belong to the question is zero. */
struct td_js_answer {
    int code; /* of an error as in HTTP; 0: none */
    int number;
    char text[TD_JS_TEXT_MAX]; /* the server's words */
    uint64_t sequence;         /* of a message that was stored */
    bool duplicate;            /* it was stored before */
    uint64_t messages, bytes;  /* of a stream */
    uint64_t first, last;      /* sequence numbers in there */
    uint64_t pending;          /* of a consumer: not delivered yet; */
    uint64_t unacked, asks;    /* delivered and not acknowledged; waiting requests */
};

/* Each appends to `to`: TD_ENOMEM, TD_ELIMIT, TD_EINVAL (a string that is no UTF-8). */
int td_js_write_stream(const struct td_js_stream *stream, struct td_buf *to);
int td_js_write_consumer(const struct td_js_consumer *consumer, struct td_buf *to);
int td_js_write_purge(const char *filter, uint64_t before, struct td_buf *to); /* 0: all of it */
int td_js_write_names(uint64_t offset, struct td_buf *to);
int td_js_write_info(const char *subjects,
                     struct td_buf *to); /* a pattern: with how many of each */
int td_js_write_ask(unsigned messages, int64_t expires_ns, struct td_buf *to);

/* TD_EPROTO: it is not such an answer. */
int td_js_read_answer(struct td_bytes text, struct td_js_answer *ret_answer);

/* Names of consumers: fn for each, borrowed. *ret_more: there are others behind them, and so many
 * were in this answer. TD_EPROTO. */
int td_js_read_names(struct td_bytes text, void (*fn)(void *context, const char *name),
                     void *context, uint64_t *ret_count, bool *ret_more);

/* The subjects that a stream has messages under, as info was asked for; borrowed. TD_EPROTO. */
int td_js_read_subjects(struct td_bytes text,
                        void (*fn)(void *context, const char *subject, uint64_t messages),
                        void *context);

/* What an error means: 0 (none), TD_ENOTFOUND, TD_EEXISTS (also: what another one has taken),
 * TD_ELIMIT (no room), TD_EAGAIN (not at this moment), TD_EREFUSED. */
int td_js_answer_status(const struct td_js_answer *answer);

/* The numbers in the subject that a delivery is to be acknowledged at. TD_EPROTO. */
struct td_js_numbers {
    struct td_bytes name; /* of the consumer; borrowed from the subject */
    uint64_t deliveries;  /* of this message, with this one */
    uint64_t sequence;    /* in the stream */
    uint64_t consumed;    /* in the consumer: 1, 2, 3, ... */
    int64_t stored_ns;    /* when it was stored: unix time */
    uint64_t pending;     /* further messages that wait for the consumer */
};
int td_js_read_numbers(const char *reply, struct td_js_numbers *ret_numbers);

#endif
