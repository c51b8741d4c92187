#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "bus/agent_internal.h"
#include "bus/haul.h"
#include "bus/reader.h"
#include "os/clock.h"
#include "task/outcome.h"
#include "task/spec.h"

enum { FUNCTIONS_MAX = 256, OUT_MAX = 64 << 20, BITS = 8 };
#define ASK_NS      (30 * TD_NS_PER_S)
#define FUNCTION_NS (60 * TD_NS_PER_S) /* a large body may be behind its calls */
#define AGAIN_NS    (TD_NS_PER_S / 5)

static void step(struct job *job);

/* -- what its function is --------------------------------------------------------------------- */

struct function *td_function_free(struct function *function)
{
    if (!function)
        return NULL;
    td_list_remove(&function->link);
    td_jet_unask(&function->ask);
    td_haul_free(function->haul);
    td_loop_untimer(function->agent->loop, &function->again);
    td_spec_unref(function->spec);
    td_spec_unref(function->bare);
    td_free(function);
    return NULL;
}

static void function_fail(struct function *function, const char *why)
{
    struct agent *agent = function->agent;
    struct td_list jobs;
    td_list_init(&jobs);
    for (struct td_list *node = td_list_pop(&function->jobs); node;
         node = td_list_pop(&function->jobs))
        td_list_append(&jobs, node);
    td_function_free(function);
    for (struct td_list *node = td_list_pop(&jobs); node; node = td_list_pop(&jobs)) {
        struct job *job = TD_CONTAINER(node, struct job, link);
        job->function = NULL;
        td_agent_refuse(agent, job, why);
    }
}

/* Takes the specification, made fit for this machine. */
static void function_known(struct function *function, struct td_spec *spec)
{
    struct agent *agent = function->agent;
    struct td_error err = {0};
    int r = agent->options.adapt(agent->options.context, spec, &function->spec, &err);
    td_spec_unref(spec);
    if (r < 0) {
        function_fail(function, err.text);
        return;
    }
    struct td_list jobs;
    td_list_init(&jobs);
    for (struct td_list *node = td_list_pop(&function->jobs); node;
         node = td_list_pop(&function->jobs))
        td_list_append(&jobs, node);
    for (struct td_list *node = td_list_pop(&jobs); node; node = td_list_pop(&jobs))
        step(TD_CONTAINER(node, struct job, link));
}

static void on_body(void *context, int status, struct td_blob *blob)
{
    struct function *function = context;
    TD_CLEANUP(td_blob_unrefp) struct td_blob *body = blob;
    function->haul = NULL;
    struct td_spec from = *function->bare, *spec = NULL;
    from.body = body;
    if (status == 0)
        status = td_spec_new(&from, &spec, NULL);
    function->bare = td_spec_unref(function->bare);
    if (status < 0)
        function_fail(function, "its function could not be fetched");
    else
        function_known(function, spec);
}

/* Tries again in a moment: the caller may still be sending it. */
static void function_later(struct function *function)
{
    if (td_clock_now() > function->deadline_ns)
        function_fail(function, "its function is not at the hub");
    else
        (void)td_loop_timer(function->agent->loop, &function->again,
                            td_clock_now() + AGAIN_NS); /* its place is kept, see find */
}

static void on_function(void *context, int status, const struct td_nats_message *answer)
{
    struct function *function = context;
    struct td_message message;
    struct td_msg_parcel parcel = {0};
    struct td_spec *spec = NULL;
    if (status < 0 || answer->status) {
        function_later(function);
        return;
    }
    struct td_bytes frames = answer->payload;
    int r = td_frames_next(&frames, &message);
    if (r == 0 && message.type == TD_MSG_PARCEL) {
        parcel = message.parcel;
        r = td_frames_next(&frames, &message);
    }
    if (r == 0)
        r = message.type == TD_MSG_MAP_OPEN ? td_spec_from(&message.map_open, &spec, NULL)
                                            : TD_EPROTO;
    if (r == 0 && parcel.size) {
        function->bare = spec;
        r = td_haul_down(function->agent->jet, &parcel, on_body, function, &function->haul);
        if (r == 0)
            return;
    }
    if (r < 0)
        function_fail(function, "its function cannot be read here");
    else
        function_known(function, spec);
}

static void function_ask(void *context)
{
    struct function *function = context;
    struct td_name name = td_name_spec(function->session, function->number);
    struct td_name question = td_name_direct(TD_STREAM_SPECS, name.text);
    if (td_jet_ask(function->agent->jet, &function->ask, question.text, (struct td_bytes){0},
                   td_clock_now() + ASK_NS) < 0)
        function_later(function);
}

/* Forgets the one that was needed longest ago, if nobody waits for it. */
static void functions_trim(struct agent *agent)
{
    size_t count = 0;
    TD_LIST_EACH(node, &agent->functions)
        count++;
    struct function *oldest = TD_CONTAINER(agent->functions.next, struct function, link);
    if (count > FUNCTIONS_MAX && oldest->spec)
        td_function_free(oldest);
}

static struct function *function_of(struct agent *agent, uint64_t session, uint32_t number)
{
    TD_LIST_EACH(node, &agent->functions) {
        struct function *function = TD_CONTAINER(node, struct function, link);
        if (function->session != session || function->number != number)
            continue;
        td_list_remove(&function->link);
        td_list_append(&agent->functions, &function->link);
        return function;
    }
    struct function *function = td_alloc_zero(sizeof *function);
    if (!function)
        return NULL;
    *function = (struct function){.agent = agent,
                                  .session = session,
                                  .number = number,
                                  .ask = {.fn = on_function, .context = function},
                                  .again = {.fn = function_ask, .context = function},
                                  .deadline_ns = td_clock_now() + FUNCTION_NS};
    td_list_init(&function->jobs);
    td_list_init(&function->link);
    if (td_loop_timer(agent->loop, &function->again, TD_NO_DEADLINE) < 0) {
        td_free(function);
        return NULL;
    }
    td_list_append(&agent->functions, &function->link);
    functions_trim(agent);
    function_ask(function);
    return function;
}

/* -- which of its outcomes are stored --------------------------------------------------------- */

bool td_job_has(const struct job *job, uint32_t at)
{
    return job->has && (job->has[at / BITS] >> at % BITS & 1);
}

static void mark(struct job *job, const struct td_msg_outcome *outcome)
{
    if (outcome->map != job->map_id)
        return;
    for (uint64_t i = outcome->index; i < outcome->index + outcome->count; i++) {
        if (i < job->index || i - job->index >= job->count)
            continue;
        uint32_t at = (uint32_t)(i - job->index);
        if (td_job_has(job, at))
            continue;
        job->has[at / BITS] |= (unsigned char)(1U << at % BITS);
        job->left--;
    }
}

struct ledger *td_ledger_free(struct ledger *ledger)
{
    td_list_remove(&ledger->link);
    td_reader_free(ledger->reader);
    td_free(ledger);
    return NULL;
}

static void on_result(void *context, const struct td_nats_message *message,
                      const struct td_js_numbers *numbers)
{
    (void)numbers;
    struct ledger *ledger = context;
    struct td_bytes frames = message->payload;
    struct td_message one;
    while (td_frames_next(&frames, &one) == 0) {
        if (one.type != TD_MSG_OUTCOME)
            continue;
        TD_LIST_EACH(node, &ledger->jobs)
            mark(TD_CONTAINER(node, struct job, link), &one.outcome);
    }
}

static void on_all_read(void *context)
{
    struct ledger *ledger = context;
    struct td_list jobs;
    td_list_init(&jobs);
    for (struct td_list *node = td_list_pop(&ledger->jobs); node; node = td_list_pop(&ledger->jobs))
        td_list_append(&jobs, node);
    td_ledger_free(ledger);
    for (struct td_list *node = td_list_pop(&jobs); node; node = td_list_pop(&jobs)) {
        struct job *job = TD_CONTAINER(node, struct job, link);
        job->doubtful = false;
        step(job);
    }
}

/* The job waits until all results are read that may be its own. */
static int look_up(struct job *job)
{
    struct agent *agent = job->agent;
    job->has = td_alloc_zero(job->count / BITS + 1);
    struct ledger *ledger = job->has ? td_alloc_zero(sizeof *ledger) : NULL;
    if (!ledger)
        return TD_ENOMEM;
    *ledger = (struct ledger){.agent = agent, .session = job->session, .lane = job->lane};
    td_list_init(&ledger->jobs);
    td_list_init(&ledger->link);
    struct td_name results = td_name_results(job->session, job->lane);
    const struct td_reader_options options = {
        .stream = TD_STREAM_RESULTS, .subject = results.text, .start = job->since + 1};
    int r = td_reader_new(agent->loop, agent->jet, &options, on_result, on_all_read, ledger,
                          &ledger->reader);
    if (r < 0) {
        td_free(ledger);
        return r;
    }
    td_list_append(&agent->ledgers, &ledger->link);
    td_list_append(&ledger->jobs, &job->link);
    return 0;
}

/* -- whether anybody wants it ----------------------------------------------------------------- */

static void on_record(void *context, int status, const struct td_nats_message *answer)
{
    struct job *job = context;
    struct td_message one;
    struct td_bytes frames = status == 0 ? answer->payload : (struct td_bytes){0};
    if (status < 0) {
        td_job_free(job, "-NAK"); /* later, or somebody else */
        return;
    }
    if (!answer->status && td_frames_next(&frames, &one) == 0 && one.type == TD_MSG_MAP &&
        one.map.state >= TD_MAP_CANCELLED) {
        td_job_free(job, "+TERM");
        return;
    }
    job->old = false;
    step(job);
}

static int ask_record(struct job *job)
{
    struct td_name map = td_name_map(job->map_id);
    struct td_name question = td_name_direct(TD_STREAM_MAPS, map.text);
    return td_jet_ask(job->agent->jet, &job->ask, question.text, (struct td_bytes){0},
                      td_clock_now() + ASK_NS);
}

/* -- from a message to the moment when it can run --------------------------------------------- */

static void on_args(void *context, int status, struct td_blob *blob)
{
    struct job *job = context;
    job->haul = NULL;
    if (status < 0) {
        td_agent_refuse(job->agent, job, "its arguments could not be fetched");
        return;
    }
    job->args = blob;
    step(job);
}

/* Does what is still to do before it can run, or leaves it to whoever it waits for. */
static void step(struct job *job)
{
    struct agent *agent = job->agent;
    if (job->old || job->doubtful) {
        if ((job->old ? ask_record(job) : look_up(job)) < 0)
            td_job_free(job, "-NAK");
        return;
    }
    if (job->left == 0) { /* somebody has done all of it, and could not say so */
        td_job_free(job, "+ACK");
        return;
    }
    if (!job->function)
        job->function = function_of(agent, job->session, job->spec);
    if (!job->function) {
        td_job_free(job, "-NAK");
    } else if (!job->function->spec) {
        td_list_append(&job->function->jobs, &job->link);
    } else if (!job->args) {
        int r = td_haul_down(agent->jet, &job->parcel, on_args, job, &job->haul);
        if (r < 0)
            on_args(job, r, NULL);
    } else {
        td_agent_enqueue(agent, job);
    }
}

/* Reads the message. TD_EPROTO, TD_ENOMEM. */
static int parse(struct job *job, const struct td_nats_message *message, uint32_t *ret_version)
{
    struct td_bytes frames = message->payload;
    struct td_message one;
    int r = td_frames_next(&frames, &one);
    if (r == 0 && one.type == TD_MSG_PARCEL) {
        job->parcel = one.parcel;
        r = td_frames_next(&frames, &one);
    }
    if (r < 0 || one.type != TD_MSG_JOB || one.job.count == 0 || one.job.count > 1U << 24 ||
        strlen(message->reply) >= sizeof job->reply)
        return TD_EPROTO;
    *ret_version = one.job.version;
    job->session = one.job.session;
    job->map_id = one.job.map;
    job->spec = one.job.spec;
    job->index = one.job.index;
    job->since = one.job.since;
    job->count = job->left = one.job.count;
    memcpy(job->reply, message->reply, strlen(message->reply) + 1);
    if (job->parcel.size)
        return 0;
    job->args = td_blob_new(one.job.args.data, one.job.args.len);
    return job->args ? 0 : TD_ENOMEM;
}

void td_job_receive(struct lane *lane, const struct td_nats_message *message,
                    const struct td_js_numbers *numbers)
{
    struct agent *agent = lane->agent;
    struct job *job = td_idmap_get(&agent->jobs, numbers->sequence);
    if (job) { /* we were thought dead, or the server was: it goes on */
        if (strlen(message->reply) < sizeof job->reply)
            memcpy(job->reply, message->reply, strlen(message->reply) + 1);
        return;
    }
    uint32_t version = 0;
    job = td_alloc_zero(sizeof *job);
    if (!job) {
        td_jet_ack(agent->jet, message->reply, "-NAK");
        return;
    }
    *job = (struct job){.agent = agent,
                        .lane = lane->map,
                        .sequence = numbers->sequence,
                        .again = numbers->deliveries > 1,
                        .doubtful = numbers->deliveries > 1,
                        .old = numbers->stored_ns < agent->since_ns,
                        .came_ns = td_clock_now()};
    job->ask = (struct td_jet_ask){.fn = on_record, .context = job};
    td_list_init(&job->link);
    td_list_init(&job->results);
    td_buf_init(&job->out, OUT_MAX);
    agent->stock++;
    int r = parse(job, message, &version);
    if (r == 0)
        r = td_idmap_put(&agent->jobs, job->sequence, job);
    if (r < 0) {
        td_jet_ack(agent->jet, message->reply, r == TD_EPROTO ? "+TERM" : "-NAK");
        td_job_free(job, NULL);
    } else if (td_agent_is_over(agent, job->map_id)) {
        td_job_free(job, "+TERM");
    } else if (version != TD_WIRE_VERSION) {
        char why[2 * TD_SUBJECT_MAX];
        (void)snprintf(why, sizeof why,
                       "the agent on %s speaks version %d, the caller %u: install the same "
                       "Tendril on both",
                       agent->host.text, TD_WIRE_VERSION, version); /* cut: still says it */
        td_agent_refuse(agent, job, why);
    } else {
        step(job);
    }
}

struct job *td_job_free(struct job *job, const char *what)
{
    struct agent *agent = job->agent;
    if (what && job->reply[0])
        td_jet_ack(agent->jet, job->reply, what);
    if (td_idmap_get(&agent->jobs, job->sequence) == job)
        td_idmap_remove(&agent->jobs, job->sequence);
    if (job->begun_ns)
        agent->busy--;
    else
        agent->stock--;
    td_list_remove(&job->link);
    td_jet_unask(&job->ask);
    td_haul_free(job->haul);
    td_job_drop_results(job);
    td_jet_unstore(agent->jet, job);
    td_blob_unref(job->args);
    td_buf_done(&job->out);
    td_free(job->has);
    td_free(job);
    return NULL;
}
