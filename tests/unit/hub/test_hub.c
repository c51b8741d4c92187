#include "hub/hub.h"

#include "support.h"

#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "bus/token.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/pidfile.h"

enum { READY_MS = 20000 };

/* A hub in a process of its own, with a folder of the test's own. */
struct bench {
    char top[64];
    char folder[128];
    struct td_hub_options options;
    pid_t pid; /* 0: it does not run */
};

static void be_silent(void *context, const char *line)
{
    (void)context, (void)line;
}

static struct bench *bench_new(void)
{
    struct bench *bench = calloc(1, sizeof *bench);
    assert_non_null(bench);
    *bench = (struct bench){.top = "/tmp/tendril-test-XXXXXX"};
    assert_non_null(mkdtemp(bench->top));
    (void)snprintf(bench->folder, sizeof bench->folder, "%s/hub", bench->top);
    bench->options = (struct td_hub_options){
        .folder = bench->folder, .listen = "localhost:0", .ready_fd = -1, .say = be_silent};
    return bench;
}

static int remove_entry(const char *path, const struct stat *stat, int flag, struct FTW *ftw)
{
    (void)stat, (void)flag, (void)ftw;
    return remove(path);
}

static void bench_free(struct bench *bench)
{
    if (bench->pid) {
        (void)kill(bench->pid, SIGTERM);
        assert_int_equal(support_reap(bench->pid), 0);
    }
    assert_int_equal(nftw(bench->top, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(bench);
}

static const char *path_of(const struct bench *bench, const char *name)
{
    static char path[192];
    (void)snprintf(path, sizeof path, "%s/%s", bench->folder, name);
    return path;
}

/* Starts it and waits until it says that it is ready. */
static void hub_start(struct bench *bench)
{
    int ends[2];
    char byte;
    assert_int_equal(td_fd_pipe(ends, NULL), 0);
    bench->pid = fork();
    assert_true(bench->pid >= 0);
    if (bench->pid == 0) {
        struct td_error err = {0};
        td_fd_close(&ends[0]);
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        bench->options.ready_fd = ends[1];
        int r = td_hub_run(&bench->options, &err);
        if (r < 0)
            (void)fprintf(stderr, "hub: %s\n", err.text);
        _exit(r < 0);
    }
    td_fd_close(&ends[1]);
    struct pollfd ready = {.fd = ends[0], .events = POLLIN};
    assert_int_equal(poll(&ready, 1, READY_MS), 1);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(poll(&ready, 1, READY_MS), 1);
    assert_int_equal(read(ends[0], &byte, 1), 0); /* it is closed then */
    td_fd_close(&ends[0]);
}

static void hub_end(struct bench *bench, int signal_number)
{
    assert_int_equal(kill(bench->pid, signal_number), 0);
    int status = support_reap(bench->pid);
    if (signal_number != SIGKILL)
        assert_int_equal(status, 0);
    bench->pid = 0;
}

/* A process that is named in the folder, or 0. */
static pid_t named(const struct bench *bench, const char *name)
{
    pid_t pid = 0;
    int pidfd = -1;
    if (td_pidfile_open(path_of(bench, name), &pid, &pidfd, NULL) < 0)
        return 0;
    td_fd_close(&pidfd);
    return pid;
}

static struct td_token token_of(const struct bench *bench, const char *role)
{
    struct td_token token;
    struct td_error err = {0};
    char name[32];
    (void)snprintf(name, sizeof name, "%s.token", role);
    if (td_token_place(path_of(bench, name), role, &token, &err) < 0)
        fail_msg("%s", err.text);
    return token;
}

static void refused(struct bench *bench, int status, const char *words)
{
    struct td_error err = {0};
    size_t fds = support_fds();
    assert_int_equal(td_hub_run(&bench->options, &err), status);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say '%s'", err.text, words);
    assert_int_equal(support_fds(), fds);
}

static void test_hub_makes_tokens(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    struct stat stat_now;
    char copy[192];
    (void)snprintf(copy, sizeof copy, "%s/mine", bench->top);
    bench->options.client_token = copy;
    hub_start(bench);
    struct td_token client = token_of(bench, "client");
    struct td_token agent = token_of(bench, "agent");
    struct td_token hub = token_of(bench, "hub");
    struct td_token mine;
    assert_int_equal(td_token_place(copy, "client", &mine, NULL), 0);
    assert_string_equal(mine.secret, client.secret);
    assert_string_not_equal(client.secret, agent.secret);
    assert_string_not_equal(client.secret, hub.secret);
    assert_string_equal(client.url, agent.url);
    assert_string_equal(client.cluster, agent.cluster);
    assert_string_equal(client.cluster, hub.cluster);
    assert_int_equal(stat(bench->folder, &stat_now), 0);
    assert_int_equal(stat_now.st_mode & 07777, 0700);
    assert_int_equal(named(bench, "hub.pid"), bench->pid);
    assert_true(named(bench, "nats-server.pid") > 0);
    bench_free(bench);
}

static void test_hub_ends_all(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    struct bench *bench = bench_new();
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        hub_start(bench);
        pid_t server = named(bench, "nats-server.pid");
        assert_true(server > 0);
        hub_end(bench, signals[i]);
        assert_false(support_alive(server));
        assert_int_equal(access(path_of(bench, "hub.pid"), F_OK), -1);
        assert_int_equal(access(path_of(bench, "nats-server.pid"), F_OK), -1);
    }
    bench_free(bench);
}

/* Its tokens hold over restarts, also one after kill -9, when its server is left running. */
static void test_hub_starts_again(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    hub_start(bench);
    struct td_token before = token_of(bench, "client");
    hub_end(bench, SIGTERM);
    hub_start(bench);
    struct td_token after = token_of(bench, "client");
    assert_string_equal(after.secret, before.secret);
    assert_string_equal(after.cluster, before.cluster);
    assert_string_equal(after.url, before.url);
    pid_t server = named(bench, "nats-server.pid");
    hub_end(bench, SIGKILL);
    assert_true(support_alive(server));
    hub_start(bench);
    assert_false(support_alive(server));
    assert_string_equal(token_of(bench, "client").secret, before.secret);
    assert_string_equal(token_of(bench, "client").url, before.url);
    hub_end(bench, SIGTERM);
    assert_int_equal(remove(path_of(bench, "client.token")), 0);
    hub_start(bench);
    assert_string_not_equal(token_of(bench, "client").secret, before.secret);
    assert_string_equal(token_of(bench, "client").cluster, before.cluster);
    bench_free(bench);
}

static void test_hub_folder_in_use(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    char words[64];
    hub_start(bench);
    (void)snprintf(words, sizeof words, "/hub: process %d", (int)bench->pid);
    refused(bench, TD_EEXISTS, words);
    assert_int_equal(named(bench, "hub.pid"), bench->pid);
    hub_end(bench, SIGTERM);
    assert_int_equal(chmod(bench->folder, 0755), 0);
    refused(bench, TD_EINVAL, "others may enter");
    assert_int_equal(chmod(bench->folder, 0700), 0);
    assert_int_equal(chmod(path_of(bench, "agent.token"), 0644), 0);
    refused(bench, TD_EINVAL, "chmod 600");
    bench_free(bench);
}

static void test_hub_port_is_taken(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    struct bench *other = bench_new();
    hub_start(bench);
    struct td_token token = token_of(bench, "client");
    other->options.listen = token.url + strlen("nats://");
    refused(other, TD_EEXISTS, "is taken by another program");
    bench_free(other);
    bench_free(bench);
}

static void test_hub_listens_on_loopback_only(void **state)
{
    (void)state;
    static const struct {
        const char *listen;
        const char *words;
    } rows[] = {
        {"0.0.0.0:4222", "TLS"},
        {"192.168.1.1:4222", "TLS"},
        {"[::]:4222", "TLS"},
        {"example.org:4222", "TLS"},
        {"127.0.0.1", "not HOST:PORT"},
        {"127.0.0.1:", "not HOST:PORT"},
        {"127.0.0.1:65536", "not HOST:PORT"},
        {":4222", "not HOST:PORT"},
        {"::1:4222", "not HOST:PORT"},
        {"[]:4222", "not HOST:PORT"},
    };
    struct bench *bench = bench_new();
    struct td_error err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bench->options.listen = rows[i].listen;
        assert_int_equal(td_hub_check(&bench->options, &err), TD_EINVAL);
        if (!strstr(err.text, rows[i].words))
            fail_msg("'%s' does not say '%s'", err.text, rows[i].words);
        refused(bench, TD_EINVAL, rows[i].words);
    }
    assert_int_equal(access(bench->folder, F_OK), -1);
    static const char *const good[] = {"127.0.0.1:4222", "127.1.2.3:1", "[::1]:4222",
                                       "localhost:0"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        bench->options.listen = good[i];
        assert_int_equal(td_hub_check(&bench->options, NULL), 0);
    }
    bench_free(bench);
}

static void test_hub_without_a_server(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    bench->options.program = "/no/such/nats-server";
    refused(bench, TD_ENOTFOUND, "no such program");
    assert_int_equal(access(path_of(bench, "hub.pid"), F_OK), -1);
    bench_free(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hub_makes_tokens),
        cmocka_unit_test(test_hub_ends_all),
        cmocka_unit_test(test_hub_starts_again),
        cmocka_unit_test(test_hub_folder_in_use),
        cmocka_unit_test(test_hub_port_is_taken),
        cmocka_unit_test(test_hub_listens_on_loopback_only),
        cmocka_unit_test(test_hub_without_a_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
