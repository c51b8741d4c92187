#include "wire/message.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"

enum kind { KIND_u8, KIND_u32, KIND_u64, KIND_i32, KIND_i64, KIND_key, KIND_bytes, KIND_tail };

struct field {
    enum kind kind;
    size_t offset;
    const char *name;
};

#define FIELD_ROW(m, kind, field) {KIND_##kind, offsetof(struct td_msg_##m, field), #field},
#define FIELD_TABLE(number, NAME, name) \
    static const struct field fields_##name[] = {TD_FIELDS_##name(FIELD_ROW, name)};
TD_MESSAGES(FIELD_TABLE)

struct layout {
    const char *name;
    const struct field *fields;
    size_t count;
};

#define LAYOUT_ROW(number, NAME, name) [number] = {#NAME, fields_##name, TD_COUNT(fields_##name)},
static const struct layout layouts[] = {TD_MESSAGES(LAYOUT_ROW)};

/* Every message begins at the same offset of struct td_message. */
#define SAME_OFFSET(number, NAME, name) \
    static_assert(offsetof(struct td_message, name) == offsetof(struct td_message, hello), "");
TD_MESSAGES(SAME_OFFSET)

static const struct layout *layout_of(int type)
{
    if (type < 0 || (size_t)type >= TD_COUNT(layouts) || !layouts[type].name)
        return NULL;
    return &layouts[type];
}

const char *td_message_name(int type)
{
    const struct layout *layout = layout_of(type);
    return layout ? layout->name : "?";
}

/* Bytes of a fixed-size kind on the wire; 0 for the others. */
static size_t fixed_size(enum kind kind)
{
    switch (kind) {
    case KIND_u8: return 1;
    case KIND_u32:
    case KIND_i32: return 4;
    case KIND_u64:
    case KIND_i64: return 8;
    case KIND_key: return TD_KEY_SIZE;
    case KIND_bytes:
    case KIND_tail: return 0;
    }
    return 0;
}

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "integers are copied as they lie in memory; add swaps for a big-endian machine");

static int encode_bytes(const struct field *field, struct td_bytes value, struct td_buf *head,
                        struct td_error *err)
{
    if (value.len > TD_WIRE_BYTES_MAX)
        return td_error_set(err, TD_ELIMIT, "field %s has %zu bytes, at most %d are allowed",
                            field->name, value.len, TD_WIRE_BYTES_MAX);
    uint32_t len = (uint32_t)value.len;
    int r = td_buf_add(head, &len, sizeof len);
    if (r == 0)
        r = td_buf_add(head, value.data, value.len);
    return r < 0 ? td_error_set(err, r, "message head: %s", td_status_text(r)) : 0;
}

static int encode_field(const struct field *field, const void *value, struct td_buf *head,
                        struct td_error *err)
{
    if (field->kind == KIND_bytes)
        return encode_bytes(field, *(const struct td_bytes *)value, head, err);
    int r = td_buf_add(head, value, fixed_size(field->kind));
    return r < 0 ? td_error_set(err, r, "message head: %s", td_status_text(r)) : 0;
}

static int encode(const struct layout *layout, const struct td_message *message,
                  struct td_buf *head, struct td_bytes *ret_tail, struct td_error *err)
{
    const char *base = (const char *)&message->hello;
    struct td_bytes tail = {0};
    size_t start = head->len;
    unsigned char type = (unsigned char)message->type;
    int r = td_buf_add(head, &type, 1);
    if (r < 0)
        return td_error_set(err, r, "message head: %s", td_status_text(r));

    for (size_t i = 0; i < layout->count; i++) {
        const struct field *field = &layout->fields[i];
        const void *value = base + field->offset;
        if (field->kind == KIND_tail) {
            tail = *(const struct td_bytes *)value;
            continue;
        }
        r = encode_field(field, value, head, err);
        if (r < 0)
            return r;
    }
    if (tail.len > TD_FRAME_MAX - (head->len - start))
        return td_error_set(err, TD_ELIMIT, "a value of %zu bytes does not fit in a message of %zu",
                            tail.len, TD_FRAME_MAX);
    *ret_tail = tail;
    return 0;
}

int td_message_encode(const struct td_message *message, struct td_buf *head,
                      struct td_bytes *ret_tail, struct td_error *err)
{
    const struct layout *layout = layout_of((int)message->type);
    if (!layout)
        return td_error_set(err, TD_EINVAL, "no message of type %d", (int)message->type);
    size_t start = head->len;
    int r = encode(layout, message, head, ret_tail, err);
    if (r < 0)
        head->len = start; /* half a message is of no use to anybody */
    return r;
}

/* Where a message keeps its tail; NULL: its kind has none. */
static struct td_bytes *tail_of(struct td_message *message)
{
    const struct layout *layout = layout_of((int)message->type);
    const struct field *last = layout ? &layout->fields[layout->count - 1] : NULL;
    if (!last || last->kind != KIND_tail)
        return NULL;
    return (struct td_bytes *)(void *)((char *)&message->hello + last->offset);
}

int td_message_attach(struct td_message *message, struct td_blob *shared, struct td_error *err)
{
    struct td_bytes *tail = tail_of(message);
    if (!tail || tail->len)
        return td_error_set(err, TD_EPROTO, "%s: a value too many",
                            td_message_name((int)message->type));
    *tail = td_blob_bytes(shared);
    message->shared = shared;
    return 0;
}

struct td_blob *td_message_tail(const struct td_message *message)
{
    if (message->shared)
        return td_blob_ref(message->shared);
    const struct td_bytes *tail = tail_of((struct td_message *)message);
    return tail ? td_blob_new(tail->data, tail->len) : NULL;
}

static int short_frame(const struct layout *layout, const char *field, struct td_error *err)
{
    return td_error_set(err, TD_EPROTO, "%s: the frame ends inside field %s", layout->name, field);
}

int td_message_decode(struct td_bytes frame, struct td_message *ret_message, struct td_error *err)
{
    const unsigned char *p = frame.data;
    size_t left = frame.len;
    if (left == 0)
        return td_error_set(err, TD_EPROTO, "empty frame");
    const struct layout *layout = layout_of(p[0]);
    if (!layout)
        return td_error_set(err, TD_EPROTO, "unknown message type %d", p[0]);

    struct td_message message = {.type = (enum td_message_type)p[0]};
    char *base = (char *)&message.hello;
    bool whole = false;
    p++;
    left--;
    for (size_t i = 0; i < layout->count; i++) {
        const struct field *field = &layout->fields[i];
        size_t size = fixed_size(field->kind);
        uint32_t len = 0;
        if (field->kind == KIND_bytes)
            size = sizeof len;
        if (left < size)
            return short_frame(layout, field->name, err);
        if (field->kind == KIND_tail) {
            *(struct td_bytes *)(void *)(base + field->offset) = (struct td_bytes){p, left};
            whole = true;
            continue;
        }
        if (field->kind != KIND_bytes) {
            memcpy(base + field->offset, p, size);
            p += size;
            left -= size;
            continue;
        }
        memcpy(&len, p, sizeof len);
        p += sizeof len;
        left -= sizeof len;
        if (len > left || len > TD_WIRE_BYTES_MAX)
            return short_frame(layout, field->name, err);
        *(struct td_bytes *)(void *)(base + field->offset) = (struct td_bytes){p, len};
        p += len;
        left -= len;
    }
    if (left && !whole)
        return td_error_set(err, TD_EPROTO, "%s: %zu bytes too many", layout->name, left);
    *ret_message = message;
    return 0;
}
