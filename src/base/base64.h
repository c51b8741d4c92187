/* base64.h: bytes as text that may stand anywhere: base64url of RFC 4648, section 5, unpadded.
 *
 * Threads: any (pure functions). */
#ifndef TD_BASE_BASE64_H
#define TD_BASE_BASE64_H

#include <stddef.h>

#include "base/bytes.h"

struct td_buf;

/* Appends the text. TD_ENOMEM, TD_ELIMIT. */
int td_base64_write(struct td_bytes bytes, struct td_buf *to);

/* Appends the bytes. TD_EPROTO: the text is not what td_base64_write makes, of any bytes;
 * TD_ENOMEM, TD_ELIMIT. */
int td_base64_read(const char *text, size_t len, struct td_buf *to);

#endif
