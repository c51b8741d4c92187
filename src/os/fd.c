#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/err.h"

void td_fd_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* nothing is buffered behind our descriptors that close could lose */
    *fd = -1;
}

int td_fd_socketpair(int ret_pair[2], struct td_error *err)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_pair) < 0)
        return td_error_sys(err, errno, "socketpair");
    return 0;
}

int td_fd_pipe(int ret_pipe[2], struct td_error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return td_error_sys(err, errno, "pipe");
    int r = td_fd_nonblocking(fds[0], true, err);
    if (r < 0) {
        td_fd_close(&fds[0]);
        td_fd_close(&fds[1]);
        return r;
    }
    ret_pipe[0] = fds[0];
    ret_pipe[1] = fds[1];
    return 0;
}

int td_fd_nonblocking(int fd, bool on, struct td_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0)
        return td_error_sys(err, errno, "fcntl(O_NONBLOCK)");
    return 0;
}

int td_fd_inherit(int fd)
{
    return fcntl(fd, F_SETFD, 0) < 0 ? TD_ESYS : 0;
}

void td_fd_attach(struct msghdr *message, void *control, const int *fds, size_t nfds)
{
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(nfds * sizeof(int));
    memset(control, 0, message->msg_controllen);
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(nfds * sizeof(int));
    memcpy(CMSG_DATA(header), fds, nfds * sizeof(int));
}

void td_fd_iov_drop(struct iovec **parts, size_t *nparts, size_t n)
{
    while (*nparts > 0 && n >= (*parts)->iov_len) {
        n -= (*parts)->iov_len;
        (*parts)++;
        (*nparts)--;
    }
    if (*nparts > 0) {
        (*parts)->iov_base = (char *)(*parts)->iov_base + n;
        (*parts)->iov_len -= n;
    }
}
