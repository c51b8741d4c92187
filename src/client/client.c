#include "client/client_internal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "bus/bus.h"
#include "bus/bus_caller.h"
#include "bus/bus_link.h"
#include "bus/bus_local.h"
#include "bus/cluster.h"
#include "bus/nats.h"
#include "bus/token.h"
#include "node/node.h"
#include "os/clock.h"
#include "os/memfile.h"
#include "pool/pool.h"
#include "task/outcome.h"
#include "task/spec.h"
#include "wire/message.h"

enum {
    CLUSTER_SLOTS = 8,    /* until agents have answered */
    OUTPUT_MAX = 4 << 20, /* bytes that wait for the reader before runners are muted */
    OUTPUT_ITEM_MIN = 1 << 10,
    OUTPUT_MUCH = 64 << 10, /* bytes that are written at once, whoever reads */
};
#define SEAL_NS ((int64_t)2000000) /* how long a call waits for others to go with it */

/* Lines of one call; short ones that follow each other share an item. */
struct output {
    struct td_list link;
    struct td_output output;
    int64_t at_ns; /* when it came */
    size_t cap;
    char text[];
};

static void lock(struct td_client *client)
{
    (void)pthread_mutex_lock(&client->lock); /* cannot fail: a default mutex, locked once */
}

static void unlock(struct td_client *client)
{
    (void)pthread_mutex_unlock(&client->lock);
}

bool td_client_forked(const struct td_client *client)
{
    return td_forkmark_is_child(client->mark);
}

int td_client_usable(const struct td_client *client)
{
    return client->closed || client->lost ? TD_ECLOSED : 0;
}

static void wake_all(struct td_client *client)
{
    size_t cursor = 0;
    for (struct td_map *map = td_idmap_next(&client->maps, &cursor); map;
         map = td_idmap_next(&client->maps, &cursor))
        td_event_signal(&map->event);
    td_event_signal(&client->event);
}

/* -- operations: any thread to loop thread ---------------------------------------------------- */

int td_client_push_lazy(struct td_client *client, struct op op)
{
    struct op *queued = td_alloc(sizeof *queued);
    if (!queued)
        return TD_ENOMEM;
    *queued = op;
    td_blob_ref(op.args);
    if (op.spec)
        td_spec_ref(op.spec);
    td_list_append(&client->ops, &queued->link);
    return 0;
}

int td_client_push(struct td_client *client, struct op op)
{
    int r = td_client_push_lazy(client, op);
    if (r < 0 || td_loop_post(client->loop, &client->post))
        return r;
    client->lost = true; /* nobody will ever do it; it goes with the client */
    wake_all(client);
    return 0;
}

static void op_free(struct op *op)
{
    td_blob_unref(op->args);
    td_spec_unref(op->spec);
    td_free(op);
}

static void on_started(void *context, uint64_t id, uint64_t index, uint32_t count);
static void on_output(void *context, uint64_t id, uint64_t index, uint32_t count, int stream,
                      struct td_bytes text);
static void on_outcome(void *context, struct td_outcome **outcome);
static void on_lost(void *context, const char *reason);

static const struct td_bus_sink sink = {on_started, on_output, on_outcome, on_lost};

/* Calls that could not even be submitted have an outcome that says why. */
static void refuse(struct td_client *client, const struct op *op, const char *why)
{
    TD_CLEANUP(td_outcome_freep)
    struct td_outcome *outcome = td_outcome_new(op->map, op->index, 0, TD_OUTCOME_NOT_STARTED);
    if (!outcome)
        return;
    outcome->count = op->count;
    outcome->detail = td_blob_new(why, strlen(why));
    on_outcome(client, &outcome);
}

static void do_op(struct td_client *client, const struct op *op)
{
    struct td_error err = {0};
    switch (op->kind) {
    case OP_OPEN:
        if (td_bus_open(client->bus, &sink, client, op->map, op->spec, &err) < 0)
            (void)err; /* each of its calls is refused below, with the same words */
        break;
    case OP_SUBMIT: {
        int r = td_bus_submit(client->bus, op->map, op->index, op->count, op->args);
        if (r < 0)
            refuse(client, op,
                   r == TD_ENOTFOUND ? "its map could not be opened" : td_status_text(r));
        break;
    }
    case OP_CANCEL: td_bus_cancel(client->bus, op->map); break;
    case OP_FORGET: td_bus_forget(client->bus, op->map); break;
    case OP_MUTE: td_bus_mute(client->bus, op->map, true); break;
    case OP_UNMUTE: td_bus_mute(client->bus, op->map, false); break;
    }
}

static void update_info(struct td_client *client)
{
    if (!client->node)
        return;
    const struct td_pool *pool = td_node_pool(client->node);
    client->info.slots = td_node_slots(client->node);
    client->info.supervisor_pid = td_pool_supervisor(pool);
    (void)snprintf(client->info.limits, sizeof client->info.limits, "%s", td_pool_limits(pool));
}

static void run_ops(void *context)
{
    struct td_client *client = context;
    for (;;) {
        lock(client);
        struct td_list *node = td_list_pop(&client->ops);
        bool stop = client->stopping;
        unlock(client);
        if (stop)
            td_loop_stop(client->loop);
        if (!node)
            break;
        struct op *op = TD_CONTAINER(node, struct op, link);
        do_op(client, op);
        op_free(op);
    }
}

/* -- what the bus says: loop thread ----------------------------------------------------------- */

static void on_started(void *context, uint64_t id, uint64_t index, uint32_t count)
{
    struct td_client *client = context;
    lock(client);
    struct td_map *map = td_idmap_get(&client->maps, id);
    if (map) {
        bool first = map->packing.began_ns == 0 && map->options.ahead_calls > 0;
        td_packing_started(&map->packing, td_clock_now());
        td_window_started(map->window, index, count);
        if (first)
            td_event_signal(&map->event);
    }
    unlock(client);
}

static void mute(struct td_client *client, struct td_map *map)
{
    if (map->muted || client->output_bytes <= OUTPUT_MAX)
        return;
    struct op op = {.kind = OP_MUTE, .map = map->id};
    map->muted = client->muting = td_client_push(client, op) == 0;
}

static void unmute(struct td_client *client)
{
    if (!client->muting || client->output_bytes > OUTPUT_MAX / 2)
        return;
    client->muting = false;
    size_t cursor = 0;
    for (struct td_map *map = td_idmap_next(&client->maps, &cursor); map;
         map = td_idmap_next(&client->maps, &cursor)) {
        struct op op = {.kind = OP_UNMUTE, .map = map->id};
        if (map->muted && td_client_push(client, op) == 0)
            map->muted = false;
        client->muting |= map->muted;
    }
}

/* The item at the end of the queue when the text belongs to it and fits, else a new one. */
static struct output *output_for(struct td_client *client, const struct td_output *wanted)
{
    struct output *last = TD_CONTAINER(client->outputs.prev, struct output, link);
    if (!td_list_empty(&client->outputs) && last->output.map == wanted->map &&
        last->output.index == wanted->index && last->output.count == wanted->count &&
        last->output.stream == wanted->stream &&
        wanted->text.len <= last->cap - last->output.text.len)
        return last;
    size_t cap = wanted->text.len < OUTPUT_ITEM_MIN ? OUTPUT_ITEM_MIN : wanted->text.len;
    struct output *item = td_alloc(sizeof *item + cap);
    if (!item)
        return NULL;
    item->cap = cap;
    item->at_ns = td_clock_now();
    item->output = *wanted;
    item->output.text = (struct td_bytes){item->text, 0};
    td_list_append(&client->outputs, &item->link);
    return item;
}

/* Without memory for it a line is not printed; the log counts it as lost. */
static void on_output(void *context, uint64_t id, uint64_t index, uint32_t count, int stream,
                      struct td_bytes text)
{
    struct td_client *client = context;
    struct td_output wanted = {
        .map = id, .index = index, .count = count, .stream = stream, .text = text};
    bool first = false;
    lock(client);
    struct td_map *map = td_idmap_get(&client->maps, id);
    if (map) {
        td_log_add(&map->log, index, count, stream, text);
        first = td_list_empty(&client->outputs);
        struct output *item = output_for(client, &wanted);
        if (item) {
            memcpy(item->text + item->output.text.len, text.data, text.len);
            item->output.text.len += text.len;
            client->output_bytes += text.len;
            mute(client, map);
        }
    }
    if (first && map)
        td_event_signal(&map->event);
    unlock(client);
    if (first)
        td_event_signal(&client->event); /* else the reader has been told and has not come yet */
}

static void on_outcome(void *context, struct td_outcome **outcome)
{
    struct td_client *client = context;
    bool notify = false;
    lock(client);
    struct td_map *map = td_idmap_get(&client->maps, (*outcome)->map);
    uint32_t calls = (*outcome)->count;
    int64_t duration = (*outcome)->duration_ns;
    td_memfile_close((*outcome)->value); /* it has arrived: readers may hold many */
    if (map && td_window_put(map->window, outcome) == 0) {
        td_packing_finished(&map->packing, calls, duration);
        if (map->options.notify && !map->noticed) {
            map->noticed = notify = true;
            map->refs++;
            td_list_append(&client->notices, &map->notice);
        }
        td_event_signal(&map->event);
    }
    unlock(client);
    if (notify)
        td_event_signal(&client->event);
}

/* -- packing: nobody waits for a batch to become full ----------------------------------------- */

static void on_opening(void *context)
{
    struct td_client *client = context;
    /* Without memory for it the batch goes when it is full. */
    (void)td_loop_timer(client->loop, &client->sealing, td_clock_now() + SEAL_NS);
}

static void on_sealing(void *context)
{
    struct td_client *client = context;
    lock(client);
    TD_LIST_EACH_SAFE(node, &client->opened)
        (void)td_map_seal(TD_CONTAINER(node, struct td_map, opened)); /* else when it is full */
    unlock(client);
}

static void on_supervisor(void *context)
{
    struct td_client *client = context;
    lock(client);
    update_info(client);
    unlock(client);
}

static void on_slots(void *context, unsigned slots)
{
    struct td_client *client = context;
    size_t cursor = 0;
    lock(client);
    client->info.slots = slots;
    for (struct td_map *map = td_idmap_next(&client->maps, &cursor); map;
         map = td_idmap_next(&client->maps, &cursor)) {
        map->packing.slots = slots;
        td_event_signal(&map->event);
    }
    unlock(client);
}

static void on_lost(void *context, const char *reason)
{
    (void)reason; /* TD_ECLOSED says it; the process that held the bus is gone */
    struct td_client *client = context;
    lock(client);
    client->lost = true;
    wake_all(client);
    unlock(client);
}

/* -- reading ---------------------------------------------------------------------------------- */

/* When the oldest output has waited long enough for a reader of its map; now, when it is much. */
static int64_t output_due_ns(const struct td_client *client)
{
    if (td_list_empty(&client->outputs))
        return TD_NO_DEADLINE;
    if (client->output_bytes > OUTPUT_MUCH)
        return 0;
    return TD_CONTAINER(client->outputs.next, struct output, link)->at_ns + TD_OUTPUT_GRACE_NS;
}

int td_client_wait(struct td_client *client, int64_t deadline_ns)
{
    for (;;) {
        if (td_client_forked(client))
            return TD_EFORKED;
        uint32_t seen = td_event_read(&client->event);
        lock(client);
        bool ready = client->woken || !td_list_empty(&client->notices);
        bool over = client->closed || client->lost;
        int64_t due = output_due_ns(client);
        client->woken = false;
        unlock(client);
        if (ready || (due != TD_NO_DEADLINE && due <= td_clock_now()))
            return 0;
        if (over)
            return TD_ECLOSED;
        int r = td_event_wait(&client->event, seen, due < deadline_ns ? due : deadline_ns);
        if (r < 0 && (r != TD_ETIMEOUT || deadline_ns <= td_clock_now()))
            return r;
    }
}

void td_client_wake(struct td_client *client)
{
    if (td_client_forked(client))
        return;
    lock(client);
    client->woken = true;
    unlock(client);
    td_event_signal(&client->event);
}

struct td_output *td_client_take_output(struct td_client *client)
{
    if (td_client_forked(client))
        return NULL;
    lock(client);
    struct td_list *node = td_list_pop(&client->outputs);
    struct output *item = node ? TD_CONTAINER(node, struct output, link) : NULL;
    if (item) {
        client->output_bytes -= item->output.text.len;
        unmute(client);
    }
    unlock(client);
    return item ? &item->output : NULL;
}

struct td_output *td_output_free(struct td_output *output)
{
    if (output)
        td_free(TD_CONTAINER(output, struct output, output));
    return NULL;
}

struct td_map *td_client_take_notice(struct td_client *client)
{
    if (td_client_forked(client))
        return NULL;
    lock(client);
    struct td_list *node = td_list_pop(&client->notices);
    unlock(client);
    return node ? TD_CONTAINER(node, struct td_map, notice) : NULL;
}

struct td_client_info td_client_info(struct td_client *client)
{
    if (td_client_forked(client))
        return (struct td_client_info){0};
    lock(client);
    struct td_client_info info = client->info;
    unlock(client);
    return info;
}

/* -- life ------------------------------------------------------------------------------------- */

static void *thread_main(void *context)
{
    struct td_client *client = context;
    if (td_loop_run(client->loop) < 0)
        on_lost(client, "the event loop failed");
    client->node = td_node_free(client->node);
    client->bus = td_bus_free(client->bus);
    return NULL;
}

/* Signals are for the threads of the program that we are a guest in. */
static int start_thread(struct td_client *client, struct td_error *err)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&client->thread, NULL, thread_main, client);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r != 0 ? td_error_sys(err, r, "pthread_create") : 0;
}

static void release(struct td_client *client)
{
    td_node_free(client->node);
    td_bus_free(client->bus);
    for (struct td_list *node = td_list_pop(&client->ops); node; node = td_list_pop(&client->ops))
        op_free(TD_CONTAINER(node, struct op, link));
    for (struct td_list *node = td_list_pop(&client->outputs); node;
         node = td_list_pop(&client->outputs))
        td_free(TD_CONTAINER(node, struct output, link));
    td_idmap_done(&client->maps);
    td_loop_free(client->loop);
    td_forkmark_free(client->mark);
    (void)pthread_mutex_destroy(&client->lock);
    td_free(client);
}

static int join_cluster(struct td_client *client, const char *place, struct td_error *err)
{
    struct td_token token;
    int r = td_token_place(place, "client", &token, err);
    if (r < 0)
        return r;
    const struct td_nats_options server = {
        .url = token.url, .user = token.user, .secret = token.secret, .name = "tendril caller"};
    const struct td_bus_caller_options options = {.server = &server,
                                                  .pool = TD_POOL_DEFAULT,
                                                  .sink = &sink,
                                                  .context = client,
                                                  .slots = on_slots};
    client->info.slots = CLUSTER_SLOTS;
    return td_bus_caller_new(client->loop, &options, &client->bus, err);
}

/* The bus, and where it is one of this process the node at its other end. */
static int join_bus(struct td_client *client, const struct td_client_options *options,
                    struct td_error *err)
{
    int link_fd = options->link_fd;
    client->info.slots = (unsigned)get_nprocs(); /* with a link: it leads to this machine */
    if (options->place)
        return join_cluster(client, options->place, err);
    if (link_fd >= 0)
        return td_bus_link_new(client->loop, &link_fd, &sink, client, &client->bus, err);
    int r = td_bus_local_new(&client->bus, err);
    if (r < 0)
        return r;
    return td_node_new(client->loop, client->bus,
                       &(struct td_node_options){.supervisor_path = options->supervisor_path,
                                                 .slots = options->slots,
                                                 .runners_max = options->runners_max,
                                                 .changed = on_supervisor,
                                                 .context = client},
                       &client->node, err);
}

int td_client_new(const struct td_client_options *options, struct td_client **ret_client,
                  struct td_error *err)
{
    struct td_client *client = td_alloc_zero(sizeof *client);
    if (!client)
        return td_error_set(err, TD_ENOMEM, "client: out of memory");
    (void)pthread_mutex_init(&client->lock, NULL); /* cannot fail for a default mutex on Linux */
    atomic_init(&client->refs, 1);
    td_list_init(&client->ops);
    td_list_init(&client->outputs);
    td_list_init(&client->notices);
    td_list_init(&client->opened);
    client->post = (struct td_post){.fn = run_ops, .context = client};
    client->opening = (struct td_post){.fn = on_opening, .context = client};
    client->sealing = (struct td_timer){.fn = on_sealing, .context = client};
    int r = td_forkmark_new(&client->mark, err);
    if (r == 0)
        r = td_loop_new(&client->loop, err);
    if (r == 0)
        r = join_bus(client, options, err);
    if (r == 0) {
        update_info(client);
        r = start_thread(client, err);
    }
    if (r < 0) {
        release(client);
        return r;
    }
    *ret_client = client;
    return 0;
}

/* The first to come closes; everybody else may go on at once and finds TD_ECLOSED. */
void td_client_close(struct td_client *client)
{
    if (td_client_forked(client))
        return; /* a forked child has the parent's memory and not its thread: leave it */
    lock(client);
    bool first = !client->closed;
    client->closed = true;
    client->stopping = true;
    wake_all(client);
    client->stuck = !td_loop_post(client->loop, &client->post);
    unlock(client);
    if (!first)
        return;
    if (client->stuck)
        (void)pthread_detach(client->thread); /* it cannot be told; see td_client_unref */
    else
        (void)pthread_join(client->thread, NULL); /* it is ours, and only the first comes here */
    for (struct td_map *map = td_client_take_notice(client); map;
         map = td_client_take_notice(client))
        td_map_unref(map);
}

struct td_client *td_client_unref(struct td_client *client)
{
    if (!client || atomic_fetch_sub(&client->refs, 1) > 1)
        return NULL;
    if (td_client_forked(client))
        return NULL; /* as above: what it holds is the parent's */
    td_client_close(client);
    if (!client->stuck)
        release(client); /* else its thread may use it as long as the process lives */
    return NULL;
}
