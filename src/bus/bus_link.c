#include "bus/bus_link.h"

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "bus/bus.h"
#include "os/channel.h"
#include "task/outcome.h"
#include "task/spec.h"

enum { HEAD_MAX = 256 << 20 };
#define QUEUE_MAX ((size_t)4 << 30)

struct link {
    struct td_bus bus;
    struct td_channel *channel; /* NULL once it closed */
    const struct td_bus_sink *sink;
    void *context;
    uint64_t muted; /* maps */
};

static struct link *link_of(struct td_bus *bus)
{
    return TD_CONTAINER(bus, struct link, bus);
}

static int send(struct link *link, const struct td_message *message, struct td_blob *tail)
{
    TD_CLEANUP(td_buf_done) struct td_buf head;
    struct td_bytes ignored;
    if (!link->channel)
        return TD_ECLOSED;
    td_buf_init(&head, HEAD_MAX);
    int r = td_message_encode(message, &head, &ignored, NULL);
    return r < 0 ? r : td_channel_send(link->channel, (struct td_bytes){head.data, head.len}, tail);
}

static void on_frame(void *context, struct td_bytes frame)
{
    struct link *link = context;
    struct td_message message;
    struct td_blob *beside = td_channel_tail(link->channel);
    if (td_message_decode(frame, &message, NULL) < 0 ||
        (beside && td_message_attach(&message, beside, NULL) < 0))
        return; /* our own node on our own socket */
    if (message.type == TD_MSG_STARTED) {
        link->sink->started(link->context, message.started.map, message.started.index,
                            message.started.count);
    } else if (message.type == TD_MSG_OUTPUT) {
        link->sink->output(link->context, message.output.map, message.output.index,
                           message.output.count, message.output.stream, message.output.text);
    } else if (message.type == TD_MSG_OUTCOME) {
        TD_CLEANUP(td_outcome_freep) struct td_outcome *outcome = NULL;
        int r = td_outcome_from(&message, &outcome);
        if (r < 0)
            link->sink->lost(link->context, td_status_text(r));
        else
            link->sink->outcome(link->context, &outcome);
    }
}

static void on_closed(void *context, const char *reason)
{
    struct link *link = context;
    link->channel = td_channel_free(link->channel);
    link->sink->lost(link->context, reason);
}

static int link_open(struct td_bus *bus, const struct td_bus_sink *sink, void *context, uint64_t id,
                     struct td_spec *spec, struct td_error *err)
{
    (void)sink, (void)context; /* one for all: given when the link was made */
    struct td_message message;
    td_spec_message(spec, id, &message);
    int r = send(link_of(bus), &message, spec->body);
    return r < 0 ? td_error_set(err, r, "map: %s", td_status_text(r)) : 0;
}

static int link_submit(struct td_bus *bus, uint64_t id, uint64_t index, uint32_t count,
                       struct td_blob *args)
{
    struct td_message message = {.type = TD_MSG_MAP_CALL,
                                 .map_call = {.map = id, .index = index, .count = count}};
    return send(link_of(bus), &message, args);
}

static void link_cancel(struct td_bus *bus, uint64_t id)
{
    struct td_message message = {.type = TD_MSG_MAP_CANCEL, .map_cancel = {.map = id}};
    (void)send(link_of(bus), &message, NULL); /* a closed link has cancelled everything */
}

static void link_forget(struct td_bus *bus, uint64_t id)
{
    struct td_message message = {.type = TD_MSG_MAP_FORGET, .map_forget = {.map = id}};
    (void)send(link_of(bus), &message, NULL); /* the same */
}

/* All maps come over one socket: not reading it makes the other end hold their runners back. */
static void link_mute(struct td_bus *bus, uint64_t id, bool muted)
{
    (void)id;
    struct link *link = link_of(bus);
    link->muted = muted ? link->muted + 1 : link->muted - (link->muted > 0);
    if (link->channel)
        td_channel_pause(link->channel, link->muted > 0);
}

static void link_free(struct td_bus *bus)
{
    struct link *link = link_of(bus);
    td_channel_free(link->channel);
    td_free(link);
}

int td_bus_link_new(struct td_loop *loop, int *fd, const struct td_bus_sink *sink, void *context,
                    struct td_bus **ret_bus, struct td_error *err)
{
    static const struct td_bus_ops ops = {
        .open = link_open,
        .submit = link_submit,
        .cancel = link_cancel,
        .forget = link_forget,
        .mute = link_mute,
        .free = link_free,
    };
    static const struct td_channel_events events = {on_frame, on_closed};
    struct link *link = td_alloc_zero(sizeof *link);
    if (!link)
        return td_error_set(err, TD_ENOMEM, "bus: out of memory");
    *link = (struct link){.bus = {&ops}, .sink = sink, .context = context};
    int r = td_channel_new(
        loop, fd, (struct td_channel_options){.frame_max = TD_FRAME_MAX, .queue_max = QUEUE_MAX},
        &events, link, &link->channel, err);
    if (r < 0) {
        td_free(link);
        return r;
    }
    *ret_bus = &link->bus;
    return 0;
}
