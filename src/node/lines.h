/* lines.h: cuts what calls write into whole lines, and keeps the last ones for a post-mortem.
 *
 * Standard output and error are cut apart; each piece that is handed on ends with a newline,
 * except the last of a call and pieces of a line longer than TD_LINE_MAX. No piece ends within a
 * character of UTF-8.
 * Threads: one owner. Lifetime: embedded; td_lines_init .. td_lines_done. */
#ifndef TD_NODE_LINES_H
#define TD_NODE_LINES_H

#include <stdint.h>

#include "base/buf.h"
#include "base/bytes.h"

struct td_blob;

enum {
    TD_LINE_MAX = 64 << 10, /* bytes */
    TD_TAIL_MAX = 4 << 10,  /* bytes of last output that are kept */
};

/* Whose text it is: that of call `index`, or of one of `count` calls, nobody knows which. */
struct td_writer {
    uint64_t index;
    uint32_t count;
};

typedef void td_lines_fn(void *context, struct td_writer writer, int stream, struct td_bytes lines);

/* The end of what was written, by line. */
struct td_tail {
    char text[TD_TAIL_MAX];
    size_t len;
};

struct td_lines {
    struct td_buf partial[2];    /* of stream 1 and 2 */
    struct td_writer writers[2]; /* who writes there now */
    struct td_tail tail;         /* lines of both streams, as they were handed on */
    struct td_writer tail_writer;
    td_lines_fn *fn;
    void *context;
};

void td_lines_init(struct td_lines *lines, td_lines_fn *fn, void *context);
void td_lines_done(struct td_lines *lines);

/* Hands on the lines that `text` completes. Without memory a line is handed on in pieces. */
void td_lines_add(struct td_lines *lines, int stream, struct td_bytes text);

/* What comes on this stream (at first: of call 0) from now on is somebody's; of somebody else, what
 * has no newline is handed on. */
void td_lines_turn(struct td_lines *lines, int stream, struct td_writer writer);

/* It is nobody's turn: hands on what has no newline, and forgets the tail. */
void td_lines_end(struct td_lines *lines);

/* The last lines of call `index` so far, or NULL: it wrote nothing, or memory is out. */
struct td_blob *td_lines_tail(const struct td_lines *lines, uint64_t index);

#endif
