#include "node/lines.h"

#include "support.h"

#include <string.h>

#include "base/blob.h"

struct heard {
    char text[1 << 18];
    size_t len;
    unsigned pieces;
    struct td_writer last;
};

static void hear(void *context, struct td_writer writer, int stream, struct td_bytes text)
{
    struct heard *heard = context;
    (void)stream;
    heard->last = writer;
    memcpy(heard->text + heard->len, text.data, text.len);
    heard->len += text.len;
    heard->pieces++;
}

static void add(struct td_lines *lines, int stream, const char *text)
{
    td_lines_add(lines, stream, (struct td_bytes){text, strlen(text)});
}

static void test_lines_are_handed_on_whole(void **state)
{
    (void)state;
    static struct heard heard;
    struct td_lines lines;
    heard = (struct heard){.len = 0};
    td_lines_init(&lines, hear, &heard);
    add(&lines, 1, "ab");
    assert_int_equal(heard.len, 0);
    add(&lines, 2, "error\n"); /* the other stream does not end this one's line */
    add(&lines, 1, "c\nd\nef");
    assert_memory_equal(heard.text, "error\nabc\nd\n", 12);
    assert_int_equal(heard.len, 12);
    td_lines_end(&lines);
    assert_memory_equal(heard.text, "error\nabc\nd\nef", 14);
    td_lines_done(&lines);
}

static void test_lines_too_long_come_in_pieces(void **state)
{
    (void)state;
    static struct heard heard;
    static char text[TD_LINE_MAX - 10];
    struct td_lines lines;
    heard = (struct heard){.len = 0};
    memset(text, 'x', sizeof text);
    td_lines_init(&lines, hear, &heard);
    td_lines_add(&lines, 1, (struct td_bytes){text, sizeof text});
    assert_int_equal(heard.len, 0);
    td_lines_add(&lines, 1, (struct td_bytes){text, sizeof text});
    assert_int_equal(heard.len, TD_LINE_MAX);
    add(&lines, 1, "\n");
    assert_int_equal(heard.len, 2 * sizeof text + 1);
    td_lines_done(&lines);
}

static void hear_characters(void *context, struct td_writer writer, int stream,
                            struct td_bytes text)
{
    hear(context, writer, stream, text);
    const unsigned char *bytes = text.data;
    assert_int_equal(bytes[0] & 0xc0, 0xc0);            /* begins with a character */
    assert_int_equal(bytes[text.len - 1] & 0xc0, 0x80); /* ends with its last byte */
}

static void test_lines_too_long_are_cut_between_characters(void **state)
{
    (void)state;
    static const char *const characters[] = {"\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x98\x80"};
    static struct heard heard;
    for (size_t i = 0; i < 3; i++) {
        struct td_lines lines;
        size_t size = strlen(characters[i]);
        heard = (struct heard){.len = 0};
        td_lines_init(&lines, hear_characters, &heard);
        for (size_t n = 0; n < 150000 / size; n++)
            for (size_t byte = 0; byte < size; byte += 2) /* as reading may cut it, too */
                td_lines_add(&lines, 1,
                             (struct td_bytes){characters[i] + byte, size - byte < 2 ? 1 : 2});
        td_lines_end(&lines);
        assert_int_equal(heard.len, 150000 / size * size);
        assert_int_equal(heard.pieces, 3);
        td_lines_done(&lines);
    }
}

static void test_lines_that_are_no_text_are_cut_anywhere(void **state)
{
    (void)state;
    static struct heard heard;
    static char junk[TD_LINE_MAX + 100];
    struct td_lines lines;
    heard = (struct heard){.len = 0};
    memset(junk, 0x80, sizeof junk);
    td_lines_init(&lines, hear, &heard);
    td_lines_add(&lines, 1, (struct td_bytes){junk, sizeof junk});
    td_lines_end(&lines);
    assert_int_equal(heard.len, sizeof junk);
    assert_memory_equal(heard.text, junk, sizeof junk);
    td_lines_done(&lines);
}

static void test_lines_tail_keeps_streams_apart(void **state)
{
    (void)state;
    static struct heard heard;
    struct td_lines lines;
    heard = (struct heard){.len = 0};
    td_lines_init(&lines, hear, &heard);
    add(&lines, 2, "error");
    add(&lines, 1, "out\nbeg");
    struct td_blob *tail = td_lines_tail(&lines, 0);
    assert_int_equal(td_blob_bytes(tail).len, 13);
    assert_memory_equal(td_blob_bytes(tail).data, "out\nbeg\nerror", 13);
    td_blob_unref(tail);
    td_lines_done(&lines);
}

/* What begins a line for one call is not continued by another; the tail is of one of them. */
static void test_lines_turn(void **state)
{
    (void)state;
    static struct heard heard;
    struct td_lines lines;
    heard = (struct heard){.len = 0};
    td_lines_init(&lines, hear, &heard);
    td_lines_turn(&lines, 1, (struct td_writer){7, 1});
    add(&lines, 1, "of seven\nbeg");
    td_lines_turn(&lines, 1, (struct td_writer){7, 1});
    assert_int_equal(heard.len, 9);
    td_lines_turn(&lines, 1, (struct td_writer){8, 3});
    assert_int_equal(heard.len, 12);
    assert_int_equal(heard.last.index, 7);
    add(&lines, 1, "of one of three\n");
    assert_int_equal(heard.last.index, 8);
    assert_int_equal(heard.last.count, 3);
    assert_null(td_lines_tail(&lines, 7));
    struct td_blob *tail = td_lines_tail(&lines, 10);
    assert_int_equal(td_blob_bytes(tail).len, 16);
    td_blob_unref(tail);
    td_lines_done(&lines);
}

static void test_lines_tail_keeps_the_last(void **state)
{
    (void)state;
    static struct heard heard;
    struct td_lines lines;
    heard = (struct heard){.len = 0};
    td_lines_init(&lines, hear, &heard);
    assert_null(td_lines_tail(&lines, 0));
    for (int i = 0; i < 2000; i++)
        add(&lines, 1 + i % 2, "0123456789\n");
    add(&lines, 1, "the end\n");
    struct td_blob *tail = td_lines_tail(&lines, 0);
    struct td_bytes bytes = td_blob_bytes(tail);
    assert_int_equal(bytes.len, TD_TAIL_MAX);
    assert_memory_equal((const char *)bytes.data + bytes.len - 8, "the end\n", 8);
    td_blob_unref(tail);
    td_lines_end(&lines);
    assert_null(td_lines_tail(&lines, 0));
    td_lines_done(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_handed_on_whole),
        cmocka_unit_test(test_lines_too_long_come_in_pieces),
        cmocka_unit_test(test_lines_too_long_are_cut_between_characters),
        cmocka_unit_test(test_lines_that_are_no_text_are_cut_anywhere),
        cmocka_unit_test(test_lines_tail_keeps_streams_apart),
        cmocka_unit_test(test_lines_turn),
        cmocka_unit_test(test_lines_tail_keeps_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
