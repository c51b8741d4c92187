#include "task/packing.h"

#include <stdbool.h>

enum {
    PROBES_PER_SLOT = 2, /* batches, while durations are not known */
    GROWTH = 8,
    TAIL = 2, /* batches for each runner that shall be left at any time */
};

void td_packing_init(struct td_packing *packing, unsigned slots)
{
    *packing = (struct td_packing){.slots = slots ? slots : 1};
}

void td_packing_submitted(struct td_packing *packing, uint32_t count)
{
    packing->submitted += count;
}

void td_packing_started(struct td_packing *packing, int64_t now)
{
    if (packing->began_ns == 0)
        packing->began_ns = now;
}

/* Up quickly, down slowly: a batch that was too small costs less than one that was too large. */
void td_packing_finished(struct td_packing *packing, uint32_t count, int64_t duration_ns)
{
    packing->finished += count;
    if (count == 0 || duration_ns <= 0)
        return;
    int64_t each = duration_ns / count;
    if (each < 1)
        each = 1;
    if (packing->call_ns == 0)
        packing->call_ns = each;
    else if (each > packing->call_ns)
        packing->call_ns += (each - packing->call_ns) / 2;
    else
        packing->call_ns -= (packing->call_ns - each) / 4;
    if (packing->call_ns < 1)
        packing->call_ns = 1;
    if (count > packing->proven)
        packing->proven = count;
}

uint32_t td_packing_next(const struct td_packing *packing, uint64_t left, int64_t now,
                         int64_t *ret_when)
{
    *ret_when = INT64_MAX;
    if (packing->call_ns == 0) {
        if (packing->submitted < (uint64_t)PROBES_PER_SLOT * packing->slots)
            return 1;
        if (packing->began_ns == 0)
            return 0;
        *ret_when = packing->began_ns + TD_PACKING_TARGET_NS;
        return now >= *ret_when ? 1 : 0;
    }
    uint64_t count = (uint64_t)(TD_PACKING_TARGET_NS / packing->call_ns);
    uint64_t most = (uint64_t)packing->proven * GROWTH;
    uint64_t under_way = packing->submitted - packing->finished;
    bool growing = count > most && most < TD_PACKING_MAX;
    if (count > most)
        count = most;
    if (growing && under_way >= (uint64_t)PROBES_PER_SLOT * packing->slots * count)
        return 0;
    if (left != UINT64_MAX && count > left / TAIL / packing->slots)
        count = left / TAIL / packing->slots;
    if (count > TD_PACKING_MAX)
        count = TD_PACKING_MAX;
    return count ? (uint32_t)count : 1;
}
