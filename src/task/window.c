#include "task/window.h"

#include <stddef.h>

#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "task/outcome.h"

/* An entry is NULL (waits), one of these two marks, or an outcome that waits to be taken. */
static struct td_outcome runs_mark, taken_mark;

struct td_window {
    bool ordered;
    struct td_outcome **ring;
    uint64_t cap; /* 0 or a power of two */
    uint64_t base;
    struct td_list arrived; /* outcomes not yet taken, oldest first */
    struct td_window_counts counts;
};

int td_window_new(bool ordered, struct td_window **ret_window)
{
    struct td_window *window = td_alloc_zero(sizeof *window);
    if (!window)
        return TD_ENOMEM;
    window->ordered = ordered;
    td_list_init(&window->arrived);
    *ret_window = window;
    return 0;
}

static struct td_outcome **entry(const struct td_window *window, uint64_t index)
{
    return &window->ring[index & (window->cap - 1)];
}

struct td_window *td_window_free(struct td_window *window)
{
    if (!window)
        return NULL;
    for (struct td_list *node = td_list_pop(&window->arrived); node;
         node = td_list_pop(&window->arrived))
        td_outcome_free(TD_CONTAINER(node, struct td_outcome, link));
    td_free(window->ring);
    td_free(window);
    return NULL;
}

static int grow(struct td_window *window)
{
    uint64_t cap = window->cap ? window->cap * 2 : 4;
    struct td_outcome **ring = td_alloc_zero(cap * sizeof *ring);
    if (!ring)
        return TD_ENOMEM;
    for (uint64_t i = window->base; i < window->counts.submitted; i++)
        ring[i & (cap - 1)] = *entry(window, i);
    td_free(window->ring);
    window->ring = ring;
    window->cap = cap;
    return 0;
}

int td_window_submit(struct td_window *window, uint64_t *ret_index)
{
    if (td_window_span(window) == window->cap) {
        int r = grow(window);
        if (r < 0)
            return r;
    }
    *ret_index = window->counts.submitted++;
    *entry(window, *ret_index) = NULL;
    return 0;
}

void td_window_unsubmit(struct td_window *window)
{
    window->counts.submitted--;
}

enum td_window_call td_window_state(const struct td_window *window, uint64_t index)
{
    if (index >= window->counts.submitted)
        return TD_CALL_UNKNOWN;
    if (index < window->base)
        return TD_CALL_TAKEN;
    const struct td_outcome *at = *entry(window, index);
    if (!at)
        return TD_CALL_WAITS;
    if (at == &runs_mark)
        return TD_CALL_RUNS;
    return at == &taken_mark ? TD_CALL_TAKEN : TD_CALL_FINISHED;
}

void td_window_started(struct td_window *window, uint64_t index)
{
    if (td_window_state(window, index) != TD_CALL_WAITS)
        return;
    *entry(window, index) = &runs_mark;
    window->counts.running++;
}

int td_window_put(struct td_window *window, struct td_outcome **outcome)
{
    uint64_t index = (*outcome)->index;
    enum td_window_call state = td_window_state(window, index);
    if (state == TD_CALL_UNKNOWN)
        return TD_ENOTFOUND;
    if (state == TD_CALL_FINISHED || state == TD_CALL_TAKEN)
        return TD_EEXISTS;
    struct td_outcome *own = TD_TAKE(*outcome);
    td_list_append(&window->arrived, &own->link);
    window->counts.running -= state == TD_CALL_RUNS;
    window->counts.finished++;
    window->counts.failed += own->status != TD_OUTCOME_OK;
    *entry(window, index) = own;
    return 0;
}

static struct td_outcome *next_outcome(const struct td_window *window)
{
    if (td_list_empty(&window->arrived))
        return NULL;
    if (!window->ordered)
        return TD_CONTAINER(window->arrived.next, struct td_outcome, link);
    return td_window_state(window, window->base) == TD_CALL_FINISHED ? *entry(window, window->base)
                                                                     : NULL;
}

bool td_window_ready(const struct td_window *window)
{
    return next_outcome(window) != NULL;
}

struct td_outcome *td_window_take(struct td_window *window)
{
    struct td_outcome *outcome = next_outcome(window);
    if (!outcome)
        return NULL;
    td_list_remove(&outcome->link);
    *entry(window, outcome->index) = &taken_mark;
    window->counts.taken++;
    while (window->base < window->counts.submitted && *entry(window, window->base) == &taken_mark)
        window->base++;
    return outcome;
}

struct td_window_counts td_window_counts(const struct td_window *window)
{
    return window->counts;
}

uint64_t td_window_span(const struct td_window *window)
{
    return window->counts.submitted - window->base;
}
