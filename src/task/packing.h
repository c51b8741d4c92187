/* packing.h: how many calls of a map go into one batch, from how long its calls have taken. Pure.
 *
 * A batch is to take about TD_PACKING_TARGET_NS on its runner: long enough that what it costs to
 * send one is little beside it, short enough that results come soon and the runners end together.
 * As long as no duration is known, calls go singly; as many as there are runners, twice, and then
 * not more before one has ended or has run so long that packing would bring nothing. Sizes grow by
 * a factor at most, since the next calls may be slower, and as long as they grow nothing is packed
 * far ahead; they shrink towards the end of an input
 * whose length is known.
 *
 * Threads: one owner at a time. Times: ns. */
#ifndef TD_TASK_PACKING_H
#define TD_TASK_PACKING_H

#include <stdint.h>

#define TD_PACKING_TARGET_NS ((int64_t)50000000)
enum { TD_PACKING_MAX = 1 << 16 }; /* calls in a batch */

struct td_packing {
    unsigned slots;     /* runners that may work at once */
    uint64_t submitted; /* calls */
    uint64_t finished;  /* of these */
    int64_t began_ns;   /* when the first call was seen running; 0: none was */
    int64_t call_ns;    /* how long a call takes, smoothed; 0: not known */
    uint32_t proven;    /* calls of the largest batch whose duration is known */
};

void td_packing_init(struct td_packing *packing, unsigned slots);
void td_packing_submitted(struct td_packing *packing, uint32_t count);
void td_packing_started(struct td_packing *packing, int64_t now);
/* duration_ns: of all `count` calls; 0: it says nothing about the others'. */
void td_packing_finished(struct td_packing *packing, uint32_t count, int64_t duration_ns);

/* The number of calls for the next batch; left: calls of the input that are still to come
 * (UINT64_MAX: not known). 0: it is too early to say; ask again when a call has started or ended,
 * or at *ret_when. */
uint32_t td_packing_next(const struct td_packing *packing, uint64_t left, int64_t now,
                         int64_t *ret_when);

#endif
