#include "task/window.h"

#include "support.h"

#include "base/err.h"
#include "base/mem.h"
#include "task/outcome.h"

static void submit(struct td_window *window, unsigned calls)
{
    uint64_t index;
    for (unsigned i = 0; i < calls; i++)
        assert_int_equal(td_window_submit(window, 1, &index), 0);
}

static int put_many(struct td_window *window, uint64_t index, uint32_t count, uint8_t status)
{
    struct td_outcome *outcome = td_outcome_new(1, index, 1, status);
    outcome->count = count;
    int r = td_window_put(window, &outcome);
    assert_true((r == 0) == (outcome == NULL));
    td_outcome_free(outcome);
    return r;
}

static int put(struct td_window *window, uint64_t index, uint8_t status)
{
    return put_many(window, index, 1, status);
}

/* The next is of these calls, whose results are in its value after `skip` others. */
static void take_many(struct td_window *window, uint64_t index, uint32_t count, uint32_t skip)
{
    struct td_outcome *outcome = td_window_take(window);
    assert_non_null(outcome);
    assert_int_equal(outcome->index, index);
    assert_int_equal(outcome->count, count);
    assert_int_equal(outcome->skip, skip);
    td_outcome_free(outcome);
}

static void take(struct td_window *window, uint64_t index)
{
    take_many(window, index, 1, 0);
}

static void test_window_delivers_in_order(void **state)
{
    (void)state;
    struct td_window *window;
    assert_int_equal(td_window_new(true, &window), 0);
    submit(window, 3);
    assert_int_equal(put(window, 2, TD_OUTCOME_OK), 0);
    assert_int_equal(put(window, 1, TD_OUTCOME_OK), 0);
    assert_null(td_window_take(window));
    assert_int_equal(put(window, 0, TD_OUTCOME_RAISED), 0);
    take(window, 0);
    take(window, 1);
    take(window, 2);
    assert_null(td_window_take(window));
    assert_int_equal(td_window_counts(window).failed, 1);
    assert_int_equal(td_window_span(window), 0);
    td_window_free(window);
}

static void test_window_delivers_as_they_finish(void **state)
{
    (void)state;
    struct td_window *window;
    assert_int_equal(td_window_new(false, &window), 0);
    submit(window, 3);
    assert_int_equal(put(window, 2, TD_OUTCOME_OK), 0);
    assert_int_equal(put(window, 0, TD_OUTCOME_OK), 0);
    take(window, 2);
    assert_int_equal(td_window_state(window, 2), TD_CALL_TAKEN);
    take(window, 0);
    assert_int_equal(td_window_span(window), 2); /* call 1 holds the ring */
    td_window_free(window);
}

static void test_window_counts_the_first_outcome_only(void **state)
{
    (void)state;
    struct td_window *window;
    assert_int_equal(td_window_new(true, &window), 0);
    submit(window, 2);
    assert_int_equal(put(window, 0, TD_OUTCOME_OK), 0);
    assert_int_equal(put(window, 0, TD_OUTCOME_RAISED), TD_EEXISTS);
    take(window, 0);
    assert_int_equal(put(window, 0, TD_OUTCOME_OK), TD_EEXISTS);
    assert_int_equal(put(window, 2, TD_OUTCOME_OK), TD_ENOTFOUND);
    assert_int_equal(td_window_counts(window).finished, 1);
    td_window_free(window);
}

static void test_window_counts_running_calls_once(void **state)
{
    (void)state;
    struct td_window *window;
    assert_int_equal(td_window_new(true, &window), 0);
    submit(window, 2);
    td_window_started(window, 0, 1);
    td_window_started(window, 0, 1); /* a second attempt */
    assert_int_equal(td_window_counts(window).running, 1);
    assert_int_equal(put(window, 0, TD_OUTCOME_OK), 0);
    td_window_started(window, 0, 1); /* late */
    assert_int_equal(td_window_counts(window).running, 0);
    td_window_free(window);
}

static void test_window_takes_several_calls_at_once(void **state)
{
    (void)state;
    struct td_window *window;
    uint64_t index;
    assert_int_equal(td_window_new(true, &window), 0);
    assert_int_equal(td_window_submit(window, 10, &index), 0);
    assert_int_equal(index, 0);
    td_window_started(window, 0, 10);
    assert_int_equal(put_many(window, 6, 4, TD_OUTCOME_CANCELLED), 0);
    assert_int_equal(td_window_counts(window).running, 6);
    assert_int_equal(td_window_counts(window).failed, 4);
    assert_null(td_window_take(window));
    assert_int_equal(put_many(window, 0, 6, TD_OUTCOME_OK), 0);
    take_many(window, 0, 6, 0);
    take_many(window, 6, 4, 0);
    assert_int_equal(td_window_counts(window).taken, 10);
    assert_int_equal(put_many(window, 8, 3, TD_OUTCOME_OK), TD_ENOTFOUND);
    td_window_free(window);
}

/* Of an outcome of several calls only those count that had none. */
static void test_window_takes_what_is_new_of_several(void **state)
{
    (void)state;
    struct td_window *window;
    uint64_t index;
    assert_int_equal(td_window_new(true, &window), 0);
    assert_int_equal(td_window_submit(window, 10, &index), 0);
    assert_int_equal(put_many(window, 2, 2, TD_OUTCOME_OK), 0);
    assert_int_equal(put(window, 7, TD_OUTCOME_OK), 0);
    assert_int_equal(put_many(window, 2, 2, TD_OUTCOME_OK), TD_EEXISTS);
    td_mem_fail(2, 0);
    assert_int_equal(put_many(window, 0, 10, TD_OUTCOME_OK), TD_ENOMEM);
    td_mem_fail(0, 0);
    assert_int_equal(td_window_counts(window).finished, 3);
    assert_int_equal(put_many(window, 0, 10, TD_OUTCOME_OK), 0);
    take_many(window, 0, 2, 0);
    take_many(window, 2, 2, 0);
    take_many(window, 4, 3, 4);
    take_many(window, 7, 1, 0);
    take_many(window, 8, 2, 8);
    assert_null(td_window_take(window));
    td_window_free(window);
}

/* Random submissions, outcomes (some twice) and readings: each call comes out exactly once. */
static void run_random(bool ordered, uint64_t seed)
{
    enum { CALLS = 500 };
    struct td_window *window;
    unsigned taken[CALLS] = {0};
    uint64_t submitted = 0, last = 0;
    assert_int_equal(td_window_new(ordered, &window), 0);
    while (td_window_counts(window).taken < CALLS) {
        uint64_t index;
        uint32_t count = 1 + (uint32_t)(support_random(&seed) % 9);
        if (submitted + count <= CALLS && support_random(&seed) % 2) {
            assert_int_equal(td_window_submit(window, count, &index), 0);
            assert_int_equal(index, submitted);
            submitted += count;
        } else if (submitted + 9 > CALLS && submitted < CALLS) {
            assert_int_equal(td_window_submit(window, 1, &index), 0);
            submitted++;
        }
        if (submitted) {
            uint64_t first = support_random(&seed) % submitted;
            uint64_t most = submitted - first;
            (void)put_many(window, first, 1 + (uint32_t)(support_random(&seed) % most),
                           TD_OUTCOME_OK);
        }
        struct td_outcome *outcome = td_window_take(window);
        if (!outcome)
            continue;
        for (uint32_t i = 0; i < outcome->count; i++)
            taken[outcome->index + i]++;
        assert_true(!ordered || outcome->index == last);
        last += outcome->count;
        td_outcome_free(outcome);
    }
    for (unsigned i = 0; i < CALLS; i++)
        assert_int_equal(taken[i], 1);
    td_window_free(window);
}

static void test_window_gives_each_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        run_random(true, seed);
        run_random(false, seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_delivers_in_order),
        cmocka_unit_test(test_window_delivers_as_they_finish),
        cmocka_unit_test(test_window_counts_the_first_outcome_only),
        cmocka_unit_test(test_window_counts_running_calls_once),
        cmocka_unit_test(test_window_takes_several_calls_at_once),
        cmocka_unit_test(test_window_takes_what_is_new_of_several),
        cmocka_unit_test(test_window_gives_each_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
