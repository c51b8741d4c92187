/* Simulates a machine around the scheduler: runners that come up late, crash, are retired, lose
 * messages to their death; maps that are cancelled; calls that time out. Time is a number. Each
 * step checks the scheduler's invariants, and at the end every fetched call must have had exactly
 * one outcome. A seed that fails is printed and replays. */
#include "support.h"

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "task/outcome.h"
#include "task/sched.h"

enum {
    RUNNERS_MAX = 6,
    SLOTS = 3,
    MAPS = 5,
    CALLS = 40,
    SEEDS = 400,
    EVENTS_MAX = 64,
    RUNNER_IDS = 4096,
};

/* What is going to happen, and when. */
enum event_kind { EVENT_UP, EVENT_FINISH, EVENT_GONE };

struct event {
    enum event_kind kind;
    int64_t at;
    uint32_t runner;
    uint8_t status;
    bool used;
};

/* The batch that a runner goes through: the calls [next, end). */
struct desk {
    uint64_t map, next, end;
    uint32_t attempt;
    int64_t since;
};

struct sim {
    struct td_sched *sched;
    uint64_t random;
    int64_t now;
    struct event events[EVENTS_MAX];
    struct desk desks[RUNNER_IDS];
    unsigned waiting[MAPS]; /* calls at the bus */
    unsigned next_index[MAPS];
    bool cancelled[MAPS];
    unsigned outcomes[MAPS][CALLS];
    unsigned fetched[MAPS][CALLS];
    unsigned attempts[MAPS][CALLS];
    unsigned unread[MAPS][CALLS]; /* of these, ended by a runner that had died before */
    unsigned cuts;
    unsigned alive;
    unsigned most_alive;
};

static uint64_t draw(struct sim *sim, uint64_t below)
{
    sim->random ^= sim->random << 13;
    sim->random ^= sim->random >> 7;
    sim->random ^= sim->random << 17;
    return sim->random % below;
}

static void plan(struct sim *sim, struct event event)
{
    for (size_t i = 0; i < EVENTS_MAX; i++)
        if (!sim->events[i].used) {
            sim->events[i] = event;
            sim->events[i].used = true;
            return;
        }
    fail_msg("more events than planned for");
}

/* Everything that was planned for a runner but its death is lost with it. */
static void forget(struct sim *sim, uint32_t runner)
{
    for (size_t i = 0; i < EVENTS_MAX; i++)
        if (sim->events[i].used && sim->events[i].runner == runner)
            sim->events[i].used = false;
}

static void do_start(struct sim *sim, uint32_t runner)
{
    sim->alive++;
    if (sim->alive > sim->most_alive)
        sim->most_alive = sim->alive;
    bool fails = draw(sim, 10) == 0;
    plan(sim, (struct event){.kind = fails ? EVENT_GONE : EVENT_UP,
                             .at = sim->now + 1 + (int64_t)draw(sim, 30),
                             .runner = runner,
                             .status = TD_OUTCOME_NOT_STARTED});
}

/* What the runner does next: finish some calls, or die at the first of them. */
static void plan_work(struct sim *sim, uint32_t runner, bool fresh)
{
    const struct desk *desk = &sim->desks[runner];
    struct event event = {.kind = EVENT_FINISH,
                          .at = sim->now + 1 + (int64_t)draw(sim, 200),
                          .runner = runner,
                          .status = draw(sim, 4) ? TD_OUTCOME_OK : TD_OUTCOME_RAISED};
    if (draw(sim, 8) == 0) {
        event.kind = EVENT_GONE;
        event.status = draw(sim, 2) ? TD_OUTCOME_CRASHED : TD_OUTCOME_OUT_OF_MEMORY;
    } else if (fresh && draw(sim, 8) == 0) {
        event.kind = EVENT_GONE;
        event.status = TD_OUTCOME_NOT_STARTED;
        for (uint64_t i = desk->next; i < desk->end; i++)
            sim->unread[desk->map][i]++;
    }
    plan(sim, event);
}

static void do_run(struct sim *sim, const struct td_action *action)
{
    assert_true(action->count > 0);
    assert_int_equal(*(const uint8_t *)td_blob_bytes(action->args).data,
                     (uint8_t)(action->index - action->skip));
    for (uint32_t i = 0; i < action->count; i++) {
        unsigned attempts = ++sim->attempts[action->map][action->index + i];
        assert_true(action->attempt <= attempts);
        assert_true(action->attempt + sim->unread[action->map][action->index + i] >= attempts);
    }
    assert_true(action->runner < RUNNER_IDS);
    sim->desks[action->runner] = (struct desk){.map = action->map,
                                               .next = action->index,
                                               .end = action->index + action->count,
                                               .attempt = action->attempt,
                                               .since = sim->now};
    plan_work(sim, action->runner, true);
}

/* The calls that it gives up were counted as tried by do_run. */
static void give_up(struct sim *sim, struct desk *desk, uint64_t end)
{
    for (uint64_t i = end; i < desk->end; i++)
        sim->unread[desk->map][i]++;
    desk->end = end;
}

static void do_cut(struct sim *sim, uint32_t runner)
{
    struct desk *desk = &sim->desks[runner];
    if (desk->next < desk->end)
        give_up(sim, desk, desk->next + 1);
    sim->cuts++;
    td_sched_cut(sim->sched, runner, desk->end, desk->since, sim->now);
}

/* Some of its next calls end: several that returned, or one that raised. */
static void finish_some(struct sim *sim, uint32_t runner, uint8_t status)
{
    struct desk *desk = &sim->desks[runner];
    uint32_t count = 1;
    if (status == TD_OUTCOME_OK)
        count += (uint32_t)draw(sim, desk->end - desk->next);
    struct td_outcome *outcome = td_outcome_new(desk->map, desk->next, desk->attempt, status);
    outcome->count = count;
    td_sched_finished(sim->sched, runner, &outcome, sim->now);
    td_sched_check(sim->sched);
    desk->next += count;
    desk->since = sim->now;
    if (desk->next < desk->end && draw(sim, 10)) {
        plan_work(sim, runner, false);
        return;
    }
    give_up(sim, desk, desk->next);
    td_sched_idle(sim->sched, runner, draw(sim, 20) == 0, sim->now);
}

static void do_kill(struct sim *sim, uint32_t runner)
{
    /* Its last words may still be on the way when it is killed. */
    if (draw(sim, 2))
        forget(sim, runner);
    plan(sim, (struct event){.kind = EVENT_GONE,
                             .at = sim->now + 1 + (int64_t)draw(sim, 10),
                             .runner = runner,
                             .status = TD_OUTCOME_CRASHED});
}

static void do_fetch(struct sim *sim, uint64_t map)
{
    if (sim->waiting[map] == 0) {
        td_sched_fetch_failed(sim->sched, map);
        return;
    }
    unsigned index = sim->next_index[map];
    unsigned count = 1 + (unsigned)draw(sim, 8);
    if (count > sim->waiting[map])
        count = sim->waiting[map];
    sim->next_index[map] += count;
    sim->waiting[map] -= count;
    uint8_t byte = (uint8_t)index;
    struct td_blob *args = td_blob_new(&byte, 1);
    int r = td_sched_fetched(sim->sched, map, index, count, 0, args, sim->now);
    td_blob_unref(args);
    assert_true(r == 0 || sim->cancelled[map]);
    for (unsigned i = 0; r == 0 && i < count; i++)
        sim->fetched[map][index + i]++;
}

static void do_finish(struct sim *sim, const struct td_action *action)
{
    struct td_outcome *outcome = action->outcome;
    assert_int_equal(outcome->map, action->map);
    assert_int_equal(outcome->index, action->index);
    assert_true(outcome->count > 0);
    for (uint32_t i = 0; i < outcome->count; i++)
        sim->outcomes[action->map][action->index + i]++;
    td_outcome_free(outcome);
}

static void act(struct sim *sim)
{
    struct td_action action;
    while (td_sched_next(sim->sched, sim->now, &action)) {
        switch (action.type) {
        case TD_ACTION_FETCH: do_fetch(sim, action.map); break;
        case TD_ACTION_START: do_start(sim, action.runner); break;
        case TD_ACTION_RUN: do_run(sim, &action); break;
        case TD_ACTION_CUT: do_cut(sim, action.runner); break;
        case TD_ACTION_KILL: do_kill(sim, action.runner); break;
        case TD_ACTION_FINISH: do_finish(sim, &action); break;
        case TD_ACTION_DROP: assert_true(sim->cancelled[action.map]); break;
        }
        td_sched_check(sim->sched);
    }
}

static void happen(struct sim *sim, const struct event *event)
{
    struct td_outcome *outcome;
    switch (event->kind) {
    case EVENT_UP: td_sched_runner_up(sim->sched, event->runner, sim->now); break;
    case EVENT_FINISH: finish_some(sim, event->runner, event->status); break;
    case EVENT_GONE:
        forget(sim, event->runner);
        sim->alive--;
        if (sim->desks[event->runner].next < sim->desks[event->runner].end)
            give_up(sim, &sim->desks[event->runner], sim->desks[event->runner].next + 1);
        outcome = td_outcome_new(0, 0, 0, event->status);
        td_sched_runner_gone(sim->sched, event->runner, &outcome, sim->now);
        break;
    }
    td_sched_check(sim->sched);
}

/* Moves time to the next thing that happens; false when nothing will. */
static bool step(struct sim *sim)
{
    struct event *next = NULL;
    for (size_t i = 0; i < EVENTS_MAX; i++)
        if (sim->events[i].used && (!next || sim->events[i].at < next->at))
            next = &sim->events[i];
    int64_t deadline = td_sched_deadline(sim->sched);
    if (!next && deadline == INT64_MAX)
        return false;
    if (!next || deadline <= next->at) {
        sim->now = deadline > sim->now ? deadline : sim->now;
        td_sched_tick(sim->sched, sim->now);
    } else {
        struct event event = *next;
        next->used = false;
        sim->now = event.at > sim->now ? event.at : sim->now;
        happen(sim, &event);
    }
    td_sched_check(sim->sched);
    return true;
}

static void disturb(struct sim *sim)
{
    uint64_t map = draw(sim, MAPS);
    if (draw(sim, 60) == 0) {
        sim->cancelled[map] = true;
        sim->waiting[map] = 0;
        td_sched_map_cancel(sim->sched, map, sim->now);
    }
    /* Messages of runners and attempts that are long gone change nothing. */
    struct td_outcome *late = td_outcome_new(map, draw(sim, CALLS), 99, TD_OUTCOME_OK);
    assert_false(td_sched_finished(sim->sched, (uint32_t)draw(sim, 50), &late, sim->now));
    td_sched_check(sim->sched);
}

static unsigned run_seed(uint64_t seed)
{
    static struct sim sim; /* it is large */
    sim = (struct sim){.random = seed * 0x9e3779b97f4a7c15u + 1};
    struct td_sched_options options = {
        .slots = SLOTS, .runners_max = RUNNERS_MAX, .idle_max = 2, .waiting_max = 8};
    assert_int_equal(td_sched_new(options, &sim.sched), 0);
    for (uint64_t map = 0; map < MAPS; map++) {
        struct td_sched_map spec = {.id = map,
                                    .profile = (uint32_t)draw(&sim, 3),
                                    .cost = (unsigned)draw(&sim, 3),
                                    .retries = (uint32_t)draw(&sim, 3),
                                    .depth = (uint32_t)draw(&sim, 3),
                                    .root = draw(&sim, MAPS),
                                    .timeout_ns = draw(&sim, 2) ? 100 : 0};
        assert_int_equal(td_sched_map_add(sim.sched, &spec), 0);
        sim.waiting[map] = CALLS;
        td_sched_backlog(sim.sched, map, CALLS);
    }
    act(&sim);
    while (step(&sim)) {
        disturb(&sim);
        act(&sim);
        assert_true(sim.alive <= RUNNERS_MAX);
    }
    for (uint64_t map = 0; map < MAPS; map++) {
        assert_true(sim.cancelled[map] || sim.waiting[map] == 0);
        for (unsigned i = 0; i < CALLS; i++)
            if (sim.outcomes[map][i] != sim.fetched[map][i])
                fail_msg("seed %llu: call %u of map %llu was fetched %u times and has %u outcomes",
                         (unsigned long long)seed, i, (unsigned long long)map, sim.fetched[map][i],
                         sim.outcomes[map][i]);
    }
    td_sched_free(sim.sched);
    return sim.cuts;
}

static void test_sched_every_call_ends_once(void **state)
{
    (void)state;
    unsigned cuts = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        cuts += run_seed(seed);
    assert_true(cuts > SEEDS); /* the simulation has tried it */
}

/* Runs the one call of a scheduler on a runner that comes up for it; its attempt, 0 for none. */
static uint32_t run_once(struct td_sched *sched, uint32_t *ret_runner)
{
    struct td_action action;
    uint32_t attempt = 0;
    while (td_sched_next(sched, 0, &action)) {
        if (action.type == TD_ACTION_START)
            td_sched_runner_up(sched, action.runner, 0);
        if (action.type == TD_ACTION_RUN) {
            attempt = action.attempt;
            *ret_runner = action.runner;
        }
        if (action.type == TD_ACTION_FINISH) {
            assert_int_equal(action.outcome->status, TD_OUTCOME_NOT_STARTED);
            assert_int_equal(action.outcome->attempt, 1);
            td_outcome_free(action.outcome);
        }
        td_sched_check(sched);
    }
    return attempt;
}

/* A call whose runner had died before it came has not begun: it goes to another one, as the same
 * attempt, though not for ever. */
static void test_sched_unread_is_no_attempt(void **state)
{
    (void)state;
    struct td_sched *sched;
    uint32_t runner = 0;
    struct td_blob *args = td_blob_new("", 0);
    assert_int_equal(
        td_sched_new((struct td_sched_options){.slots = 1, .runners_max = 2, .waiting_max = 1},
                     &sched),
        0);
    assert_int_equal(td_sched_map_add(sched, &(struct td_sched_map){.id = 1, .retries = 0}), 0);
    assert_int_equal(td_sched_fetched(sched, 1, 0, 1, 0, args, 0), 0);
    td_blob_unref(args);
    for (unsigned deaths = 0; deaths < 3; deaths++) {
        assert_int_equal(run_once(sched, &runner), 1);
        struct td_outcome *dead = td_outcome_new(0, 0, 0, TD_OUTCOME_NOT_STARTED);
        td_sched_runner_gone(sched, runner, &dead, 0);
    }
    assert_int_equal(run_once(sched, &runner), 0);
    td_sched_free(sched);
}

/* The nested maps' calls go first, the deepest before all; families take turns. */
static void test_sched_families(void **state)
{
    (void)state;
    static const struct td_sched_map maps[] = {{.id = 1},
                                               {.id = 2, .depth = 1, .root = 1},
                                               {.id = 3},
                                               {.id = 4, .depth = 2, .root = 1},
                                               {.id = 5, .depth = 2, .root = 1}};
    static const uint64_t expected[] = {4, 3, 5, 3, 4, 5, 2, 2, 1, 1};
    struct td_sched *sched;
    struct td_sched_options options = {
        .slots = TD_COUNT(expected), .runners_max = 2, .idle_max = 2, .waiting_max = 1};
    assert_int_equal(td_sched_new(options, &sched), 0);
    for (size_t i = 0; i < TD_COUNT(maps); i++) {
        assert_int_equal(td_sched_map_add(sched, &maps[i]), 0);
        td_sched_backlog(sched, maps[i].id, 2);
    }
    for (size_t i = 0; i < TD_COUNT(expected); i++) {
        struct td_action action;
        assert_true(td_sched_next(sched, 0, &action));
        assert_int_equal(action.type, TD_ACTION_FETCH);
        assert_int_equal(action.map, expected[i]);
        td_sched_check(sched);
    }
    td_sched_free(sched);
}

/* With every runner waiting for a nested map, a call has no place to run; but it has soon when one
 * of them is on its way out. */
static void test_sched_starved(void **state)
{
    (void)state;
    struct td_sched *sched;
    struct td_action action;
    uint32_t runner = 0;
    struct td_blob *args = td_blob_new("", 0);
    struct td_sched_options options = {.slots = 1, .runners_max = 1, .waiting_max = 1};
    assert_int_equal(td_sched_new(options, &sched), 0);
    assert_int_equal(td_sched_map_add(sched, &(struct td_sched_map){.id = 1}), 0);
    assert_int_equal(td_sched_fetched(sched, 1, 0, 1, 0, args, 0), 0);
    assert_int_equal(run_once(sched, &runner), 1);
    td_sched_lent(sched, runner, true, 0);
    assert_int_equal(
        td_sched_map_add(sched, &(struct td_sched_map){.id = 2, .depth = 1, .root = 1}), 0);
    td_sched_map_cancel(sched, 1, 0); /* the outer call is stopped */
    assert_int_equal(td_sched_fetched(sched, 2, 0, 1, 0, args, 0), 0);
    while (td_sched_next(sched, 0, &action))
        assert_int_equal(action.type, TD_ACTION_KILL);
    struct td_outcome *dead = td_outcome_new(0, 0, 0, TD_OUTCOME_CRASHED);
    td_sched_runner_gone(sched, runner, &dead, 0);
    while (td_sched_next(sched, 0, &action) && action.type != TD_ACTION_START) {
        if (action.type == TD_ACTION_FINISH)
            td_outcome_free(action.outcome);
    }
    assert_int_equal(action.type, TD_ACTION_START);
    td_sched_runner_up(sched, action.runner, 0);
    assert_int_equal(run_once(sched, &runner), 1);
    td_sched_lent(sched, runner, true, 0);
    assert_int_equal(
        td_sched_map_add(sched, &(struct td_sched_map){.id = 3, .depth = 2, .root = 1}), 0);
    assert_int_equal(td_sched_fetched(sched, 3, 0, 1, 0, args, 0), 0);
    assert_int_equal(run_once(sched, &runner), 0); /* it has ended as not started */
    td_blob_unref(args);
    td_sched_free(sched);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sched_every_call_ends_once),
        cmocka_unit_test(test_sched_unread_is_no_attempt),
        cmocka_unit_test(test_sched_families),
        cmocka_unit_test(test_sched_starved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
