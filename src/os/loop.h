/* loop.h: one thread's event loop: descriptors (epoll), timers, and work posted by other threads.
 *
 * A thread that has to wait for what the loop brings can turn the loop itself meanwhile: then news
 * reach it without another thread that must be woken up first, which is most of what a short wait
 * costs (leader and followers; Schmidt et al., Pattern Languages of Program Design 4).
 *
 * Invariants: callbacks run one at a time, on the thread that turns the loop, "the loop thread":
 * the one that called td_loop_run, or one in td_loop_help; a watch that was removed is not called
 * any more, also when its event was already fetched. Threads: everything belongs to the loop thread
 * except functions marked "any thread". Lifetime: watches, timers and posts are embedded in their
 * owners, which remove them before they die; td_loop_free comes after the last of them. */
#ifndef TD_OS_LOOP_H
#define TD_OS_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/heap.h"

struct td_loop;
struct td_error;

enum td_loop_events { TD_LOOP_READ = 1 << 0, TD_LOOP_WRITE = 1 << 1 };

/* events: what is ready; a hang-up or an error counts as readable, so that reading finds it. */
typedef void td_watch_fn(void *context, unsigned events);
typedef void td_work_fn(void *context);

struct td_watch {
    int fd;
    unsigned events;
    td_watch_fn *fn;
    void *context;
};

struct td_timer {
    struct td_heap_entry entry;
    td_work_fn *fn;
    void *context;
};

struct td_post {
    td_work_fn *fn;
    void *context;
    struct td_post *next;
    bool queued; /* guarded by the loop's mutex */
};

int td_loop_new(struct td_loop **ret_loop, struct td_error *err);
struct td_loop *td_loop_free(struct td_loop *loop); /* accepts NULL, returns NULL */

/* Runs until td_loop_stop. TD_ESYS when epoll itself fails. */
int td_loop_run(struct td_loop *loop);
void td_loop_stop(struct td_loop *loop);

/* Any thread: turns the loop in place of its thread until done(context) or the deadline. With
 * linger the loop then stands still for a moment, in the hope that this is called again soon. 0,
 * TD_ETIMEOUT, TD_EINTR; TD_EAGAIN: another thread helps already; TD_ECLOSED: the loop was stopped;
 * TD_ESYS. done is called between callbacks. */
int td_loop_help(struct td_loop *loop, bool (*done)(void *context), void *context, bool linger,
                 int64_t deadline_ns);

/* Starts to watch *watch (filled in by the caller). TD_ENOMEM, TD_ELIMIT, TD_ESYS. */
int td_loop_watch(struct td_loop *loop, struct td_watch *watch, struct td_error *err);
/* Changes what is watched for; 0 events pauses the watch. */
int td_loop_rewatch(struct td_loop *loop, struct td_watch *watch, unsigned events);
void td_loop_unwatch(struct td_loop *loop, struct td_watch *watch); /* no-op when not watched */

/* Calls timer->fn once, not before when_ns; set again it moves. TD_ENOMEM. */
int td_loop_timer(struct td_loop *loop, struct td_timer *timer, int64_t when_ns);
void td_loop_untimer(struct td_loop *loop, struct td_timer *timer);

/* Any thread: post->fn runs on the loop thread soon. A post that is queued already stays as it
 * is, so many calls make one run. False, from then on: the loop cannot be woken, because the
 * program that we are a guest in has closed our descriptors. */
bool td_loop_post(struct td_loop *loop, struct td_post *post);

/* Takes a post back out; it will not run. Loop thread. */
void td_loop_unpost(struct td_loop *loop, struct td_post *post);

#endif
