#include "node/guest.h"

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/mem.h"
#include "bus/bus.h"
#include "os/channel.h"
#include "task/outcome.h"
#include "task/spec.h"
#include "wire/message.h"

enum {
    HEAD_MAX = 256 << 20,
    OUTPUT_QUEUE_MAX = 4 << 20, /* bytes waiting for the guest before its maps are muted */
};
#define QUEUE_MAX ((size_t)4 << 30)

struct map {
    uint64_t id;
    uint64_t open; /* calls without an outcome */
    bool muted;
    bool left; /* by a call that has ended: nobody waits for it */
};

struct td_guest {
    struct td_bus *bus;
    struct td_channel *channel;
    td_guest_busy_fn *busy;
    void *context;
    struct td_idmap maps;
    uint64_t open;  /* over all maps that are waited for */
    uint32_t depth; /* of the maps that are opened; and their root, see struct td_spec */
    uint64_t root;
};

static void count(struct td_guest *guest, struct map *map, int64_t calls)
{
    bool was_busy = guest->open > 0;
    if (map->left)
        return;
    map->open += (uint64_t)calls;
    guest->open += (uint64_t)calls;
    if (was_busy != (guest->open > 0))
        guest->busy(guest->context, guest->open > 0);
}

static int send(struct td_guest *guest, const struct td_message *message, struct td_blob *tail)
{
    TD_CLEANUP(td_buf_done) struct td_buf head;
    struct td_bytes ignored;
    td_buf_init(&head, HEAD_MAX);
    int r = td_message_encode(message, &head, &ignored, NULL);
    return r < 0 ? r
                 : td_channel_send(guest->channel, (struct td_bytes){head.data, head.len}, tail);
}

static void on_started(void *context, uint64_t id, uint64_t index, uint32_t count)
{
    struct td_message message = {.type = TD_MSG_STARTED,
                                 .started = {.map = id, .index = index, .count = count}};
    (void)send(context, &message, NULL); /* a guest that cannot be reached is about to be closed */
}

static void unmute(struct td_guest *guest)
{
    if (td_channel_queued(guest->channel) > OUTPUT_QUEUE_MAX / 2)
        return;
    size_t cursor = 0;
    for (struct map *map = td_idmap_next(&guest->maps, &cursor); map;
         map = td_idmap_next(&guest->maps, &cursor)) {
        if (map->muted)
            td_bus_mute(guest->bus, map->id, false);
        map->muted = false;
    }
}

static void on_output(void *context, uint64_t id, uint64_t index, uint32_t count, int stream,
                      struct td_bytes text)
{
    struct td_guest *guest = context;
    struct map *map = td_idmap_get(&guest->maps, id);
    TD_CLEANUP(td_blob_unrefp) struct td_blob *copy = td_blob_new(text.data, text.len);
    struct td_message message = {
        .type = TD_MSG_OUTPUT,
        .output = {.map = id, .index = index, .count = count, .stream = (uint8_t)stream}};
    if (copy)
        (void)send(guest, &message, copy); /* as above */
    bool full = td_channel_queued(guest->channel) > OUTPUT_QUEUE_MAX;
    if (map && full && !map->muted) {
        map->muted = true;
        td_bus_mute(guest->bus, id, true);
    }
}

static void on_outcome(void *context, struct td_outcome **outcome)
{
    struct td_guest *guest = context;
    struct map *map = td_idmap_get(&guest->maps, (*outcome)->map);
    int64_t calls = (*outcome)->count;
    struct td_message message;
    td_outcome_message(*outcome, &message);
    (void)send(guest, &message, (*outcome)->value); /* as above */
    if (map)
        count(guest, map, -calls);
}

static void on_lost(void *context, const char *reason)
{
    (void)context, (void)reason; /* the bus is in this process: it is lost with us */
}

static const struct td_bus_sink sink = {on_started, on_output, on_outcome, on_lost};

static int map_open(struct td_guest *guest, const struct td_msg_map_open *message)
{
    TD_CLEANUP(td_spec_unrefp) struct td_spec *spec = NULL;
    struct map *map = td_alloc_zero(sizeof *map);
    int r = map ? td_spec_from(message, &spec, NULL) : TD_ENOMEM;
    if (r == 0) {
        spec->depth = guest->depth; /* it is nobody else's yet */
        spec->root = guest->root;
        r = td_idmap_put(&guest->maps, message->map, map);
    }
    if (r < 0) {
        td_free(map);
        return r;
    }
    map->id = message->map;
    r = td_bus_open(guest->bus, &sink, guest, map->id, spec, NULL);
    if (r < 0)
        td_free(td_idmap_remove(&guest->maps, map->id));
    return r;
}

/* Calls that cannot be taken in have an outcome all the same. */
static void map_call(struct td_guest *guest, const struct td_msg_map_call *message,
                     struct td_blob *args)
{
    struct map *map = td_idmap_get(&guest->maps, message->map);
    int r = map && args && message->count ? 0 : TD_ENOMEM;
    if (map)
        count(guest, map, message->count);
    if (map && map->left)
        r = TD_ECANCELLED;
    if (r == 0)
        r = td_bus_submit(guest->bus, message->map, message->index, message->count, args);
    if (r == 0)
        return;
    TD_CLEANUP(td_outcome_freep)
    struct td_outcome *outcome = td_outcome_new(
        message->map, message->index, 0,
        r == TD_ECANCELLED ? (uint8_t)TD_OUTCOME_CANCELLED : (uint8_t)TD_OUTCOME_NOT_STARTED);
    if (!outcome)
        return;
    outcome->count = message->count;
    on_outcome(guest, &outcome);
}

static void map_forget(struct td_guest *guest, uint64_t id)
{
    struct map *map = td_idmap_remove(&guest->maps, id);
    if (!map)
        return;
    td_bus_forget(guest->bus, id);
    count(guest, map, -(int64_t)map->open);
    td_free(map);
}

static void on_frame(void *context, struct td_bytes frame)
{
    struct td_guest *guest = context;
    struct td_message message;
    struct td_blob *beside = td_channel_tail(guest->channel);
    if (td_message_decode(frame, &message, NULL) < 0 ||
        (beside && td_message_attach(&message, beside, NULL) < 0))
        return; /* user code may write nonsense here: it hurts nobody but its own map */
    unmute(guest);
    if (message.type == TD_MSG_MAP_OPEN)
        (void)map_open(guest, &message.map_open); /* its calls are answered NOT_STARTED */
    else if (message.type == TD_MSG_MAP_CALL) {
        TD_CLEANUP(td_blob_unrefp) struct td_blob *args = td_message_tail(&message);
        map_call(guest, &message.map_call, args);
    } else if (message.type == TD_MSG_MAP_CANCEL)
        td_bus_cancel(guest->bus, message.map_cancel.map);
    else if (message.type == TD_MSG_MAP_FORGET)
        map_forget(guest, message.map_forget.map);
}

void td_guest_nest(struct td_guest *guest, uint64_t outer, const struct td_spec *spec)
{
    guest->depth = spec->depth + 1;
    guest->root = spec->root ? spec->root : outer;
}

void td_guest_rest(struct td_guest *guest)
{
    size_t cursor = 0;
    for (struct map *map = td_idmap_next(&guest->maps, &cursor); map;
         map = td_idmap_next(&guest->maps, &cursor)) {
        if (map->left)
            continue;
        count(guest, map, -(int64_t)map->open);
        map->left = true;
        td_bus_cancel(guest->bus, map->id);
    }
}

static void forget_all(struct td_guest *guest)
{
    for (size_t cursor = 0;; cursor = 0) {
        struct map *map = td_idmap_next(&guest->maps, &cursor);
        if (!map)
            break;
        map_forget(guest, map->id);
    }
}

static void on_closed(void *context, const char *reason)
{
    (void)reason; /* its runner ended, or closed it: either way nobody waits for the results */
    forget_all(context);
}

int td_guest_new(struct td_loop *loop, struct td_bus *bus, int *fd, td_guest_busy_fn *busy,
                 void *context, struct td_guest **ret_guest, struct td_error *err)
{
    static const struct td_channel_events events = {on_frame, on_closed};
    struct td_guest *guest = td_alloc_zero(sizeof *guest);
    if (!guest)
        return td_error_set(err, TD_ENOMEM, "guest: out of memory");
    *guest = (struct td_guest){.bus = bus, .busy = busy, .context = context};
    int r = td_channel_new(
        loop, fd, (struct td_channel_options){.frame_max = TD_FRAME_MAX, .queue_max = QUEUE_MAX},
        &events, guest, &guest->channel, err);
    if (r < 0) {
        td_free(guest);
        return r;
    }
    *ret_guest = guest;
    return 0;
}

struct td_guest *td_guest_free(struct td_guest *guest)
{
    if (!guest)
        return NULL;
    forget_all(guest);
    td_channel_free(guest->channel);
    td_idmap_done(&guest->maps);
    td_free(guest);
    return NULL;
}
