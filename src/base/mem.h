/* mem.h: the one door to the heap, so that tests can make the n-th allocation fail.
 *
 * Threads: any. Sizes are bytes. All of them return NULL when memory is out. */
#ifndef TD_BASE_MEM_H
#define TD_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

void *td_alloc(size_t size);      /* not initialised */
void *td_alloc_zero(size_t size); /* all zero */
void *td_realloc(void *p, size_t size);
void *td_memdup(const void *p, size_t size);
void td_free(void *p); /* accepts NULL */

/* Tests only: the n-th allocation from now on fails (1 is the next), and so does every one after
 * it when `onwards`; 0 switches it off. Counts over all threads. */
void td_mem_fail(int64_t nth, int onwards);

/* Allocations since the process started; a test asserts a budget for a call with it. */
uint64_t td_mem_count(void);

#endif
