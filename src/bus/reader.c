#include "bus/reader.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "bus/cluster.h"
#include "bus/jet.h"
#include "os/clock.h"

enum { BATCH = 32, CONFIG_MAX = 1024 };
#define EXPIRES_NS  (30 * TD_NS_PER_S)
#define INACTIVE_NS (120 * TD_NS_PER_S) /* then the server forgets it, we make another one */
#define ASK_NS      (10 * TD_NS_PER_S)
#define AGAIN_NS    (TD_NS_PER_S / 5)

struct td_reader {
    struct td_loop *loop;
    struct td_jet *jet;
    struct td_name stream, subject;
    uint64_t number;     /* random: of the consumers' names, */
    unsigned generation; /* and which of them */
    char name[TD_JS_NAME_MAX];
    uint64_t last;     /* sequence of the last message that was read */
    uint64_t consumed; /* by this consumer */
    bool paused, made;
    td_reader_fn *fn;
    td_reader_idle_fn *idle;
    void *context;
    struct td_jet_ask ask;
    struct td_jet_pull pull;
    struct td_timer again;
};

static void make_soon(struct td_reader *reader)
{
    reader->made = false;
    td_jet_unpull(&reader->pull);
    td_jet_unask(&reader->ask);
    (void)td_loop_timer(reader->loop, &reader->again,
                        td_clock_now() + AGAIN_NS); /* its place is kept, see new */
}

static void pull(struct td_reader *reader)
{
    if (!reader->made || reader->paused || reader->pull.id)
        return;
    int r = td_jet_pull(reader->jet, &reader->pull, reader->stream.text, reader->name, BATCH,
                        EXPIRES_NS);
    if (r < 0 && r != TD_EAGAIN) /* without a connection: when there is one */
        make_soon(reader);
}

static void on_made(void *context, int status, const struct td_nats_message *message)
{
    struct td_reader *reader = context;
    struct td_js_answer answer;
    if (td_jet_answer(status, message, &answer) < 0) {
        make_soon(reader);
        return;
    }
    reader->made = true;
    reader->consumed = 0;
    pull(reader);
    if (answer.pending == 0 && reader->idle)
        reader->idle(reader->context);
}

static void make(void *context)
{
    struct td_reader *reader = context;
    td_jet_unpull(&reader->pull);
    td_jet_unask(&reader->ask);
    td_loop_untimer(reader->loop, &reader->again);
    reader->made = false;
    (void)snprintf(reader->name, sizeof reader->name, "r%016llx-%u",
                   (unsigned long long)reader->number, ++reader->generation); /* always fits */
    struct td_js_consumer consumer = {.stream = reader->stream.text,
                                      .name = reader->name,
                                      .filter = reader->subject.text,
                                      .start = reader->last + 1,
                                      .inactive_ns = INACTIVE_NS};
    TD_CLEANUP(td_buf_done) struct td_buf config;
    td_buf_init(&config, CONFIG_MAX);
    struct td_name question = td_name_of("CONSUMER.CREATE.%s.%s", reader->stream.text,
                                         reader->name);
    int r = td_js_write_consumer(&consumer, &config);
    if (r == 0)
        r = td_jet_ask(reader->jet, &reader->ask, question.text,
                       (struct td_bytes){config.data, config.len}, td_clock_now() + ASK_NS);
    if (r < 0)
        make_soon(reader);
}

static void on_message(struct td_jet_pull *pull, const struct td_nats_message *message)
{
    struct td_reader *reader = TD_CONTAINER(pull, struct td_reader, pull);
    struct td_js_numbers numbers;
    if (!message->reply || td_js_read_numbers(message->reply, &numbers) < 0)
        return;
    if (numbers.consumed != reader->consumed + 1) {
        make_soon(reader); /* some were lost: again, from the last that was read */
        return;
    }
    reader->consumed++;
    if (numbers.sequence <= reader->last)
        return;
    reader->last = numbers.sequence;
    td_reader_idle_fn *idle = numbers.pending == 0 ? reader->idle : NULL;
    void *context = reader->context;
    reader->fn(context, message, &numbers); /* we may be freed in there, if nobody asked for idle */
    if (idle)
        idle(context);
}

static void on_over(struct td_jet_pull *ended, unsigned status)
{
    struct td_reader *reader = TD_CONTAINER(ended, struct td_reader, pull);
    if (status == 0 || status == 404 || status == 408)
        pull(reader);
    else
        make_soon(reader);
}

int td_reader_new(struct td_loop *loop, struct td_jet *jet, const struct td_reader_options *options,
                  td_reader_fn *fn, td_reader_idle_fn *idle, void *context,
                  struct td_reader **ret_reader)
{
    static const struct td_jet_pull_events events = {on_message, on_over};
    struct td_reader *reader = td_alloc_zero(sizeof *reader);
    if (!reader)
        return TD_ENOMEM;
    *reader = (struct td_reader){.loop = loop,
                                 .jet = jet,
                                 .last = options->start ? options->start - 1 : 0,
                                 .fn = fn,
                                 .idle = idle,
                                 .context = context,
                                 .ask = {.fn = on_made, .context = reader},
                                 .pull = {.events = &events},
                                 .again = {.fn = make, .context = reader}};
    reader->stream = td_name_of("%s", options->stream);
    reader->subject = td_name_of("%s", options->subject);
    if (getrandom(&reader->number, sizeof reader->number, 0) < 0 ||
        td_loop_timer(loop, &reader->again, TD_NO_DEADLINE) < 0) {
        td_free(reader);
        return TD_ENOMEM;
    }
    make(reader);
    *ret_reader = reader;
    return 0;
}

struct td_reader *td_reader_free(struct td_reader *reader)
{
    if (!reader)
        return NULL;
    struct td_name question = td_name_of("$JS.API.CONSUMER.DELETE.%s.%s", reader->stream.text,
                                         reader->name);
    (void)td_nats_publish(td_jet_nats(reader->jet), question.text, NULL, NULL, 0,
                          (struct td_bytes){0}); /* else the server does when nobody asks it */
    td_loop_untimer(reader->loop, &reader->again);
    td_jet_unpull(&reader->pull);
    td_jet_unask(&reader->ask);
    td_free(reader);
    return NULL;
}

void td_reader_connected(struct td_reader *reader)
{
    make(reader);
}

void td_reader_pause(struct td_reader *reader, bool paused)
{
    reader->paused = paused;
    pull(reader);
}
