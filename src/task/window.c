#include "task/window.h"

#include <stddef.h>

#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "task/outcome.h"

/* An entry is NULL (waits), one of these marks, or an outcome that waits to be taken: in the place
 * of its first call; `more` stands for its others. */
static struct td_outcome runs_mark, taken_mark, more_mark;

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

static int grow(struct td_window *window, uint64_t span)
{
    uint64_t cap = window->cap ? window->cap : 4;
    while (cap < span)
        cap *= 2;
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

static void mark(struct td_window *window, uint64_t index, uint32_t count, struct td_outcome *with)
{
    for (uint64_t i = index; i < index + count; i++)
        *entry(window, i) = with;
}

int td_window_submit(struct td_window *window, uint32_t count, uint64_t *ret_index)
{
    uint64_t span = td_window_span(window) + count;
    int r = span > window->cap ? grow(window, span) : 0;
    if (r < 0)
        return r;
    *ret_index = window->counts.submitted;
    window->counts.submitted += count;
    mark(window, *ret_index, count, NULL);
    return 0;
}

void td_window_unsubmit(struct td_window *window, uint32_t count)
{
    window->counts.submitted -= count;
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

void td_window_started(struct td_window *window, uint64_t index, uint32_t count)
{
    for (uint64_t i = index; i < index + count; i++) {
        if (td_window_state(window, i) != TD_CALL_WAITS)
            continue;
        *entry(window, i) = &runs_mark;
        window->counts.running++;
    }
}

static bool is_open(const struct td_window *window, uint64_t index)
{
    enum td_window_call state = td_window_state(window, index);
    return state == TD_CALL_WAITS || state == TD_CALL_RUNS;
}

/* Of the calls [index, end): the first run of those without an outcome. */
static uint32_t next_run(const struct td_window *window, uint64_t *index, uint64_t end)
{
    while (*index < end && !is_open(window, *index))
        (*index)++;
    uint64_t after = *index;
    while (after < end && is_open(window, after))
        after++;
    return (uint32_t)(after - *index);
}

static void keep(struct td_window *window, struct td_outcome *own)
{
    for (uint64_t i = own->index; i < own->index + own->count; i++)
        window->counts.running -= *entry(window, i) == &runs_mark;
    window->counts.finished += own->count;
    window->counts.failed += own->status != TD_OUTCOME_OK ? own->count : 0;
    mark(window, own->index, own->count, &more_mark);
    *entry(window, own->index) = own;
    td_list_append(&window->arrived, &own->link);
}

/* The parts of an outcome some of whose calls have another. */
static int split(const struct td_window *window, const struct td_outcome *outcome,
                 struct td_list *parts)
{
    uint64_t end = outcome->index + outcome->count;
    for (uint64_t at = outcome->index;;) {
        uint32_t run = next_run(window, &at, end);
        struct td_outcome *part = run ? td_outcome_part(outcome, at, run) : NULL;
        if (run == 0)
            return 0;
        if (!part)
            return TD_ENOMEM;
        td_list_append(parts, &part->link);
        at += run;
    }
}

int td_window_put(struct td_window *window, struct td_outcome **outcome)
{
    uint64_t index = (*outcome)->index, end = index + (*outcome)->count;
    if (index >= end || end > window->counts.submitted)
        return TD_ENOTFOUND;
    uint32_t run = next_run(window, &index, end);
    if (run == 0)
        return TD_EEXISTS;
    if (run == (*outcome)->count) {
        keep(window, TD_TAKE(*outcome));
        return 0;
    }
    struct td_list parts;
    td_list_init(&parts);
    int r = split(window, *outcome, &parts);
    for (struct td_list *node = td_list_pop(&parts); node; node = td_list_pop(&parts)) {
        struct td_outcome *part = TD_CONTAINER(node, struct td_outcome, link);
        if (r == 0)
            keep(window, part);
        else
            td_outcome_free(part);
    }
    if (r == 0)
        *outcome = td_outcome_free(*outcome);
    return r;
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

const struct td_outcome *td_window_peek(const struct td_window *window)
{
    return next_outcome(window);
}

struct td_outcome *td_window_take(struct td_window *window)
{
    struct td_outcome *outcome = next_outcome(window);
    if (!outcome)
        return NULL;
    td_list_remove(&outcome->link);
    mark(window, outcome->index, outcome->count, &taken_mark);
    window->counts.taken += outcome->count;
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
