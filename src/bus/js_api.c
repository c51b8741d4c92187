#include "bus/js_api.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/text.h"

static void json_freep(json_t **json)
{
    json_decref(*json);
    *json = NULL;
}

/* Appends it, without blanks. Takes a reference; NULL: it could not be made. */
static int append(json_t *from, struct td_buf *to)
{
    TD_CLEANUP(json_freep) json_t *json = from;
    if (!json)
        return TD_EINVAL;
    size_t size = json_dumpb(json, NULL, 0, JSON_COMPACT);
    if (size == 0)
        return TD_ENOMEM;
    int r = td_buf_reserve(to, size);
    if (r < 0)
        return r;
    if (json_dumpb(json, to->data + to->len, size, JSON_COMPACT) != size)
        return TD_ENOMEM;
    to->len += size;
    return 0;
}

static json_int_t most(int64_t maximum)
{
    return maximum > 0 ? (json_int_t)maximum : -1; /* what the server calls "none" */
}

int td_js_write_stream(const struct td_js_stream *stream, struct td_buf *to)
{
    json_t *subjects = json_array();
    for (size_t i = 0; i < TD_JS_SUBJECTS_MAX && stream->subjects[i]; i++)
        if (json_array_append_new(subjects, json_string(stream->subjects[i])) < 0) {
            json_decref(subjects);
            return TD_EINVAL;
        }
    return append(json_pack("{s:s, s:o, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:b}", "name",
                            stream->name, "subjects", subjects, "retention",
                            stream->work_queue ? "workqueue" : "limits", "storage",
                            stream->memory ? "memory" : "file", "discard",
                            stream->discard_old ? "old" : "new", "num_replicas", 1, "max_bytes",
                            most(stream->bytes_max), "max_msgs_per_subject", most(stream->each_max),
                            "max_age", (json_int_t)stream->age_ns, "duplicate_window",
                            (json_int_t)stream->duplicates_ns, "allow_direct", (int)stream->direct),
                  to);
}

static int set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) < 0 ? TD_EINVAL : 0;
}

int td_js_write_consumer(const struct td_js_consumer *consumer, struct td_buf *to)
{
    const char *deliver = consumer->start ? "by_start_sequence" : "all";
    TD_CLEANUP(json_freep)
    json_t *config = json_pack("{s:s, s:s, s:s, s:s, s:b}", "name", consumer->name,
                               "deliver_policy", deliver, "ack_policy",
                               consumer->acks ? "explicit" : "none", "replay_policy", "instant",
                               "headers_only", (int)consumer->headers_only);
    int r = config ? 0 : TD_EINVAL;
    if (r == 0 && consumer->filter)
        r = set(config, "filter_subject", json_string(consumer->filter));
    if (r == 0 && consumer->durable)
        r = set(config, "durable_name", json_string(consumer->name));
    if (r == 0 && consumer->start)
        r = set(config, "opt_start_seq", json_integer((json_int_t)consumer->start));
    if (r == 0 && consumer->ack_wait_ns)
        r = set(config, "ack_wait", json_integer((json_int_t)consumer->ack_wait_ns));
    if (r == 0 && consumer->inactive_ns)
        r = set(config, "inactive_threshold", json_integer((json_int_t)consumer->inactive_ns));
    if (r == 0 && !consumer->durable)
        r = set(config, "mem_storage", json_true());
    if (r == 0 && consumer->acks)
        r = set(config, "max_ack_pending", json_integer(most(consumer->unacked_max)));
    if (r == 0 && consumer->asks_max)
        r = set(config, "max_waiting", json_integer((json_int_t)consumer->asks_max));
    if (r < 0)
        return r;
    return append(json_pack("{s:s, s:O}", "stream_name", consumer->stream, "config", config), to);
}

int td_js_write_purge(const char *filter, uint64_t before, struct td_buf *to)
{
    if (before == 0)
        return append(json_pack("{s:s}", "filter", filter), to);
    return append(json_pack("{s:s, s:I}", "filter", filter, "seq", (json_int_t)before), to);
}

int td_js_write_names(uint64_t offset, struct td_buf *to)
{
    return append(json_pack("{s:I}", "offset", (json_int_t)offset), to);
}

int td_js_write_ask(unsigned messages, int64_t expires_ns, struct td_buf *to)
{
    return append(
        json_pack("{s:I, s:I}", "batch", (json_int_t)messages, "expires", (json_int_t)expires_ns),
        to);
}

int td_js_write_info(const char *subjects, struct td_buf *to)
{
    return append(json_pack("{s:s}", "subjects_filter", subjects), to);
}

/* An object, or NULL. */
static json_t *parse(struct td_bytes text)
{
    json_t *json = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(json))
        return json;
    json_decref(json);
    return NULL;
}

static uint64_t number_of(json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key)); /* 0 if there is none */
    return value > 0 ? (uint64_t)value : 0;
}

int td_js_read_answer(struct td_bytes text, struct td_js_answer *ret_answer)
{
    TD_CLEANUP(json_freep) json_t *json = parse(text);
    if (!json)
        return TD_EPROTO;
    struct td_js_answer answer = {
        .sequence = number_of(json, "seq"),
        .duplicate = json_is_true(json_object_get(json, "duplicate")),
        .pending = number_of(json, "num_pending"),
        .unacked = number_of(json, "num_ack_pending"),
        .asks = number_of(json, "num_waiting"),
    };
    json_t *state = json_object_get(json, "state");
    answer.messages = number_of(state, "messages");
    answer.bytes = number_of(state, "bytes");
    answer.first = number_of(state, "first_seq");
    answer.last = number_of(state, "last_seq");
    json_t *error = json_object_get(json, "error");
    if (error) {
        const char *words = json_string_value(json_object_get(error, "description"));
        uint64_t code = number_of(error, "code");
        answer.code = code > 0 && code < 1000 ? (int)code : 500;
        answer.number = (int)(number_of(error, "err_code") % 100000);
        (void)snprintf(answer.text, sizeof answer.text, "%s",
                       words ? words : "an error without words"); /* a cut text is one, too */
    }
    *ret_answer = answer;
    return 0;
}

int td_js_read_names(struct td_bytes text, void (*fn)(void *context, const char *name),
                     void *context, uint64_t *ret_count, bool *ret_more)
{
    TD_CLEANUP(json_freep) json_t *json = parse(text);
    json_t *names = json_object_get(json, "consumers");
    if (!json || json_object_get(json, "error"))
        return TD_EPROTO;
    size_t count = json_array_size(names); /* 0 for null: there are none */
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (!name)
            return TD_EPROTO;
        fn(context, name);
    }
    *ret_count = count;
    *ret_more = count > 0 && number_of(json, "offset") + count < number_of(json, "total");
    return 0;
}

int td_js_read_subjects(struct td_bytes text,
                        void (*fn)(void *context, const char *subject, uint64_t messages),
                        void *context)
{
    TD_CLEANUP(json_freep) json_t *json = parse(text);
    json_t *state = json_object_get(json, "state");
    if (!state)
        return TD_EPROTO;
    const char *subject;
    json_t *messages;
    json_object_foreach(json_object_get(state, "subjects"), subject, messages)
        fn(context, subject, (uint64_t)json_integer_value(messages));
    return 0;
}

/* The server's numbers, as its file errors.json has them. */
static const struct {
    int number;
    int status;
} meanings[] = {
    {10014, TD_ENOTFOUND}, /* consumer */
    {10037, TD_ENOTFOUND}, /* message */
    {10059, TD_ENOTFOUND}, /* stream */
    {10013, TD_EEXISTS},   /* consumer of that name */
    {10058, TD_EEXISTS},   /* stream of that name, with another configuration */
    {10099, TD_EEXISTS},   /* a consumer takes everything in this work queue */
    {10100, TD_EEXISTS},   /* another consumer takes these subjects of the work queue */
    {10105, TD_EEXISTS},   /* consumer of that name, which somebody uses */
    {10023, TD_ELIMIT},    /* resources of the server */
    {10026, TD_ELIMIT},    /* consumers */
    {10027, TD_ELIMIT},    /* streams */
    {10028, TD_ELIMIT},    /* memory of the account */
    {10047, TD_ELIMIT},    /* disk of the account */
    {10054, TD_ELIMIT},    /* the message is larger than the stream takes */
    {10077, TD_ELIMIT},    /* the stream is full */
    {10008, TD_EAGAIN},    /* the server is starting */
};

int td_js_answer_status(const struct td_js_answer *answer)
{
    if (answer->code == 0)
        return 0;
    for (size_t i = 0; i < TD_COUNT(meanings); i++)
        if (meanings[i].number == answer->number)
            return meanings[i].status;
    if (answer->code == 404)
        return TD_ENOTFOUND;
    return answer->code == 503 ? TD_EAGAIN : TD_EREFUSED;
}

/* $JS.ACK.STREAM.CONSUMER.deliveries.sequence.consumed.time.pending, or since 2.9 possibly
 * $JS.ACK.domain.account.STREAM.CONSUMER.deliveries.sequence.consumed.time.pending.token */
int td_js_read_numbers(const char *reply, struct td_js_numbers *ret_numbers)
{
    enum { TOKENS_MAX = 12, SHORT = 9, LONG = 11 };
    const char *tokens[TOKENS_MAX];
    size_t lens[TOKENS_MAX], count = 0;
    const char *at = reply;
    while (count < TOKENS_MAX) {
        tokens[count] = at;
        lens[count] = strcspn(at, ".");
        at += lens[count++];
        if (*at++ == '\0')
            break;
    }
    size_t first = count == SHORT ? 4 : 6;
    if ((count != SHORT && count < LONG) || strncmp(reply, "$JS.ACK.", 8) != 0)
        return TD_EPROTO;
    struct td_js_numbers numbers;
    uint64_t stored = 0;
    int r = td_text_u64(tokens[first], lens[first], &numbers.deliveries);
    if (r == 0)
        r = td_text_u64(tokens[first + 1], lens[first + 1], &numbers.sequence);
    if (r == 0)
        r = td_text_u64(tokens[first + 2], lens[first + 2], &numbers.consumed);
    if (r == 0)
        r = td_text_u64(tokens[first + 3], lens[first + 3], &stored);
    if (r == 0)
        r = td_text_u64(tokens[first + 4], lens[first + 4], &numbers.pending);
    if (r < 0 || stored > INT64_MAX)
        return TD_EPROTO;
    numbers.stored_ns = (int64_t)stored;
    numbers.name = (struct td_bytes){tokens[first - 1], lens[first - 1]};
    *ret_numbers = numbers;
    return 0;
}
