#include "bus/cluster.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "bus/js_api.h"
#include "os/clock.h"

#define DUPLICATES_NS (120 * TD_NS_PER_S)
#define KEPT_NS       (TD_KEPT_S * TD_NS_PER_S)

typedef unsigned long long hex; /* %016llx */

struct td_name td_name_of(const char *format, ...)
{
    struct td_name made;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(made.text, sizeof made.text, format, args); /* names have maxima: it fits */
    va_end(args);
    return made;
}

struct td_name td_name_stream(const char *pool)
{
    return td_name_of(TD_STREAM_CALLS "%s", pool);
}

struct td_name td_name_lane(uint64_t map)
{
    return map ? td_name_of("%016llx", (hex)map) : td_name_of(TD_LANE_SHARED);
}

struct td_name td_name_calls(const char *pool, const char *lane, uint64_t map)
{
    return td_name_of("td.calls.%s.%s.%016llx", pool, lane, (hex)map);
}

struct td_name td_name_calls_of(const char *pool, const char *lane)
{
    return td_name_of("td.calls.%s.%s.*", pool, lane);
}

struct td_name td_name_results(uint64_t session, uint64_t map, uint64_t index)
{
    return td_name_of("td.res.%016llx.%016llx.%u", (hex)session, (hex)map,
                      (unsigned)(index % TD_BUCKETS));
}

struct td_name td_name_results_of(uint64_t session, uint64_t map)
{
    return map ? td_name_of("td.res.%016llx.%016llx.*", (hex)session, (hex)map)
               : td_name_of("td.res.%016llx.>", (hex)session);
}

struct td_name td_name_spec(uint64_t session, uint32_t spec)
{
    return td_name_of("td.spec.%016llx.%u", (hex)session, spec);
}

struct td_name td_name_specs_of(uint64_t session)
{
    return td_name_of("td.spec.%016llx.*", (hex)session);
}

struct td_name td_name_map(uint64_t map)
{
    return td_name_of("td.map.%016llx", (hex)map);
}

struct td_name td_name_blob(uint64_t session, uint64_t scope, uint64_t blob, uint32_t chunk)
{
    return td_name_of("td.blob.%016llx.%016llx.%016llx.%u", (hex)session, (hex)scope, (hex)blob,
                      chunk);
}

struct td_name td_name_blobs_of(uint64_t session, uint64_t scope)
{
    return scope ? td_name_of("td.blob.%016llx.%016llx.>", (hex)session, (hex)scope)
                 : td_name_of("td.blob.%016llx.>", (hex)session);
}

struct td_name td_name_direct(const char *stream, const char *subject)
{
    return td_name_of("$JS.API.DIRECT.GET.%s.%s", stream, subject);
}

int td_pool_name_check(const char *pool)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    size_t len = strlen(pool);
    return len > 0 && len <= TD_POOL_MAX && strspn(pool, allowed) == len ? 0 : TD_EINVAL;
}

size_t td_cluster_streams(const struct td_name *calls, const struct td_name *calls_subject,
                          struct td_js_stream *ret_streams, size_t max)
{
    const struct td_js_stream streams[] = {
        {.name = calls->text,
         .subjects = {calls_subject->text},
         .work_queue = true,
         .duplicates_ns = DUPLICATES_NS},
        {.name = TD_STREAM_RESULTS,
         .subjects = {"td.res.>"},
         .direct = true,
         .age_ns = KEPT_NS,
         .duplicates_ns = DUPLICATES_NS},
        {.name = TD_STREAM_SPECS,
         .subjects = {"td.spec.>"},
         .direct = true,
         .each_max = 1,
         .age_ns = KEPT_NS,
         .duplicates_ns = DUPLICATES_NS},
        {.name = TD_STREAM_MAPS,
         .subjects = {"td.map.*", "td.beat.*"},
         .direct = true,
         .each_max = 1,
         .age_ns = KEPT_NS,
         .duplicates_ns = DUPLICATES_NS},
        {.name = TD_STREAM_BLOBS,
         .subjects = {"td.blob.>"},
         .direct = true,
         .each_max = 1,
         .age_ns = KEPT_NS,
         .duplicates_ns = DUPLICATES_NS},
    };
    size_t count = TD_COUNT(streams) < max ? TD_COUNT(streams) : max;
    memcpy(ret_streams, streams, count * sizeof *streams);
    return count;
}

int td_frames_add(struct td_buf *buf, const struct td_message *message)
{
    size_t start = buf->len;
    uint32_t len = 0;
    struct td_bytes tail = {0};
    int r = td_buf_add(buf, &len, sizeof len);
    if (r == 0)
        r = td_message_encode(message, buf, &tail, NULL);
    if (r == 0)
        r = td_buf_add(buf, tail.data, tail.len);
    if (r < 0) {
        buf->len = start;
        return r;
    }
    len = (uint32_t)(buf->len - start - sizeof len);
    memcpy(buf->data + start, &len, sizeof len);
    return 0;
}

int td_frames_next(struct td_bytes *frames, struct td_message *ret_message)
{
    uint32_t len;
    const char *data = frames->data;
    if (frames->len == 0)
        return TD_ENOTFOUND;
    if (frames->len < sizeof len)
        return TD_EPROTO;
    memcpy(&len, data, sizeof len);
    if (len > frames->len - sizeof len)
        return TD_EPROTO;
    *frames = (struct td_bytes){data + sizeof len + len, frames->len - sizeof len - len};
    return td_message_decode((struct td_bytes){data + sizeof len, len}, ret_message, NULL);
}
