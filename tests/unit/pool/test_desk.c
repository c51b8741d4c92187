#include "pool/desk.h"

#include "support.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/blob.h"
#include "base/err.h"

/* Both sides of a desk, here in one process. */
static void open_both(struct td_desk **node, struct td_desk **runner)
{
    int fd;
    assert_int_equal(td_desk_new(node, &fd, NULL), 0);
    assert_int_equal(td_desk_open(fd, runner, NULL), 0);
    assert_int_not_equal(ftruncate(fd, 0), 0); /* it cannot be cut off under the other side */
    (void)close(fd);
    assert_int_equal(td_desk_edges(*runner, (struct td_bytes){"<", 1}, (struct td_bytes){">", 1}),
                     0);
}

static void put(struct td_desk *runner, const char *result)
{
    char *room = td_desk_room(runner, strlen(result));
    assert_non_null(room);
    memcpy(room, result, strlen(result));
    td_desk_done(runner, (uint32_t)strlen(result));
}

static void assert_results(const struct td_desk *node, uint32_t from, uint32_t to, const char *text)
{
    struct td_blob *blob = td_desk_results(node, from, to);
    struct td_bytes bytes = td_blob_bytes(blob);
    assert_int_equal(bytes.len, strlen(text));
    assert_memory_equal(bytes.data, text, bytes.len);
    td_blob_unref(blob);
}

static void test_desk_results(void **state)
{
    (void)state;
    struct td_desk *node, *runner;
    open_both(&node, &runner);
    assert_memory_equal(td_desk_token(node), td_desk_token(runner), TD_TOKEN_SIZE);
    assert_false(td_desk_begin(runner)); /* nothing was laid */
    for (int round = 0; round < 2; round++) {
        td_desk_lay(node, 3);
        assert_true(td_desk_begin(runner));
        assert_int_equal(td_desk_at(runner), 0);
        put(runner, "one");
        assert_true(td_desk_begin(runner));
        struct td_desk_state seen = td_desk_look(node);
        assert_int_equal(seen.begun, 2);
        assert_int_equal(seen.done, 1);
        assert_results(node, 0, seen.filled, "<one>");
        td_desk_done(runner, 0); /* it went another way */
        assert_true(td_desk_begin(runner));
        put(runner, "three");
        assert_false(td_desk_begin(runner));
        assert_int_equal(td_desk_look(node).done, 3);
        assert_results(node, 3, td_desk_look(node).filled, "<three>");
    }
    assert_null(td_desk_results(node, 2, 1));
    assert_null(td_desk_results(node, 0, TD_DESK_RESULTS_MAX + 1));
    td_desk_free(node);
    td_desk_free(runner);
}

static void test_desk_cut(void **state)
{
    (void)state;
    struct td_desk *node, *runner;
    open_both(&node, &runner);
    td_desk_lay(node, 10);
    assert_true(td_desk_begin(runner));
    assert_int_equal(td_desk_cut(node), 1);
    assert_false(td_desk_begin(runner));
    assert_int_equal(td_desk_cut(node), 1);
    td_desk_free(node);
    td_desk_free(runner);
}

static void test_desk_is_full(void **state)
{
    (void)state;
    struct td_desk *node, *runner;
    open_both(&node, &runner);
    td_desk_lay(node, 2);
    assert_true(td_desk_begin(runner));
    assert_null(td_desk_room(runner, TD_DESK_RESULTS_MAX + 1));
    assert_non_null(td_desk_room(runner, TD_DESK_RESULTS_MAX));
    td_desk_done(runner, TD_DESK_RESULTS_MAX);
    assert_null(td_desk_room(runner, 1));
    char edge[TD_DESK_EDGE_MAX + 1] = {0};
    assert_int_equal(
        td_desk_edges(runner, (struct td_bytes){edge, sizeof edge}, (struct td_bytes){0}),
        TD_ELIMIT);
    td_desk_free(node);
    td_desk_free(runner);
}

/* Another process begins calls while this one cuts: what has begun is known exactly. */
static void test_desk_between_processes(void **state)
{
    (void)state;
    enum { CALLS = 1 << 30 };
    struct td_desk *node;
    int fd;
    assert_int_equal(td_desk_new(&node, &fd, NULL), 0);
    td_desk_lay(node, CALLS);
    pid_t pid = fork();
    if (pid == 0) {
        struct td_desk *runner;
        if (td_desk_open(fd, &runner, NULL) < 0)
            _exit(1);
        while (td_desk_begin(runner))
            td_desk_done(runner, 0);
        _exit(0);
    }
    while (td_desk_look(node).done < 1000)
        continue;
    uint32_t begun = td_desk_cut(node);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(td_desk_look(node).begun, begun);
    assert_int_equal(td_desk_look(node).done, begun);
    (void)close(fd);
    td_desk_free(node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_desk_results),
        cmocka_unit_test(test_desk_cut),
        cmocka_unit_test(test_desk_is_full),
        cmocka_unit_test(test_desk_between_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
