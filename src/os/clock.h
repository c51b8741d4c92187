/* clock.h: the one clock. Nanoseconds, monotonic; a deadline is a point on it.
 * Threads: any. */
#ifndef TD_OS_CLOCK_H
#define TD_OS_CLOCK_H

#include <stdint.h>

#define TD_NS_PER_MS   ((int64_t)1000000)
#define TD_NS_PER_S    ((int64_t)1000000000)
#define TD_NO_DEADLINE INT64_MAX

int64_t td_clock_now(void);

#endif
