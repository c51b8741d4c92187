#include "os/forkmark.h"

#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

static void test_forkmark_tells_parent_from_child(void **state)
{
    (void)state;
    struct td_forkmark *mark;
    assert_int_equal(td_forkmark_new(&mark, NULL), 0);
    assert_false(td_forkmark_is_child(mark));
    pid_t pid = fork();
    if (pid == 0)
        _exit(td_forkmark_is_child(mark) ? 42 : 1);
    assert_int_equal(WEXITSTATUS(support_reap(pid)), 42);
    assert_false(td_forkmark_is_child(mark));
    assert_null(td_forkmark_free(mark));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forkmark_tells_parent_from_child)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
