#include "pool/ear.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/err.h"
#include "os/clock.h"
#include "os/fd.h"

enum { READ_MAX = 64 << 10 };
#define REST_NS ((int64_t)1000000)

/* Reads once; the bytes that came, 0 for none now, -1 at the end. */
static ssize_t read_some(struct td_ear_pipe *pipe)
{
    char text[READ_MAX];
    ssize_t n = read(pipe->watch.fd, text, sizeof text);
    if (n > 0)
        pipe->ear->fn(pipe->ear->context, pipe->stream, (struct td_bytes){text, (size_t)n});
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    return n == 0 ? -1 : n;
}

static void watch(struct td_ear_pipe *pipe, bool on)
{
    unsigned events = on && !pipe->over ? (unsigned)TD_LOOP_READ : 0;
    (void)td_loop_rewatch(pipe->ear->loop, &pipe->watch, events); /* a valid fd: cannot fail */
}

static void wake(void *context)
{
    struct td_ear *ear = context;
    for (int i = 0; i < 2; i++)
        watch(&ear->pipes[i], !ear->muted);
}

static void on_readable(void *context, unsigned events)
{
    (void)events; /* read only */
    struct td_ear_pipe *pipe = context;
    struct td_ear *ear = pipe->ear;
    pipe->over = read_some(pipe) < 0;
    if (td_loop_timer(ear->loop, &ear->rest, td_clock_now() + REST_NS) == 0)
        watch(pipe, false); /* without memory for the timer it listens on */
}

int td_ear_init(struct td_ear *ear, struct td_loop *loop, int fds[2], td_ear_fn *fn, void *context,
                struct td_error *err)
{
    *ear = (struct td_ear){
        .loop = loop, .fn = fn, .context = context, .rest = {.fn = wake, .context = ear}};
    for (int i = 0; i < 2; i++) {
        ear->pipes[i] = (struct td_ear_pipe){.ear = ear,
                                             .stream = i + 1,
                                             .watch = {.fd = fds[i],
                                                       .events = TD_LOOP_READ,
                                                       .fn = on_readable,
                                                       .context = &ear->pipes[i]}};
        fds[i] = -1;
    }
    int r = td_loop_watch(loop, &ear->pipes[0].watch, err);
    if (r == 0)
        r = td_loop_watch(loop, &ear->pipes[1].watch, err);
    if (r < 0)
        td_ear_done(ear);
    return r;
}

void td_ear_done(struct td_ear *ear)
{
    if (ear->loop)
        td_loop_untimer(ear->loop, &ear->rest);
    for (int i = 0; i < 2; i++) {
        if (!ear->pipes[i].ear)
            continue;
        td_loop_unwatch(ear->loop, &ear->pipes[i].watch);
        td_fd_close(&ear->pipes[i].watch.fd);
        ear->pipes[i].ear = NULL;
    }
}

void td_ear_listen(struct td_ear *ear)
{
    for (int i = 0; i < 2; i++) {
        struct td_ear_pipe *pipe = &ear->pipes[i];
        int held = 0;
        if (ioctl(pipe->watch.fd, FIONREAD, &held) < 0)
            continue;
        while (held > 0) {
            ssize_t n = read_some(pipe);
            if (n <= 0)
                break;
            held -= (int)n;
        }
    }
}

void td_ear_mute(struct td_ear *ear, bool muted)
{
    if (ear->muted == muted)
        return;
    ear->muted = muted;
    wake(ear);
}
