/* supervisor.h: the process that owns a pool's other processes, so that none of them outlives
 * its purpose: parent of the zygotes and of every runner, reaper of what runners leave behind.
 *
 *      guardian
 *         +--- supervisor ==channel== caller
 *                  +--- zygote (one a profile)
 *                  +--- runner --- the user's child processes
 *                  +--- runner
 *
 * It is a program of its own (`tendril supervise FD PID`), so it shares nothing with the caller
 * but one socket, and it watches the caller by pidfd: when the caller dies in whatever way,
 * or closes the socket, everything is killed and the supervisor ends. A child that is neither a
 * zygote nor a known runner was orphaned by a runner that died, and is killed. */
#ifndef TD_POOL_SUPERVISOR_H
#define TD_POOL_SUPERVISOR_H

#include <sys/types.h>

struct td_error;

/* Serves the pool behind channel_fd until it or process `caller` is gone. Forks first, see
 * guardian.h. Returns when all is cleaned up: 0, or a negative status when it could not begin. Main
 * thread of a single-threaded process. */
int td_supervisor_run(int channel_fd, pid_t caller, struct td_error *err);

#endif
