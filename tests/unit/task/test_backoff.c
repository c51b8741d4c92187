#include "task/backoff.h"

#include "support.h"

static void test_backoff_doubles_up_to_its_maximum(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        for (uint32_t attempt = 1; attempt < 80; attempt++) {
            int64_t full = attempt > 7 ? 6400 : 100 << (attempt - 1);
            int64_t pause = td_backoff_ns(100, 6400, attempt, seed);
            assert_true(pause >= full / 2 && pause <= full);
        }
    }
}

static void test_backoff_replays_and_scatters(void **state)
{
    (void)state;
    unsigned same = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        assert_int_equal(td_backoff_ns(1000, 1000, 1, seed), td_backoff_ns(1000, 1000, 1, seed));
        same += td_backoff_ns(1000, 1000, 1, seed) == td_backoff_ns(1000, 1000, 1, seed + 1);
    }
    assert_true(same < 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backoff_doubles_up_to_its_maximum),
        cmocka_unit_test(test_backoff_replays_and_scatters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
