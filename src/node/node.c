#include "node/node.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/mem.h"
#include "bus/bus.h"
#include "node/guest.h"
#include "node/lines.h"
#include "node/marks.h"
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
    FUNCTIONS_MAX = 16, /* that one runner keeps */
};
#define ROUND_NS ((int64_t)3000000) /* how long a result waits for those of its batch at most */

/* A map as this node knows it. */
struct lane {
    uint64_t id;
    struct td_spec *spec;
    bool muted;
    bool raw; /* its calls write past Python: each is marked, from then on */
};

/* A runner as this node knows it, and the batch that was sent to it last; what it runs is the
 * scheduler's knowledge. */
struct runner {
    struct td_node *node;
    uint32_t id;
    struct td_lines lines;
    struct td_marks marks[2];
    struct td_guest *guest;
    uint64_t map, index;
    uint32_t count;
    uint32_t attempt;
    bool seated; /* it was sent one at all */
    bool packed; /* it is one of several calls, which are on its desk, and under way */
    bool marked;
    uint64_t heard;                         /* bytes that it has written since */
    uint32_t taken;                         /* of its calls: their outcomes are known */
    uint32_t taken_bytes;                   /* of their results */
    int64_t sent_ns, spent_ns;              /* and how long those took */
    struct td_key functions[FUNCTIONS_MAX]; /* bodies it has, least recently used first */
    size_t nfunctions;
};

struct td_node {
    struct td_loop *loop;
    struct td_bus *bus;
    struct td_pool *pool;
    struct td_sched *sched;
    struct td_idmap lanes;
    struct td_idmap runners;
    struct td_post pump;   /* carry out what was decided */
    struct td_timer alarm; /* the scheduler's next deadline */
    struct td_timer round; /* a look at the desks */
    bool rounds;           /* it is set */
    unsigned slots;
    unsigned runners_max;
    uint64_t memory_bytes;
    void (*changed)(void *context);
    void *changed_context;
};

static void wake(struct td_node *node)
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
    wake(node);
}

static void on_call(void *context, uint64_t map, uint64_t index, uint32_t count,
                    struct td_blob *args)
{
    struct td_node *node = context;
    int r = td_sched_fetched(node->sched, map, index, count, args, td_clock_now());
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

static void take_round(struct runner *runner);

/* What had finished before has its results. */
static void on_cancelled(void *context, uint64_t map)
{
    struct td_node *node = context;
    size_t cursor = 0;
    for (struct runner *runner = td_idmap_next(&node->runners, &cursor); runner;
         runner = td_idmap_next(&node->runners, &cursor))
        if (runner->map == map)
            take_round(runner);
    td_sched_map_cancel(node->sched, map, td_clock_now());
    wake(node);
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

static void on_lines(void *context, struct td_writer writer, int stream, struct td_bytes text)
{
    struct runner *runner = context;
    if (runner->seated)
        td_bus_output(runner->node->bus, runner->map, writer.index, writer.count, stream, text);
}

static void on_up(void *context, uint32_t id)
{
    struct td_node *node = context;
    td_sched_runner_up(node->sched, id, td_clock_now());
    wake(node);
}

/* One stream of a runner. */
struct stream {
    struct runner *runner;
    int number;
};

static void writes_raw(const struct runner *runner)
{
    struct lane *lane = td_idmap_get(&runner->node->lanes, runner->map);
    if (lane)
        lane->raw = true;
}

/* Text of a marked call; or past its mark: of it, if each call is marked, else of it or one of
 * those that have begun since. */
static void on_marked(void *context, uint32_t at, bool marked, struct td_bytes text)
{
    const struct stream *stream = context;
    struct runner *runner = stream->runner;
    struct td_node *node = runner->node;
    struct td_writer writer = {runner->index + (at < runner->count ? at : 0), 1};
    if (!marked && !runner->marked) {
        const struct td_desk *desk = td_pool_desk(node->pool, runner->id);
        uint32_t begun = desk ? td_desk_look(desk).begun : runner->count;
        writer.count = begun > at ? begun - at : 1;
        writes_raw(runner);
    }
    td_lines_turn(&runner->lines, stream->number, writer);
    td_lines_add(&runner->lines, stream->number, text);
}

static void nonsense(const struct runner *runner)
{
    td_pool_kill(runner->node->pool, runner->id, "it answered nonsense");
}

/* Hands an outcome of the runner's next calls on; takes it (NULL: there was no memory for it). */
static void settle(struct runner *runner, struct td_outcome **outcome, struct td_blob *value)
{
    struct td_node *node = runner->node;
    TD_CLEANUP(td_outcome_freep) struct td_outcome *own = TD_TAKE(*outcome);
    if (!own || !value) {
        td_blob_unref(value);
        td_pool_kill(node->pool, runner->id,
                     "no memory for its result"); /* its calls end with it */
        return;
    }
    own->value = value;
    own->pid = td_pool_pid(node->pool, runner->id);
    runner->taken += own->count;
    runner->spent_ns += own->duration_ns;
    td_sched_finished(node->sched, runner->id, &own, td_clock_now());
}

/* Takes the results of its first `done` calls, which are in the first `filled` bytes, as far as
 * they were not taken before. total_ns: what all of them took, -1 when nobody has said. */
static void take_results(struct runner *runner, const struct td_desk *desk, uint32_t done,
                         uint32_t filled, int64_t total_ns)
{
    if (done <= runner->taken || filled < runner->taken_bytes)
        return;
    int64_t now = td_clock_now();
    int64_t spent = (total_ns >= 0 ? total_ns : now - runner->sent_ns) - runner->spent_ns;
    struct td_outcome *outcome = td_outcome_new(runner->map, runner->index + runner->taken,
                                                runner->attempt, TD_OUTCOME_OK);
    if (outcome) {
        outcome->count = done - runner->taken;
        outcome->duration_ns = spent > 0 ? spent : 0;
    }
    struct td_blob *value = td_desk_results(desk, runner->taken_bytes, filled);
    runner->taken_bytes = filled;
    settle(runner, &outcome, value);
}

/* Results that lie on the desk, without waiting for the others of their batch. What the runner has
 * said until we looked is heard first: the outcomes of calls that are not on the desk. */
static void take_round(struct runner *runner)
{
    struct td_node *node = runner->node;
    if (!runner->packed)
        return;
    const struct td_desk *desk = td_pool_desk(node->pool, runner->id);
    struct td_desk_state state = td_desk_look(desk);
    td_pool_read(node->pool, runner->id);
    if (!runner->packed || state.done <= runner->taken)
        return;
    td_pool_hear(node->pool, runner->id);
    take_results(runner, desk, state.done, state.filled, -1);
    wake(node);
}

static void on_round(void *context)
{
    struct td_node *node = context;
    bool any = false;
    size_t cursor = 0;
    for (struct runner *runner = td_idmap_next(&node->runners, &cursor); runner;
         runner = td_idmap_next(&node->runners, &cursor)) {
        take_round(runner);
        any |= runner->packed;
    }
    node->rounds = any && td_loop_timer(node->loop, &node->round, td_clock_now() + ROUND_NS) == 0;
}

/* Hands on what the runner has written and nobody has ended by a newline. */
static void end_output(struct runner *runner)
{
    for (int i = 0; i < 2 && runner->packed; i++)
        td_marks_end(&runner->marks[i], on_marked, &(struct stream){runner, i + 1});
    runner->packed = false;
    td_lines_end(&runner->lines);
}

static void batch_over(struct runner *runner, bool retire)
{
    end_output(runner);
    if (runner->guest)
        td_guest_rest(runner->guest);
    td_sched_idle(runner->node->sched, runner->id, retire, td_clock_now());
}

static void on_finish(struct runner *runner, const struct td_msg_finish *said)
{
    struct td_node *node = runner->node;
    bool ok = said->status == TD_OUTCOME_OK || said->status == TD_OUTCOME_RAISED;
    uint64_t at = said->index - runner->index;
    if (!ok || said->map != runner->map || said->attempt != runner->attempt ||
        at >= runner->count || at < runner->taken) {
        nonsense(runner);
        return;
    }
    td_pool_hear(node->pool, runner->id); /* what it wrote before it finished belongs to the call */
    if (runner->packed)
        take_results(runner, td_pool_desk(node->pool, runner->id), (uint32_t)at, said->filled, -1);
    else if (runner->heard > said->printed)
        writes_raw(runner);
    struct td_outcome *outcome = td_outcome_new(said->map, said->index, said->attempt,
                                                said->status);
    if (outcome) {
        outcome->duration_ns = said->duration_ns;
        outcome->peak_bytes = said->peak_bytes;
    }
    if (outcome && said->status != TD_OUTCOME_OK)
        outcome->last_output = td_lines_tail(&runner->lines, said->index);
    settle(runner, &outcome, td_blob_new(said->value.data, said->value.len));
    if (!runner->packed)
        batch_over(runner, said->retire != 0);
    wake(node);
}

static void on_idle(struct runner *runner, const struct td_msg_idle *said)
{
    struct td_node *node = runner->node;
    if (!runner->packed) {
        nonsense(runner);
        return;
    }
    const struct td_desk *desk = td_pool_desk(node->pool, runner->id);
    struct td_desk_state state = td_desk_look(desk);
    td_pool_hear(node->pool, runner->id);
    take_results(runner, desk, state.done, state.filled, said->duration_ns);
    batch_over(runner, said->retire != 0);
    wake(node);
}

static void on_message(void *context, uint32_t id, const struct td_message *message)
{
    struct td_node *node = context;
    struct runner *runner = td_idmap_get(&node->runners, id);
    if (!runner || !runner->seated)
        return;
    if (message->type == TD_MSG_FINISH)
        on_finish(runner, &message->finish);
    else if (message->type == TD_MSG_IDLE)
        on_idle(runner, &message->idle);
}

static void on_busy(void *context, bool busy)
{
    struct runner *runner = context;
    td_sched_lent(runner->node->sched, runner->id, busy, td_clock_now());
    wake(runner->node);
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
    const struct td_desk *desk = runner && runner->packed ? td_pool_desk(node->pool, id) : NULL;
    if (runner)
        runner->heard += text.len;
    if (desk)
        td_marks_add(&runner->marks[stream - 1], td_desk_token(desk), text, on_marked,
                     &(struct stream){runner, stream});
    else if (runner)
        td_lines_add(&runner->lines, stream, text);
}

/* How a runner died that never had a call; new, or NULL when memory is out. */
static struct td_blob *obituary(const struct td_pool_death *death, struct td_bytes last_words)
{
    char text[256];
    int len;
    if (death->cause == TD_DEATH_OUT_OF_MEMORY)
        len = snprintf(text, sizeof text, "a new runner is over the memory limit already");
    else if (death->code < 0)
        len = snprintf(text, sizeof text, "its runner was killed by signal %d (%s)", -death->code,
                       sigdescr_np(-death->code));
    else
        len = snprintf(text, sizeof text, "its runner exited with code %d", death->code);
    TD_CLEANUP(td_buf_done) struct td_buf words;
    td_buf_init(&words, sizeof text + 1 + TD_TAIL_MAX);
    if (td_buf_add(&words, text, (size_t)len) < 0 ||
        (last_words.len && (td_buf_add(&words, "\n", 1) < 0 ||
                            td_buf_add(&words, last_words.data, last_words.len) < 0)))
        return NULL;
    return td_blob_new(words.data, words.len);
}

/* What became of the runner, for the call that it had. A call that it never read has not begun. */
static struct td_outcome *post_mortem(const struct runner *runner,
                                      const struct td_pool_death *death)
{
    static const uint8_t status[] = {[TD_DEATH_EXITED] = TD_OUTCOME_CRASHED,
                                     [TD_DEATH_OUT_OF_MEMORY] = TD_OUTCOME_OUT_OF_MEMORY,
                                     [TD_DEATH_NOT_STARTED] = TD_OUTCOME_NOT_STARTED,
                                     [TD_DEATH_KILLED] = TD_OUTCOME_CRASHED};
    bool began = runner->seated && !death->unread &&
                 (!runner->packed || td_desk_look(death->desk).begun > runner->taken);
    struct td_outcome *outcome = td_outcome_new(
        0, 0, 0, began ? status[death->cause] : (uint8_t)TD_OUTCOME_NOT_STARTED);
    if (!outcome)
        return NULL;
    outcome->code = death->code;
    outcome->pid = death->pid;
    outcome->peak_bytes = death->peak_bytes;
    outcome->last_output = td_lines_tail(&runner->lines, runner->index + runner->taken);
    if (death->detail.len)
        outcome->detail = td_blob_new(death->detail.data, death->detail.len);
    else if (!began)
        outcome->detail = obituary(death, td_blob_bytes(outcome->last_output));
    return outcome;
}

static void on_supervisor(void *context)
{
    struct td_node *node = context;
    if (node->changed)
        node->changed(node->changed_context);
}

static void runner_free(struct td_node *node, struct runner *runner)
{
    td_idmap_remove(&node->runners, runner->id);
    td_guest_free(runner->guest);
    td_lines_done(&runner->lines);
    td_free(runner);
}

static void on_gone(void *context, uint32_t id, const struct td_pool_death *death)
{
    struct td_node *node = context;
    struct runner *runner = td_idmap_get(&node->runners, id);
    if (!runner)
        return;
    if (runner->packed) { /* what it had finished outlives it */
        struct td_desk_state desk = td_desk_look(death->desk);
        take_results(runner, death->desk, desk.done, desk.filled, -1);
    }
    struct td_outcome *outcome = post_mortem(runner, death);
    struct lane *lane = td_idmap_get(&node->lanes, runner->map);
    if (outcome && lane)
        outcome->limit_bytes = lane->spec->runner.memory_bytes;
    end_output(runner);
    td_sched_runner_gone(node->sched, id, &outcome, td_clock_now());
    runner_free(node, runner);
    wake(node);
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
    runner->node = node;
    runner->id = action->runner;
    td_lines_init(&runner->lines, on_lines, runner);
    if (td_pool_start(node->pool, action->runner, action->profile, &err) < 0) {
        runner_free(node, runner);
        fail_start(node, action->runner, err.text);
    }
}

/* Makes sure that the runner has the function's body; the one it used longest ago goes. */
static int send_function(struct td_node *node, struct runner *runner, const struct td_spec *spec)
{
    size_t at = 0;
    while (at < runner->nfunctions &&
           memcmp(&runner->functions[at], &spec->function, sizeof spec->function) != 0)
        at++;
    int r = 0;
    if (at == runner->nfunctions) {
        if (runner->nfunctions == FUNCTIONS_MAX) {
            struct td_message forget = {.type = TD_MSG_FORGET,
                                        .forget = {.function = runner->functions[0]}};
            r = td_pool_send(node->pool, runner->id, &forget, NULL);
            at = 0;
        } else {
            runner->nfunctions++;
        }
        struct td_message message = {
            .type = TD_MSG_FUNCTION,
            .function = {.function = spec->function, .body = td_blob_bytes(spec->body)}};
        if (r == 0)
            r = td_pool_send(node->pool, runner->id, &message, spec->body);
    }
    memmove(&runner->functions[at], &runner->functions[at + 1],
            (runner->nfunctions - at - 1) * sizeof runner->functions[0]);
    runner->functions[runner->nfunctions - 1] = spec->function;
    return r;
}

/* A batch is on its way to the runner. */
static void seat(struct runner *runner, const struct td_action *action, const struct lane *lane)
{
    struct td_node *node = runner->node;
    runner->map = action->map;
    runner->index = action->index;
    runner->count = action->count;
    runner->attempt = action->attempt;
    runner->seated = true;
    runner->packed = action->count > 1;
    runner->marked = runner->packed && lane->raw;
    runner->taken = runner->taken_bytes = 0;
    runner->heard = 0;
    runner->sent_ns = td_clock_now();
    runner->spent_ns = 0;
    for (int stream = 1; stream <= 2; stream++)
        td_lines_turn(&runner->lines, stream, (struct td_writer){action->index, 1});
    if (!runner->packed)
        return;
    td_desk_lay(td_pool_desk(node->pool, runner->id), action->count);
    if (!node->rounds)
        node->rounds = td_loop_timer(node->loop, &node->round, runner->sent_ns + ROUND_NS) == 0;
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
    seat(runner, action, lane);
    td_pool_mute(node->pool, runner->id, lane->muted);
    struct td_message message = {.type = TD_MSG_CALL,
                                 .call = {.map = action->map,
                                          .index = action->index,
                                          .count = action->count,
                                          .skip = action->skip,
                                          .marked = runner->marked,
                                          .attempt = action->attempt,
                                          .function = lane->spec->function,
                                          .args = td_blob_bytes(action->args)}};
    int r = send_function(node, runner, lane->spec);
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
    take_round(runner);
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
        runner_free(node, runner);
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
