#include "bus/nats.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/text.h"
#include "bus/libnats.h"
#include "os/clock.h"
#include "os/loop.h"

enum {
    INBOX_MAX = 64,
    SERVER_ID_MAX = 64,
    REASON_MAX = 160,
    ROUND_MAX = 256,              /* messages handed over before others get their turn */
    RECONNECT_MS = 100,           /* between attempts, */
    RECONNECT_JITTER_MS = 100,    /* and up to so much more */
    PING_MS = 5000,               /* a server that does not answer two of them is gone */
    PINGS_MAX = 2,                /* see above */
    WRITE_MS = 5000,              /* for what is sent to be taken: the loop waits for it */
    CLIENT_MESSAGES_MAX = 262144, /* kept by the client when our queue is full, */
    CLIENT_BYTES_MAX = 64 << 20,  /* a subscription */
};
#define QUEUE_MAX          ((size_t)64 << 20)
#define CONNECT_TIMEOUT_NS (5 * TD_NS_PER_S)

static const struct td_libnats *const lib = &td_libnats;

/* A message, or with no subscription what the server refused. */
struct item {
    struct td_list link; /* struct shared.items */
    size_t size;
    struct td_nats_subscription *subscription; /* a reference */
    natsMsg *msg;                              /* ours */
    char refusal[REASON_MAX];
};

/* What has become of the connection since the loop thread looked; in this order. It needs no
 * memory, so that it is never missed. */
struct changes {
    bool disconnected, connected, closed;
    char server[SERVER_ID_MAX]; /* connected: to which */
    char reason[REASON_MAX];    /* else why */
};

/* What the client's threads see of us. It lives until the last of them has left, which may be after
 * td_nats_free: refs counts us, the connection and each subscription. The lock guards everything
 * in here and the subscriptions' counts. */
struct shared {
    pthread_mutex_t lock;
    pthread_cond_t room;
    unsigned refs;
    struct td_nats *nats; /* NULL: it was freed */
    struct td_list items;
    size_t size, size_max;
    struct changes changes;
    uint64_t lost; /* there was no memory for them */
    bool slow;     /* the client has dropped some: each subscription knows how many */
};

/* References: the owner's, the client's until it has handed over its last message, each item's. */
struct td_nats_subscription {
    struct shared *shared;
    unsigned refs;       /* guarded by the shared lock */
    bool ended;          /* guarded by the shared lock */
    struct td_list link; /* struct td_nats.subscriptions */
    natsSubscription *sub;
    int64_t dropped; /* that were told of */
    td_nats_fn *fn;
    void *context;
};

struct td_nats_in {
    natsMsg *msg;
};

struct td_nats {
    struct td_loop *loop;
    const struct td_nats_events *events;
    void *context;
    struct shared *shared;
    natsConnection *connection;
    struct td_list subscriptions;
    struct td_post post;
    bool connected, closed;
    char server[SERVER_ID_MAX];
    char inbox[INBOX_MAX];
};

static void lock(struct shared *shared)
{
    (void)pthread_mutex_lock(&shared->lock); /* cannot fail: a default mutex, locked once */
}

static void unlock(struct shared *shared)
{
    (void)pthread_mutex_unlock(&shared->lock);
}

/* -- the client's threads --------------------------------------------------------------------- */

/* Drops a reference; the lock is held, and is gone with the last one. */
static void shared_unref(struct shared *shared)
{
    bool last = --shared->refs == 0;
    unlock(shared);
    if (!last)
        return;
    (void)pthread_cond_destroy(&shared->room);
    (void)pthread_mutex_destroy(&shared->lock);
    td_free(shared);
}

/* The lock is held and is released. */
static void subscription_unref(struct td_nats_subscription *subscription)
{
    struct shared *shared = subscription->shared;
    if (--subscription->refs > 0) {
        unlock(shared);
        return;
    }
    td_free(subscription);
    shared_unref(shared);
}

/* The lock is held. */
static void wake(struct shared *shared)
{
    if (shared->nats)
        (void)td_loop_post(shared->nats->loop, &shared->nats->post);
}

/* The lock is held. A message that there is no memory for is counted. */
static void queue(struct shared *shared, struct item **item)
{
    if (*item) {
        shared->size += (*item)->size;
        td_list_append(&shared->items, &(*item)->link);
        *item = NULL;
    } else {
        shared->lost++;
    }
    wake(shared);
}

static void on_message(natsConnection *connection, natsSubscription *sub, natsMsg *msg,
                       void *closure)
{
    (void)connection, (void)sub;
    struct td_nats_subscription *subscription = closure;
    struct shared *shared = subscription->shared;
    struct item *item = td_alloc_zero(sizeof *item);
    if (item)
        *item = (struct item){.size = sizeof *item + (size_t)lib->natsMsg_GetDataLength(msg),
                              .subscription = subscription,
                              .msg = msg};
    lock(shared);
    while (shared->size >= shared->size_max && shared->nats && !subscription->ended)
        (void)pthread_cond_wait(&shared->room, &shared->lock);
    bool wanted = shared->nats && !subscription->ended;
    bool queued = wanted && item;
    if (queued)
        subscription->refs++;
    if (wanted)
        queue(shared, &item);
    unlock(shared);
    td_free(item);
    if (!queued)
        lib->natsMsg_Destroy(msg);
}

static void on_complete(void *closure)
{
    struct td_nats_subscription *subscription = closure;
    lock(subscription->shared);
    subscription_unref(subscription);
}

static const char *last_error(natsConnection *connection)
{
    const char *text = NULL;
    (void)lib->natsConnection_GetLastError(connection,
                                           &text); /* it says only whether there is one */
    return text && *text ? text : "the connection was closed";
}

static void on_connected(natsConnection *connection, void *closure)
{
    struct shared *shared = closure;
    char id[SERVER_ID_MAX] = "";
    (void)lib->natsConnection_GetConnectedServerId(connection, id,
                                                   sizeof id); /* gone again: empty */
    lock(shared);
    shared->changes.connected = true;
    memcpy(shared->changes.server, id, sizeof id);
    wake(shared);
    unlock(shared);
}

static void on_disconnected(natsConnection *connection, void *closure)
{
    struct shared *shared = closure;
    lock(shared);
    shared->changes.disconnected = true;
    shared->changes.connected = false;
    (void)snprintf(shared->changes.reason, REASON_MAX, "%s",
                   last_error(connection)); /* cut: fine */
    wake(shared);
    unlock(shared);
}

static void on_closed(natsConnection *connection, void *closure)
{
    struct shared *shared = closure;
    lock(shared);
    shared->changes.closed = true;
    shared->changes.connected = false;
    (void)snprintf(shared->changes.reason, REASON_MAX, "%s",
                   last_error(connection)); /* cut: fine */
    wake(shared);
    shared_unref(shared);
}

static void on_refused(struct shared *shared, const char *text)
{
    struct item *item = td_alloc_zero(sizeof *item);
    if (item) {
        item->size = sizeof *item;
        (void)snprintf(item->refusal, sizeof item->refusal, "%s",
                       text); /* a cut text is one, too */
    }
    lock(shared);
    queue(shared, &item);
    unlock(shared);
}

static void on_error(natsConnection *connection, natsSubscription *sub, natsStatus status,
                     void *closure)
{
    (void)sub;
    struct shared *shared = closure;
    if (status != NATS_SLOW_CONSUMER) {
        on_refused(shared, last_error(connection));
        return;
    }
    lock(shared);
    shared->slow = true;
    wake(shared);
    unlock(shared);
}

/* -- the loop thread -------------------------------------------------------------------------- */

static unsigned status_of(const struct item *item)
{
    uint64_t status = 0;
    const char *text = NULL;
    if (lib->natsMsg_GetDataLength(item->msg) > 0 ||
        lib->natsMsgHeader_Get(item->msg, "Status", &text) != NATS_OK || strlen(text) < 3 ||
        td_text_u64(text, 3, &status) < 0)
        return 0;
    return (unsigned)status;
}

static void deliver(struct item *item)
{
    struct td_nats_subscription *subscription = item->subscription;
    struct td_nats_in in = {item->msg};
    struct td_nats_message message = {
        .subject = lib->natsMsg_GetSubject(item->msg),
        .reply = lib->natsMsg_GetReply(item->msg),
        .payload = {lib->natsMsg_GetData(item->msg), (size_t)lib->natsMsg_GetDataLength(item->msg)},
        .status = status_of(item),
        .in = &in,
    };
    if (!subscription->ended) /* it is ended on this thread only */
        subscription->fn(subscription->context, &message);
}

static void tell_connected(struct td_nats *nats, const char *id)
{
    struct td_nats_server server = {
        .id = id,
        .payload_max = (size_t)lib->natsConnection_GetMaxPayload(nats->connection),
        .restarted = nats->server[0] && strcmp(nats->server, id) != 0,
    };
    nats->connected = true;
    (void)snprintf(nats->server, sizeof nats->server, "%s",
                   id); /* it fits: as large as its source */
    nats->events->connected(nats->context, &server);
}

static void tell_changes(struct td_nats *nats)
{
    lock(nats->shared);
    struct changes changes = nats->shared->changes;
    nats->shared->changes = (struct changes){0};
    unlock(nats->shared);
    if (changes.disconnected || changes.closed)
        nats->connected = false;
    nats->closed |= changes.closed;
    if (changes.disconnected)
        nats->events->disconnected(nats->context, changes.reason);
    if (changes.connected)
        tell_connected(nats, changes.server);
    if (changes.closed)
        nats->events->closed(nats->context, changes.reason);
}

static void item_free(struct item *item)
{
    if (item->subscription) {
        lib->natsMsg_Destroy(item->msg);
        lock(item->subscription->shared);
        subscription_unref(item->subscription);
    }
    td_free(item);
}

static struct item *pop(struct shared *shared)
{
    lock(shared);
    struct td_list *node = td_list_pop(&shared->items);
    struct item *item = node ? TD_CONTAINER(node, struct item, link) : NULL;
    if (item) {
        bool full = shared->size >= shared->size_max;
        shared->size -= item->size;
        if (full && shared->size < shared->size_max)
            (void)pthread_cond_broadcast(&shared->room);
    }
    unlock(shared);
    return item;
}

/* The client tells of the first that it drops only, and further ones may follow: once it has
 * dropped any, each turn looks. Of the last one there is a turn, since those before it were kept.
 */
static uint64_t count_dropped(struct td_nats *nats)
{
    uint64_t count = 0;
    TD_LIST_EACH(node, &nats->subscriptions) {
        struct td_nats_subscription *subscription = TD_CONTAINER(node, struct td_nats_subscription,
                                                                 link);
        int64_t dropped = 0;
        if (lib->natsSubscription_GetDropped(subscription->sub, &dropped) != NATS_OK)
            continue; /* the connection was closed */
        count += (uint64_t)(dropped - subscription->dropped);
        subscription->dropped = dropped;
    }
    return count;
}

static void hand_over(void *context)
{
    struct td_nats *nats = context;
    struct shared *shared = nats->shared;
    tell_changes(nats);
    for (int i = 0; i < ROUND_MAX; i++) {
        struct item *item = pop(shared);
        if (!item)
            break;
        if (item->subscription)
            deliver(item);
        else
            nats->events->refused(nats->context, item->refusal);
        item_free(item);
    }
    lock(shared);
    uint64_t lost = shared->lost;
    bool slow = shared->slow;
    shared->lost = 0;
    if (!td_list_empty(&shared->items))
        wake(shared);
    unlock(shared);
    if (slow)
        lost += count_dropped(nats);
    if (lost > 0)
        nats->events->lost(nats->context, lost);
}

static int status_from(natsStatus status)
{
    switch ((int)status) {
    case NATS_OK: return 0;
    case NATS_NO_MEMORY: return TD_ENOMEM;
    case NATS_TIMEOUT: return TD_ETIMEOUT;
    case NATS_MAX_PAYLOAD: return TD_ELIMIT;
    case NATS_CONNECTION_CLOSED: return TD_ECLOSED;
    case NATS_INVALID_ARG:
    case NATS_INVALID_SUBJECT:
    case NATS_ADDRESS_MISSING: return TD_EINVAL;
    case NATS_CONNECTION_AUTH_FAILED:
    case NATS_NOT_PERMITTED: return TD_EREFUSED;
    case NATS_CONNECTION_DISCONNECTED:
    case NATS_INSUFFICIENT_BUFFER: return TD_EAGAIN;
    default: return TD_ESYS;
    }
}

int td_nats_publish(struct td_nats *nats, const char *subject, const char *reply,
                    const struct td_nats_header *headers, size_t nheaders, struct td_bytes payload)
{
    if (nats->closed)
        return TD_ECLOSED;
    if (!nats->connected)
        return TD_EAGAIN;
    if (payload.len > INT32_MAX)
        return TD_ELIMIT;
    natsMsg *msg = NULL;
    natsStatus status = lib->natsMsg_Create(&msg, subject, reply, payload.data, (int)payload.len);
    for (size_t i = 0; i < nheaders && status == NATS_OK; i++)
        status = lib->natsMsgHeader_Set(msg, headers[i].name, headers[i].value);
    if (status == NATS_OK)
        status = lib->natsConnection_PublishMsg(nats->connection, msg);
    lib->natsMsg_Destroy(msg);
    return status_from(status);
}

int td_nats_subscribe(struct td_nats *nats, const char *subject, td_nats_fn *fn, void *context,
                      struct td_nats_subscription **ret_subscription, struct td_error *err)
{
    struct td_nats_subscription *subscription = td_alloc_zero(sizeof *subscription);
    if (!subscription)
        return td_error_set(err, TD_ENOMEM, "subscription: out of memory");
    *subscription = (struct td_nats_subscription){
        .shared = nats->shared, .refs = 2, .fn = fn, .context = context};
    td_list_init(&subscription->link);
    lock(nats->shared);
    nats->shared->refs++;
    unlock(nats->shared);
    natsStatus status = lib->natsConnection_Subscribe(&subscription->sub, nats->connection, subject,
                                                      on_message, subscription);
    bool ours = status != NATS_OK;
    if (status == NATS_OK)
        status = lib->natsSubscription_SetOnCompleteCB(subscription->sub, on_complete,
                                                       subscription);
    if (status == NATS_OK)
        status = lib->natsSubscription_SetPendingLimits(subscription->sub, CLIENT_MESSAGES_MAX,
                                                        CLIENT_BYTES_MAX);
    if (status != NATS_OK) {
        if (ours) { /* else it is closed already and nobody knows whether the client has left */
            lock(nats->shared);
            subscription->refs = 1;
            subscription_unref(subscription);
        }
        return td_error_set(err, status_from(status), "subscribe to %s: %s", subject,
                            lib->natsStatus_GetText(status));
    }
    td_list_append(&nats->subscriptions, &subscription->link);
    *ret_subscription = subscription;
    return 0;
}

struct td_nats_subscription *td_nats_subscription_free(struct td_nats_subscription *subscription)
{
    if (!subscription)
        return NULL;
    struct shared *shared = subscription->shared;
    lock(shared);
    subscription->ended = true;
    (void)pthread_cond_broadcast(&shared->room);
    unlock(shared);
    td_list_remove(&subscription->link);
    lib->natsSubscription_Destroy(subscription->sub);
    lock(shared);
    subscription_unref(subscription);
    return NULL;
}

bool td_nats_connected(const struct td_nats *nats)
{
    return nats->connected;
}

const char *td_nats_inbox(const struct td_nats *nats)
{
    return nats->inbox;
}

const char *td_nats_header(const struct td_nats_message *message, const char *name)
{
    const char *value = NULL;
    return lib->natsMsgHeader_Get(message->in->msg, name, &value) == NATS_OK ? value : NULL;
}

/* -- life ------------------------------------------------------------------------------------- */

static int new_inbox(struct td_nats *nats, struct td_error *err)
{
    uint64_t number[2];
    if (getrandom(number, sizeof number, 0) != (ssize_t)sizeof number)
        return td_error_set(err, TD_ESYS, "no random numbers can be had");
    (void)snprintf(nats->inbox, sizeof nats->inbox, "_INBOX.%016llx%016llx",
                   (unsigned long long)number[0], (unsigned long long)number[1]); /* always fits */
    return 0;
}

static int shared_new(struct td_nats *nats, size_t size_max, struct td_error *err)
{
    struct shared *shared = td_alloc_zero(sizeof *shared);
    if (!shared)
        return td_error_set(err, TD_ENOMEM, "connection: out of memory");
    (void)pthread_mutex_init(&shared->lock, NULL); /* these cannot fail with defaults on Linux */
    (void)pthread_cond_init(&shared->room, NULL);
    td_list_init(&shared->items);
    shared->refs = 1;
    shared->nats = nats;
    shared->size_max = size_max ? size_max : QUEUE_MAX;
    nats->shared = shared;
    return 0;
}

static natsStatus set_credential(natsOptions *to, const struct td_nats_options *options)
{
    if (options->credentials)
        return lib->natsOptions_SetUserCredentialsFromFiles(to, options->credentials, NULL);
    if (options->token)
        return lib->natsOptions_SetToken(to, options->token);
    return options->user ? lib->natsOptions_SetUserInfo(to, options->user, options->secret)
                         : NATS_OK;
}

static natsStatus set_options(natsOptions *to, const struct td_nats_options *options,
                              struct shared *shared)
{
    int64_t timeout = options->connect_timeout_ns ? options->connect_timeout_ns
                                                  : CONNECT_TIMEOUT_NS;
    const natsStatus steps[] = {
        lib->natsOptions_SetURL(to, options->url),
        set_credential(to, options),
        options->name ? lib->natsOptions_SetName(to, options->name) : NATS_OK,
        lib->natsOptions_SetTimeout(to, timeout / TD_NS_PER_MS),
        lib->natsOptions_SetSendAsap(to, true), /* else each message waits for a millisecond */
        lib->natsOptions_SetAllowReconnect(to, true),
        lib->natsOptions_SetMaxReconnect(to, -1),
        lib->natsOptions_SetReconnectWait(to, RECONNECT_MS),
        lib->natsOptions_SetReconnectJitter(to, RECONNECT_JITTER_MS, RECONNECT_JITTER_MS),
        lib->natsOptions_SetIgnoreDiscoveredServers(to, true),
        lib->natsOptions_SetPingInterval(to, PING_MS),
        lib->natsOptions_SetMaxPingsOut(to, PINGS_MAX),
        lib->natsOptions_SetWriteDeadline(to, WRITE_MS),
        lib->natsOptions_SetDisconnectedCB(to, on_disconnected, shared),
        lib->natsOptions_SetReconnectedCB(to, on_connected, shared),
        lib->natsOptions_SetClosedCB(to, on_closed, shared),
        lib->natsOptions_SetErrorHandler(to, on_error, shared),
    };
    for (size_t i = 0; i < TD_COUNT(steps); i++)
        if (steps[i] != NATS_OK)
            return steps[i];
    return NATS_OK;
}

/* Signals are for the threads of the program that we are a guest in, not for the client's. */
static natsStatus connect_unsignalled(natsConnection **ret_connection, natsOptions *options)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    natsStatus status = lib->natsConnection_Connect(ret_connection, options);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

static int make_connection(struct td_nats *nats, const struct td_nats_options *options,
                           struct td_error *err)
{
    struct shared *shared = nats->shared;
    natsOptions *to = NULL;
    lock(shared);
    shared->refs++; /* until on_closed */
    unlock(shared);
    natsStatus status = lib->natsOptions_Create(&to);
    if (status == NATS_OK)
        status = set_options(to, options, shared);
    if (status == NATS_OK)
        status = connect_unsignalled(&nats->connection, to);
    lib->natsOptions_Destroy(to);
    if (status != NATS_OK) {
        lock(shared);
        shared_unref(shared);
        return td_error_set(err, status_from(status), "%s: %s", options->url,
                            lib->natsStatus_GetText(status));
    }
    on_connected(nats->connection, shared);
    return 0;
}

int td_nats_new(struct td_loop *loop, const struct td_nats_options *options,
                const struct td_nats_events *events, void *context, struct td_nats **ret_nats,
                struct td_error *err)
{
    int r = td_libnats_load(err);
    if (r < 0)
        return r;
    struct td_nats *nats = td_alloc_zero(sizeof *nats);
    if (!nats)
        return td_error_set(err, TD_ENOMEM, "connection: out of memory");
    *nats = (struct td_nats){.loop = loop, .events = events, .context = context};
    td_list_init(&nats->subscriptions);
    nats->post = (struct td_post){.fn = hand_over, .context = nats};
    r = new_inbox(nats, err);
    if (r == 0)
        r = shared_new(nats, options->queue_max, err);
    if (r == 0 && nats->shared) /* it is there: for the analyzer */
        r = make_connection(nats, options, err);
    if (r < 0) {
        td_nats_free(nats);
        return r;
    }
    *ret_nats = nats;
    return 0;
}

struct td_nats *td_nats_free(struct td_nats *nats)
{
    if (!nats)
        return NULL;
    struct shared *shared = nats->shared;
    if (shared) {
        lock(shared);
        shared->nats = NULL; /* from now on the client's threads drop what they have */
        (void)pthread_cond_broadcast(&shared->room);
        unlock(shared);
        td_loop_unpost(nats->loop, &nats->post);
        lib->natsConnection_Destroy(nats->connection);
        for (struct item *item = pop(shared); item; item = pop(shared))
            item_free(item);
        lock(shared);
        shared_unref(shared);
    }
    td_free(nats);
    return NULL;
}
