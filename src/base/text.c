#include "base/text.h"

#include <stdbool.h>
#include <string.h>

#include "base/err.h"

size_t td_text_digits(const char *text)
{
    return strspn(text, "0123456789");
}

int td_text_u64(const char *text, size_t len, uint64_t *ret_number)
{
    uint64_t number = 0;
    bool fits = true;
    if (len == 0)
        return TD_EINVAL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return TD_EINVAL; /* also behind a number that is too large already */
        uint64_t digit = (uint64_t)(text[i] - '0');
        fits = fits && !__builtin_mul_overflow(number, 10, &number) &&
               !__builtin_add_overflow(number, digit, &number);
    }
    if (!fits)
        return TD_ELIMIT;
    *ret_number = number;
    return 0;
}

int td_text_hex(const char *text, size_t len, uint64_t *ret_number)
{
    enum { DIGITS_MAX = 16, BITS = 4, TEN = 10 };
    uint64_t number = 0;
    if (len == 0 || len > DIGITS_MAX)
        return TD_EINVAL;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c >= '0' && c <= '9')
            number = number << BITS | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            number = number << BITS | (uint64_t)(c - 'a' + TEN);
        else
            return TD_EINVAL;
    }
    *ret_number = number;
    return 0;
}
