/* seat.h: a runner's own end of the runner protocol: what a program needs to be a runner or a
 * zygote. Blocking and without a loop: a runner does one thing at a time.
 *
 *      td_seat_init, send HELLO, then: receive FUNCTION, FORGET, CALL; send FINISH
 *      a CALL of several: begin and end each on seat->desk (desk.h), and send IDLE
 *
 * Threads: one at a time. Lifetime: embedded; td_seat_init .. td_seat_done. */
#ifndef TD_POOL_SEAT_H
#define TD_POOL_SEAT_H

#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "wire/message.h"

struct td_blob;
struct td_desk;
struct td_error;

enum { TD_SEAT_FDS = 3 };

struct td_seat {
    int fd;
    struct td_buf in;     /* the frame being read */
    size_t consumed;      /* bytes of `in` that the last message used */
    int fds[TD_SEAT_FDS]; /* came with the last message; -1 when taken */
    struct td_blob *tail; /* of the last message, if it came beside it */
    struct td_desk *desk; /* a runner's, once it has received the first other message */
};

/* Borrows fd, which is blocking. */
void td_seat_init(struct td_seat *seat, int fd);
void td_seat_done(struct td_seat *seat);

/* Waits for the next message but DESK, which it obeys; it borrows from the seat until the next
 * call. Descriptors that came with it are in seat->fds. TD_ECLOSED: the other side is gone;
 * TD_EINTR; TD_EPROTO; TD_ENOMEM. */
int td_seat_receive(struct td_seat *seat, struct td_message *ret_message, struct td_error *err);

/* Sends a message whole; its tail beside it when it is `shared`, a memory file. fds (may be NULL)
 * are duplicated for the peer. TD_ECLOSED, TD_ELIMIT. */
int td_seat_send(struct td_seat *seat, const struct td_message *message, const int *fds,
                 size_t nfds, struct td_error *err);

/* Ties this process to its parent: it is killed when `parent` dies, or at once when that has
 * happened already. */
void td_seat_die_with(pid_t parent);

#endif
