#include "support.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

static void test_buf_add(void **state)
{
    (void)state;
    struct td_buf buf;
    td_buf_init(&buf, 10000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(td_buf_add(&buf, "0123456789", 10), 0);
    assert_int_equal(buf.len, 10000);
    assert_memory_equal(buf.data + 9990, "0123456789", 10);
    assert_true(buf.cap <= buf.max);
    td_buf_done(&buf);
    assert_null(buf.data);
}

static void test_buf_add_nothing(void **state)
{
    (void)state;
    struct td_buf buf;
    td_buf_init(&buf, 0);
    assert_int_equal(td_buf_add(&buf, NULL, 0), 0);
    assert_int_equal(buf.len, 0);
    td_buf_done(&buf);
}

static void test_buf_max(void **state)
{
    (void)state;
    struct td_buf buf;
    for (size_t max = 0; max < 600; max += 7) {
        td_buf_init(&buf, max);
        while (buf.len < max)
            assert_int_equal(td_buf_add(&buf, "x", 1), 0);
        assert_int_equal(td_buf_add(&buf, "y", 1), TD_ELIMIT);
        assert_int_equal(td_buf_reserve(&buf, SIZE_MAX), TD_ELIMIT);
        assert_int_equal(buf.len, max);
        assert_true(buf.cap <= max);
        assert_true(max == 0 || buf.data[max - 1] == 'x');
        td_buf_done(&buf);
    }
}

static void test_buf_no_memory(void **state)
{
    (void)state;
    struct td_buf buf;
    td_buf_init(&buf, 1 << 20);
    assert_int_equal(td_buf_add(&buf, "kept", 4), 0);
    td_mem_fail(1, 0);
    char big[1000] = {0};
    assert_int_equal(td_buf_add(&buf, big, sizeof big), TD_ENOMEM);
    assert_int_equal(buf.len, 4);
    assert_memory_equal(buf.data, "kept", 4);
    assert_int_equal(td_buf_add(&buf, big, sizeof big), 0);
    td_buf_done(&buf);
}

static void test_buf_drop(void **state)
{
    (void)state;
    struct td_buf buf;
    td_buf_init(&buf, 100);
    assert_int_equal(td_buf_add(&buf, "abcdef", 6), 0);
    td_buf_drop(&buf, 0);
    td_buf_drop(&buf, 2);
    assert_int_equal(buf.len, 4);
    assert_memory_equal(buf.data, "cdef", 4);
    td_buf_drop(&buf, 4);
    assert_int_equal(buf.len, 0);
    td_buf_done(&buf);
}

static void test_buf_clear_keeps_memory(void **state)
{
    (void)state;
    struct td_buf buf;
    td_buf_init(&buf, 1000);
    assert_int_equal(td_buf_reserve(&buf, 500), 0);
    td_buf_clear(&buf);
    uint64_t before = td_mem_count();
    assert_int_equal(td_buf_reserve(&buf, 500), 0);
    assert_int_equal(td_mem_count(), before);
    td_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_add),  cmocka_unit_test(test_buf_add_nothing),
        cmocka_unit_test(test_buf_max),  cmocka_unit_test(test_buf_no_memory),
        cmocka_unit_test(test_buf_drop), cmocka_unit_test(test_buf_clear_keeps_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
