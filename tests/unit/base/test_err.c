#include "support.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

static void test_err_table(void **state)
{
    (void)state;
    assert_string_equal(td_status_name(0), "TD_OK");
#define CHECK(code, name, words)                                \
    assert_int_equal(TD_E##name, -(code));                      \
    assert_string_equal(td_status_name(-(code)), "TD_E" #name); \
    assert_string_equal(td_status_text(-(code)), words);
    TD_ERRORS(CHECK)
#undef CHECK
    assert_string_equal(td_status_name(-9999), "TD_E?");
    assert_non_null(td_status_text(-9999));
}

static void test_err_set(void **state)
{
    (void)state;
    struct td_error err = {0};
    assert_int_equal(td_error_set(NULL, TD_EINVAL, "nobody listens"), TD_EINVAL);
    assert_int_equal(td_error_set(&err, TD_EINVAL, "not %d", 7), TD_EINVAL);
    assert_int_equal(err.status, TD_EINVAL);
    assert_string_equal(err.text, "not 7");
}

static void test_err_long_text_is_cut(void **state)
{
    (void)state;
    struct td_error err;
    char text[1000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(td_error_set(&err, TD_ESYS, "%s", text), TD_ESYS);
    assert_int_equal(strlen(err.text), TD_ERROR_TEXT_MAX - 1);
}

static void test_err_sys(void **state)
{
    (void)state;
    struct td_error err;
    assert_int_equal(td_error_sys(&err, EMFILE, "open"), TD_ELIMIT);
    assert_int_equal(td_error_sys(&err, ENFILE, "open"), TD_ELIMIT);
    assert_int_equal(td_error_sys(&err, ENOMEM, "mmap"), TD_ENOMEM);
    assert_int_equal(td_error_sys(&err, EACCES, "open"), TD_ESYS);
    assert_string_equal(err.text, "open: Permission denied");
    assert_int_equal(td_error_sys(&err, 99999, "open"), TD_ESYS);
    assert_string_equal(err.text, "open: unknown error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_table),
        cmocka_unit_test(test_err_set),
        cmocka_unit_test(test_err_long_text_is_cut),
        cmocka_unit_test(test_err_sys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
