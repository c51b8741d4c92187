#include "node/node.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/mem.h"
#include "bus/bus.h"
#include "node/guest.h"
#include "node/node_internal.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/loop.h"
#include "pool/desk.h"
#include "pool/pool.h"
#include "task/outcome.h"
#include "task/sched.h"
#include "task/spec.h"
#include "wire/message.h"

enum {
    RUNNERS_MAX = 256,
    IDLE_PER_SLOT = 2,
    WAITING_MAX = 4096,
};
#define ROUND_NS ((int64_t)3000000) /* how long a result waits for those of its batch at most */

void td_node_wake(struct td_node *node)
{
    td_loop_post(node->loop, &node->pump);
}

/* -- from the bus ----------------------------------------------------------------------------- */

static int on_opened(void *context, uint64_t id, struct td_spec *spec)
{
    struct td_node *node = context;
    struct lane *lane = td_alloc_zero(sizeof *lane);
    struct td_sched_map map = {.id = id,
                               .cost = td_spec_cost(spec, node->slots, node->memory_bytes),
                               .retries = spec->retries,
                               .timeout_ns = spec->timeout_ns,
                               .depth = spec->depth,
                               .root = spec->root};
    int r = lane ? 0 : TD_ENOMEM;
    if (r == 0)
        r = td_pool_profile(node->pool, &spec->runner, &map.profile, NULL);
    if (r == 0)
        r = td_idmap_put(&node->lanes, id, lane);
    if (r < 0) {
        td_free(lane);
        return r;
    }
    lane->id = id;
    lane->spec = td_spec_ref(spec);
    r = td_sched_map_add(node->sched, &map);
    if (r < 0) {
        td_idmap_remove(&node->lanes, id);
        td_spec_unref(spec);
        td_free(lane);
    }
    return r;
}

static void on_waiting(void *context, uint64_t map, uint64_t batches)
{
    struct td_node *node = context;
    td_sched_backlog(node->sched, map, batches);
    td_node_wake(node);
}

static void on_call(void *context, uint64_t map, uint64_t index, uint32_t count, uint32_t skip,
                    struct td_blob *args)
{
    struct td_node *node = context;
    int r = td_sched_fetched(node->sched, map, index, count, skip, args, td_clock_now());
    if (r != TD_ENOMEM)
        return; /* taken; or its map was forgotten */
    TD_CLEANUP(td_outcome_freep)
    struct td_outcome *outcome = td_outcome_new(map, index, 0, TD_OUTCOME_NOT_STARTED);
    if (!outcome)
        return;
    outcome->count = count;
    td_bus_finish(node->bus, &outcome);
}

static void lane_free(struct lane *lane)
{
    if (!lane)
        return;
    td_spec_unref(lane->spec);
    td_free(lane);
}

/* What had finished before has its results. */
static void on_cancelled(void *context, uint64_t map)
{
    struct td_node *node = context;
    size_t cursor = 0;
    for (struct runner *runner = td_idmap_next(&node->runners, &cursor); runner;
         runner = td_idmap_next(&node->runners, &cursor))
        if (runner->map == map)
            td_node_runner_look(runner);
    td_sched_map_cancel(node->sched, map, td_clock_now());
    td_node_wake(node);
}

static void on_muted(void *context, uint64_t map, bool muted)
{
    struct td_node *node = context;
    struct lane *lane = td_idmap_get(&node->lanes, map);
    if (lane)
        lane->muted = muted;
    size_t cursor = 0;
    for (struct runner *runner = td_idmap_next(&node->runners, &cursor); runner;
         runner = td_idmap_next(&node->runners, &cursor))
        if (runner->seated && runner->map == map)
            td_pool_mute(node->pool, runner->id, muted);
}

/* -- from the pool ---------------------------------------------------------------------------- */

static void on_up(void *context, uint32_t id)
{
    struct td_node *node = context;
    td_sched_runner_up(node->sched, id, td_clock_now());
    td_node_wake(node);
}

void td_node_look_soon(struct td_node *node)
{
    if (!node->rounds)
        node->rounds = td_loop_timer(node->loop, &node->round, td_clock_now() + ROUND_NS) == 0;
}

static void on_round(void *context)
{
    struct td_node *node = context;
    bool any = false;
    size_t cursor = 0;
    for (struct runner *runner = td_idmap_next(&node->runners, &cursor); runner;
         runner = td_idmap_next(&node->runners, &cursor)) {
        td_node_runner_look(runner);
        any |= runner->packed;
    }
    node->rounds = false;
    if (any)
        td_node_look_soon(node);
}

static void on_message(void *context, uint32_t id, const struct td_message *message)
{
    struct td_node *node = context;
    struct runner *runner = td_idmap_get(&node->runners, id);
    if (!runner || !runner->seated)
        return;
    if (message->type == TD_MSG_FINISH)
        td_node_runner_finished(runner, message);
    else if (message->type == TD_MSG_IDLE)
        td_node_runner_idle(runner, &message->idle);
}

static void on_busy(void *context, bool busy)
{
    struct runner *runner = context;
    td_sched_lent(runner->node->sched, runner->id, busy, td_clock_now());
    td_node_wake(runner->node);
}

static void on_guest(void *context, uint32_t id, int fd)
{
    struct td_node *node = context;
    struct runner *runner = td_idmap_get(&node->runners, id);
    if (runner) {
        runner->guest = td_guest_free(runner->guest);
        /* On failure the socket closes, and the client in the runner says so. */
        (void)td_guest_new(node->loop, node->bus, &fd, on_busy, runner, &runner->guest, NULL);
        const struct lane *lane = td_idmap_get(&node->lanes, runner->map);
        if (runner->guest && lane)
            td_guest_nest(runner->guest, lane->id, lane->spec);
    }
    td_fd_close(&fd);
}

static void on_output(void *context, uint32_t id, int stream, struct td_bytes text)
{
    struct td_node *node = context;
    struct runner *runner = td_idmap_get(&node->runners, id);
    if (runner)
        td_node_runner_wrote(runner, stream, text);
}

static void on_supervisor(void *context)
{
    struct td_node *node = context;
    if (node->changed)
        node->changed(node->changed_context);
}

static void on_gone(void *context, uint32_t id, const struct td_pool_death *death)
{
    struct td_node *node = context;
    struct runner *runner = td_idmap_get(&node->runners, id);
    if (!runner)
        return;
    struct td_outcome *outcome = td_node_runner_bury(runner, death);
    struct lane *lane = td_idmap_get(&node->lanes, runner->map);
    if (outcome && lane)
        outcome->limit_bytes = lane->spec->runner.memory_bytes;
    td_sched_runner_gone(node->sched, id, &outcome, td_clock_now());
    td_node_runner_free(node, runner);
    td_node_wake(node);
}

/* -- carrying out ----------------------------------------------------------------------------- */

static void fail_start(struct td_node *node, uint32_t id, const char *why)
{
    struct td_outcome *outcome = td_outcome_new(0, 0, 0, TD_OUTCOME_NOT_STARTED);
    if (outcome)
        outcome->detail = td_blob_new(why, strlen(why));
    td_sched_runner_gone(node->sched, id, &outcome, td_clock_now());
}

static void do_start(struct td_node *node, const struct td_action *action)
{
    struct td_error err = {0};
    struct runner *runner = td_alloc_zero(sizeof *runner);
    if (!runner || td_idmap_put(&node->runners, action->runner, runner) < 0) {
        td_free(runner);
        fail_start(node, action->runner, "out of memory");
        return;
    }
    td_node_runner_init(runner, node, action->runner);
    if (td_pool_start(node->pool, action->runner, action->profile, &err) < 0) {
        td_node_runner_free(node, runner);
        fail_start(node, action->runner, err.text);
    }
}

static void do_run(struct td_node *node, const struct td_action *action)
{
    struct runner *runner = td_idmap_get(&node->runners, action->runner);
    struct lane *lane = td_idmap_get(&node->lanes, action->map);
    if (!runner || !lane)
        return; /* never so: both live as long as the scheduler names them */
    if (runner->guest) {
        td_guest_rest(runner->guest); /* a thread that an earlier call left may have begun anew */
        td_guest_nest(runner->guest, lane->id, lane->spec);
    }
    td_lines_end(&runner->lines);
    td_node_runner_seat(runner, action, lane);
    td_pool_mute(node->pool, runner->id, lane->muted);
    struct td_message message = {.type = TD_MSG_CALL,
                                 .call = {.map = action->map,
                                          .index = action->index,
                                          .count = action->count,
                                          .skip = action->skip,
                                          .marked = runner->marked,
                                          .attempt = action->attempt,
                                          .function = lane->spec->function}};
    int r = td_node_runner_teach(runner, lane->spec);
    if (r == 0)
        r = td_pool_send(node->pool, runner->id, &message, action->args);
    if (r < 0)
        td_pool_kill(node->pool, runner->id, td_status_text(r)); /* `gone` follows */
    else
        td_bus_started(node->bus, action->map, action->index, action->count);
}

static void do_cut(struct td_node *node, const struct td_action *action)
{
    struct runner *runner = td_idmap_get(&node->runners, action->runner);
    struct td_desk *desk = td_pool_desk(node->pool, action->runner);
    if (!runner || !desk)
        return; /* never so, as above */
    uint32_t begun = td_desk_cut(desk);
    td_node_runner_look(runner);
    td_sched_cut(node->sched, runner->id, runner->index + begun, td_desk_look(desk).since_ns,
                 td_clock_now());
}

/* The scheduler has no words of its own: it gives up a call that no runner will ever be free for.
 */
static void explain(const struct td_node *node, struct td_outcome *outcome)
{
    char text[160];
    if (outcome->status != TD_OUTCOME_NOT_STARTED || outcome->detail)
        return;
    int len = snprintf(text, sizeof text,
                       "maps are nested too deeply: all %u runners wait for calls of their own",
                       node->runners_max); /* always fits */
    outcome->detail = td_blob_new(text, (size_t)len);
}

static void do_finish(struct td_node *node, const struct td_action *action)
{
    TD_CLEANUP(td_outcome_freep) struct td_outcome *outcome = action->outcome;
    explain(node, outcome);
    td_bus_finish(node->bus, &outcome);
}

static void do_action(struct td_node *node, const struct td_action *action)
{
    switch (action->type) {
    case TD_ACTION_FETCH:
        if (!td_bus_fetch(node->bus, action->map))
            td_sched_fetch_failed(node->sched, action->map);
        break;
    case TD_ACTION_START: do_start(node, action); break;
    case TD_ACTION_RUN: do_run(node, action); break;
    case TD_ACTION_CUT: do_cut(node, action); break;
    case TD_ACTION_KILL: td_pool_kill(node->pool, action->runner, NULL); break;
    case TD_ACTION_FINISH: do_finish(node, action); break;
    case TD_ACTION_DROP: lane_free(td_idmap_remove(&node->lanes, action->map)); break;
    }
}

static void pump(void *context)
{
    struct td_node *node = context;
    struct td_action action;
    int64_t now = td_clock_now();
    td_sched_tick(node->sched, now);
    while (td_sched_next(node->sched, now, &action))
        do_action(node, &action);
    unsigned room = td_sched_room(node->sched);
    if (room != node->room)
        td_bus_room(node->bus, node->room = room, node->slots);
    int64_t deadline = td_sched_deadline(node->sched);
    if (deadline == TD_NO_DEADLINE)
        td_loop_untimer(node->loop, &node->alarm);
    else
        (void)td_loop_timer(node->loop, &node->alarm, deadline); /* its place is kept, see new */
}

/* -- life ------------------------------------------------------------------------------------- */

static void node_freep(struct td_node **node)
{
    *node = td_node_free(*node);
}

int td_node_new(struct td_loop *loop, struct td_bus *bus, const struct td_node_options *options,
                struct td_node **ret_node, struct td_error *err)
{
    static const struct td_pool_events pool_events = {on_up,     on_message, on_guest,
                                                      on_output, on_gone,    on_supervisor};
    static const struct td_bus_worker worker = {on_opened, on_waiting, on_call, on_cancelled,
                                                on_muted};
    TD_CLEANUP(node_freep) struct td_node *node = td_alloc_zero(sizeof *node);
    if (!node)
        return td_error_set(err, TD_ENOMEM, "node: out of memory");
    struct sysinfo info = {0};
    (void)sysinfo(&info); /* fails for a bad pointer only */
    node->loop = loop;
    node->bus = bus;
    node->changed = options->changed;
    node->changed_context = options->context;
    node->slots = options->slots ? options->slots : (unsigned)get_nprocs();
    node->runners_max = options->runners_max ? options->runners_max : RUNNERS_MAX;
    node->memory_bytes = (uint64_t)info.totalram * info.mem_unit;
    node->pump = (struct td_post){.fn = pump, .context = node};
    node->alarm = (struct td_timer){.fn = pump, .context = node};
    node->round = (struct td_timer){.fn = on_round, .context = node};
    int r = td_sched_new((struct td_sched_options){.slots = node->slots,
                                                   .idle_max = IDLE_PER_SLOT * node->slots,
                                                   .runners_max = node->runners_max,
                                                   .waiting_max = WAITING_MAX},
                         &node->sched);
    if (r < 0)
        return td_error_set(err, r, "scheduler: %s", td_status_text(r));
    r = td_pool_new(loop, &(struct td_pool_options){.supervisor_path = options->supervisor_path},
                    &pool_events, node, &node->pool, err);
    if (r == 0)
        r = td_loop_timer(loop, &node->alarm, TD_NO_DEADLINE);
    if (r < 0)
        return r;
    td_bus_join(bus, &worker, node);
    node->room = td_sched_room(node->sched);
    td_bus_room(bus, node->room, node->slots);
    *ret_node = TD_TAKE(node);
    return 0;
}

struct td_node *td_node_free(struct td_node *node)
{
    if (!node)
        return NULL;
    td_loop_unpost(node->loop, &node->pump);
    for (size_t cursor = 0;; cursor = 0) {
        struct runner *runner = td_idmap_next(&node->runners, &cursor);
        if (!runner)
            break;
        td_node_runner_free(node, runner);
    }
    td_pool_free(node->pool);
    td_loop_unpost(node->loop, &node->pump);
    td_loop_untimer(node->loop, &node->alarm);
    td_loop_untimer(node->loop, &node->round);
    size_t cursor = 0;
    for (struct lane *lane = td_idmap_next(&node->lanes, &cursor); lane;
         lane = td_idmap_next(&node->lanes, &cursor))
        lane_free(lane);
    td_idmap_done(&node->lanes);
    td_idmap_done(&node->runners);
    td_sched_free(node->sched);
    td_free(node);
    return NULL;
}

const struct td_pool *td_node_pool(const struct td_node *node)
{
    return node->pool;
}

unsigned td_node_slots(const struct td_node *node)
{
    return node->slots;
}
