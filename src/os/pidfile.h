/* pidfile.h: a file that names a running process, so that another program finds and ends it.
 *
 * Numbers of processes are used again, so the file also says when its process started, and in
 * which run of the machine: whoever opens it gets that process or none.
 * Threads: any. */
#ifndef TD_OS_PIDFILE_H
#define TD_OS_PIDFILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct td_error;

/* Names a process that is our child, or this one. TD_ENOTFOUND: it has ended already; else as
 * td_file_write. */
int td_pidfile_write(const char *path, pid_t pid, struct td_error *err);

/* A pidfd of the process. TD_ENOTFOUND: there is no such file, or its process has ended;
 * TD_EINVAL: the file is not ours alone, or no such file; TD_ESYS. */
int td_pidfile_open(const char *path, pid_t *ret_pid, int *ret_pidfd, struct td_error *err);

/* Asks the processes to end (SIGTERM), waits for them, and kills those that have not by the
 * deadline. Returns how many had to be killed. A pidfd of -1 is passed over. */
size_t td_pidfd_end(const int *pidfds, size_t n, int64_t deadline_ns);

#endif
