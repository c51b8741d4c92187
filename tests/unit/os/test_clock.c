#include "support.h"

#include <poll.h>

#include "os/clock.h"

static void test_clock_advances(void **state)
{
    (void)state;
    int64_t last = td_clock_now();
    assert_true(last > 0);
    for (int i = 0; i < 10000; i++) {
        int64_t now = td_clock_now();
        assert_true(now >= last);
        last = now;
    }
    (void)poll(NULL, 0, 20);
    assert_true(td_clock_now() - last >= 20 * TD_NS_PER_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_clock_advances)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
