/* fd.h: file descriptors, close-on-exec when made.
 * Threads: any. */
#ifndef TD_OS_FD_H
#define TD_OS_FD_H

#include <stdbool.h>
#include <stddef.h>

struct iovec;
struct msghdr;
struct td_error;

/* Closes *fd when it is >= 0 and sets it to -1; for TD_CLEANUP too. */
void td_fd_close(int *fd);

/* A connected pair of unix stream sockets, both blocking. TD_ELIMIT, TD_ESYS. */
int td_fd_socketpair(int ret_pair[2], struct td_error *err);

/* A pipe: [0] is read, [1] is written; [0] is non-blocking. */
int td_fd_pipe(int ret_pipe[2], struct td_error *err);

int td_fd_nonblocking(int fd, bool on, struct td_error *err);

/* Takes the first n bytes, which were written, off the parts. */
void td_fd_iov_drop(struct iovec **parts, size_t *nparts, size_t n);

/* Gives a message descriptors to carry (SCM_RIGHTS); control has CMSG_SPACE for them. */
void td_fd_attach(struct msghdr *message, void *control, const int *fds, size_t nfds);

/* Clears close-on-exec, in a child just before it execs. */
int td_fd_inherit(int fd);

#endif
