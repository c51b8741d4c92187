#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "os/fd.h"
#include "os/proc.h"

static char *shell(char *argv[4], const char *script)
{
    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = (char *)script; /* exec does not write into it */
    argv[3] = NULL;
    return argv[0];
}

/* Runs a script whose fd 1 is a pipe; returns what it wrote. */
static const char *output_of(const char *script, char *const env[], const char *cwd)
{
    static char text[4096];
    char *argv[4];
    int ends[2];
    pid_t pid;
    size_t len = 0;
    (void)shell(argv, script);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct td_proc_fd fds[] = {{ends[1], 1}};
    assert_int_equal(td_proc_spawn(argv, env, cwd, fds, 1, &pid, NULL), 0);
    td_fd_close(&ends[1]);
    for (ssize_t n = 1; n > 0; len += (size_t)n) {
        n = read(ends[0], text + len, sizeof text - 1 - len);
        assert_true(n >= 0);
    }
    text[len] = '\0';
    td_fd_close(&ends[0]);
    assert_int_equal(support_reap(pid), 0);
    return text;
}

static void test_proc_spawn_status(void **state)
{
    (void)state;
    char *argv[4];
    pid_t pid;
    (void)shell(argv, "exit 7");
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, NULL, 0, &pid, NULL), 0);
    int status = support_reap(pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

static void test_proc_spawn_not_found(void **state)
{
    (void)state;
    char *argv[] = {"tendril-no-such-program", NULL};
    struct td_error err = {0};
    pid_t pid = -5;
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, NULL, 0, &pid, &err), TD_ENOTFOUND);
    assert_non_null(strstr(err.text, "tendril-no-such-program"));
    argv[0] = "true";
    assert_int_equal(td_proc_spawn(argv, NULL, "/no/such/folder", NULL, 0, &pid, &err),
                     TD_ENOTFOUND);
    argv[0] = "/etc/passwd";
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, NULL, 0, &pid, &err), TD_ESYS);
    assert_int_equal(pid, -5);
}

static void test_proc_spawn_bad_fds(void **state)
{
    (void)state;
    char *argv[] = {"true", NULL};
    struct td_proc_fd fds[20] = {{0, 0}};
    pid_t pid;
    size_t before = support_fds();
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, fds, 20, &pid, NULL), TD_EINVAL);
    fds[1] = (struct td_proc_fd){9999, 3};
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, fds, 2, &pid, NULL), TD_ESYS);
    assert_int_equal(support_fds(), before);
}

static void test_proc_spawn_env_cwd(void **state)
{
    (void)state;
    char *env[] = {"COLOUR=green", "PATH=/usr/bin:/bin", NULL};
    assert_string_equal(output_of("echo $COLOUR; pwd", env, "/usr"), "green\n/usr\n");
    assert_int_equal(setenv("COLOUR", "blue", 1), 0);
    assert_string_equal(output_of("echo $COLOUR", NULL, NULL), "blue\n");
}

static void test_proc_spawn_session(void **state)
{
    (void)state;
    /* Field 6 of stat is the session. */
    assert_string_equal(
        output_of("set -- $(cat /proc/$$/stat); test $6 = $$ && echo leads", NULL, NULL),
        "leads\n");
}

static void test_proc_spawn_signals(void **state)
{
    (void)state;
    sigset_t all, before;
    (void)sigfillset(&all);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &all, &before), 0);
    void (*was)(int) = signal(SIGPIPE, SIG_IGN);
    const char *masks = output_of("grep -E 'SigBlk|SigIgn' /proc/self/status", NULL, NULL);
    /* 32 and 33 are glibc's own, which posix_spawn always ignores in the child. */
    assert_string_equal(masks, "SigBlk:\t0000000000000000\nSigIgn:\t0000000180000000\n");
    (void)signal(SIGPIPE, was);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
}

/* Descriptors that cross over, and others that were opened carelessly. */
static void test_proc_spawn_fds(void **state)
{
    (void)state;
    int ends[3][2];
    char *argv[4];
    char byte;
    pid_t pid;
    for (int i = 0; i < 3; i++)
        assert_int_equal(td_fd_pipe(ends[i], NULL), 0);
    /* High numbers and low ones: none may be overwritten before it is handed on. */
    int high = fcntl(ends[0][1], F_DUPFD_CLOEXEC, 100);
    int next = fcntl(ends[1][1], F_DUPFD_CLOEXEC, 100);
    int careless = fcntl(0, F_DUPFD, 60);
    assert_true(high == 100 && next == 101 && careless == 60);
    struct td_proc_fd fds[] = {{next, 3}, {high, 4}, {ends[2][1], 6}};
    (void)shell(argv, "printf b >&3; printf a >&4; printf c >&6; "
                      "for fd in 0 1 2 3 4 5 6 7 8 9 60 100 101 102 103; do "
                      "test -e /proc/$$/fd/$fd && printf %s. $fd >&6; done");
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, fds, 3, &pid, NULL), 0);
    (void)support_reap(pid);
    assert_int_equal(read(ends[0][0], &byte, 1), 1);
    assert_int_equal(byte, 'a');
    assert_int_equal(read(ends[1][0], &byte, 1), 1);
    assert_int_equal(byte, 'b');
    char text[200] = {0};
    assert_true(read(ends[2][0], text, sizeof text - 1) > 0);
    assert_string_equal(text, "c0.1.2.3.4.6.");
    td_fd_close(&high);
    td_fd_close(&next);
    td_fd_close(&careless);
    for (int i = 0; i < 3; i++) {
        td_fd_close(&ends[i][0]);
        td_fd_close(&ends[i][1]);
    }
}

static void test_proc_pidfd(void **state)
{
    (void)state;
    char *argv[] = {"sleep", "60", NULL};
    pid_t pid;
    int fd = -1;
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, NULL, 0, &pid, NULL), 0);
    assert_int_equal(td_proc_pidfd(pid, &fd, NULL), 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&watched, 1, 0), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(poll(&watched, 1, 3000), 1);
    (void)support_reap(pid);
    td_fd_close(&fd);
    struct td_error err = {0};
    assert_int_equal(td_proc_pidfd(pid, &fd, &err), TD_ENOTFOUND);
    assert_int_equal(fd, -1);
}

static void on_child(int number)
{
    (void)number;
    (void)write(STDOUT_FILENO, "SIGCHLD", 7);
    _exit(1);
}

/* The program runs, and the process that started it has no child, had none, and got no signal. */
static void test_proc_spawn_apart(void **state)
{
    (void)state;
    char *argv[4];
    int ends[2];
    char text[64] = "";
    size_t fds = support_fds();
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(signal(SIGCHLD, on_child) != SIG_ERR);
    struct td_proc_fd handed[] = {{ends[1], 1}};
    (void)shell(argv, "echo $PPID; exec >&-; sleep 0.2");
    assert_int_equal(td_proc_spawn_apart(argv, NULL, NULL, handed, 1, NULL), 0);
    td_fd_close(&ends[1]);
    assert_true(read(ends[0], text, sizeof text - 1) > 0);
    uint64_t parent = 0;
    assert_int_equal(td_text_u64(text, td_text_digits(text), &parent), 0);
    assert_int_not_equal(parent, getpid());
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    assert_int_equal(errno, ECHILD);
    assert_true(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
    td_fd_close(&ends[0]);
    assert_int_equal(support_fds(), fds);
}

static void test_proc_spawn_apart_fails(void **state)
{
    (void)state;
    struct td_error err = {0};
    char *argv[] = {"/no/such/program", NULL};
    assert_int_equal(td_proc_spawn_apart(argv, NULL, NULL, NULL, 0, &err), TD_ENOTFOUND);
    assert_non_null(strstr(err.text, "/no/such/program"));
    td_mem_fail(1, 0);
    assert_int_equal(td_proc_spawn_apart(argv, NULL, NULL, NULL, 0, &err), TD_ENOMEM);
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
}

static void test_proc_ending(void **state)
{
    (void)state;
    char *argv[] = {"sleep", "60", NULL};
    pid_t pid;
    siginfo_t info;
    assert_false(td_proc_ending(getpid()));
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, NULL, 0, &pid, NULL), 0);
    assert_false(td_proc_ending(pid));
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_true(td_proc_ending(pid)); /* a zombie */
    (void)support_reap(pid);
    assert_true(td_proc_ending(pid));
}

/* A family whose members all hold a pipe's write end: when the last is dead, the pipe ends. */
struct family {
    pid_t root;
    int alive; /* the pipe's read end */
    _Atomic int *forks;
};

static struct family family_start(void (*fn)(_Atomic int *forks))
{
    int ends[2];
    struct family family;
    family.forks = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(family.forks != MAP_FAILED);
    assert_int_equal(td_fd_pipe(ends, NULL), 0);
    family.root = fork();
    assert_true(family.root >= 0);
    if (family.root == 0) {
        (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
        fn(family.forks);
        for (;;)
            (void)pause();
    }
    td_fd_close(&ends[1]);
    family.alive = ends[0];
    return family;
}

static void family_wait(const struct family *family, int forks)
{
    for (int i = 0; i < 4000 && atomic_load(family->forks) < forks; i++)
        (void)poll(NULL, 0, 1);
    assert_true(atomic_load(family->forks) >= forks);
}

/* Every member is dead within the time limit. */
static void family_ended(struct family *family)
{
    struct pollfd watched = {.fd = family->alive, .events = POLLIN};
    char byte;
    assert_int_equal(poll(&watched, 1, 10000), 1);
    assert_int_equal(read(family->alive, &byte, 1), 0);
    td_fd_close(&family->alive);
    (void)munmap(family->forks, 4096);
}

/* Each process forks two, up to a bound that keeps a failing test harmless. */
static void bomb(_Atomic int *forks)
{
    enum { FORKS_MAX = 300 };
    while (atomic_fetch_add(forks, 1) < FORKS_MAX) {
        pid_t pid = fork();
        if (pid < 0)
            break;
    }
    for (;;)
        (void)pause();
}

static void test_proc_kill_tree_fork_bomb(void **state)
{
    (void)state;
    struct family family = family_start(bomb);
    family_wait(&family, 50);
    td_proc_kill_tree(family.root, false);
    int status = support_reap(family.root);
    assert_true(WIFSIGNALED(status));
    family_ended(&family);
}

/* Parents that go at once: the root is the reaper of what is left. New sessions do not help. */
static void orphans(_Atomic int *forks)
{
    for (int i = 0; i < 20; i++) {
        if (fork() == 0) {
            (void)setsid();
            if (fork() != 0)
                _exit(0);
            atomic_fetch_add(forks, 1);
            for (;;)
                (void)pause();
        }
    }
}

static void test_proc_kill_tree_orphans(void **state)
{
    (void)state;
    struct family family = family_start(orphans);
    family_wait(&family, 20);
    td_proc_kill_tree(family.root, false);
    (void)support_reap(family.root);
    family_ended(&family);
}

static void test_proc_kill_tree_spare_root(void **state)
{
    (void)state;
    struct family family = family_start(orphans);
    family_wait(&family, 20);
    pid_t pids[100];
    size_t n = td_proc_children(family.root, pids, 100);
    assert_true(n >= 20);
    td_proc_kill_tree(family.root, true);
    for (size_t i = 0; i < n; i++)
        assert_true(support_gone(pids[i]));
    assert_true(support_alive(family.root));
    td_proc_kill_tree(family.root, false);
    (void)support_reap(family.root);
    family_ended(&family);
}

/* Stopped processes die too. */
static void stopped(_Atomic int *forks)
{
    if (fork() == 0) {
        atomic_fetch_add(forks, 1);
        (void)raise(SIGSTOP);
    }
}

static void test_proc_kill_tree_stopped(void **state)
{
    (void)state;
    struct family family = family_start(stopped);
    family_wait(&family, 1);
    td_proc_kill_tree(family.root, false);
    (void)support_reap(family.root);
    family_ended(&family);
}

static void test_proc_kill_tree_gone(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    (void)support_reap(pid);
    td_proc_kill_tree(pid, false); /* harmless */
}

/* With no memory for the table of processes at least the root goes. */
static void test_proc_kill_tree_no_memory(void **state)
{
    (void)state;
    struct family family = family_start(stopped);
    family_wait(&family, 1);
    td_mem_fail(1, 1);
    td_proc_kill_tree(family.root, true);
    assert_int_equal(td_proc_children(family.root, (pid_t[1]){0}, 1), 0);
    td_mem_fail(0, 0);
    td_proc_kill_tree(family.root, false);
    (void)support_reap(family.root);
    family_ended(&family);
}

enum { MIB = 1 << 20 };

static void use_memory(_Atomic int *forks)
{
    for (int i = 0; i < 2; i++) {
        if (fork() != 0)
            continue;
        char *p = mmap(NULL, 30 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            _exit(1);
        for (size_t at = 0; at < 30 * MIB; at += 4096)
            ((volatile char *)p)[at] = 1;
        atomic_fetch_add(forks, 1);
        for (;;)
            (void)pause();
    }
}

/* Everything below this process goes, also what its children leave behind as they die. */
static void test_proc_end_below(void **state)
{
    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    struct family family = family_start(orphans);
    family_wait(&family, 1);
    td_proc_end_below();
    family_ended(&family);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    td_proc_end_below(); /* nothing to do */
}

static void test_proc_tree_rss(void **state)
{
    (void)state;
    struct family family = family_start(use_memory);
    family_wait(&family, 2);
    pid_t pids[] = {999999999, family.root, getpid()};
    uint64_t bytes[3];
    td_proc_tree_rss(pids, bytes, 3);
    assert_int_equal(bytes[0], 0);
    assert_true(bytes[1] > 60 * MIB);
    assert_true(bytes[2] > bytes[1]); /* the family is below us */
    td_proc_kill_tree(family.root, false);
    (void)support_reap(family.root);
    family_ended(&family);
    td_proc_tree_rss(pids, bytes, 2);
    assert_int_equal(bytes[1], 0);
}

/* 40 MiB in one place, seen by four processes. */
static void share_memory(_Atomic int *forks)
{
    char *shared = malloc(40 * MIB);
    if (!shared)
        _exit(1);
    memset(shared, 1, 40 * MIB);
    for (int i = 0; i < 3; i++)
        if (fork() == 0)
            break;
    atomic_fetch_add(forks, 1);
}

static void test_proc_tree_pss(void **state)
{
    (void)state;
    uint64_t rss;
    struct family family = family_start(share_memory);
    family_wait(&family, 4);
    uint64_t pss = td_proc_tree_pss(family.root);
    td_proc_tree_rss(&family.root, &rss, 1);
    assert_true(rss > 4 * 40 * MIB);
    assert_true(pss > 40 * MIB);
    assert_true(pss < rss / 2); /* a sanitizer has memory of its own, which they share too */
    td_proc_kill_tree(family.root, false);
    (void)support_reap(family.root);
    family_ended(&family);
    assert_int_equal(td_proc_tree_pss(family.root), 0);
}

static void *wait_for_end(void *context)
{
    int *end = context;
    char byte;
    (void)read(*end, &byte, 1); /* ends when the other side closes */
    return NULL;
}

static void test_proc_threads(void **state)
{
    (void)state;
    pthread_t thread;
    int pair[2];
    assert_int_equal(td_fd_socketpair(pair, NULL), 0);
    int before = td_proc_threads(getpid()); /* a sanitizer may start one of its own */
    assert_true(before >= 1);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_end, &pair[1]), 0);
    assert_true(td_proc_threads(getpid()) > before);
    td_fd_close(&pair[0]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    td_fd_close(&pair[1]);
    assert_int_equal(td_proc_threads(999999999), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proc_spawn_status),
        cmocka_unit_test(test_proc_spawn_not_found),
        cmocka_unit_test(test_proc_spawn_bad_fds),
        cmocka_unit_test(test_proc_spawn_env_cwd),
        cmocka_unit_test(test_proc_spawn_session),
        cmocka_unit_test(test_proc_spawn_signals),
        cmocka_unit_test(test_proc_spawn_fds),
        cmocka_unit_test(test_proc_spawn_apart),
        cmocka_unit_test(test_proc_spawn_apart_fails),
        cmocka_unit_test(test_proc_pidfd),
        cmocka_unit_test(test_proc_ending),
        cmocka_unit_test(test_proc_kill_tree_fork_bomb),
        cmocka_unit_test(test_proc_kill_tree_orphans),
        cmocka_unit_test(test_proc_kill_tree_spare_root),
        cmocka_unit_test(test_proc_kill_tree_stopped),
        cmocka_unit_test(test_proc_kill_tree_gone),
        cmocka_unit_test(test_proc_kill_tree_no_memory),
        cmocka_unit_test(test_proc_end_below),
        cmocka_unit_test(test_proc_tree_rss),
        cmocka_unit_test(test_proc_tree_pss),
        cmocka_unit_test(test_proc_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
