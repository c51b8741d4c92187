#include "os/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/proc.h"

enum { EVENTS_MAX = 64 };

struct td_loop {
    int epoll;
    int wakeup;
    bool stopped; /* these two belong to whose turn it is */
    bool over;    /* td_loop_run has returned */
    struct td_heap timers;
    struct epoll_event ready[EVENTS_MAX]; /* the batch being dispatched */
    int ready_at, ready_len;

    pthread_mutex_t lock; /* guards all below and each post's `queued` and `next` */
    struct td_post *posts;
    struct td_post **posts_end;
    bool sleeping; /* in epoll_wait, or about to be, with nothing posted or wanted */
    bool deaf;     /* its wakeup was closed by somebody else */

    /* Whose turn it is; guarded by the lock, too. */
    bool turning;     /* some thread turns the loop */
    bool helped;      /* it is one in td_loop_help */
    bool wanted;      /* one in td_loop_help waits for its turn */
    bool resting;     /* nobody turns it, and that may stay so until rest_ns */
    bool owner_waits; /* the thread of td_loop_run, for its turn to come back */
    int64_t rest_ns;
    pthread_cond_t turn; /* one of these has changed */
};

int td_loop_new(struct td_loop **ret_loop, struct td_error *err)
{
    struct td_loop *loop = td_alloc_zero(sizeof *loop);
    if (!loop)
        return td_error_set(err, TD_ENOMEM, "event loop: out of memory");
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->posts_end = &loop->posts;
    (void)pthread_mutex_init(&loop->lock, NULL); /* cannot fail for a default mutex on Linux */
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic); /* these cannot fail on Linux either */
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&loop->turn, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (loop->epoll < 0 || loop->wakeup < 0 ||
        epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wakeup, &event) < 0) {
        int r = td_error_sys(err, errno, "event loop");
        td_loop_free(loop);
        return r;
    }
    *ret_loop = loop;
    return 0;
}

struct td_loop *td_loop_free(struct td_loop *loop)
{
    if (!loop)
        return NULL;
    td_fd_close(&loop->epoll);
    td_fd_close(&loop->wakeup);
    td_heap_done(&loop->timers);
    (void)pthread_cond_destroy(&loop->turn);
    (void)pthread_mutex_destroy(&loop->lock);
    td_free(loop);
    return NULL;
}

static uint32_t epoll_mask(unsigned events)
{
    return (events & TD_LOOP_READ ? (uint32_t)EPOLLIN : 0) |
           (events & TD_LOOP_WRITE ? (uint32_t)EPOLLOUT : 0);
}

int td_loop_watch(struct td_loop *loop, struct td_watch *watch, struct td_error *err)
{
    struct epoll_event event = {.events = epoll_mask(watch->events), .data.ptr = watch};
    if (watch->events && epoll_ctl(loop->epoll, EPOLL_CTL_ADD, watch->fd, &event) < 0)
        return td_error_sys(err, errno, "epoll_ctl");
    return 0;
}

/* Drops what was fetched for the watch and not yet handed to it. */
static void forget_ready(struct td_loop *loop, const struct td_watch *watch)
{
    for (int i = loop->ready_at; i < loop->ready_len; i++)
        if (loop->ready[i].data.ptr == watch)
            loop->ready[i].events = 0;
}

/* epoll reports hang-ups also for an empty mask, which would spin: a paused watch is taken out. */
int td_loop_rewatch(struct td_loop *loop, struct td_watch *watch, unsigned events)
{
    if (events == watch->events)
        return 0;
    int op = watch->events == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    struct epoll_event event = {.events = epoll_mask(events), .data.ptr = watch};
    if (epoll_ctl(loop->epoll, op, watch->fd, &event) < 0)
        return TD_ESYS;
    if (events == 0)
        forget_ready(loop, watch);
    watch->events = events;
    return 0;
}

void td_loop_unwatch(struct td_loop *loop, struct td_watch *watch)
{
    if (!watch->fn)
        return;
    if (watch->events)
        (void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd,
                        NULL); /* a closed fd is out already */
    forget_ready(loop, watch);
    watch->fn = NULL;
}

int td_loop_timer(struct td_loop *loop, struct td_timer *timer, int64_t when_ns)
{
    return td_heap_set(&loop->timers, &timer->entry, when_ns);
}

void td_loop_untimer(struct td_loop *loop, struct td_timer *timer)
{
    td_heap_remove(&loop->timers, &timer->entry);
}

/* Its own thread is to go on turning it; the lock is held. */
static void end_rest(struct td_loop *loop)
{
    if (!loop->resting)
        return;
    loop->resting = false;
    (void)pthread_cond_broadcast(&loop->turn); /* cannot fail */
}

bool td_loop_post(struct td_loop *loop, struct td_post *post)
{
    bool wake = false;
    (void)pthread_mutex_lock(&loop->lock);
    if (!post->queued) {
        post->queued = true;
        post->next = NULL;
        *loop->posts_end = post;
        loop->posts_end = &post->next;
        wake = loop->sleeping;
        loop->sleeping = false;
        end_rest(loop);
    }
    bool deaf = loop->deaf;
    (void)pthread_mutex_unlock(&loop->lock);
    if (!wake || deaf || eventfd_write(loop->wakeup, 1) == 0) /* cannot block: once a sleep */
        return !deaf;
    (void)pthread_mutex_lock(&loop->lock);
    loop->deaf = true;
    (void)pthread_mutex_unlock(&loop->lock);
    return false;
}

void td_loop_unpost(struct td_loop *loop, struct td_post *post)
{
    (void)pthread_mutex_lock(&loop->lock);
    for (struct td_post **at = &loop->posts; post->queued && *at; at = &(*at)->next) {
        if (*at != post)
            continue;
        *at = post->next;
        if (!*at)
            loop->posts_end = at;
        post->queued = false;
        break;
    }
    (void)pthread_mutex_unlock(&loop->lock);
}

static struct td_post *post_pop(struct td_loop *loop)
{
    (void)pthread_mutex_lock(&loop->lock);
    struct td_post *post = loop->posts;
    if (post) {
        loop->posts = post->next;
        if (!loop->posts)
            loop->posts_end = &loop->posts;
        post->queued = false;
    }
    (void)pthread_mutex_unlock(&loop->lock);
    return post;
}

/* Runs what is posted now and not what these post again, so that descriptors get their turn. */
static void run_posts(struct td_loop *loop)
{
    struct td_post end = {.next = NULL, .queued = true};
    (void)pthread_mutex_lock(&loop->lock);
    bool any = loop->posts != NULL;
    if (any) {
        *loop->posts_end = &end;
        loop->posts_end = &end.next;
    }
    (void)pthread_mutex_unlock(&loop->lock);
    if (!any)
        return;
    for (struct td_post *post = post_pop(loop); post != &end; post = post_pop(loop))
        post->fn(post->context);
}

static void run_timers(struct td_loop *loop)
{
    int64_t now = td_clock_now();
    struct td_heap_entry *top = td_heap_top(&loop->timers);
    while (top && top->when_ns <= now) {
        struct td_timer *timer = TD_CONTAINER(top, struct td_timer, entry);
        td_heap_remove(&loop->timers, top);
        timer->fn(timer->context);
        top = td_heap_top(&loop->timers);
    }
}

/* Milliseconds until the next timer or the deadline, rounded up; -1 for none. */
static int wait_ms(const struct td_loop *loop, int64_t deadline_ns)
{
    const struct td_heap_entry *top = td_heap_top(&loop->timers);
    int64_t when = top && top->when_ns < deadline_ns ? top->when_ns : deadline_ns;
    if (when == TD_NO_DEADLINE)
        return -1;
    int64_t ns = when - td_clock_now();
    if (ns <= 0)
        return 0;
    int64_t ms = (ns + TD_NS_PER_MS - 1) / TD_NS_PER_MS;
    return ms > 60000 ? 60000 : (int)ms;
}

/* Waits for descriptors. A post that comes while we sleep, and only that one, wakes us by a
 * system call. */
static int wait_ready(struct td_loop *loop, int64_t deadline_ns)
{
    (void)pthread_mutex_lock(&loop->lock);
    loop->sleeping = loop->posts == NULL && !loop->wanted;
    bool sleep = loop->sleeping;
    (void)pthread_mutex_unlock(&loop->lock);
    int n = epoll_wait(loop->epoll, loop->ready, EVENTS_MAX,
                       sleep ? wait_ms(loop, deadline_ns) : 0);
    int error = errno;
    (void)pthread_mutex_lock(&loop->lock);
    loop->sleeping = false;
    (void)pthread_mutex_unlock(&loop->lock);
    if (n < 0)
        return error == EINTR ? TD_EINTR : TD_ESYS;
    return n;
}

static void dispatch(struct td_loop *loop, const struct epoll_event *event)
{
    struct td_watch *watch = event->data.ptr;
    if (!watch) {
        eventfd_t ignored;
        (void)eventfd_read(loop->wakeup, &ignored); /* it is there to wake us, nothing more */
        return;
    }
    if (!event->events)
        return; /* removed since it was fetched */
    unsigned events = event->events & EPOLLOUT ? (unsigned)TD_LOOP_WRITE : 0;
    if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        events |= TD_LOOP_READ;
    watch->fn(watch->context, events);
}

/* One turn. TD_EINTR: a signal came instead of news. */
static int turn_once(struct td_loop *loop, int64_t deadline_ns)
{
    int n = wait_ready(loop, deadline_ns);
    loop->ready_len = n > 0 ? n : 0;
    for (loop->ready_at = 0; loop->ready_at < loop->ready_len;)
        dispatch(loop, &loop->ready[loop->ready_at++]);
    run_timers(loop);
    run_posts(loop);
    return n < 0 ? n : 0;
}

/* -- whose turn it is ------------------------------------------------------------------------- */

/* How long the loop stands still when a helper has left that is expected back. */
#define REST_NS ((int64_t)2000000)

static void wait_turn(struct td_loop *loop, int64_t until_ns)
{
    struct timespec until = {.tv_sec = until_ns / TD_NS_PER_S, .tv_nsec = until_ns % TD_NS_PER_S};
    if (until_ns == TD_NO_DEADLINE)
        (void)pthread_cond_wait(&loop->turn, &loop->lock); /* looked at again in any case */
    else
        (void)pthread_cond_timedwait(&loop->turn, &loop->lock, &until); /* the same */
}

/* Of the loop's own thread: until no helper turns it, wants to, or is expected back. */
static void take_turn(struct td_loop *loop)
{
    (void)pthread_mutex_lock(&loop->lock);
    while (loop->turning || loop->wanted || (loop->resting && td_clock_now() < loop->rest_ns)) {
        /* A helper that stays long tells when it leaves; one that comes and goes need not. */
        bool rests = loop->resting;
        loop->owner_waits = !rests;
        wait_turn(loop, rests ? loop->rest_ns : TD_NO_DEADLINE);
        loop->owner_waits = false;
    }
    loop->resting = false;
    loop->turning = true;
    (void)pthread_mutex_unlock(&loop->lock);
}

/* Lets a helper have its turn, when one waits for it. */
static void offer_turn(struct td_loop *loop)
{
    (void)pthread_mutex_lock(&loop->lock);
    bool wanted = loop->wanted;
    if (wanted) {
        loop->turning = false;
        (void)pthread_cond_broadcast(&loop->turn); /* cannot fail */
    }
    (void)pthread_mutex_unlock(&loop->lock);
    if (wanted)
        take_turn(loop);
}

int td_loop_run(struct td_loop *loop)
{
    int r = 0;
    take_turn(loop);
    loop->over = false; /* but it may have been stopped already, by one who helps */
    while (!loop->stopped && (r == 0 || r == TD_EINTR)) {
        r = turn_once(loop, TD_NO_DEADLINE);
        offer_turn(loop);
    }
    r = loop->stopped ? 0 : r;
    loop->stopped = false;
    loop->over = true;
    (void)pthread_mutex_lock(&loop->lock);
    loop->turning = false;
    (void)pthread_cond_broadcast(&loop->turn); /* cannot fail */
    (void)pthread_mutex_unlock(&loop->lock);
    return r;
}

/* The lock is held. */
static int get_turn(struct td_loop *loop)
{
    if (loop->wanted || (loop->turning && loop->helped))
        return TD_EAGAIN;
    loop->wanted = true;
    while (loop->turning) {
        bool wake = loop->sleeping;
        loop->sleeping = false;
        if (wake && !loop->deaf && eventfd_write(loop->wakeup, 1) < 0) /* as in td_loop_post */
            loop->deaf = true;
        if (loop->deaf)
            break;
        wait_turn(loop, TD_NO_DEADLINE);
    }
    loop->wanted = false;
    return loop->turning ? TD_EAGAIN : 0;
}

static void give_back(struct td_loop *loop, bool linger)
{
    loop->turning = loop->helped = false;
    loop->resting = linger && !loop->posts && !loop->stopped;
    loop->rest_ns = loop->resting ? td_clock_now() + REST_NS : 0;
    if (loop->owner_waits || !loop->resting)
        (void)pthread_cond_broadcast(&loop->turn); /* cannot fail */
}

/* How long a helper looks again and again before it sleeps, where others run beside it meanwhile:
 * to be woken up would cost as much. */
#define SPIN_NS ((int64_t)150000)

int td_loop_help(struct td_loop *loop, bool (*done)(void *context), void *context, bool linger,
                 int64_t deadline_ns)
{
    int64_t spin_ns = td_proc_cpus() > 1 ? td_clock_now() + SPIN_NS : 0;
    (void)pthread_mutex_lock(&loop->lock);
    int r = get_turn(loop);
    if (r == 0) {
        loop->turning = loop->helped = true;
        loop->resting = false;
    }
    (void)pthread_mutex_unlock(&loop->lock);
    if (r < 0)
        return r;
    while (r == 0 && !done(context)) {
        if (loop->stopped || loop->over)
            r = TD_ECLOSED;
        else if (deadline_ns != TD_NO_DEADLINE && td_clock_now() >= deadline_ns)
            r = TD_ETIMEOUT;
        else
            r = turn_once(loop, td_clock_now() < spin_ns ? 0 : deadline_ns);
    }
    (void)pthread_mutex_lock(&loop->lock);
    give_back(loop, linger);
    (void)pthread_mutex_unlock(&loop->lock);
    return r;
}

void td_loop_stop(struct td_loop *loop)
{
    loop->stopped = true;
}
