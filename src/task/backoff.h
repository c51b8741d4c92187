/* backoff.h: how long to wait before trying again: exponential with full jitter.
 *
 * Pure: the jitter comes from the seed, so a simulation replays. Source of the scheme: Marc
 * Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. */
#ifndef TD_TASK_BACKOFF_H
#define TD_TASK_BACKOFF_H

#include <stdint.h>

/* Nanoseconds to wait after the given failed attempt (1 is the first): between half and all of
 * min(max_ns, base_ns * 2^(attempt - 1)). */
int64_t td_backoff_ns(int64_t base_ns, int64_t max_ns, uint32_t attempt, uint64_t seed);

#endif
