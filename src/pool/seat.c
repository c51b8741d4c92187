#include "pool/seat.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "os/channel.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/memfile.h"
#include "os/proc.h"
#include "pool/desk.h"

#define SPIN_NS ((int64_t)150000)

enum { HEADER_SIZE = 4, READ_CHUNK = 64 << 10, HEAD_MAX = 8 << 20 };

void td_seat_init(struct td_seat *seat, int fd)
{
    *seat = (struct td_seat){.fd = fd, .fds = {-1, -1, -1}};
    td_buf_init(&seat->in, TD_FRAME_MAX + HEADER_SIZE + READ_CHUNK);
}

static void drop_fds(struct td_seat *seat)
{
    for (size_t i = 0; i < TD_SEAT_FDS; i++)
        td_fd_close(&seat->fds[i]);
}

void td_seat_done(struct td_seat *seat)
{
    drop_fds(seat);
    seat->tail = td_blob_unref(seat->tail);
    td_desk_free(seat->desk);
    td_buf_done(&seat->in);
}

static void keep_fds(struct td_seat *seat, struct msghdr *message)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        drop_fds(seat);
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(seat->fds, CMSG_DATA(header), (n < TD_SEAT_FDS ? n : TD_SEAT_FDS) * sizeof(int));
    }
}

/* The socket blocks, unless user code has changed that. */
static int wait_for(const struct td_seat *seat, short events)
{
    struct pollfd wanted = {.fd = seat->fd, .events = events};
    int saved = errno;
    int r = poll(&wanted, 1, -1) < 0 ? TD_EINTR : 0;
    errno = saved;
    return r;
}

static int read_some(struct td_seat *seat, struct td_error *err)
{
    if (td_buf_reserve(&seat->in, READ_CHUNK) < 0)
        return td_error_set(err, TD_ENOMEM, "no memory for a message");
    struct iovec part = {seat->in.data + seat->in.len, seat->in.cap - seat->in.len};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * TD_SEAT_FDS)];
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(seat->fd, &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EAGAIN)
        return wait_for(seat, POLLIN);
    if (got < 0 && errno == EINTR)
        return TD_EINTR;
    if (got <= 0)
        return td_error_set(err, TD_ECLOSED, "the connection was closed");
    keep_fds(seat, &message);
    seat->in.len += (size_t)got;
    return 0;
}

/* The next call often follows at once: looks again and again for a moment before it sleeps, where
 * others run beside it meanwhile: to be woken up would cost as much. */
static void spin(const struct td_seat *seat)
{
    char byte;
    int saved = errno;
    int64_t until = td_proc_cpus() > 1 ? td_clock_now() + SPIN_NS : 0;
    while (recv(seat->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN &&
           td_clock_now() < until)
        continue;
    errno = saved;
}

/* The tail of a message that came beside it. The descriptor is not kept: nothing is sent on. */
static int open_tail(struct td_seat *seat, struct td_message *message, struct td_error *err)
{
    if (seat->fds[0] < 0)
        return td_error_set(err, TD_ELIMIT,
                            "no descriptor for a large value (too many open files)");
    int r = td_memfile_open(&seat->fds[0], &seat->tail, err);
    if (r < 0)
        return r;
    td_memfile_close(seat->tail);
    return td_message_attach(message, seat->tail, err);
}

static int receive(struct td_seat *seat, struct td_message *ret_message, struct td_error *err)
{
    td_buf_drop(&seat->in, seat->consumed);
    seat->consumed = 0;
    seat->tail = td_blob_unref(seat->tail);
    if (seat->in.len == 0 && seat->in.cap > ((size_t)1 << 20))
        td_buf_done(&seat->in); /* a large value came through: give its memory back */
    uint32_t length = 0;
    bool beside = false;
    for (;;) {
        if (seat->in.len >= HEADER_SIZE) {
            memcpy(&length, seat->in.data, HEADER_SIZE);
            beside = length & TD_CHANNEL_BESIDE;
            length &= ~TD_CHANNEL_BESIDE;
            if (length > TD_FRAME_MAX)
                return td_error_set(err, TD_EPROTO, "a frame of %u bytes", length);
            if (seat->in.len - HEADER_SIZE >= length)
                break;
        }
        if (seat->desk && seat->in.len == 0)
            spin(seat);
        int r = read_some(seat, err);
        if (r < 0)
            return r;
    }
    seat->consumed = HEADER_SIZE + length;
    int r = td_message_decode((struct td_bytes){seat->in.data + HEADER_SIZE, length}, ret_message,
                              err);
    return r == 0 && beside ? open_tail(seat, ret_message, err) : r;
}

int td_seat_receive(struct td_seat *seat, struct td_message *ret_message, struct td_error *err)
{
    int r = receive(seat, ret_message, err);
    while (r == 0 && ret_message->type == TD_MSG_DESK) {
        seat->desk = td_desk_free(seat->desk);
        r = td_desk_open(seat->fds[0], &seat->desk, err);
        td_fd_close(&seat->fds[0]);
        if (r == 0)
            r = receive(seat, ret_message, err);
    }
    return r;
}

static int send_all(struct td_seat *seat, struct iovec *parts, size_t nparts, const int *fds,
                    size_t nfds, struct td_error *err)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * TD_SEAT_FDS)];
    } control;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = nparts};
    if (nfds)
        td_fd_attach(&message, control.bytes, fds, nfds);
    while (message.msg_iovlen > 0) {
        ssize_t sent = sendmsg(seat->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            (void)wait_for(seat, POLLOUT); /* interrupted: tried again at once */
        if (sent < 0 && (errno == EINTR || errno == EAGAIN))
            continue; /* a message is sent whole: signals are looked at afterwards */
        if (sent < 0)
            return td_error_set(err, TD_ECLOSED, "send: %s", strerrordesc_np(errno));
        message.msg_control = NULL;
        message.msg_controllen = 0;
        td_fd_iov_drop(&message.msg_iov, &message.msg_iovlen, (size_t)sent);
    }
    return 0;
}

int td_seat_send(struct td_seat *seat, const struct td_message *message, const int *fds,
                 size_t nfds, struct td_error *err)
{
    TD_CLEANUP(td_buf_done) struct td_buf head;
    struct td_bytes tail;
    if (nfds > TD_SEAT_FDS)
        return td_error_set(err, TD_EINVAL, "at most %d descriptors can be sent", TD_SEAT_FDS);
    td_buf_init(&head, HEAD_MAX);
    int r = td_message_encode(message, &head, &tail, err);
    if (r < 0)
        return r;
    int file = td_memfile_fd(message->shared);
    if (file >= 0) {
        tail.len = 0;
        fds = &file;
        nfds = 1;
    }
    uint32_t length = (uint32_t)(head.len + tail.len) | (file >= 0 ? TD_CHANNEL_BESIDE : 0);
    struct iovec parts[] = {
        {&length, sizeof length}, {head.data, head.len}, {(void *)tail.data, tail.len}};
    return send_all(seat, parts, tail.len ? 3 : 2, fds, nfds, err);
}

void td_seat_die_with(pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* cannot fail for a valid signal */
    if (getppid() != parent)
        (void)raise(SIGKILL); /* it died before we could ask to be told */
}
