/* The whole path of a call without Python: client, bus, node, scheduler, pool, supervisor, and a
 * runner that is a C program (echo_runner.c). Argument 1 is the command tendril, argument 2 the
 * runner. */
#include "client/client.h"

#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "os/clock.h"
#include "task/outcome.h"
#include "task/spec.h"

static const char *command, *runner;

static struct td_client *client_new(void)
{
    struct td_client *client;
    struct td_error err = {0};
    struct td_client_options options = {.supervisor_path = command, .slots = 2, .link_fd = -1};
    int r = td_client_new(&options, &client, &err);
    if (r < 0)
        fail_msg("client: %s", err.text);
    return client;
}

static struct td_spec *spec_new(struct td_spec options)
{
    struct td_spec *spec;
    struct td_blob *body = td_blob_new("", 0);
    options.body = body;
    if (!options.runner.argv.len)
        options.runner.argv = (struct td_bytes){runner, strlen(runner) + 1};
    assert_int_equal(td_spec_new(&options, &spec, NULL), 0);
    td_blob_unref(body);
    return spec;
}

static struct td_map *map_new(struct td_client *client, struct td_spec options)
{
    struct td_map *map;
    struct td_spec *spec = spec_new(options);
    struct td_map_options map_options = {.ordered = true};
    assert_int_equal(td_map_new(client, spec, map_options, &map, NULL), 0);
    td_spec_unref(spec);
    return map;
}

static void submit(struct td_map *map, const char *args)
{
    uint64_t index;
    TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = td_blob_new(args, strlen(args));
    assert_int_equal(td_map_submit(map, blob, &index, NULL), 0);
}

static struct td_outcome *next(struct td_map *map)
{
    struct td_outcome *outcome = NULL;
    int r = td_map_next(map, td_clock_now() + 20 * TD_NS_PER_S, &outcome);
    if (r < 0)
        fail_msg("no outcome: %s", td_status_text(r));
    return outcome;
}

static void assert_value(struct td_outcome *outcome, uint8_t status, const char *value)
{
    assert_int_equal(outcome->status, status);
    struct td_bytes bytes = td_blob_bytes(outcome->value);
    assert_int_equal(bytes.len, strlen(value));
    assert_memory_equal(bytes.data, value, bytes.len);
    td_outcome_free(outcome);
}

static void test_client_runs_calls_in_order(void **state)
{
    (void)state;
    enum { CALLS = 500 };
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){0});
    struct td_outcome *outcome;
    char text[32];
    for (int i = 0; i < CALLS; i++) {
        (void)snprintf(text, sizeof text, i % 3 ? "echo:%d" : "fail:%d", i);
        submit(map, text);
    }
    td_map_end(map);
    for (int i = 0; i < CALLS; i++) {
        (void)snprintf(text, sizeof text, "%d", i);
        assert_value(next(map), i % 3 ? TD_OUTCOME_OK : TD_OUTCOME_RAISED, text);
    }
    assert_int_equal(td_map_next(map, TD_NO_DEADLINE, &outcome), TD_ENOTFOUND);
    td_map_unref(map);
    td_client_unref(client);
}

static void test_client_tells_how_a_runner_died(void **state)
{
    (void)state;
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){0});
    submit(map, "crash");
    submit(map, "exit");
    submit(map, "echo:still here");
    struct td_outcome *outcome = next(map);
    assert_int_equal(outcome->status, TD_OUTCOME_CRASHED);
    assert_int_equal(outcome->code, -SIGSEGV);
    td_outcome_free(outcome);
    outcome = next(map);
    assert_int_equal(outcome->status, TD_OUTCOME_CRASHED);
    assert_int_equal(outcome->code, 7);
    td_outcome_free(outcome);
    assert_value(next(map), TD_OUTCOME_OK, "still here");
    td_map_unref(map);
    td_client_unref(client);
}

static void test_client_retries_and_stops(void **state)
{
    (void)state;
    struct td_client *client = client_new();
    struct td_map *retried = map_new(client, (struct td_spec){.retries = 1});
    struct td_map *timed = map_new(client, (struct td_spec){.timeout_ns = TD_NS_PER_S / 5});
    submit(retried, "exit");
    submit(timed, "hang");
    struct td_outcome *outcome = next(retried);
    assert_int_equal(outcome->status, TD_OUTCOME_CRASHED);
    assert_int_equal(outcome->attempt, 2);
    td_outcome_free(outcome);
    outcome = next(timed);
    assert_int_equal(outcome->status, TD_OUTCOME_TIMED_OUT);
    td_outcome_free(outcome);
    td_map_unref(retried);
    td_map_unref(timed);
    td_client_unref(client);
}

/* Packs calls of ITEM bytes each, and takes their results in order until `calls` were taken; the
 * statuses go into `seen`. */
enum { ITEM = 8 };

static struct td_map *packed_map_new(struct td_client *client, uint64_t calls)
{
    struct td_bytes none = {"", 0};
    struct td_map *map;
    struct td_spec *spec = spec_new((struct td_spec){0});
    struct td_map_options options = {.ordered = true,
                                     .head = none,
                                     .foot = none,
                                     .length = calls,
                                     .ahead_calls = 1 << 20,
                                     .ahead_bytes = 1 << 28};
    assert_int_equal(td_map_new(client, spec, options, &map, NULL), 0);
    td_spec_unref(spec);
    return map;
}

static void pack_item(struct td_map *map, const char *item)
{
    int r;
    while ((r = td_map_pack(map, (struct td_bytes){item, ITEM}, NULL)) == TD_EAGAIN)
        assert_int_equal(td_map_wait_room(map, TD_NO_DEADLINE), 0);
    assert_int_equal(r, 0);
}

/* Packed or not, by whichever runner: each call has one outcome, in order; one that crashes takes
 * no other along. */
static void test_client_packs(void **state)
{
    (void)state;
    enum { CALLS = 20000 };
    struct td_client *client = client_new();
    struct td_map *map = packed_map_new(client, CALLS);
    uint64_t taken = 0, crashed = 0, raised = 0;
    uint32_t most = 0;
    for (unsigned i = 0; i < CALLS; i++) {
        char item[ITEM + 1];
        (void)snprintf(item, sizeof item, "%s%05u",
                       i % 5000 == 4999 ? "die"
                       : i % 1000 == 7  ? "bad"
                                        : "run",
                       i);
        pack_item(map, item);
    }
    assert_int_equal(td_map_end(map), 0);
    while (taken < CALLS) {
        struct td_outcome *outcome = next(map);
        struct td_bytes value = td_blob_bytes(outcome->value);
        assert_int_equal(outcome->index, taken);
        for (uint32_t i = 0; outcome->status == TD_OUTCOME_OK && i < outcome->count; i++) {
            char expected[ITEM + 1];
            (void)snprintf(expected, sizeof expected, "run%05u", (unsigned)taken + i);
            assert_true(value.len >= (outcome->skip + i + 1) * (size_t)ITEM);
            assert_memory_equal((const char *)value.data + (outcome->skip + i) * (size_t)ITEM,
                                expected, ITEM);
        }
        crashed += outcome->status == TD_OUTCOME_CRASHED ? outcome->count : 0;
        raised += outcome->status == TD_OUTCOME_RAISED ? outcome->count : 0;
        most = outcome->count > most ? outcome->count : most;
        taken += outcome->count;
        td_outcome_free(outcome);
    }
    assert_int_equal(crashed, 4);
    assert_int_equal(raised, 20);
    assert_true(most > 10);
    td_map_unref(map);
    td_client_unref(client);
}

/* One that takes long holds none of its batch back: another runner takes those behind it, and those
 * before it are delivered. */
static void test_client_long_call_in_a_batch(void **state)
{
    (void)state;
    enum { CALLS = 400 };
    struct td_client *client = client_new();
    struct td_map *map = packed_map_new(client, CALLS);
    for (unsigned i = 0; i < CALLS; i++) {
        char item[ITEM + 1];
        (void)snprintf(item, sizeof item, "%s%05u", i == 200 ? "zzz" : "run", i);
        pack_item(map, item);
    }
    assert_int_equal(td_map_end(map), 0);
    for (uint64_t taken = 0; taken < 200;) {
        struct td_outcome *outcome = next(map);
        taken += outcome->count;
        assert_true(taken <= 200);
        td_outcome_free(outcome);
    }
    while (td_map_counts(map).finished < CALLS - 1) {
        struct td_outcome *outcome;
        assert_int_equal(td_map_next(map, td_clock_now() + TD_NS_PER_MS, &outcome), TD_ETIMEOUT);
    }
    td_map_unref(map);
    td_client_unref(client);
}

static void test_client_cancels(void **state)
{
    (void)state;
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){0});
    struct td_outcome *outcome;
    for (int i = 0; i < 5; i++)
        submit(map, "hang");
    td_map_cancel(map);
    uint64_t index;
    assert_int_equal(td_map_submit(map, NULL, &index, NULL), TD_ECANCELLED);
    int r = 0;
    while (r == 0) {
        r = td_map_next(map, TD_NO_DEADLINE, &outcome);
        if (r == 0)
            td_outcome_free(outcome);
    }
    assert_int_equal(r, TD_ECANCELLED);
    td_map_unref(map);
    td_client_unref(client);
}

static void test_client_kills_what_a_call_left(void **state)
{
    (void)state;
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){0});
    uint64_t pid = 0;
    submit(map, "linger");
    struct td_outcome *outcome = next(map);
    struct td_bytes text = td_blob_bytes(outcome->value);
    assert_int_equal(td_text_u64(text.data, text.len, &pid), 0);
    td_outcome_free(outcome);
    assert_true(support_gone((pid_t)pid));
    td_map_unref(map);
    td_client_unref(client);
}

static void test_client_hears_output_before_the_outcome(void **state)
{
    (void)state;
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){0});
    submit(map, "print:hello\nworld");
    assert_value(next(map), TD_OUTCOME_OK, "");
    size_t heard[3] = {0};
    for (struct td_output *output = td_client_take_output(client); output;
         output = td_client_take_output(client)) {
        heard[output->stream] += output->text.len;
        td_output_free(output);
    }
    assert_int_equal(heard[1], 11);
    assert_int_equal(heard[2], 11);
    struct td_blob *logs = NULL;
    uint64_t lost = 1;
    assert_int_equal(td_map_logs(map, 0, 1, &logs, &lost), 0);
    assert_memory_equal(td_blob_bytes(logs).data, "hello\nworld", 11);
    assert_int_equal(lost, 0);
    td_blob_unref(logs);
    td_map_unref(map);
    td_client_unref(client);
}

static void test_client_names_why_nothing_starts(void **state)
{
    (void)state;
    static const char nowhere[] = "/nowhere/runner";
    struct td_client *client = client_new();
    struct td_map *map = map_new(client,
                                 (struct td_spec){.runner = {.argv = {nowhere, sizeof nowhere}}});
    submit(map, "echo:x");
    struct td_outcome *outcome = next(map);
    assert_int_equal(outcome->status, TD_OUTCOME_NOT_STARTED);
    assert_non_null(outcome->detail);
    assert_non_null(memmem(td_blob_bytes(outcome->detail).data, td_blob_bytes(outcome->detail).len,
                           nowhere, strlen(nowhere)));
    td_outcome_free(outcome);
    td_map_unref(map);
    td_client_unref(client);
}

static void test_client_limits_memory(void **state)
{
    (void)state;
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){.runner = {.memory_bytes = 256 << 20}});
    submit(map, "grow:1024");
    submit(map, "echo:small");
    struct td_outcome *outcome = next(map);
    assert_int_equal(outcome->status, TD_OUTCOME_OUT_OF_MEMORY);
    assert_int_equal(outcome->limit_bytes, 256 << 20);
    td_outcome_free(outcome);
    assert_value(next(map), TD_OUTCOME_OK, "small");
    td_map_unref(map);
    td_client_unref(client);
}

static void test_client_survives_its_supervisor(void **state)
{
    (void)state;
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){0});
    submit(map, "echo:a");
    assert_value(next(map), TD_OUTCOME_OK, "a");
    submit(map, "hang");
    submit(map, "echo:b"); /* its outcome shows that "hang" runs by now, and info is fresh */
    uint64_t deadline = (uint64_t)td_clock_now() + 20 * (uint64_t)TD_NS_PER_S;
    while (td_map_counts(map).finished < 2 && (uint64_t)td_clock_now() < deadline)
        (void)sched_yield();
    int pid = td_client_info(client).supervisor_pid;
    assert_true(pid > 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    struct td_outcome *outcome = next(map);
    assert_int_equal(outcome->status, TD_OUTCOME_CRASHED);
    td_outcome_free(outcome);
    assert_value(next(map), TD_OUTCOME_OK, "b");
    submit(map, "echo:c");
    assert_value(next(map), TD_OUTCOME_OK, "c");
    td_map_unref(map);
    td_client_unref(client);
}

/* Allocations are the one cost of a call that does not depend on the machine. */
static void test_client_keeps_a_budget_per_call(void **state)
{
    (void)state;
    enum { CALLS = 200, ALLOCATIONS_MAX = 12 };
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){0});
    submit(map, "echo:warm");
    assert_value(next(map), TD_OUTCOME_OK, "warm");
    uint64_t before = td_mem_count();
    for (int i = 0; i < CALLS; i++)
        submit(map, "echo:x");
    for (int i = 0; i < CALLS; i++)
        assert_value(next(map), TD_OUTCOME_OK, "x");
    uint64_t each = (td_mem_count() - before) / CALLS;
    print_message("%llu allocations a call\n", (unsigned long long)each);
    assert_true(each <= ALLOCATIONS_MAX);
    td_map_unref(map);
    td_client_unref(client);
}

static void *many_calls(void *context)
{
    struct td_client *client = context;
    struct td_map *map = map_new(client, (struct td_spec){0});
    for (int i = 0; i < 50; i++)
        submit(map, "echo:x");
    for (int i = 0; i < 50; i++) {
        struct td_outcome *outcome = NULL;
        if (td_map_next(map, td_clock_now() + 20 * TD_NS_PER_S, &outcome) < 0)
            return "no outcome";
        td_outcome_free(outcome);
    }
    td_map_unref(map);
    return NULL;
}

static void test_client_serves_many_threads(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    struct td_client *client = client_new();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many_calls, client), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed = NULL;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    td_client_unref(client);
}

static void test_client_closes_under_readers(void **state)
{
    (void)state;
    struct td_client *client = client_new();
    struct td_map *map = map_new(client, (struct td_spec){0});
    struct td_outcome *outcome;
    uint64_t index;
    size_t before = support_fds();
    submit(map, "hang");
    td_client_close(client);
    assert_int_equal(td_map_next(map, TD_NO_DEADLINE, &outcome), TD_ECLOSED);
    assert_int_equal(td_map_submit(map, NULL, &index, NULL), TD_ECLOSED);
    td_map_cancel(map);
    td_client_close(client);
    td_client_unref(client);
    td_map_unref(map);
    assert_true(support_fds() <= before);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_runs_calls_in_order),
        cmocka_unit_test(test_client_tells_how_a_runner_died),
        cmocka_unit_test(test_client_retries_and_stops),
        cmocka_unit_test(test_client_packs),
        cmocka_unit_test(test_client_long_call_in_a_batch),
        cmocka_unit_test(test_client_cancels),
        cmocka_unit_test(test_client_kills_what_a_call_left),
        cmocka_unit_test(test_client_hears_output_before_the_outcome),
        cmocka_unit_test(test_client_names_why_nothing_starts),
        cmocka_unit_test(test_client_limits_memory),
        cmocka_unit_test(test_client_survives_its_supervisor),
        cmocka_unit_test(test_client_keeps_a_budget_per_call),
        cmocka_unit_test(test_client_serves_many_threads),
        cmocka_unit_test(test_client_closes_under_readers),
    };
    if (argc < 3) {
        (void)fputs("usage: test_client TENDRIL RUNNER\n", stderr);
        return 2;
    }
    command = argv[1];
    runner = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
