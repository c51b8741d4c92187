#include "bus/nats.h"

#include "server.h"
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "os/loop.h"

/* A connection and what was heard from it. */
struct end {
    struct td_nats *nats;
    struct td_nats_subscription *subscription;
    unsigned connected, restarted, disconnected, closed, refused;
    uint64_t lost;
    size_t payload_max;
    char words[256]; /* of the last refusal or reason */
    uint64_t messages, statuses;
    uint64_t wanted; /* messages to wait for */
    char last[64], reply[64], header[64];
    bool end_at_first; /* the subscription, in its callback */
};

struct bench {
    struct support_server server;
    struct td_loop *loop;
    struct end a, b;
};

static void on_connected(void *context, const struct td_nats_server *server)
{
    struct end *end = context;
    assert_true(strlen(server->id) > 10);
    end->connected++;
    end->restarted += server->restarted;
    end->payload_max = server->payload_max;
}

static void on_disconnected(void *context, const char *reason)
{
    struct end *end = context;
    end->disconnected++;
    (void)snprintf(end->words, sizeof end->words, "%s", reason);
}

static void on_closed(void *context, const char *reason)
{
    struct end *end = context;
    end->closed++;
    (void)snprintf(end->words, sizeof end->words, "%s", reason);
}

static void on_refused(void *context, const char *what)
{
    struct end *end = context;
    end->refused++;
    (void)snprintf(end->words, sizeof end->words, "%s", what);
}

static void on_lost(void *context, uint64_t messages)
{
    struct end *end = context;
    end->lost += messages;
}

static const struct td_nats_events events = {on_connected, on_disconnected, on_closed, on_refused,
                                             on_lost};

static void on_message(void *context, const struct td_nats_message *message)
{
    struct end *end = context;
    const char *header = td_nats_header(message, "Tendril-Test");
    end->messages++;
    end->statuses += message->status;
    (void)snprintf(end->reply, sizeof end->reply, "%s", message->reply ? message->reply : "");
    (void)snprintf(end->header, sizeof end->header, "%s", header ? header : "");
    if (message->payload.len < sizeof end->last)
        (void)snprintf(end->last, sizeof end->last, "%.*s", (int)message->payload.len,
                       (const char *)message->payload.data);
    if (end->end_at_first)
        end->subscription = td_nats_subscription_free(end->subscription);
}

static bool is_connected(void *context)
{
    const struct end *end = context;
    return td_nats_connected(end->nats);
}

static bool is_disconnected(void *context)
{
    const struct end *end = context;
    return end->disconnected > 0;
}

static bool is_restarted(void *context)
{
    const struct end *end = context;
    return end->restarted > 0 && td_nats_connected(end->nats);
}

static bool is_refused(void *context)
{
    const struct end *end = context;
    return end->refused > 0;
}

static bool is_closed(void *context)
{
    const struct end *end = context;
    return end->closed > 0;
}

static bool has_all(void *context)
{
    const struct end *end = context;
    return end->messages + end->lost >= end->wanted;
}

static void end_open(struct bench *bench, struct end *end, struct td_nats_options options)
{
    struct td_error err = {0};
    options.url = bench->server.url;
    int r = td_nats_new(bench->loop, &options, &events, end, &end->nats, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    support_turn(bench->loop, is_connected, end);
}

static void hear(struct end *end, const char *subject)
{
    assert_int_equal(
        td_nats_subscribe(end->nats, subject, on_message, end, &end->subscription, NULL), 0);
}

static int say(struct end *end, const char *subject, const char *text)
{
    return td_nats_publish(end->nats, subject, NULL, NULL, 0,
                           (struct td_bytes){text, strlen(text)});
}

static void wait_for(struct bench *bench, struct end *end, uint64_t messages)
{
    end->wanted = messages;
    support_turn(bench->loop, has_all, end);
}

/* What this end has subscribed to or sent is known to the server once it hears itself. */
static void settle(struct bench *bench, struct end *end)
{
    struct end probe = {.nats = end->nats};
    char subject[128];
    (void)snprintf(subject, sizeof subject, "%s.settle", td_nats_inbox(end->nats));
    hear(&probe, subject);
    assert_int_equal(say(&probe, subject, ""), 0);
    wait_for(bench, &probe, 1);
    td_nats_subscription_free(probe.subscription);
}

static struct bench *bench_new(const char *config)
{
    struct bench *bench = td_alloc_zero(sizeof *bench);
    assert_non_null(bench);
    support_server_start(&bench->server, config);
    assert_int_equal(td_loop_new(&bench->loop, NULL), 0);
    return bench;
}

static void end_close(struct end *end)
{
    end->subscription = td_nats_subscription_free(end->subscription);
    end->nats = td_nats_free(end->nats);
}

static void bench_free(struct bench *bench)
{
    end_close(&bench->a);
    end_close(&bench->b);
    td_loop_free(bench->loop);
    support_server_stop(&bench->server);
    td_free(bench);
}

static void test_nats_round_trip(void **state)
{
    (void)state;
    struct bench *bench = bench_new(NULL);
    end_open(bench, &bench->a, (struct td_nats_options){.name = "a"});
    end_open(bench, &bench->b, (struct td_nats_options){.name = "b"});
    assert_int_equal(bench->a.connected, 1);
    assert_int_equal(bench->a.restarted, 0);
    assert_int_equal(bench->a.payload_max, 1 << 20);
    assert_string_not_equal(td_nats_inbox(bench->a.nats), td_nats_inbox(bench->b.nats));
    hear(&bench->b, "some.*");
    settle(bench, &bench->b);
    struct td_nats_header header = {"Tendril-Test", "with a header"};
    assert_int_equal(td_nats_publish(bench->a.nats, "some.thing", "answer.here", &header, 1,
                                     (struct td_bytes){"hello", 5}),
                     0);
    wait_for(bench, &bench->b, 1);
    assert_string_equal(bench->b.last, "hello");
    assert_string_equal(bench->b.reply, "answer.here");
    assert_string_equal(bench->b.header, "with a header");
    assert_int_equal(bench->b.statuses, 0);
    bench_free(bench);
}

/* Who asks where nobody listens is told. */
static void test_nats_status(void **state)
{
    (void)state;
    struct bench *bench = bench_new(NULL);
    char subject[128];
    end_open(bench, &bench->a, (struct td_nats_options){.name = "a"});
    (void)snprintf(subject, sizeof subject, "%s.*", td_nats_inbox(bench->a.nats));
    hear(&bench->a, subject);
    (void)snprintf(subject, sizeof subject, "%s.1", td_nats_inbox(bench->a.nats));
    assert_int_equal(
        td_nats_publish(bench->a.nats, "nobody.here", subject, NULL, 0, (struct td_bytes){"?", 1}),
        0);
    wait_for(bench, &bench->a, 1);
    assert_int_equal(bench->a.statuses, 503);
    bench_free(bench);
}

static void test_nats_not_there(void **state)
{
    (void)state;
    struct bench *bench = bench_new(NULL);
    struct td_error err = {0};
    struct td_nats_options options = {.url = bench->server.url};
    support_server_kill(&bench->server, SIGKILL);
    assert_int_equal(td_nats_new(bench->loop, &options, &events, &bench->a, &bench->a.nats, &err),
                     TD_ESYS);
    assert_non_null(strstr(err.text, bench->server.url));
    options.url = "no url: at all";
    assert_true(td_nats_new(bench->loop, &options, &events, &bench->a, &bench->a.nats, &err) < 0);
    bench_free(bench);
}

static void test_nats_credential_refused(void **state)
{
    (void)state;
    struct bench *bench = bench_new("authorization { token: \"right\" }");
    struct td_error err = {0};
    struct td_nats_options options = {.url = bench->server.url, .token = "wrong"};
    assert_int_equal(td_nats_new(bench->loop, &options, &events, &bench->a, &bench->a.nats, &err),
                     TD_EREFUSED);
    assert_null(strstr(err.text, "wrong"));
    end_open(bench, &bench->a, (struct td_nats_options){.token = "right"});
    bench_free(bench);
}

static void test_nats_server_restarts(void **state)
{
    (void)state;
    struct bench *bench = bench_new(NULL);
    end_open(bench, &bench->a, (struct td_nats_options){.name = "a"});
    end_open(bench, &bench->b, (struct td_nats_options){.name = "b"});
    hear(&bench->b, "some");
    settle(bench, &bench->b);
    support_server_kill(&bench->server, SIGKILL);
    support_turn(bench->loop, is_disconnected, &bench->a);
    support_turn(bench->loop, is_disconnected, &bench->b);
    assert_int_equal(say(&bench->a, "some", "while it is away"), TD_EAGAIN);
    support_server_again(&bench->server);
    support_turn(bench->loop, is_restarted, &bench->a);
    support_turn(bench->loop, is_restarted, &bench->b);
    settle(bench, &bench->b);
    assert_int_equal(say(&bench->a, "some", "again"), 0);
    wait_for(bench, &bench->b, 1);
    assert_string_equal(bench->b.last, "again");
    assert_int_equal(bench->b.connected, 2);
    assert_int_equal(bench->b.disconnected, 1);
    bench_free(bench);
}

/* A credential that is taken back ends the connection for good. */
static void test_nats_credential_taken_back(void **state)
{
    (void)state;
    struct bench *bench = bench_new("authorization { token: \"right\" }");
    char path[128];
    end_open(bench, &bench->a, (struct td_nats_options){.token = "right"});
    support_server_kill(&bench->server, SIGKILL);
    support_turn(bench->loop, is_disconnected, &bench->a);
    (void)snprintf(path, sizeof path, "%s/conf", bench->server.folder);
    FILE *file = fopen(path, "ae");
    assert_non_null(file);
    (void)fputs("authorization { token: \"another\" }\n", file);
    assert_int_equal(fclose(file), 0);
    support_server_again(&bench->server);
    support_turn(bench->loop, is_closed, &bench->a);
    assert_int_equal(say(&bench->a, "some", "thing"), TD_ECLOSED);
    bench_free(bench);
}

static void test_nats_permission_refused(void **state)
{
    (void)state;
    struct bench *bench = bench_new("authorization { users: [ { user: u, password: p, permissions: "
                                    "{ publish: \"mine\" } } ] }");
    end_open(bench, &bench->a, (struct td_nats_options){.user = "u", .secret = "p"});
    assert_int_equal(say(&bench->a, "yours", "text"), 0);
    support_turn(bench->loop, is_refused, &bench->a);
    assert_non_null(strstr(bench->a.words, "\"yours\""));
    assert_true(td_nats_connected(bench->a.nats));
    bench_free(bench);
}

static void test_nats_too_large(void **state)
{
    (void)state;
    static char text[(1 << 20) + 1];
    struct bench *bench = bench_new(NULL);
    end_open(bench, &bench->a, (struct td_nats_options){.name = "a"});
    assert_int_equal(
        td_nats_publish(bench->a.nats, "some", NULL, NULL, 0, (struct td_bytes){text, sizeof text}),
        TD_ELIMIT);
    assert_int_equal(td_nats_publish(bench->a.nats, "some", NULL, NULL, 0,
                                     (struct td_bytes){text, sizeof text - 1}),
                     0);
    assert_int_equal(say(&bench->a, "", "text"), TD_EINVAL);
    bench_free(bench);
}

/* The loop is slow: its queue is small, the rest waits and comes in order. */
static void test_nats_queue_is_bounded(void **state)
{
    (void)state;
    struct bench *bench = bench_new(NULL);
    char text[16];
    end_open(bench, &bench->a, (struct td_nats_options){.name = "a"});
    end_open(bench, &bench->b, (struct td_nats_options){.queue_max = 1000});
    hear(&bench->b, "some");
    settle(bench, &bench->b);
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(text, sizeof text, "%d", i);
        assert_int_equal(say(&bench->a, "some", text), 0);
    }
    wait_for(bench, &bench->b, 5000);
    assert_string_equal(bench->b.last, "4999");
    assert_int_equal(bench->b.lost, 0);
    bench_free(bench);
}

/* The loop stands still: what nobody can keep is counted. */
static void test_nats_loss_is_told(void **state)
{
    (void)state;
    enum { SENT = 150 };
    static char text[1 << 20];
    struct bench *bench = bench_new(NULL);
    end_open(bench, &bench->a, (struct td_nats_options){.name = "a"});
    end_open(bench, &bench->b, (struct td_nats_options){.queue_max = 1 << 20});
    hear(&bench->b, "some");
    settle(bench, &bench->b);
    for (int i = 0; i < SENT; i++)
        assert_int_equal(td_nats_publish(bench->a.nats, "some", NULL, NULL, 0,
                                         (struct td_bytes){text, sizeof text}),
                         0);
    wait_for(bench, &bench->b, SENT);
    assert_true(bench->b.lost > 0);
    assert_int_equal(bench->b.lost + bench->b.messages, SENT);
    bench_free(bench);
}

static void test_nats_subscription_ends_in_its_callback(void **state)
{
    (void)state;
    struct bench *bench = bench_new(NULL);
    end_open(bench, &bench->a, (struct td_nats_options){.name = "a"});
    bench->a.end_at_first = true;
    hear(&bench->a, "some");
    for (int i = 0; i < 100; i++)
        assert_int_equal(say(&bench->a, "some", "text"), 0);
    wait_for(bench, &bench->a, 1);
    settle(bench, &bench->a);
    assert_int_equal(bench->a.messages, 1);
    bench_free(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nats_round_trip),
        cmocka_unit_test(test_nats_status),
        cmocka_unit_test(test_nats_not_there),
        cmocka_unit_test(test_nats_credential_refused),
        cmocka_unit_test(test_nats_server_restarts),
        cmocka_unit_test(test_nats_credential_taken_back),
        cmocka_unit_test(test_nats_permission_refused),
        cmocka_unit_test(test_nats_too_large),
        cmocka_unit_test(test_nats_queue_is_bounded),
        cmocka_unit_test(test_nats_loss_is_told),
        cmocka_unit_test(test_nats_subscription_ends_in_its_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
