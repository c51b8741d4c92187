/* fuzz_corpus FOLDER: writes a small corpus for the fuzz targets, one valid message of each type
 * (FOLDER/message) and streams of them (FOLDER/channel), made from the table of messages. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "wire/message.h"

static const char sample[TD_KEY_SIZE + 1] = "0123456789abcdef0123456789abcdef";

#define FILL_u8(at)  (at) = 1
#define FILL_u32(at) (at) = 2
#define FILL_u64(at) (at) = 3
#define FILL_i32(at) (at) = -1
#define FILL_i64(at) (at) = -2
#define FILL_key(at) memcpy((at).bytes, sample, TD_KEY_SIZE)
#define FILL_bytes(at)       \
    (at) = (struct td_bytes) \
    {                        \
        sample, 5            \
    }
#define FILL_tail(at)        \
    (at) = (struct td_bytes) \
    {                        \
        sample, 9            \
    }

#define FILL_FIELD(m, kind, field) FILL_##kind(message->m.field);
#define FILL_CASE(number, NAME, name) \
    case TD_MSG_##NAME: TD_FIELDS_##name(FILL_FIELD, name) break;

static void fill(struct td_message *message)
{
    switch (message->type) {
        TD_MESSAGES(FILL_CASE)
    }
}

static const enum td_message_type types[] = {
#define TYPE(number, NAME, name) TD_MSG_##NAME,
    TD_MESSAGES(TYPE)
#undef TYPE
};

static int write_file(const char *folder, const char *kind, const char *name,
                      const struct td_buf *content)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", folder, kind);
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return -1;
    (void)snprintf(path, sizeof path, "%s/%s/%s", folder, kind, name);
    FILE *file = fopen(path, "we");
    if (!file)
        return -1;
    size_t n = fwrite(content->data, 1, content->len, file);
    return fclose(file) == 0 && n == content->len ? 0 : -1;
}

/* One message alone, and at the end of the stream. */
static int add(const char *folder, enum td_message_type type, struct td_buf *stream)
{
    struct td_message message = {.type = type};
    struct td_buf frame;
    struct td_bytes tail;
    td_buf_init(&frame, 4096);
    fill(&message);
    int r = td_message_encode(&message, &frame, &tail, NULL);
    if (r == 0)
        r = td_buf_add(&frame, tail.data, tail.len);
    if (r == 0)
        r = write_file(folder, "message", td_message_name(type), &frame);
    uint32_t length = (uint32_t)frame.len;
    if (r == 0)
        r = td_buf_add(stream, &length, sizeof length);
    if (r == 0)
        r = td_buf_add(stream, frame.data, frame.len);
    td_buf_done(&frame);
    return r;
}

int main(int argc, char **argv)
{
    static const char *const steps[] = {"\0", "\1", "\20", "\377"};
    if (argc != 2) {
        (void)fprintf(stderr, "usage: fuzz_corpus FOLDER\n");
        return 2;
    }
    int r = mkdir(argv[1], 0755) < 0 && errno != EEXIST ? -1 : 0;
    for (size_t step = 0; step < sizeof steps / sizeof steps[0] && r == 0; step++) {
        struct td_buf stream;
        char name[32];
        td_buf_init(&stream, 1 << 20);
        r = td_buf_add(&stream, steps[step], 1);
        for (size_t i = 0; i < sizeof types / sizeof types[0] && r == 0; i++)
            r = add(argv[1], types[i], &stream);
        (void)snprintf(name, sizeof name, "stream-%zu", step);
        if (r == 0)
            r = write_file(argv[1], "channel", name, &stream);
        td_buf_done(&stream);
    }
    if (r < 0)
        perror(argv[1]);
    return r < 0 ? 1 : 0;
}
