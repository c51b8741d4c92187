/* outcome.h: what became of one attempt at one call, or alike of several that follow each other:
 * the record that travels from the runner's machine to the caller and is kept for reports.
 *
 * Threads: one owner at a time. Lifetime: td_outcome_new .. td_outcome_free, which drops the
 * three blobs. */
#ifndef TD_TASK_OUTCOME_H
#define TD_TASK_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct td_blob;
struct td_message;

/* number on the wire, NAME, may another attempt be made, words */
#define TD_OUTCOMES(O)                                      \
    O(0, OK, false, "returned")                             \
    O(1, RAISED, true, "raised an exception")               \
    O(2, CRASHED, true, "its runner died")                  \
    O(3, OUT_OF_MEMORY, true, "went over its memory limit") \
    O(4, TIMED_OUT, true, "ran longer than its timeout")    \
    O(5, CANCELLED, false, "was cancelled")                 \
    O(6, NOT_STARTED, false, "no runner could be started for it")

#define TD_OUTCOME_ENUM(number, NAME, retry, words) TD_OUTCOME_##NAME = (number),
enum td_outcome_status { TD_OUTCOMES(TD_OUTCOME_ENUM) };
#undef TD_OUTCOME_ENUM

struct td_outcome {
    struct td_list link; /* for the list of whoever owns it, so that queueing needs no memory */
    uint64_t map;
    uint64_t index; /* the first call, of `count` */
    uint32_t count;
    uint32_t skip;    /* results of other calls that come before theirs in `value` */
    uint32_t attempt; /* 1 is the first */
    uint8_t status;   /* enum td_outcome_status */
    int32_t code;     /* CRASHED: exit code, or minus the signal's number */
    int32_t pid;      /* of the runner; 0 when none was involved */
    int64_t started_ns;
    int64_t duration_ns;   /* of all `count` calls together */
    uint64_t peak_bytes;   /* most resident memory of the runner, as far as known; 0: not known */
    uint64_t limit_bytes;  /* OUT_OF_MEMORY: the limit */
    struct td_blob *value; /* OK, RAISED: what the runner sent; else NULL */
    struct td_blob *last_output; /* not OK: the call's last lines, or NULL */
    struct td_blob *detail;      /* more words on what happened, or NULL */
};

/* Of one call, all zero but its names; NULL when memory is out. */
struct td_outcome *td_outcome_new(uint64_t map, uint64_t index, uint32_t attempt, uint8_t status);
/* Of `count` calls from `index` on, which *outcome covers: a copy that shares its blobs; NULL. */
struct td_outcome *td_outcome_part(const struct td_outcome *outcome, uint64_t index,
                                   uint32_t count);
struct td_outcome *td_outcome_free(struct td_outcome *outcome); /* accepts NULL, returns NULL */
void td_outcome_freep(struct td_outcome **outcome);

bool td_outcome_retriable(uint8_t status);
const char *td_outcome_words(uint8_t status); /* "timed out", or "?" */
bool td_outcome_valid(uint8_t status);

/* To and from the wire. The message borrows from the outcome; outcome->value is to be sent behind
 * it, as its tail.
 * td_outcome_from copies; TD_EPROTO for an unknown status or a count of 0, TD_ENOMEM. */
void td_outcome_message(const struct td_outcome *outcome, struct td_message *ret_message);
int td_outcome_from(const struct td_message *message, struct td_outcome **ret_outcome);

#endif
