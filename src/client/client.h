/* client.h: the caller's end: takes calls in from any thread, delivers outcomes and output.
 *
 *      any thread: td_map_submit --ops--> loop thread --> bus --> node ...
 *      any thread: td_map_next <--window-- loop thread <-- bus <-- node
 *
 * A client has one loop thread, which owns bus, node and pool. Everything below may be called
 * from any thread, at once; waiting is done without holding the lock. A client does not survive
 * fork(): in the child every function gives TD_EFORKED, does nothing, or says that there is
 * nothing, and maps are cancelled.
 * Lifetime: td_client_new .. td_client_close, which cancels all maps and ends all processes; from
 * then on everything says TD_ECLOSED. The memory goes with the last reference; each map holds
 * one. */
#ifndef TD_CLIENT_CLIENT_H
#define TD_CLIENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "task/window.h"

struct td_blob;
struct td_client;
struct td_error;
struct td_map;
struct td_outcome;
struct td_spec;

struct td_client_options {
    const char *supervisor_path; /* the tendril program; its pool is in this process */
    unsigned slots;              /* cores to use; 0: all of the machine */
    unsigned runners_max;        /* 0: a default */
    int link_fd;       /* >= 0: no pool of our own, but the bus behind this socket (see bus_link.h),
                          which is taken; supervisor_path is not used */
    const char *place; /* not NULL: no pool of our own, but the machines of a cluster: a client
                          token, or the path of a file with one */
};

int td_client_new(const struct td_client_options *options, struct td_client **ret_client,
                  struct td_error *err);
void td_client_close(struct td_client *client); /* blocks until all is ended; again: no-op */
struct td_client *td_client_unref(struct td_client *client); /* accepts NULL; the last one closes */

struct td_client_info {
    unsigned slots;     /* calls that run at once; of a cluster, as far as its agents are known */
    int supervisor_pid; /* 0: none runs */
    char limits[16];    /* how memory is limited: "cgroup v2", "cgroup v1", "polling" */
};
struct td_client_info td_client_info(struct td_client *client);

/* -- what wakes a reader ---------------------------------------------------------------------- */

#define TD_OUTPUT_GRACE_NS ((int64_t)50000000)

/* Some lines of one call. */
struct td_output {
    uint64_t map;
    uint64_t index; /* of the call; or of the first of `count`, of which one wrote it */
    uint32_t count;
    int stream; /* 1 or 2 */
    struct td_bytes text;
};

/* Waits until a notifying map is there, td_client_wake was called, or output has waited for a
 * moment (TD_OUTPUT_GRACE_NS): a thread that reads a map gets the first chance to take it. 0,
 * TD_ETIMEOUT, TD_EINTR, TD_ECLOSED. */
int td_client_wait(struct td_client *client, int64_t deadline_ns);

void td_client_wake(struct td_client *client);

/* The oldest output, to be freed with td_output_free, or NULL. */
struct td_output *td_client_take_output(struct td_client *client);
struct td_output *td_output_free(struct td_output *output); /* accepts NULL, returns NULL */

/* The next map opened with `notify` whose first outcome has come, as a reference; or NULL. */
struct td_map *td_client_take_notice(struct td_client *client);

/* -- maps ------------------------------------------------------------------------------------- */

struct td_map_options {
    /* What stands before and after the arguments of calls that follow each other, so that together
     * they are arguments for all of them; copied. */
    struct td_bytes head, foot;
    uint64_t length;      /* calls that will be packed; UINT64_MAX: not known */
    uint64_t ahead_calls; /* at most so many are held (see td_window_span), or a few batches, */
    size_t ahead_bytes;   /* with arguments of about so many bytes, or a few calls */
    bool ordered;         /* deliver in the order of submission, else as calls finish */
    bool notify;          /* td_client_take_notice gives it when its first outcome is there */
    bool direct;          /* who submits reads at once: nobody else is woken for it */
    bool relay; /* who reads it writes output too: td_map_next says TD_EAGAIN when some waits */
};

/* Opens a map. *ret_map is a reference. TD_ENOMEM, TD_ECLOSED, TD_EFORKED. */
int td_map_new(struct td_client *client, struct td_spec *spec, struct td_map_options options,
               struct td_map **ret_map, struct td_error *err);
struct td_map *td_map_ref(struct td_map *map);
struct td_map *td_map_unref(struct td_map *map); /* the last one cancels what still runs */
uint64_t td_map_id(const struct td_map *map);    /* random, unique */

/* Adds a call; takes a reference to args. TD_ECANCELLED, TD_ECLOSED, TD_ENOMEM, TD_EFORKED,
 * TD_ELIMIT (of bytes that are not in a memory file). */
int td_map_submit(struct td_map *map, struct td_blob *args, uint64_t *ret_index,
                  struct td_error *err);

/* Adds a call that may be packed with those added before and after it, as td_packing.h has it: it
 * is submitted when their batch is full, or a moment later. The same errors; TD_EAGAIN: there is no
 * room, or it is too early to say with how many others; wait with td_map_wait_room. */
int td_map_pack(struct td_map *map, struct td_bytes args, struct td_error *err);

/* Adds a call alone, however long those before it wait. The errors of td_map_submit; TD_EAGAIN:
 * there is no room; wait with td_map_wait_room. */
int td_map_offer(struct td_map *map, struct td_blob *args, struct td_error *err);

/* Adds a call that has failed already: an input that could not even be sent. Its outcome is RAISED
 * with this value. The same errors. */
int td_map_reject(struct td_map *map, struct td_bytes value, struct td_error *err);

/* No more calls will come: once all results are taken, td_map_next says TD_ENOTFOUND. The statuses
 * of td_map_submit, for the last that were packed. */
int td_map_end(struct td_map *map);

/* Waits until td_map_pack may succeed, at most until the deadline. 0, TD_ETIMEOUT, TD_EINTR,
 * TD_ECANCELLED, TD_ECLOSED, TD_EFORKED. */
int td_map_wait_room(struct td_map *map, int64_t deadline_ns);

/* The next outcome, the caller's from now on. TD_ENOTFOUND: all were delivered; TD_ETIMEOUT,
 * TD_EINTR; TD_EAGAIN: output is waiting (see relay), look again when it is written;
 * TD_ECANCELLED: the map was cancelled, and what had finished before is delivered;
 * TD_ECLOSED: the client was closed or lost its bus; TD_EFORKED. */
int td_map_next(struct td_map *map, int64_t deadline_ns, struct td_outcome **ret_outcome);

/* Waiting calls go, running ones are stopped. */
void td_map_cancel(struct td_map *map);

struct td_window_counts td_map_counts(struct td_map *map);
enum td_window_call td_map_state(struct td_map *map, uint64_t index);
bool td_map_cancelled(struct td_map *map);

/* What call `index` has written to a stream (1, 2, or 0: both, as it came), as a new blob of
 * bytes; *ret_lost counts the bytes of the whole map that were dropped because the log has a
 * maximum. TD_ENOMEM. */
int td_map_logs(struct td_map *map, uint64_t index, int stream, struct td_blob **ret_text,
                uint64_t *ret_lost);

#endif
