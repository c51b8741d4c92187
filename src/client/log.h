/* log.h: what the calls of one map have written, kept for map.logs(i), up to a maximum; beyond it
 * the oldest goes and is counted.
 *
 * Threads: one owner at a time. Lifetime: embedded; td_log_init .. td_log_done. */
#ifndef TD_CLIENT_LOG_H
#define TD_CLIENT_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/list.h"

struct td_blob;

struct td_log {
    struct td_list entries; /* oldest first */
    size_t bytes;
    size_t max;
    uint64_t lost; /* bytes that were dropped */
};

void td_log_init(struct td_log *log, size_t max_bytes);
void td_log_done(struct td_log *log);

/* Keeps a copy; without memory for it the text counts as lost. */
void td_log_add(struct td_log *log, uint64_t index, uint32_t count, int stream,
                struct td_bytes text);

/* What is kept of one call, of one stream or (0) both. TD_ENOMEM. */
int td_log_read(const struct td_log *log, uint64_t index, int stream, struct td_blob **ret_text);

#endif
