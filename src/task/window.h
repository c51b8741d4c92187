/* window.h: one map's results at the caller: what was submitted, what came back, what is next.
 * The decisions of "deliver", pure.
 *
 * Calls are numbered 0, 1, 2, ... as they are submitted. The first outcome of a call counts and
 * every later one is refused, whatever was sent twice on the way: this is where exactly-once
 * delivery is decided.
 *
 * Invariants: base is the lowest call that was not taken; the entries [base, submitted) are in
 * the ring; taken <= finished <= submitted.
 * Threads: one owner at a time (the client holds its lock). */
#ifndef TD_TASK_WINDOW_H
#define TD_TASK_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct td_outcome;
struct td_window;

struct td_window_counts {
    uint64_t submitted;
    uint64_t running; /* started and not finished */
    uint64_t finished;
    uint64_t failed; /* finished with another status than OK */
    uint64_t taken;
};

enum td_window_call {
    TD_CALL_UNKNOWN,
    TD_CALL_WAITS,
    TD_CALL_RUNS,
    TD_CALL_FINISHED,
    TD_CALL_TAKEN
};

/* ordered: results are taken in the order of their calls, else as they finish. */
int td_window_new(bool ordered, struct td_window **ret_window);
struct td_window *td_window_free(struct td_window *window); /* accepts NULL, returns NULL */

/* Adds the next call; *ret_index is its number. TD_ENOMEM. */
int td_window_submit(struct td_window *window, uint64_t *ret_index);

/* Takes the last td_window_submit back: nobody was told of that call. */
void td_window_unsubmit(struct td_window *window);

/* A runner took the call up (also again, for a later attempt). */
void td_window_started(struct td_window *window, uint64_t index);

/* Takes *outcome on success. TD_EEXISTS: that call has one already; TD_ENOTFOUND: no such call. */
int td_window_put(struct td_window *window, struct td_outcome **outcome);

/* The next result, the caller's from now on, or NULL when none is ready. */
struct td_outcome *td_window_take(struct td_window *window);
bool td_window_ready(const struct td_window *window); /* td_window_take would give one */

enum td_window_call td_window_state(const struct td_window *window, uint64_t index);
struct td_window_counts td_window_counts(const struct td_window *window);

/* Entries that are held, results as well as calls under way: what bounds a lazy map's memory. */
uint64_t td_window_span(const struct td_window *window);

#endif
