#include "hub/hub.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/text.h"
#include "bus/cluster.h"
#include "bus/jet.h"
#include "bus/nats.h"
#include "bus/token.h"
#include "hub/port.h"
#include "hub/program.h"
#include "hub/server.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/loop.h"
#include "os/pidfile.h"

enum { LINE_SIZE = 512, HOST_MAX = 64 };

/* Where the server listens. */
struct listen {
    char host[HOST_MAX]; /* in numbers */
    uint16_t port;       /* 0: any */
};

enum role { CLIENT, AGENT, HUB, ROLES };
static const char *const role_names[] = {[CLIENT] = "client", [AGENT] = "agent", [HUB] = "hub"};
static_assert(TD_COUNT(role_names) == ROLES, "a name for each role");

struct hub {
    const struct td_hub_options *options;
    char folder[PATH_MAX]; /* absolute */
    int lock;
    bool has_pidfile;
    struct listen listen;
    struct td_token tokens[ROLES];
    struct td_loop *loop;
    struct td_watch signals; /* fd -1: none */
    struct td_server *server;
    struct td_jet *jet;
    bool is_ready;
    int result; /* < 0: why it ends, with the text in err */
    struct td_error *err;
};

static void say(const struct hub *hub, const char *format, ...) TD_PRINTF(2, 3);

static void say(const struct hub *hub, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args); /* a cut line is one, too */
    va_end(args);
    hub->options->say(hub->options->context, line);
}

static int path_of(const struct hub *hub, const char *name, char path[PATH_MAX],
                   struct td_error *err)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", hub->folder, name);
    if (len > 0 && len < PATH_MAX)
        return 0;
    return td_error_set(err, TD_EINVAL, "the path of the hub's folder is too long");
}

/* -- where it listens ------------------------------------------------------------------------- */

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* "127.0.0.1:4222", "[::1]:4222", "localhost:4222" */
static int parse_listen(const char *text, struct listen *ret_listen, struct td_error *err)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (!colon || td_text_u64(colon + 1, strlen(colon + 1), &port) < 0 || port > UINT16_MAX)
        return td_error_set(err, TD_EINVAL, "'%s' is not HOST:PORT", text);
    size_t len = (size_t)(colon - text);
    bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    const char *host = bracketed ? text + 1 : text;
    len -= bracketed ? 2 : 0;
    if (len == 0 || len >= sizeof ret_listen->host || (!bracketed && memchr(host, ':', len)))
        return td_error_set(err, TD_EINVAL, "'%s' is not HOST:PORT", text);
    struct listen listen = {.port = (uint16_t)port};
    memcpy(listen.host, host, len);
    if (strcmp(listen.host, "localhost") == 0)
        memcpy(listen.host, "127.0.0.1", sizeof "127.0.0.1");
    if (!is_loopback(listen.host))
        return td_error_set(err, TD_EINVAL,
                            "%s is not an address of loopback: for other machines to connect TLS "
                            "is needed, which is a later step; use 127.0.0.1:%u",
                            listen.host, listen.port);
    *ret_listen = listen;
    return 0;
}

int td_hub_check(const struct td_hub_options *options, struct td_error *err)
{
    struct listen ignored;
    return parse_listen(options->listen, &ignored, err);
}

/* The port of the token's address, or 0. */
static uint16_t port_of(const struct td_token *token)
{
    uint64_t port;
    const char *colon = strrchr(token->url, ':');
    if (!colon || td_text_u64(colon + 1, strlen(colon + 1), &port) < 0 || port > UINT16_MAX)
        return 0;
    return (uint16_t)port;
}

/* Any port: rather the one that the tokens out there name, which a server of ours may have still.
 */
static int choose_port(struct hub *hub, struct td_error *err)
{
    if (hub->listen.port)
        return 0;
    int r = td_server_end_left(hub->folder, err);
    if (r < 0)
        return r;
    uint16_t before = port_of(&hub->tokens[HUB]);
    if (before && td_port_check(hub->listen.host, before, NULL) == 0) {
        hub->listen.port = before;
        return 0;
    }
    return td_port_choose(hub->listen.host, &hub->listen.port, err);
}

/* -- its folder ------------------------------------------------------------------------------- */

static int folder_in_use(const struct hub *hub, struct td_error *err)
{
    char path[PATH_MAX];
    TD_CLEANUP(td_fd_close) int pidfd = -1;
    pid_t pid;
    if (path_of(hub, "hub.pid", path, NULL) == 0 && td_pidfile_open(path, &pid, &pidfd, NULL) == 0)
        return td_error_set(err, TD_EEXISTS, "another hub uses the folder %s: process %d",
                            hub->folder, (int)pid);
    return td_error_set(err, TD_EEXISTS, "another hub uses the folder %s", hub->folder);
}

static int take_folder(struct hub *hub, struct td_error *err)
{
    char path[PATH_MAX];
    int r = td_file_folder(hub->options->folder, err);
    if (r < 0)
        return r;
    if (!realpath(hub->options->folder, hub->folder))
        return td_error_sys(err, errno, hub->options->folder);
    r = path_of(hub, "lock", path, err);
    if (r < 0)
        return r;
    hub->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (hub->lock < 0)
        return td_error_sys(err, errno, path);
    if (flock(hub->lock, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? folder_in_use(hub, err) : td_error_sys(err, errno, path);
    r = path_of(hub, "hub.pid", path, err);
    if (r == 0)
        r = td_pidfile_write(path, getpid(), err);
    hub->has_pidfile = r == 0;
    return r;
}

static void leave_folder(struct hub *hub)
{
    char path[PATH_MAX];
    if (hub->has_pidfile && path_of(hub, "hub.pid", path, NULL) == 0)
        (void)unlink(path); /* left: it names nobody */
    td_fd_close(&hub->lock);
}

/* -- its tokens ------------------------------------------------------------------------------- */

static int token_path(const struct hub *hub, enum role role, char path[PATH_MAX],
                      struct td_error *err)
{
    char name[16];
    (void)snprintf(name, sizeof name, "%s.token", role_names[role]); /* always fits */
    return path_of(hub, name, path, err);
}

/* The one in the folder, or a new one. */
static int load_token(struct hub *hub, enum role role, struct td_error *err)
{
    char path[PATH_MAX];
    struct td_token *token = &hub->tokens[role];
    int r = token_path(hub, role, path, err);
    if (r == 0)
        r = td_token_read(path, token, err);
    if (r == TD_ENOTFOUND) {
        *token = (struct td_token){0};
        r = td_token_secret(token->secret, err);
    }
    (void)snprintf(token->role, sizeof token->role, "%s", role_names[role]); /* these fit */
    (void)snprintf(token->user, sizeof token->user, "%s", role_names[role]);
    return r;
}

static int load_tokens(struct hub *hub, struct td_error *err)
{
    uint64_t number;
    int r = 0;
    for (enum role role = CLIENT; role < ROLES && r == 0; role++)
        r = load_token(hub, role, err);
    if (r < 0)
        return r;
    char *cluster = hub->tokens[HUB].cluster;
    if (!*cluster && getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return td_error_sys(err, errno, "getrandom");
    if (!*cluster)
        (void)snprintf(cluster, TD_TOKEN_CLUSTER_MAX, "%016llx", (unsigned long long)number);
    return choose_port(hub, err);
}

/* What the tokens of this run have in common. */
static void fill_tokens(struct hub *hub)
{
    bool v6 = strchr(hub->listen.host, ':');
    for (enum role role = CLIENT; role < ROLES; role++) {
        struct td_token *token = &hub->tokens[role];
        (void)snprintf(token->url, sizeof token->url, "nats://%s%s%s:%u", v6 ? "[" : "",
                       hub->listen.host, v6 ? "]" : "", hub->listen.port); /* always fits */
        if (role != HUB)
            memcpy(token->cluster, hub->tokens[HUB].cluster, sizeof token->cluster);
    }
}

static int write_tokens(struct hub *hub, struct td_error *err)
{
    const char *copies[ROLES] = {
        [CLIENT] = hub->options->client_token, [AGENT] = hub->options->agent_token};
    int r = 0;
    for (enum role role = CLIENT; role < ROLES && r == 0; role++) {
        char path[PATH_MAX];
        r = token_path(hub, role, path, err);
        if (r == 0)
            r = td_token_write(path, &hub->tokens[role], err);
        if (r == 0 && copies[role])
            r = td_token_write(copies[role], &hub->tokens[role], err);
        if (r == 0 && role != HUB)
            say(hub, "%s token: %s", role_names[role], copies[role] ? copies[role] : path);
    }
    return r;
}

/* -- what happens ----------------------------------------------------------------------------- */

static void end(struct hub *hub, int result)
{
    hub->result = result;
    td_loop_stop(hub->loop);
}

/* The first time that all is there. */
static void announce(struct hub *hub)
{
    if (hub->is_ready)
        return;
    hub->is_ready = true;
    int r = write_tokens(hub, hub->err);
    if (r < 0) {
        end(hub, r);
        return;
    }
    say(hub, "ready at %s", hub->tokens[HUB].url);
    int fd = hub->options->ready_fd;
    if (fd >= 0) {
        (void)!write(fd, "", 1); /* nobody waits any more: then so be it */
        td_fd_close(&fd);
    }
}

static void on_streams(void *context, int status, const char *why)
{
    struct hub *hub = context;
    if (status < 0)
        end(hub, td_error_set(hub->err, status, "the streams of the cluster: %s", why));
    else
        announce(hub);
}

static void on_connected(void *context, bool restarted)
{
    (void)restarted; /* streams are files: they are there again */
    struct hub *hub = context;
    if (hub->is_ready)
        return;
    int r = td_cluster_make(hub->jet, TD_POOL_DEFAULT, on_streams, hub);
    if (r < 0)
        end(hub, td_error_set(hub->err, r, "hub: %s", td_status_text(r)));
}

static void on_disconnected(void *context, const char *reason)
{
    (void)context, (void)reason; /* the server's death is told, and it comes back */
}

static void on_closed(void *context, const char *reason)
{
    struct hub *hub = context;
    end(hub,
        td_error_set(hub->err, TD_EREFUSED, "the hub's connection to nats-server: %s", reason));
}

static void on_server_ready(void *context)
{
    static const struct td_jet_events events = {on_connected, on_disconnected, on_closed};
    struct hub *hub = context;
    const struct td_token *token = &hub->tokens[HUB];
    if (hub->jet)
        return; /* it connects again by itself */
    int r = td_jet_new(
        hub->loop,
        &(struct td_nats_options){
            .url = token->url, .user = token->user, .secret = token->secret, .name = "hub"},
        &events, hub, &hub->jet, hub->err);
    if (r < 0)
        end(hub, r);
}

static void on_server_died(void *context, const char *reason, int64_t pause_ns)
{
    say(context, "%s; it is started again in %.1f s", reason,
        (double)pause_ns / (double)TD_NS_PER_S);
}

static void on_server_failed(void *context, const char *reason)
{
    struct hub *hub = context;
    end(hub, td_error_set(hub->err, TD_ECLOSED, "%s", reason));
}

static void on_signal(void *context, unsigned events)
{
    (void)events; /* read only */
    struct hub *hub = context;
    struct signalfd_siginfo info;
    while (read(hub->signals.fd, &info, sizeof info) == (ssize_t)sizeof info)
        td_loop_stop(hub->loop);
}

/* -- life ------------------------------------------------------------------------------------- */

static int watch_signals(struct hub *hub, struct td_error *err)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGCHLD, SIG_DFL); /* else the server could not be waited for */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return td_error_sys(err, errno, "sigprocmask");
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return td_error_sys(err, errno, "signalfd");
    hub->signals = (struct td_watch){
        .fd = fd, .events = TD_LOOP_READ, .fn = on_signal, .context = hub};
    return td_loop_watch(hub->loop, &hub->signals, err);
}

static int start_server(struct hub *hub, struct td_error *err)
{
    static const struct td_server_events events = {on_server_ready, on_server_died,
                                                   on_server_failed};
    char name[TD_TOKEN_CLUSTER_MAX];
    (void)snprintf(name, sizeof name, "tendril-%.32s", hub->tokens[HUB].cluster); /* as it fits */
    struct td_server_options options = {.folder = hub->folder,
                                        .name = name,
                                        .host = hub->listen.host,
                                        .port = hub->listen.port,
                                        .program = hub->options->program,
                                        .client_secret = hub->tokens[CLIENT].secret,
                                        .agent_secret = hub->tokens[AGENT].secret,
                                        .hub_secret = hub->tokens[HUB].secret,
                                        .memory_max = hub->options->memory_max,
                                        .store_max = hub->options->store_max};
    int r = td_server_new(hub->loop, &options, &events, hub, &hub->server, err);
    if (r < 0)
        return r;
    const struct td_program *program = td_server_program(hub->server);
    say(hub, "nats-server %s (%s)%s", program->version, program->path,
        program->old ? ": 2.10 or later is better, older ones have faults after a crash that cost "
                       "repeated work"
                     : "");
    return 0;
}

static int set_up(struct hub *hub, struct td_error *err)
{
    int r = parse_listen(hub->options->listen, &hub->listen, err);
    if (r == 0)
        r = take_folder(hub, err);
    if (r == 0)
        r = load_tokens(hub, err);
    if (r < 0)
        return r;
    fill_tokens(hub);
    r = td_loop_new(&hub->loop, err);
    if (r == 0)
        r = watch_signals(hub, err);
    if (r == 0)
        r = start_server(hub, err);
    return r;
}

static void tear_down(struct hub *hub)
{
    hub->jet = td_jet_free(hub->jet);
    hub->server = td_server_free(hub->server);
    if (hub->signals.fd >= 0)
        td_loop_unwatch(hub->loop, &hub->signals);
    td_fd_close(&hub->signals.fd);
    hub->loop = td_loop_free(hub->loop);
    leave_folder(hub);
}

int td_hub_run(const struct td_hub_options *options, struct td_error *err)
{
    struct hub hub = {.options = options, .lock = -1, .signals = {.fd = -1}, .err = err};
    int r = set_up(&hub, err);
    if (r == 0)
        r = td_loop_run(hub.loop);
    if (r == 0)
        r = hub.result;
    if (r == 0)
        say(&hub, "ending");
    tear_down(&hub);
    return r;
}
