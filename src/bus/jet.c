#include "bus/jet.h"

#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/mem.h"
#include "base/text.h"
#include "os/clock.h"

enum {
    SUBJECT_MAX = 256,
    ID_MAX = 96,
    PAYLOAD_SPARE = 4096, /* for headers and the subject */
};
#define AGAIN_NS      (2 * TD_NS_PER_S) /* without an answer a message is sent again */
#define SOON_NS       (TD_NS_PER_S / 10)
#define FULL_NS       (TD_NS_PER_S / 4)
#define FULL_MAX_NS   (60 * TD_NS_PER_S)
#define PULL_GRACE_NS (2 * TD_NS_PER_S)

/* A message that is being stored. */
struct parcel {
    struct td_list link; /* struct td_jet.parcels */
    uint64_t id;
    td_jet_store_fn *fn;
    void *context;
    char *subject;
    size_t len;
    int64_t again_ns;
    int64_t full_ns; /* since when the stream has had no room; 0: it had */
    char payload[];
};

enum kind { KIND_ASK, KIND_PARCEL, KIND_PULL };

struct td_jet {
    struct td_loop *loop;
    struct td_nats *nats;
    struct td_nats_subscription *inbox;
    const struct td_jet_events *events;
    void *context;
    char prefix[ID_MAX]; /* of answers' subjects */
    char server[TD_JS_NAME_MAX];
    size_t payload_max;
    uint64_t last_id;        /* its lowest two bits are the kind */
    struct td_idmap waiting; /* id -> ask, parcel or pull */
    struct td_list asks, parcels, pulls;
    size_t storing;
    uint64_t full;
    struct td_timer timer;
    int64_t timer_ns; /* when it is set for; INT64_MAX: it is not */
};

/* -- time ------------------------------------------------------------------------------------- */

static void look_at(struct td_jet *jet, int64_t when_ns)
{
    if (when_ns >= jet->timer_ns)
        return;
    if (td_loop_timer(jet->loop, &jet->timer, when_ns) == 0) /* its place is kept, see new */
        jet->timer_ns = when_ns;
}

static uint64_t new_id(struct td_jet *jet, enum kind kind)
{
    jet->last_id += 4;
    return jet->last_id | (uint64_t)kind;
}

static void reply_for(const struct td_jet *jet, uint64_t id, char *to, size_t size)
{
    (void)snprintf(to, size, "%s.%llu", jet->prefix, (unsigned long long)id); /* always fits */
}

/* -- questions -------------------------------------------------------------------------------- */

static void ask_send(struct td_jet_ask *ask)
{
    char reply[ID_MAX + 24];
    reply_for(ask->jet, ask->id, reply, sizeof reply);
    /* Not now: then when the connection is back, or a moment later. */
    (void)td_nats_publish(ask->jet->nats, ask->subject, reply, NULL, 0,
                          (struct td_bytes){ask->payload, ask->len});
}

static void ask_over(struct td_jet_ask *ask, int status, const struct td_nats_message *answer)
{
    td_jet_unask(ask);
    ask->fn(ask->context, status, answer);
}

int td_jet_ask(struct td_jet *jet, struct td_jet_ask *ask, const char *subject,
               struct td_bytes payload, int64_t deadline_ns)
{
    static const char api[] = "$JS.API.";
    size_t prefix = subject[0] == '$' ? 0 : sizeof api - 1, len = strlen(subject);
    if (ask->id)
        return TD_EINVAL;
    char *text = td_alloc(prefix + len + 1 + payload.len + 1);
    if (!text)
        return TD_ENOMEM;
    memcpy(text, api, prefix);
    memcpy(text + prefix, subject, len + 1);
    ask->jet = jet;
    ask->subject = text;
    ask->payload = text + prefix + len + 1;
    ask->len = payload.len;
    if (payload.len)
        memcpy(ask->payload, payload.data, payload.len);
    ask->deadline_ns = deadline_ns;
    ask->again_ns = td_clock_now() + AGAIN_NS;
    ask->id = new_id(jet, KIND_ASK);
    if (td_idmap_put(&jet->waiting, ask->id, ask) < 0) {
        ask->id = 0;
        td_free(text);
        return TD_ENOMEM;
    }
    td_list_init(&ask->link);
    td_list_append(&jet->asks, &ask->link);
    look_at(jet, ask->again_ns < deadline_ns ? ask->again_ns : deadline_ns);
    ask_send(ask);
    return 0;
}

void td_jet_unask(struct td_jet_ask *ask)
{
    if (!ask->id)
        return;
    td_idmap_remove(&ask->jet->waiting, ask->id);
    td_list_remove(&ask->link);
    td_free(ask->subject);
    ask->id = 0;
}

int td_jet_answer(int status, const struct td_nats_message *answer, struct td_js_answer *ret_answer)
{
    *ret_answer = (struct td_js_answer){0};
    if (status == 0)
        status = td_js_read_answer(answer->payload, ret_answer);
    return status < 0 ? status : td_js_answer_status(ret_answer);
}

static void on_answer(struct td_jet_ask *ask, const struct td_nats_message *message)
{
    if (message->status == 503) { /* JetStream is not up yet */
        ask->again_ns = td_clock_now() + SOON_NS;
        look_at(ask->jet, ask->again_ns);
    } else {
        ask_over(ask, 0, message);
    }
}

/* -- storing ---------------------------------------------------------------------------------- */

static void parcel_send(struct td_jet *jet, struct parcel *parcel)
{
    char reply[ID_MAX + 24];
    reply_for(jet, parcel->id, reply, sizeof reply);
    const struct td_nats_header id = {"Nats-Msg-Id", reply};
    parcel->again_ns = td_clock_now() + AGAIN_NS;
    look_at(jet, parcel->again_ns);
    int r = td_nats_publish(jet->nats, parcel->subject, reply, &id, 1,
                            (struct td_bytes){parcel->payload, parcel->len});
    if (r == TD_ENOMEM) /* else it is sent again when the connection is back */
        look_at(jet, parcel->again_ns = td_clock_now() + SOON_NS);
}

static void parcel_free(struct td_jet *jet, struct parcel *parcel)
{
    td_idmap_remove(&jet->waiting, parcel->id);
    td_list_remove(&parcel->link);
    jet->storing -= parcel->len;
    td_free(parcel->subject);
    td_free(parcel);
}

static void parcel_over(struct td_jet *jet, struct parcel *parcel, int status, uint64_t sequence)
{
    td_jet_store_fn *fn = parcel->fn;
    void *context = parcel->context;
    parcel_free(jet, parcel);
    if (fn)
        fn(context, status, sequence);
}

int td_jet_store(struct td_jet *jet, const char *subject, struct td_bytes payload,
                 td_jet_store_fn *fn, void *context)
{
    if (jet->payload_max && payload.len > td_jet_payload_max(jet))
        return TD_ELIMIT;
    struct parcel *parcel = td_alloc(sizeof *parcel + payload.len);
    size_t len = strlen(subject);
    char *text = td_alloc(len + 1);
    if (!parcel || !text) {
        td_free(parcel);
        td_free(text);
        return TD_ENOMEM;
    }
    memcpy(text, subject, len + 1);
    *parcel = (struct parcel){.id = new_id(jet, KIND_PARCEL),
                              .fn = fn,
                              .context = context,
                              .subject = text,
                              .len = payload.len};
    if (payload.len)
        memcpy(parcel->payload, payload.data, payload.len);
    td_list_init(&parcel->link);
    if (td_idmap_put(&jet->waiting, parcel->id, parcel) < 0) {
        td_free(text);
        td_free(parcel);
        return TD_ENOMEM;
    }
    td_list_append(&jet->parcels, &parcel->link);
    jet->storing += payload.len;
    parcel_send(jet, parcel);
    return 0;
}

void td_jet_unstore(struct td_jet *jet, const void *context)
{
    TD_LIST_EACH(node, &jet->parcels) {
        struct parcel *parcel = TD_CONTAINER(node, struct parcel, link);
        if (parcel->context == context)
            parcel->fn = NULL;
    }
}

static void on_stored(struct td_jet *jet, struct parcel *parcel,
                      const struct td_nats_message *message)
{
    struct td_js_answer answer = {0};
    int r = message->status == 503 ? TD_EAGAIN : td_jet_answer(0, message, &answer);
    int64_t now = td_clock_now();
    if (r == 0) {
        parcel_over(jet, parcel, 0, answer.sequence);
    } else if (r == TD_EAGAIN || r == TD_ENOTFOUND) {
        parcel->again_ns = now + SOON_NS;
        look_at(jet, parcel->again_ns);
    } else if (r == TD_ELIMIT && answer.number != TD_JS_TOO_LARGE &&
               (!parcel->full_ns || now - parcel->full_ns < FULL_MAX_NS)) {
        jet->full++;
        parcel->full_ns = parcel->full_ns ? parcel->full_ns : now;
        parcel->again_ns = now + FULL_NS;
        look_at(jet, parcel->again_ns);
    } else {
        parcel_over(jet, parcel, r, 0);
    }
}

size_t td_jet_storing(const struct td_jet *jet)
{
    return jet->storing;
}

uint64_t td_jet_full(const struct td_jet *jet)
{
    return jet->full;
}

/* -- messages that are asked for -------------------------------------------------------------- */

static void pull_over(struct td_jet_pull *pull, unsigned status)
{
    td_jet_unpull(pull);
    pull->events->over(pull, status);
}

int td_jet_pull(struct td_jet *jet, struct td_jet_pull *pull, const char *stream,
                const char *consumer, unsigned messages, int64_t expires_ns)
{
    char subject[SUBJECT_MAX], reply[ID_MAX + 24], ask[96];
    if (pull->id)
        return TD_EINVAL;
    pull->jet = jet;
    pull->id = new_id(jet, KIND_PULL);
    pull->wanted = messages;
    (void)snprintf(pull->consumer, sizeof pull->consumer, "%s", consumer); /* it has a maximum */
    pull->deadline_ns = td_clock_now() + expires_ns + PULL_GRACE_NS;
    reply_for(jet, pull->id, reply, sizeof reply);
    (void)snprintf(subject, sizeof subject, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", stream,
                   consumer); /* names have a maximum */
    (void)snprintf(ask, sizeof ask, "{\"batch\":%u,\"expires\":%lld}", messages,
                   (long long)expires_ns); /* always fits */
    int r = td_idmap_put(&jet->waiting, pull->id, pull);
    if (r == 0) {
        r = td_nats_publish(jet->nats, subject, reply, NULL, 0,
                            (struct td_bytes){ask, strlen(ask)});
        if (r < 0)
            td_idmap_remove(&jet->waiting, pull->id);
    }
    if (r < 0) {
        pull->id = 0;
        return r;
    }
    td_list_init(&pull->link);
    td_list_append(&jet->pulls, &pull->link);
    look_at(jet, pull->deadline_ns);
    return 0;
}

void td_jet_unpull(struct td_jet_pull *pull)
{
    if (!pull->id)
        return;
    td_idmap_remove(&pull->jet->waiting, pull->id);
    td_list_remove(&pull->link);
    pull->id = 0;
}

static void on_pulled(struct td_jet_pull *pull, const struct td_nats_message *message)
{
    if (message->status == 100) /* a sign of life */
        return;
    if (message->status) {
        pull_over(pull, message->status);
        return;
    }
    pull->wanted--;
    bool last = pull->wanted == 0;
    const struct td_jet_pull_events *events = pull->events;
    if (last)
        pull_over(pull, 0);         /* which may ask for more already */
    events->message(pull, message); /* it may be the end of the pull */
}

void td_jet_ack(struct td_jet *jet, const char *reply, const char *what)
{
    (void)td_nats_publish(jet->nats, reply, NULL, NULL, 0, (struct td_bytes){what, strlen(what)});
}

/* -- from the connection ---------------------------------------------------------------------- */

/* A stored message comes under the subject that it was stored under: the consumer says who has
 * asked for it. */
static struct td_jet_pull *pull_of(struct td_jet *jet, const struct td_nats_message *message)
{
    struct td_js_numbers numbers;
    if (!message->reply || td_js_read_numbers(message->reply, &numbers) < 0)
        return NULL;
    TD_LIST_EACH(node, &jet->pulls) {
        struct td_jet_pull *pull = TD_CONTAINER(node, struct td_jet_pull, link);
        if (strlen(pull->consumer) == numbers.name.len &&
            memcmp(pull->consumer, numbers.name.data, numbers.name.len) == 0)
            return pull;
    }
    return NULL; /* withdrawn */
}

static void on_inbox(void *context, const struct td_nats_message *message)
{
    struct td_jet *jet = context;
    if (strncmp(message->subject, jet->prefix, strlen(jet->prefix)) != 0) {
        struct td_jet_pull *pull = pull_of(jet, message);
        if (pull)
            on_pulled(pull, message);
        return;
    }
    const char *number = message->subject + strlen(jet->prefix) + 1;
    uint64_t id;
    if (strlen(message->subject) <= strlen(jet->prefix) + 1 ||
        td_text_u64(number, strlen(number), &id) < 0)
        return;
    void *waits = td_idmap_get(&jet->waiting, id);
    if (!waits)
        return; /* answered before, or withdrawn */
    switch ((enum kind)(id & 3)) {
    case KIND_ASK: on_answer(waits, message); break;
    case KIND_PARCEL: on_stored(jet, waits, message); break;
    case KIND_PULL: on_pulled(waits, message); break;
    }
}

/* Requests for messages died with the connection. */
static void drop_pulls(struct td_jet *jet)
{
    struct td_list dead;
    td_list_init(&dead);
    for (struct td_list *node = td_list_pop(&jet->pulls); node; node = td_list_pop(&jet->pulls))
        td_list_append(&dead, node);
    while (!td_list_empty(&dead))
        pull_over(TD_CONTAINER(dead.next, struct td_jet_pull, link), 408);
}

static void on_connected(void *context, const struct td_nats_server *server)
{
    struct td_jet *jet = context;
    (void)snprintf(jet->server, sizeof jet->server, "%s", server->id); /* cut: still its own */
    jet->payload_max = server->payload_max;
    jet->events->connected(jet->context, server->restarted);
    int64_t now = td_clock_now();
    TD_LIST_EACH(node, &jet->asks) {
        struct td_jet_ask *ask = TD_CONTAINER(node, struct td_jet_ask, link);
        ask->again_ns = now + AGAIN_NS;
        ask_send(ask);
    }
    TD_LIST_EACH(node, &jet->parcels)
        parcel_send(jet, TD_CONTAINER(node, struct parcel, link));
}

static void on_disconnected(void *context, const char *reason)
{
    struct td_jet *jet = context;
    drop_pulls(jet);
    jet->events->disconnected(jet->context, reason);
}

static void on_closed(void *context, const char *reason)
{
    struct td_jet *jet = context;
    jet->events->closed(jet->context, reason);
}

/* Something that may not be done: who did it hears nothing and gives up at its deadline. */
static void on_refused(void *context, const char *what)
{
    (void)context, (void)what;
}

/* Messages that this thread was too slow for: what is asked for is asked for again in time. */
static void on_lost(void *context, uint64_t messages)
{
    (void)context, (void)messages;
}

static void look_at_asks(struct td_jet *jet, int64_t now, int64_t *next)
{
    TD_LIST_EACH_SAFE(node, &jet->asks) {
        struct td_jet_ask *ask = TD_CONTAINER(node, struct td_jet_ask, link);
        if (ask->deadline_ns <= now)
            continue;
        if (ask->again_ns <= now) {
            ask->again_ns = now + AGAIN_NS;
            ask_send(ask);
        }
        int64_t when = ask->again_ns < ask->deadline_ns ? ask->again_ns : ask->deadline_ns;
        *next = when < *next ? when : *next;
    }
    for (;;) { /* whoever is told may ask anew, or withdraw others */
        struct td_jet_ask *late = NULL;
        TD_LIST_EACH(node, &jet->asks) {
            struct td_jet_ask *ask = TD_CONTAINER(node, struct td_jet_ask, link);
            if (ask->deadline_ns <= now)
                late = ask;
        }
        if (!late)
            return;
        ask_over(late, TD_ETIMEOUT, NULL);
    }
}

static void look_at_parcels(struct td_jet *jet, int64_t now, int64_t *next)
{
    TD_LIST_EACH(node, &jet->parcels) {
        struct parcel *parcel = TD_CONTAINER(node, struct parcel, link);
        if (parcel->again_ns <= now)
            parcel_send(jet, parcel);
        *next = parcel->again_ns < *next ? parcel->again_ns : *next;
    }
}

static void look_at_pulls(struct td_jet *jet, int64_t now, int64_t *next)
{
    for (;;) {
        struct td_jet_pull *late = NULL;
        TD_LIST_EACH(node, &jet->pulls) {
            struct td_jet_pull *pull = TD_CONTAINER(node, struct td_jet_pull, link);
            if (pull->deadline_ns <= now)
                late = pull;
            else
                *next = pull->deadline_ns < *next ? pull->deadline_ns : *next;
        }
        if (!late)
            return;
        pull_over(late, 408);
    }
}

static void on_timer(void *context)
{
    struct td_jet *jet = context;
    int64_t now = td_clock_now(), next = INT64_MAX;
    jet->timer_ns = INT64_MAX;
    look_at_parcels(jet, now, &next);
    look_at_pulls(jet, now, &next);
    look_at_asks(jet, now, &next);
    look_at(jet, next);
}

/* -- life ------------------------------------------------------------------------------------- */

int td_jet_new(struct td_loop *loop, const struct td_nats_options *options,
               const struct td_jet_events *events, void *context, struct td_jet **ret_jet,
               struct td_error *err)
{
    static const struct td_nats_events nats_events = {on_connected, on_disconnected, on_closed,
                                                      on_refused, on_lost};
    struct td_jet *jet = td_alloc_zero(sizeof *jet);
    if (!jet)
        return td_error_set(err, TD_ENOMEM, "connection: out of memory");
    jet->loop = loop;
    jet->events = events;
    jet->context = context;
    jet->timer = (struct td_timer){.fn = on_timer, .context = jet};
    jet->timer_ns = INT64_MAX;
    td_list_init(&jet->asks);
    td_list_init(&jet->parcels);
    td_list_init(&jet->pulls);
    int r = td_loop_timer(loop, &jet->timer, TD_NO_DEADLINE);
    if (r < 0)
        (void)td_error_set(err, r, "connection: %s", td_status_text(r));
    if (r == 0)
        r = td_nats_new(loop, options, &nats_events, jet, &jet->nats, err);
    if (r == 0) {
        char pattern[ID_MAX + 4];
        (void)snprintf(jet->prefix, sizeof jet->prefix, "%s", td_nats_inbox(jet->nats)); /* fits */
        (void)snprintf(pattern, sizeof pattern, "%s.*", jet->prefix);
        r = td_nats_subscribe(jet->nats, pattern, on_inbox, jet, &jet->inbox, err);
    }
    if (r < 0) {
        td_jet_free(jet);
        return r;
    }
    *ret_jet = jet;
    return 0;
}

struct td_jet *td_jet_free(struct td_jet *jet)
{
    if (!jet)
        return NULL;
    td_loop_untimer(jet->loop, &jet->timer);
    while (!td_list_empty(&jet->asks))
        td_jet_unask(TD_CONTAINER(jet->asks.next, struct td_jet_ask, link));
    while (!td_list_empty(&jet->pulls))
        td_jet_unpull(TD_CONTAINER(jet->pulls.next, struct td_jet_pull, link));
    while (!td_list_empty(&jet->parcels))
        parcel_free(jet, TD_CONTAINER(jet->parcels.next, struct parcel, link));
    td_nats_subscription_free(jet->inbox);
    td_nats_free(jet->nats);
    td_idmap_done(&jet->waiting);
    td_free(jet);
    return NULL;
}

struct td_nats *td_jet_nats(struct td_jet *jet)
{
    return jet->nats;
}

const char *td_jet_server(const struct td_jet *jet)
{
    return jet->server;
}

size_t td_jet_payload_max(const struct td_jet *jet)
{
    return jet->payload_max > PAYLOAD_SPARE ? jet->payload_max - PAYLOAD_SPARE : 0;
}
