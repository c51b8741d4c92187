/* channel.h: whole frames over a unix stream socket on a loop, in both directions, with
 * descriptors attached where a message carries some.
 *
 * A frame is a 32-bit little-endian length and that many bytes. The length's highest bit says that
 * the frame's tail lies in a memory file (memfile.h), whose descriptor comes with it. What is sent
 * is kept until the socket takes it; more than queue_max waiting bytes is TD_ELIMIT at the sender.
 * Memory for a frame that is being read grows with what has arrived, not with what its length
 * claims. Threads: the loop thread. Lifetime: td_channel_new takes the socket; td_channel_free
 * closes it and may be called inside its own callbacks. */
#ifndef TD_OS_CHANNEL_H
#define TD_OS_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct td_blob;
struct td_channel;
struct td_error;
struct td_loop;

enum { TD_CHANNEL_FDS_MAX = 4 };
#define TD_CHANNEL_BESIDE ((uint32_t)1 << 31) /* in a frame's length: the tail is in a file */

struct td_channel_events {
    /* One frame's body, borrowed during the call. */
    void (*frame)(void *context, struct td_bytes frame);
    /* The peer is gone or broke the framing; reason is a sentence. Called once, last. */
    void (*closed)(void *context, const char *reason);
};

struct td_channel_options {
    size_t frame_max;     /* bytes */
    size_t queue_max;     /* bytes waiting to be sent */
    const uint8_t *types; /* what a frame's first byte may be; borrowed; NULL: anything. Nonsense is
                             so found before waiting for as many bytes as its length claims. */
    size_t ntypes;
};

/* Takes *fd on success. TD_ENOMEM, TD_ELIMIT, TD_ESYS. */
int td_channel_new(struct td_loop *loop, int *fd, struct td_channel_options options,
                   const struct td_channel_events *events, void *context,
                   struct td_channel **ret_channel, struct td_error *err);
struct td_channel *td_channel_free(struct td_channel *channel); /* accepts NULL, returns NULL */

/* Frees it too (accepts NULL, returns NULL), but first says that nothing more comes, also where a
 * forked child holds a copy of the socket, and waits until the peer has closed its side or the
 * deadline is there. What still arrives is dropped. */
struct td_channel *td_channel_hang_up(struct td_channel *channel, int64_t deadline_ns);

/* Sends head and tail as one frame; copies head, holds a reference to tail (may be NULL) until it
 * is out. A tail in a memory file goes by its descriptor. TD_ECLOSED, TD_ENOMEM, TD_ELIMIT. */
int td_channel_send(struct td_channel *channel, struct td_bytes head, struct td_blob *tail);

/* The same with descriptors, duplicated for the peer; the caller keeps its own. Goes out before
 * anything that is sent later. TD_ESYS: they cannot be duplicated (too many open files). */
int td_channel_send_fds(struct td_channel *channel, struct td_bytes head, const int *fds,
                        size_t nfds);

/* The tail of the frame being handed over, if it came beside it; else NULL. Borrowed. */
struct td_blob *td_channel_tail(const struct td_channel *channel);

/* The next descriptor that came with the frame being handed over, or -1; the caller owns it. What
 * nobody takes is closed at the next frame. Descriptors may be missing: the kernel drops those
 * that would go over our limit of open files. */
int td_channel_take_fd(struct td_channel *channel);

/* Stops or resumes reading, for back-pressure. */
void td_channel_pause(struct td_channel *channel, bool paused);

/* Reads what the socket holds right now and delivers whole frames, before the loop comes by. */
void td_channel_read_now(struct td_channel *channel);

size_t td_channel_queued(const struct td_channel *channel); /* bytes not yet taken by the socket */

/* Inside closed(): the peer has not read all that was sent, so it never saw the end of the last
 * frame. */
bool td_channel_unread(const struct td_channel *channel);

#endif
