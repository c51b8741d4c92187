#include "pool/pool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/list.h"
#include "base/mem.h"
#include "os/channel.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/loop.h"
#include "os/proc.h"
#include "pool/desk.h"
#include "pool/ear.h"
#include "pool/profile.h"
#include "task/spec.h"
#include "wire/message.h"

enum {
    SUPERVISOR_FD = 3,
    CONTROL_MAX = 8 << 20,
    QUEUE_MAX = 256 << 20,
    PROFILES_MAX = 8,
    LIMITS_MAX = 16,
};

#define BROKEN                                                                                 \
    "the call closed or broke the connection of its runner; descriptors that it did not open " \
    "are not its own"

struct profile {
    struct td_list link; /* td_pool.profiles, least recently used first */
    struct td_profile *spec;
    uint32_t id;
    unsigned runners;
    bool told; /* the running supervisor knows it */
};

struct runner {
    struct td_pool *pool;
    struct profile *profile;
    uint32_t id;
    pid_t pid;
    struct td_channel *channel; /* NULL once it closed */
    struct td_ear ear;
    struct td_desk *desk;
    bool greeted;       /* it said HELLO */
    bool entered;       /* the supervisor has it, and it is within its limits */
    bool unread;        /* see struct td_pool_death */
    const char *reason; /* why it is being killed; NULL: not, or no words */
};

struct td_pool {
    struct td_loop *loop;
    char *supervisor_path;
    const struct td_pool_events *events;
    void *context;
    struct td_channel *supervisor; /* NULL: none runs; started when one is needed */
    pid_t supervisor_pid;
    char limits[LIMITS_MAX];
    struct td_list profiles;
    uint32_t last_profile;
    struct td_idmap runners;
};

int td_pool_new(struct td_loop *loop, const struct td_pool_options *options,
                const struct td_pool_events *events, void *context, struct td_pool **ret_pool,
                struct td_error *err)
{
    struct td_pool *pool = td_alloc_zero(sizeof *pool);
    char *path = td_memdup(options->supervisor_path, strlen(options->supervisor_path) + 1);
    if (!pool || !path) {
        td_free(pool);
        td_free(path);
        return td_error_set(err, TD_ENOMEM, "pool: out of memory");
    }
    *pool = (struct td_pool){
        .loop = loop, .supervisor_path = path, .events = events, .context = context};
    td_list_init(&pool->profiles);
    *ret_pool = pool;
    return 0;
}

static void runner_free(struct td_pool *pool, struct runner *runner)
{
    td_idmap_remove(&pool->runners, runner->id);
    td_channel_free(runner->channel);
    td_ear_done(&runner->ear);
    td_desk_free(runner->desk);
    if (runner->profile)
        runner->profile->runners--;
    td_free(runner);
}

static void profile_free(struct profile *profile)
{
    td_list_remove(&profile->link);
    td_profile_free(profile->spec);
    td_free(profile);
}

struct td_pool *td_pool_free(struct td_pool *pool)
{
    if (!pool)
        return NULL;
    pool->supervisor = td_channel_hang_up(pool->supervisor, td_clock_now() + TD_POOL_END_NS);
    for (size_t cursor = 0;; cursor = 0) {
        struct runner *runner = td_idmap_next(&pool->runners, &cursor);
        if (!runner)
            break;
        runner_free(pool, runner);
    }
    while (!td_list_empty(&pool->profiles))
        profile_free(TD_CONTAINER(pool->profiles.next, struct profile, link));
    td_idmap_done(&pool->runners);
    td_free(pool->supervisor_path);
    td_free(pool);
    return NULL;
}

/* Encodes a message; *ret_head must be freed with td_buf_done, its tail is borrowed. */
static int encode(const struct td_message *message, struct td_buf *ret_head,
                  struct td_bytes *ret_tail, struct td_error *err)
{
    td_buf_init(ret_head, CONTROL_MAX);
    return td_message_encode(message, ret_head, ret_tail, err);
}

/* -- the supervisor --------------------------------------------------------------------------- */

/* Words for a message with descriptors that could not be sent. */
static int refused(int status, const char *whom, struct td_error *err)
{
    if (status == TD_ESYS)
        return td_error_set(err, TD_ELIMIT, "no descriptor to hand on: too many open files");
    return td_error_set(err, status, "message to %s: %s", whom, td_status_text(status));
}

static int order(struct td_pool *pool, const struct td_message *message, const int *fds,
                 size_t nfds, struct td_error *err)
{
    TD_CLEANUP(td_buf_done) struct td_buf head;
    struct td_bytes tail;
    int r = encode(message, &head, &tail, err);
    if (r < 0)
        return r;
    r = td_channel_send_fds(pool->supervisor, (struct td_bytes){head.data, head.len}, fds, nfds);
    if (r == TD_ECLOSED)
        return td_error_set(err, TD_ENOSUPERVISOR, "%s", td_status_text(TD_ENOSUPERVISOR));
    return r < 0 ? refused(r, "the supervisor", err) : 0;
}

/* The last thing a runner says, then the news that it is gone. */
static void bury(struct td_pool *pool, struct runner *runner, struct td_pool_death *death)
{
    if (runner->channel)
        td_channel_read_now(runner->channel); /* to its end, which tells what was not read */
    td_ear_listen(&runner->ear);
    uint32_t id = runner->id;
    struct td_desk *desk = TD_TAKE(runner->desk);
    death->unread = runner->unread;
    death->desk = desk;
    runner_free(pool, runner);
    pool->events->gone(pool->context, id, death);
    td_desk_free(desk);
}

static void on_gone(struct td_pool *pool, const struct td_msg_runner_gone *news)
{
    struct runner *runner = td_idmap_get(&pool->runners, news->runner);
    if (!runner)
        return;
    struct td_pool_death death = {.cause = (enum td_death)news->cause,
                                  .code = news->code,
                                  .pid = runner->pid,
                                  .peak_bytes = news->peak_bytes,
                                  .detail = news->detail};
    if (death.cause == TD_DEATH_KILLED && runner->reason)
        death.detail = (struct td_bytes){runner->reason, strlen(runner->reason)};
    bury(pool, runner, &death);
}

/* It may be given work: not before it is within its limits, which its children would escape. */
static void tell_up(struct runner *runner)
{
    if (runner->greeted && runner->entered)
        runner->pool->events->up(runner->pool->context, runner->id);
}

static void on_news(void *context, struct td_bytes frame)
{
    struct td_pool *pool = context;
    struct td_message message;
    if (td_message_decode(frame, &message, NULL) < 0)
        return; /* it is our own program on our own socket; what is lost shows as silence */
    if (message.type == TD_MSG_SUPERVISOR_UP) {
        struct td_bytes limits = message.supervisor_up.limits;
        pool->supervisor_pid = message.supervisor_up.pid;
        (void)snprintf(pool->limits, sizeof pool->limits, "%.*s", (int)limits.len,
                       (const char *)limits.data); /* a cut word is still a word */
        pool->events->supervisor(pool->context);
    } else if (message.type == TD_MSG_RUNNER_UP) {
        struct runner *runner = td_idmap_get(&pool->runners, message.runner_up.runner);
        if (!runner)
            return;
        runner->pid = message.runner_up.pid;
        runner->entered = true;
        tell_up(runner);
    } else if (message.type == TD_MSG_RUNNER_GONE) {
        on_gone(pool, &message.runner_gone);
    }
}

/* The supervisor was killed. Its guardian closes the socket when everything below has ended, so
 * every runner is gone. */
static void on_supervisor_closed(void *context, const char *reason)
{
    struct td_pool *pool = context;
    char text[TD_ERROR_TEXT_MAX];
    (void)snprintf(text, sizeof text, "the supervisor process was lost: %s", reason);
    pool->supervisor = td_channel_free(pool->supervisor);
    pool->supervisor_pid = 0;
    pool->events->supervisor(pool->context);
    TD_LIST_EACH(node, &pool->profiles)
        TD_CONTAINER(node, struct profile, link)->told = false;
    for (size_t cursor = 0; !pool->supervisor; cursor = 0) {
        struct runner *runner = td_idmap_next(&pool->runners, &cursor);
        if (!runner)
            break;
        bury(pool, runner,
             &(struct td_pool_death){.cause = TD_DEATH_EXITED,
                                     .code = -9,
                                     .pid = runner->pid,
                                     .detail = {text, strlen(text)}});
    }
}

static int ensure_supervisor(struct td_pool *pool, struct td_error *err)
{
    static const struct td_channel_events events = {on_news, on_supervisor_closed};
    if (pool->supervisor)
        return 0;
    int pair[2];
    int r = td_fd_socketpair(pair, err);
    if (r < 0)
        return r;
    TD_CLEANUP(td_fd_close) int ours = pair[0];
    TD_CLEANUP(td_fd_close) int theirs = pair[1];
    char caller[16], fd[16];
    (void)snprintf(caller, sizeof caller, "%d", (int)getpid()); /* both always fit */
    (void)snprintf(fd, sizeof fd, "%d", SUPERVISOR_FD);
    char *argv[] = {pool->supervisor_path, "supervise", fd, caller, NULL};
    struct td_proc_fd fds[] = {{theirs, SUPERVISOR_FD}};
    r = td_proc_spawn_apart(argv, NULL, NULL, fds, TD_COUNT(fds), err);
    if (r < 0)
        return r;
    return td_channel_new(
        pool->loop, &ours,
        (struct td_channel_options){.frame_max = CONTROL_MAX, .queue_max = QUEUE_MAX}, &events,
        pool, &pool->supervisor, err);
}

/* -- profiles --------------------------------------------------------------------------------- */

static struct profile *profile_find(const struct td_pool *pool, uint32_t id)
{
    TD_LIST_EACH(node, &pool->profiles) {
        struct profile *profile = TD_CONTAINER(node, struct profile, link);
        if (profile->id == id)
            return profile;
    }
    return NULL;
}

static int profile_tell(struct td_pool *pool, struct profile *profile, struct td_error *err)
{
    if (profile->told)
        return 0;
    const struct td_runner_spec *spec = td_profile_spec(profile->spec);
    int r = order(pool,
                  &(struct td_message){.type = TD_MSG_PROFILE,
                                       .profile = {.profile = profile->id,
                                                   .memory_bytes = spec->memory_bytes,
                                                   .cpu_milli = spec->cpu_milli,
                                                   .argv = spec->argv,
                                                   .env = spec->env,
                                                   .cwd = spec->cwd}},
                  NULL, 0, err);
    profile->told = r == 0;
    return r;
}

/* Ends the zygotes of profiles that have not been used for longest. A dropped profile keeps its
 * number and is told again when it is needed. */
static void profiles_trim(struct td_pool *pool)
{
    size_t warm = 0;
    TD_LIST_EACH(node, &pool->profiles)
        warm += TD_CONTAINER(node, struct profile, link)->told;
    TD_LIST_EACH(node, &pool->profiles) {
        struct profile *profile = TD_CONTAINER(node, struct profile, link);
        if (warm <= PROFILES_MAX)
            break;
        if (!profile->told || profile->runners)
            continue;
        struct td_message message = {.type = TD_MSG_PROFILE_DROP,
                                     .profile_drop = {.profile = profile->id}};
        if (order(pool, &message, NULL, 0, NULL) == 0) {
            profile->told = false;
            warm--;
        }
    }
}

int td_pool_profile(struct td_pool *pool, const struct td_runner_spec *spec, uint32_t *ret_profile,
                    struct td_error *err)
{
    struct profile *profile = NULL;
    TD_LIST_EACH(node, &pool->profiles)
        if (td_profile_equal(TD_CONTAINER(node, struct profile, link)->spec, spec))
            profile = TD_CONTAINER(node, struct profile, link);
    if (!profile) {
        profile = td_alloc_zero(sizeof *profile);
        if (!profile)
            return td_error_set(err, TD_ENOMEM, "profile: out of memory");
        int r = td_profile_new(spec, &profile->spec, err);
        if (r < 0) {
            td_free(profile);
            return r;
        }
        profile->id = ++pool->last_profile;
        td_list_init(&profile->link);
    }
    td_list_remove(&profile->link);
    td_list_append(&pool->profiles, &profile->link);
    /* Warming up is no promise: what keeps it back is told by the runners, if it lasts. */
    if (ensure_supervisor(pool, NULL) == 0 && profile_tell(pool, profile, NULL) == 0)
        profiles_trim(pool);
    *ret_profile = profile->id;
    return 0;
}

/* -- runners ---------------------------------------------------------------------------------- */

static void on_runner_frame(void *context, struct td_bytes frame)
{
    struct runner *runner = context;
    struct td_pool *pool = runner->pool;
    struct td_message message;
    /* User code may reach the runner's socket: what it breaks ends that runner only. */
    struct td_blob *beside = td_channel_tail(runner->channel);
    int r = td_message_decode(frame, &message, NULL);
    if (r == 0 && beside)
        r = td_message_attach(&message, beside, NULL);
    if (r < 0) {
        td_pool_kill(pool, runner->id, BROKEN);
        return;
    }
    if (message.type == TD_MSG_HELLO) {
        if (message.hello.version != TD_WIRE_VERSION) {
            td_pool_kill(pool, runner->id, "it is of another version of Tendril");
            return;
        }
        runner->greeted = true;
        tell_up(runner);
    } else if (message.type == TD_MSG_GUEST) {
        int fd = td_channel_take_fd(runner->channel);
        if (fd >= 0)
            pool->events->guest(pool->context, runner->id, fd);
    } else {
        pool->events->message(pool->context, runner->id, &message);
    }
}

/* Without its socket a runner is of no use, even if it lives (user code closed it). */
static void on_runner_closed(void *context, const char *reason)
{
    (void)reason; /* `gone` will tell how it ended */
    struct runner *runner = context;
    runner->unread |= td_channel_unread(runner->channel);
    runner->channel = td_channel_free(runner->channel);
    td_pool_kill(runner->pool, runner->id, BROKEN);
}

static void on_runner_output(void *context, int stream, struct td_bytes text)
{
    struct runner *runner = context;
    runner->pool->events->output(runner->pool->context, runner->id, stream, text);
}

/* Shares memory with it; the descriptor is the first thing that it reads. */
static int share_desk(struct runner *runner, struct td_error *err)
{
    TD_CLEANUP(td_fd_close) int fd = -1;
    TD_CLEANUP(td_buf_done) struct td_buf head;
    struct td_bytes ignored;
    struct td_message message = {.type = TD_MSG_DESK, .desk = {.size = TD_DESK_RESULTS_MAX}};
    int r = encode(&message, &head, &ignored, err);
    if (r == 0)
        r = td_desk_new(&runner->desk, &fd, err);
    if (r < 0)
        return r;
    r = td_channel_send_fds(runner->channel, (struct td_bytes){head.data, head.len}, &fd, 1);
    return r < 0 ? refused(r, "a runner", err) : 0;
}

/* Makes the three connections; *ret_fds are the runner's ends. */
static int connect_runner(struct td_pool *pool, struct runner *runner, int ret_fds[3],
                          struct td_error *err)
{
    static const struct td_channel_events events = {on_runner_frame, on_runner_closed};
    static const uint8_t types[] = {TD_MSG_HELLO, TD_MSG_FINISH, TD_MSG_IDLE, TD_MSG_GUEST};
    int socket[2] = {-1, -1}, out[2] = {-1, -1}, error[2] = {-1, -1};
    int r = td_fd_socketpair(socket, err);
    if (r == 0)
        r = td_fd_pipe(out, err);
    if (r == 0)
        r = td_fd_pipe(error, err);
    if (r == 0)
        r = td_channel_new(pool->loop, &socket[0],
                           (struct td_channel_options){.frame_max = TD_FRAME_MAX,
                                                       .queue_max = QUEUE_MAX,
                                                       .types = types,
                                                       .ntypes = TD_COUNT(types)},
                           &events, runner, &runner->channel, err);
    if (r == 0) {
        int heard[2] = {out[0], error[0]};
        out[0] = error[0] = -1; /* the ear's now, also when it fails */
        r = td_ear_init(&runner->ear, pool->loop, heard, on_runner_output, runner, err);
    }
    if (r == 0)
        r = share_desk(runner, err);
    if (r == 0) {
        ret_fds[0] = socket[1];
        ret_fds[1] = out[1];
        ret_fds[2] = error[1];
        return 0;
    }
    runner->channel = td_channel_free(runner->channel);
    for (int i = 0; i < 2; i++) {
        td_fd_close(&socket[i]);
        td_fd_close(&out[i]);
        td_fd_close(&error[i]);
    }
    return r;
}

int td_pool_start(struct td_pool *pool, uint32_t id, uint32_t profile_id, struct td_error *err)
{
    struct profile *profile = profile_find(pool, profile_id);
    if (!profile)
        return td_error_set(err, TD_ENOTFOUND, "profile %u is not known", profile_id);
    int r = ensure_supervisor(pool, err);
    if (r == 0)
        r = profile_tell(pool, profile, err);
    if (r < 0)
        return r;
    struct runner *runner = td_alloc_zero(sizeof *runner);
    if (!runner || td_idmap_put(&pool->runners, id, runner) < 0) {
        td_free(runner);
        return td_error_set(err, TD_ENOMEM, "runner: out of memory");
    }
    runner->pool = pool;
    runner->id = id;
    int fds[3] = {-1, -1, -1};
    r = connect_runner(pool, runner, fds, err);
    if (r == 0)
        r = order(pool,
                  &(struct td_message){.type = TD_MSG_RUNNER_START,
                                       .runner_start = {.runner = id, .profile = profile_id}},
                  fds, 3, err);
    for (int i = 0; i < 3; i++)
        td_fd_close(&fds[i]);
    if (r < 0) {
        runner_free(pool, runner);
        return r;
    }
    runner->profile = profile;
    profile->runners++;
    return 0;
}

int td_pool_send(struct td_pool *pool, uint32_t id, const struct td_message *message,
                 struct td_blob *tail)
{
    struct runner *runner = td_idmap_get(&pool->runners, id);
    if (!runner)
        return TD_ECLOSED;
    TD_CLEANUP(td_buf_done) struct td_buf head;
    struct td_bytes ignored;
    int r = encode(message, &head, &ignored, NULL);
    if (r == 0)
        r = runner->channel
                ? td_channel_send(runner->channel, (struct td_bytes){head.data, head.len}, tail)
                : TD_ECLOSED;
    runner->unread |= r < 0;
    return r;
}

void td_pool_kill(struct td_pool *pool, uint32_t id, const char *reason)
{
    struct td_message message = {.type = TD_MSG_RUNNER_KILL, .runner_kill = {.runner = id}};
    struct runner *runner = td_idmap_get(&pool->runners, id);
    if (runner && !runner->reason)
        runner->reason = reason;
    if (pool->supervisor)
        (void)order(pool, &message, NULL, 0, NULL); /* without a supervisor it dies anyway */
}

void td_pool_hear(struct td_pool *pool, uint32_t id)
{
    struct runner *runner = td_idmap_get(&pool->runners, id);
    if (runner)
        td_ear_listen(&runner->ear);
}

void td_pool_read(struct td_pool *pool, uint32_t id)
{
    struct runner *runner = td_idmap_get(&pool->runners, id);
    if (runner && runner->channel)
        td_channel_read_now(runner->channel);
}

struct td_desk *td_pool_desk(const struct td_pool *pool, uint32_t id)
{
    const struct runner *runner = td_idmap_get(&pool->runners, id);
    return runner ? runner->desk : NULL;
}

void td_pool_mute(struct td_pool *pool, uint32_t id, bool muted)
{
    struct runner *runner = td_idmap_get(&pool->runners, id);
    if (runner)
        td_ear_mute(&runner->ear, muted);
}

pid_t td_pool_pid(const struct td_pool *pool, uint32_t id)
{
    const struct runner *runner = td_idmap_get(&pool->runners, id);
    return runner ? runner->pid : 0;
}

const char *td_pool_limits(const struct td_pool *pool)
{
    return pool->limits;
}

pid_t td_pool_supervisor(const struct td_pool *pool)
{
    return pool->supervisor_pid;
}
