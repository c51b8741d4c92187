#include "support.h"

#include <pthread.h>
#include <string.h>

#include "base/blob.h"
#include "base/mem.h"

static void test_blob_copies(void **state)
{
    (void)state;
    char text[] = "immutable";
    struct td_blob *blob = td_blob_new(text, sizeof text);
    assert_non_null(blob);
    memset(text, 'x', sizeof text);
    assert_int_equal(td_blob_bytes(blob).len, sizeof text);
    assert_string_equal(td_blob_bytes(blob).data, "immutable");
    assert_null(td_blob_unref(blob));
}

static void test_blob_null(void **state)
{
    (void)state;
    assert_null(td_blob_ref(NULL));
    assert_null(td_blob_unref(NULL));
    assert_int_equal(td_blob_bytes(NULL).len, 0);
    struct td_blob *none = NULL;
    td_blob_unrefp(&none);
}

static void test_blob_empty(void **state)
{
    (void)state;
    struct td_blob *blob = td_blob_new(NULL, 0);
    assert_non_null(blob);
    assert_int_equal(td_blob_bytes(blob).len, 0);
    td_blob_unrefp(&blob);
    assert_null(blob);
}

static void test_blob_no_memory(void **state)
{
    (void)state;
    assert_null(td_blob_new("x", SIZE_MAX)); /* its header would overflow the size */
    td_mem_fail(1, 0);
    assert_null(td_blob_new("x", 1));
}

enum { ROUNDS = 20000 };

static void *share(void *blob)
{
    for (int i = 0; i < ROUNDS; i++)
        (void)td_blob_unref(td_blob_ref(blob));
    (void)td_blob_unref(blob);
    return NULL;
}

/* The last of several threads frees it; the sanitizers watch. */
static void test_blob_threads(void **state)
{
    (void)state;
    struct td_blob *blob = td_blob_new("shared", 6);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, share, td_blob_ref(blob)), 0);
    td_blob_unrefp(&blob);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blob_copies),  cmocka_unit_test(test_blob_null),
        cmocka_unit_test(test_blob_empty),   cmocka_unit_test(test_blob_no_memory),
        cmocka_unit_test(test_blob_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
