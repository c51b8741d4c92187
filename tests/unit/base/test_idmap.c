#include "support.h"

#include "base/err.h"
#include "base/idmap.h"
#include "base/mem.h"

static void test_idmap_empty(void **state)
{
    (void)state;
    struct td_idmap map = {0};
    size_t cursor = 0;
    assert_null(td_idmap_get(&map, 1));
    assert_null(td_idmap_remove(&map, 1));
    assert_null(td_idmap_next(&map, &cursor));
    td_idmap_done(&map);
}

static void test_idmap_exists(void **state)
{
    (void)state;
    struct td_idmap map = {0};
    int one, other;
    assert_int_equal(td_idmap_put(&map, 0, &one), 0);
    assert_int_equal(td_idmap_put(&map, UINT64_MAX, &other), 0);
    assert_int_equal(td_idmap_put(&map, 0, &other), TD_EEXISTS);
    assert_ptr_equal(td_idmap_get(&map, 0), &one);
    assert_ptr_equal(td_idmap_get(&map, UINT64_MAX), &other);
    td_idmap_done(&map);
}

/* Random puts and removals against a plain array; a walk finds each value once. */
static void test_idmap_random(void **state)
{
    (void)state;
    enum { N = 500, STEPS = 50000 };
    static char here[N];
    struct td_idmap map = {0};
    uint64_t seed = 7;
    size_t len = 0;
    for (int step = 0; step < STEPS; step++) {
        uint64_t id = support_random(&seed) % N;
        if (support_random(&seed) % 2) {
            assert_int_equal(td_idmap_put(&map, id, &here[id]), here[id] ? TD_EEXISTS : 0);
            len += !here[id];
            here[id] = 1;
        } else {
            assert_ptr_equal(td_idmap_remove(&map, id), here[id] ? &here[id] : NULL);
            len -= here[id];
            here[id] = 0;
        }
        uint64_t other = support_random(&seed) % N;
        assert_ptr_equal(td_idmap_get(&map, other), here[other] ? &here[other] : NULL);
        assert_int_equal(map.len, len);
    }
    size_t walked = 0;
    size_t cursor = 0;
    for (char *value = td_idmap_next(&map, &cursor); value; value = td_idmap_next(&map, &cursor)) {
        assert_int_equal(*value, 1);
        *value = 2;
        walked++;
    }
    assert_int_equal(walked, len);
    td_idmap_done(&map);
}

static void test_idmap_no_memory(void **state)
{
    (void)state;
    struct td_idmap map = {0};
    int value;
    td_mem_fail(1, 0);
    assert_int_equal(td_idmap_put(&map, 1, &value), TD_ENOMEM);
    uint64_t id = 1;
    for (; map.len < 12; id++)
        assert_int_equal(td_idmap_put(&map, id, &value), 0);
    td_mem_fail(1, 0);
    assert_int_equal(td_idmap_put(&map, id, &value), TD_ENOMEM); /* it would have to grow */
    assert_int_equal(map.len, 12);
    assert_ptr_equal(td_idmap_get(&map, 12), &value);
    assert_null(td_idmap_get(&map, id));
    td_idmap_done(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idmap_empty),
        cmocka_unit_test(test_idmap_exists),
        cmocka_unit_test(test_idmap_random),
        cmocka_unit_test(test_idmap_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
