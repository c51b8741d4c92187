#include "support.h"

#include "base/err.h"
#include "base/heap.h"
#include "base/mem.h"

static void check(const struct td_heap *heap)
{
    for (size_t at = 1; at <= heap->len; at++) {
        assert_int_equal(heap->entries[at - 1]->at, at);
        if (at > 1)
            assert_true(heap->entries[at / 2 - 1]->when_ns <= heap->entries[at - 1]->when_ns);
    }
}

static int64_t least(const struct td_heap_entry *entries, size_t n)
{
    int64_t when = INT64_MAX;
    for (size_t i = 0; i < n; i++)
        if (entries[i].at && entries[i].when_ns < when)
            when = entries[i].when_ns;
    return when;
}

static void test_heap_empty(void **state)
{
    (void)state;
    struct td_heap heap = {0};
    struct td_heap_entry entry = {0};
    assert_null(td_heap_top(&heap));
    td_heap_remove(&heap, &entry);
    td_heap_done(&heap);
}

/* Random puts, moves and removals against a plain search. */
static void test_heap_random(void **state)
{
    (void)state;
    enum { N = 200, STEPS = 20000 };
    static struct td_heap_entry entries[N];
    struct td_heap heap = {0};
    uint64_t seed = 42;
    for (int step = 0; step < STEPS; step++) {
        struct td_heap_entry *entry = &entries[support_random(&seed) % N];
        if (support_random(&seed) % 3 == 0)
            td_heap_remove(&heap, entry);
        else
            assert_int_equal(td_heap_set(&heap, entry, (int64_t)(support_random(&seed) % 1000)), 0);
        if (step % 50 == 0)
            check(&heap);
        const struct td_heap_entry *top = td_heap_top(&heap);
        assert_int_equal(top ? top->when_ns : INT64_MAX, least(entries, N));
    }
    td_heap_done(&heap);
}

static void test_heap_no_memory(void **state)
{
    (void)state;
    struct td_heap heap = {0};
    struct td_heap_entry entry = {0};
    td_mem_fail(1, 0);
    assert_int_equal(td_heap_set(&heap, &entry, 1), TD_ENOMEM);
    assert_int_equal(entry.at, 0);
    assert_null(td_heap_top(&heap));
    assert_int_equal(td_heap_set(&heap, &entry, 1), 0);
    td_mem_fail(1, 1);
    assert_int_equal(td_heap_set(&heap, &entry, 2), 0); /* a move needs no memory */
    td_mem_fail(0, 0);
    assert_ptr_equal(td_heap_top(&heap), &entry);
    td_heap_done(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heap_empty),
        cmocka_unit_test(test_heap_random),
        cmocka_unit_test(test_heap_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
