#include "base/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The test seam: `fail_at` is the number of the allocation that is to fail, 0 when off. */
static _Atomic uint64_t count;
static _Atomic uint64_t fail_at;
static atomic_bool fail_onwards;

void td_mem_fail(int64_t nth, int onwards)
{
    uint64_t now = atomic_load_explicit(&count, memory_order_relaxed);
    atomic_store_explicit(&fail_onwards, onwards != 0, memory_order_relaxed);
    atomic_store_explicit(&fail_at, nth > 0 ? now + (uint64_t)nth : 0, memory_order_relaxed);
}

uint64_t td_mem_count(void)
{
    return atomic_load_explicit(&count, memory_order_relaxed);
}

static bool refused(void)
{
    uint64_t n = atomic_fetch_add_explicit(&count, 1, memory_order_relaxed) + 1;
    uint64_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (at == 0)
        return false;
    return n == at || (n > at && atomic_load_explicit(&fail_onwards, memory_order_relaxed));
}

void *td_alloc(size_t size)
{
    return refused() ? NULL : malloc(size ? size : 1);
}

void *td_alloc_zero(size_t size)
{
    return refused() ? NULL : calloc(1, size ? size : 1);
}

void *td_realloc(void *p, size_t size)
{
    return refused() ? NULL : realloc(p, size ? size : 1);
}

void *td_memdup(const void *p, size_t size)
{
    void *copy = td_alloc(size);
    if (copy && size)
        memcpy(copy, p, size);
    return copy;
}

void td_free(void *p)
{
    free(p);
}
