#include "support.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/err.h"
#include "os/clock.h"
#include "os/event.h"

static void test_event_missed_signal(void **state)
{
    (void)state;
    struct td_event event = {0};
    uint32_t seen = td_event_read(&event);
    td_event_signal(&event);
    assert_int_equal(td_event_wait(&event, seen, TD_NO_DEADLINE), 0); /* at once */
}

static void test_event_timeout(void **state)
{
    (void)state;
    struct td_event event = {0};
    int64_t until = td_clock_now() + 30 * TD_NS_PER_MS;
    assert_int_equal(td_event_wait(&event, td_event_read(&event), until), TD_ETIMEOUT);
    assert_true(td_clock_now() >= until);
    assert_int_equal(td_event_wait(&event, td_event_read(&event), 0), TD_ETIMEOUT);
    assert_int_equal(td_event_wait(&event, td_event_read(&event), -1), TD_ETIMEOUT);
    assert_int_equal(atomic_load(&event.waiters), 0);
}

static void on_signal(int number)
{
    (void)number;
}

struct interrupter {
    pthread_t target;
    atomic_bool done;
};

static void *interrupt_until_done(void *context)
{
    struct interrupter *interrupter = context;
    while (!atomic_load(&interrupter->done)) {
        (void)pthread_kill(interrupter->target, SIGUSR1);
        (void)poll(NULL, 0, 1);
    }
    return NULL;
}

static void test_event_interrupted(void **state)
{
    (void)state;
    struct td_event event = {0};
    struct interrupter interrupter = {.target = pthread_self()};
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART, as Python's */
    pthread_t thread;
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, interrupt_until_done, &interrupter), 0);
    assert_int_equal(td_event_wait(&event, td_event_read(&event), TD_NO_DEADLINE), TD_EINTR);
    atomic_store(&interrupter.done, true);
    int r;
    do
        r = pthread_join(thread, NULL);
    while (r == EINTR);
    assert_int_equal(r, 0);
}

enum { ROUNDS = 20000 };

struct pair {
    struct td_event ping, pong;
};

static void *answer(void *context)
{
    struct pair *pair = context;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        while (td_event_read(&pair->ping) == i)
            (void)td_event_wait(&pair->ping, i, TD_NO_DEADLINE);
        td_event_signal(&pair->pong);
    }
    return NULL;
}

/* No signal is lost in many tight rounds: else this hangs and the time limit ends it. */
static void test_event_ping_pong(void **state)
{
    (void)state;
    static struct pair pair;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer, &pair), 0);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        td_event_signal(&pair.ping);
        while (td_event_read(&pair.pong) == i)
            (void)td_event_wait(&pair.pong, i, TD_NO_DEADLINE);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_missed_signal),
        cmocka_unit_test(test_event_timeout),
        cmocka_unit_test(test_event_interrupted),
        cmocka_unit_test(test_event_ping_pong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
