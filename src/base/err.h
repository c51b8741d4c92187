/* err.h: every status that a fallible function can return, and the text that explains one.
 *
 * Functions return 0 or a negative TD_E*. A caller that wants words passes a struct td_error,
 * which is fixed in size, needs no memory and is set only on failure.
 * Threads: a struct td_error belongs to whoever made it. */
#ifndef TD_BASE_ERR_H
#define TD_BASE_ERR_H

#include "base/attr.h"

/* code, name, text */
#define TD_ERRORS(E)                                                               \
    E(1, NOMEM, "out of memory")                                                   \
    E(2, INVAL, "invalid argument")                                                \
    E(3, LIMIT, "a maximum was reached")                                           \
    E(4, CLOSED, "closed")                                                         \
    E(5, PROTO, "malformed message")                                               \
    E(6, TIMEOUT, "deadline passed")                                               \
    E(7, INTR, "interrupted by a signal")                                          \
    E(8, SYS, "the operating system refused")                                      \
    E(9, NOTFOUND, "not found")                                                    \
    E(10, EXISTS, "exists already")                                                \
    E(11, AGAIN, "not now")                                                        \
    E(12, CANCELLED, "cancelled")                                                  \
    E(13, FORKED, "not usable in a forked child")                                  \
    E(14, NOSUPERVISOR, "the supervisor process could not be started or was lost") \
    E(15, REFUSED, "the server refused")

#define TD_ERROR_ENUM(code, name, text) TD_E##name = -(code),
enum td_status { TD_OK = 0, TD_ERRORS(TD_ERROR_ENUM) };
#undef TD_ERROR_ENUM

enum { TD_ERROR_TEXT_MAX = 256 };

struct td_error {
    int status;
    char text[TD_ERROR_TEXT_MAX];
};

/* The name ("TD_ENOMEM") and the text of a status; never NULL. */
const char *td_status_name(int status);
const char *td_status_text(int status);

/* Fills *err (may be NULL) and returns status, so that a failing function ends by
 * `return td_error_set(err, TD_EINVAL, "retries must be at least 0, not %d", n);`. */
int td_error_set(struct td_error *err, int status, const char *format, ...) TD_PRINTF(3, 4);

/* The same for a failed system call: appends the text of errno_value. EMFILE, ENFILE and ENOMEM
 * become TD_ELIMIT and TD_ENOMEM, everything else TD_ESYS. */
int td_error_sys(struct td_error *err, int errno_value, const char *what);

#endif
