#include "node/marks.h"

#include "support.h"

#include <stdio.h>
#include <string.h>

static const unsigned char token[16] = "\xffmarks for test";

/* What was heard, as text: a piece of a marked call k is k:..., past its mark k?... */
struct heard {
    char text[4096];
    size_t len;
    uint32_t at;
    bool marked;
};

static void hear(void *context, uint32_t at, bool marked, struct td_bytes text)
{
    struct heard *heard = context;
    if (text.len == 0)
        return;
    if (heard->len == 0 || heard->at != at || heard->marked != marked)
        heard->len += (size_t)snprintf(heard->text + heard->len, sizeof heard->text - heard->len,
                                       "[%u%c]", (unsigned)at, marked ? ':' : '?');
    heard->at = at;
    heard->marked = marked;
    memcpy(heard->text + heard->len, text.data, text.len);
    heard->len += text.len;
}

static size_t mark(char *to, uint32_t at, const char *text)
{
    size_t len = strlen(text);
    uint32_t numbers[] = {at, (uint32_t)len}; /* the machine is little endian */
    memcpy(to, token, 16);
    memcpy(to + 16, numbers, 8);
    memcpy(to + TD_MARK_SIZE, text, len);
    return TD_MARK_SIZE + len;
}

/* Cut anywhere, the same comes out. */
static void test_marks(void **state)
{
    (void)state;
    char text[1024];
    size_t len = 0;
    memcpy(text, "raw\xff", 4);
    len = 4;
    len += mark(text + len, 3, "three\n");
    len += mark(text + len, 4, "");
    memcpy(text + len,
           "past\n\xff\xff"
           "mar",
           10);
    len += 10;
    len += mark(text + len, 70000, "many");
    memcpy(text + len,
           "\xff"
           "marks",
           6);
    len += 6;
    static const char expected[] =
        "[0?]raw\xff[3:]three\n[4?]past\n\xff\xffmar[70000:]many[70000?]\xffmarks";
    for (size_t piece = 1; piece <= len; piece++) {
        struct td_marks marks = {0};
        struct heard heard = {.len = 0};
        for (size_t at = 0; at < len; at += piece)
            td_marks_add(&marks, token,
                         (struct td_bytes){text + at, at + piece < len ? piece : len - at}, hear,
                         &heard);
        td_marks_end(&marks, hear, &heard);
        assert_int_equal(heard.len, sizeof expected - 1);
        assert_memory_equal(heard.text, expected, heard.len);
        assert_int_equal(marks.at, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_marks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
