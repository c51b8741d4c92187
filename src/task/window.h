/* window.h: one map's results at the caller: what was submitted, what came back, what is next.
 * The decisions of "deliver", pure.
 *
 * Calls are numbered 0, 1, 2, ... as they are submitted. The first outcome of a call counts and
 * every later one is refused, whatever was sent twice on the way: this is where exactly-once
 * delivery is decided.
 *
 * Outcomes may be of several calls that follow each other, and are taken as they came, less the
 * calls that had one already.
 *
 * Invariants: base is the lowest call that was not taken; the entries [base, submitted) are in
 * the ring; taken <= finished <= submitted. Counts are of calls.
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

/* Adds the next `count` calls; *ret_index is the number of the first. TD_ENOMEM. */
int td_window_submit(struct td_window *window, uint32_t count, uint64_t *ret_index);

/* Takes the last td_window_submit of `count` back: nobody was told of these calls. */
void td_window_unsubmit(struct td_window *window, uint32_t count);

/* A runner took the calls up (also again, for a later attempt). Unknown ones are ignored. */
void td_window_started(struct td_window *window, uint64_t index, uint32_t count);

/* Takes *outcome on success. TD_EEXISTS: all its calls have one already; TD_ENOTFOUND: there is
 * no such call; TD_ENOMEM, when some of its calls in the middle had one: none counts. */
int td_window_put(struct td_window *window, struct td_outcome **outcome);

/* The next result, the caller's from now on, or NULL when none is ready. */
struct td_outcome *td_window_take(struct td_window *window);
const struct td_outcome *td_window_peek(const struct td_window *window); /* it stays in there */

enum td_window_call td_window_state(const struct td_window *window, uint64_t index);
struct td_window_counts td_window_counts(const struct td_window *window);

/* Entries that are held, results as well as calls under way: what bounds a lazy map's memory. */
uint64_t td_window_span(const struct td_window *window);

#endif
