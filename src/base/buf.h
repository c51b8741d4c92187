/* buf.h: a growable run of bytes with a maximum, for messages and lines.
 *
 * Invariant: len <= cap <= max. Reaching max is TD_ELIMIT and leaves the content as it was.
 * Threads: one owner at a time. Lifetime: td_buf_init .. td_buf_done; td_buf_clear keeps the
 * memory for the next use. */
#ifndef TD_BASE_BUF_H
#define TD_BASE_BUF_H

#include <stddef.h>

struct td_buf {
    char *data;
    size_t len;
    size_t cap;
    size_t max;
};

void td_buf_init(struct td_buf *buf, size_t max);
void td_buf_done(struct td_buf *buf);
void td_buf_clear(struct td_buf *buf);

/* Makes room for `more` bytes behind len. TD_ENOMEM, TD_ELIMIT. */
int td_buf_reserve(struct td_buf *buf, size_t more);

/* Appends a copy of the bytes. TD_ENOMEM, TD_ELIMIT. */
int td_buf_add(struct td_buf *buf, const void *data, size_t len);

/* Removes the first n bytes (n <= len). */
void td_buf_drop(struct td_buf *buf, size_t n);

#endif
