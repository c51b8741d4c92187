#include "client/log.h"

#include "support.h"

#include <string.h>

#include "base/blob.h"

static void assert_read(const struct td_log *log, uint64_t index, int stream, const char *text)
{
    struct td_blob *blob = NULL;
    assert_int_equal(td_log_read(log, index, stream, &blob), 0);
    assert_int_equal(td_blob_bytes(blob).len, strlen(text));
    assert_memory_equal(td_blob_bytes(blob).data, text, strlen(text));
    td_blob_unref(blob);
}

static void test_log_keeps_calls_and_streams_apart(void **state)
{
    (void)state;
    struct td_log log;
    td_log_init(&log, 1 << 16);
    td_log_add(&log, 0, 1, 1, (struct td_bytes){"a\n", 2});
    td_log_add(&log, 1, 1, 1, (struct td_bytes){"b\n", 2});
    td_log_add(&log, 0, 1, 2, (struct td_bytes){"c\n", 2});
    assert_read(&log, 0, 0, "a\nc\n");
    assert_read(&log, 0, 1, "a\n");
    assert_read(&log, 0, 2, "c\n");
    assert_read(&log, 1, 0, "b\n");
    assert_read(&log, 7, 0, "");
    td_log_done(&log);
}

static void test_log_drops_the_oldest_and_counts_it(void **state)
{
    (void)state;
    struct td_log log;
    td_log_init(&log, 4096);
    for (uint64_t i = 0; i < 1000; i++)
        td_log_add(&log, i, 1, 1, (struct td_bytes){"0123456789", 10});
    assert_true(log.bytes <= 4096);
    assert_read(&log, 0, 0, "");
    assert_read(&log, 999, 0, "0123456789");
    uint64_t kept = 0;
    TD_LIST_EACH(node, &log.entries)
        kept += 10;
    assert_int_equal(log.lost + kept, 10000);
    td_log_done(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_keeps_calls_and_streams_apart),
        cmocka_unit_test(test_log_drops_the_oldest_and_counts_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
