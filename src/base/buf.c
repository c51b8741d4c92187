#include "base/buf.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

void td_buf_init(struct td_buf *buf, size_t max)
{
    *buf = (struct td_buf){.max = max};
}

void td_buf_done(struct td_buf *buf)
{
    td_free(buf->data);
    *buf = (struct td_buf){.max = buf->max};
}

void td_buf_clear(struct td_buf *buf)
{
    buf->len = 0;
}

int td_buf_reserve(struct td_buf *buf, size_t more)
{
    if (more <= buf->cap - buf->len)
        return 0;
    if (more > buf->max - buf->len)
        return TD_ELIMIT;
    size_t cap = buf->cap ? buf->cap : 256;
    while (cap - buf->len < more)
        cap = cap > buf->max / 2 ? buf->max : cap * 2;
    if (cap > buf->max)
        cap = buf->max;
    char *data = td_realloc(buf->data, cap);
    if (!data)
        return TD_ENOMEM;
    buf->data = data;
    buf->cap = cap;
    return 0;
}

int td_buf_add(struct td_buf *buf, const void *data, size_t len)
{
    int r = td_buf_reserve(buf, len);
    if (r < 0)
        return r;
    if (len)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    return 0;
}

void td_buf_drop(struct td_buf *buf, size_t n)
{
    assert(n <= buf->len);
    buf->len -= n;
    if (buf->len)
        memmove(buf->data, buf->data + n, buf->len);
}
