#include "os/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "os/clock.h"
#include "os/fd.h"

extern char **environ;

enum { FDS_MAX = 8 };

/* Copies of the descriptors to hand on, numbered above every target, so that no dup2 in the child
 * overwrites one that is still needed. */
struct handed {
    int copies[FDS_MAX];
    size_t n;
};

static void handed_done(struct handed *handed)
{
    for (size_t i = 0; i < handed->n; i++)
        td_fd_close(&handed->copies[i]);
}

/* The highest descriptor that the child is to have. */
static int fd_highest(const struct td_proc_fd *fds, size_t nfds)
{
    int highest = 2;
    for (size_t i = 0; i < nfds; i++)
        highest = fds[i].to > highest ? fds[i].to : highest;
    return highest;
}

static int handed_copy(struct handed *handed, const struct td_proc_fd *fds, size_t nfds)
{
    for (size_t i = 0; i < nfds; i++) {
        int copy = fcntl(fds[i].from, F_DUPFD_CLOEXEC, fd_highest(fds, nfds) + 1);
        if (copy < 0)
            return errno;
        handed->copies[handed->n++] = copy;
    }
    return 0;
}

static bool fd_listed(const struct td_proc_fd *fds, size_t nfds, int fd)
{
    for (size_t i = 0; i < nfds; i++)
        if (fds[i].to == fd)
            return true;
    return false;
}

/* What others in this process opened without close-on-exec is closed too. */
static int add_fds(posix_spawn_file_actions_t *actions, const struct td_proc_fd *fds, size_t nfds,
                   const struct handed *handed)
{
    int highest = fd_highest(fds, nfds);
    int r = 0;
    for (size_t i = 0; i < nfds && r == 0; i++)
        r = posix_spawn_file_actions_adddup2(actions, handed->copies[i], fds[i].to);
    for (int fd = 0; fd <= highest && r == 0; fd++) {
        if (fd_listed(fds, nfds, fd))
            continue;
        r = fd < 3 ? posix_spawn_file_actions_addopen(actions, fd, "/dev/null", O_RDWR, 0)
                   : posix_spawn_file_actions_addclose(actions, fd);
    }
    if (r == 0)
        r = posix_spawn_file_actions_addclosefrom_np(actions, highest + 1);
    return r;
}

static int add_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int r = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                                     POSIX_SPAWN_SETSIGDEF);
    if (r == 0)
        r = posix_spawnattr_setsigmask(attributes, &none);
    if (r == 0)
        r = posix_spawnattr_setsigdefault(attributes, &all);
    return r;
}

int td_proc_spawn(char *const argv[], char *const env[], const char *cwd,
                  const struct td_proc_fd *fds, size_t nfds, pid_t *ret_pid, struct td_error *err)
{
    if (nfds > FDS_MAX)
        return td_error_set(err, TD_EINVAL, "at most %d descriptors can be handed on", FDS_MAX);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    TD_CLEANUP(handed_done) struct handed handed = {.n = 0};
    int r = handed_copy(&handed, fds, nfds);
    if (r == 0)
        r = posix_spawn_file_actions_init(&actions);
    if (r != 0)
        return td_error_sys(err, r, argv[0]);
    r = posix_spawnattr_init(&attributes);
    if (r != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return td_error_sys(err, r, "posix_spawn");
    }
    r = add_fds(&actions, fds, nfds, &handed);
    if (r == 0 && cwd)
        r = posix_spawn_file_actions_addchdir_np(&actions, cwd);
    if (r == 0)
        r = add_attributes(&attributes);
    pid_t pid = 0;
    if (r == 0)
        r = posix_spawnp(&pid, argv[0], &actions, &attributes, argv, env ? env : environ);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (r == ENOENT)
        return td_error_set(err, TD_ENOTFOUND, "cannot start %s: no such program or folder",
                            argv[0]);
    if (r != 0)
        return td_error_sys(err, r, argv[0]);
    *ret_pid = pid;
    return 0;
}

/* An order to td_proc_spawn, for a process that shares our memory. */
struct apart {
    char *const *argv;
    char *const *env;
    const char *cwd;
    const struct td_proc_fd *fds;
    size_t nfds;
    struct td_error *err;
    int result;
};

static int spawn_and_end(void *context)
{
    struct apart *apart = context;
    pid_t ignored;
    apart->result = td_proc_spawn(apart->argv, apart->env, apart->cwd, apart->fds, apart->nfds,
                                  &ignored, apart->err);
    return 0;
}

/* glibc's clone by its other name: ThreadSanitizer takes a `clone` for a fork, and would stop
 * watching the calling thread. */
extern __typeof__(clone) __clone;

/* A process in between starts the program and ends, so that this is nobody's child. Like
 * posix_spawn's own it runs on our memory while the calling thread waits (CLONE_VFORK), with a
 * stack of its own and all signals blocked; it has no exit signal, so that only __WCLONE sees it.
 */
int td_proc_spawn_apart(char *const argv[], char *const env[], const char *cwd,
                        const struct td_proc_fd *fds, size_t nfds, struct td_error *err)
{
    enum { STACK_SIZE = 128 << 10, ALIGNMENT = 64 };
    struct apart apart = {
        .argv = argv, .env = env, .cwd = cwd, .fds = fds, .nfds = nfds, .err = err};
    char *stack = td_alloc(STACK_SIZE + ALIGNMENT);
    if (!stack)
        return td_error_set(err, TD_ENOMEM, "%s: out of memory", argv[0]);
    uintptr_t top = ((uintptr_t)stack + STACK_SIZE + ALIGNMENT) & ~(uintptr_t)(ALIGNMENT - 1);
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* cannot fail: the arguments are valid */
    pid_t between = __clone(spawn_and_end, (void *)top, CLONE_VM | CLONE_VFORK, &apart);
    int e = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL); /* as above */
    while (between > 0 && waitpid(between, NULL, __WCLONE) < 0 && errno == EINTR)
        continue;
    td_free(stack);
    return between < 0 ? td_error_sys(err, e, "clone") : apart.result;
}

int td_proc_pidfd(pid_t pid, int *ret_fd, struct td_error *err)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by itself */
    if (fd < 0 && errno == ESRCH)
        return td_error_set(err, TD_ENOTFOUND, "process %d has ended", (int)pid);
    if (fd < 0)
        return td_error_sys(err, errno, "pidfd_open");
    *ret_fd = fd;
    return 0;
}

/* One row of the process table. */
struct row {
    pid_t pid;
    pid_t parent;
    char state;  /* as proc(5) has it: R, S, D, T, Z, ... */
    bool wanted; /* in the tree that is asked for */
    bool rested; /* was seen stopped */
};

struct table {
    struct row *rows;
    size_t len;
};

static void table_done(struct table *table)
{
    td_free(table->rows);
}

/* Reads a small file of /proc into text, zero-terminated; bytes read, or -1. */
static ssize_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name); /* always fits */
    TD_CLEANUP(td_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, size - 1);
    if (n >= 0)
        text[n] = '\0';
    return n;
}

/* "pid (name) state ppid ...": the name may hold anything, so look from its last ')'. */
static bool read_row(pid_t pid, struct row *ret_row)
{
    char text[512];
    if (read_proc(pid, "stat", text, sizeof text) <= 0)
        return false;
    const char *at = strrchr(text, ')');
    if (!at || at[1] != ' ' || !at[2] || !at[3])
        return false;
    uint64_t parent;
    if (td_text_u64(at + 4, td_text_digits(at + 4), &parent) < 0)
        return false;
    *ret_row = (struct row){.pid = pid, .parent = (pid_t)parent, .state = at[2]};
    return true;
}

static int row_compare(const void *a, const void *b)
{
    const struct row *one = a;
    const struct row *other = b;
    return (one->pid > other->pid) - (one->pid < other->pid);
}

/* False: it is not the whole table, there is no memory for that. A part is better than none. */
static bool table_read(struct table *table)
{
    *table = (struct table){0};
    DIR *dir = opendir("/proc");
    if (!dir)
        return false;
    size_t cap = 0;
    bool whole = true;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        uint64_t pid;
        struct row row;
        if (td_text_u64(entry->d_name, strlen(entry->d_name), &pid) < 0 ||
            !read_row((pid_t)pid, &row))
            continue;
        if (table->len == cap) {
            cap = cap ? cap * 2 : 256;
            struct row *rows = td_realloc(table->rows, cap * sizeof *rows);
            whole = rows;
            if (!whole)
                break;
            table->rows = rows;
        }
        table->rows[table->len++] = row;
    }
    (void)closedir(dir);
    if (table->len)
        qsort(table->rows, table->len, sizeof table->rows[0], row_compare);
    return whole;
}

static struct row *table_find(const struct table *table, pid_t pid)
{
    struct row key = {.pid = pid};
    if (table->len == 0)
        return NULL;
    return bsearch(&key, table->rows, table->len, sizeof key, row_compare);
}

static bool row_live(const struct row *row)
{
    return row->wanted && row->state != 'Z';
}

/* Marks the descendants of root (not root itself). Parents mostly have lower numbers than their
 * children, so that one pass finds nearly all. */
static void mark_descendants(struct table *table, pid_t root)
{
    bool more = true;
    while (more) {
        more = false;
        for (size_t i = 0; i < table->len; i++) {
            struct row *row = &table->rows[i];
            if (row->wanted || row->pid == root)
                continue;
            const struct row *parent = table_find(table, row->parent);
            if (row->parent == root || (parent && parent->wanted))
                row->wanted = more = true;
        }
    }
}

size_t td_proc_children(pid_t parent, pid_t *ret_pids, size_t max)
{
    TD_CLEANUP(table_done) struct table table;
    size_t n = 0;
    (void)table_read(&table); /* what is there of it */
    for (size_t i = 0; i < table.len && n < max; i++)
        if (table.rows[i].parent == parent)
            ret_pids[n++] = table.rows[i].pid;
    return n;
}

static void signal_marked(const struct table *table, int signal_number)
{
    for (size_t i = 0; i < table->len; i++)
        if (row_live(&table->rows[i]))
            (void)kill(table->rows[i].pid, signal_number); /* ESRCH: it ended by itself */
}

/* Nothing of it runs any more: every thread is stopped, or dead. */
static bool at_rest(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid); /* always fits */
    DIR *dir = opendir(path);
    if (!dir)
        return true; /* it has ended */
    bool rest = true;
    for (struct dirent *entry = readdir(dir); entry && rest; entry = readdir(dir)) {
        uint64_t thread;
        struct row row;
        if (td_text_u64(entry->d_name, strlen(entry->d_name), &thread) == 0 &&
            read_row((pid_t)thread, &row))
            rest = strchr("TtZX", row.state);
    }
    (void)closedir(dir);
    return rest;
}

/* Stops what is marked. Counts in *progress what is new or has come to rest. False when something
 * could still fork. What `before` found at rest was so before `now` was read, and so has no child
 * that `now` does not show. */
static bool stop_marked(struct table *now, const struct table *before, size_t *progress)
{
    bool all = true;
    for (size_t i = 0; i < now->len; i++) {
        struct row *row = &now->rows[i];
        if (!row_live(row))
            continue;
        const struct row *known = table_find(before, row->pid);
        bool old = known && known->wanted;
        row->rested = old && known->rested;
        if (row->rested)
            continue;
        all = false;
        (void)kill(row->pid, SIGSTOP); /* ESRCH: it ended by itself */
        row->rested = at_rest(row->pid);
        *progress += !old || row->rested;
    }
    return all;
}

/* A signal that comes in the middle of a fork is delivered after it, so it is not enough to have
 * sent one: each must be seen at rest before the look that finds nobody else. */
bool td_proc_kill_tree(pid_t pid, bool spare_root)
{
    enum { PATIENCE_MS = 1000, AT_MOST_MS = 5000 }; /* with what sits in the kernel; with all */
    TD_CLEANUP(table_done) struct table known = {0};
    int64_t now_ns = td_clock_now();
    int64_t end = now_ns + AT_MOST_MS * TD_NS_PER_MS;
    int64_t deadline = now_ns + PATIENCE_MS * TD_NS_PER_MS;
    bool root_rested = spare_root;
    bool all = false, whole = true;
    if (!spare_root)
        (void)kill(pid, SIGSTOP); /* ESRCH: gone already; its orphans are with their reaper */
    while (!all && whole && now_ns < deadline && now_ns < end) {
        struct table now;
        size_t progress = 0;
        root_rested = root_rested || at_rest(pid);
        whole = table_read(&now);
        mark_descendants(&now, pid);
        all = stop_marked(&now, &known, &progress) && root_rested && whole;
        table_done(&known);
        known = now;
        now_ns = td_clock_now();
        if (progress)
            deadline = now_ns + PATIENCE_MS * TD_NS_PER_MS;
        else if (!all)
            (void)sched_yield();
    }
    signal_marked(&known, SIGKILL);
    if (!spare_root)
        (void)kill(pid, SIGKILL);
    return all;
}

/* Reaps children until there are none, or (unless all) none that has ended. */
static bool reap(bool all)
{
    pid_t pid;
    do
        pid = waitpid(-1, NULL, all ? 0 : WNOHANG);
    while (pid > 0 || (pid < 0 && errno == EINTR));
    return pid < 0;
}

void td_proc_end_below(void)
{
    enum { ROUNDS_MAX = 100 };
    bool none = reap(false);
    for (int round = 0; round < ROUNDS_MAX && !none; round++) {
        /* What was killed ends soon, and so do its children, which are ours then. */
        bool complete = td_proc_kill_tree(getpid(), true);
        none = reap(complete);
    }
}

/* "pid (name) state parent group session terminal foreground flags ..." */
bool td_proc_ending(pid_t pid)
{
    enum { FLAGS_AFTER_STATE = 6, FLAG_EXITING = 4 }; /* PF_EXITING of linux/sched.h */
    char text[512];
    uint64_t flags;
    if (read_proc(pid, "stat", text, sizeof text) <= 0)
        return true;
    const char *at = strrchr(text, ')');
    at = at ? strchr(at, ' ') : NULL;
    for (int i = 0; i < FLAGS_AFTER_STATE && at; i++)
        at = strchr(at + 1, ' ');
    return at && td_text_u64(at + 1, td_text_digits(at + 1), &flags) == 0 && flags & FLAG_EXITING;
}

static uint64_t rss_bytes(pid_t pid)
{
    char text[128];
    if (read_proc(pid, "statm", text, sizeof text) <= 0)
        return 0;
    const char *at = strchr(text, ' '); /* "size resident ...", in pages */
    uint64_t pages = 0;
    if (!at || td_text_u64(at + 1, td_text_digits(at + 1), &pages) < 0)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* "... Pss:    1234 kB ..."; resident size where the kernel does not tell. */
static uint64_t pss_bytes(pid_t pid)
{
    char text[1024];
    uint64_t kib;
    const char *at = NULL;
    if (read_proc(pid, "smaps_rollup", text, sizeof text) > 0)
        at = strstr(text, "\nPss:");
    if (!at)
        return rss_bytes(pid);
    at += strlen("\nPss:");
    at += strspn(at, " ");
    return td_text_u64(at, td_text_digits(at), &kib) < 0 ? rss_bytes(pid) : kib << 10;
}

static uint64_t tree_sum(struct table *table, pid_t root, uint64_t (*bytes)(pid_t pid))
{
    uint64_t total = bytes(root);
    for (size_t i = 0; i < table->len; i++)
        table->rows[i].wanted = false;
    mark_descendants(table, root);
    for (size_t i = 0; i < table->len; i++)
        if (table->rows[i].wanted)
            total += bytes(table->rows[i].pid);
    return total;
}

void td_proc_tree_rss(const pid_t *pids, uint64_t *ret_bytes, size_t n)
{
    TD_CLEANUP(table_done) struct table table;
    (void)table_read(&table); /* what is there of it */
    for (size_t i = 0; i < n; i++)
        ret_bytes[i] = tree_sum(&table, pids[i], rss_bytes);
}

uint64_t td_proc_tree_pss(pid_t pid)
{
    TD_CLEANUP(table_done) struct table table;
    (void)table_read(&table); /* what is there of it */
    return tree_sum(&table, pid, pss_bytes);
}

int td_proc_threads(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid); /* always fits */
    DIR *dir = opendir(path);
    if (!dir)
        return 0;
    int n = 0;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        n += entry->d_name[0] != '.';
    (void)closedir(dir);
    return n;
}

int td_proc_cpus(void)
{
    cpu_set_t ours;
    int n = sched_getaffinity(0, sizeof ours, &ours) < 0 ? 1 : CPU_COUNT(&ours);
    return n > 0 ? n : 1;
}
