#include "hub/server.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "hub/port.h"
#include "hub/program.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/loop.h"
#include "os/pidfile.h"
#include "os/proc.h"
#include "task/backoff.h"

enum {
    WORDS_MAX = 160, /* of a log's line that is told */
    NAME_MAX_SIZE = 64,
    CONFIG_MAX = 16384,
    INFO_MAX = 4096,  /* what a server says of itself to whom connects */
    LOG_END = 4096,   /* of its log, that is looked through for what went wrong */
    READY_S = 120,    /* to become ready: a store of millions of subjects takes long to read */
    STOP_S = 10,      /* to end when asked */
    PROBE_MS = 20,    /* between attempts to connect */
    ANSWER_MS = 2000, /* for an answer of who has accepted */
    PAUSE_MS = 100,   /* before it is started again, doubled each time that it dies, */
    PAUSE_MAX_S = 10, /* up to so much, */
    LIVED_S = 30,     /* and from the beginning once it has lived for so long */
};
#define CONFIG_FILE "nats-server.conf"
#define LOG_FILE    "nats-server.log"
#define PID_FILE    "nats-server.pid"
#define MEMORY_MAX  ((int64_t)1 << 30)

enum state { STARTING, READY, PAUSED, FAILED };

struct td_server {
    struct td_loop *loop;
    const struct td_server_events *events;
    void *context;
    char folder[PATH_MAX];
    struct td_program program;
    char name[NAME_MAX_SIZE];
    char host[NAME_MAX_SIZE];
    uint16_t port;
    enum state state;
    bool was_ready;
    pid_t pid;               /* 0: it does not run */
    struct td_watch process; /* its pidfd; -1: it does not run */
    struct td_watch probe;   /* a connection to see what it says of itself; -1: none */
    struct td_timer timer;   /* STARTING: the next attempt to connect; PAUSED: the next start */
    char info[INFO_MAX];
    size_t info_len;
    int64_t deadline_ns;    /* STARTING: to be ready */
    int64_t ready_ns;       /* when it became so */
    uint32_t deaths;        /* in a row */
    off_t log_start;        /* its log before this start is about others */
    struct td_error reason; /* why it does not run; without a text: not known yet */
};

static int path_of(const struct td_server *server, const char *name, char path[PATH_MAX])
{
    int len = snprintf(path, PATH_MAX, "%s/%s", server->folder, name);
    return len > 0 && len < PATH_MAX ? 0 : TD_EINVAL;
}

/* -- its configuration ------------------------------------------------------------------------ */

/* What stands between quotation marks, and is no name of a person's choice. */
static bool quotable(const char *text)
{
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at < ' ' || strchr("\"\\\x7f", *at))
            return false;
    return true;
}

static int write_config(const struct td_server *server, const struct td_server_options *options,
                        struct td_error *err)
{
    char path[PATH_MAX];
    char file_max[64] = ""; /* else the server takes what the disk has */
    TD_CLEANUP(td_buf_done) struct td_buf text;
    td_buf_init(&text, CONFIG_MAX);
    if (!quotable(options->folder) || path_of(server, CONFIG_FILE, path) < 0)
        return td_error_set(err, TD_EINVAL,
                            "the path of the hub's folder is too long, or has quotation marks, "
                            "backslashes or control characters");
    if (!quotable(options->client_secret) || !quotable(options->agent_secret) ||
        !quotable(options->hub_secret) || !quotable(options->name))
        return td_error_set(err, TD_EINVAL, "a secret or the server's name is damaged");
    if (options->store_max > 0)
        (void)snprintf(file_max, sizeof file_max, ", max_file_store: %lld",
                       (long long)options->store_max); /* always fits */
    int r = td_buf_reserve(&text, CONFIG_MAX);
    if (r < 0)
        return td_error_set(err, r, "nats-server: %s", td_status_text(r));
    bool v6 = strchr(options->host, ':');
    int len = snprintf(
        text.data, CONFIG_MAX,
        "# Written by tendril each time that the hub starts: what is changed here is lost.\n"
        "server_name: \"%s\"\n"
        "listen: \"%s%s%s:%u\"\n"
        "log_file: \"%s/" LOG_FILE "\"\n"
        "max_payload: 4MB\n"
        "max_pending: 64MB\n"
        "write_deadline: \"10s\"\n"
        "ping_interval: \"5s\" # a machine that vanished is noticed in some seconds\n"
        "ping_max: 2\n"
        "jetstream { store_dir: \"%s/store\", max_memory_store: %lld%s }\n"
        "authorization { users: [\n"
        "  { user: \"client\", password: \"%s\" }\n"
        "  { user: \"agent\", password: \"%s\" }\n"
        "  { user: \"hub\", password: \"%s\" }\n"
        "] }\n",
        options->name, v6 ? "[" : "", options->host, v6 ? "]" : "", options->port, options->folder,
        options->folder, (long long)(options->memory_max > 0 ? options->memory_max : MEMORY_MAX),
        file_max, options->client_secret, options->agent_secret, options->hub_secret);
    if (len < 0 || len >= CONFIG_MAX)
        return td_error_set(err, TD_ELIMIT, "nats-server's configuration is too long");
    return td_file_write(path, (struct td_bytes){text.data, (size_t)len}, err);
}

/* -- start ------------------------------------------------------------------------------------ */

static void try_connect(struct td_server *server);
static td_watch_fn on_process, on_probe;

/* The log, to be added to, and where that begins. It also takes what is said before there is a
 * configuration. */
static int open_log(struct td_server *server, struct td_error *err)
{
    char path[PATH_MAX];
    struct stat stat;
    if (path_of(server, LOG_FILE, path) < 0)
        return td_error_set(err, TD_EINVAL, "the path of the hub's folder is too long");
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0 || fstat(fd, &stat) < 0) {
        int e = errno;
        td_fd_close(&fd);
        return td_error_sys(err, e, path);
    }
    server->log_start = stat.st_size;
    return fd;
}

/* Takes fd. */
static int watch(struct td_server *server, struct td_watch *watch, int fd, td_watch_fn *fn,
                 struct td_error *err)
{
    *watch = (struct td_watch){.fd = fd, .events = TD_LOOP_READ, .fn = fn, .context = server};
    int r = td_loop_watch(server->loop, watch, err);
    if (r < 0)
        td_fd_close(&watch->fd);
    return r;
}

static void unwatch(struct td_server *server, struct td_watch *watch)
{
    if (watch->fd < 0)
        return;
    td_loop_unwatch(server->loop, watch);
    td_fd_close(&watch->fd);
}

static int watch_process(struct td_server *server, struct td_error *err)
{
    char path[PATH_MAX];
    int r = path_of(server, PID_FILE, path);
    if (r == 0)
        r = td_pidfile_write(path, server->pid, err);
    if (r < 0 && r != TD_ENOTFOUND) /* it has ended already: its pidfd tells */
        return r;
    int pidfd;
    r = td_proc_pidfd(server->pid, &pidfd, err);
    return r < 0 ? r : watch(server, &server->process, pidfd, on_process, err);
}

/* It has ended, and was waited for. */
static void forget_process(struct td_server *server)
{
    char path[PATH_MAX];
    server->pid = 0;
    if (path_of(server, PID_FILE, path) == 0)
        (void)unlink(path); /* left: it names nobody */
}

static void kill_process(struct td_server *server)
{
    (void)kill(server->pid, SIGKILL); /* our child, not waited for: it is that one */
    while (waitpid(server->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    forget_process(server);
}

static int start(struct td_server *server, struct td_error *err)
{
    char config[PATH_MAX];
    char *argv[] = {server->program.path, "-c", config, NULL};
    if (path_of(server, CONFIG_FILE, config) < 0)
        return td_error_set(err, TD_EINVAL, "the path of the hub's folder is too long");
    TD_CLEANUP(td_fd_close) int log = open_log(server, err);
    if (log < 0)
        return log;
    struct td_proc_fd fds[] = {{log, STDOUT_FILENO}, {log, STDERR_FILENO}};
    int r = td_proc_spawn(argv, NULL, NULL, fds, TD_COUNT(fds), &server->pid, err);
    if (r < 0)
        return r;
    r = watch_process(server, err);
    if (r < 0) {
        kill_process(server);
        return r;
    }
    server->state = STARTING;
    server->deadline_ns = td_clock_now() + READY_S * TD_NS_PER_S;
    try_connect(server);
    return 0;
}

/* -- is it ready? ----------------------------------------------------------------------------- */

/* Without a timer nothing would ever follow: it is set once before the server is used, and from
 * then on has its place. */
static void set_timer(struct td_server *server, int64_t after_ns)
{
    (void)td_loop_timer(server->loop, &server->timer, td_clock_now() + after_ns);
}

/* Tries to connect; what comes of it is seen by on_probe, or by the timer. */
static void try_connect(struct td_server *server)
{
    struct td_port_address address = {0};
    set_timer(server, PROBE_MS * TD_NS_PER_MS);
    if (td_port_address(server->host, server->port, &address, NULL) < 0)
        return;
    server->info_len = 0;
    int fd = socket(address.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    int r = connect(fd, (struct sockaddr *)&address.bytes, address.len);
    if (r < 0 && errno != EINPROGRESS)
        td_fd_close(&fd);
    else if (watch(server, &server->probe, fd, on_probe, NULL) == 0)
        set_timer(server, ANSWER_MS * TD_NS_PER_MS);
}

/* The line that a server says first. Only ours has our name, which needs no escapes. */
static bool is_ours(const struct td_server *server)
{
    char name[NAME_MAX_SIZE + 32];
    (void)snprintf(name, sizeof name, "\"server_name\":\"%s\"", server->name); /* it fits */
    return strncmp(server->info, "INFO ", 5) == 0 && strstr(server->info, name) &&
           strstr(server->info, "\"jetstream\":true");
}

static void now_ready(struct td_server *server)
{
    td_loop_untimer(server->loop, &server->timer);
    server->state = READY;
    server->was_ready = true;
    server->ready_ns = td_clock_now();
    server->events->ready(server->context);
}

static void on_probe(void *context, unsigned events)
{
    (void)events; /* read only */
    struct td_server *server = context;
    ssize_t n = read(server->probe.fd, server->info + server->info_len,
                     sizeof server->info - 1 - server->info_len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        server->info_len += (size_t)n;
        server->info[server->info_len] = '\0';
        if (!strchr(server->info, '\n') && server->info_len < sizeof server->info - 1)
            return; /* there is more to come */
    }
    unwatch(server, &server->probe);
    if (n > 0 && is_ours(server))
        now_ready(server);
    else
        set_timer(server, PROBE_MS * TD_NS_PER_MS);
}

/* -- death ------------------------------------------------------------------------------------ */

/* The line of the log without its time: "[pid] date time [FTL] text". */
static const char *without_time(const char *line)
{
    const char *level = line[0] == '[' ? strstr(line, " [") : NULL;
    const char *text = level ? strstr(level, "] ") : NULL;
    return text ? text + 2 : line;
}

/* What the log says last since the start, or last as the cause of its end. */
static void read_last_words(const struct td_server *server, char words[WORDS_MAX])
{
    char path[PATH_MAX], text[LOG_END + 1];
    struct stat stat;
    words[0] = '\0';
    if (path_of(server, LOG_FILE, path) < 0)
        return;
    TD_CLEANUP(td_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) < 0)
        return;
    off_t from = stat.st_size - LOG_END > server->log_start ? stat.st_size - LOG_END
                                                            : server->log_start;
    ssize_t n = pread(fd, text, LOG_END, from);
    text[n > 0 ? n : 0] = '\0';
    const char *chosen = NULL;
    bool fatal = false;
    for (char *line = text; *line;) {
        char *next = line + strcspn(line, "\n");
        next += *next == '\n';
        if (next > line && next[-1] == '\n')
            next[-1] = '\0';
        bool is_fatal = strstr(line, "[FTL]");
        if (*line && (is_fatal || !fatal))
            chosen = line;
        fatal |= is_fatal;
        line = next;
    }
    if (chosen)
        (void)snprintf(words, WORDS_MAX, "%.*s", WORDS_MAX - 1, without_time(chosen));
}

static void say_how(struct td_server *server, int wait_status)
{
    char words[WORDS_MAX];
    char how[64];
    read_last_words(server, words);
    if (WIFSIGNALED(wait_status))
        (void)snprintf(how, sizeof how, "was ended by signal %d", WTERMSIG(wait_status));
    else
        (void)snprintf(how, sizeof how, "ended with exit code %d", WEXITSTATUS(wait_status));
    /* After a signal its last words are about something else. */
    bool said = !WIFSIGNALED(wait_status) && words[0];
    (void)td_error_set(&server->reason, TD_ECLOSED, "nats-server %s%s%s", how, said ? ": " : "",
                       said ? words : ""); /* returns the status */
}

/* Tells why. */
static void not_running(struct td_server *server)
{
    struct td_error reason = server->reason;
    server->reason = (struct td_error){0};
    if (!server->was_ready) {
        server->state = FAILED;
        td_loop_untimer(server->loop, &server->timer);
        server->events->failed(server->context, reason.text);
        return;
    }
    if (server->state == READY && td_clock_now() - server->ready_ns > LIVED_S * TD_NS_PER_S)
        server->deaths = 0;
    server->state = PAUSED;
    server->deaths++;
    int64_t pause_ns = td_backoff_ns(PAUSE_MS * TD_NS_PER_MS, PAUSE_MAX_S * TD_NS_PER_S,
                                     server->deaths, (uint64_t)td_clock_now());
    set_timer(server, pause_ns);
    server->events->died(server->context, reason.text, pause_ns);
}

static void on_process(void *context, unsigned events)
{
    (void)events; /* a pidfd says one thing only */
    struct td_server *server = context;
    int status = 0;
    unwatch(server, &server->probe);
    unwatch(server, &server->process);
    while (waitpid(server->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    forget_process(server);
    if (!server->reason.text[0])
        say_how(server, status);
    not_running(server);
}

static void on_timer(void *context)
{
    struct td_server *server = context;
    if (server->state == PAUSED) {
        if (start(server, &server->reason) < 0)
            not_running(server);
        return;
    }
    unwatch(server, &server->probe);
    if (td_clock_now() < server->deadline_ns) {
        try_connect(server);
        return;
    }
    (void)td_error_set(&server->reason, TD_ETIMEOUT,
                       "nats-server was not ready after %d s; see its log", READY_S);
    (void)kill(server->pid, SIGKILL); /* on_process follows */
}

/* -- life ------------------------------------------------------------------------------------- */

int td_server_end_left(const char *folder, struct td_error *err)
{
    char path[PATH_MAX];
    TD_CLEANUP(td_fd_close) int pidfd = -1;
    pid_t pid;
    int len = snprintf(path, sizeof path, "%s/" PID_FILE, folder);
    if (len < 0 || (size_t)len >= sizeof path)
        return td_error_set(err, TD_EINVAL, "the path of the hub's folder is too long");
    int r = td_pidfile_open(path, &pid, &pidfd, err);
    if (r == TD_ENOTFOUND)
        return 0;
    if (r == 0)
        (void)td_pidfd_end(&pidfd, 1, td_clock_now() + STOP_S * TD_NS_PER_S);
    return r;
}

static int copy(char *to, size_t size, const char *from, const char *what, struct td_error *err)
{
    int len = snprintf(to, size, "%s", from);
    if (len <= 0 || (size_t)len >= size)
        return td_error_set(err, TD_EINVAL, "%s is empty or too long", what);
    return 0;
}

static int set_up(struct td_server *server, const struct td_server_options *options,
                  struct td_error *err)
{
    int r = copy(server->folder, sizeof server->folder, options->folder, "the hub's folder", err);
    if (r == 0)
        r = copy(server->name, sizeof server->name, options->name, "the server's name", err);
    if (r == 0)
        r = copy(server->host, sizeof server->host, options->host, "the address", err);
    if (r == 0)
        r = td_program_find(options->program, &server->program, err);
    if (r == 0)
        r = td_server_end_left(server->folder, err);
    if (r == 0)
        r = td_port_check(options->host, options->port, err);
    if (r == 0)
        r = write_config(server, options, err);
    if (r == 0 && td_loop_timer(server->loop, &server->timer, TD_NO_DEADLINE) < 0)
        r = td_error_set(err, TD_ENOMEM, "nats-server: out of memory");
    return r;
}

int td_server_new(struct td_loop *loop, const struct td_server_options *options,
                  const struct td_server_events *events, void *context,
                  struct td_server **ret_server, struct td_error *err)
{
    struct td_server *server = td_alloc_zero(sizeof *server);
    if (!server)
        return td_error_set(err, TD_ENOMEM, "nats-server: out of memory");
    server->loop = loop;
    server->events = events;
    server->context = context;
    server->port = options->port;
    server->timer = (struct td_timer){.fn = on_timer, .context = server};
    server->process.fd = server->probe.fd = -1;
    int r = set_up(server, options, err);
    if (r == 0)
        r = start(server, err);
    if (r < 0) {
        td_server_free(server);
        return r;
    }
    *ret_server = server;
    return 0;
}

static void end_process(struct td_server *server)
{
    if (server->pid == 0)
        return;
    (void)td_pidfd_end(&server->process.fd, 1, td_clock_now() + STOP_S * TD_NS_PER_S);
    unwatch(server, &server->process);
    kill_process(server); /* ended by now */
}

struct td_server *td_server_free(struct td_server *server)
{
    if (!server)
        return NULL;
    unwatch(server, &server->probe);
    td_loop_untimer(server->loop, &server->timer);
    end_process(server);
    td_free(server);
    return NULL;
}

const struct td_program *td_server_program(const struct td_server *server)
{
    return &server->program;
}

pid_t td_server_pid(const struct td_server *server)
{
    return server->pid;
}
