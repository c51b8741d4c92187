/* text.h: reading numbers from text, strictly.
 *
 * Threads: any (pure functions). */
#ifndef TD_BASE_TEXT_H
#define TD_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* How many decimal digits the zero-terminated text begins with. */
size_t td_text_digits(const char *text);

/* All len characters are one decimal number: no sign, no blanks, nothing behind it. TD_EINVAL
 * when they are not (also for len 0), TD_ELIMIT when it does not fit. */
int td_text_u64(const char *text, size_t len, uint64_t *ret_number);

/* All len characters are one hexadecimal number in lower case, of at most 16 digits. TD_EINVAL. */
int td_text_hex(const char *text, size_t len, uint64_t *ret_number);

#endif
