/* marks.h: takes apart what a runner writes while it goes through several calls: text that it has
 * marked with the call it belongs to, and text that somebody wrote past it, straight to the
 * descriptor. Pure.
 *
 * A mark is the token of the runner's desk, the position of the call in the batch and the number
 * of bytes of its text that follow, both 32 bits, little endian. A mark may be cut anywhere.
 *
 * Threads: one owner. Lifetime: embedded; all zero is a fresh one. */
#ifndef TD_NODE_MARKS_H
#define TD_NODE_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "pool/desk.h"

enum { TD_MARK_SIZE = TD_TOKEN_SIZE + 4 + 4 };

/* A mark for `len` bytes of text of the call `at`. */
void td_mark_write(char mark[TD_MARK_SIZE], const unsigned char token[TD_TOKEN_SIZE], uint32_t at,
                   uint32_t len);

struct td_marks {
    char held[TD_MARK_SIZE]; /* what may be the beginning of a mark */
    size_t nheld;
    uint32_t at;   /* the call that was marked last */
    uint32_t left; /* bytes of its text that are still to come */
};

/* Some text of the call `at`; or, when not marked, of it or one that came after it. */
typedef void td_marks_fn(void *context, uint32_t at, bool marked, struct td_bytes text);

void td_marks_add(struct td_marks *marks, const unsigned char token[TD_TOKEN_SIZE],
                  struct td_bytes text, td_marks_fn *fn, void *context);

/* No more will come: what is held was no mark. */
void td_marks_end(struct td_marks *marks, td_marks_fn *fn, void *context);

#endif
