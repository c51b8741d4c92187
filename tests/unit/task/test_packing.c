#include "task/packing.h"

#include "support.h"

#define MS ((int64_t)1000000)

static void test_packing_probes_first(void **state)
{
    (void)state;
    struct td_packing packing;
    int64_t when;
    td_packing_init(&packing, 2);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(td_packing_next(&packing, 1000, 0, &when), 1);
        td_packing_submitted(&packing, 1);
    }
    assert_int_equal(td_packing_next(&packing, 1000, 0, &when), 0);
    assert_true(when == INT64_MAX); /* nobody knows when one will start */
    td_packing_started(&packing, 5 * MS);
    assert_int_equal(td_packing_next(&packing, 1000, 6 * MS, &when), 0);
    assert_true(when == 5 * MS + TD_PACKING_TARGET_NS);
    assert_int_equal(td_packing_next(&packing, 1000, when, &when), 1); /* they are long */
}

static void test_packing_grows_to_the_target(void **state)
{
    (void)state;
    struct td_packing packing;
    int64_t when;
    uint32_t last = 1;
    td_packing_init(&packing, 2);
    for (int i = 0; i < 10; i++) { /* 0.1 ms each */
        td_packing_submitted(&packing, last);
        td_packing_finished(&packing, last, last * MS / 10);
        uint32_t next = td_packing_next(&packing, UINT64_MAX, 0, &when);
        assert_true(next >= last && next <= 8 * last);
        last = next;
    }
    assert_int_equal(last, TD_PACKING_TARGET_NS / (MS / 10));
    td_packing_submitted(&packing, last);
    td_packing_finished(&packing, last, last * MS); /* they get slower */
    assert_true(td_packing_next(&packing, UINT64_MAX, 0, &when) < last / 4);
}

/* What is not known to be quick is not packed far ahead. */
static void test_packing_waits_while_it_grows(void **state)
{
    (void)state;
    struct td_packing packing;
    int64_t when;
    td_packing_init(&packing, 2);
    td_packing_submitted(&packing, 1);
    td_packing_finished(&packing, 1, 1000);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(td_packing_next(&packing, UINT64_MAX, 0, &when), 8);
        td_packing_submitted(&packing, 8);
    }
    assert_int_equal(td_packing_next(&packing, UINT64_MAX, 0, &when), 0);
    td_packing_finished(&packing, 8, 0);
    assert_int_equal(td_packing_next(&packing, UINT64_MAX, 0, &when), 8);
    td_packing_finished(&packing, 8, 8000);
    assert_int_equal(td_packing_next(&packing, UINT64_MAX, 0, &when), 64);
}

static void test_packing_has_limits(void **state)
{
    (void)state;
    struct td_packing packing;
    int64_t when;
    td_packing_init(&packing, 0);
    td_packing_finished(&packing, 0, 1);
    assert_int_equal(packing.call_ns, 0);
    for (int i = 0; i < 20; i++)
        td_packing_finished(&packing, TD_PACKING_MAX, 1);
    td_packing_submitted(&packing, 20 * TD_PACKING_MAX);
    assert_int_equal(td_packing_next(&packing, UINT64_MAX, 0, &when), TD_PACKING_MAX);
    assert_int_equal(td_packing_next(&packing, 100, 0, &when), 50); /* the end is shared */
    assert_int_equal(td_packing_next(&packing, 0, 0, &when), 1);
    td_packing_finished(&packing, 1, INT64_MAX);
    assert_int_equal(td_packing_next(&packing, UINT64_MAX, 0, &when), 1);
}

/* Two runners, calls of random durations by a seed: they end together, and sending costs little. */
static void test_packing_simulated(void **state)
{
    (void)state;
    enum { CALLS = 20000, RUNNERS = 2, SEND_NS = 100000 };
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct td_packing packing;
        int64_t free_at[RUNNERS] = {0}, work = 0, end = 0;
        uint64_t random = seed, left = CALLS;
        td_packing_init(&packing, RUNNERS);
        while (left > 0) {
            int runner = free_at[0] <= free_at[1] ? 0 : 1;
            int64_t when, now = free_at[runner], spent = 0;
            uint32_t count = td_packing_next(&packing, left, now, &when);
            count = count == 0 ? 1 : count > left ? (uint32_t)left : count;
            for (uint32_t i = 0; i < count; i++)
                spent += (int64_t)(support_random(&random) % (2 * seed * 20000));
            td_packing_submitted(&packing, count);
            td_packing_started(&packing, now + 1);
            td_packing_finished(&packing, count, spent);
            free_at[runner] = now + spent + SEND_NS;
            end = free_at[runner] > end ? free_at[runner] : end;
            work += spent;
            left -= count;
        }
        if (end > work / RUNNERS * 103 / 100 + 10 * MS)
            fail_msg("seed %d: %lld ns for %lld ns of work", (int)seed, (long long)end,
                     (long long)work);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing_probes_first),
        cmocka_unit_test(test_packing_grows_to_the_target),
        cmocka_unit_test(test_packing_waits_while_it_grows),
        cmocka_unit_test(test_packing_has_limits),
        cmocka_unit_test(test_packing_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
