#include "os/channel.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/loop.h"
#include "os/memfile.h"

enum {
    READ_CHUNK = 64 << 10,
    HEADER_SIZE = 4,
    FDS_HELD_MAX = 64,
};

/* One frame on its way out: length and head in one run of bytes, the tail behind it. */
struct outgoing {
    struct td_list link;
    struct td_blob *tail;
    int fds[TD_CHANNEL_FDS_MAX];
    size_t nfds;
    size_t head_len;
    size_t sent;
    char head[];
};

/* A descriptor that came with the frame of that number and was not taken yet. */
struct held_fd {
    int fd;
    uint64_t frame;
};

struct td_channel {
    struct td_loop *loop;
    struct td_watch watch;
    int fd;
    struct td_channel_options options;
    const struct td_channel_events *events;
    void *context;

    struct td_buf in;
    struct td_blob *tail;             /* of the frame that is being handled, if it came beside it */
    uint64_t delivered;               /* frames handed over; the last one is being handled */
    struct held_fd fds[FDS_HELD_MAX]; /* received, oldest first */
    size_t nfds;

    struct td_list out; /* struct outgoing.link */
    size_t queued;      /* bytes in out that are not sent */
    bool paused;
    bool unread; /* the peer closed before it had read everything */
    bool closed;
    bool reading; /* inside a callback: freeing waits for it to return */
    bool freed;
};

static void outgoing_free(struct outgoing *item)
{
    td_blob_unref(item->tail);
    for (size_t i = 0; i < item->nfds; i++)
        td_fd_close(&item->fds[i]);
    td_free(item);
}

static void shut(struct td_channel *channel)
{
    td_loop_unwatch(channel->loop, &channel->watch);
    td_fd_close(&channel->fd);
    for (struct td_list *node = td_list_pop(&channel->out); node; node = td_list_pop(&channel->out))
        outgoing_free(TD_CONTAINER(node, struct outgoing, link));
    channel->queued = 0;
    channel->closed = true;
}

static void release(struct td_channel *channel)
{
    for (size_t i = 0; i < channel->nfds; i++)
        td_fd_close(&channel->fds[i].fd);
    td_buf_done(&channel->in);
    td_free(channel);
}

static void update_watch(struct td_channel *channel)
{
    if (channel->closed)
        return;
    unsigned events = (channel->paused ? 0 : (unsigned)TD_LOOP_READ) |
                      (td_list_empty(&channel->out) ? 0 : (unsigned)TD_LOOP_WRITE);
    (void)td_loop_rewatch(channel->loop, &channel->watch,
                          events); /* the fd is valid: cannot fail */
}

/* Tells the owner that the channel is over. The owner may free it in there. */
static void fail(struct td_channel *channel, const char *reason)
{
    if (channel->closed)
        return;
    channel->unread |= !td_list_empty(&channel->out);
    shut(channel);
    channel->events->closed(channel->context, reason);
}

/* What of a tail goes through the socket. */
static struct td_bytes inside(const struct td_blob *tail)
{
    return td_memfile_fd(tail) < 0 ? td_blob_bytes(tail) : (struct td_bytes){NULL, 0};
}

/* Sends what it can of one frame: 1 all gone, 0 the socket is full, or a negative status. */
static int send_some(struct td_channel *channel, struct outgoing *item)
{
    struct td_bytes tail = inside(item->tail);
    int file = td_memfile_fd(item->tail);
    size_t total = item->head_len + tail.len;
    while (item->sent < total) {
        struct iovec parts[2];
        size_t n = 0;
        if (item->sent < item->head_len)
            parts[n++] = (struct iovec){item->head + item->sent, item->head_len - item->sent};
        size_t tail_sent = item->sent > item->head_len ? item->sent - item->head_len : 0;
        if (tail.len > tail_sent)
            parts[n++] = (struct iovec){(char *)tail.data + tail_sent, tail.len - tail_sent};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = n};
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof item->fds)];
        } control;
        if (item->sent == 0 && file >= 0)
            td_fd_attach(&message, control.bytes, &file, 1);
        else if (item->sent == 0 && item->nfds)
            td_fd_attach(&message, control.bytes, item->fds, item->nfds);
        ssize_t sent = sendmsg(channel->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN || errno == ETOOMANYREFS ? 0 : TD_ECLOSED;
        item->sent += (size_t)sent;
        channel->queued -= (size_t)sent;
    }
    return 1;
}

static void flush(struct td_channel *channel)
{
    while (!td_list_empty(&channel->out)) {
        struct outgoing *item = TD_CONTAINER(channel->out.next, struct outgoing, link);
        int r = send_some(channel, item);
        if (r < 0) {
            /* The peer is gone. Reading finds what it still said, then the end. Whatever the
             * reason was, nothing may follow half a frame. */
            (void)shutdown(channel->fd, SHUT_WR);
            channel->unread = true;
            while (!td_list_empty(&channel->out))
                outgoing_free(TD_CONTAINER(td_list_pop(&channel->out), struct outgoing, link));
            channel->queued = 0;
        }
        if (r <= 0)
            break;
        td_list_remove(&item->link);
        outgoing_free(item);
    }
    update_watch(channel);
}

static int enqueue(struct td_channel *channel, struct td_bytes head, struct td_blob *tail,
                   const int *fds, size_t nfds)
{
    if (channel->closed)
        return TD_ECLOSED;
    size_t tail_len = inside(tail).len;
    if (head.len > channel->options.frame_max || tail_len > channel->options.frame_max - head.len)
        return TD_ELIMIT;
    if (channel->queued > channel->options.queue_max)
        return TD_ELIMIT;
    struct outgoing *item = td_alloc(sizeof *item + HEADER_SIZE + head.len);
    if (!item)
        return TD_ENOMEM;
    *item = (struct outgoing){.head_len = HEADER_SIZE + head.len};
    for (size_t i = 0; i < nfds; i++) {
        int copy = dup(fds[i]);
        if (copy < 0) {
            outgoing_free(item);
            return TD_ESYS;
        }
        item->fds[item->nfds++] = copy;
    }
    uint32_t length = (uint32_t)(head.len + tail_len);
    if (td_memfile_fd(tail) >= 0)
        length |= TD_CHANNEL_BESIDE;
    memcpy(item->head, &length, HEADER_SIZE);
    if (head.len)
        memcpy(item->head + HEADER_SIZE, head.data, head.len);
    item->tail = td_blob_ref(tail);
    td_list_append(&channel->out, &item->link);
    channel->queued += item->head_len + tail_len;
    flush(channel);
    return 0;
}

int td_channel_send(struct td_channel *channel, struct td_bytes head, struct td_blob *tail)
{
    return enqueue(channel, head, tail, NULL, 0);
}

int td_channel_send_fds(struct td_channel *channel, struct td_bytes head, const int *fds,
                        size_t nfds)
{
    if (nfds > TD_CHANNEL_FDS_MAX)
        return TD_EINVAL;
    return enqueue(channel, head, NULL, fds, nfds);
}

struct td_blob *td_channel_tail(const struct td_channel *channel)
{
    return channel->tail;
}

int td_channel_take_fd(struct td_channel *channel)
{
    if (channel->nfds == 0 || channel->fds[0].frame != channel->delivered)
        return -1;
    int fd = channel->fds[0].fd;
    channel->nfds--;
    memmove(channel->fds, channel->fds + 1, channel->nfds * sizeof channel->fds[0]);
    return fd;
}

/* Closes what came with earlier frames and nobody took. */
static void drop_fds(struct td_channel *channel)
{
    size_t n = 0;
    while (n < channel->nfds && channel->fds[n].frame < channel->delivered)
        td_fd_close(&channel->fds[n++].fd);
    channel->nfds -= n;
    memmove(channel->fds, channel->fds + n, channel->nfds * sizeof channel->fds[0]);
}

/* How many frames have begun in the buffer, which itself begins with one. */
static size_t frames_begun(const struct td_channel *channel)
{
    size_t n = 0;
    for (size_t at = 0; at < channel->in.len; n++) {
        uint32_t length;
        if (channel->in.len - at < HEADER_SIZE)
            return n + 1;
        memcpy(&length, channel->in.data + at, HEADER_SIZE);
        at += (size_t)HEADER_SIZE + (length & ~TD_CHANNEL_BESIDE);
    }
    return n;
}

/* Linux ends a read behind the bytes that carry descriptors, so these belong to the frame that
 * began last. The frame is remembered because the kernel drops what does not fit below our limit
 * of open files: then a frame must come without its descriptors, not with those of the next. */
static void keep_fds(struct td_channel *channel, struct msghdr *message)
{
    if (message->msg_controllen == 0)
        return;
    uint64_t frame = channel->delivered + frames_begun(channel);
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
            if (channel->nfds < FDS_HELD_MAX)
                channel->fds[channel->nfds++] = (struct held_fd){fd, frame};
            else
                td_fd_close(&fd);
        }
    }
}

/* One read: > 0 bytes came, 0 nothing now, or a negative status with *reason. */
static int receive(struct td_channel *channel, const char **reason)
{
    if (td_buf_reserve(&channel->in, READ_CHUNK) < 0) {
        *reason = "no memory for an incoming message";
        return TD_ENOMEM;
    }
    struct iovec part = {channel->in.data + channel->in.len, channel->in.cap - channel->in.len};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * TD_CHANNEL_FDS_MAX)];
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(channel->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        /* The kernel says so when a unix socket is closed with something left to read in it. */
        channel->unread |= got < 0 && errno == ECONNRESET;
        *reason = got < 0 ? strerrordesc_np(errno) : "the other side closed the connection";
        return TD_ECLOSED;
    }
    channel->in.len += (size_t)got;
    keep_fds(channel, &message);
    return 1;
}

static bool type_allowed(const struct td_channel *channel, size_t at)
{
    const struct td_channel_options *options = &channel->options;
    return !options->types || memchr(options->types, channel->in.data[at], options->ntypes);
}

/* Hands a frame over. What is wrong with it, or NULL. */
static const char *deliver(struct td_channel *channel, struct td_bytes frame, bool beside)
{
    TD_CLEANUP(td_blob_unrefp) struct td_blob *tail = NULL;
    channel->delivered++;
    drop_fds(channel);
    if (beside) {
        int fd = td_channel_take_fd(channel);
        if (fd < 0)
            return "no descriptor for a large value (too many open files)";
        int r = td_memfile_open(&fd, &tail, NULL);
        if (r < 0)
            return r == TD_EPROTO ? "a large value is not sealed" : "no memory for a large value";
    }
    channel->tail = tail;
    channel->events->frame(channel->context, frame);
    channel->tail = NULL;
    return NULL;
}

/* Hands over every whole frame in the buffer; what is wrong with the framing, or NULL. */
static const char *deliver_frames(struct td_channel *channel)
{
    size_t at = 0;
    const char *wrong = NULL;
    while (!wrong && !channel->freed && !channel->closed && !channel->paused &&
           channel->in.len - at >= HEADER_SIZE) {
        uint32_t length;
        memcpy(&length, channel->in.data + at, HEADER_SIZE);
        bool beside = length & TD_CHANNEL_BESIDE;
        length &= ~TD_CHANNEL_BESIDE;
        if (length > channel->options.frame_max) {
            wrong = "a frame is longer than allowed";
            break;
        }
        if (channel->in.len - at > HEADER_SIZE && !type_allowed(channel, at + HEADER_SIZE)) {
            wrong = "a frame begins with an unexpected type";
            break;
        }
        if (channel->in.len - at - HEADER_SIZE < length)
            break;
        struct td_bytes frame = {channel->in.data + at + HEADER_SIZE, length};
        at += (size_t)HEADER_SIZE + length;
        wrong = deliver(channel, frame, beside);
    }
    td_buf_drop(&channel->in, at);
    if (channel->in.len == 0 && channel->in.cap > ((size_t)4 << 20))
        td_buf_done(&channel->in); /* a large value came through: give its memory back */
    return wrong;
}

static void read_frames(struct td_channel *channel, bool until_empty)
{
    if (channel->reading)
        return;
    const char *reason = NULL;
    int r;
    channel->reading = true;
    do {
        r = receive(channel, &reason);
        if (r > 0)
            reason = deliver_frames(channel);
        if (r > 0 && reason)
            r = TD_EPROTO;
    } while (until_empty && r > 0 && !channel->freed && !channel->closed && !channel->paused);
    if (r < 0 && !channel->freed)
        fail(channel, reason);
    channel->reading = false;
    if (channel->freed)
        release(channel);
}

static void on_ready(void *context, unsigned events)
{
    struct td_channel *channel = context;
    if (events & TD_LOOP_WRITE)
        flush(channel);
    if (events & TD_LOOP_READ && !channel->paused)
        read_frames(channel, false);
    else if (events & TD_LOOP_READ)
        update_watch(channel); /* a hang-up while paused: it is found when reading resumes */
}

void td_channel_read_now(struct td_channel *channel)
{
    if (!channel->closed && !channel->paused)
        read_frames(channel, true);
}

void td_channel_pause(struct td_channel *channel, bool paused)
{
    if (channel->paused == paused || channel->closed)
        return;
    channel->paused = paused;
    update_watch(channel);
    if (paused || channel->reading)
        return;
    channel->reading = true; /* frames that arrived before the pause */
    const char *wrong = deliver_frames(channel);
    if (wrong && !channel->freed)
        fail(channel, wrong);
    channel->reading = false;
    if (channel->freed)
        release(channel);
}

size_t td_channel_queued(const struct td_channel *channel)
{
    return channel->queued;
}

bool td_channel_unread(const struct td_channel *channel)
{
    return channel->unread;
}

int td_channel_new(struct td_loop *loop, int *fd, struct td_channel_options options,
                   const struct td_channel_events *events, void *context,
                   struct td_channel **ret_channel, struct td_error *err)
{
    struct td_channel *channel = td_alloc_zero(sizeof *channel);
    if (!channel)
        return td_error_set(err, TD_ENOMEM, "channel: out of memory");
    channel->loop = loop;
    channel->options = options;
    channel->events = events;
    channel->context = context;
    td_list_init(&channel->out);
    td_buf_init(&channel->in, options.frame_max + HEADER_SIZE + READ_CHUNK);
    channel->watch = (struct td_watch){
        .fd = *fd, .events = TD_LOOP_READ, .fn = on_ready, .context = channel};
    int r = td_loop_watch(loop, &channel->watch, err);
    if (r < 0) {
        td_free(channel);
        return r;
    }
    channel->fd = *fd;
    *fd = -1;
    *ret_channel = channel;
    return 0;
}

struct td_channel *td_channel_free(struct td_channel *channel)
{
    if (!channel)
        return NULL;
    shut(channel);
    channel->freed = true;
    if (!channel->reading)
        release(channel);
    return NULL;
}

struct td_channel *td_channel_hang_up(struct td_channel *channel, int64_t deadline_ns)
{
    enum { POLL_MAX_MS = 60000 };
    char dropped[4096];
    bool open = channel && !channel->closed;
    if (open)
        (void)shutdown(channel->fd, SHUT_WR); /* refused: the peer is gone, which is as well */
    while (open) {
        int64_t left_ms = (deadline_ns - td_clock_now() + TD_NS_PER_MS - 1) / TD_NS_PER_MS;
        struct pollfd wanted = {.fd = channel->fd, .events = POLLIN};
        if (left_ms <= 0)
            break;
        if (poll(&wanted, 1, left_ms > POLL_MAX_MS ? POLL_MAX_MS : (int)left_ms) <= 0)
            continue;
        ssize_t n = recv(channel->fd, dropped, sizeof dropped, MSG_DONTWAIT);
        open = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
    }
    return td_channel_free(channel);
}
