#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "os/cgroup.h"
#include "os/cgroup_base.h"
#include "os/clock.h"
#include "os/fd.h"

#define MIB ((uint64_t)1 << 20)

static struct td_cgroup_support support;

static int setup(void **state)
{
    (void)state;
    static const char *const names[] = {"no", "v1", "v2"};
    support = td_cgroup_probe();
    print_message("control groups here: memory %s, cpu %s\n", names[support.memory],
                  names[support.cpu]);
    return 0;
}

/* Is the group of that name and maker still a folder somewhere below our own? */
static bool group_exists(const char *name, pid_t maker)
{
    static const char *const controllers[] = {"memory", "cpu", NULL};
    for (size_t i = 0; i < 3; i++) {
        struct td_cgroup_base bases[TD_CGROUP_BASES_MAX];
        size_t n = td_cgroup_base_find(controllers[i], bases);
        for (size_t j = 0; j < n; j++) {
            char path[1024];
            struct stat ignored;
            (void)snprintf(path, sizeof path, "%s/tendril-%d-%s", bases[j].path, (int)maker, name);
            if (stat(path, &ignored) == 0)
                return true;
        }
    }
    return false;
}

/* A child that waits to be let go and then runs fn. */
struct child {
    pid_t pid;
    int gate;
};

static struct child child_start(void (*fn)(void))
{
    int pair[2];
    assert_int_equal(td_fd_socketpair(pair, NULL), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char byte;
        td_fd_close(&pair[0]);
        if (read(pair[1], &byte, 1) == 1)
            fn();
        _exit(0);
    }
    td_fd_close(&pair[1]);
    return (struct child){pid, pair[0]};
}

static int child_run(struct child *child)
{
    assert_int_equal(write(child->gate, "x", 1), 1);
    td_fd_close(&child->gate);
    return support_reap(child->pid);
}

static void use_200_mib(void)
{
    char *p = mmap(NULL, 200 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        _exit(1);
    for (size_t i = 0; i < 200 * MIB; i += 4096)
        ((volatile char *)p)[i] = 1;
}

static void do_nothing(void)
{
}

static void test_cgroup_memory_kills(void **state)
{
    (void)state;
    if (!support.memory)
        SUPPORT_SKIP("memory cannot be limited by control group here");
    struct td_cgroup *cgroup;
    struct td_error err = {0};
    int r = td_cgroup_new(support, "memory", 50 * MIB, 0, &cgroup, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(r, 0);
    assert_true(group_exists("memory", getpid()));
    struct child child = child_start(use_200_mib);
    assert_int_equal(td_cgroup_enter(cgroup, child.pid, &err), 0);
    assert_false(td_cgroup_oom(cgroup));
    int status = child_run(&child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_true(td_cgroup_oom(cgroup));
    uint64_t peak = td_cgroup_peak(cgroup);
    assert_true(peak == 0 || (peak > 40 * MIB && peak <= 50 * MIB));
    assert_null(td_cgroup_free(cgroup));
    assert_false(group_exists("memory", getpid()));
}

/* Exits by 3 when it sees that a child of its was killed for memory. */
static void lose_a_child(void)
{
    if (td_cgroup_own_kills() != 0)
        _exit(1);
    pid_t pid = fork();
    if (pid == 0)
        use_200_mib();
    if (pid <= 0)
        _exit(2);
    (void)support_reap(pid);
    _exit(td_cgroup_own_kills() == 1 ? 3 : 4);
}

/* Version 2 ends all of the group at once; with version 1 those inside must look. */
static void test_cgroup_own_kills(void **state)
{
    (void)state;
    assert_int_equal(td_cgroup_own_kills(), -1);
    if (!support.memory)
        SUPPORT_SKIP("memory cannot be limited by control group here");
    struct td_cgroup *cgroup;
    assert_int_equal(td_cgroup_new(support, "child", 50 * MIB, 0, &cgroup, NULL), 0);
    struct child child = child_start(lose_a_child);
    assert_int_equal(td_cgroup_enter(cgroup, child.pid, NULL), 0);
    int status = child_run(&child);
    if (support.memory == TD_CGROUP_V1)
        assert_int_equal(WEXITSTATUS(status), 3);
    else
        assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_true(td_cgroup_oom(cgroup));
    td_cgroup_free(cgroup);
}

static void test_cgroup_memory_suffices(void **state)
{
    (void)state;
    if (!support.memory)
        SUPPORT_SKIP("memory cannot be limited by control group here");
    struct td_cgroup *cgroup;
    assert_int_equal(td_cgroup_new(support, "enough", 1024 * MIB, 0, &cgroup, NULL), 0);
    struct child child = child_start(use_200_mib);
    assert_int_equal(td_cgroup_enter(cgroup, child.pid, NULL), 0);
    assert_int_equal(child_run(&child), 0);
    assert_false(td_cgroup_oom(cgroup));
    uint64_t peak = td_cgroup_peak(cgroup);
    assert_true(peak == 0 || peak >= 200 * MIB);
    td_cgroup_free(cgroup);
}

static void compute_300_ms(void)
{
    struct timespec now;
    do
        (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    while (now.tv_sec == 0 && now.tv_nsec < 300000000);
}

/* Not before the last process in it has ended. */
static void test_cgroup_remove(void **state)
{
    (void)state;
    if (!support.memory)
        SUPPORT_SKIP("memory cannot be limited by control group here");
    struct td_cgroup *cgroup;
    assert_int_equal(td_cgroup_new(support, "remove", 1024 * MIB, 0, &cgroup, NULL), 0);
    struct child child = child_start(do_nothing);
    assert_int_equal(td_cgroup_enter(cgroup, child.pid, NULL), 0);
    assert_false(td_cgroup_remove(cgroup));
    assert_true(group_exists("remove", getpid()));
    assert_int_equal(child_run(&child), 0);
    assert_true(td_cgroup_remove(cgroup));
    assert_false(group_exists("remove", getpid()));
    assert_true(td_cgroup_remove(cgroup));
    td_cgroup_free(cgroup);
}

static void test_cgroup_cpu(void **state)
{
    (void)state;
    if (!support.cpu)
        SUPPORT_SKIP("cpu cannot be limited by control group here");
    struct td_cgroup *cgroup;
    assert_int_equal(td_cgroup_new(support, "cpu", 0, 200, &cgroup, NULL), 0);
    assert_int_equal(td_cgroup_peak(cgroup), 0);
    assert_false(td_cgroup_oom(cgroup));
    struct child child = child_start(compute_300_ms);
    assert_int_equal(td_cgroup_enter(cgroup, child.pid, NULL), 0);
    int64_t start = td_clock_now();
    assert_int_equal(child_run(&child), 0);
    /* A fifth of a core: 1.5 s, less what one period may be off at each end. */
    assert_true(td_clock_now() - start > 900 * TD_NS_PER_MS);
    td_cgroup_free(cgroup);
    assert_false(group_exists("cpu", getpid()));
}

static void test_cgroup_cpu_tiny(void **state)
{
    (void)state;
    if (!support.cpu)
        SUPPORT_SKIP("cpu cannot be limited by control group here");
    static const uint32_t millis[] = {1, 9, 10, 64000};
    for (size_t i = 0; i < 4; i++) {
        struct td_cgroup *cgroup;
        assert_int_equal(td_cgroup_new(support, "tiny", 0, millis[i], &cgroup, NULL), 0);
        td_cgroup_free(cgroup);
    }
}

static void test_cgroup_enter_ended(void **state)
{
    (void)state;
    if (!support.memory)
        SUPPORT_SKIP("memory cannot be limited by control group here");
    struct td_cgroup *cgroup;
    struct td_error err = {0};
    assert_int_equal(td_cgroup_new(support, "ended", 50 * MIB, 0, &cgroup, NULL), 0);
    struct child child = child_start(do_nothing);
    assert_int_equal(child_run(&child), 0);
    assert_int_equal(td_cgroup_enter(cgroup, child.pid, &err), TD_ENOTFOUND);
    assert_true(err.text[0]);
    td_cgroup_free(cgroup);
}

static void test_cgroup_sweep(void **state)
{
    (void)state;
    if (!support.memory)
        SUPPORT_SKIP("memory cannot be limited by control group here");
    pid_t maker = fork();
    assert_true(maker >= 0);
    if (maker == 0) {
        struct td_cgroup *cgroup; /* left behind on purpose, as by kill -9 */
        _exit(td_cgroup_new(support, "left", 50 * MIB, 0, &cgroup, NULL) == 0 ? 0 : 1);
    }
    assert_int_equal(support_reap(maker), 0);
    struct td_cgroup *ours;
    assert_int_equal(td_cgroup_new(support, "ours", 50 * MIB, 0, &ours, NULL), 0);
    assert_true(group_exists("left", maker));
    td_cgroup_sweep();
    assert_false(group_exists("left", maker));
    assert_true(group_exists("ours", getpid()));
    td_cgroup_free(ours);
}

static void test_cgroup_left_over(void **state)
{
    (void)state;
    if (!support.memory)
        SUPPORT_SKIP("memory cannot be limited by control group here");
    struct td_cgroup *first, *second;
    assert_int_equal(td_cgroup_new(support, "again", 50 * MIB, 0, &first, NULL), 0);
    assert_int_equal(td_cgroup_new(support, "again", 60 * MIB, 0, &second, NULL), 0);
    struct child child = child_start(do_nothing);
    assert_int_equal(td_cgroup_enter(second, child.pid, NULL), 0);
    struct td_error err = {0};
    struct td_cgroup *third = NULL;
    assert_int_equal(td_cgroup_new(support, "again", 60 * MIB, 0, &third, &err), TD_ESYS);
    assert_null(third);
    assert_int_equal(child_run(&child), 0);
    td_cgroup_free(second);
    td_cgroup_free(first);
    assert_false(group_exists("again", getpid()));
}

static void test_cgroup_refuses(void **state)
{
    (void)state;
    struct td_cgroup_support nothing = {TD_CGROUP_NONE, TD_CGROUP_NONE};
    struct td_cgroup *cgroup = NULL;
    struct td_error err = {0};
    assert_int_equal(td_cgroup_new(nothing, "x", 1, 0, &cgroup, &err), TD_EINVAL);
    assert_true(err.text[0]);
    assert_int_equal(td_cgroup_new(nothing, "x", 0, 1, &cgroup, &err), TD_EINVAL);
    assert_int_equal(td_cgroup_new(support, "a/b", 0, 0, &cgroup, &err), TD_EINVAL);
    assert_int_equal(td_cgroup_new(support, "", 0, 0, &cgroup, &err), TD_EINVAL);
    td_mem_fail(1, 0);
    assert_int_equal(td_cgroup_new(support, "x", 0, 0, &cgroup, &err), TD_ENOMEM);
    td_mem_fail(0, 0);
    assert_null(cgroup);
    assert_null(td_cgroup_free(NULL));
    assert_int_equal(td_cgroup_new(nothing, "none", 0, 0, &cgroup, &err), 0); /* limits nothing */
    assert_int_equal(td_cgroup_enter(cgroup, getpid(), &err), 0);
    td_cgroup_free(cgroup);
}

static void test_cgroup_no_memory(void **state)
{
    (void)state;
    if (!support.memory)
        SUPPORT_SKIP("memory cannot be limited by control group here");
    for (int64_t nth = 1;; nth++) {
        struct td_cgroup *cgroup = NULL;
        td_mem_fail(nth, 0);
        int r = td_cgroup_new(support, "scarce", 50 * MIB, 0, &cgroup, NULL);
        td_mem_fail(0, 0);
        assert_true(r == 0 || !cgroup);
        td_cgroup_free(cgroup);
        assert_false(group_exists("scarce", getpid()));
        if (r == 0)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cgroup_memory_kills), cmocka_unit_test(test_cgroup_own_kills),
        cmocka_unit_test(test_cgroup_remove),       cmocka_unit_test(test_cgroup_memory_suffices),
        cmocka_unit_test(test_cgroup_cpu),          cmocka_unit_test(test_cgroup_cpu_tiny),
        cmocka_unit_test(test_cgroup_enter_ended),  cmocka_unit_test(test_cgroup_sweep),
        cmocka_unit_test(test_cgroup_left_over),    cmocka_unit_test(test_cgroup_refuses),
        cmocka_unit_test(test_cgroup_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
