#include "client/log.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

enum { ENTRY_MIN = 512 };

struct entry {
    struct td_list link;
    uint64_t index;
    uint32_t count;
    int stream;
    size_t len;
    size_t cap;
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
    log->bytes -= sizeof *entry + entry->cap;
    log->lost += entry->len;
    td_free(entry);
}

void td_log_done(struct td_log *log)
{
    while (!td_list_empty(&log->entries))
        drop_oldest(log);
}

/* The last entry when the text continues it and fits, else a new one. */
static struct entry *entry_for(struct td_log *log, uint64_t index, uint32_t count, int stream,
                               size_t len)
{
    struct entry *last = TD_CONTAINER(log->entries.prev, struct entry, link);
    if (!td_list_empty(&log->entries) && last->index == index && last->count == count &&
        last->stream == stream && len <= last->cap - last->len)
        return last;
    /* A second line of the same call is likely only when it is not the first. */
    bool more = !td_list_empty(&log->entries) && last->index == index;
    size_t cap = more && len < ENTRY_MIN ? ENTRY_MIN : len;
    struct entry *entry = td_alloc(sizeof *entry + cap);
    if (!entry)
        return NULL;
    *entry = (struct entry){.index = index, .count = count, .stream = stream, .cap = cap};
    td_list_append(&log->entries, &entry->link);
    log->bytes += sizeof *entry + cap;
    return entry;
}

void td_log_add(struct td_log *log, uint64_t index, uint32_t count, int stream,
                struct td_bytes text)
{
    struct entry *entry = entry_for(log, index, count, stream, text.len);
    if (!entry) {
        log->lost += text.len;
        return;
    }
    memcpy(entry->text + entry->len, text.data, text.len);
    entry->len += text.len;
    while (log->bytes > log->max)
        drop_oldest(log);
}

/* Nobody knows which of several calls wrote it. */
static int add_whose(struct td_buf *text, const struct entry *entry)
{
    char words[80];
    int len = snprintf(words, sizeof words, "[calls %llu to %llu] ",
                       (unsigned long long)entry->index,
                       (unsigned long long)(entry->index + entry->count - 1)); /* always fits */
    return td_buf_add(text, words, (size_t)len);
}

int td_log_read(const struct td_log *log, uint64_t index, int stream, struct td_blob **ret_text)
{
    TD_CLEANUP(td_buf_done) struct td_buf text;
    td_buf_init(&text, log->max);
    TD_LIST_EACH(node, &log->entries) {
        const struct entry *entry = TD_CONTAINER(node, struct entry, link);
        bool wanted = index - entry->index < entry->count &&
                      (stream == 0 || entry->stream == stream);
        int r = wanted && entry->count > 1 ? add_whose(&text, entry) : 0;
        if (r == 0 && wanted)
            r = td_buf_add(&text, entry->text, entry->len);
        if (r < 0)
            return r;
    }
    *ret_text = td_blob_new(text.data, text.len);
    return *ret_text ? 0 : TD_ENOMEM;
}
