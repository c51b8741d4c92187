/* bytes.h: a borrowed run of bytes. Whoever hands one out says how long it stays valid. */
#ifndef TD_BASE_BYTES_H
#define TD_BASE_BYTES_H

#include <stddef.h>

struct td_bytes {
    const void *data;
    size_t len;
};

#endif
