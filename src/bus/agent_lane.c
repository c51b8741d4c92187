#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "bus/agent_internal.h"
#include "os/clock.h"

enum { UNACKED_MAX = 100000, ASKS_MAX = 100000, CONFIG_MAX = 1024, UNSEEN_MAX = 2 };
#define EXPIRES_NS (5 * TD_NS_PER_S)
#define AGAIN_NS   (TD_NS_PER_S / 5)
#define ASK_NS     (10 * TD_NS_PER_S)
#define INACTIVE_NS                                                              \
    (INT64_C(24) * 3600 * TD_NS_PER_S) /* all agents may be busy with long calls \
                                        */
#define SHORT_NS    (TD_NS_PER_S / 4)  /* jobs that take less are fetched ahead */
#define STORING_MAX ((size_t)64 << 20) /* outcomes on their way, before no more is fetched */

static struct lane *lane_of(struct agent *agent, uint64_t map)
{
    TD_LIST_EACH(node, &agent->lanes) {
        struct lane *lane = TD_CONTAINER(node, struct lane, link);
        if (lane->map == map)
            return lane;
    }
    return NULL;
}

/* -- the consumer ----------------------------------------------------------------------------- */

/* It is made anew for each start of the server: nats-server 2.9 may bring one back from its disk
 * that delivers nothing any more, or messages that were acknowledged. */
static void make(void *context);

static void make_soon(struct lane *lane)
{
    lane->made = false;
    td_jet_unpull(&lane->pull);
    td_jet_unask(&lane->ask);
    (void)td_loop_timer(lane->agent->loop, &lane->again,
                        td_clock_now() + AGAIN_NS); /* its place is kept, see open */
}

static void delete_stale(void *context, const char *name)
{
    struct lane *lane = context;
    struct agent *agent = lane->agent;
    struct td_name own = td_name_lane(lane->map), subject;
    size_t len = strlen(own.text);
    if (strncmp(name, own.text, len) != 0 || name[len] != '-' ||
        strcmp(name, lane->consumer.text) == 0)
        return;
    subject = td_name_of("$JS.API.CONSUMER.DELETE.%s.%.64s", agent->stream.text, name);
    (void)td_nats_publish(td_jet_nats(agent->jet), subject.text, NULL, NULL, 0,
                          (struct td_bytes){0}); /* else the next time */
}

static void on_names(void *context, int status, const struct td_nats_message *answer)
{
    struct lane *lane = context;
    uint64_t count = 0;
    bool more = false;
    if (status == 0)
        (void)td_js_read_names(answer->payload, delete_stale, lane, &count, &more);
    make_soon(lane);
}

/* Another consumer has these subjects: one from before the server's start. */
static void find_stale(struct lane *lane)
{
    struct td_name subject;
    TD_CLEANUP(td_buf_done) struct td_buf config;
    td_buf_init(&config, CONFIG_MAX);
    subject = td_name_of("CONSUMER.NAMES.%s", lane->agent->stream.text);
    lane->ask.fn = on_names;
    int r = td_js_write_names(0, &config);
    if (r == 0)
        r = td_jet_ask(lane->agent->jet, &lane->ask, subject.text,
                       (struct td_bytes){config.data, config.len}, td_clock_now() + ASK_NS);
    if (r < 0)
        make_soon(lane);
}

static void on_made(void *context, int status, const struct td_nats_message *message)
{
    struct lane *lane = context;
    struct td_js_answer answer;
    int r = td_jet_answer(status, message, &answer);
    if (r == TD_EEXISTS) {
        find_stale(lane);
    } else if (r < 0) {
        make_soon(lane);
    } else {
        lane->made = true;
        lane->backlog = answer.pending;
        td_lanes_pull(lane->agent);
    }
}

static void make(void *context)
{
    struct lane *lane = context;
    struct agent *agent = lane->agent;
    struct td_name name = td_name_lane(lane->map), subject;
    struct td_name filter = td_name_calls(agent->pool.text, name.text);
    td_jet_unpull(&lane->pull);
    td_jet_unask(&lane->ask);
    td_loop_untimer(agent->loop, &lane->again);
    lane->made = false;
    lane->consumer = td_name_consumer(lane->map, td_jet_server(agent->jet));
    subject = td_name_of("CONSUMER.CREATE.%s.%.48s", agent->stream.text, lane->consumer.text);
    struct td_js_consumer consumer = {.stream = agent->stream.text,
                                      .name = lane->consumer.text,
                                      .filter = filter.text,
                                      .durable = true,
                                      .acks = true,
                                      .ack_wait_ns = TD_HELD_NS,
                                      .inactive_ns = INACTIVE_NS,
                                      .unacked_max = UNACKED_MAX,
                                      .asks_max = ASKS_MAX};
    TD_CLEANUP(td_buf_done) struct td_buf config;
    td_buf_init(&config, CONFIG_MAX);
    lane->ask.fn = on_made;
    int r = td_js_write_consumer(&consumer, &config);
    if (r == 0)
        r = td_jet_ask(agent->jet, &lane->ask, subject.text,
                       (struct td_bytes){config.data, config.len}, td_clock_now() + ASK_NS);
    if (r < 0)
        make_soon(lane);
}

/* -- asking for jobs -------------------------------------------------------------------------- */

/* Jobs that there is room for, beside those that are here and those that were asked for: as many
 * as runners are free, and one more for each where jobs are short. */
static unsigned room(const struct agent *agent)
{
    bool brief = agent->job_ns > 0 && agent->job_ns < SHORT_NS;
    unsigned ahead = brief ? agent->slots : 0;
    unsigned most = agent->free + ahead, taken = agent->stock;
    if (agent->draining || td_jet_storing(agent->jet) > STORING_MAX)
        return 0;
    TD_LIST_EACH(node, &agent->lanes) {
        const struct lane *lane = TD_CONTAINER(node, struct lane, link);
        if (lane->pull.id && !lane->listens)
            taken += lane->pull.wanted;
    }
    return most > taken ? most - taken : 0;
}

/* Of the lanes where jobs wait, the one whose calls have had the least. */
static struct lane *next_lane(struct agent *agent, unsigned *ret_waiting)
{
    struct lane *chosen = NULL;
    *ret_waiting = 0;
    TD_LIST_EACH(node, &agent->lanes) {
        struct lane *lane = TD_CONTAINER(node, struct lane, link);
        if (!lane->made || lane->pull.id || lane->backlog == 0)
            continue;
        (*ret_waiting)++;
        if (!chosen || lane->spent_ns < chosen->spent_ns)
            chosen = lane;
    }
    return chosen;
}

static bool pull(struct lane *lane, unsigned jobs, bool listens)
{
    lane->listens = listens;
    int r = td_jet_pull(lane->agent->jet, &lane->pull, lane->agent->stream.text,
                        lane->consumer.text, jobs, EXPIRES_NS);
    return r == 0; /* else when the connection is back */
}

void td_lanes_pull(struct agent *agent)
{
    unsigned waiting;
    for (unsigned most = room(agent); most > 0;) {
        struct lane *lane = next_lane(agent, &waiting);
        if (!lane)
            break;
        unsigned share = most / waiting > 0 ? most / waiting : 1;
        unsigned jobs = lane->backlog < share ? (unsigned)lane->backlog : share;
        if (!pull(lane, jobs, false))
            return;
        most -= jobs;
    }
    if (room(agent) == 0)
        return;
    TD_LIST_EACH(node, &agent->lanes) {
        struct lane *lane = TD_CONTAINER(node, struct lane, link);
        if (lane->made && !lane->pull.id && lane->backlog == 0 && !pull(lane, 1, true))
            return;
    }
}

static void on_message(struct td_jet_pull *pulled, const struct td_nats_message *message)
{
    struct lane *lane = TD_CONTAINER(pulled, struct lane, pull);
    struct agent *agent = lane->agent;
    struct td_js_numbers numbers;
    if (!message->reply || td_js_read_numbers(message->reply, &numbers) < 0)
        return;
    lane->backlog = numbers.pending;
    if (agent->draining || (agent->free == 0 && agent->stock >= agent->slots))
        td_jet_ack(agent->jet, message->reply, "-NAK"); /* several lanes had something at once */
    else
        td_job_receive(lane, message, &numbers);
    td_lanes_pull(agent);
}

static void on_over(struct td_jet_pull *pulled, unsigned status)
{
    struct lane *lane = TD_CONTAINER(pulled, struct lane, pull);
    if (status == 404 || status == 408)
        lane->backlog = 0;
    if (status == 404 || status == 408)
        td_lanes_pull(lane->agent);
    else if (status != 0 && lane->map == 0)
        make_soon(lane);
    else if (status != 0) /* its consumer was deleted, as is done when a map is over */
        td_lane_close(lane->agent, lane->map); /* else it is found again */
}

void td_lanes_spent(struct agent *agent, uint64_t map, int64_t spent_ns)
{
    struct lane *lane = lane_of(agent, map);
    if (lane)
        lane->spent_ns += spent_ns;
}

/* -- which there are -------------------------------------------------------------------------- */

static void on_subject(void *context, const char *subject, uint64_t messages)
{
    struct agent *agent = context;
    const char *name = strrchr(subject, '.');
    uint64_t map;
    if (!name || messages == 0 || td_text_hex(name + 1, strlen(name + 1), &map) < 0 || map == 0 ||
        td_agent_is_over(agent, map))
        return;                     /* the shared lane; or there is nothing in there for anybody */
    (void)td_lane_open(agent, map); /* without memory others do it */
    struct lane *lane = lane_of(agent, map);
    if (lane)
        lane->unseen = 0;
}

static void on_found(void *context, int status, const struct td_nats_message *answer)
{
    struct agent *agent = context;
    if (status < 0)
        return;
    TD_LIST_EACH(node, &agent->lanes)
        TD_CONTAINER(node, struct lane, link)->unseen++;
    if (td_js_read_subjects(answer->payload, on_subject, agent) < 0)
        return;
    TD_LIST_EACH_SAFE(node, &agent->lanes) {
        struct lane *lane = TD_CONTAINER(node, struct lane, link);
        if (lane->map && lane->unseen > UNSEEN_MAX)
            td_lane_close(agent, lane->map);
    }
}

void td_lanes_find(struct agent *agent)
{
    struct td_name pattern = td_name_calls(agent->pool.text, ">");
    struct td_name question = td_name_of("STREAM.INFO.%s", agent->stream.text);
    TD_CLEANUP(td_buf_done) struct td_buf body;
    td_buf_init(&body, CONFIG_MAX);
    agent->find.fn = on_found;
    agent->find.context = agent;
    if (!agent->find.id && td_js_write_info(pattern.text, &body) == 0)
        (void)td_jet_ask(agent->jet, &agent->find, question.text,
                         (struct td_bytes){body.data, body.len},
                         td_clock_now() + ASK_NS); /* else at the next look */
}

/* -- life ------------------------------------------------------------------------------------- */

void td_lanes_connected(struct agent *agent)
{
    TD_LIST_EACH(node, &agent->lanes)
        make(TD_CONTAINER(node, struct lane, link));
}

int td_lane_open(struct agent *agent, uint64_t map)
{
    static const struct td_jet_pull_events events = {on_message, on_over};
    if (lane_of(agent, map))
        return 0;
    struct lane *lane = td_alloc_zero(sizeof *lane);
    if (!lane)
        return TD_ENOMEM;
    *lane = (struct lane){.agent = agent,
                          .map = map,
                          .ask = {.context = lane},
                          .pull = {.events = &events},
                          .again = {.fn = make, .context = lane}};
    if (td_loop_timer(agent->loop, &lane->again, TD_NO_DEADLINE) < 0) {
        td_free(lane);
        return TD_ENOMEM;
    }
    int64_t least = INT64_MAX;
    TD_LIST_EACH(node, &agent->lanes) {
        int64_t spent = TD_CONTAINER(node, struct lane, link)->spent_ns;
        least = spent < least ? spent : least;
    }
    lane->spent_ns = least == INT64_MAX ? 0 : least; /* a new one does not catch up with the old */
    td_list_init(&lane->link);
    td_list_append(&agent->lanes, &lane->link);
    make(lane);
    return 0;
}

void td_lane_close(struct agent *agent, uint64_t map)
{
    struct lane *lane = lane_of(agent, map);
    if (!lane)
        return;
    td_jet_unpull(&lane->pull);
    td_jet_unask(&lane->ask);
    td_loop_untimer(agent->loop, &lane->again);
    td_list_remove(&lane->link);
    td_free(lane);
}
