#include "os/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "os/clock.h"
#include "os/fd.h"

enum { EVENTS_MAX = 64 };

struct td_loop {
    int epoll;
    int wakeup;
    bool stopped;
    struct td_heap timers;
    struct epoll_event ready[EVENTS_MAX]; /* the batch being dispatched */
    int ready_at, ready_len;

    pthread_mutex_t lock; /* guards the five below and each post's `queued` and `next` */
    struct td_post *posts;
    struct td_post **posts_end;
    bool sleeping; /* in epoll_wait, or about to be, with nothing posted */
    bool deaf;     /* its wakeup was closed by somebody else */
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

/* Milliseconds until the next timer, rounded up; -1 for none. */
static int wait_ms(const struct td_loop *loop)
{
    const struct td_heap_entry *top = td_heap_top(&loop->timers);
    if (!top || top->when_ns == TD_NO_DEADLINE)
        return -1;
    int64_t ns = top->when_ns - td_clock_now();
    if (ns <= 0)
        return 0;
    int64_t ms = (ns + TD_NS_PER_MS - 1) / TD_NS_PER_MS;
    return ms > 60000 ? 60000 : (int)ms;
}

/* Waits for descriptors. A post that comes while we sleep, and only that one, wakes us by a
 * system call. */
static int wait_ready(struct td_loop *loop)
{
    (void)pthread_mutex_lock(&loop->lock);
    loop->sleeping = loop->posts == NULL;
    bool sleep = loop->sleeping;
    (void)pthread_mutex_unlock(&loop->lock);
    int n = epoll_wait(loop->epoll, loop->ready, EVENTS_MAX, sleep ? wait_ms(loop) : 0);
    int error = errno;
    (void)pthread_mutex_lock(&loop->lock);
    loop->sleeping = false;
    (void)pthread_mutex_unlock(&loop->lock);
    if (n < 0 && error != EINTR)
        return TD_ESYS;
    return n > 0 ? n : 0;
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

int td_loop_run(struct td_loop *loop)
{
    loop->stopped = false;
    while (!loop->stopped) {
        int n = wait_ready(loop);
        if (n < 0)
            return n;
        loop->ready_len = n;
        for (loop->ready_at = 0; loop->ready_at < loop->ready_len;)
            dispatch(loop, &loop->ready[loop->ready_at++]);
        run_timers(loop);
        run_posts(loop);
    }
    return 0;
}

void td_loop_stop(struct td_loop *loop)
{
    loop->stopped = true;
}
