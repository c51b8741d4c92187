/* Any bytes decode to a message that encodes to the very same bytes, or to an error with words. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "wire/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct td_message message;
    struct td_error err = {0};
    int r = td_message_decode((struct td_bytes){data, size}, &message, &err);
    if (r < 0) {
        if (r != TD_EPROTO || err.status != r || !err.text[0])
            abort();
        return 0;
    }
    struct td_buf head;
    struct td_bytes tail;
    td_buf_init(&head, size + 1);
    r = td_message_encode(&message, &head, &tail, &err);
    if (r < 0 || head.len + tail.len != size || memcmp(head.data, data, head.len) != 0)
        abort();
    if (tail.len && memcmp(tail.data, data + head.len, tail.len) != 0)
        abort();
    td_buf_done(&head);
    return 0;
}
