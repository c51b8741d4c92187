/* up.c: `tendril up` and `tendril down`: a hub and agents on this machine, as daemons that are
 * found again by their pid files. What they are is in src/hub and src/agent.
 *
 *      tendril up --spawn--> tendril hub   --byte--> ready, then
 *                 --spawn--> tendril agent --byte--> ready, each; then it leaves them alone */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/text.h"
#include "bus/token.h"
#include "cli/cli.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/pidfile.h"
#include "os/proc.h"

enum {
    AGENTS_MAX = 256,
    READY_FD = 3,  /* its number in a daemon */
    READY_S = 150, /* for all to be ready: longer than a hub waits for its server */
    DRAIN_S = 30,  /* for agents to end */
    HUB_S = 20,    /* for the hub to end: longer than it waits for its server */
    WORDS_MAX = 160,
    NAME_SIZE = 32,
};

static const char up_help[] =
    "usage: tendril up [-n N] [--folder DIR]\n"
    "\n"
    "Starts a hub and agents on this machine in the background, for trying out what runs on many.\n"
    "The last line that it prints is the setting by which programs run there.\n"
    "\n"
    "  -n, --agents N   how many agents (default 1, at most 256)\n"
    "  --folder DIR     where everything of it is kept, logs too (default tendril/up in\n"
    "                   $XDG_STATE_HOME or ~/.local/state)\n"
    "\n"
    "Example:\n"
    "  export $(tendril up -n 4 | tail -1)\n"
    "  python my_script.py\n"
    "  tendril down\n";

static const char down_help[] =
    "usage: tendril down [--folder DIR]\n"
    "\n"
    "Ends what 'tendril up' started: agents, runners, hub and nats-server. Agents finish or hand\n"
    "back what they do; what has not ended after half a minute is killed. Maps are kept for the\n"
    "next 'tendril up'.\n"
    "\n"
    "  --folder DIR     that of 'tendril up' (default tendril/up in $XDG_STATE_HOME or\n"
    "                   ~/.local/state)\n"
    "\n"
    "Example:\n"
    "  tendril down --folder /tmp/cluster\n";

/* A folder that holds a cluster of this machine, ours for the moment. */
struct cluster {
    char folder[PATH_MAX]; /* absolute */
    int lock;
    int signals; /* a signalfd; -1: signals do as ever */
};

static void cluster_done(struct cluster *cluster)
{
    td_fd_close(&cluster->lock);
    td_fd_close(&cluster->signals);
}

static int path_of(const struct cluster *cluster, const char *name, char path[PATH_MAX],
                   struct td_error *err)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", cluster->folder, name);
    if (len > 0 && len < PATH_MAX)
        return 0;
    return td_error_set(err, TD_EINVAL, "the path of the folder is too long");
}

/* The folder is there. */
static int cluster_take(struct cluster *cluster, const char *folder, struct td_error *err)
{
    char path[PATH_MAX];
    if (!realpath(folder, cluster->folder))
        return td_error_sys(err, errno, folder);
    int r = path_of(cluster, "up.lock", path, err);
    if (r < 0)
        return r;
    cluster->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (cluster->lock < 0)
        return td_error_sys(err, errno, path);
    if (flock(cluster->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return td_error_sys(err, errno, path);
    return td_error_set(err, TD_EEXISTS, "another 'tendril up' or 'tendril down' is at work in %s",
                        cluster->folder);
}

static const char *agent_name(unsigned number, const char *kind, char name[NAME_SIZE])
{
    (void)snprintf(name, NAME_SIZE, "agent-%u.%s", number, kind); /* always fits */
    return name;
}

/* The process of that pid file, or -1. Another error than that there is none is told. */
static int open_process(const struct cluster *cluster, const char *name, pid_t *ret_pid,
                        struct td_error *err)
{
    char path[PATH_MAX];
    int pidfd = -1;
    struct td_error why = {0};
    int r = path_of(cluster, name, path, &why);
    if (r == 0)
        r = td_pidfile_open(path, ret_pid, &pidfd, &why);
    if (r < 0 && r != TD_ENOTFOUND && err->status == 0)
        *err = why;
    return pidfd;
}

/* Those that run; returns how many. */
static size_t open_agents(const struct cluster *cluster, int pidfds[AGENTS_MAX],
                          struct td_error *err)
{
    size_t n = 0;
    for (unsigned i = 1; i <= AGENTS_MAX; i++) {
        char name[NAME_SIZE];
        pid_t pid;
        int pidfd = open_process(cluster, agent_name(i, "pid", name), &pid, err);
        if (pidfd >= 0)
            pidfds[n++] = pidfd;
    }
    return n;
}

static void close_all(int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        td_fd_close(&fds[i]);
}

/* -- the end ---------------------------------------------------------------------------------- */

struct ended {
    size_t agents;
    bool hub, server; /* server: one whose hub had died */
    size_t killed;    /* of them, because they did not end when asked */
};

static void forget(const struct cluster *cluster, const char *name)
{
    char path[PATH_MAX];
    if (path_of(cluster, name, path, NULL) == 0)
        (void)unlink(path); /* left: it names nobody */
}

/* Was there one? */
static bool end_process(const struct cluster *cluster, const char *name, size_t *killed,
                        struct td_error *err)
{
    pid_t pid;
    int pidfd = open_process(cluster, name, &pid, err);
    bool there = pidfd >= 0;
    *killed += td_pidfd_end(&pidfd, 1, td_clock_now() + HUB_S * TD_NS_PER_S);
    td_fd_close(&pidfd);
    return there;
}

/* Agents first, so that they can still hand back what they have; last a server whose hub was
 * killed. Ends all that it can, whatever goes wrong with one. */
static int end_all(const struct cluster *cluster, struct ended *ret_ended, struct td_error *err)
{
    int agents[AGENTS_MAX];
    struct td_error why = {0};
    struct ended ended = {.agents = open_agents(cluster, agents, &why)};
    ended.killed = td_pidfd_end(agents, ended.agents, td_clock_now() + DRAIN_S * TD_NS_PER_S);
    close_all(agents, ended.agents);
    ended.hub = end_process(cluster, "hub.pid", &ended.killed, &why);
    ended.server = end_process(cluster, "nats-server.pid", &ended.killed, &why);
    if (why.status < 0)
        return td_error_set(err, why.status, "%s", why.text);
    for (unsigned i = 1; i <= AGENTS_MAX; i++) {
        char name[NAME_SIZE];
        forget(cluster, agent_name(i, "pid", name));
    }
    forget(cluster, "hub.pid");
    forget(cluster, "nats-server.pid");
    *ret_ended = ended;
    return 0;
}

/* -- the start -------------------------------------------------------------------------------- */

/* A process that was started and says when it is ready. */
struct daemon {
    char name[NAME_SIZE];
    int ready; /* -1: it is */
};

static void read_last_line(const char *path, char words[WORDS_MAX])
{
    char text[4096];
    struct stat stat;
    words[0] = '\0';
    TD_CLEANUP(td_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) < 0)
        return;
    off_t size = (off_t)sizeof text - 1;
    ssize_t n = pread(fd, text, sizeof text - 1, stat.st_size > size ? stat.st_size - size : 0);
    while (n > 0 && text[n - 1] == '\n')
        n--;
    text[n > 0 ? n : 0] = '\0';
    const char *last = strrchr(text, '\n');
    (void)snprintf(words, WORDS_MAX, "%.*s", WORDS_MAX - 1, last ? last + 1 : text);
}

static int not_started(const struct cluster *cluster, const char *name, struct td_error *err)
{
    char words[WORDS_MAX], log[NAME_SIZE + 8], path[PATH_MAX];
    (void)snprintf(log, sizeof log, "%s.log", name); /* always fits */
    int r = path_of(cluster, log, path, err);
    if (r < 0)
        return r;
    read_last_line(path, words);
    if (!words[0])
        return td_error_set(err, TD_ECLOSED, "%s has ended without a word", name);
    return td_error_set(err, TD_ECLOSED, "%s has ended: %s", name, words);
}

/* argv: its first is this program. */
static int daemon_start(const struct cluster *cluster, char *const argv[], const char *name,
                        struct daemon *ret_daemon, pid_t *ret_pid, struct td_error *err)
{
    char path[PATH_MAX], log_name[NAME_SIZE + 8];
    int ends[2];
    (void)snprintf(log_name, sizeof log_name, "%s.log", name); /* always fits */
    int r = path_of(cluster, log_name, path, err);
    if (r < 0)
        return r;
    TD_CLEANUP(td_fd_close)
    int log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (log < 0)
        return td_error_sys(err, errno, path);
    r = td_fd_pipe(ends, err);
    if (r < 0)
        return r;
    struct td_proc_fd fds[] = {{log, STDOUT_FILENO}, {log, STDERR_FILENO}, {ends[1], READY_FD}};
    r = td_proc_spawn(argv, NULL, NULL, fds, TD_COUNT(fds), ret_pid, err);
    td_fd_close(&ends[1]);
    if (r < 0) {
        td_fd_close(&ends[0]);
        return r;
    }
    ret_daemon->ready = ends[0];
    (void)snprintf(ret_daemon->name, sizeof ret_daemon->name, "%s", name); /* it fits */
    return 0;
}

/* Waits until it has said so. */
static int daemon_wait(const struct cluster *cluster, struct daemon *daemon, int64_t deadline_ns,
                       struct td_error *err)
{
    while (daemon->ready >= 0) {
        char byte;
        struct pollfd fds[] = {{.fd = daemon->ready, .events = POLLIN},
                               {.fd = cluster->signals, .events = POLLIN}};
        int64_t left_ms = (deadline_ns - td_clock_now()) / TD_NS_PER_MS;
        int n = poll(fds, TD_COUNT(fds), left_ms > 0 ? (int)left_ms : 0);
        if (n < 0 && errno != EINTR)
            return td_error_sys(err, errno, "poll");
        if (n > 0 && fds[1].revents)
            return td_error_set(err, TD_EINTR, "interrupted; what was started is ended");
        if (n == 0 && td_clock_now() >= deadline_ns)
            return td_error_set(err, TD_ETIMEOUT, "%s is not ready after %d s; see %s/%s.log",
                                daemon->name, READY_S, cluster->folder, daemon->name);
        ssize_t got = n > 0 ? read(daemon->ready, &byte, 1) : -1;
        if (got == 0)
            return not_started(cluster, daemon->name, err);
        if (got == 1)
            td_fd_close(&daemon->ready);
    }
    return 0;
}

/* The program that this is. */
static int find_self(char self[PATH_MAX], struct td_error *err)
{
    ssize_t len = readlink("/proc/self/exe", self, PATH_MAX - 1);
    if (len < 0)
        return td_error_sys(err, errno, "/proc/self/exe");
    self[len] = '\0';
    return 0;
}

static int start_hub(const struct cluster *cluster, char *self, int64_t deadline_ns,
                     struct td_error *err)
{
    char *argv[] = {self,         "hub",
                    "--folder",   (char *)cluster->folder, /* these are not written to */
                    "--listen",   "127.0.0.1:0",
                    "--ready-fd", "3",
                    NULL};
    struct daemon hub = {.ready = -1};
    pid_t pid;
    int r = daemon_start(cluster, argv, "hub", &hub, &pid, err); /* it writes hub.pid itself */
    if (r == 0)
        r = daemon_wait(cluster, &hub, deadline_ns, err);
    td_fd_close(&hub.ready);
    return r;
}

static int start_agent(const struct cluster *cluster, char *self, unsigned number,
                       struct daemon *ret_agent, struct td_error *err)
{
    char token[PATH_MAX], path[PATH_MAX], name[NAME_SIZE], pid_name[NAME_SIZE];
    char *argv[] = {self, "agent", "--join", token, "--ready-fd", "3", NULL};
    pid_t pid;
    int r = path_of(cluster, "agent.token", token, err);
    if (r == 0)
        r = path_of(cluster, agent_name(number, "pid", pid_name), path, err);
    if (r < 0)
        return r;
    (void)snprintf(name, sizeof name, "agent-%u", number); /* always fits */
    r = daemon_start(cluster, argv, name, ret_agent, &pid, err);
    if (r == 0)
        r = td_pidfile_write(path, pid, err);
    return r;
}

/* All at once, then waits for each. */
static int start_agents(const struct cluster *cluster, char *self, unsigned n, int64_t deadline_ns,
                        struct td_error *err)
{
    struct daemon agents[AGENTS_MAX];
    int r = 0;
    for (unsigned i = 0; i < n; i++)
        agents[i] = (struct daemon){.ready = -1};
    for (unsigned i = 0; i < n && r == 0; i++)
        r = start_agent(cluster, self, i + 1, &agents[i], err);
    for (unsigned i = 0; i < n && r == 0; i++)
        r = daemon_wait(cluster, &agents[i], deadline_ns, err);
    for (unsigned i = 0; i < n; i++)
        td_fd_close(&agents[i].ready);
    return r;
}

static int watch_signals(struct cluster *cluster, struct td_error *err)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return td_error_sys(err, errno, "sigprocmask");
    cluster->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return cluster->signals < 0 ? td_error_sys(err, errno, "signalfd") : 0;
}

static int start_all(struct cluster *cluster, unsigned n, struct td_error *err)
{
    char self[PATH_MAX];
    struct ended left;
    struct td_error ignored = {0};
    int64_t deadline_ns = td_clock_now() + READY_S * TD_NS_PER_S;
    int r = find_self(self, err);
    if (r == 0)
        r = watch_signals(cluster, err);
    if (r == 0) /* agents whose hub is gone */
        r = end_all(cluster, &left, err);
    if (r < 0)
        return r;
    r = start_hub(cluster, self, deadline_ns, err);
    if (r == 0)
        r = start_agents(cluster, self, n, deadline_ns, err);
    if (r < 0)
        (void)end_all(cluster, &left, &ignored); /* the first thing that went wrong is told */
    return r;
}

/* -- the commands ----------------------------------------------------------------------------- */

enum { FOLDER = 256 };

static const struct option options[] = {
    {"agents", required_argument, NULL, 'n'},
    {"folder", required_argument, NULL, FOLDER},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

/* What runs there already, if that is so. */
static int look(const struct cluster *cluster, pid_t *ret_hub, size_t *ret_agents,
                struct td_error *err)
{
    char path[PATH_MAX];
    int agents[AGENTS_MAX];
    struct td_error why = {0};
    struct td_token token;
    int hub = open_process(cluster, "hub.pid", ret_hub, &why);
    if (why.status < 0)
        return td_error_set(err, why.status, "%s", why.text);
    if (hub < 0) {
        *ret_hub = 0;
        return 0;
    }
    td_fd_close(&hub);
    int r = path_of(cluster, "client.token", path, err);
    if (r == 0 && td_token_place(path, "client", &token, NULL) < 0)
        r = td_error_set(err, TD_EAGAIN,
                         "the hub in %s (process %d) is not ready; 'tendril down' ends it",
                         cluster->folder, (int)*ret_hub);
    *ret_agents = open_agents(cluster, agents, &why);
    close_all(agents, *ret_agents);
    return r;
}

static int up(const char *folder, unsigned n, struct td_error *err)
{
    TD_CLEANUP(cluster_done) struct cluster cluster = {.lock = -1, .signals = -1};
    pid_t hub = 0;
    size_t agents = n;
    int r = td_file_folder(folder, err);
    if (r == 0)
        r = cluster_take(&cluster, folder, err);
    if (r == 0)
        r = look(&cluster, &hub, &agents, err);
    if (r < 0)
        return r;
    bool already = hub != 0;
    if (!already)
        r = start_all(&cluster, n, err);
    if (r < 0)
        return r;
    (void)printf("%s in %s: a hub and %zu agent%s\n", already ? "already up" : "up", cluster.folder,
                 agents, plural(agents)); /* looked at below */
    (void)printf("TENDRIL_PLACE=%s/client.token\n", cluster.folder);
    return fflush(stdout) < 0 ? td_error_sys(err, errno, "standard output") : 0;
}

static int down(const char *folder, struct td_error *err)
{
    TD_CLEANUP(cluster_done) struct cluster cluster = {.lock = -1, .signals = -1};
    struct ended ended = {0};
    bool there = access(folder, F_OK) == 0;
    int r = there ? cluster_take(&cluster, folder, err) : 0;
    if (r == 0 && there)
        r = end_all(&cluster, &ended, err);
    if (r < 0)
        return r;
    if (!ended.hub && !ended.server && ended.agents == 0) {
        (void)printf("nothing is running in %s\n", folder); /* a closed stdout: so be it */
        return 0;
    }
    const char *what = ended.hub ? "the hub and " : ended.server ? "nats-server and " : "";
    (void)printf("down: %s%zu agent%s\n", what, ended.agents, plural(ended.agents));
    if (ended.killed)
        (void)printf("%zu of them had to be killed\n", ended.killed);
    return 0;
}

int td_cli_up(int argc, char **argv)
{
    char path[PATH_MAX];
    struct td_error err = {0};
    const char *folder = NULL;
    uint64_t n = 1;
    for (;;) {
        int option = td_cli_option(argc, argv, ":n:h", options);
        if (option == -1)
            break;
        switch (option) {
        case 'n':
            if (td_text_u64(optarg, strlen(optarg), &n) < 0 || n > AGENTS_MAX)
                return td_cli_usage("up", "-n '%s' is not a number from 0 to %d", optarg,
                                    AGENTS_MAX);
            break;
        case FOLDER: folder = optarg; break;
        case 'h': return fputs(up_help, stdout) < 0 ? EXIT_FAILED : EXIT_OK;
        default: return EXIT_USAGE;
        }
    }
    if (!folder && td_cli_folder("up", path, &err) < 0)
        return td_cli_failed("up", &err);
    return up(folder ? folder : path, (unsigned)n, &err) < 0 ? td_cli_failed("up", &err) : EXIT_OK;
}

int td_cli_down(int argc, char **argv)
{
    char path[PATH_MAX];
    struct td_error err = {0};
    const char *folder = NULL;
    for (;;) {
        int option = td_cli_option(argc, argv, ":h", &options[1]); /* without -n */
        if (option == -1)
            break;
        switch (option) {
        case FOLDER: folder = optarg; break;
        case 'h': return fputs(down_help, stdout) < 0 ? EXIT_FAILED : EXIT_OK;
        default: return EXIT_USAGE;
        }
    }
    if (!folder && td_cli_folder("up", path, &err) < 0)
        return td_cli_failed("down", &err);
    return down(folder ? folder : path, &err) < 0 ? td_cli_failed("down", &err) : EXIT_OK;
}
