/* support.h: what every C test includes: cmocka with what it needs before it, and helpers.
 *
 * Helpers fail the test themselves; in a forked child use plain exit codes, not these. */
#ifndef TESTS_UNIT_SUPPORT_H
#define TESTS_UNIT_SUPPORT_H

/* cmocka.h wants these four before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <sys/types.h>

/* Open descriptors of this process; compare before and after. */
size_t support_fds(void);

/* Waits until the process ends and reaps it; returns its wait status. */
int support_reap(pid_t pid);

/* Is it there and not a zombie? */
bool support_alive(pid_t pid);

/* Polls until the process is no more (or a zombie); false after ten seconds. */
bool support_gone(pid_t pid);

/* The next number of a fixed pseudo-random sequence (xorshift64*); *state starts non-zero. */
uint64_t support_random(uint64_t *state);

/* Says aloud why a test is skipped, then skips it. */
#define SUPPORT_SKIP(reason)                 \
    do {                                     \
        print_message("SKIP: %s\n", reason); \
        skip();                              \
    } while (0)

#endif
