#include <sys/random.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "client/client_internal.h"
#include "os/clock.h"
#include "os/memfile.h"
#include "task/outcome.h"
#include "wire/message.h"

enum {
    LOG_MAX = 16 << 20, /* bytes of output that a map keeps */
    PACK_MAX = 1 << 20, /* bytes of arguments in a batch of several calls */
    AHEAD = 4,          /* batches for each runner that may be held, whatever the limit of calls */
    CALLS_MIN = 8,      /* calls that may be held, whatever their size */
};

static void lock(struct td_map *map)
{
    (void)pthread_mutex_lock(&map->client->lock); /* cannot fail: a default mutex, locked once */
}

static void unlock(struct td_map *map)
{
    (void)pthread_mutex_unlock(&map->client->lock);
}

static void map_free(struct td_map *map)
{
    td_buf_done(&map->pack);
    td_blob_unref(map->foot);
    td_window_free(map->window);
    td_log_done(&map->log);
    td_client_unref(map->client);
    td_free(map);
}

/* Random, so that maps of several clients never meet; 0 is not given. */
static int new_id(const struct td_client *client, uint64_t *ret_id)
{
    do {
        if (getrandom(ret_id, sizeof *ret_id, 0) != (ssize_t)sizeof *ret_id)
            return TD_ESYS;
    } while (*ret_id == 0 || td_idmap_get(&client->maps, *ret_id));
    return 0;
}

/* Registers the map and queues its opening; the lock is held. */
static int open_map(struct td_map *map, struct td_spec *spec)
{
    struct td_client *client = map->client;
    int r = td_client_usable(client);
    if (r == 0)
        r = new_id(client, &map->id);
    if (r == 0)
        r = td_idmap_put(&client->maps, map->id, map);
    if (r < 0)
        return r;
    struct op op = {.kind = OP_OPEN, .map = map->id, .spec = spec};
    r = map->options.direct ? td_client_push_lazy(client, op) : td_client_push(client, op);
    if (r < 0)
        td_idmap_remove(&client->maps, map->id);
    return r;
}

/* Keeps copies of them: the options of the caller are no longer there later. */
static int set_edges(struct td_map *map, const struct td_map_options *options)
{
    map->head = options->head.len;
    map->foot = td_blob_new(options->foot.data, options->foot.len);
    map->options.head = map->options.foot = (struct td_bytes){0};
    return map->foot ? td_buf_add(&map->pack, options->head.data, options->head.len) : TD_ENOMEM;
}

int td_map_new(struct td_client *client, struct td_spec *spec, struct td_map_options options,
               struct td_map **ret_map, struct td_error *err)
{
    if (td_client_forked(client))
        return td_error_set(err, TD_EFORKED, "%s", td_status_text(TD_EFORKED));
    struct td_map *map = td_alloc_zero(sizeof *map);
    if (!map)
        return td_error_set(err, TD_ENOMEM, "map: out of memory");
    map->client = client;
    atomic_fetch_add(&client->refs, 1);
    map->options = options;
    map->refs = 1;
    td_list_init(&map->notice);
    td_list_init(&map->opened);
    td_log_init(&map->log, LOG_MAX);
    td_buf_init(&map->pack, TD_FRAME_MAX);
    int r = td_window_new(options.ordered, &map->window);
    if (r == 0)
        r = set_edges(map, &options);
    if (r == 0) {
        lock(map);
        td_packing_init(&map->packing, client->info.slots);
        r = open_map(map, spec);
        unlock(map);
    }
    if (r < 0) {
        map_free(map);
        return td_error_set(err, r, "map: %s", td_status_text(r));
    }
    *ret_map = map;
    return 0;
}

struct td_map *td_map_ref(struct td_map *map)
{
    lock(map);
    map->refs++;
    unlock(map);
    return map;
}

struct td_map *td_map_unref(struct td_map *map)
{
    if (!map || td_client_forked(map->client))
        return NULL; /* in a forked child it is the parent's */
    lock(map);
    bool last = --map->refs == 0;
    if (last) {
        td_list_remove(&map->opened);
        td_idmap_remove(&map->client->maps, map->id);
        struct td_window_counts counts = td_window_counts(map->window);
        struct op op = {.kind = OP_FORGET, .map = map->id};
        /* Without memory to say so, the bus keeps the map until the client closes. */
        if (!map->client->closed && counts.finished == counts.submitted)
            (void)td_client_push_lazy(map->client, op);
        else if (!map->client->closed)
            (void)td_client_push(map->client, op);
    }
    unlock(map);
    if (last)
        map_free(map);
    return NULL;
}

uint64_t td_map_id(const struct td_map *map)
{
    return map->id;
}

/* What a reader or writer of the map is told first; the lock is held. */
static int usable(const struct td_map *map)
{
    int r = td_client_usable(map->client);
    return r == 0 && map->cancelled ? TD_ECANCELLED : r;
}

static int submit(struct td_map *map, struct td_blob *args, uint32_t count, uint64_t *ret_index)
{
    int r = usable(map);
    if (r == 0 && map->ended)
        r = TD_EINVAL;
    if (r == 0)
        r = td_window_submit(map->window, count, ret_index);
    if (r < 0)
        return r;
    struct op op = {
        .kind = OP_SUBMIT, .map = map->id, .index = *ret_index, .count = count, .args = args};
    r = map->options.direct ? td_client_push_lazy(map->client, op)
                            : td_client_push(map->client, op);
    if (r < 0) {
        td_window_unsubmit(map->window, count);
        return r;
    }
    map->bytes += td_blob_bytes(args).len;
    map->calls += count;
    td_packing_submitted(&map->packing, count);
    return 0;
}

static int too_large(size_t len, struct td_error *err)
{
    return td_error_set(err, TD_ELIMIT, "the arguments have %zu bytes, at most %zu can be sent",
                        len, TD_FRAME_MAX / 2);
}

/* Whether a further batch has room beside those that are held, by number and by size. */
static bool has_room(const struct td_map *map)
{
    uint64_t calls = map->options.ahead_calls;
    uint64_t each = map->calls ? map->bytes / map->calls + 1 : 1;
    uint64_t fit = map->options.ahead_bytes / each;
    uint64_t batch = map->goal < PACK_MAX / each ? map->goal : PACK_MAX / each + 1;
    uint64_t packs = (uint64_t)AHEAD * map->packing.slots * batch;
    calls = calls > packs ? calls : packs;
    fit = fit > CALLS_MIN ? fit : CALLS_MIN;
    return td_window_span(map->window) < (calls < fit ? calls : fit);
}

static int submit_alone(struct td_map *map, struct td_blob *args, bool if_room, uint64_t *ret_index,
                        struct td_error *err)
{
    size_t len = td_blob_bytes(args).len;
    if (td_client_forked(map->client))
        return td_error_set(err, TD_EFORKED, "%s", td_status_text(TD_EFORKED));
    if (len > TD_FRAME_MAX / 2 && td_memfile_fd(args) < 0)
        return too_large(len, err);
    lock(map);
    int r = td_map_seal(map);
    if (r == 0 && if_room && !has_room(map))
        r = TD_EAGAIN;
    if (r == 0)
        r = submit(map, args, 1, ret_index);
    unlock(map);
    return r < 0 ? td_error_set(err, r, "submit: %s", td_status_text(r)) : 0;
}

int td_map_submit(struct td_map *map, struct td_blob *args, uint64_t *ret_index,
                  struct td_error *err)
{
    return submit_alone(map, args, false, ret_index, err);
}

int td_map_offer(struct td_map *map, struct td_blob *args, struct td_error *err)
{
    uint64_t index = 0;
    return submit_alone(map, args, true, &index, err);
}

/* -- packing ---------------------------------------------------------------------------------- */

int td_map_seal(struct td_map *map)
{
    if (map->packed == 0)
        return 0;
    TD_CLEANUP(td_blob_unrefp)
    struct td_blob *args = td_blob_join(
        (const struct td_bytes[]){{map->pack.data, map->pack.len}, td_blob_bytes(map->foot)}, 2);
    uint64_t index = 0;
    int r = args ? submit(map, args, map->packed, &index) : TD_ENOMEM;
    if (r < 0)
        return r;
    map->pack.len = map->head;
    map->packed = 0;
    td_list_remove(&map->opened);
    return 0;
}

/* How many calls go into the next batch, with those that are in it; 0: it is too early to say. */
static uint32_t goal(const struct td_map *map, int64_t *ret_when)
{
    uint64_t all = map->options.length, come = map->packing.submitted;
    uint64_t left = all == UINT64_MAX ? UINT64_MAX : all > come ? all - come : 0;
    return td_packing_next(&map->packing, left, td_clock_now(), ret_when);
}

/* Begins a batch, and sees to it that it goes even if nothing more is added to it. */
static int open_pack(struct td_map *map)
{
    int64_t when;
    uint32_t calls = has_room(map) ? goal(map, &when) : 0;
    if (calls == 0)
        return TD_EAGAIN;
    map->goal = calls;
    if (map->goal > 1) {
        td_list_append(&map->client->opened, &map->opened);
        if (!td_loop_post(map->client->loop, &map->client->opening))
            map->goal = 1;
    }
    return 0;
}

static int pack(struct td_map *map, struct td_bytes args)
{
    int r = usable(map);
    if (r == 0 && map->ended)
        r = TD_EINVAL;
    if (r == 0 && map->packed > 0 && map->pack.len + args.len > PACK_MAX)
        r = td_map_seal(map);
    if (r == 0 && map->packed == 0)
        r = open_pack(map);
    if (r == 0)
        r = td_buf_add(&map->pack, args.data, args.len);
    if (r < 0)
        return r;
    map->packed++;
    if (map->packed < map->goal)
        return 0;
    r = td_map_seal(map);
    if (r < 0) { /* it is the caller's again */
        map->packed--;
        map->pack.len -= args.len;
    }
    return r;
}

int td_map_pack(struct td_map *map, struct td_bytes args, struct td_error *err)
{
    if (td_client_forked(map->client))
        return td_error_set(err, TD_EFORKED, "%s", td_status_text(TD_EFORKED));
    if (args.len > TD_FRAME_MAX / 2)
        return too_large(args.len, err);
    lock(map);
    int r = pack(map, args);
    unlock(map);
    return r < 0 ? td_error_set(err, r, "submit: %s", td_status_text(r)) : 0;
}

int td_map_reject(struct td_map *map, struct td_bytes value, struct td_error *err)
{
    uint64_t index = 0;
    if (td_client_forked(map->client))
        return td_error_set(err, TD_EFORKED, "%s", td_status_text(TD_EFORKED));
    TD_CLEANUP(td_outcome_freep)
    struct td_outcome *outcome = td_outcome_new(map->id, 0, 0, TD_OUTCOME_RAISED);
    if (outcome)
        outcome->value = td_blob_new(value.data, value.len);
    if (!outcome || !outcome->value)
        return td_error_set(err, TD_ENOMEM, "reject: out of memory");
    lock(map);
    int r = usable(map);
    if (r == 0)
        r = td_map_seal(map);
    if (r == 0)
        r = td_window_submit(map->window, 1, &index);
    if (r == 0) {
        outcome->index = index;
        td_packing_submitted(&map->packing, 1);
        td_packing_finished(&map->packing, 1, 0);
        r = td_window_put(map->window, &outcome);
    }
    unlock(map);
    td_event_signal(&map->event);
    return r < 0 ? td_error_set(err, r, "reject: %s", td_status_text(r)) : 0;
}

int td_map_end(struct td_map *map)
{
    if (td_client_forked(map->client))
        return TD_EFORKED;
    lock(map);
    int r = usable(map);
    if (r == 0)
        r = td_map_seal(map);
    map->ended = true;
    unlock(map);
    td_event_signal(&map->event);
    return r;
}

int td_map_wait_room(struct td_map *map, int64_t deadline_ns)
{
    for (;;) {
        if (td_client_forked(map->client))
            return TD_EFORKED;
        uint32_t seen = td_event_read(&map->event);
        int64_t when = INT64_MAX;
        lock(map);
        int r = usable(map);
        bool room = map->packed > 0 || (has_room(map) && goal(map, &when) > 0);
        unlock(map);
        if (r < 0 || room)
            return r;
        bool ours = when < deadline_ns;
        r = td_event_wait(&map->event, seen, ours ? when : deadline_ns);
        if (r < 0 && !(r == TD_ETIMEOUT && ours))
            return r;
    }
}

/* -- reading ---------------------------------------------------------------------------------- */

/* What td_map_next has to say now: 0 with an outcome, 0 without one (wait), or a status. */
static int look(struct td_map *map, struct td_outcome **ret_outcome)
{
    const struct td_outcome *next = td_window_peek(map->window);
    *ret_outcome = NULL;
    /* Of a cancelled map, calls that were stopped are no results: usable says what became of them.
     */
    if (next && !(map->cancelled && next->status == TD_OUTCOME_CANCELLED)) {
        *ret_outcome = td_window_take(map->window);
        return 0;
    }
    int r = usable(map);
    struct td_window_counts counts = td_window_counts(map->window);
    if (r == 0 && map->ended && counts.taken == counts.submitted)
        r = TD_ENOTFOUND;
    if (r == 0 && map->options.relay && !td_list_empty(&map->client->outputs))
        r = TD_EAGAIN;
    return r;
}

/* A reader that turns the loop while it waits. */
struct reader {
    struct td_map *map;
    bool began;
};

static bool has_news(void *context)
{
    struct reader *reader = context;
    struct td_map *map = reader->map;
    lock(map);
    if (!reader->began) /* it is us who will do what we have queued: nobody is woken */
        (void)td_loop_post(map->client->loop, &map->client->post);
    reader->began = true;
    bool news = td_window_peek(map->window) || usable(map) < 0 ||
                (map->options.relay && !td_list_empty(&map->client->outputs));
    unlock(map);
    return news;
}

/* Turns the loop until there is news of the map. 0 also when that was not possible: wait. */
static int help(struct td_map *map, int64_t deadline_ns)
{
    struct td_client *client = map->client;
    struct reader reader = {.map = map};
    lock(map);
    bool linger = client->maps.len == 1; /* others may not be kept waiting when we leave the loop */
    bool open = !client->closed;
    unlock(map);
    if (!open)
        return 0;
    int r = td_loop_help(client->loop, has_news, &reader, linger, deadline_ns);
    if (r != TD_EAGAIN && r != TD_ECLOSED && r != TD_ESYS)
        return r;
    lock(map);
    bool posted = td_loop_post(client->loop, &client->post);
    unlock(map);
    return posted ? 0 : TD_ECLOSED;
}

int td_map_next(struct td_map *map, int64_t deadline_ns, struct td_outcome **ret_outcome)
{
    int r = 0;
    if (map->options.direct && !td_client_forked(map->client))
        r = help(map, deadline_ns);
    while (r == 0) {
        if (td_client_forked(map->client))
            return TD_EFORKED;
        struct td_outcome *outcome;
        uint32_t seen = td_event_read(&map->event);
        lock(map);
        r = look(map, &outcome);
        unlock(map);
        if (outcome) {
            *ret_outcome = outcome;
            td_event_signal(&map->event); /* there is room now, for whoever waits for it */
            return 0;
        }
        if (r == 0)
            r = td_event_wait(&map->event, seen, deadline_ns);
    }
    return r;
}

void td_map_cancel(struct td_map *map)
{
    if (td_client_forked(map->client))
        return;
    lock(map);
    struct op op = {.kind = OP_CANCEL, .map = map->id};
    td_list_remove(&map->opened);
    if (!map->cancelled && td_client_usable(map->client) == 0)
        (void)td_client_push(map->client, op); /* if not now, then when it is forgotten */
    map->cancelled = true;
    unlock(map);
    td_event_signal(&map->event);
}

/* A thread that the child does not have may hold the lock for ever: nobody looks there. */
struct td_window_counts td_map_counts(struct td_map *map)
{
    if (td_client_forked(map->client))
        return (struct td_window_counts){0};
    lock(map);
    struct td_window_counts counts = td_window_counts(map->window);
    unlock(map);
    return counts;
}

enum td_window_call td_map_state(struct td_map *map, uint64_t index)
{
    if (td_client_forked(map->client))
        return TD_CALL_UNKNOWN;
    lock(map);
    enum td_window_call state = td_window_state(map->window, index);
    unlock(map);
    return state;
}

bool td_map_cancelled(struct td_map *map)
{
    if (td_client_forked(map->client))
        return true;
    lock(map);
    bool cancelled = map->cancelled;
    unlock(map);
    return cancelled;
}

int td_map_logs(struct td_map *map, uint64_t index, int stream, struct td_blob **ret_text,
                uint64_t *ret_lost)
{
    if (td_client_forked(map->client))
        return TD_EFORKED;
    lock(map);
    int r = td_log_read(&map->log, index, stream, ret_text);
    *ret_lost = map->log.lost;
    unlock(map);
    return r;
}
