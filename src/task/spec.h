/* spec.h: what a map is, apart from its inputs: the function, the runner it needs, and how its
 * calls are to be treated. It travels once a map.
 *
 * Threads: any; immutable and counted. Lifetime: td_spec_new .. the last td_spec_unref. */
#ifndef TD_TASK_SPEC_H
#define TD_TASK_SPEC_H

#include <stdint.h>

#include "base/bytes.h"
#include "wire/message.h"

struct td_blob;
struct td_error;

/* Lists are strings one after another, each ended by a zero byte. */
struct td_runner_spec {
    struct td_bytes argv;  /* the runner's command, at least one string; two words are added to it:
                              "zygote" or "runner", and the number of its descriptor */
    struct td_bytes env;   /* its whole environment, NAME=value each */
    struct td_bytes cwd;   /* one string without its zero byte; empty: the supervisor's */
    uint64_t memory_bytes; /* most resident memory of a runner with its children; 0: no limit */
    uint32_t cpu_milli;    /* most processor time a second, 1000 = one core; 0: no limit */
};

/* TD_EINVAL when a list does not end by a zero byte or argv is empty. */
int td_runner_spec_check(const struct td_runner_spec *spec, struct td_error *err);

struct td_spec {
    struct td_key function; /* names the body: its SHA-256 */
    struct td_blob *body;   /* the pickled function */
    struct td_runner_spec runner;
    uint32_t retries;   /* further attempts after a failed one */
    int64_t timeout_ns; /* for one attempt; 0: none */
    uint32_t depth;     /* how many maps this one is inside of, and the outermost of them: set by */
    uint64_t root;      /* who serves a map that was opened in a call; they do not travel */
};

/* Copies everything that *from points to. TD_EINVAL (a list does not end, argv is empty, a
 * negative timeout), TD_ENOMEM. */
int td_spec_new(const struct td_spec *from, struct td_spec **ret_spec, struct td_error *err);
struct td_spec *td_spec_ref(struct td_spec *spec);
struct td_spec *td_spec_unref(struct td_spec *spec); /* accepts NULL, returns NULL */
void td_spec_unrefp(struct td_spec **spec);

/* To and from MAP_OPEN. The message borrows from the spec; its tail is spec->body. */
void td_spec_message(const struct td_spec *spec, uint64_t map, struct td_message *ret_message);
int td_spec_from(const struct td_msg_map_open *message, struct td_spec **ret_spec,
                 struct td_error *err);

/* Slots of a machine with `slots` cores and `memory_bytes` that one call of the map takes. */
unsigned td_spec_cost(const struct td_spec *spec, unsigned slots, uint64_t memory_bytes);

#endif
