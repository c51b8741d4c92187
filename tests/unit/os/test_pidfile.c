#include "os/pidfile.h"

#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/proc.h"

struct place {
    char folder[64];
    char path[128];
};

static void place_make(struct place *place)
{
    *place = (struct place){.folder = "/tmp/tendril-test-XXXXXX"};
    assert_non_null(mkdtemp(place->folder));
    (void)snprintf(place->path, sizeof place->path, "%s/pid", place->folder);
}

static void place_remove(struct place *place)
{
    assert_int_equal(remove(place->path), 0);
    assert_int_equal(rmdir(place->folder), 0);
}

/* A process that waits until it is ended; deaf: only SIGKILL ends it. Returns when it is so. */
static pid_t start(bool deaf)
{
    char script[] = "trap '' TERM; echo; exec sleep 1000";
    char *argv[] = {"sh", "-c", deaf ? script : script + strlen("trap '' TERM; "), NULL};
    int ends[2];
    char byte;
    pid_t pid;
    assert_int_equal(td_fd_pipe(ends, NULL), 0);
    assert_int_equal(td_fd_nonblocking(ends[0], false, NULL), 0);
    struct td_proc_fd out = {.from = ends[1], .to = STDOUT_FILENO};
    assert_int_equal(td_proc_spawn(argv, NULL, NULL, &out, 1, &pid, NULL), 0);
    td_fd_close(&ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    td_fd_close(&ends[0]);
    return pid;
}

static void test_pidfile_names_a_process(void **state)
{
    (void)state;
    struct place place;
    pid_t found = 0;
    int pidfd = -1;
    place_make(&place);
    assert_int_equal(td_pidfile_open(place.path, &found, &pidfd, NULL), TD_ENOTFOUND);
    pid_t pid = start(false);
    assert_int_equal(td_pidfile_write(place.path, pid, NULL), 0);
    assert_int_equal(td_pidfile_open(place.path, &found, &pidfd, NULL), 0);
    assert_int_equal(found, pid);
    assert_int_equal(td_pidfd_end(&pidfd, 1, td_clock_now() + 20 * TD_NS_PER_S), 0);
    td_fd_close(&pidfd);
    /* Also while it is not reaped yet. */
    assert_int_equal(td_pidfile_open(place.path, &found, &pidfd, NULL), TD_ENOTFOUND);
    assert_int_equal(WTERMSIG(support_reap(pid)), SIGTERM);
    assert_int_equal(td_pidfile_open(place.path, &found, &pidfd, NULL), TD_ENOTFOUND);
    place_remove(&place);
}

/* A process of that number is not it if it started at another time. */
static void test_pidfile_of_another(void **state)
{
    (void)state;
    struct place place;
    struct td_error err = {0};
    char text[64];
    pid_t found;
    int pidfd = -1;
    place_make(&place);
    (void)snprintf(text, sizeof text, "%d 1 some-boot\n", (int)getpid());
    assert_int_equal(td_file_write(place.path, (struct td_bytes){text, strlen(text)}, NULL), 0);
    assert_int_equal(td_pidfile_open(place.path, &found, &pidfd, &err), TD_ENOTFOUND);
    assert_int_equal(td_file_write(place.path, (struct td_bytes){"0 1 2\n", 6}, NULL), 0);
    assert_int_equal(td_pidfile_open(place.path, &found, &pidfd, &err), TD_EINVAL);
    assert_int_equal(td_file_write(place.path, (struct td_bytes){"", 0}, NULL), 0);
    assert_int_equal(td_pidfile_open(place.path, &found, &pidfd, &err), TD_EINVAL);
    place_remove(&place);
}

static void test_pidfile_end_kills_the_deaf(void **state)
{
    (void)state;
    pid_t pids[] = {start(false), start(true)};
    int pidfds[] = {-1, -1, -1};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(td_proc_pidfd(pids[i], &pidfds[i], NULL), 0);
    assert_int_equal(td_pidfd_end(&pidfds[0], 1, td_clock_now() + 20 * TD_NS_PER_S), 0);
    assert_int_equal(td_pidfd_end(pidfds, 3, td_clock_now() + 50 * TD_NS_PER_MS), 1);
    assert_int_equal(WTERMSIG(support_reap(pids[0])), SIGTERM);
    assert_int_equal(WTERMSIG(support_reap(pids[1])), SIGKILL);
    for (size_t i = 0; i < 2; i++)
        td_fd_close(&pidfds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pidfile_names_a_process),
        cmocka_unit_test(test_pidfile_of_another),
        cmocka_unit_test(test_pidfile_end_kills_the_deaf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
