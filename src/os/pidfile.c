#include "os/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/text.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/proc.h"

enum { LINE_MAX_SIZE = 128, KILLED_S = 5 };

static bool read_text(const char *path, char *text, size_t size)
{
    TD_CLEANUP(td_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    if (n <= 0)
        return false;
    text[n] = '\0';
    return true;
}

/* The line that the process, and no other ever, has: its number, when it started in ticks since the
 * machine did, and that run of the machine. False: there is no such process. */
static bool line_of(pid_t pid, char line[LINE_MAX_SIZE])
{
    enum { START_AFTER_STATE = 19 }; /* fields, see proc(5) */
    char path[64], text[512], boot[64];
    uint64_t start;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid); /* always fits */
    if (!read_text(path, text, sizeof text) ||
        !read_text("/proc/sys/kernel/random/boot_id", boot, sizeof boot))
        return false;
    const char *at = strrchr(text, ')'); /* the name may hold anything */
    at = at ? strchr(at, ' ') : NULL;
    for (int i = 0; i < START_AFTER_STATE && at; i++)
        at = strchr(at + 1, ' ');
    if (!at || td_text_u64(at + 1, td_text_digits(at + 1), &start) < 0)
        return false;
    boot[strcspn(boot, "\n")] = '\0';
    (void)snprintf(line, LINE_MAX_SIZE, "%d %llu %s\n", (int)pid, (unsigned long long)start,
                   boot); /* always fits */
    return true;
}

int td_pidfile_write(const char *path, pid_t pid, struct td_error *err)
{
    char line[LINE_MAX_SIZE];
    if (!line_of(pid, line))
        return td_error_set(err, TD_ENOTFOUND, "process %d has ended", (int)pid);
    return td_file_write(path, (struct td_bytes){line, strlen(line)}, err);
}

static int gone(const char *path, struct td_error *err)
{
    return td_error_set(err, TD_ENOTFOUND, "%s: its process has ended", path);
}

int td_pidfile_open(const char *path, pid_t *ret_pid, int *ret_pidfd, struct td_error *err)
{
    TD_CLEANUP(td_buf_done) struct td_buf text;
    char line[LINE_MAX_SIZE];
    uint64_t pid;
    int pidfd;
    td_buf_init(&text, LINE_MAX_SIZE);
    int r = td_file_read(path, &text, err);
    if (r == TD_ENOTFOUND)
        return gone(path, err);
    if (r < 0)
        return r;
    if (td_buf_add(&text, "", 1) < 0 ||
        td_text_u64(text.data, td_text_digits(text.data), &pid) < 0 || pid == 0 || pid > INT32_MAX)
        return td_error_set(err, TD_EINVAL, "%s does not name a process", path);
    r = td_proc_pidfd((pid_t)pid, &pidfd, err);
    if (r == TD_ENOTFOUND)
        return gone(path, err);
    if (r < 0)
        return r;
    /* Looked at after its descriptor was had: it is this one, not a later one of that number. */
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    if (!line_of((pid_t)pid, line) || strcmp(line, text.data) != 0 || poll(&ended, 1, 0) != 0) {
        td_fd_close(&pidfd);
        return gone(path, err);
    }
    *ret_pid = (pid_t)pid;
    *ret_pidfd = pidfd;
    return 0;
}

/* Waits for one until the deadline. */
static bool has_ended(int pidfd, int64_t deadline_ns)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    for (;;) {
        int64_t left_ns = deadline_ns - td_clock_now();
        int64_t left_ms = left_ns > 0 ? (left_ns + TD_NS_PER_MS - 1) / TD_NS_PER_MS : 0;
        int r = poll(&ended, 1, left_ms > INT32_MAX ? INT32_MAX : (int)left_ms);
        if (r != 0 && !(r < 0 && errno == EINTR))
            return r > 0;
        if (r == 0 && td_clock_now() >= deadline_ns)
            return false;
    }
}

static void send_signal(int pidfd, int signal_number)
{
    (void)syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0); /* ESRCH: it has ended */
}

size_t td_pidfd_end(const int *pidfds, size_t n, int64_t deadline_ns)
{
    size_t killed = 0;
    for (size_t i = 0; i < n; i++)
        if (pidfds[i] >= 0)
            send_signal(pidfds[i], SIGTERM);
    for (size_t i = 0; i < n; i++) {
        if (pidfds[i] < 0 || has_ended(pidfds[i], deadline_ns))
            continue;
        killed++;
        send_signal(pidfds[i], SIGKILL);
        (void)has_ended(pidfds[i], td_clock_now() + KILLED_S * TD_NS_PER_S); /* it must */
    }
    return killed;
}
