#include "support.h"

#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/err.h"

static void test_base64_both_ways(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } rows[] = {
        {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},       {"foo", "Zm9v"},
        {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"\xff\xef", "_-8"}, {"foobar", "Zm9vYmFy"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct td_buf buf;
        td_buf_init(&buf, 64);
        size_t len = strlen(rows[i].bytes);
        assert_int_equal(td_base64_write((struct td_bytes){rows[i].bytes, len}, &buf), 0);
        assert_int_equal(buf.len, strlen(rows[i].text));
        assert_memory_equal(buf.data, rows[i].text, buf.len);
        td_buf_clear(&buf);
        assert_int_equal(td_base64_read(rows[i].text, strlen(rows[i].text), &buf), 0);
        assert_int_equal(buf.len, len);
        assert_memory_equal(buf.data, rows[i].bytes, len);
        td_buf_done(&buf);
    }
}

static void test_base64_refuses(void **state)
{
    (void)state;
    static const char *const rows[] = {"Z", "Zh", "Zm9", "Zm9v=", "Zg==", "Zm 9", "Zm+v", "Zm9vZ"};
    struct td_buf buf;
    td_buf_init(&buf, 64);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(td_base64_read(rows[i], strlen(rows[i]), &buf), TD_EPROTO);
    assert_int_equal(td_base64_read("Zg\0v", 4, &buf), TD_EPROTO);
    assert_int_equal(buf.len, 0);
    td_buf_init(&buf, 4);
    assert_int_equal(td_base64_read("Zm9vZm9v", 8, &buf), TD_ELIMIT);
    assert_int_equal(td_base64_write((struct td_bytes){"foobar", 6}, &buf), TD_ELIMIT);
    td_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64_both_ways),
        cmocka_unit_test(test_base64_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
