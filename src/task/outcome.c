#include "task/outcome.h"

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "wire/message.h"

static const struct {
    bool retriable;
    const char *words;
} kinds[] = {
#define TD_OUTCOME_ROW(number, NAME, retry, words) [number] = {retry, words},
    TD_OUTCOMES(TD_OUTCOME_ROW)
#undef TD_OUTCOME_ROW
};

struct td_outcome *td_outcome_new(uint64_t map, uint64_t index, uint32_t attempt, uint8_t status)
{
    struct td_outcome *outcome = td_alloc(sizeof *outcome);
    if (!outcome)
        return NULL;
    *outcome = (struct td_outcome){
        .map = map, .index = index, .count = 1, .attempt = attempt, .status = status};
    td_list_init(&outcome->link);
    return outcome;
}

struct td_outcome *td_outcome_part(const struct td_outcome *outcome, uint64_t index, uint32_t count)
{
    struct td_outcome *part = td_memdup(outcome, sizeof *outcome);
    if (!part)
        return NULL;
    td_list_init(&part->link);
    part->index = index;
    part->count = count;
    part->skip = outcome->skip + (uint32_t)(index - outcome->index);
    part->duration_ns = outcome->duration_ns / outcome->count * count;
    td_blob_ref(part->value);
    td_blob_ref(part->last_output);
    td_blob_ref(part->detail);
    return part;
}

struct td_outcome *td_outcome_free(struct td_outcome *outcome)
{
    if (!outcome)
        return NULL;
    td_list_remove(&outcome->link);
    td_blob_unref(outcome->value);
    td_blob_unref(outcome->last_output);
    td_blob_unref(outcome->detail);
    td_free(outcome);
    return NULL;
}

void td_outcome_freep(struct td_outcome **outcome)
{
    *outcome = td_outcome_free(*outcome);
}

bool td_outcome_valid(uint8_t status)
{
    return status < TD_COUNT(kinds);
}

bool td_outcome_retriable(uint8_t status)
{
    return td_outcome_valid(status) && kinds[status].retriable;
}

const char *td_outcome_words(uint8_t status)
{
    return td_outcome_valid(status) ? kinds[status].words : "?";
}

void td_outcome_message(const struct td_outcome *outcome, struct td_message *ret_message)
{
    *ret_message = (struct td_message){
        .type = TD_MSG_OUTCOME,
        .outcome = {.map = outcome->map,
                    .index = outcome->index,
                    .count = outcome->count,
                    .skip = outcome->skip,
                    .attempt = outcome->attempt,
                    .status = outcome->status,
                    .code = outcome->code,
                    .pid = outcome->pid,
                    .started_ns = outcome->started_ns,
                    .duration_ns = outcome->duration_ns,
                    .peak_bytes = outcome->peak_bytes,
                    .limit_bytes = outcome->limit_bytes,
                    .last_output = td_blob_bytes(outcome->last_output),
                    .detail = td_blob_bytes(outcome->detail)}};
}

/* Empty bytes become NULL: there is nothing to be said. */
static int copy(struct td_bytes bytes, struct td_blob **ret_blob)
{
    if (bytes.len == 0)
        return 0;
    *ret_blob = td_blob_new(bytes.data, bytes.len);
    return *ret_blob ? 0 : TD_ENOMEM;
}

int td_outcome_from(const struct td_message *message, struct td_outcome **ret_outcome)
{
    const struct td_msg_outcome *from = &message->outcome;
    if (!td_outcome_valid(from->status) || from->count == 0)
        return TD_EPROTO;
    TD_CLEANUP(td_outcome_freep)
    struct td_outcome *outcome = td_outcome_new(from->map, from->index, from->attempt,
                                                from->status);
    if (!outcome)
        return TD_ENOMEM;
    outcome->count = from->count;
    outcome->skip = from->skip;
    outcome->code = from->code;
    outcome->pid = from->pid;
    outcome->started_ns = from->started_ns;
    outcome->duration_ns = from->duration_ns;
    outcome->peak_bytes = from->peak_bytes;
    outcome->limit_bytes = from->limit_bytes;
    bool has_value = from->status == TD_OUTCOME_OK || from->status == TD_OUTCOME_RAISED;
    outcome->value = has_value ? td_message_tail(message) : NULL;
    int r = has_value && !outcome->value ? TD_ENOMEM : 0;
    if (r == 0)
        r = copy(from->last_output, &outcome->last_output);
    if (r == 0)
        r = copy(from->detail, &outcome->detail);
    if (r < 0)
        return r;
    *ret_outcome = TD_TAKE(outcome);
    return 0;
}
