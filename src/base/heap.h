/* heap.h: a binary heap of embedded entries by time; the next deadline is at the top.
 *
 * Invariant: entries[e->at - 1] == e for every entry inside; e->at == 0 when it is in none.
 * Threads: one owner. The heap borrows its entries. */
#ifndef TD_BASE_HEAP_H
#define TD_BASE_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct td_heap_entry {
    int64_t when_ns;
    size_t at; /* 1-based position; 0 when outside */
};

struct td_heap {
    struct td_heap_entry **entries;
    size_t len;
    size_t cap;
};

void td_heap_done(struct td_heap *heap);

/* Puts the entry in, or moves it when it is inside already. TD_ENOMEM. */
int td_heap_set(struct td_heap *heap, struct td_heap_entry *entry, int64_t when_ns);

void td_heap_remove(struct td_heap *heap, struct td_heap_entry *entry); /* no-op when outside */

/* The earliest entry, still inside, or NULL. */
struct td_heap_entry *td_heap_top(const struct td_heap *heap);

#endif
