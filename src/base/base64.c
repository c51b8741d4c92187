#include "base/base64.h"

#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

int td_base64_write(struct td_bytes bytes, struct td_buf *to)
{
    const unsigned char *from = bytes.data;
    int r = td_buf_reserve(to, bytes.len / 3 * 4 + 4);
    if (r < 0)
        return r;
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
        uint32_t bits = (uint32_t)from[i] << 16;
        bits |= n > 1 ? (uint32_t)from[i + 1] << 8 : 0;
        bits |= n > 2 ? from[i + 2] : 0;
        for (size_t k = 0; k <= n; k++)
            to->data[to->len++] = digits[bits >> (18 - 6 * k) & 63];
    }
    return 0;
}

static int value_of(char digit)
{
    const char *at = digit ? strchr(digits, digit) : NULL;
    return at ? (int)(at - digits) : -1;
}

int td_base64_read(const char *text, size_t len, struct td_buf *to)
{
    uint32_t bits = 0;
    unsigned nbits = 0;
    if (len % 4 == 1)
        return TD_EPROTO;
    for (size_t i = 0; i < len; i++)
        if (value_of(text[i]) < 0)
            return TD_EPROTO;
    /* One text for given bytes: what is left over of the last digit is zero. */
    if (len % 4 != 0 && value_of(text[len - 1]) & (len % 4 == 2 ? 15 : 3))
        return TD_EPROTO;
    int r = td_buf_reserve(to, len / 4 * 3 + 2);
    if (r < 0)
        return r;
    for (size_t i = 0; i < len; i++) {
        bits = bits << 6 | (uint32_t)value_of(text[i]);
        nbits += 6;
        if (nbits >= 8) {
            nbits -= 8;
            to->data[to->len++] = (char)(bits >> nbits);
        }
    }
    return 0;
}
