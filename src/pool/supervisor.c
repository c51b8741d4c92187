#include "pool/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/text.h"
#include "os/channel.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/loop.h"
#include "os/proc.h"
#include "pool/death.h"
#include "pool/guardian.h"
#include "pool/limit.h"
#include "pool/profile.h"
#include "pool/zygote.h"
#include "task/spec.h"
#include "wire/message.h"

enum {
    FRAME_MAX = 8 << 20, /* a PROFILE with its environment is the largest */
    QUEUE_MAX = 8 << 20,
    CHILDREN_MAX = 4096,
    IMPORT_S = 60, /* that a zygote may take to import */
    IMPORT_S_MAX = 1000000,
};

struct runner {
    uint32_t id;
    pid_t pid; /* 0: not started yet */
    struct td_limit *limit;
    bool kill_wanted;    /* told to kill it, perhaps before it had started */
    bool killed;         /* it was alive when we did so */
    struct td_list link; /* supervisor.remains: it has ended, what it had started not quite */
};

struct supervisor {
    struct td_loop *loop;
    struct td_channel *pool;
    struct td_watch caller_watch;
    struct td_watch signal_watch;
    struct td_timer poll;
    struct td_cgroup_support support;
    bool probed;   /* support is known */
    bool by_group; /* limit by control group where that is possible */
    int64_t patience_ns;
    struct td_idmap zygotes; /* profile -> struct td_zygote */
    struct td_idmap runners; /* id -> struct runner */
    struct td_idmap runner_by_pid;
    struct td_list remains;
    bool polling;
    bool sweep_due; /* orphans may be left from when a fork was under way */
};

static void say(struct supervisor *supervisor, const struct td_message *message)
{
    TD_CLEANUP(td_buf_done) struct td_buf frame;
    struct td_bytes tail;
    td_buf_init(&frame, FRAME_MAX);
    /* A pool that cannot be told is a pool that is gone: its socket says so by itself. */
    if (td_message_encode(message, &frame, &tail, NULL) == 0 &&
        td_buf_add(&frame, tail.data, tail.len) == 0)
        (void)td_channel_send(supervisor->pool, (struct td_bytes){frame.data, frame.len}, NULL);
}

/* -- runners ---------------------------------------------------------------------------------- */

static void runner_free(struct supervisor *supervisor, struct runner *runner)
{
    td_idmap_remove(&supervisor->runners, runner->id);
    if (runner->pid)
        td_idmap_remove(&supervisor->runner_by_pid, (uint64_t)runner->pid);
    if (runner->limit && !td_limit_end(runner->limit)) {
        td_list_append(&supervisor->remains, &runner->link);
        return;
    }
    td_limit_free(runner->limit);
    td_free(runner);
}

/* Frees those whose last process has ended by now. */
static void clear_remains(struct supervisor *supervisor)
{
    TD_LIST_EACH_SAFE(node, &supervisor->remains) {
        struct runner *runner = TD_CONTAINER(node, struct runner, link);
        if (!td_limit_end(runner->limit))
            continue;
        td_list_remove(&runner->link);
        td_limit_free(runner->limit);
        td_free(runner);
    }
}

static void say_gone(struct supervisor *supervisor, uint32_t runner, enum td_death cause, int code,
                     uint64_t peak_bytes, const char *detail)
{
    say(supervisor, &(struct td_message){.type = TD_MSG_RUNNER_GONE,
                                         .runner_gone = {.runner = runner,
                                                         .cause = (uint8_t)cause,
                                                         .code = code,
                                                         .peak_bytes = peak_bytes,
                                                         .detail = {detail, strlen(detail)}}});
}

static void not_started(struct supervisor *supervisor, struct runner *runner, const char *reason)
{
    say_gone(supervisor, runner->id, TD_DEATH_NOT_STARTED, 0, 0, reason);
    runner_free(supervisor, runner);
}

static void poll_limits(void *context)
{
    struct supervisor *supervisor = context;
    struct runner *polled[CHILDREN_MAX];
    pid_t pids[CHILDREN_MAX];
    uint64_t rss[CHILDREN_MAX];
    size_t n = 0;
    size_t cursor = 0;
    for (struct runner *runner = td_idmap_next(&supervisor->runners, &cursor);
         runner && n < CHILDREN_MAX; runner = td_idmap_next(&supervisor->runners, &cursor)) {
        if (!runner->pid || !runner->limit || !td_limit_polled(runner->limit))
            continue;
        polled[n] = runner;
        pids[n++] = runner->pid;
    }
    td_proc_tree_rss(pids, rss, n);
    for (size_t i = 0; i < n; i++)
        if (td_limit_poll(polled[i]->limit, pids[i], rss[i]))
            td_proc_kill_tree(pids[i], false);
    supervisor->polling = n > 0;
    if (supervisor->polling)
        (void)td_loop_timer(supervisor->loop, &supervisor->poll,
                            td_clock_now() + TD_LIMIT_POLL_NS); /* it has a place in the heap */
}

/* The runner must not run without its limits: what goes wrong here is told and ends it. */
static int limit_runner(struct supervisor *supervisor, struct runner *runner, struct td_error *err)
{
    if (!runner->limit)
        return 0;
    int r = td_limit_enter(runner->limit, runner->pid, err);
    if (r < 0 || !td_limit_polled(runner->limit) || supervisor->polling)
        return r;
    supervisor->polling = true;
    return td_loop_timer(supervisor->loop, &supervisor->poll, td_clock_now() + TD_LIMIT_POLL_NS);
}

static void sweep_orphans(struct supervisor *supervisor);
static void runner_kill(struct supervisor *supervisor, uint32_t id);

static void on_started(void *context, uint32_t id, pid_t pid)
{
    struct supervisor *supervisor = context;
    struct runner *runner = td_idmap_get(&supervisor->runners, id);
    struct td_error err = {0};
    if (!runner || td_idmap_put(&supervisor->runner_by_pid, (uint64_t)pid, runner) < 0) {
        td_proc_kill_tree(pid, false);
        if (runner)
            not_started(supervisor, runner, "out of memory");
        return;
    }
    runner->pid = pid;
    if (limit_runner(supervisor, runner, &err) < 0) {
        td_proc_kill_tree(pid, false);
        not_started(supervisor, runner, err.text);
        return;
    }
    say(supervisor,
        &(struct td_message){.type = TD_MSG_RUNNER_UP, .runner_up = {.runner = id, .pid = pid}});
    if (runner->kill_wanted)
        runner_kill(supervisor, id);
    if (supervisor->sweep_due)
        sweep_orphans(supervisor);
}

static void on_failed(void *context, uint32_t id, const char *reason)
{
    struct supervisor *supervisor = context;
    struct runner *runner = td_idmap_get(&supervisor->runners, id);
    if (runner)
        not_started(supervisor, runner, reason);
}

static int runner_start(struct supervisor *supervisor, const struct td_msg_runner_start *order,
                        int fds[TD_ZYGOTE_FDS], struct td_error *err)
{
    struct td_zygote *zygote = td_idmap_get(&supervisor->zygotes, order->profile);
    if (!zygote)
        return td_error_set(err, TD_ENOTFOUND, "profile %u is not known", order->profile);
    for (size_t i = 0; i < TD_ZYGOTE_FDS; i++)
        if (fds[i] < 0)
            return td_error_set(err, TD_ELIMIT,
                                "the runner's descriptors did not arrive (too many open files)");
    const struct td_runner_spec *spec = td_profile_spec(td_zygote_profile(zygote));
    struct runner *runner = td_alloc_zero(sizeof *runner);
    if (!runner)
        return td_error_set(err, TD_ENOMEM, "out of memory");
    runner->id = order->runner;
    int r = 0;
    if (spec->memory_bytes || spec->cpu_milli)
        r = td_limit_new(supervisor->support, runner->id, spec->memory_bytes, spec->cpu_milli,
                         &runner->limit, err);
    if (r == 0 && td_idmap_put(&supervisor->runners, runner->id, runner) < 0)
        r = td_error_set(err, TD_ENOMEM, "out of memory");
    if (r < 0) {
        td_limit_free(runner->limit);
        td_free(runner);
        return r;
    }
    td_zygote_start(zygote, runner->id, fds);
    return 0;
}

static void runner_kill(struct supervisor *supervisor, uint32_t id)
{
    struct runner *runner = td_idmap_get(&supervisor->runners, id);
    if (!runner)
        return;
    runner->kill_wanted = true;
    if (!runner->pid)
        return;
    runner->killed |= !td_proc_ending(runner->pid);
    td_proc_kill_tree(runner->pid, false);
}

/* -- the pool's orders ------------------------------------------------------------------------ */

static int profile_add(struct supervisor *supervisor, const struct td_msg_profile *order,
                       struct td_error *err)
{
    static const struct td_zygote_events events = {on_started, on_failed};
    struct td_profile *profile = NULL;
    struct td_zygote *zygote = NULL;
    int r = td_profile_new(&(struct td_runner_spec){.argv = order->argv,
                                                    .env = order->env,
                                                    .cwd = order->cwd,
                                                    .memory_bytes = order->memory_bytes,
                                                    .cpu_milli = order->cpu_milli},
                           &profile, err);
    if (r == 0)
        r = td_zygote_new(supervisor->loop, &profile, supervisor->patience_ns, &events, supervisor,
                          &zygote, err);
    if (r == 0)
        r = td_idmap_put(&supervisor->zygotes, order->profile, zygote);
    if (r < 0) {
        td_zygote_free(zygote);
        td_profile_free(profile);
    }
    return r; /* a runner of a profile that is not there is answered NOT_STARTED */
}

static const char *limits_text(struct td_cgroup_support support)
{
    static const char *const words[] = {
        [TD_CGROUP_NONE] = "polling", [TD_CGROUP_V1] = "cgroup v1", [TD_CGROUP_V2] = "cgroup v2"};
    return words[support.memory];
}

/* Finds out how runners can be limited, and tells the pool that we are there. */
static void probe_limits(struct supervisor *supervisor)
{
    if (supervisor->probed)
        return;
    supervisor->probed = true;
    td_cgroup_sweep();
    if (supervisor->by_group)
        supervisor->support = td_cgroup_probe();
    const char *limits = limits_text(supervisor->support);
    say(supervisor, &(struct td_message){.type = TD_MSG_SUPERVISOR_UP,
                                         .supervisor_up = {.version = TD_WIRE_VERSION,
                                                           .pid = getpid(),
                                                           .limits = {limits, strlen(limits)}}});
}

static void on_order(void *context, struct td_bytes frame)
{
    struct supervisor *supervisor = context;
    struct td_message message;
    struct td_error err = {0};
    if (td_message_decode(frame, &message, &err) < 0) {
        td_loop_stop(supervisor->loop); /* the pool speaks another language: leave nothing behind */
        return;
    }
    if (message.type == TD_MSG_PROFILE) {
        (void)profile_add(supervisor, &message.profile,
                          &err);  /* its runners will tell, see above */
        probe_limits(supervisor); /* now, the zygote starts meanwhile */
    } else if (message.type == TD_MSG_PROFILE_DROP) {
        td_zygote_free(td_idmap_remove(&supervisor->zygotes, message.profile_drop.profile));
    } else if (message.type == TD_MSG_RUNNER_START) {
        int fds[TD_ZYGOTE_FDS];
        for (size_t i = 0; i < TD_ZYGOTE_FDS; i++)
            fds[i] = td_channel_take_fd(supervisor->pool);
        if (runner_start(supervisor, &message.runner_start, fds, &err) < 0)
            say_gone(supervisor, message.runner_start.runner, TD_DEATH_NOT_STARTED, 0, 0, err.text);
        for (size_t i = 0; i < TD_ZYGOTE_FDS; i++)
            td_fd_close(&fds[i]);
    } else if (message.type == TD_MSG_RUNNER_KILL) {
        runner_kill(supervisor, message.runner_kill.runner);
    }
}

static void on_pool_closed(void *context, const char *reason)
{
    (void)reason; /* whatever it was: nobody is left to work for */
    struct supervisor *supervisor = context;
    td_loop_stop(supervisor->loop);
}

static void on_caller_gone(void *context, unsigned events)
{
    (void)events; /* a pidfd says one thing only */
    struct supervisor *supervisor = context;
    td_loop_stop(supervisor->loop);
}

/* -- deaths ----------------------------------------------------------------------------------- */

static bool zygote_reaped(struct supervisor *supervisor, pid_t pid)
{
    size_t cursor = 0;
    for (struct td_zygote *zygote = td_idmap_next(&supervisor->zygotes, &cursor); zygote;
         zygote = td_idmap_next(&supervisor->zygotes, &cursor))
        if (td_zygote_reaped(zygote, pid))
            return true;
    return false;
}

/* True when every runner that exists is known by its pid. */
static bool settle(struct supervisor *supervisor)
{
    bool settled = true;
    size_t cursor = 0;
    for (struct td_zygote *zygote = td_idmap_next(&supervisor->zygotes, &cursor); zygote;
         zygote = td_idmap_next(&supervisor->zygotes, &cursor))
        settled &= !td_zygote_settle(zygote);
    return settled;
}

static bool is_zygote(struct supervisor *supervisor, pid_t pid)
{
    size_t cursor = 0;
    for (struct td_zygote *zygote = td_idmap_next(&supervisor->zygotes, &cursor); zygote;
         zygote = td_idmap_next(&supervisor->zygotes, &cursor))
        if (td_zygote_pid(zygote) == pid)
            return true;
    return false;
}

/* Kills what dead runners left to us. While a fork is under way a stranger may be that runner:
 * then the sweep waits until that one is known. */
static void sweep_orphans(struct supervisor *supervisor)
{
    supervisor->sweep_due = true;
    if (!settle(supervisor))
        return;
    supervisor->sweep_due = false;
    pid_t children[CHILDREN_MAX];
    size_t n = td_proc_children(getpid(), children, CHILDREN_MAX);
    for (size_t i = 0; i < n; i++)
        if (!is_zygote(supervisor, children[i]) &&
            !td_idmap_get(&supervisor->runner_by_pid, (uint64_t)children[i]))
            td_proc_kill_tree(children[i], false);
}

static void runner_reaped(struct supervisor *supervisor, struct runner *runner, int wait_status,
                          uint64_t peak_bytes)
{
    enum td_death cause = runner->killed ? TD_DEATH_KILLED : TD_DEATH_EXITED;
    int code = WIFSIGNALED(wait_status) ? -WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    if (runner->limit) {
        uint64_t peak = td_limit_peak(runner->limit);
        peak_bytes = peak ? peak : peak_bytes;
        if (code == -SIGKILL && td_limit_exceeded(runner->limit))
            cause = TD_DEATH_OUT_OF_MEMORY;
    }
    sweep_orphans(supervisor); /* before the news, so that nothing of the call is left by then */
    say_gone(supervisor, runner->id, cause, code, peak_bytes, "");
    runner_free(supervisor, runner);
}

static void reap(struct supervisor *supervisor)
{
    bool any = false;
    for (;;) {
        int status;
        struct rusage usage;
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid <= 0)
            break;
        any = true;
        if (zygote_reaped(supervisor, pid))
            continue;
        (void)settle(supervisor); /* its FORKED may still be unread; orphans do not matter here */
        struct runner *runner = td_idmap_get(&supervisor->runner_by_pid, (uint64_t)pid);
        if (runner)
            runner_reaped(supervisor, runner, status, (uint64_t)usage.ru_maxrss * 1024);
    }
    if (!any)
        return;
    sweep_orphans(supervisor);
    clear_remains(supervisor);
}

static void on_signal(void *context, unsigned events)
{
    (void)events; /* read only */
    struct supervisor *supervisor = context;
    struct signalfd_siginfo info;
    while (read(supervisor->signal_watch.fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == SIGTERM)
            td_loop_stop(supervisor->loop);
    reap(supervisor);
}

/* -- life ------------------------------------------------------------------------------------- */

static int watch(struct supervisor *supervisor, struct td_watch *watch, int fd, td_watch_fn *fn,
                 struct td_error *err)
{
    *watch = (struct td_watch){.fd = fd, .events = TD_LOOP_READ, .fn = fn, .context = supervisor};
    return td_loop_watch(supervisor->loop, watch, err);
}

static int watch_signals(struct supervisor *supervisor, struct td_error *err)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigaddset(&set, SIGTERM);
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return td_error_sys(err, errno, "sigprocmask");
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return td_error_sys(err, errno, "signalfd");
    return watch(supervisor, &supervisor->signal_watch, fd, on_signal, err);
}

/* What the caller's environment says of limits (TENDRIL_LIMITS=polling) and of how many seconds a
 * zygote may import (TENDRIL_IMPORT_TIMEOUT). */
static void read_environment(struct supervisor *supervisor)
{
    const char *limits = getenv("TENDRIL_LIMITS");
    const char *timeout = getenv("TENDRIL_IMPORT_TIMEOUT");
    uint64_t seconds;
    supervisor->by_group = !limits || strcmp(limits, "polling") != 0;
    if (!timeout || td_text_u64(timeout, strlen(timeout), &seconds) < 0 || seconds > IMPORT_S_MAX)
        seconds = IMPORT_S;
    supervisor->patience_ns = (int64_t)seconds * TD_NS_PER_S;
}

static int set_up(struct supervisor *supervisor, int channel_fd, pid_t caller, struct td_error *err)
{
    static const struct td_channel_events events = {on_order, on_pool_closed};
    int caller_fd;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return td_error_sys(err, errno, "prctl(PR_SET_CHILD_SUBREAPER)");
    int r = td_loop_new(&supervisor->loop, err);
    if (r == 0)
        r = td_proc_pidfd(caller, &caller_fd, err);
    if (r == 0)
        r = watch(supervisor, &supervisor->caller_watch, caller_fd, on_caller_gone, err);
    if (r == 0)
        r = watch_signals(supervisor, err);
    if (r == 0)
        r = td_channel_new(
            supervisor->loop, &channel_fd,
            (struct td_channel_options){.frame_max = FRAME_MAX, .queue_max = QUEUE_MAX}, &events,
            supervisor, &supervisor->pool, err);
    if (r < 0)
        return r;
    supervisor->poll = (struct td_timer){.fn = poll_limits, .context = supervisor};
    read_environment(supervisor);
    return 0;
}

/* Everything below us dies, then is waited for, so that the groups are empty when removed. */
static void tear_down(struct supervisor *supervisor)
{
    supervisor->pool = td_channel_free(supervisor->pool);
    td_proc_end_below();
    size_t cursor = 0;
    for (struct runner *runner = td_idmap_next(&supervisor->runners, &cursor); runner;
         runner = td_idmap_next(&supervisor->runners, &cursor))
        td_limit_free(runner->limit); /* the process ends: its memory need not be freed */
    clear_remains(supervisor);
}

int td_supervisor_run(int channel_fd, pid_t caller, struct td_error *err)
{
    struct supervisor supervisor = {0};
    td_list_init(&supervisor.remains);
    int r = td_guardian_fork(err);
    if (r == 0)
        r = set_up(&supervisor, channel_fd, caller, err);
    if (r == 0)
        r = td_loop_run(supervisor.loop);
    tear_down(&supervisor);
    return r;
}
