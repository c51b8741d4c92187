#include "support.h"

#include <stdlib.h>
#include <string.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "wire/message.h"

/* Fillers and comparers by kind, so that the table of messages drives these tests. */
static char noise[4096];

static void fill_number(void *value, size_t size, uint64_t *seed)
{
    uint64_t number = support_random(seed);
    memcpy(value, &number, size);
}

static void fill_bytes(struct td_bytes *bytes, uint64_t *seed)
{
    *bytes = (struct td_bytes){noise + support_random(seed) % 1000, support_random(seed) % 100};
}

static bool same_bytes(struct td_bytes a, struct td_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

#define FILL_u8(at)    fill_number(at, 1, seed)
#define FILL_u32(at)   fill_number(at, 4, seed)
#define FILL_u64(at)   fill_number(at, 8, seed)
#define FILL_i32(at)   fill_number(at, 4, seed)
#define FILL_i64(at)   fill_number(at, 8, seed)
#define FILL_key(at)   memcpy(at, noise + support_random(seed) % 1000, TD_KEY_SIZE)
#define FILL_bytes(at) fill_bytes(at, seed)
#define FILL_tail(at)  (fill_bytes(at, seed), has_tail = true)

#define SAME_u8(a, b)    ((a) == (b))
#define SAME_u32(a, b)   ((a) == (b))
#define SAME_u64(a, b)   ((a) == (b))
#define SAME_i32(a, b)   ((a) == (b))
#define SAME_i64(a, b)   ((a) == (b))
#define SAME_key(a, b)   (memcmp((a).bytes, (b).bytes, TD_KEY_SIZE) == 0)
#define SAME_bytes(a, b) same_bytes(a, b)
#define SAME_tail(a, b)  same_bytes(a, b)

#define FILL_FIELD(m, kind, field) FILL_##kind(&message->m.field);
#define FILL_CASE(number, NAME, name) \
    case TD_MSG_##NAME: TD_FIELDS_##name(FILL_FIELD, name) break;

/* Fills a message of the type; returns whether it ends in a tail. */
static bool fill(enum td_message_type type, struct td_message *message, uint64_t *seed)
{
    bool has_tail = false;
    memset(message, 0, sizeof *message);
    message->type = type;
    switch (type) {
        TD_MESSAGES(FILL_CASE)
    }
    return has_tail;
}

#define SAME_FIELD(m, kind, field) &&SAME_##kind(a->m.field, b->m.field)
#define SAME_CASE(number, NAME, name) \
    case TD_MSG_##NAME: return true TD_FIELDS_##name(SAME_FIELD, name);

static bool same(const struct td_message *a, const struct td_message *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
        TD_MESSAGES(SAME_CASE)
    }
    return false;
}

static const enum td_message_type types[] = {
#define TYPE(number, NAME, name) TD_MSG_##NAME,
    TD_MESSAGES(TYPE)
#undef TYPE
};

enum { TYPES = sizeof types / sizeof types[0] };

/* The frame of a message as one run of bytes; *ret_head_len says where its tail begins. */
static void frame_of(const struct td_message *message, struct td_buf *frame, size_t *ret_head_len)
{
    struct td_bytes tail;
    td_buf_clear(frame);
    assert_int_equal(td_message_encode(message, frame, &tail, NULL), 0);
    *ret_head_len = frame->len;
    assert_int_equal(td_buf_add(frame, tail.data, tail.len), 0);
}

/* Decodes a copy that is not a byte longer than it says, so that a sanitizer sees each overrun. */
static int decode_exactly(const char *data, size_t len, struct td_message *ret_message,
                          struct td_error *err, char **ret_copy)
{
    *ret_copy = malloc(len ? len : 1);
    assert_non_null(*ret_copy);
    if (len)
        memcpy(*ret_copy, data, len);
    return td_message_decode((struct td_bytes){*ret_copy, len}, ret_message, err);
}

static int setup(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)support_random(&seed);
    return 0;
}

static void test_message_round_trip(void **state)
{
    (void)state;
    struct td_buf frame;
    uint64_t seed = 2;
    td_buf_init(&frame, 1 << 20);
    for (size_t i = 0; i < TYPES * 100; i++) {
        struct td_message message, back;
        size_t head_len;
        char *copy;
        bool has_tail = fill(types[i % TYPES], &message, &seed);
        frame_of(&message, &frame, &head_len);
        assert_true(has_tail || head_len == frame.len);
        assert_int_equal(decode_exactly(frame.data, frame.len, &back, NULL, &copy), 0);
        assert_true(same(&message, &back));
        free(copy);
    }
    td_buf_done(&frame);
}

static void test_message_truncated(void **state)
{
    (void)state;
    struct td_buf frame;
    uint64_t seed = 3;
    td_buf_init(&frame, 1 << 20);
    for (size_t i = 0; i < TYPES * 3; i++) {
        struct td_message message, back;
        size_t head_len;
        bool has_tail = fill(types[i % TYPES], &message, &seed);
        frame_of(&message, &frame, &head_len);
        for (size_t len = 0; len < frame.len; len++) {
            struct td_error err = {0};
            char *copy;
            int expected = has_tail && len >= head_len ? 0 : TD_EPROTO;
            assert_int_equal(decode_exactly(frame.data, len, &back, &err, &copy), expected);
            assert_int_equal(err.status, expected);
            assert_true(expected == 0 || err.text[0]);
            free(copy);
        }
    }
    td_buf_done(&frame);
}

static void test_message_too_long(void **state)
{
    (void)state;
    struct td_buf frame;
    uint64_t seed = 4;
    td_buf_init(&frame, 1 << 20);
    for (size_t i = 0; i < TYPES; i++) {
        struct td_message message, back;
        size_t head_len;
        bool has_tail = fill(types[i], &message, &seed);
        frame_of(&message, &frame, &head_len);
        assert_int_equal(td_buf_add(&frame, "x", 1), 0);
        int expected = has_tail ? 0 : TD_EPROTO;
        assert_int_equal(td_message_decode((struct td_bytes){frame.data, frame.len}, &back, NULL),
                         expected);
    }
    td_buf_done(&frame);
}

/* Any bytes give a message that encodes to the same bytes, or a clear error. */
static void test_message_random_bytes(void **state)
{
    (void)state;
    struct td_buf again;
    uint64_t seed = 5;
    size_t accepted = 0;
    td_buf_init(&again, 1 << 20);
    for (int round = 0; round < 100000; round++) {
        char bytes[200];
        size_t len = support_random(&seed) % sizeof bytes;
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)(support_random(&seed) % 4 ? 0 : support_random(&seed));
        if (len && round % 2)
            bytes[0] = (char)types[support_random(&seed) % TYPES];
        struct td_message message;
        struct td_error err = {0};
        char *copy;
        int r = decode_exactly(bytes, len, &message, &err, &copy);
        if (r == 0) {
            size_t ignored;
            accepted++;
            frame_of(&message, &again, &ignored);
            assert_int_equal(again.len, len);
            assert_memory_equal(again.data, bytes, len);
        } else {
            assert_int_equal(r, TD_EPROTO);
            assert_true(err.text[0]);
        }
        free(copy);
    }
    assert_true(accepted > 1000); /* else this test looks at nothing */
    td_buf_done(&again);
}

/* The bytes on the wire are a promise: this one must never change. */
static void test_message_golden(void **state)
{
    (void)state;
    static const unsigned char golden[] = {21, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,   0,
                                           0,  0, 0, 0, 0, 1, 0, 0, 0, 2, 'h', 'i'};
    struct td_message message = {
        .type = TD_MSG_OUTPUT,
        .output = {
            .map = 0x0807060504030201, .index = 9, .count = 1, .stream = 2, .text = {"hi", 2}}};
    struct td_buf frame;
    size_t head_len;
    td_buf_init(&frame, 100);
    frame_of(&message, &frame, &head_len);
    assert_int_equal(frame.len, sizeof golden);
    assert_memory_equal(frame.data, golden, sizeof golden);
    td_buf_done(&frame);
}

static void test_message_names(void **state)
{
    (void)state;
#define NAME_CHECK(number, NAME, name) assert_string_equal(td_message_name(number), #NAME);
    TD_MESSAGES(NAME_CHECK)
#undef NAME_CHECK
    assert_string_equal(td_message_name(0), "?");
    assert_string_equal(td_message_name(-1), "?");
    assert_string_equal(td_message_name(255), "?");
    assert_string_equal(td_message_name(100000), "?");
}

static void test_message_unknown_type(void **state)
{
    (void)state;
    struct td_message message = {.type = (enum td_message_type)200};
    struct td_bytes tail;
    struct td_buf head;
    td_buf_init(&head, 100);
    assert_int_equal(td_message_encode(&message, &head, &tail, NULL), TD_EINVAL);
    for (int type = 0; type < 256; type++) {
        bool known = td_message_name(type)[0] != '?';
        unsigned char byte = (unsigned char)type;
        int r = td_message_decode((struct td_bytes){&byte, 1}, &message, NULL);
        assert_true(known || r == TD_EPROTO);
    }
    td_buf_done(&head);
}

/* A tail may come beside the frame, where there is none in it. */
static void test_message_attach(void **state)
{
    (void)state;
    struct td_message message = {.type = TD_MSG_FINISH};
    struct td_blob *blob = td_blob_new("value", 5);
    assert_int_equal(td_message_attach(&message, blob, NULL), 0);
    assert_ptr_equal(message.finish.value.data, td_blob_bytes(blob).data);
    assert_int_equal(message.finish.value.len, 5);
    struct td_blob *tail = td_message_tail(&message);
    assert_ptr_equal(tail, blob);
    td_blob_unref(tail);
    assert_int_equal(td_message_attach(&message, blob, NULL), TD_EPROTO); /* a second one */
    message = (struct td_message){.type = TD_MSG_HELLO};
    assert_int_equal(td_message_attach(&message, blob, NULL), TD_EPROTO);
    assert_null(td_message_tail(&message));
    message = (struct td_message){.type = TD_MSG_FINISH, .finish.value = td_blob_bytes(blob)};
    tail = td_message_tail(&message);
    assert_ptr_not_equal(tail, blob); /* a copy */
    assert_memory_equal(td_blob_bytes(tail).data, "value", 5);
    td_blob_unref(tail);
    td_blob_unref(blob);
}

/* What does not fit is refused before a byte of it is looked at, and leaves the head as it was. */
static void test_message_limits(void **state)
{
    (void)state;
    struct td_message message = {.type = TD_MSG_PROFILE};
    struct td_error err;
    struct td_bytes tail;
    struct td_buf head;
    td_buf_init(&head, 1000);
    assert_int_equal(td_buf_add(&head, "before", 6), 0);
    message.profile.env = (struct td_bytes){noise, (size_t)TD_WIRE_BYTES_MAX + 1};
    assert_int_equal(td_message_encode(&message, &head, &tail, &err), TD_ELIMIT);
    assert_non_null(strstr(err.text, "env"));
    assert_int_equal(head.len, 6);

    message = (struct td_message){.type = TD_MSG_FUNCTION};
    message.function.body = (struct td_bytes){noise, TD_FRAME_MAX};
    assert_int_equal(td_message_encode(&message, &head, &tail, &err), TD_ELIMIT);
    assert_int_equal(head.len, 6);
    message.function.body.len = TD_FRAME_MAX - 1 - TD_KEY_SIZE;
    assert_int_equal(td_message_encode(&message, &head, &tail, &err), 0);
    assert_int_equal(tail.len, message.function.body.len);

    message = (struct td_message){.type = TD_MSG_PROFILE};
    message.profile.env = (struct td_bytes){noise, 2000};
    head.len = 6;
    assert_int_equal(td_message_encode(&message, &head, &tail, &err), TD_ELIMIT);
    assert_int_equal(head.len, 6);
    td_buf_done(&head);
}

static void test_message_no_memory(void **state)
{
    (void)state;
    struct td_message message;
    uint64_t seed = 6;
    (void)fill(TD_MSG_MAP_OPEN, &message, &seed);
    message.map_open.env = (struct td_bytes){noise, sizeof noise};
    message.map_open.cwd = (struct td_bytes){noise, sizeof noise};
    int failures = 0;
    for (int64_t nth = 1;; nth++) {
        struct td_buf head;
        struct td_bytes tail;
        td_buf_init(&head, 1 << 20);
        td_mem_fail(nth, 0);
        int r = td_message_encode(&message, &head, &tail, NULL);
        td_mem_fail(0, 0);
        assert_true(r == 0 || (r == TD_ENOMEM && head.len == 0));
        td_buf_done(&head);
        if (r == 0)
            break;
        failures++;
    }
    assert_true(failures >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_round_trip),   cmocka_unit_test(test_message_truncated),
        cmocka_unit_test(test_message_too_long),     cmocka_unit_test(test_message_random_bytes),
        cmocka_unit_test(test_message_golden),       cmocka_unit_test(test_message_names),
        cmocka_unit_test(test_message_unknown_type), cmocka_unit_test(test_message_limits),
        cmocka_unit_test(test_message_no_memory),    cmocka_unit_test(test_message_attach),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
