#include "pool/zygote.h"

#include <signal.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "os/channel.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/loop.h"
#include "os/proc.h"
#include "pool/profile.h"
#include "wire/message.h"

enum { CHANNEL_FD = 3, FRAME_MAX = 1 << 16, QUEUE_MAX = 1 << 20, STILLBORN_MAX = 2 };

enum zygote_mode { ZYGOTE_NONE, ZYGOTE_STARTING, ZYGOTE_FORKING, ZYGOTE_EXECUTING };

/* A runner that is asked for and has not started. */
struct request {
    struct td_list link;
    uint32_t runner;
    int fds[TD_ZYGOTE_FDS];
};

struct td_zygote {
    struct td_loop *loop;
    struct td_profile *profile;
    const struct td_zygote_events *events;
    void *context;
    enum zygote_mode mode;
    pid_t pid; /* 0: none */
    struct td_channel *channel;
    struct td_list requests; /* struct request.link: not answered yet, oldest first */
    struct td_timer alarm;   /* when it is given up; set while it owes an answer */
    int64_t patience_ns;
    unsigned stillborn; /* processes that died while they were starting */
};

static void request_free(struct request *request)
{
    td_list_remove(&request->link);
    for (size_t i = 0; i < TD_ZYGOTE_FDS; i++)
        td_fd_close(&request->fds[i]);
    td_free(request);
}

static struct request *request_find(struct td_zygote *zygote, uint32_t runner)
{
    TD_LIST_EACH(node, &zygote->requests) {
        struct request *request = TD_CONTAINER(node, struct request, link);
        if (request->runner == runner)
            return request;
    }
    return NULL;
}

static void fail(struct td_zygote *zygote, struct request *request, const char *reason)
{
    uint32_t runner = request->runner;
    request_free(request);
    zygote->events->failed(zygote->context, runner, reason);
}

/* Starts the runner as a program of its own. */
static void execute(struct td_zygote *zygote, struct request *request)
{
    char **argv, **env;
    struct td_error err = {0};
    struct td_proc_fd fds[] = {
        {request->fds[0], CHANNEL_FD}, {request->fds[1], 1}, {request->fds[2], 2}};
    pid_t pid;
    td_profile_command(zygote->profile, "runner", CHANNEL_FD, &argv, &env);
    int r = td_proc_spawn(argv, env, td_profile_cwd(zygote->profile), fds, TD_COUNT(fds), &pid,
                          &err);
    if (r < 0) {
        fail(zygote, request, err.text);
        return;
    }
    uint32_t runner = request->runner;
    request_free(request);
    zygote->events->started(zygote->context, runner, pid);
}

/* Asks the zygote; its answer is FORKED. */
static void ask(struct td_zygote *zygote, struct request *request)
{
    TD_CLEANUP(td_buf_done) struct td_buf head;
    struct td_bytes tail;
    struct td_message message = {.type = TD_MSG_FORK, .fork = {.runner = request->runner}};
    td_buf_init(&head, FRAME_MAX);
    int r = td_message_encode(&message, &head, &tail, NULL);
    if (r == 0)
        r = td_channel_send_fds(zygote->channel, (struct td_bytes){head.data, head.len},
                                request->fds, TD_ZYGOTE_FDS);
    if (r < 0 && r != TD_ECLOSED) /* a closed channel is noticed, and the request tried again */
        fail(zygote, request, td_status_text(r));
}

/* From now on, or from its last answer on, it has so much time for the next one. */
static void set_alarm(struct td_zygote *zygote)
{
    bool owes = zygote->mode == ZYGOTE_STARTING ||
                (zygote->mode == ZYGOTE_FORKING && !td_list_empty(&zygote->requests));
    (void)td_loop_timer(zygote->loop, &zygote->alarm, /* it has its place, see new */
                        owes ? td_clock_now() + zygote->patience_ns : TD_NO_DEADLINE);
}

static void serve_all(struct td_zygote *zygote)
{
    TD_LIST_EACH_SAFE(node, &zygote->requests) {
        struct request *request = TD_CONTAINER(node, struct request, link);
        if (zygote->mode == ZYGOTE_EXECUTING)
            execute(zygote, request);
        else
            ask(zygote, request);
    }
}

static void stop_process(struct td_zygote *zygote)
{
    zygote->channel = td_channel_free(zygote->channel);
    if (zygote->pid > 0)
        (void)kill(zygote->pid, SIGKILL); /* ours until it is reaped: the number is not reused */
}

static void zygote_to_executing(struct td_zygote *zygote)
{
    zygote->mode = ZYGOTE_EXECUTING;
    set_alarm(zygote);
    stop_process(zygote);
    serve_all(zygote);
}

static void on_frame(void *context, struct td_bytes frame)
{
    struct td_zygote *zygote = context;
    struct td_message message;
    if (td_message_decode(frame, &message, NULL) < 0) {
        zygote_to_executing(zygote);
        return;
    }
    if (message.type == TD_MSG_ZYGOTE_READY && zygote->mode == ZYGOTE_STARTING) {
        if (message.zygote_ready.threads > 1) {
            zygote_to_executing(zygote);
            return;
        }
        zygote->mode = ZYGOTE_FORKING;
        zygote->stillborn = 0;
        set_alarm(zygote);
        serve_all(zygote);
    } else if (message.type == TD_MSG_FORKED) {
        struct request *request = request_find(zygote, message.forked.runner);
        if (!request)
            return;
        if (message.forked.pid <= 0) {
            struct td_error err;
            (void)td_error_sys(&err, -message.forked.pid,
                               "cannot fork a runner"); /* for its text */
            fail(zygote, request, err.text);
            set_alarm(zygote);
            return;
        }
        request_free(request);
        set_alarm(zygote);
        zygote->events->started(zygote->context, message.forked.runner, message.forked.pid);
    }
}

static int start_process(struct td_zygote *zygote, struct td_error *err);

/* An import takes for ever, or what it left to be done at a fork. Runners of their own import when
 * their call needs it, where a timeout sees it. */
static void on_alarm(void *context)
{
    zygote_to_executing(context);
}

/* Died while importing, twice: it will again, so execute. Died later (killed): start another. */
static void on_closed(void *context, const char *reason)
{
    (void)reason; /* what matters is the state it was in */
    struct td_zygote *zygote = context;
    zygote->stillborn += zygote->mode == ZYGOTE_STARTING;
    zygote->mode = ZYGOTE_NONE;
    set_alarm(zygote);
    stop_process(zygote);
    if (zygote->stillborn >= STILLBORN_MAX ||
        (!td_list_empty(&zygote->requests) && start_process(zygote, NULL) < 0))
        zygote_to_executing(zygote);
}

static int start_process(struct td_zygote *zygote, struct td_error *err)
{
    static const struct td_channel_events events = {on_frame, on_closed};
    int pair[2];
    int r = td_fd_socketpair(pair, err);
    if (r < 0)
        return r;
    TD_CLEANUP(td_fd_close) int ours = pair[0];
    TD_CLEANUP(td_fd_close) int theirs = pair[1];
    char **argv, **env;
    struct td_proc_fd fds[] = {{theirs, CHANNEL_FD}};
    td_profile_command(zygote->profile, "zygote", CHANNEL_FD, &argv, &env);
    pid_t pid;
    r = td_proc_spawn(argv, env, td_profile_cwd(zygote->profile), fds, TD_COUNT(fds), &pid, err);
    if (r < 0)
        return r;
    zygote->pid = pid;
    zygote->mode = ZYGOTE_STARTING;
    set_alarm(zygote);
    zygote->channel = td_channel_free(zygote->channel);
    return td_channel_new(
        zygote->loop, &ours,
        (struct td_channel_options){.frame_max = FRAME_MAX, .queue_max = QUEUE_MAX}, &events,
        zygote, &zygote->channel, err);
}

int td_zygote_new(struct td_loop *loop, struct td_profile **profile, int64_t patience_ns,
                  const struct td_zygote_events *events, void *context,
                  struct td_zygote **ret_zygote, struct td_error *err)
{
    struct td_zygote *zygote = td_alloc_zero(sizeof *zygote);
    if (!zygote)
        return td_error_set(err, TD_ENOMEM, "zygote: out of memory");
    zygote->loop = loop;
    zygote->profile = *profile;
    zygote->events = events;
    zygote->context = context;
    zygote->patience_ns = patience_ns;
    zygote->alarm = (struct td_timer){.fn = on_alarm, .context = zygote};
    td_list_init(&zygote->requests);
    int r = td_loop_timer(loop, &zygote->alarm, TD_NO_DEADLINE);
    if (r < 0) {
        td_free(zygote);
        return td_error_set(err, r, "zygote: out of memory");
    }
    if (start_process(zygote, err) < 0)
        zygote->mode = ZYGOTE_EXECUTING; /* each runner says by itself why it cannot start */
    *profile = NULL;
    *ret_zygote = zygote;
    return 0;
}

struct td_zygote *td_zygote_free(struct td_zygote *zygote)
{
    if (!zygote)
        return NULL;
    td_loop_untimer(zygote->loop, &zygote->alarm);
    stop_process(zygote);
    while (!td_list_empty(&zygote->requests))
        request_free(TD_CONTAINER(zygote->requests.next, struct request, link));
    td_profile_free(zygote->profile);
    td_free(zygote);
    return NULL;
}

const struct td_profile *td_zygote_profile(const struct td_zygote *zygote)
{
    return zygote->profile;
}

void td_zygote_start(struct td_zygote *zygote, uint32_t runner, int fds[TD_ZYGOTE_FDS])
{
    struct request *request = td_alloc_zero(sizeof *request);
    if (!request) {
        for (size_t i = 0; i < TD_ZYGOTE_FDS; i++)
            td_fd_close(&fds[i]);
        zygote->events->failed(zygote->context, runner, "out of memory");
        return;
    }
    request->runner = runner;
    for (size_t i = 0; i < TD_ZYGOTE_FDS; i++) {
        request->fds[i] = fds[i];
        fds[i] = -1;
    }
    td_list_append(&zygote->requests, &request->link);
    if (zygote->mode == ZYGOTE_NONE && start_process(zygote, NULL) < 0)
        zygote->mode = ZYGOTE_EXECUTING;
    if (zygote->mode == ZYGOTE_EXECUTING)
        execute(zygote, request);
    else if (zygote->mode == ZYGOTE_FORKING) {
        bool first = zygote->requests.next == &request->link;
        ask(zygote, request);
        if (first)
            set_alarm(zygote);
    }
}

bool td_zygote_reaped(struct td_zygote *zygote, pid_t pid)
{
    if (zygote->pid != pid || pid == 0)
        return false;
    zygote->pid = 0;
    if (zygote->channel)
        td_channel_read_now(zygote->channel); /* its last words, then on_closed */
    return true;
}

bool td_zygote_settle(struct td_zygote *zygote)
{
    if (zygote->channel)
        td_channel_read_now(zygote->channel);
    return zygote->mode == ZYGOTE_FORKING && !td_list_empty(&zygote->requests);
}

pid_t td_zygote_pid(const struct td_zygote *zygote)
{
    return zygote->pid;
}
