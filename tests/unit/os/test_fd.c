#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"
#include "os/fd.h"

static bool cloexec(int fd)
{
    int flags = fcntl(fd, F_GETFD);
    assert_true(flags >= 0);
    return flags & FD_CLOEXEC;
}

static bool nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    assert_true(flags >= 0);
    return flags & O_NONBLOCK;
}

static void test_fd_close(void **state)
{
    (void)state;
    int fd = -1;
    td_fd_close(&fd);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int was = fd;
    td_fd_close(&fd);
    assert_int_equal(fd, -1);
    assert_int_equal(fcntl(was, F_GETFD), -1);
    td_fd_close(&fd);
}

static void test_fd_socketpair(void **state)
{
    (void)state;
    int pair[2];
    char byte = 0;
    assert_int_equal(td_fd_socketpair(pair, NULL), 0);
    assert_true(cloexec(pair[0]) && cloexec(pair[1]));
    assert_false(nonblocking(pair[0]) || nonblocking(pair[1]));
    assert_int_equal(write(pair[0], "x", 1), 1);
    assert_int_equal(read(pair[1], &byte, 1), 1);
    assert_int_equal(byte, 'x');
    td_fd_close(&pair[0]);
    td_fd_close(&pair[1]);
}

static void test_fd_pipe(void **state)
{
    (void)state;
    int ends[2];
    char byte;
    assert_int_equal(td_fd_pipe(ends, NULL), 0);
    assert_true(cloexec(ends[0]) && cloexec(ends[1]));
    assert_true(nonblocking(ends[0]));
    assert_false(nonblocking(ends[1]));
    assert_int_equal(read(ends[0], &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(td_fd_nonblocking(ends[0], false, NULL), 0);
    assert_false(nonblocking(ends[0]));
    td_fd_close(&ends[0]);
    td_fd_close(&ends[1]);
}

static void test_fd_inherit(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(td_fd_inherit(fd), 0);
    assert_false(cloexec(fd));
    td_fd_close(&fd);
    assert_int_equal(td_fd_inherit(-1), TD_ESYS);
}

static void test_fd_limit(void **state)
{
    (void)state;
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    size_t open_before = support_fds();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int pair[2];
    struct td_error err = {0};
    int r_pair = td_fd_socketpair(pair, &err);
    int r_pipe = td_fd_pipe(pair, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(r_pair, TD_ELIMIT);
    assert_int_equal(r_pipe, TD_ELIMIT);
    assert_true(err.text[0]);
    assert_int_equal(support_fds(), open_before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fd_close), cmocka_unit_test(test_fd_socketpair),
        cmocka_unit_test(test_fd_pipe),  cmocka_unit_test(test_fd_inherit),
        cmocka_unit_test(test_fd_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
