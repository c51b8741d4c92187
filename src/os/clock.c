#include "os/clock.h"

#include <time.h>

int64_t td_clock_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return now.tv_sec * TD_NS_PER_S + now.tv_nsec;
}
