#include "support.h"

#include <string.h>

#include "base/mem.h"

static void test_mem_fail_nth(void **state)
{
    (void)state;
    td_mem_fail(3, 0);
    void *first = td_alloc(1);
    void *second = td_alloc_zero(1);
    assert_non_null(first);
    assert_non_null(second);
    assert_null(td_alloc(1));
    void *fourth = td_alloc(1);
    assert_non_null(fourth);
    td_mem_fail(0, 0);
    td_free(first);
    td_free(second);
    td_free(fourth);
}

static void test_mem_fail_onwards(void **state)
{
    (void)state;
    char *p = td_alloc(4);
    memcpy(p, "abc", 4);
    td_mem_fail(1, 1);
    assert_null(td_alloc(1));
    assert_null(td_alloc_zero(1));
    assert_null(td_memdup("x", 1));
    assert_null(td_realloc(p, 100));
    td_mem_fail(0, 0);
    assert_string_equal(p, "abc"); /* a refused realloc leaves the old run as it was */
    td_free(p);
    td_free(NULL);
}

static void test_mem_count(void **state)
{
    (void)state;
    uint64_t before = td_mem_count();
    void *p = td_alloc(0);
    assert_non_null(p); /* also nothing is something to free */
    p = td_realloc(p, 0);
    assert_non_null(p);
    assert_int_equal(td_mem_count(), before + 2);
    td_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mem_fail_nth),
        cmocka_unit_test(test_mem_fail_onwards),
        cmocka_unit_test(test_mem_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
