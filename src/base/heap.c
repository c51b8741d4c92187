#include "base/heap.h"

#include "base/err.h"
#include "base/mem.h"

void td_heap_done(struct td_heap *heap)
{
    td_free(heap->entries);
    *heap = (struct td_heap){0};
}

static void place(struct td_heap *heap, struct td_heap_entry *entry, size_t at)
{
    heap->entries[at - 1] = entry;
    entry->at = at;
}

static void sift_up(struct td_heap *heap, struct td_heap_entry *entry)
{
    size_t at = entry->at;
    while (at > 1 && heap->entries[at / 2 - 1]->when_ns > entry->when_ns) {
        place(heap, heap->entries[at / 2 - 1], at);
        at /= 2;
    }
    place(heap, entry, at);
}

static void sift_down(struct td_heap *heap, struct td_heap_entry *entry)
{
    size_t at = entry->at;
    for (;;) {
        size_t child = at * 2;
        if (child > heap->len)
            break;
        if (child < heap->len && heap->entries[child]->when_ns < heap->entries[child - 1]->when_ns)
            child++;
        if (heap->entries[child - 1]->when_ns >= entry->when_ns)
            break;
        place(heap, heap->entries[child - 1], at);
        at = child;
    }
    place(heap, entry, at);
}

int td_heap_set(struct td_heap *heap, struct td_heap_entry *entry, int64_t when_ns)
{
    if (entry->at == 0) {
        if (heap->len == heap->cap) {
            size_t cap = heap->cap ? heap->cap * 2 : 16;
            void *entries = td_realloc(heap->entries, cap * sizeof heap->entries[0]);
            if (!entries)
                return TD_ENOMEM;
            heap->entries = entries;
            heap->cap = cap;
        }
        heap->len++;
        place(heap, entry, heap->len);
    }
    entry->when_ns = when_ns;
    sift_up(heap, entry);
    sift_down(heap, entry);
    return 0;
}

void td_heap_remove(struct td_heap *heap, struct td_heap_entry *entry)
{
    if (entry->at == 0)
        return;
    struct td_heap_entry *last = heap->entries[heap->len - 1];
    size_t hole = entry->at;
    heap->len--;
    entry->at = 0;
    if (last == entry)
        return;
    place(heap, last, hole);
    sift_up(heap, last);
    sift_down(heap, last);
}

struct td_heap_entry *td_heap_top(const struct td_heap *heap)
{
    return heap->len ? heap->entries[0] : NULL;
}
