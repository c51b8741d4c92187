#include "node/node_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "bus/bus.h"
#include "node/guest.h"
#include "os/clock.h"
#include "pool/desk.h"
#include "pool/pool.h"
#include "task/outcome.h"
#include "task/sched.h"
#include "task/spec.h"

/* -- what it writes --------------------------------------------------------------------------- */

static void on_lines(void *context, struct td_writer writer, int stream, struct td_bytes text)
{
    struct runner *runner = context;
    if (runner->seated)
        td_bus_output(runner->node->bus, runner->map, writer.index, writer.count, stream, text);
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

void td_node_runner_wrote(struct runner *runner, int stream, struct td_bytes text)
{
    const struct td_desk *desk = runner->packed ? td_pool_desk(runner->node->pool, runner->id)
                                                : NULL;
    runner->heard += text.len;
    if (desk)
        td_marks_add(&runner->marks[stream - 1], td_desk_token(desk), text, on_marked,
                     &(struct stream){runner, stream});
    else
        td_lines_add(&runner->lines, stream, text);
}

/* Hands on what the runner has written and nobody has ended by a newline. */
static void end_output(struct runner *runner)
{
    for (int i = 0; i < 2 && runner->packed; i++)
        td_marks_end(&runner->marks[i], on_marked, &(struct stream){runner, i + 1});
    runner->packed = false;
    td_lines_end(&runner->lines);
}

/* -- its calls' outcomes ---------------------------------------------------------------------- */

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
void td_node_runner_look(struct runner *runner)
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
    td_node_wake(node);
}

static void batch_over(struct runner *runner, bool retire)
{
    end_output(runner);
    if (runner->guest)
        td_guest_rest(runner->guest);
    td_sched_idle(runner->node->sched, runner->id, retire, td_clock_now());
}

void td_node_runner_finished(struct runner *runner, const struct td_message *message)
{
    struct td_node *node = runner->node;
    const struct td_msg_finish *said = &message->finish;
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
    settle(runner, &outcome, td_message_tail(message));
    if (!runner->packed)
        batch_over(runner, said->retire != 0);
    td_node_wake(node);
}

void td_node_runner_idle(struct runner *runner, const struct td_msg_idle *said)
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
    td_node_wake(node);
}

/* -- its end ---------------------------------------------------------------------------------- */

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

struct td_outcome *td_node_runner_bury(struct runner *runner, const struct td_pool_death *death)
{
    if (runner->packed) {
        struct td_desk_state desk = td_desk_look(death->desk);
        take_results(runner, death->desk, desk.done, desk.filled, -1);
    }
    struct td_outcome *outcome = post_mortem(runner, death);
    end_output(runner);
    return outcome;
}

/* -- what it is sent -------------------------------------------------------------------------- */

int td_node_runner_teach(struct runner *runner, const struct td_spec *spec)
{
    struct td_node *node = runner->node;
    size_t at = 0;
    while (at < runner->nfunctions &&
           memcmp(&runner->functions[at], &spec->function, sizeof spec->function) != 0)
        at++;
    int r = 0;
    if (at == runner->nfunctions) {
        if (runner->nfunctions == TD_FUNCTIONS_MAX) {
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

void td_node_runner_seat(struct runner *runner, const struct td_action *action,
                         const struct lane *lane)
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
    td_node_look_soon(node);
}

void td_node_runner_init(struct runner *runner, struct td_node *node, uint32_t id)
{
    runner->node = node;
    runner->id = id;
    td_lines_init(&runner->lines, on_lines, runner);
}

void td_node_runner_free(struct td_node *node, struct runner *runner)
{
    td_idmap_remove(&node->runners, runner->id);
    td_guest_free(runner->guest);
    td_lines_done(&runner->lines);
    td_free(runner);
}
