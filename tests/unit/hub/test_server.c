#include "hub/server.h"

#include "support.h"

#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "bus/js_api.h"
#include "bus/nats.h"
#include "hub/port.h"
#include "hub/program.h"
#include "os/clock.h"
#include "os/loop.h"
#include "server.h"

/* A server in a folder of the test's own, and what was heard of it. */
struct bench {
    char folder[64];
    struct td_loop *loop;
    struct td_server *server;
    struct td_server_options options;
    size_t fds;
    int ready, died, failed;
    char reason[256];
};

static void on_ready(void *context)
{
    struct bench *bench = context;
    bench->ready++;
}

static void on_died(void *context, const char *reason, int64_t pause_ns)
{
    struct bench *bench = context;
    bench->died++;
    assert_true(pause_ns > 0);
    (void)snprintf(bench->reason, sizeof bench->reason, "%s", reason);
}

static void on_failed(void *context, const char *reason)
{
    struct bench *bench = context;
    bench->failed++;
    (void)snprintf(bench->reason, sizeof bench->reason, "%s", reason);
}

static const struct td_server_events events = {on_ready, on_died, on_failed};

static struct bench *bench_new(void)
{
    struct bench *bench = calloc(1, sizeof *bench);
    assert_non_null(bench);
    *bench = (struct bench){.folder = "/tmp/tendril-test-XXXXXX", .fds = support_fds()};
    assert_non_null(mkdtemp(bench->folder));
    assert_int_equal(td_loop_new(&bench->loop, NULL), 0);
    bench->options = (struct td_server_options){.folder = bench->folder,
                                                .name = "tendril-test",
                                                .host = "127.0.0.1",
                                                .client_secret = "one",
                                                .agent_secret = "two",
                                                .hub_secret = "three"};
    assert_int_equal(td_port_choose("127.0.0.1", &bench->options.port, NULL), 0);
    return bench;
}

static int remove_entry(const char *path, const struct stat *stat, int flag, struct FTW *ftw)
{
    (void)stat, (void)flag, (void)ftw;
    return remove(path);
}

static void bench_free(struct bench *bench)
{
    pid_t pid = bench->server ? td_server_pid(bench->server) : 0;
    bench->server = td_server_free(bench->server);
    assert_true(pid == 0 || !support_alive(pid));
    td_loop_free(bench->loop);
    assert_int_equal(support_fds(), bench->fds);
    assert_int_equal(nftw(bench->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(bench);
}

static void path_of(const struct bench *bench, const char *name, char path[128])
{
    (void)snprintf(path, 128, "%s/%s", bench->folder, name);
}

static void open_server(struct bench *bench)
{
    struct td_error err = {0};
    if (td_server_new(bench->loop, &bench->options, &events, bench, &bench->server, &err) < 0)
        fail_msg("%s", err.text);
}

static void open_refused(struct bench *bench, int status, const char *words)
{
    struct td_error err = {0};
    assert_int_equal(
        td_server_new(bench->loop, &bench->options, &events, bench, &bench->server, &err), status);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say '%s'", err.text, words);
}

static bool is_ready(void *context)
{
    const struct bench *bench = context;
    return bench->ready > 0 || bench->failed > 0;
}

static bool is_ready_again(void *context)
{
    const struct bench *bench = context;
    return bench->ready > 1;
}

static bool has_failed(void *context)
{
    const struct bench *bench = context;
    return bench->failed > 0;
}

/* A script that takes the server's place. */
static void write_program(struct bench *bench, const char *script, char path[128])
{
    path_of(bench, "program", path);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    (void)fprintf(file, "#!/bin/sh\n%s\n", script);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0700), 0);
    bench->options.program = path;
}

/* -- a connection to it ----------------------------------------------------------------------- */

struct end {
    struct td_nats *nats;
    struct td_nats_subscription *subscription;
    struct td_js_answer answer;
    bool answered;
};

static void on_connected(void *context, const struct td_nats_server *server)
{
    (void)context, (void)server;
}

static void on_reason(void *context, const char *reason)
{
    (void)context, (void)reason;
}

static void on_lost(void *context, uint64_t messages)
{
    (void)context, (void)messages;
}

static const struct td_nats_events nats_events = {on_connected, on_reason, on_reason, on_reason,
                                                  on_lost};

static void on_answer(void *context, const struct td_nats_message *message)
{
    struct end *end = context;
    assert_int_equal(td_js_read_answer(message->payload, &end->answer), 0);
    end->answered = true;
}

static bool is_connected(void *context)
{
    const struct end *end = context;
    return td_nats_connected(end->nats);
}

static bool is_answered(void *context)
{
    const struct end *end = context;
    return end->answered;
}

static int connect_as(struct bench *bench, const char *user, const char *secret, struct end *end)
{
    char url[64];
    (void)snprintf(url, sizeof url, "nats://127.0.0.1:%u", bench->options.port);
    struct td_nats_options options = {.url = url, .user = user, .secret = secret};
    return td_nats_new(bench->loop, &options, &nats_events, end, &end->nats, NULL);
}

static void end_open(struct bench *bench, struct end *end)
{
    assert_int_equal(connect_as(bench, "hub", "three", end), 0);
    support_turn(bench->loop, is_connected, end);
    assert_int_equal(td_nats_subscribe(end->nats, td_nats_inbox(end->nats), on_answer, end,
                                       &end->subscription, NULL),
                     0);
}

static void end_close(struct end *end)
{
    end->subscription = td_nats_subscription_free(end->subscription);
    end->nats = td_nats_free(end->nats);
}

static void ask(struct bench *bench, struct end *end, const char *subject, struct td_bytes payload)
{
    end->answered = false;
    support_turn(bench->loop, is_connected, end);
    assert_int_equal(
        td_nats_publish(end->nats, subject, td_nats_inbox(end->nats), NULL, 0, payload), 0);
    support_turn(bench->loop, is_answered, end);
    assert_int_equal(end->answer.code, 0);
}

/* -- tests ------------------------------------------------------------------------------------ */

static void test_server_starts(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    struct end end = {0};
    struct stat stat_now;
    char path[128];
    open_server(bench);
    support_turn(bench->loop, is_ready, bench);
    assert_int_equal(bench->failed, 0);
    assert_true(td_server_pid(bench->server) > 0);
    assert_true(strlen(td_server_program(bench->server)->version) >= strlen("2.9.0"));
    path_of(bench, "nats-server.conf", path);
    assert_int_equal(stat(path, &stat_now), 0);
    assert_int_equal(stat_now.st_mode & 07777, 0600);
    assert_int_equal(connect_as(bench, "hub", "two", &end), TD_EREFUSED);
    assert_int_equal(connect_as(bench, "agent", "two", &end), 0);
    end_close(&end);
    bench->server = td_server_free(bench->server);
    path_of(bench, "nats-server.pid", path);
    assert_int_equal(access(path, F_OK), -1);
    bench_free(bench);
}

static void test_server_comes_back(void **state)
{
    (void)state;
    static const struct td_js_stream stream = {.name = "S", .subjects = {"some"}};
    struct bench *bench = bench_new();
    struct end end = {0};
    struct td_buf order;
    open_server(bench);
    support_turn(bench->loop, is_ready, bench);
    pid_t pid = td_server_pid(bench->server);
    end_open(bench, &end);
    td_buf_init(&order, 4096);
    assert_int_equal(td_js_write_stream(&stream, &order), 0);
    ask(bench, &end, "$JS.API.STREAM.CREATE.S", (struct td_bytes){order.data, order.len});
    td_buf_done(&order);
    ask(bench, &end, "some", (struct td_bytes){"text", 4});
    assert_int_equal(kill(pid, SIGKILL), 0);
    support_turn(bench->loop, is_ready_again, bench);
    assert_int_equal(bench->died, 1);
    assert_string_equal(bench->reason, "nats-server was ended by signal 9");
    assert_int_not_equal(td_server_pid(bench->server), pid);
    ask(bench, &end, "$JS.API.STREAM.INFO.S", (struct td_bytes){"", 0});
    assert_int_equal(end.answer.messages, 1);
    end_close(&end);
    bench_free(bench);
}

static void test_server_port_is_taken(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(bench->options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    open_refused(bench, TD_EEXISTS, "is taken by another program");
    (void)close(fd);
    bench_free(bench);
}

static void test_server_wrong_program(void **state)
{
    (void)state;
    char path[128];
    struct bench *bench = bench_new();
    bench->options.program = "/no/such/nats-server";
    open_refused(bench, TD_ENOTFOUND, "/no/such/nats-server: no such program");
    bench->options.program = "/bin/true";
    open_refused(bench, TD_EREFUSED, "/bin/true is not a nats-server");
    bench->options.program = NULL;
    assert_int_equal(setenv("TENDRIL_NATS_SERVER", "/no/such/one", 1), 0);
    open_refused(bench, TD_ENOTFOUND, "/no/such/one: no such program");
    assert_int_equal(unsetenv("TENDRIL_NATS_SERVER"), 0);
    write_program(bench, "echo nats-server: v2.9.9", path);
    open_refused(bench, TD_EREFUSED, "has version 2.9.9, and the oldest that serves is 2.9.10");
    bench->options.program = NULL;
    bench_free(bench);
}

/* The line that says why is told, and it is not tried again. */
static void test_server_never_ready(void **state)
{
    (void)state;
    char path[128];
    struct bench *bench = bench_new();
    write_program(bench,
                  "test \"$1\" = -v && echo nats-server: v2.12.1-beta && exit\n"
                  "echo '[1] 2026/01/01 01:01:01.1 [FTL] no luck today'\n"
                  "echo '[1] 2026/01/01 01:01:01.2 [INF] Server Exiting..'\n"
                  "exit 3",
                  path);
    open_server(bench);
    assert_string_equal(td_server_program(bench->server)->version, "2.12.1");
    assert_false(td_server_program(bench->server)->old);
    support_turn(bench->loop, has_failed, bench);
    assert_string_equal(bench->reason, "nats-server ended with exit code 3: no luck today");
    assert_int_equal(bench->died + bench->ready, 0);
    bench_free(bench);
}

/* Its last words are told: here there is no folder for its store. */
static void test_server_says_why(void **state)
{
    (void)state;
    char path[128];
    struct bench *bench = bench_new();
    path_of(bench, "store", path);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    (void)fclose(file);
    open_server(bench);
    support_turn(bench->loop, is_ready, bench);
    assert_int_equal(bench->failed, 1);
    if (!strstr(bench->reason, "storage directory"))
        fail_msg("'%s' does not say what is wrong", bench->reason);
    bench_free(bench);
}

/* A hub is killed, and its server lives on: the next one in that folder ends it. */
static void test_server_left_behind(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    int ends[2];
    pid_t left = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t hub = fork();
    assert_true(hub >= 0);
    if (hub == 0) {
        struct td_loop *loop;
        struct td_server *server;
        if (td_loop_new(&loop, NULL) < 0 ||
            td_server_new(loop, &bench->options, &events, bench, &server, NULL) < 0)
            _exit(1);
        pid_t pid = td_server_pid(server);
        (void)!write(ends[1], &pid, sizeof pid);
        _exit(0);
    }
    (void)close(ends[1]);
    assert_int_equal(read(ends[0], &left, sizeof left), (ssize_t)sizeof left);
    (void)close(ends[0]);
    assert_int_equal(support_reap(hub), 0);
    open_server(bench);
    assert_false(support_alive(left));
    support_turn(bench->loop, is_ready, bench);
    assert_int_equal(bench->failed, 0);
    bench_free(bench);
}

static void test_server_options_refused(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    struct td_server_options good = bench->options;
    bench->options.folder = "/tmp/\"quoted\"";
    open_refused(bench, TD_EINVAL, "quotation marks");
    bench->options = good;
    bench->options.host = "localhost";
    open_refused(bench, TD_EINVAL, "not an address in numbers");
    bench->options = good;
    bench->options.hub_secret = "a\"b";
    open_refused(bench, TD_EINVAL, "damaged");
    bench_free(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_starts),        cmocka_unit_test(test_server_comes_back),
        cmocka_unit_test(test_server_port_is_taken), cmocka_unit_test(test_server_wrong_program),
        cmocka_unit_test(test_server_never_ready),   cmocka_unit_test(test_server_says_why),
        cmocka_unit_test(test_server_left_behind),   cmocka_unit_test(test_server_options_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
