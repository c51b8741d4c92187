/* desk.h: the memory that a runner and its node share, for batches of calls: on it lie the number
 * of the call that is to begin next, and the results of those that have ended.
 *
 *      node:    td_desk_lay, send CALL ... td_desk_look, td_desk_results, td_desk_cut at any time
 *      runner:  td_desk_begin, run, td_desk_room, td_desk_done, for each call
 *
 * So neither waits for the other: finished calls can be fetched while a later one runs on, and are
 * not lost when it takes the runner down; and what has not begun can be taken back.
 * Results are bytes one after another. What is to stand before and after any run of them, so that
 * together they are a value, is the runner's: it writes these edges once.
 *
 * Positions are numbers of calls in the batch, from 0. Invariants: done <= begun <= calls; what the
 * runner has written is believed within these bounds only, since user code can write there.
 * Threads: one owner on each side. Lifetime: td_desk_new .. td_desk_free, td_desk_open ..
 * td_desk_free. */
#ifndef TD_POOL_DESK_H
#define TD_POOL_DESK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct td_blob;
struct td_desk;
struct td_error;

enum {
    TD_DESK_RESULTS_MAX = 1 << 20, /* bytes of a batch's results */
    TD_DESK_EDGE_MAX = 128,        /* bytes */
    TD_TOKEN_SIZE = 16,
};

struct td_desk_state {
    uint32_t begun;   /* calls */
    uint32_t done;    /* calls: the next one is running, if begun > done */
    uint32_t filled;  /* bytes of results */
    int64_t since_ns; /* when the last one began */
};

/* The node's side. *ret_fd is for the runner, and the caller's to close, also on failure (-1: there
 * is none). TD_ELIMIT, TD_ESYS, TD_ENOMEM. */
int td_desk_new(struct td_desk **ret_desk, int *ret_fd, struct td_error *err);
/* The runner's side; borrows fd. TD_EPROTO, TD_ENOMEM. */
int td_desk_open(int fd, struct td_desk **ret_desk, struct td_error *err);
struct td_desk *td_desk_free(struct td_desk *desk); /* accepts NULL, returns NULL */

/* Random bytes that both sides know, and what is printed by chance does not contain. */
const unsigned char *td_desk_token(const struct td_desk *desk);

/* -- node -- */

/* Clears it for a batch, before that is sent. */
void td_desk_lay(struct td_desk *desk, uint32_t calls);
struct td_desk_state td_desk_look(const struct td_desk *desk);
/* Lets no further call begin; how many have begun. */
uint32_t td_desk_cut(struct td_desk *desk);
/* The results in the bytes [from, to), with their edges, as a value; NULL: memory is out. */
struct td_blob *td_desk_results(const struct td_desk *desk, uint32_t from, uint32_t to);

/* -- runner -- */

/* Says what stands before and after results; each at most TD_DESK_EDGE_MAX bytes. TD_ELIMIT. */
int td_desk_edges(struct td_desk *desk, struct td_bytes head, struct td_bytes foot);
/* Begins the next call; false: there is none, or no more for this runner. */
bool td_desk_begin(struct td_desk *desk);
/* Where the result of the call that runs may be written, if `size` bytes are left; else NULL. */
char *td_desk_room(struct td_desk *desk, size_t size);
/* The call has ended, and its result is in the next `size` bytes; 0 when it was sent otherwise. */
void td_desk_done(struct td_desk *desk, uint32_t size);
/* The position of the call that runs, or ran last; when it began; bytes of results before it. */
uint32_t td_desk_at(const struct td_desk *desk);
int64_t td_desk_since(const struct td_desk *desk);
uint32_t td_desk_filled(const struct td_desk *desk);

#endif
