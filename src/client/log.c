#include "client/log.h"

#include <string.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

struct entry {
    struct td_list link;
    uint64_t index;
    int stream;
    size_t len;
    char text[];
};

void td_log_init(struct td_log *log, size_t max_bytes)
{
    *log = (struct td_log){.max = max_bytes};
    td_list_init(&log->entries);
}

static void drop_oldest(struct td_log *log)
{
    struct entry *entry = TD_CONTAINER(td_list_pop(&log->entries), struct entry, link);
    log->bytes -= sizeof *entry + entry->len;
    log->lost += entry->len;
    td_free(entry);
}

void td_log_done(struct td_log *log)
{
    while (!td_list_empty(&log->entries))
        drop_oldest(log);
}

void td_log_add(struct td_log *log, uint64_t index, int stream, struct td_bytes text)
{
    struct entry *entry = td_alloc(sizeof *entry + text.len);
    if (!entry) {
        log->lost += text.len;
        return;
    }
    entry->index = index;
    entry->stream = stream;
    entry->len = text.len;
    memcpy(entry->text, text.data, text.len);
    td_list_append(&log->entries, &entry->link);
    log->bytes += sizeof *entry + text.len;
    while (log->bytes > log->max)
        drop_oldest(log);
}

int td_log_read(const struct td_log *log, uint64_t index, int stream, struct td_blob **ret_text)
{
    TD_CLEANUP(td_buf_done) struct td_buf text;
    td_buf_init(&text, log->max);
    TD_LIST_EACH(node, &log->entries) {
        const struct entry *entry = TD_CONTAINER(node, struct entry, link);
        bool wanted = entry->index == index && (stream == 0 || entry->stream == stream);
        int r = wanted ? td_buf_add(&text, entry->text, entry->len) : 0;
        if (r < 0)
            return r;
    }
    *ret_text = td_blob_new(text.data, text.len);
    return *ret_text ? 0 : TD_ENOMEM;
}
