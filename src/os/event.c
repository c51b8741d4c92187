#include "os/event.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "os/clock.h"

uint32_t td_event_read(struct td_event *event)
{
    return atomic_load_explicit(&event->count, memory_order_acquire);
}

/* count and waiters are both sequentially consistent: either the waiter sees the new count, or
 * the signaller sees the waiter. */
void td_event_signal(struct td_event *event)
{
    atomic_fetch_add_explicit(&event->count, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&event->waiters, memory_order_seq_cst) > 0)
        (void)syscall(SYS_futex, &event->count, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

int td_event_wait(struct td_event *event, uint32_t seen, int64_t deadline_ns)
{
    if (deadline_ns < 0)
        deadline_ns = 0; /* long past; the kernel refuses negative times */
    struct timespec until = {.tv_sec = deadline_ns / TD_NS_PER_S,
                             .tv_nsec = deadline_ns % TD_NS_PER_S};
    int status = 0;
    atomic_fetch_add_explicit(&event->waiters, 1, memory_order_seq_cst);
    while (atomic_load_explicit(&event->count, memory_order_seq_cst) == seen) {
        /* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. */
        long r = syscall(SYS_futex, &event->count, FUTEX_WAIT_BITSET_PRIVATE, seen,
                         deadline_ns == TD_NO_DEADLINE ? NULL : &until, NULL,
                         FUTEX_BITSET_MATCH_ANY);
        if (r == 0 || errno == EAGAIN)
            continue;
        status = errno == EINTR ? TD_EINTR : errno == ETIMEDOUT ? TD_ETIMEOUT : TD_ESYS;
        break;
    }
    atomic_fetch_sub_explicit(&event->waiters, 1, memory_order_seq_cst);
    return status;
}
