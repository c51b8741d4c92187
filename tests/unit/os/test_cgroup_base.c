#include "support.h"

#include <string.h>

#include "base/mem.h"
#include "os/cgroup_base.h"

static struct td_cgroup_base bases[TD_CGROUP_BASES_MAX];

#define V1_MOUNT(root)                                                                         \
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"                      \
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n"     \
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"               \
    "35 31 0:32 " root " /sys/fs/cgroup/memory rw,relatime shared:1 master:2 - cgroup cgroup " \
    "rw,memory\n"

#define V2_MOUNT "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

static void test_base_v1_own(void **state)
{
    (void)state;
    const char *own = "5:cpuset:/wrong\n4:memory:/api/abc\n3:cpu,cpuacct:/\n0::/\n";
    assert_int_equal(td_cgroup_base_parse(V1_MOUNT("/"), own, "memory", bases), 2);
    assert_string_equal(bases[0].path, "/sys/fs/cgroup/memory/api/abc");
    assert_string_equal(bases[1].path, "/sys/fs/cgroup/memory");
    assert_int_equal(td_cgroup_base_parse(V1_MOUNT("/"), own, "cpu", bases), 1);
    assert_string_equal(bases[0].path, "/sys/fs/cgroup/cpu,cpuacct");
}

/* A container that sees only its own part of the hierarchy. */
static void test_base_v1_container(void **state)
{
    (void)state;
    const char *own = "4:memory:/docker/0123/sub\n";
    assert_int_equal(td_cgroup_base_parse(V1_MOUNT("/docker/0123"), own, "memory", bases), 2);
    assert_string_equal(bases[0].path, "/sys/fs/cgroup/memory/sub");
    assert_string_equal(bases[1].path, "/sys/fs/cgroup/memory");
    own = "4:memory:/docker/0123\n";
    assert_int_equal(td_cgroup_base_parse(V1_MOUNT("/docker/0123"), own, "memory", bases), 1);
    assert_string_equal(bases[0].path, "/sys/fs/cgroup/memory");
    own = "4:memory:/docker/01234\n"; /* another one whose name begins alike */
    assert_int_equal(td_cgroup_base_parse(V1_MOUNT("/docker/0123"), own, "memory", bases), 1);
    assert_string_equal(bases[0].path, "/sys/fs/cgroup/memory");
}

static void test_base_v2(void **state)
{
    (void)state;
    const char *own = "0::/user.slice/user-1000.slice/app.slice/a\\x2db.scope\n";
    assert_int_equal(td_cgroup_base_parse(V2_MOUNT, own, NULL, bases), 2);
    assert_string_equal(bases[0].path,
                        "/sys/fs/cgroup/user.slice/user-1000.slice/app.slice/a\\x2db.scope");
    assert_string_equal(bases[1].path, "/sys/fs/cgroup/user.slice/user-1000.slice/app.slice");
    assert_int_equal(td_cgroup_base_parse(V2_MOUNT, "0::/\n", NULL, bases), 1);
    assert_string_equal(bases[0].path, "/sys/fs/cgroup");
    assert_int_equal(td_cgroup_base_parse(V2_MOUNT, "0::/one", NULL, bases), 2);
    assert_string_equal(bases[1].path, "/sys/fs/cgroup");
    assert_int_equal(td_cgroup_base_parse(V2_MOUNT, "0::/../outside\n", NULL, bases), 0);
    assert_int_equal(td_cgroup_base_parse(V2_MOUNT, "0::/\n", "memory", bases), 0);
    assert_int_equal(td_cgroup_base_parse(V1_MOUNT("/"), "0::/\n", NULL, bases), 0);
}

static void test_base_escaped_mount(void **state)
{
    (void)state;
    const char *mount = "35 31 0:32 / /mnt/with\\040blank rw - cgroup cgroup rw,memory\n";
    assert_int_equal(td_cgroup_base_parse(mount, "4:memory:/x y\n", "memory", bases), 2);
    assert_string_equal(bases[0].path, "/mnt/with blank/x y");
}

static void test_base_nonsense(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "\n\n",
        "-",
        " - cgroup2",
        "a b c d e - cgroup2 x y",
        "0::",
        "::::",
        "\\\\0\\",
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime cgroup cgroup rw,memory",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (size_t j = 0; j < sizeof texts / sizeof texts[0]; j++) {
            (void)td_cgroup_base_parse(texts[i], texts[j], NULL, bases);
            assert_int_equal(td_cgroup_base_parse(texts[i], texts[j], "memory", bases), 0);
        }
    }
}

static void test_base_too_long(void **state)
{
    (void)state;
    char own[2000] = "4:memory:/";
    memset(own + strlen(own), 'x', 1500);
    assert_int_equal(td_cgroup_base_parse(V1_MOUNT("/"), own, "memory", bases), 0);
    own[strlen("4:memory:/") + 495] = '\0'; /* fits alone, and not behind its mount point */
    assert_int_equal(td_cgroup_base_parse(V1_MOUNT("/"), own, "memory", bases), 1);
    assert_string_equal(bases[0].path, "/sys/fs/cgroup/memory");
}

static void test_base_find(void **state)
{
    (void)state;
    size_t n = td_cgroup_base_find("memory", bases);
    assert_true(n <= TD_CGROUP_BASES_MAX);
    td_mem_fail(1, 1);
    assert_int_equal(td_cgroup_base_find("memory", bases), 0);
    td_mem_fail(0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base_v1_own),   cmocka_unit_test(test_base_v1_container),
        cmocka_unit_test(test_base_v2),       cmocka_unit_test(test_base_escaped_mount),
        cmocka_unit_test(test_base_nonsense), cmocka_unit_test(test_base_too_long),
        cmocka_unit_test(test_base_find),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
