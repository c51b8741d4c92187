#include "bus/cluster.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "bus/jet.h"
#include "bus/js_api.h"
#include "os/clock.h"

#define DUPLICATES_NS (120 * TD_NS_PER_S)
#define MAKE_NS       (30 * TD_NS_PER_S)
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

struct td_name td_name_consumer(uint64_t map, const char *server)
{
    struct td_name lane = td_name_lane(map);
    return td_name_of("%s-%.12s", lane.text, server);
}

struct td_name td_name_calls(const char *pool, const char *lane)
{
    return td_name_of("td.calls.%s.%s", pool, lane);
}

struct td_name td_name_results(uint64_t session, uint64_t map)
{
    return map ? td_name_of("td.res.%016llx.%016llx", (hex)session, (hex)map)
               : td_name_of("td.res.%016llx", (hex)session);
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

/* -- making the streams ----------------------------------------------------------------------- */

enum { STREAMS = 5, CONFIG_MAX = 2048 };

struct maker {
    struct td_jet *jet;
    struct td_jet_ask ask;
    struct td_name calls, subject;
    size_t next; /* of the streams */
    td_cluster_made_fn *made;
    void *context;
};

static struct td_js_stream stream_of(const struct maker *maker, size_t number)
{
    const struct td_js_stream kept = {
        .direct = true, .each_max = 1, .age_ns = KEPT_NS, .duplicates_ns = DUPLICATES_NS};
    struct td_js_stream streams[STREAMS] = {
        {.work_queue = true, .duplicates_ns = DUPLICATES_NS}, kept, kept, kept, kept};
    const char *const subjects[STREAMS][2] = {{maker->subject.text},
                                              {"td.res.>"},
                                              {"td.spec.>"},
                                              {"td.map.*", "td.beat.*"},
                                              {"td.blob.>"}};
    const char *const names[STREAMS] = {maker->calls.text, TD_STREAM_RESULTS, TD_STREAM_SPECS,
                                        TD_STREAM_MAPS, TD_STREAM_BLOBS};
    streams[1].each_max = 0;
    struct td_js_stream stream = streams[number];
    stream.name = names[number];
    stream.subjects[0] = subjects[number][0];
    stream.subjects[1] = subjects[number][1];
    return stream;
}

static void make_next(struct maker *maker);

static void make_over(struct maker *maker, int status, const char *why)
{
    td_cluster_made_fn *made = maker->made;
    void *context = maker->context;
    td_free(maker);
    made(context, status, why);
}

static void on_made(void *context, int status, const struct td_nats_message *message)
{
    struct maker *maker = context;
    struct td_js_answer answer;
    int r = td_jet_answer(status, message, &answer);
    if (r < 0)
        make_over(maker, r, answer.text[0] ? answer.text : td_status_text(r));
    else if (++maker->next == STREAMS)
        make_over(maker, 0, "");
    else
        make_next(maker);
}

static void make_next(struct maker *maker)
{
    struct td_js_stream stream = stream_of(maker, maker->next);
    struct td_name question = td_name_of("STREAM.CREATE.%s", stream.name);
    TD_CLEANUP(td_buf_done) struct td_buf config;
    td_buf_init(&config, CONFIG_MAX);
    int r = td_js_write_stream(&stream, &config);
    if (r == 0)
        r = td_jet_ask(maker->jet, &maker->ask, question.text,
                       (struct td_bytes){config.data, config.len}, td_clock_now() + MAKE_NS);
    if (r < 0)
        make_over(maker, r, td_status_text(r));
}

int td_cluster_make(struct td_jet *jet, const char *pool, td_cluster_made_fn *made, void *context)
{
    struct maker *maker = td_alloc_zero(sizeof *maker);
    if (!maker)
        return TD_ENOMEM;
    *maker = (struct maker){.jet = jet,
                            .ask = {.fn = on_made, .context = maker},
                            .calls = td_name_stream(pool),
                            .subject = td_name_of("td.calls.%s.>", pool),
                            .made = made,
                            .context = context};
    make_next(maker);
    return 0;
}

/* -- frames ----------------------------------------------------------------------------------- */

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
