#include "support.h"

#include "base/list.h"

struct item {
    int number;
    struct td_list link;
};

static void test_list_order(void **state)
{
    (void)state;
    struct td_list list;
    struct item items[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    td_list_init(&list);
    assert_true(td_list_empty(&list));
    assert_null(td_list_pop(&list));
    for (int i = 0; i < 3; i++)
        td_list_append(&list, &items[i].link);
    int expected = 0;
    TD_LIST_EACH(node, &list)
        assert_int_equal(TD_CONTAINER(node, struct item, link)->number, expected++);
    assert_int_equal(expected, 3);
    assert_ptr_equal(td_list_pop(&list), &items[0].link);
    td_list_remove(&items[1].link);
    td_list_remove(&items[1].link); /* twice is once */
    assert_ptr_equal(td_list_pop(&list), &items[2].link);
    assert_true(td_list_empty(&list));
}

static void test_list_remove_while_walking(void **state)
{
    (void)state;
    struct td_list list;
    struct item items[10];
    td_list_init(&list);
    for (int i = 0; i < 10; i++) {
        items[i].number = i;
        td_list_append(&list, &items[i].link);
    }
    TD_LIST_EACH_SAFE(node, &list)
        if (TD_CONTAINER(node, struct item, link)->number % 2)
            td_list_remove(node);
    int n = 0;
    TD_LIST_EACH(node, &list)
        assert_int_equal(TD_CONTAINER(node, struct item, link)->number, 2 * n++);
    assert_int_equal(n, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_order),
        cmocka_unit_test(test_list_remove_while_walking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
