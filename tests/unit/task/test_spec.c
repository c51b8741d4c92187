#include "task/spec.h"

#include "support.h"

#include <string.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"

static struct td_spec example(struct td_blob *body)
{
    return (struct td_spec){.function = {.bytes = {1, 2, 3}},
                            .body = body,
                            .retries = 2,
                            .timeout_ns = 5,
                            .runner = {.argv = {"python\0-c\0x", 12},
                                       .env = {"A=1", 4},
                                       .cwd = {"/tmp", 4},
                                       .memory_bytes = 7,
                                       .cpu_milli = 1500}};
}

static void test_spec_survives_the_wire(void **state)
{
    (void)state;
    struct td_blob *body = td_blob_new("body", 4);
    struct td_spec from = example(body);
    struct td_spec *spec, *back;
    struct td_message message, decoded;
    struct td_buf frame;
    struct td_bytes tail;
    assert_int_equal(td_spec_new(&from, &spec, NULL), 0);
    td_spec_message(spec, 9, &message);
    td_buf_init(&frame, 1 << 16);
    assert_int_equal(td_message_encode(&message, &frame, &tail, NULL), 0);
    assert_int_equal(td_buf_add(&frame, tail.data, tail.len), 0);
    struct td_bytes bytes = {frame.data, frame.len};
    assert_int_equal(td_message_decode(bytes, &decoded, NULL), 0);
    assert_int_equal(decoded.map_open.map, 9);
    assert_int_equal(td_spec_from(&decoded.map_open, &back, NULL), 0);
    td_buf_done(&frame);
    assert_memory_equal(&back->function, &spec->function, sizeof back->function);
    assert_memory_equal(td_blob_bytes(back->body).data, "body", 4);
    assert_memory_equal(back->runner.argv.data, "python\0-c\0x", 12);
    assert_int_equal(back->runner.cpu_milli, 1500);
    assert_int_equal(back->timeout_ns, 5);
    td_spec_unref(back);
    td_spec_unref(spec);
    td_blob_unref(body);
}

static void test_spec_refuses_what_makes_no_sense(void **state)
{
    (void)state;
    struct td_error err = {0};
    struct td_spec *spec = NULL;
    struct td_spec from = example(NULL);
    from.runner.argv = (struct td_bytes){"no end", 6};
    assert_int_equal(td_spec_new(&from, &spec, &err), TD_EINVAL);
    assert_string_equal(err.text, "argv: the last string does not end");
    from.runner.argv = (struct td_bytes){NULL, 0};
    assert_int_equal(td_spec_new(&from, &spec, &err), TD_EINVAL);
    from = example(NULL);
    from.timeout_ns = -1;
    assert_int_equal(td_spec_new(&from, &spec, &err), TD_EINVAL);
    assert_null(spec);
}

static void test_spec_cost_is_the_larger_share(void **state)
{
    (void)state;
    struct td_spec spec = {0};
    assert_int_equal(td_spec_cost(&spec, 4, 100), 1);
    spec.runner.cpu_milli = 1500;
    assert_int_equal(td_spec_cost(&spec, 4, 100), 2);
    spec.runner.memory_bytes = 70;
    assert_int_equal(td_spec_cost(&spec, 4, 100), 3);
    spec.runner.memory_bytes = 1000;
    assert_int_equal(td_spec_cost(&spec, 4, 100), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec_survives_the_wire),
        cmocka_unit_test(test_spec_refuses_what_makes_no_sense),
        cmocka_unit_test(test_spec_cost_is_the_larger_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
