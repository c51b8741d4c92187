#include "support.h"

#include <string.h>

#include "base/err.h"
#include "base/text.h"

static void test_text_u64_good(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t number;
    } rows[] = {
        {"0", 0},
        {"007", 7},
        {"1234567890", 1234567890},
        {"18446744073709551615", UINT64_MAX},
        {"0000000000000000000000000000000000001", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t number = 99;
        assert_int_equal(td_text_u64(rows[i].text, strlen(rows[i].text), &number), 0);
        assert_int_equal(number, rows[i].number);
    }
}

static void test_text_u64_bad(void **state)
{
    (void)state;
    static const char *const rows[] = {"",   " 1",  "1 ",   "-1", "+1",
                                       "0x", "1.0", "1\n2", "x",  "99999999999999999999x"};
    uint64_t number = 99;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(td_text_u64(rows[i], strlen(rows[i]), &number), TD_EINVAL);
    assert_int_equal(td_text_u64("1\0", 2, &number), TD_EINVAL);
    assert_int_equal(td_text_u64("18446744073709551616", 20, &number), TD_ELIMIT);
    assert_int_equal(td_text_u64("99999999999999999999", 20, &number), TD_ELIMIT);
    assert_int_equal(td_text_u64("184467440737095516160", 21, &number), TD_ELIMIT);
    assert_int_equal(number, 99); /* set only on success */
}

/* It reads len characters and not one more. */
static void test_text_u64_len(void **state)
{
    (void)state;
    uint64_t number;
    assert_int_equal(td_text_u64("12345", 3, &number), 0);
    assert_int_equal(number, 123);
}

static void test_text_digits(void **state)
{
    (void)state;
    assert_int_equal(td_text_digits(""), 0);
    assert_int_equal(td_text_digits("-1"), 0);
    assert_int_equal(td_text_digits("42 0"), 2);
    assert_int_equal(td_text_digits("0123456789"), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_u64_good),
        cmocka_unit_test(test_text_u64_bad),
        cmocka_unit_test(test_text_u64_len),
        cmocka_unit_test(test_text_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
