/* limit.h: keeps one runner with all its children within its memory and processor limits.
 *
 * By control group where this process may make groups; else memory is watched by polling
 * resident size (td_limit_poll, every TD_LIMIT_POLL_NS) and processor time is bounded by the
 * number of CPUs the runner may use. Address space is never limited: NumPy and Arrow reserve far
 * more than they use.
 * Threads: one owner (the supervisor). Lifetime: td_limit_new .. td_limit_free, after the
 * processes inside have ended. */
#ifndef TD_POOL_LIMIT_H
#define TD_POOL_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "os/cgroup.h"

struct td_error;
struct td_limit;

#define TD_LIMIT_POLL_NS ((int64_t)50000000)

/* serial names the group and spreads runners over CPUs. TD_ENOMEM, TD_ESYS. */
int td_limit_new(struct td_cgroup_support support, uint32_t serial, uint64_t memory_bytes,
                 uint32_t cpu_milli, struct td_limit **ret_limit, struct td_error *err);
/* The runner has ended. False: what it had started has not quite, to be tried again. */
bool td_limit_end(struct td_limit *limit);
struct td_limit *td_limit_free(struct td_limit *limit); /* accepts NULL, returns NULL */

/* Puts the process under the limit. */
int td_limit_enter(struct td_limit *limit, pid_t pid, struct td_error *err);

bool td_limit_polled(const struct td_limit *limit); /* td_limit_poll must be called */

/* Judges what pid and its children have resident (td_proc_rss); true: they are over the limit. */
bool td_limit_poll(struct td_limit *limit, pid_t pid, uint64_t rss_bytes);

bool td_limit_exceeded(const struct td_limit *limit); /* memory ran out at any time */
uint64_t td_limit_peak(const struct td_limit *limit); /* bytes; 0 when not known */

#endif
