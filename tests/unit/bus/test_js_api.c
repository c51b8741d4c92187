#include "bus/js_api.h"

#include "support.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"

static struct td_bytes bytes(const char *text)
{
    return (struct td_bytes){text, strlen(text)};
}

static void expect(struct td_buf *buf, const char *text)
{
    assert_int_equal(buf->len, strlen(text));
    assert_memory_equal(buf->data, text, buf->len);
    td_buf_done(buf);
}

static void test_js_api_writes(void **state)
{
    (void)state;
    struct td_buf buf;
    td_buf_init(&buf, 4096);
    assert_int_equal(td_js_write_ask(16, 5000000000, &buf), 0);
    expect(&buf, "{\"batch\":16,\"expires\":5000000000}");
    assert_int_equal(td_js_write_purge("calls.\"p\".1", 0, &buf), 0);
    expect(&buf, "{\"filter\":\"calls.\\\"p\\\".1\"}");
    struct td_js_consumer consumer = {
        .stream = "S", .name = "c", .filter = "a.*", .acks = true, .durable = true};
    assert_int_equal(td_js_write_consumer(&consumer, &buf), 0);
    expect(&buf, "{\"stream_name\":\"S\",\"config\":{\"name\":\"c\",\"deliver_policy\":\"all\","
                 "\"ack_policy\":\"explicit\",\"replay_policy\":\"instant\",\"headers_only\":false,"
                 "\"filter_subject\":\"a.*\",\"durable_name\":\"c\",\"max_ack_pending\":-1}}");
    consumer = (struct td_js_consumer){.stream = "S", .name = "\xff"};
    assert_int_equal(td_js_write_consumer(&consumer, &buf), TD_EINVAL);
    struct td_js_stream stream = {.name = "S", .subjects = {"a.>", "b"}};
    td_buf_init(&buf, 16);
    assert_int_equal(td_js_write_stream(&stream, &buf), TD_ELIMIT);
    td_buf_done(&buf);
}

static void test_js_api_answers(void **state)
{
    (void)state;
    struct td_js_answer answer;
    assert_int_equal(
        td_js_read_answer(bytes("{\"stream\":\"S\",\"seq\":7,\"duplicate\":true}"), &answer), 0);
    assert_int_equal(answer.sequence, 7);
    assert_true(answer.duplicate);
    assert_int_equal(td_js_answer_status(&answer), 0);
    assert_int_equal(td_js_read_answer(bytes("{\"error\":{\"code\":503,\"err_code\":10077,"
                                             "\"description\":\"maximum bytes exceeded\"}}"),
                                       &answer),
                     0);
    assert_int_equal(td_js_answer_status(&answer), TD_ELIMIT);
    assert_string_equal(answer.text, "maximum bytes exceeded");
    assert_int_equal(td_js_read_answer(bytes("{\"state\":{\"messages\":3,\"last_seq\":9},"
                                             "\"num_pending\":-1}"),
                                       &answer),
                     0);
    assert_int_equal(answer.messages, 3);
    assert_int_equal(answer.last, 9);
    assert_int_equal(answer.pending, 0);
    static const char *const wrong[] = {
        "", "[]", "7", "{\"seq\":1", "{\"seq\":1}x", "{\"seq\":99999999999999999999}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(td_js_read_answer(bytes(wrong[i]), &answer), TD_EPROTO);
}

static void count_name(void *context, const char *name)
{
    size_t *length = context;
    *length += strlen(name);
}

static void test_js_api_names(void **state)
{
    (void)state;
    size_t length = 0;
    uint64_t count;
    bool more;
    assert_int_equal(
        td_js_read_names(bytes("{\"total\":3,\"offset\":0,\"consumers\":[\"ab\",\"c\"]}"),
                         count_name, &length, &count, &more),
        0);
    assert_int_equal(length, 3);
    assert_int_equal(count, 2);
    assert_true(more);
    assert_int_equal(td_js_read_names(bytes("{\"total\":0,\"offset\":0,\"consumers\":null}"),
                                      count_name, &length, &count, &more),
                     0);
    assert_false(more);
    assert_int_equal(
        td_js_read_names(bytes("{\"consumers\":[1]}"), count_name, &length, &count, &more),
        TD_EPROTO);
}

static void test_js_api_numbers(void **state)
{
    (void)state;
    struct td_js_numbers numbers;
    assert_int_equal(td_js_read_numbers("$JS.ACK.S.C.2.30.4.1700000000.5", &numbers), 0);
    assert_int_equal(numbers.deliveries, 2);
    assert_int_equal(numbers.sequence, 30);
    assert_int_equal(numbers.consumed, 4);
    assert_int_equal(numbers.pending, 5);
    assert_int_equal(td_js_read_numbers("$JS.ACK.hub.acc.S.C.2.30.4.1700000000.6.x", &numbers), 0);
    assert_int_equal(numbers.pending, 6);
    static const char *const wrong[] = {"",
                                        "$JS.ACK",
                                        "$JS.ACK.S.C.2.30.4.1700000000",
                                        "$JS.ACK.S.C.2.30.4.1700000000.",
                                        "$JS.ACK.S.C.2.x.4.1700000000.5",
                                        "some.one.S.C.2.30.4.1700000000.5"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(td_js_read_numbers(wrong[i], &numbers), TD_EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_js_api_writes),
        cmocka_unit_test(test_js_api_answers),
        cmocka_unit_test(test_js_api_names),
        cmocka_unit_test(test_js_api_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
