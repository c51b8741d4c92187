/* ear.h: hears one runner's output: the reading ends of its two pipes.
 *
 * After each reading the ear rests for a moment, so that a runner that prints many lines costs a
 * reading for many of them, not for each.
 * Threads: the loop thread. Lifetime: embedded; td_ear_init takes the descriptors, td_ear_done
 * closes them. */
#ifndef TD_POOL_EAR_H
#define TD_POOL_EAR_H

#include <stdbool.h>

#include "base/bytes.h"
#include "os/loop.h"

struct td_error;

typedef void td_ear_fn(void *context, int stream, struct td_bytes text);

struct td_ear {
    struct td_loop *loop;
    struct td_ear_pipe {
        struct td_ear *ear;
        struct td_watch watch;
        int stream; /* 1 or 2 */
        bool over;  /* the writer is gone */
    } pipes[2];
    struct td_timer rest;
    bool muted;
    td_ear_fn *fn;
    void *context;
};

int td_ear_init(struct td_ear *ear, struct td_loop *loop, int fds[2], td_ear_fn *fn, void *context,
                struct td_error *err);
void td_ear_done(struct td_ear *ear);

/* Delivers what is in the pipes now: at most what they held when it began, so that a writer that
 * never rests cannot hold us. */
void td_ear_listen(struct td_ear *ear);

void td_ear_mute(struct td_ear *ear, bool muted);

#endif
