#include "support.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/loop.h"

struct bench {
    struct td_loop *loop;
    int pair[2];
    struct td_watch watch;
    struct td_watch other;
    struct td_timer timers[4];
    struct td_post posts[2];
    int calls;
    int order[8];
};

static int setup(void **state)
{
    struct bench *bench = td_alloc_zero(sizeof *bench);
    assert_non_null(bench);
    assert_int_equal(td_loop_new(&bench->loop, NULL), 0);
    assert_int_equal(td_fd_socketpair(bench->pair, NULL), 0);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    td_loop_unwatch(bench->loop, &bench->watch);
    td_fd_close(&bench->pair[0]);
    td_fd_close(&bench->pair[1]);
    bench->loop = td_loop_free(bench->loop);
    td_free(bench);
    return 0;
}

static void on_stop(void *context)
{
    struct bench *bench = context;
    td_loop_stop(bench->loop);
}

/* Runs the loop for a while. */
static void run_for(struct bench *bench, int64_t ms)
{
    struct td_timer end = {.fn = on_stop, .context = bench};
    assert_int_equal(td_loop_timer(bench->loop, &end, td_clock_now() + ms * TD_NS_PER_MS), 0);
    assert_int_equal(td_loop_run(bench->loop), 0);
}

static void on_readable(void *context, unsigned events)
{
    struct bench *bench = context;
    char byte;
    assert_int_equal(events, TD_LOOP_READ);
    assert_int_equal(read(bench->pair[0], &byte, 1), 1);
    bench->calls++;
    td_loop_stop(bench->loop);
}

static void test_loop_watch(void **state)
{
    struct bench *bench = *state;
    bench->watch = (struct td_watch){bench->pair[0], TD_LOOP_READ, on_readable, bench};
    assert_int_equal(td_loop_watch(bench->loop, &bench->watch, NULL), 0);
    assert_int_equal(write(bench->pair[1], "x", 1), 1);
    assert_int_equal(td_loop_run(bench->loop), 0);
    assert_int_equal(bench->calls, 1);
    td_loop_unwatch(bench->loop, &bench->watch);
    td_loop_unwatch(bench->loop, &bench->watch); /* a no-op */
    assert_int_equal(write(bench->pair[1], "x", 1), 1);
    run_for(bench, 5);
    assert_int_equal(bench->calls, 1);
}

static void test_loop_watch_paused(void **state)
{
    struct bench *bench = *state;
    bench->watch = (struct td_watch){bench->pair[0], 0, on_readable, bench};
    assert_int_equal(td_loop_watch(bench->loop, &bench->watch, NULL), 0);
    assert_int_equal(write(bench->pair[1], "x", 1), 1);
    run_for(bench, 5);
    assert_int_equal(bench->calls, 0);
    assert_int_equal(td_loop_rewatch(bench->loop, &bench->watch, TD_LOOP_READ), 0);
    assert_int_equal(td_loop_run(bench->loop), 0);
    assert_int_equal(bench->calls, 1);
    assert_int_equal(td_loop_rewatch(bench->loop, &bench->watch, 0), 0);
    td_fd_close(&bench->pair[1]); /* a hang-up does not reach a paused watch */
    run_for(bench, 5);
    assert_int_equal(bench->calls, 1);
}

static void on_writable(void *context, unsigned events)
{
    struct bench *bench = context;
    assert_true(events & TD_LOOP_WRITE);
    bench->calls++;
    td_loop_stop(bench->loop);
}

static void test_loop_watch_write(void **state)
{
    struct bench *bench = *state;
    bench->watch = (struct td_watch){bench->pair[0], TD_LOOP_WRITE, on_writable, bench};
    assert_int_equal(td_loop_watch(bench->loop, &bench->watch, NULL), 0);
    assert_int_equal(td_loop_run(bench->loop), 0);
    assert_int_equal(bench->calls, 1);
}

static void on_ready_remove_other(void *context, unsigned events)
{
    (void)events;
    struct bench *bench = context;
    bench->calls++;
    td_loop_unwatch(bench->loop, &bench->other);
    td_loop_stop(bench->loop);
}

static void on_ready_pause_both(void *context, unsigned events)
{
    (void)events;
    struct bench *bench = context;
    bench->calls++;
    assert_int_equal(td_loop_rewatch(bench->loop, &bench->watch, 0), 0);
    assert_int_equal(td_loop_rewatch(bench->loop, &bench->other, 0), 0);
}

static void watch_both(struct bench *bench, td_watch_fn *fn, td_watch_fn *other)
{
    assert_int_equal(write(bench->pair[0], "x", 1), 1);
    assert_int_equal(write(bench->pair[1], "x", 1), 1);
    bench->watch = (struct td_watch){bench->pair[0], TD_LOOP_READ, fn, bench};
    bench->other = (struct td_watch){bench->pair[1], TD_LOOP_READ, other, bench};
    assert_int_equal(td_loop_watch(bench->loop, &bench->watch, NULL), 0);
    assert_int_equal(td_loop_watch(bench->loop, &bench->other, NULL), 0);
}

static void on_never(void *context, unsigned events)
{
    (void)context;
    (void)events;
    fail_msg("a removed watch was called");
}

/* Both are ready in the same batch; whichever comes first takes the other one out. */
static void test_loop_unwatch_fetched(void **state)
{
    struct bench *bench = *state;
    watch_both(bench, on_ready_remove_other, on_never);
    /* Epoll reports in the order of readiness: make the first one first. */
    assert_int_equal(td_loop_run(bench->loop), 0);
    assert_int_equal(bench->calls, 1);
}

static void test_loop_pause_fetched(void **state)
{
    struct bench *bench = *state;
    watch_both(bench, on_ready_pause_both, on_ready_pause_both);
    run_for(bench, 5);
    assert_int_equal(bench->calls, 1);
    td_loop_unwatch(bench->loop, &bench->other);
}

static void test_loop_watch_fails(void **state)
{
    struct bench *bench = *state;
    struct td_error err = {0};
    struct td_watch watch = {.fd = 9999, .events = TD_LOOP_READ, .fn = on_never};
    assert_int_equal(td_loop_watch(bench->loop, &watch, &err), TD_ESYS);
    assert_true(err.text[0]);
}

static void on_timer(void *context)
{
    struct bench *bench = context;
    bench->order[bench->calls++] = 1;
}

static void on_other_timer(void *context)
{
    struct bench *bench = context;
    bench->order[bench->calls++] = 2;
}

static void test_loop_timers(void **state)
{
    struct bench *bench = *state;
    struct td_timer *timers = bench->timers;
    int64_t now = td_clock_now();
    timers[0] = (struct td_timer){.fn = on_timer, .context = bench};
    timers[1] = (struct td_timer){.fn = on_other_timer, .context = bench};
    timers[2] = (struct td_timer){.fn = on_timer, .context = bench};
    timers[3] = (struct td_timer){.fn = on_timer, .context = bench};
    assert_int_equal(td_loop_timer(bench->loop, &timers[0], now + 20 * TD_NS_PER_MS), 0);
    assert_int_equal(td_loop_timer(bench->loop, &timers[1], now + 10 * TD_NS_PER_MS), 0);
    assert_int_equal(td_loop_timer(bench->loop, &timers[2], now + 1 * TD_NS_PER_MS), 0);
    assert_int_equal(td_loop_timer(bench->loop, &timers[3], TD_NO_DEADLINE), 0);
    td_loop_untimer(bench->loop, &timers[2]);
    td_loop_untimer(bench->loop, &timers[2]); /* a no-op */
    run_for(bench, 40);
    assert_true(td_clock_now() >= now + 20 * TD_NS_PER_MS);
    assert_int_equal(bench->calls, 2);
    assert_int_equal(bench->order[0], 2);
    assert_int_equal(bench->order[1], 1);
}

static void test_loop_timer_moves(void **state)
{
    struct bench *bench = *state;
    struct td_timer *timer = &bench->timers[0];
    *timer = (struct td_timer){.fn = on_timer, .context = bench};
    assert_int_equal(td_loop_timer(bench->loop, timer, td_clock_now() + 60 * TD_NS_PER_S), 0);
    assert_int_equal(td_loop_timer(bench->loop, timer, 0), 0);
    run_for(bench, 5);
    assert_int_equal(bench->calls, 1);
}

static void on_post_again(void *context)
{
    struct bench *bench = context;
    bench->calls++;
    td_loop_post(bench->loop, &bench->posts[0]);
}

/* A post that posts itself for ever does not starve timers and descriptors. */
static void test_loop_post_again(void **state)
{
    struct bench *bench = *state;
    bench->posts[0] = (struct td_post){.fn = on_post_again, .context = bench};
    td_loop_post(bench->loop, &bench->posts[0]);
    run_for(bench, 10);
    assert_true(bench->calls > 1);
    td_loop_unpost(bench->loop, &bench->posts[0]);
}

static void test_loop_post_once(void **state)
{
    struct bench *bench = *state;
    bench->posts[0] = (struct td_post){.fn = on_timer, .context = bench};
    bench->posts[1] = (struct td_post){.fn = on_other_timer, .context = bench};
    for (int i = 0; i < 5; i++) {
        td_loop_post(bench->loop, &bench->posts[1]);
        td_loop_post(bench->loop, &bench->posts[0]);
    }
    run_for(bench, 5);
    assert_int_equal(bench->calls, 2);
    assert_int_equal(bench->order[0], 2);
    assert_int_equal(bench->order[1], 1);
    td_loop_post(bench->loop, &bench->posts[0]);
    td_loop_post(bench->loop, &bench->posts[1]);
    td_loop_unpost(bench->loop, &bench->posts[1]);
    td_loop_unpost(bench->loop, &bench->posts[1]); /* a no-op */
    td_loop_unpost(bench->loop, &bench->posts[0]);
    td_loop_post(bench->loop, &bench->posts[1]);
    run_for(bench, 5);
    assert_int_equal(bench->calls, 3);
    assert_int_equal(bench->order[2], 2);
}

enum { POSTS = 5000 };

struct poster {
    struct bench *bench;
    struct td_post post;
    int left; /* loop thread */
    pthread_mutex_t lock;
    pthread_cond_t taken;
    int taken_count; /* guarded by lock */
};

static void on_thread_post(void *context)
{
    struct poster *poster = context;
    (void)pthread_mutex_lock(&poster->lock);
    poster->taken_count++;
    (void)pthread_cond_signal(&poster->taken);
    (void)pthread_mutex_unlock(&poster->lock);
    if (--poster->left == 0 && --poster->bench->calls == 0)
        td_loop_stop(poster->bench->loop);
}

static void *post_many(void *context)
{
    struct poster *poster = context;
    for (int i = 0; i < POSTS; i++) {
        td_loop_post(poster->bench->loop, &poster->post);
        (void)pthread_mutex_lock(&poster->lock);
        while (poster->taken_count <= i)
            (void)pthread_cond_wait(&poster->taken, &poster->lock);
        (void)pthread_mutex_unlock(&poster->lock);
    }
    return NULL;
}

/* Every post from another thread runs: none is lost, else this hangs. */
static void test_loop_post_threads(void **state)
{
    struct bench *bench = *state;
    enum { THREADS = 3 };
    static struct poster posters[THREADS];
    pthread_t threads[THREADS];
    bench->calls = THREADS;
    for (int i = 0; i < THREADS; i++) {
        posters[i] = (struct poster){.bench = bench, .left = POSTS};
        posters[i].post = (struct td_post){.fn = on_thread_post, .context = &posters[i]};
        (void)pthread_mutex_init(&posters[i].lock, NULL);
        (void)pthread_cond_init(&posters[i].taken, NULL);
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, &posters[i]), 0);
    }
    assert_int_equal(td_loop_run(bench->loop), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void test_loop_new_fails(void **state)
{
    (void)state;
    struct td_loop *loop = NULL;
    struct td_error err = {0};
    struct rlimit before, none;
    size_t fds = support_fds();
    td_mem_fail(1, 0);
    assert_int_equal(td_loop_new(&loop, &err), TD_ENOMEM);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = (rlim_t)dup(0); /* the lowest free number: the second one fails */
    assert_int_equal(close((int)none.rlim_cur), 0);
    none.rlim_cur++;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int r = td_loop_new(&loop, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(r, TD_ELIMIT);
    assert_null(loop);
    assert_int_equal(support_fds(), fds);
    assert_null(td_loop_free(NULL));
}

static void test_loop_timer_no_memory(void **state)
{
    struct bench *bench = *state;
    td_mem_fail(1, 0);
    assert_int_equal(td_loop_timer(bench->loop, &bench->timers[0], 1), TD_ENOMEM);
}

/* -- helping ---------------------------------------------------------------------------------- */

static void *run_thread(void *context)
{
    struct bench *bench = context;
    assert_int_equal(td_loop_run(bench->loop), 0);
    return NULL;
}

/* Calls of a post, and the thread that made the last one. */
struct visit {
    struct td_post post;
    _Atomic int visits;
    pthread_t by;
};

static void on_visit(void *context)
{
    struct visit *visit = context;
    visit->by = pthread_self();
    visit->visits++;
}

static bool visited(void *context)
{
    return ((struct visit *)context)->visits > 0;
}

static bool visited_twice(void *context)
{
    return ((struct visit *)context)->visits > 1;
}

/* Who helps runs what comes, whether the loop slept or rests; afterwards its own thread does. */
static void test_loop_help(void **state)
{
    struct bench *bench = *state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_thread, bench), 0);
    for (int round = 0; round < 200; round++) {
        struct visit visit = {.post = {.fn = on_visit, .context = &visit}};
        struct visit later = {.post = {.fn = on_visit, .context = &later}};
        bool linger = round % 2;
        assert_int_equal(td_loop_help(bench->loop, visited, &visit, linger, 1), TD_ETIMEOUT);
        assert_true(td_loop_post(bench->loop, &visit.post));
        assert_int_equal(td_loop_help(bench->loop, visited, &visit, linger, TD_NO_DEADLINE), 0);
        assert_true(td_loop_post(bench->loop, &later.post));
        while (!visited(&later)) /* nobody helps */
            continue;
        assert_true(pthread_equal(later.by, thread));
    }
    struct td_post stop = {.fn = on_stop, .context = bench};
    assert_true(td_loop_post(bench->loop, &stop));
    assert_int_equal(pthread_join(thread, NULL), 0);
}

struct helper {
    struct bench *bench;
    struct visit visit;
    int result;
};

static void *help_thread(void *context)
{
    struct helper *helper = context;
    do /* the other one may have been quicker */
        helper->result = td_loop_help(helper->bench->loop, visited_twice, &helper->visit, false,
                                      TD_NO_DEADLINE);
    while (helper->result == TD_EAGAIN);
    return NULL;
}

/* One helps at a time, posts reach it, and a stopped loop sends it away. */
static void test_loop_help_one_at_a_time(void **state)
{
    struct bench *bench = *state;
    pthread_t thread, second;
    struct helper helper = {.bench = bench};
    helper.visit.post = (struct td_post){.fn = on_visit, .context = &helper.visit};
    assert_int_equal(pthread_create(&thread, NULL, run_thread, bench), 0);
    assert_int_equal(pthread_create(&second, NULL, help_thread, &helper), 0);
    struct visit other = {.visits = 0};
    int r;
    while ((r = td_loop_help(bench->loop, visited, &other, false, 1)) == TD_ETIMEOUT)
        continue; /* until the other one has come */
    assert_int_equal(r, TD_EAGAIN);
    assert_true(td_loop_post(bench->loop, &helper.visit.post));
    while (!visited(&helper.visit))
        continue;
    struct td_post stop = {.fn = on_stop, .context = bench};
    assert_true(td_loop_post(bench->loop, &stop));
    assert_int_equal(pthread_join(second, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(helper.result, TD_ECLOSED);
    assert_int_equal(td_loop_help(bench->loop, visited, &other, true, TD_NO_DEADLINE), TD_ECLOSED);
}

#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_loop_watch),
        LOOP_TEST(test_loop_watch_paused),
        LOOP_TEST(test_loop_watch_write),
        LOOP_TEST(test_loop_unwatch_fetched),
        LOOP_TEST(test_loop_pause_fetched),
        LOOP_TEST(test_loop_watch_fails),
        LOOP_TEST(test_loop_timers),
        LOOP_TEST(test_loop_timer_moves),
        LOOP_TEST(test_loop_post_again),
        LOOP_TEST(test_loop_post_once),
        LOOP_TEST(test_loop_post_threads),
        LOOP_TEST(test_loop_help),
        LOOP_TEST(test_loop_help_one_at_a_time),
        LOOP_TEST(test_loop_timer_no_memory),
        cmocka_unit_test(test_loop_new_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
