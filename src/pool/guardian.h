/* guardian.h: the process above the supervisor, for when that is killed itself: it inherits what
 * the supervisor leaves behind, ends it, and removes its control groups.
 *
 * It keeps the supervisor's descriptors open without using them, so that the other side of the
 * socket sees its end when nothing of the pool is left, not before.
 * Threads: single-threaded processes. */
#ifndef TD_POOL_GUARDIAN_H
#define TD_POOL_GUARDIAN_H

struct td_error;

/* Forks. 0 in the child, which goes on as the supervisor; its parent stays in here and exits after
 * it. TD_ENOMEM, TD_ESYS. */
int td_guardian_fork(struct td_error *err);

#endif
