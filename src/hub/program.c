#include "hub/program.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/text.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/proc.h"

enum { VERSION_S = 10 }; /* to say its version */

static const int oldest[] = {2, 9, 10}; /* that serves */
static const int good[] = {2, 10, 0};   /* from which on it does so without known faults */

/* What the program says when it is asked for its version; it is ended after that. */
static int ask_version(const char *program, char *answer, size_t size, struct td_error *err)
{
    char *argv[] = {(char *)program, "-v", NULL}; /* posix_spawn does not write to them */
    TD_CLEANUP(td_fd_close) int out = -1;
    int ends[2];
    pid_t pid;
    int r = td_fd_pipe(ends, err);
    if (r < 0)
        return r;
    out = ends[0];
    struct td_proc_fd fds[] = {{ends[1], STDOUT_FILENO}, {ends[1], STDERR_FILENO}};
    r = td_proc_spawn(argv, NULL, NULL, fds, TD_COUNT(fds), &pid, err);
    td_fd_close(&ends[1]);
    if (r < 0)
        return r;
    int64_t deadline_ns = td_clock_now() + VERSION_S * TD_NS_PER_S;
    size_t len = 0;
    ssize_t n = -1;
    struct pollfd ready = {.fd = out, .events = POLLIN};
    while (n != 0 && len < size - 1 && td_clock_now() < deadline_ns) {
        int64_t left_ms = (deadline_ns - td_clock_now()) / TD_NS_PER_MS;
        if (poll(&ready, 1, left_ms > 0 ? (int)left_ms : 0) <= 0)
            continue;
        n = read(out, answer + len, size - 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    answer[len] = '\0';
    (void)kill(pid, SIGKILL); /* it has said all */
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return 0;
}

/* "nats-server: v2.9.10", possibly with more behind the numbers. */
static bool parse_version(const char *answer, int ret_version[3], char text[TD_PROGRAM_VERSION_MAX])
{
    static const char beginning[] = "nats-server: v";
    if (strncmp(answer, beginning, strlen(beginning)) != 0)
        return false;
    const char *at = answer + strlen(beginning);
    const char *first = at;
    for (size_t i = 0; i < 3; i++) {
        uint64_t number;
        size_t len = td_text_digits(at);
        if (td_text_u64(at, len, &number) < 0 || number > 9999 || (i < 2 && at[len] != '.'))
            return false;
        ret_version[i] = (int)number;
        at += len + (i < 2);
    }
    (void)snprintf(text, TD_PROGRAM_VERSION_MAX, "%.*s", (int)(at - first),
                   first); /* it fits: 3 * 4 digits */
    return true;
}

static bool older(const int version[3], const int than[3])
{
    for (size_t i = 0; i < 3; i++)
        if (version[i] != than[i])
            return version[i] < than[i];
    return false;
}

static int check(const char *path, struct td_program *ret_program, struct td_error *err)
{
    char answer[128];
    int version[3];
    struct td_program program;
    int r = ask_version(path, answer, sizeof answer, err);
    if (r < 0)
        return r;
    if (!parse_version(answer, version, program.version))
        return td_error_set(err, TD_EREFUSED,
                            "%s is not a nats-server: it does not say its version when run with "
                            "-v",
                            path);
    if (older(version, oldest))
        return td_error_set(err, TD_EREFUSED,
                            "%s has version %s, and the oldest that serves is %d.%d.%d", path,
                            program.version, oldest[0], oldest[1], oldest[2]);
    program.old = older(version, good);
    int len = snprintf(program.path, sizeof program.path, "%s", path);
    if ((size_t)len >= sizeof program.path)
        return td_error_set(err, TD_EINVAL, "the path of nats-server is too long");
    *ret_program = program;
    return 0;
}

int td_program_find(const char *chosen, struct td_program *ret_program, struct td_error *err)
{
    static const char *const usual[] = {"nats-server", "/usr/sbin/nats-server"};
    const char *variable = getenv("TENDRIL_NATS_SERVER");
    if (chosen)
        return check(chosen, ret_program, err);
    if (variable && *variable)
        return check(variable, ret_program, err);
    for (size_t i = 0; i < TD_COUNT(usual); i++) {
        int r = check(usual[i], ret_program, err);
        if (r != TD_ENOTFOUND)
            return r;
    }
    return td_error_set(err, TD_ENOTFOUND,
                        "nats-server is neither in PATH nor in /usr/sbin; install it (Debian: apt "
                        "install nats-server), or name it: TENDRIL_NATS_SERVER=/path/to/it");
}
