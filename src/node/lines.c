#include "node/lines.h"

#include <stdbool.h>
#include <string.h>

#include "base/blob.h"

void td_lines_init(struct td_lines *lines, td_lines_fn *fn, void *context)
{
    td_buf_init(&lines->partial[0], TD_LINE_MAX);
    td_buf_init(&lines->partial[1], TD_LINE_MAX);
    lines->writers[0] = lines->writers[1] = lines->tail_writer = (struct td_writer){0, 1};
    lines->tail.len = 0;
    lines->fn = fn;
    lines->context = context;
}

void td_lines_done(struct td_lines *lines)
{
    td_buf_done(&lines->partial[0]);
    td_buf_done(&lines->partial[1]);
}

static void tail_add(struct td_tail *tail, struct td_bytes text)
{
    if (text.len >= TD_TAIL_MAX) {
        memcpy(tail->text, (const char *)text.data + text.len - TD_TAIL_MAX, TD_TAIL_MAX);
        tail->len = TD_TAIL_MAX;
        return;
    }
    size_t keep = TD_TAIL_MAX - text.len;
    if (tail->len > keep) {
        memmove(tail->text, tail->text + tail->len - keep, keep);
        tail->len = keep;
    }
    memcpy(tail->text + tail->len, text.data, text.len);
    tail->len += text.len;
}

static bool same(struct td_writer a, struct td_writer b)
{
    return a.index == b.index && a.count == b.count;
}

static void hand_on(struct td_lines *lines, int stream, const void *data, size_t len)
{
    struct td_bytes text = {data, len};
    struct td_writer writer = lines->writers[stream - 1];
    if (!len)
        return;
    if (!same(lines->tail_writer, writer))
        lines->tail.len = 0;
    lines->tail_writer = writer;
    tail_add(&lines->tail, text);
    lines->fn(lines->context, writer, stream, text);
}

/* How many bytes at the end begin a UTF-8 character that is not complete: 0 to 3. */
static size_t cut_character(const char *data, size_t len)
{
    for (size_t i = 1; i <= 3 && i <= len; i++) {
        unsigned char byte = (unsigned char)data[len - i];
        if (byte < 0x80)
            return 0;
        if (byte >= 0xc0) {
            size_t size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
            return i < size ? i : 0;
        }
    }
    return 0; /* it is something else than UTF-8 */
}

/* Adds to the line that has begun. One that is too long is handed on in pieces, which end between
 * characters: each of them is read by itself. */
static void grow(struct td_lines *lines, int stream, const char *data, size_t len)
{
    struct td_buf *partial = &lines->partial[stream - 1];
    while (len) {
        size_t room = TD_LINE_MAX - partial->len;
        size_t n = len < room ? len : room;
        if (td_buf_add(partial, data, n) < 0) {
            hand_on(lines, stream, partial->data, partial->len);
            td_buf_clear(partial);
            hand_on(lines, stream, data, len);
            return;
        }
        data += n;
        len -= n;
        if (len) {
            size_t piece = partial->len - cut_character(partial->data, partial->len);
            hand_on(lines, stream, partial->data, piece);
            td_buf_drop(partial, piece);
        }
    }
}

void td_lines_add(struct td_lines *lines, int stream, struct td_bytes text)
{
    struct td_buf *partial = &lines->partial[stream - 1];
    const char *data = text.data;
    const char *last = memrchr(data, '\n', text.len);
    size_t whole = last ? (size_t)(last - data) + 1 : 0;
    if (whole && partial->len) {
        /* Finish the line that had begun, then the rest of the whole lines in one piece. */
        size_t first = (size_t)((const char *)memchr(data, '\n', whole) - data) + 1;
        grow(lines, stream, data, first);
        hand_on(lines, stream, partial->data, partial->len);
        td_buf_clear(partial);
        hand_on(lines, stream, data + first, whole - first);
    } else {
        hand_on(lines, stream, data, whole);
    }
    grow(lines, stream, data + whole, text.len - whole);
}

static void flush(struct td_lines *lines, int stream)
{
    struct td_buf *partial = &lines->partial[stream - 1];
    hand_on(lines, stream, partial->data, partial->len);
    td_buf_clear(partial);
}

void td_lines_turn(struct td_lines *lines, int stream, struct td_writer writer)
{
    if (same(lines->writers[stream - 1], writer))
        return;
    flush(lines, stream);
    lines->writers[stream - 1] = writer;
}

void td_lines_end(struct td_lines *lines)
{
    flush(lines, 1);
    flush(lines, 2);
    lines->tail.len = 0;
}

static bool includes(struct td_writer writer, uint64_t index)
{
    return index - writer.index < writer.count;
}

/* Lines that have begun come last, each on a line of its own. */
struct td_blob *td_lines_tail(const struct td_lines *lines, uint64_t index)
{
    struct td_tail tail = lines->tail;
    if (!includes(lines->tail_writer, index))
        tail.len = 0;
    for (int i = 0; i < 2; i++) {
        const struct td_buf *partial = &lines->partial[i];
        if (!partial->len || !includes(lines->writers[i], index))
            continue;
        if (tail.len && tail.text[tail.len - 1] != '\n')
            tail_add(&tail, (struct td_bytes){"\n", 1});
        tail_add(&tail, (struct td_bytes){partial->data, partial->len});
    }
    return tail.len ? td_blob_new(tail.text, tail.len) : NULL;
}
