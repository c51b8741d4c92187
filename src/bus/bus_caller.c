#include "bus/bus_caller.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/list.h"
#include "base/mem.h"
#include "bus/bus.h"
#include "bus/cluster.h"
#include "bus/haul.h"
#include "bus/jet.h"
#include "bus/reader.h"
#include "os/clock.h"
#include "task/outcome.h"
#include "task/spec.h"

enum {
    CONFIG_MAX = 512,
    LANE_AFTER = 8, /* batches: a map with more of them gets a lane of its own */
    SPECS_MAX = 64, /* kept; others are sent again when they come back */
};
#define BEAT_NS  (10 * TD_NS_PER_S)
#define PURGE_NS TD_NS_PER_S
#define COUNT_NS (TD_NS_PER_S / 2) /* for agents to say that they are there */

/* What calls have in common, as it was sent. */
struct known_spec {
    struct td_list link; /* struct caller.specs, the last one used last */
    struct td_spec *spec;
    uint32_t number;
    struct td_haul *haul; /* its body is on its way */
};

struct map {
    uint64_t id;
    uint32_t spec; /* 0: not sent yet */
    struct td_spec *what;
    void *context;
    uint64_t submitted, finished; /* calls */
    uint64_t batches;
    int64_t opened_s;
    uint64_t since;           /* its results are behind this one */
    struct td_reader *reader; /* of those of its own lane */
    bool laned, recorded, cancelled, muted, blobs;
};

/* Calls on their way into the stream. */
struct sending {
    struct td_list link; /* struct caller.sendings */
    struct caller *caller;
    struct td_haul *haul; /* their arguments go ahead, apart */
    struct td_msg_parcel parcel;
    uint64_t map, index;
    uint32_t count;
};

/* An outcome whose value is still to come. */
struct arriving {
    struct td_list link; /* struct caller.arrivings */
    struct caller *caller;
    struct td_haul *haul;
    struct td_msg_parcel parcel;
    struct td_outcome *outcome;
};

struct caller {
    struct td_bus bus;
    struct td_loop *loop;
    struct td_jet *jet;
    struct td_bus_caller_options options;
    struct td_name pool, stream;
    uint64_t session;
    struct td_idmap maps;
    struct td_list specs, sendings, arrivings;
    uint32_t last_spec;
    uint64_t last_blob;
    bool blobs; /* some values of this session lie apart */
    struct td_reader *reader;
    uint64_t read;    /* the last message of results */
    unsigned muted;   /* maps */
    uint64_t deleted; /* results up to here were */
    struct td_timer purging, beat, counting;
    struct td_nats_subscription *answers;
    unsigned slots, counted; /* of agents; those who have answered so far */
    struct td_buf buf;
};

static struct caller *caller_of(struct td_bus *bus)
{
    return TD_CONTAINER(bus, struct caller, bus);
}

static struct td_bytes bytes_of(const struct td_buf *buf)
{
    return (struct td_bytes){buf->data, buf->len};
}

static void deliver(struct caller *caller, struct td_outcome **outcome)
{
    struct map *map = td_idmap_get(&caller->maps, (*outcome)->map);
    if (!map)
        return; /* it was forgotten */
    map->finished += (*outcome)->count;
    caller->options.sink->outcome(caller->options.context, outcome);
}

/* Ends calls that could not be sent, or whose outcome could not be had. */
static void fail(struct caller *caller, uint64_t map, uint64_t index, uint32_t count,
                 const char *why, int status)
{
    char text[160];
    TD_CLEANUP(td_outcome_freep)
    struct td_outcome *outcome = td_outcome_new(map, index, 0, TD_OUTCOME_NOT_STARTED);
    if (!outcome)
        return;
    int len = snprintf(text, sizeof text, "%s: %s", why, td_status_text(status)); /* always fits */
    outcome->count = count;
    outcome->detail = td_blob_new(text, (size_t)len);
    deliver(caller, &outcome);
}

/* -- what calls have in common ---------------------------------------------------------------- */

static struct known_spec *find_spec(struct caller *caller, const struct td_spec *spec)
{
    TD_LIST_EACH(node, &caller->specs) {
        struct known_spec *known = TD_CONTAINER(node, struct known_spec, link);
        if (known->spec == spec)
            return known;
    }
    return NULL;
}

static void spec_drop(struct known_spec *known)
{
    td_list_remove(&known->link);
    td_haul_free(known->haul);
    td_spec_unref(known->spec);
    td_free(known);
}

static void on_spec_hauled(void *context, int status, struct td_blob *blob)
{
    (void)blob, (void)status; /* agents say that it is not there */
    struct known_spec *known = context;
    known->haul = NULL;
}

static int spec_send(struct caller *caller, struct known_spec *known)
{
    struct td_spec *spec = known->spec;
    struct td_message message, parcel = {.type = TD_MSG_PARCEL};
    struct td_name name = td_name_spec(caller->session, known->number);
    td_buf_clear(&caller->buf);
    td_spec_message(spec, 0, &message);
    int r = 0;
    if (td_blob_bytes(spec->body).len > td_haul_inline_max(caller->jet)) {
        parcel.parcel = (struct td_msg_parcel){
            .session = caller->session, .scope = UINT64_MAX, .blob = ++caller->last_blob};
        message.map_open.body = (struct td_bytes){0};
        caller->blobs = true;
        r = td_haul_up(caller->jet, spec->body, &parcel.parcel, on_spec_hauled, known,
                       &known->haul);
        if (r == 0)
            r = td_frames_add(&caller->buf, &parcel);
    }
    if (r == 0)
        r = td_frames_add(&caller->buf, &message);
    return r < 0 ? r : td_jet_store(caller->jet, name.text, bytes_of(&caller->buf), NULL, NULL);
}

/* The number under which agents find it. */
static int spec_number(struct caller *caller, struct td_spec *spec, uint32_t *ret_number)
{
    struct known_spec *known = find_spec(caller, spec);
    if (!known) {
        known = td_alloc_zero(sizeof *known);
        if (!known)
            return TD_ENOMEM;
        *known = (struct known_spec){.spec = td_spec_ref(spec), .number = ++caller->last_spec};
        td_list_init(&known->link);
        int r = spec_send(caller, known);
        if (r < 0) {
            spec_drop(known);
            return r;
        }
    }
    td_list_remove(&known->link);
    td_list_append(&caller->specs, &known->link);
    *ret_number = known->number;
    size_t count = 0;
    TD_LIST_EACH(node, &caller->specs)
        count++;
    if (count > SPECS_MAX)
        spec_drop(TD_CONTAINER(caller->specs.next, struct known_spec, link));
    return 0;
}

/* -- submit ----------------------------------------------------------------------------------- */

/* Says what the map is, to agents and to whoever asks. */
static int record(struct caller *caller, struct map *map, enum td_map_state state)
{
    struct td_message message = {.type = TD_MSG_MAP,
                                 .map = {.version = TD_WIRE_VERSION,
                                         .session = caller->session,
                                         .map = map->id,
                                         .spec = map->spec,
                                         .state = (uint8_t)state,
                                         .laned = map->laned,
                                         .submitted = map->submitted,
                                         .opened_s = map->opened_s}};
    struct td_name name = td_name_map(map->id);
    td_buf_clear(&caller->buf);
    int r = td_frames_add(&caller->buf, &message);
    if (r == 0)
        r = td_jet_store(caller->jet, name.text, bytes_of(&caller->buf), NULL, NULL);
    map->recorded |= r == 0;
    return r;
}

static int caller_open(struct td_bus *bus, const struct td_bus_sink *sink, void *context,
                       uint64_t id, struct td_spec *spec, struct td_error *err)
{
    (void)sink; /* one for all: given when the bus was made */
    struct caller *caller = caller_of(bus);
    struct map *map = td_alloc_zero(sizeof *map);
    if (!map)
        return td_error_set(err, TD_ENOMEM, "map: out of memory");
    *map = (struct map){.id = id,
                        .context = context,
                        .what = td_spec_ref(spec),
                        .opened_s = time(NULL),
                        .since = caller->read};
    int r = td_idmap_put(&caller->maps, id, map);
    if (r < 0) {
        td_spec_unref(map->what);
        td_free(map);
        return td_error_set(err, r, "map: %s", td_status_text(r));
    }
    return 0;
}

static void sending_free(struct sending *sending)
{
    td_list_remove(&sending->link);
    td_haul_free(sending->haul);
    td_free(sending);
}

static void on_stored(void *context, int status, uint64_t sequence)
{
    (void)sequence;
    struct sending *sending = context;
    struct caller *caller = sending->caller;
    if (status < 0)
        fail(caller, sending->map, sending->index, sending->count,
             status == TD_ELIMIT ? "the hub has no room for the call" : "the hub refused the call",
             status);
    sending_free(sending);
}

/* Puts the calls into their lane; arguments: as they are, or what stands for them. */
static int send_job(struct sending *sending, const struct map *map, struct td_bytes args)
{
    struct caller *caller = sending->caller;
    struct td_name lane = td_name_lane(map->laned ? map->id : 0);
    struct td_name subject = td_name_calls(caller->pool.text, lane.text);
    struct td_message parcel = {.type = TD_MSG_PARCEL, .parcel = sending->parcel};
    struct td_message job = {.type = TD_MSG_JOB,
                             .job = {.version = TD_WIRE_VERSION,
                                     .session = caller->session,
                                     .map = map->id,
                                     .spec = map->spec,
                                     .index = sending->index,
                                     .since = map->laned ? 0 : map->since,
                                     .count = sending->count,
                                     .args = args}};
    td_buf_clear(&caller->buf);
    int r = sending->parcel.size ? td_frames_add(&caller->buf, &parcel) : 0;
    if (r == 0)
        r = td_frames_add(&caller->buf, &job);
    return r < 0 ? r
                 : td_jet_store(caller->jet, subject.text, bytes_of(&caller->buf), on_stored,
                                sending);
}

static void on_hauled_up(void *context, int status, struct td_blob *blob)
{
    (void)blob;
    struct sending *sending = context;
    struct caller *caller = sending->caller;
    struct map *map = td_idmap_get(&caller->maps, sending->map);
    sending->haul = NULL;
    if (status == 0 && map && !map->cancelled)
        status = send_job(sending, map, (struct td_bytes){0});
    if (status == 0 && map && !map->cancelled)
        return;
    if (map && !map->cancelled)
        fail(caller, sending->map, sending->index, sending->count,
             "the arguments could not be sent", status);
    sending_free(sending);
}

static void on_results(void *context, const struct td_nats_message *message,
                       const struct td_js_numbers *numbers);

/* A lane of its own, and a reader for what comes from there. */
static int open_lane(struct caller *caller, struct map *map)
{
    struct td_name results = td_name_results(caller->session, map->id);
    int r = td_reader_new(
        caller->loop, caller->jet,
        &(struct td_reader_options){.stream = TD_STREAM_RESULTS, .subject = results.text},
        on_results, NULL, caller, &map->reader);
    if (r < 0)
        return r;
    map->laned = true;
    td_reader_pause(map->reader, map->muted);
    r = record(caller, map, TD_MAP_OPEN);
    if (r == 0) /* agents that do not hear it find the lane a moment later */
        (void)td_nats_publish(td_jet_nats(caller->jet), TD_SUBJECT_LANE, NULL, NULL, 0,
                              bytes_of(&caller->buf));
    return r;
}

static int caller_submit(struct td_bus *bus, uint64_t id, uint64_t index, uint32_t count,
                         struct td_blob *args)
{
    struct caller *caller = caller_of(bus);
    struct map *map = td_idmap_get(&caller->maps, id);
    if (!map)
        return TD_ENOTFOUND;
    int r = map->spec ? 0 : spec_number(caller, map->what, &map->spec);
    struct sending *sending = r == 0 ? td_alloc_zero(sizeof *sending) : NULL;
    if (!sending)
        return r < 0 ? r : TD_ENOMEM;
    *sending = (struct sending){.caller = caller, .map = id, .index = index, .count = count};
    td_list_init(&sending->link);
    td_list_append(&caller->sendings, &sending->link);
    if (++map->batches > LANE_AFTER && !map->laned)
        r = open_lane(caller, map);
    struct td_bytes bytes = td_blob_bytes(args);
    if (r == 0 && bytes.len > td_haul_inline_max(caller->jet)) {
        map->blobs = caller->blobs = true;
        sending->parcel = (struct td_msg_parcel){
            .session = caller->session, .scope = id, .blob = ++caller->last_blob};
        r = td_haul_up(caller->jet, args, &sending->parcel, on_hauled_up, sending, &sending->haul);
    } else if (r == 0) {
        r = send_job(sending, map, bytes);
    }
    if (r < 0) {
        sending_free(sending);
        return r;
    }
    uint64_t end = index + count;
    map->submitted = end > map->submitted ? end : map->submitted;
    return 0;
}

/* -- deliver ---------------------------------------------------------------------------------- */

static void arriving_free(struct arriving *arriving)
{
    td_list_remove(&arriving->link);
    td_haul_free(arriving->haul);
    td_outcome_free(arriving->outcome);
    td_free(arriving);
}

static void on_hauled_down(void *context, int status, struct td_blob *blob)
{
    struct arriving *arriving = context;
    struct caller *caller = arriving->caller;
    struct td_outcome *outcome = arriving->outcome;
    arriving->haul = NULL;
    if (status < 0) {
        fail(caller, outcome->map, outcome->index, outcome->count,
             "its result could not be fetched", status);
    } else {
        td_blob_unref(outcome->value);
        outcome->value = blob;
        deliver(caller, &arriving->outcome);
    }
    arriving_free(arriving);
}

/* An outcome, or one whose value lies apart. */
static void on_outcome(struct caller *caller, const struct td_message *message,
                       const struct td_msg_parcel *parcel)
{
    TD_CLEANUP(td_outcome_freep) struct td_outcome *outcome = NULL;
    struct map *map = td_idmap_get(&caller->maps, message->outcome.map);
    if (!map || td_outcome_from(message, &outcome) < 0)
        return; /* forgotten; or without memory: it stays in the stream */
    if (!parcel) {
        deliver(caller, &outcome);
        return;
    }
    map->blobs = caller->blobs = true;
    struct arriving *arriving = td_alloc_zero(sizeof *arriving);
    if (!arriving)
        return;
    *arriving = (struct arriving){.caller = caller, .parcel = *parcel, .outcome = outcome};
    outcome = NULL;
    td_list_init(&arriving->link);
    td_list_append(&caller->arrivings, &arriving->link);
    int r = td_haul_down(caller->jet, parcel, on_hauled_down, arriving, &arriving->haul);
    if (r < 0)
        on_hauled_down(arriving, r, NULL);
}

static void on_results(void *context, const struct td_nats_message *message,
                       const struct td_js_numbers *numbers)
{
    (void)numbers;
    struct caller *caller = context;
    struct td_bytes frames = message->payload;
    struct td_message one;
    struct td_msg_parcel parcel;
    bool apart = false;
    const struct td_bus_sink *sink = caller->options.sink;
    while (td_frames_next(&frames, &one) == 0) {
        if (one.type == TD_MSG_STARTED)
            sink->started(caller->options.context, one.started.map, one.started.index,
                          one.started.count);
        else if (one.type == TD_MSG_OUTPUT)
            sink->output(caller->options.context, one.output.map, one.output.index,
                         one.output.count, one.output.stream, one.output.text);
        else if (one.type == TD_MSG_OUTCOME)
            on_outcome(caller, &one, apart ? &parcel : NULL);
        apart = one.type == TD_MSG_PARCEL;
        if (apart)
            parcel = one.parcel;
    }
}

/* Those of maps that share a lane. */
static void on_shared_results(void *context, const struct td_nats_message *message,
                              const struct td_js_numbers *numbers)
{
    struct caller *caller = context;
    on_results(caller, message, numbers);
    caller->read = numbers->sequence;
}

/* -- cancel and forget ------------------------------------------------------------------------ */

/* Nobody waits for the answer: what is not deleted now goes with its age. */
static void purge(struct caller *caller, const char *stream, struct td_name filter, uint64_t before)
{
    struct td_name subject;
    TD_CLEANUP(td_buf_done) struct td_buf config;
    td_buf_init(&config, CONFIG_MAX);
    subject = td_name_of("$JS.API.STREAM.PURGE.%s", stream);
    if (td_js_write_purge(filter.text, before, &config) == 0)
        (void)td_nats_publish(td_jet_nats(caller->jet), subject.text, NULL, NULL, 0,
                              bytes_of(&config));
}

/* Takes what waits out of its lane, and tells agents to stop what runs. */
static void stop_calls(struct caller *caller, struct map *map)
{
    struct td_name lane = td_name_lane(map->id);
    struct td_message cancel = {.type = TD_MSG_MAP_CANCEL, .map_cancel = {.map = map->id}};
    (void)record(caller, map, TD_MAP_CANCELLED); /* for agents that are away just now */
    td_buf_clear(&caller->buf);
    if (td_frames_add(&caller->buf, &cancel) == 0)
        (void)td_nats_publish(td_jet_nats(caller->jet), TD_SUBJECT_CANCEL, NULL, NULL, 0,
                              bytes_of(&caller->buf));
    if (map->laned) /* in the shared lane agents pass over them */
        purge(caller, caller->stream.text, td_name_calls(caller->pool.text, lane.text), 0);
}

static void caller_cancel(struct td_bus *bus, uint64_t id)
{
    struct caller *caller = caller_of(bus);
    struct map *map = td_idmap_get(&caller->maps, id);
    if (!map || map->cancelled)
        return;
    map->cancelled = true;
    if (map->submitted > 0)
        stop_calls(caller, map);
    for (uint64_t at = 0; at < map->submitted;) { /* those that have finished keep their outcomes */
        uint64_t left = map->submitted - at;
        TD_CLEANUP(td_outcome_freep)
        struct td_outcome *outcome = td_outcome_new(id, at, 0, TD_OUTCOME_CANCELLED);
        if (!outcome)
            return;
        outcome->count = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
        at += outcome->count;
        caller->options.sink->outcome(caller->options.context, &outcome);
    }
}

/* No agent asks for it any more, once it has read that the map is gone. */
static void drop_lane(struct caller *caller, const struct map *map)
{
    struct td_name consumer = td_name_consumer(map->id, td_jet_server(caller->jet));
    struct td_name subject = td_name_of("$JS.API.CONSUMER.DELETE.%s.%s", caller->stream.text,
                                        consumer.text);
    (void)td_nats_publish(td_jet_nats(caller->jet), subject.text, NULL, NULL, 0,
                          (struct td_bytes){0}); /* else the server does when nobody asks it */
}

static void map_free(struct map *map)
{
    td_reader_free(map->reader);
    td_spec_unref(map->what);
    td_free(map);
}

static void caller_mute(struct td_bus *bus, uint64_t id, bool muted)
{
    struct caller *caller = caller_of(bus);
    struct map *map = td_idmap_get(&caller->maps, id);
    if (!map || map->muted == muted)
        return;
    map->muted = muted;
    caller->muted += muted ? 1 : -1U;
    td_reader_pause(caller->reader, caller->muted > 0);
    if (map->reader)
        td_reader_pause(map->reader, muted);
}

static void caller_forget(struct td_bus *bus, uint64_t id)
{
    struct caller *caller = caller_of(bus);
    struct map *map = td_idmap_get(&caller->maps, id);
    if (!map)
        return;
    caller_mute(bus, id, false);
    if (map->submitted != map->finished && !map->cancelled)
        stop_calls(caller, map);
    if (map->recorded)
        (void)record(caller, map, TD_MAP_GONE); /* else its age does it */
    if (map->laned)
        drop_lane(caller, map);
    if (map->laned)
        purge(caller, TD_STREAM_RESULTS, td_name_results(caller->session, id), 0);
    if (map->blobs)
        purge(caller, TD_STREAM_BLOBS, td_name_blobs_of(caller->session, id), 0);
    td_idmap_remove(&caller->maps, id);
    map_free(map);
}

/* Deletes results that are those of forgotten maps: all that were there before each map that is
 * open was. */
static void on_purging(void *context)
{
    struct caller *caller = context;
    uint64_t until = caller->read;
    size_t cursor = 0;
    for (struct map *map = td_idmap_next(&caller->maps, &cursor); map;
         map = td_idmap_next(&caller->maps, &cursor))
        until = map->submitted > 0 && map->since < until ? map->since : until;
    if (until > caller->deleted)
        purge(caller, TD_STREAM_RESULTS, td_name_results(caller->session, 0), until + 1);
    caller->deleted = until > caller->deleted ? until : caller->deleted;
    (void)td_loop_timer(caller->loop, &caller->purging, td_clock_now() + PURGE_NS); /* see new */
}

/* -- the connection --------------------------------------------------------------------------- */

static void ask_agents(struct caller *caller)
{
    struct td_name reply;
    reply = td_name_of("%s.agents", td_nats_inbox(td_jet_nats(caller->jet)));
    caller->counted = 0;
    (void)td_nats_publish(td_jet_nats(caller->jet), TD_SUBJECT_ASK, reply.text, NULL, 0,
                          (struct td_bytes){0}); /* else at the next beat */
    (void)td_loop_timer(caller->loop, &caller->counting, td_clock_now() + COUNT_NS);
}

static void set_slots(struct caller *caller)
{
    if (caller->counted == 0 || caller->counted == caller->slots)
        return;
    caller->slots = caller->counted;
    caller->options.slots(caller->options.context, caller->slots);
}

static void on_agent(void *context, const struct td_nats_message *message)
{
    struct caller *caller = context;
    struct td_bytes frames = message->payload;
    struct td_message one;
    if (td_frames_next(&frames, &one) < 0 || one.type != TD_MSG_AGENT || one.agent.draining)
        return;
    caller->counted += one.agent.slots;
    if (caller->counted > caller->slots)
        set_slots(caller); /* at once; fewer than before only when all have answered */
}

static void on_counting(void *context)
{
    set_slots(context);
}

/* A sign of life, for the hub; and a look at who is there. */
static void on_beat(void *context)
{
    struct caller *caller = context;
    struct td_name name;
    name = td_name_of("td.beat.%016llx", (unsigned long long)caller->session);
    if (caller->maps.len > 0)
        (void)td_jet_store(caller->jet, name.text, (struct td_bytes){0}, NULL, NULL);
    ask_agents(caller);
    (void)td_loop_timer(caller->loop, &caller->beat, td_clock_now() + BEAT_NS); /* see new */
}

static void on_connected(void *context, bool restarted)
{
    (void)restarted;
    struct caller *caller = context;
    if (caller->reader)
        td_reader_connected(caller->reader);
    size_t cursor = 0;
    for (struct map *map = td_idmap_next(&caller->maps, &cursor); map;
         map = td_idmap_next(&caller->maps, &cursor))
        if (map->reader)
            td_reader_connected(map->reader);
    ask_agents(caller);
}

static void on_disconnected(void *context, const char *reason)
{
    (void)context, (void)reason; /* it comes back, and what waits is sent then */
}

static void on_closed(void *context, const char *reason)
{
    struct caller *caller = context;
    caller->options.sink->lost(caller->options.context, reason);
}

/* -- life ------------------------------------------------------------------------------------- */

static void caller_free(struct td_bus *bus)
{
    struct caller *caller = caller_of(bus);
    size_t cursor = 0;
    for (struct map *map = td_idmap_next(&caller->maps, &cursor); map;
         map = td_idmap_next(&caller->maps, &cursor)) {
        if (caller->jet && map->submitted > 0 && !map->cancelled)
            stop_calls(caller, map);
        if (map->laned)
            purge(caller, TD_STREAM_RESULTS, td_name_results(caller->session, map->id), 0);
        map_free(map);
    }
    if (caller->jet && caller->last_spec > 0) {
        purge(caller, TD_STREAM_RESULTS, td_name_results(caller->session, 0), 0);
        purge(caller, TD_STREAM_SPECS, td_name_specs_of(caller->session), 0);
        if (caller->blobs)
            purge(caller, TD_STREAM_BLOBS, td_name_blobs_of(caller->session, 0), 0);
    }
    while (!td_list_empty(&caller->specs))
        spec_drop(TD_CONTAINER(caller->specs.next, struct known_spec, link));
    while (!td_list_empty(&caller->sendings))
        sending_free(TD_CONTAINER(caller->sendings.next, struct sending, link));
    while (!td_list_empty(&caller->arrivings))
        arriving_free(TD_CONTAINER(caller->arrivings.next, struct arriving, link));
    td_loop_untimer(caller->loop, &caller->purging);
    td_loop_untimer(caller->loop, &caller->beat);
    td_loop_untimer(caller->loop, &caller->counting);
    td_reader_free(caller->reader);
    td_nats_subscription_free(caller->answers);
    td_jet_free(caller->jet);
    td_idmap_done(&caller->maps);
    td_buf_done(&caller->buf);
    td_free(caller);
}

static int connect_to(struct caller *caller, struct td_error *err)
{
    static const struct td_jet_events events = {on_connected, on_disconnected, on_closed};
    struct td_name pattern, results = td_name_results(caller->session, 0);
    int r = td_jet_new(caller->loop, caller->options.server, &events, caller, &caller->jet, err);
    if (r < 0)
        return r;
    pattern = td_name_of("%s.agents", td_nats_inbox(td_jet_nats(caller->jet)));
    r = td_nats_subscribe(td_jet_nats(caller->jet), pattern.text, on_agent, caller,
                          &caller->answers, err);
    if (r < 0)
        return r;
    r = td_reader_new(
        caller->loop, caller->jet,
        &(struct td_reader_options){.stream = TD_STREAM_RESULTS, .subject = results.text},
        on_shared_results, NULL, caller, &caller->reader);
    if (r == 0)
        r = td_loop_timer(caller->loop, &caller->purging, td_clock_now() + PURGE_NS);
    if (r == 0)
        r = td_loop_timer(caller->loop, &caller->counting, TD_NO_DEADLINE);
    if (r == 0)
        r = td_loop_timer(caller->loop, &caller->beat, td_clock_now());
    return r < 0 ? td_error_set(err, r, "bus: %s", td_status_text(r)) : 0;
}

int td_bus_caller_new(struct td_loop *loop, const struct td_bus_caller_options *options,
                      struct td_bus **ret_bus, struct td_error *err)
{
    static const struct td_bus_ops ops = {
        .open = caller_open,
        .submit = caller_submit,
        .cancel = caller_cancel,
        .forget = caller_forget,
        .mute = caller_mute,
        .free = caller_free,
    };
    if (td_pool_name_check(options->pool) < 0)
        return td_error_set(err, TD_EINVAL, "no pool can be named '%s'", options->pool);
    struct caller *caller = td_alloc_zero(sizeof *caller);
    if (!caller)
        return td_error_set(err, TD_ENOMEM, "bus: out of memory");
    *caller = (struct caller){.bus = {&ops},
                              .loop = loop,
                              .options = *options,
                              .stream = td_name_stream(options->pool),
                              .purging = {.fn = on_purging, .context = caller},
                              .beat = {.fn = on_beat, .context = caller},
                              .counting = {.fn = on_counting, .context = caller}};
    caller->pool = td_name_of("%s", options->pool);
    td_list_init(&caller->specs);
    td_list_init(&caller->sendings);
    td_list_init(&caller->arrivings);
    td_buf_init(&caller->buf, TD_FRAME_MAX);
    int r = 0;
    if (getrandom(&caller->session, sizeof caller->session, 0) != (ssize_t)sizeof caller->session)
        r = td_error_set(err, TD_ESYS, "no random numbers can be had");
    if (r == 0)
        r = connect_to(caller, err);
    caller->options.server = NULL; /* borrowed until now */
    if (r < 0) {
        caller_free(&caller->bus);
        return r;
    }
    *ret_bus = &caller->bus;
    return 0;
}
