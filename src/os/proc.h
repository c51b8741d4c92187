/* proc.h: processes: starting one, watching one, and ending one with everything it started.
 *
 * Threads: any; starting never forks the caller's memory (posix_spawn), so it is safe in a
 * process with threads and locks. */
#ifndef TD_OS_PROC_H
#define TD_OS_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct td_error;

struct td_proc_fd {
    int from; /* ours */
    int to;   /* its number in the child */
};

/* Starts argv[0] (looked up in PATH when it has no slash). The child gets fd 0, 1, 2 from the
 * list or /dev/null, the other listed ones, nothing else; no signal is blocked or ignored in it;
 * it leads a session of its own. env NULL: ours; cwd NULL: ours. TD_ENOTFOUND when the
 * program is not there, TD_ENOMEM, TD_ESYS. */
int td_proc_spawn(char *const argv[], char *const env[], const char *cwd,
                  const struct td_proc_fd *fds, size_t nfds, pid_t *ret_pid, struct td_error *err);

/* The same, as a child of nobody here: it belongs to init, or to the nearest subreaper above us.
 * The program that we are a guest in gets no SIGCHLD and sees no unknown child in wait(). */
int td_proc_spawn_apart(char *const argv[], char *const env[], const char *cwd,
                        const struct td_proc_fd *fds, size_t nfds, struct td_error *err);

/* A descriptor that becomes readable when the process ends. TD_ENOTFOUND when it has ended. */
int td_proc_pidfd(pid_t pid, int *ret_fd, struct td_error *err);

/* Processes of this machine whose parent is `parent`, at most `max`; returns how many. */
size_t td_proc_children(pid_t parent, pid_t *ret_pids, size_t max);

/* Ends a process and every descendant: stops them first so that none can fork ahead of us, then
 * kills. A descendant that was orphaned is found when an ancestor below `pid` or `pid` itself is
 * its reaper (PR_SET_CHILD_SUBREAPER). With `spare_root` only the descendants. False: something
 * could not be stopped in time (seconds), and may have got away. */
bool td_proc_kill_tree(pid_t pid, bool spare_root);

/* Ends and reaps every descendant of this process; what they leave behind comes to us only if we
 * are a subreaper. Single-threaded processes. */
void td_proc_end_below(void);

/* Is it gone, or on its way: has its end begun, even if it cannot be waited for yet? */
bool td_proc_ending(pid_t pid);

/* Resident bytes of each process with all its descendants; 0 when it is gone. Shared pages count in
 * each process that has them. One look at the process table for all. */
void td_proc_tree_rss(const pid_t *pids, uint64_t *ret_bytes, size_t n);

/* The same for one process, where a shared page counts as the share of it (PSS). Slow: the kernel
 * walks the page tables. */
uint64_t td_proc_tree_pss(pid_t pid);

int td_proc_threads(pid_t pid); /* number of threads, or 0 */

/* Processors that this thread may run on; at least 1. */
int td_proc_cpus(void);

#endif
