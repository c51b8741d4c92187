#include "bus/bus_agent.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "bus/agent_internal.h"
#include "bus/bus_local.h"
#include "bus/haul.h"
#include "bus/reader.h"
#include "os/clock.h"
#include "task/outcome.h"
#include "task/spec.h"

enum { OUT_MUCH = 64 << 10, SMOOTH = 8 };
#define FLUSH_NS   ((int64_t)10000000) /* how long an outcome waits for others to go with it */
#define IDLE_NS    (TD_NS_PER_S * 2)
#define MUTE_BYTES ((size_t)32 << 20) /* results on their way: then runners wait that print */

/* A large value on its way to the caller, ahead of its outcome. */
struct result {
    struct td_list link; /* only of itself */
    struct job *job;
    struct td_haul *haul;
    struct td_msg_parcel parcel;
    struct td_outcome *outcome;
};

static struct agent *agent_of(struct td_bus *bus)
{
    return TD_CONTAINER(bus, struct agent, bus);
}

static void flush_soon(struct agent *agent)
{
    if (!agent->flushes)
        agent->flushes = td_loop_timer(agent->loop, &agent->flush, td_clock_now() + FLUSH_NS) == 0;
}

/* -- maps ------------------------------------------------------------------------------------- */

static int map_open(struct agent *agent, const struct job *job, struct agent_map **ret_map)
{
    struct agent_map *map = td_idmap_get(&agent->maps, job->map_id);
    *ret_map = map;
    if (map)
        return 0;
    map = td_alloc_zero(sizeof *map);
    if (!map)
        return TD_ENOMEM;
    *map = (struct agent_map){.id = job->map_id, .session = job->session};
    td_list_init(&map->waiting);
    td_list_init(&map->running);
    int r = td_idmap_put(&agent->maps, map->id, map);
    if (r == 0) {
        r = agent->worker->opened(agent->worker_context, map->id, job->function->spec);
        if (r < 0)
            td_idmap_remove(&agent->maps, map->id);
    }
    *ret_map = map;
    if (r < 0)
        td_free(map);
    return r;
}

/* The node forgets it; it is opened again by the next of its jobs. */
static void map_close(struct agent *agent, struct agent_map *map)
{
    td_idmap_remove(&agent->maps, map->id);
    agent->worker->cancelled(agent->worker_context, map->id);
    td_free(map);
}

/* One with several jobs may get more: what is known of it is kept for a while. */
static void map_settle(struct agent *agent, struct agent_map *map)
{
    if (!td_list_empty(&map->waiting) || !td_list_empty(&map->running))
        return;
    if (map->jobs > 1)
        map->idle_ns = td_clock_now();
    else
        map_close(agent, map);
}

static void close_idle(struct agent *agent)
{
    int64_t long_ago = td_clock_now() - IDLE_NS;
    size_t cursor = 0;
    for (struct agent_map *map = td_idmap_next(&agent->maps, &cursor); map;
         map = td_idmap_next(&agent->maps, &cursor)) {
        if (!td_list_empty(&map->waiting) || !td_list_empty(&map->running) ||
            map->idle_ns > long_ago)
            continue;
        map_close(agent, map);
        cursor = 0;
    }
}

/* Calls of it that the node may fetch: how often it has to ask for them. */
static uint64_t fetches_of(const struct job *job)
{
    uint64_t fetches = 0;
    bool within = false;
    for (uint32_t at = job->next; at < job->count; at++) {
        bool has = td_job_has(job, at);
        fetches += !has && (job->again || !within);
        within = !has;
        if (!job->has && !job->again)
            return 1;
    }
    return fetches;
}

static void tell_waiting(struct agent *agent, struct agent_map *map)
{
    uint64_t fetches = 0;
    TD_LIST_EACH(node, &map->waiting)
        fetches += fetches_of(TD_CONTAINER(node, struct job, link));
    agent->worker->waiting(agent->worker_context, map->id, fetches);
}

void td_agent_enqueue(struct agent *agent, struct job *job)
{
    struct agent_map *map;
    int r = map_open(agent, job, &map);
    if (r == TD_EEXISTS) { /* the node is about to forget it */
        td_list_append(&agent->later, &job->link);
        flush_soon(agent);
        return;
    }
    if (r < 0) {
        td_agent_refuse(agent, job, "the agent has no memory for it");
        return;
    }
    job->map = map;
    map->jobs++;
    td_list_append(&map->waiting, &job->link);
    tell_waiting(agent, map);
}

/* -- outcomes on their way -------------------------------------------------------------------- */

static void job_settle(struct job *job);

static void on_sent(void *context, int status, uint64_t sequence)
{
    (void)sequence;
    struct job *job = context;
    job->sending--;
    if (status < 0) /* the hub has no room: somebody does it again when there is some */
        td_job_free(job, "-NAK");
    else
        job_settle(job);
}

static void job_flush(struct job *job)
{
    struct td_name subject = td_name_results(job->session, job->lane);
    if (job->out.len == 0)
        return;
    int r = td_jet_store(job->agent->jet, subject.text,
                         (struct td_bytes){job->out.data, job->out.len}, on_sent, job);
    if (r < 0) {
        flush_soon(job->agent); /* without memory: a moment later */
        return;
    }
    job->sending++;
    td_buf_clear(&job->out);
}

/* Adds a message to what goes to the caller. Without memory for it an outcome is not stored, so
 * that its call is run again elsewhere, and output is lost. */
static int job_say(struct job *job, const struct td_message *message)
{
    size_t most = td_haul_inline_max(job->agent->jet);
    int r = td_frames_add(&job->out, message);
    if (r == 0 && job->out.len > OUT_MUCH && job->out.len > most / 4)
        job_flush(job);
    else if (r == 0)
        flush_soon(job->agent);
    return r;
}

/* All is stored: the engine may forget it. */
static void job_settle(struct job *job)
{
    struct agent *agent = job->agent;
    struct agent_map *map = job->map;
    if (job->left > 0 || job->out.len > 0 || job->sending > 0)
        return;
    td_job_free(job, "+ACK");
    if (map)
        map_settle(agent, map);
    td_lanes_pull(agent);
    if (agent->draining && agent->jobs.len == 0)
        agent->options.drained(agent->options.context);
}

static void result_free(struct result *result)
{
    td_haul_free(result->haul);
    td_outcome_free(result->outcome);
    td_free(result);
}

static int job_outcome(struct job *job, const struct td_outcome *outcome,
                       const struct td_msg_parcel *parcel)
{
    struct td_message message;
    td_outcome_message(outcome, &message);
    int r = 0;
    if (!parcel)
        message.outcome.value = td_blob_bytes(outcome->value);
    else
        r = job_say(job, &(struct td_message){.type = TD_MSG_PARCEL, .parcel = *parcel});
    return r < 0 ? r : job_say(job, &message);
}

static void on_hauled(void *context, int status, struct td_blob *blob)
{
    (void)blob;
    struct result *result = context;
    struct job *job = result->job;
    result->haul = NULL;
    job->sending--;
    if (status == 0)
        status = job_outcome(job, result->outcome, &result->parcel);
    td_list_remove(&result->link);
    result_free(result);
    if (status < 0) {
        td_job_free(job, "-NAK");
        return;
    }
    job_flush(job);
    job_settle(job);
}

/* The value goes ahead; the outcome follows when it is there. Takes *outcome. */
static int haul_result(struct job *job, struct td_outcome **outcome)
{
    struct agent *agent = job->agent;
    struct result *result = td_alloc_zero(sizeof *result);
    if (!result)
        return TD_ENOMEM;
    *result = (struct result){.job = job,
                              .parcel = {.session = job->session,
                                         .scope = job->map_id,
                                         .blob = agent->id + ++agent->last_blob}};
    int r = td_haul_up(agent->jet, (*outcome)->value, &result->parcel, on_hauled, result,
                       &result->haul);
    if (r < 0) {
        td_free(result);
        return r;
    }
    result->outcome = TD_TAKE(*outcome);
    td_list_init(&result->link);
    td_list_append(&job->results, &result->link);
    job->sending++;
    return 0;
}

void td_job_drop_results(struct job *job)
{
    for (struct td_list *node = td_list_pop(&job->results); node; node = td_list_pop(&job->results))
        result_free(TD_CONTAINER(node, struct result, link));
}

void td_agent_refuse(struct agent *agent, struct job *job, const char *why)
{
    (void)agent;
    for (uint32_t at = 0; at < job->count; at++) {
        if (td_job_has(job, at))
            continue;
        TD_CLEANUP(td_outcome_freep)
        struct td_outcome *outcome = td_outcome_new(job->map_id, job->index + at, 1,
                                                    TD_OUTCOME_NOT_STARTED);
        if (!outcome) {
            td_job_free(job, "-NAK");
            return;
        }
        uint32_t count = 1;
        while (!job->has && at + count < job->count)
            count++;
        outcome->count = count;
        outcome->detail = td_blob_new(why, strlen(why));
        at += count - 1;
        if (job_outcome(job, outcome, NULL) < 0) {
            td_job_free(job, "-NAK");
            return;
        }
    }
    job->left = 0;
    job_flush(job);
    job_settle(job);
}

static void on_flush(void *context)
{
    struct agent *agent = context;
    size_t cursor = 0;
    struct td_list later;
    td_list_init(&later);
    agent->flushes = false;
    for (struct td_list *node = td_list_pop(&agent->later); node; node = td_list_pop(&agent->later))
        td_list_append(&later, node);
    for (struct td_list *node = td_list_pop(&later); node; node = td_list_pop(&later))
        td_agent_enqueue(agent, TD_CONTAINER(node, struct job, link));
    for (struct job *job = td_idmap_next(&agent->jobs, &cursor); job;
         job = td_idmap_next(&agent->jobs, &cursor))
        job_flush(job);
    bool much = td_jet_storing(agent->jet) > (agent->muting ? MUTE_BYTES / 2 : MUTE_BYTES);
    if (much != agent->muting) {
        cursor = 0;
        for (struct agent_map *map = td_idmap_next(&agent->maps, &cursor); map;
             map = td_idmap_next(&agent->maps, &cursor))
            agent->worker->muted(agent->worker_context, map->id, much);
        agent->muting = much;
    }
    if (agent->muting)
        flush_soon(agent);
}

/* -- maps that calls open here ---------------------------------------------------------------- */

static struct td_bus *inner_of(struct td_bus *bus)
{
    return agent_of(bus)->inner;
}

static int agent_open(struct td_bus *bus, const struct td_bus_sink *sink, void *context,
                      uint64_t id, struct td_spec *spec, struct td_error *err)
{
    return td_bus_open(inner_of(bus), sink, context, id, spec, err);
}

static int agent_submit(struct td_bus *bus, uint64_t id, uint64_t index, uint32_t count,
                        struct td_blob *args)
{
    return td_bus_submit(inner_of(bus), id, index, count, args);
}

static void agent_cancel(struct td_bus *bus, uint64_t id)
{
    td_bus_cancel(inner_of(bus), id);
}

static void agent_forget(struct td_bus *bus, uint64_t id)
{
    td_bus_forget(inner_of(bus), id);
}

static void agent_mute(struct td_bus *bus, uint64_t id, bool muted)
{
    td_bus_mute(inner_of(bus), id, muted);
}

/* -- the node's side -------------------------------------------------------------------------- */

static void agent_join(struct td_bus *bus, const struct td_bus_worker *worker, void *context)
{
    struct agent *agent = agent_of(bus);
    agent->worker = worker;
    agent->worker_context = context;
    td_bus_join(agent->inner, worker, context);
}

static void agent_room(struct td_bus *bus, unsigned free, unsigned slots)
{
    struct agent *agent = agent_of(bus);
    agent->free = free;
    agent->slots = slots;
    td_lanes_pull(agent);
}

static bool agent_fetch(struct td_bus *bus, uint64_t id)
{
    struct agent *agent = agent_of(bus);
    struct agent_map *map = td_idmap_get(&agent->maps, id);
    if (!map)
        return td_bus_fetch(agent->inner, id);
    if (td_list_empty(&map->waiting))
        return false;
    struct job *job = TD_CONTAINER(map->waiting.next, struct job, link);
    while (td_job_has(job, job->next))
        job->next++; /* one is left, else it would not wait */
    uint32_t first = job->next++;
    while (!job->again && job->next < job->count && !td_job_has(job, job->next))
        job->next++;
    uint32_t further = job->next;
    while (further < job->count && td_job_has(job, further))
        further++;
    if (!job->begun_ns) {
        agent->stock--;
        agent->busy++;
        job->begun_ns = td_clock_now();
    }
    if (further == job->count) {
        td_list_remove(&job->link);
        td_list_append(&map->running, &job->link);
    }
    agent->worker->call(agent->worker_context, id, job->index + first, job->next - first, first,
                        job->args);
    return true;
}

static struct job *find_in(struct td_list *jobs, uint64_t index)
{
    TD_LIST_EACH(node, jobs) {
        struct job *job = TD_CONTAINER(node, struct job, link);
        if (job->begun_ns && index >= job->index && index - job->index < job->count)
            return job;
    }
    return NULL;
}

/* The job that a call belongs to, or NULL: its map was cancelled. */
static struct job *job_of(struct agent *agent, uint64_t id, uint64_t index)
{
    struct agent_map *map = td_idmap_get(&agent->maps, id);
    struct job *job = map ? find_in(&map->running, index) : NULL;
    return job || !map ? job : find_in(&map->waiting, index);
}

static void agent_started(struct td_bus *bus, uint64_t id, uint64_t index, uint32_t count)
{
    struct job *job = job_of(agent_of(bus), id, index);
    struct td_message message = {.type = TD_MSG_STARTED,
                                 .started = {.map = id, .index = index, .count = count}};
    if (job)
        (void)job_say(job, &message); /* without memory nobody sees that it runs */
    else
        td_bus_started(inner_of(bus), id, index, count);
}

static void agent_output(struct td_bus *bus, uint64_t id, uint64_t index, uint32_t count,
                         int stream, struct td_bytes text)
{
    struct job *job = job_of(agent_of(bus), id, index);
    struct td_message message = {
        .type = TD_MSG_OUTPUT,
        .output = {
            .map = id, .index = index, .count = count, .stream = (uint8_t)stream, .text = text}};
    if (job)
        (void)job_say(job, &message); /* without memory: lost */
    else
        td_bus_output(inner_of(bus), id, index, count, stream, text);
}

static void learn(struct agent *agent, const struct job *job)
{
    int64_t took = td_clock_now() - job->begun_ns;
    agent->job_ns = agent->job_ns ? agent->job_ns + (took - agent->job_ns) / SMOOTH : took;
    td_lanes_spent(agent, job->lane, took);
}

static void agent_finish(struct td_bus *bus, struct td_outcome **outcome)
{
    struct agent *agent = agent_of(bus);
    TD_CLEANUP(td_outcome_freep) struct td_outcome *own = TD_TAKE(*outcome);
    struct job *job = job_of(agent, own->map, own->index);
    if (!job) { /* of a map of a call's own; or one that was cancelled, which nobody knows there */
        td_bus_finish(agent->inner, &own);
        return;
    }
    uint32_t count = own->count < job->left ? own->count : job->left;
    int r;
    if (td_blob_bytes(own->value).len > td_haul_inline_max(agent->jet))
        r = haul_result(job, &own);
    else
        r = job_outcome(job, own, NULL);
    if (r < 0) {
        td_job_free(job, "-NAK");
        return;
    }
    job->left -= count;
    if (job->left > 0)
        return;
    learn(agent, job);
    job_flush(job);
}

/* -- from the engine -------------------------------------------------------------------------- */

static void jobs_drop(struct td_list *jobs, const char *what)
{
    while (!td_list_empty(jobs))
        td_job_free(TD_CONTAINER(jobs->next, struct job, link), what);
}

bool td_agent_is_over(const struct agent *agent, uint64_t map)
{
    return td_idmap_get(&agent->cancelled, map);
}

/* Without memory for it, calls of it that still come are run for nobody. */
static void remember(struct agent *agent, uint64_t id)
{
    if (td_agent_is_over(agent, id) || td_idmap_put(&agent->cancelled, id, agent) < 0)
        return;
    uint64_t *slot = &agent->over[agent->next_over++ % TD_OVER_MAX];
    td_idmap_remove(&agent->cancelled, *slot);
    *slot = id;
}

static void map_cancel(struct agent *agent, uint64_t id)
{
    remember(agent, id);
    td_lane_close(agent, id);
    size_t cursor = 0;
    struct agent_map *map = td_idmap_get(&agent->maps, id);
    if (map) {
        jobs_drop(&map->waiting, "+TERM");
        jobs_drop(&map->running, "+TERM");
        map_close(agent, map);
    }
    for (struct job *job = td_idmap_next(&agent->jobs, &cursor); job;
         job = td_idmap_next(&agent->jobs, &cursor)) {
        if (job->map_id != id)
            continue;
        td_job_free(job, "+TERM"); /* it could not run yet */
        cursor = 0;
    }
    td_lanes_pull(agent);
}

static void on_cancel(void *context, const struct td_nats_message *message)
{
    struct td_bytes frames = message->payload;
    struct td_message one;
    if (td_frames_next(&frames, &one) == 0 && one.type == TD_MSG_MAP_CANCEL)
        map_cancel(context, one.map_cancel.map);
}

/* A large map has begun; others of its lane are found by td_lanes_find. */
static void on_news(void *context, const struct td_nats_message *message)
{
    struct td_bytes frames = message->payload;
    struct td_message one;
    if (td_frames_next(&frames, &one) == 0 && one.type == TD_MSG_MAP && one.map.laned)
        (void)td_lane_open(context, one.map.map); /* without memory others do it */
}

static void on_ask(void *context, const struct td_nats_message *message)
{
    struct agent *agent = context;
    struct td_message answer = {.type = TD_MSG_AGENT,
                                .agent = {.version = TD_WIRE_VERSION,
                                          .agent = agent->id,
                                          .pid = getpid(),
                                          .slots = agent->slots,
                                          .busy = agent->busy,
                                          .draining = agent->draining,
                                          .host = {agent->host.text, strlen(agent->host.text)},
                                          .pool = {agent->pool.text, strlen(agent->pool.text)}}};
    TD_CLEANUP(td_buf_done) struct td_buf buf;
    td_buf_init(&buf, OUT_MUCH);
    if (message->reply && td_frames_add(&buf, &answer) == 0)
        (void)td_nats_publish(td_jet_nats(agent->jet), message->reply, NULL, NULL, 0,
                              (struct td_bytes){buf.data, buf.len}); /* who asks asks again */
}

/* What we hold is in progress. */
static void on_hold(void *context)
{
    struct agent *agent = context;
    size_t cursor = 0;
    for (struct job *job = td_idmap_next(&agent->jobs, &cursor); job;
         job = td_idmap_next(&agent->jobs, &cursor))
        td_jet_ack(agent->jet, job->reply, "+WPI");
    td_lanes_find(agent);
    close_idle(agent);
    (void)td_loop_timer(agent->loop, &agent->hold, td_clock_now() + TD_HELD_NS / 3); /* see new */
}

static void on_connected(void *context, bool restarted)
{
    struct agent *agent = context;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
    (void)restarted;
    agent->since_ns = now.tv_sec * TD_NS_PER_S + now.tv_nsec;
    td_lanes_connected(agent);
    td_lanes_find(agent);
    TD_LIST_EACH(node, &agent->ledgers)
        td_reader_connected(TD_CONTAINER(node, struct ledger, link)->reader);
}

static void on_disconnected(void *context, const char *reason)
{
    (void)context, (void)reason; /* what runs goes on, and its outcomes are stored later */
}

static void on_closed(void *context, const char *reason)
{
    struct agent *agent = context;
    agent->options.closed(agent->options.context, reason);
}

/* -- leaving ---------------------------------------------------------------------------------- */

static void hand_back(struct agent *agent, bool begun)
{
    size_t cursor = 0;
    for (struct job *job = td_idmap_next(&agent->jobs, &cursor); job;
         job = td_idmap_next(&agent->jobs, &cursor)) {
        struct agent_map *map = job->map;
        if ((job->begun_ns && !begun) || job->left == 0)
            continue;
        job_flush(job); /* what it has is kept: who gets it asks first */
        td_job_free(job, "-NAK");
        if (map && !begun)
            tell_waiting(agent, map);
        if (map)
            map_settle(agent, map);
        cursor = 0;
    }
}

void td_bus_agent_drain(struct td_bus *bus)
{
    struct agent *agent = agent_of(bus);
    agent->draining = true;
    hand_back(agent, false);
    if (agent->jobs.len == 0)
        agent->options.drained(agent->options.context);
}

void td_bus_agent_hand_back(struct td_bus *bus)
{
    struct agent *agent = agent_of(bus);
    hand_back(agent, true);
    if (agent->draining && agent->jobs.len == 0)
        agent->options.drained(agent->options.context);
}

/* -- life ------------------------------------------------------------------------------------- */

static void agent_free(struct td_bus *bus)
{
    struct agent *agent = agent_of(bus);
    size_t cursor = 0;
    for (struct job *job = td_idmap_next(&agent->jobs, &cursor); job;
         job = td_idmap_next(&agent->jobs, &cursor)) {
        td_job_free(job, "-NAK");
        cursor = 0;
    }
    cursor = 0;
    for (struct agent_map *map = td_idmap_next(&agent->maps, &cursor); map;
         map = td_idmap_next(&agent->maps, &cursor))
        td_free(map);
    while (!td_list_empty(&agent->ledgers))
        td_ledger_free(TD_CONTAINER(agent->ledgers.next, struct ledger, link));
    while (!td_list_empty(&agent->functions))
        td_function_free(TD_CONTAINER(agent->functions.next, struct function, link));
    while (!td_list_empty(&agent->lanes))
        td_lane_close(agent, TD_CONTAINER(agent->lanes.next, struct lane, link)->map);
    td_loop_untimer(agent->loop, &agent->flush);
    td_loop_untimer(agent->loop, &agent->hold);
    td_jet_unask(&agent->find);
    td_nats_subscription_free(agent->news);
    td_nats_subscription_free(agent->cancels);
    td_nats_subscription_free(agent->asks);
    td_jet_free(agent->jet);
    td_bus_free(agent->inner);
    td_idmap_done(&agent->jobs);
    td_idmap_done(&agent->maps);
    td_idmap_done(&agent->cancelled);
    td_free(agent);
}

static int connect_to(struct agent *agent, const struct td_bus_agent_options *options,
                      struct td_error *err)
{
    static const struct td_jet_events events = {on_connected, on_disconnected, on_closed};
    int r = td_jet_new(agent->loop, options->server, &events, agent, &agent->jet, err);
    if (r == 0)
        r = td_nats_subscribe(td_jet_nats(agent->jet), TD_SUBJECT_CANCEL, on_cancel, agent,
                              &agent->cancels, err);
    if (r == 0)
        r = td_nats_subscribe(td_jet_nats(agent->jet), TD_SUBJECT_ASK, on_ask, agent, &agent->asks,
                              err);
    if (r == 0)
        r = td_nats_subscribe(td_jet_nats(agent->jet), TD_SUBJECT_LANE, on_news, agent,
                              &agent->news, err);
    if (r < 0)
        return r;
    r = td_lane_open(agent, 0);
    if (r == 0)
        r = td_loop_timer(agent->loop, &agent->hold, td_clock_now() + TD_HELD_NS / 3);
    return r < 0 ? td_error_set(err, r, "bus: %s", td_status_text(r)) : 0;
}

int td_bus_agent_new(struct td_loop *loop, const struct td_bus_agent_options *options,
                     struct td_bus **ret_bus, struct td_error *err)
{
    static const struct td_bus_ops ops = {
        .open = agent_open,
        .submit = agent_submit,
        .cancel = agent_cancel,
        .forget = agent_forget,
        .mute = agent_mute,
        .join = agent_join,
        .room = agent_room,
        .fetch = agent_fetch,
        .started = agent_started,
        .output = agent_output,
        .finish = agent_finish,
        .free = agent_free,
    };
    if (td_pool_name_check(options->pool) < 0)
        return td_error_set(err, TD_EINVAL, "no pool can be named '%s'", options->pool);
    struct agent *agent = td_alloc_zero(sizeof *agent);
    if (!agent)
        return td_error_set(err, TD_ENOMEM, "bus: out of memory");
    *agent = (struct agent){.bus = {&ops},
                            .loop = loop,
                            .options = *options,
                            .stream = td_name_stream(options->pool),
                            .flush = {.fn = on_flush, .context = agent},
                            .hold = {.fn = on_hold, .context = agent}};
    agent->pool = td_name_of("%s", options->pool);
    agent->host = td_name_of("%s", options->host);
    td_list_init(&agent->lanes);
    td_list_init(&agent->functions);
    td_list_init(&agent->ledgers);
    td_list_init(&agent->later);
    int r = 0;
    if (getrandom(&agent->id, sizeof agent->id, 0) != (ssize_t)sizeof agent->id)
        r = td_error_set(err, TD_ESYS, "no random numbers can be had");
    if (r == 0)
        r = td_bus_local_new(&agent->inner, err);
    if (r == 0)
        r = connect_to(agent, options, err);
    agent->options.server = NULL; /* borrowed until now, as the others are */
    agent->options.pool = agent->options.host = NULL;
    if (r < 0) {
        agent_free(&agent->bus);
        return r;
    }
    *ret_bus = &agent->bus;
    return 0;
}
