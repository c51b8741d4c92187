/* event.h: a counter that threads wait on until it moves: how a result wakes its reader.
 *
 * States of the word: any number; td_event_signal adds one. A waiter reads the number first,
 * looks whether what it wants is there, and waits only while the number is unchanged, so no
 * signal is lost between looking and waiting.
 * Threads: any. */
#ifndef TD_OS_EVENT_H
#define TD_OS_EVENT_H

#include <stdatomic.h>
#include <stdint.h>

struct td_event {
    _Atomic uint32_t count;
    _Atomic uint32_t waiters;
};

uint32_t td_event_read(struct td_event *event);

/* Wakes every waiter; no system call when there is none. */
void td_event_signal(struct td_event *event);

/* Waits until the count differs from seen. 0, TD_ETIMEOUT (deadline_ns passed), TD_EINTR (a
 * signal handler ran in this thread). */
int td_event_wait(struct td_event *event, uint32_t seen, int64_t deadline_ns);

#endif
