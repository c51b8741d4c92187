/* A stream of bytes, however it is cut into reads, gives the frames that a reading in one piece
 * gives. The first byte chooses how it is cut. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "os/channel.h"
#include "os/fd.h"
#include "os/loop.h"

enum { FRAME_MAX = 1000, STREAM_MAX = 20000 };

/* Reads the stream again, in one piece, beside the channel. */
struct reader {
    const uint8_t *at;
    size_t left;
    bool over;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next whole frame: its length, or -1 when there is none. */
static int next_length(const struct reader *reader)
{
    uint32_t length;
    if (reader->left < sizeof length)
        return -1;
    memcpy(&length, reader->at, sizeof length);
    if (length > FRAME_MAX || length > reader->left - sizeof length)
        return -1;
    return (int)length;
}

static void on_frame(void *context, struct td_bytes frame)
{
    struct reader *reader = context;
    int length = next_length(reader);
    if (reader->over || length < 0 || frame.len != (size_t)length ||
        memcmp(frame.data, reader->at + 4, frame.len) != 0)
        abort();
    reader->at += 4 + length;
    reader->left -= 4 + (size_t)length;
}

static void on_closed(void *context, const char *reason)
{
    struct reader *reader = context;
    if (reader->over || !reason[0])
        abort();
    reader->over = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct td_channel_events events = {.frame = on_frame, .closed = on_closed};
    struct td_channel_options options = {.frame_max = FRAME_MAX, .queue_max = FRAME_MAX};
    struct td_loop *loop;
    struct td_channel *channel;
    int pair[2];
    if (size < 1 || size > STREAM_MAX)
        return 0;
    size_t step = (size_t)data[0] * 7 + 1;
    data++;
    size--;
    struct reader reader = {.at = data, .left = size};
    if (td_loop_new(&loop, NULL) < 0 || td_fd_socketpair(pair, NULL) < 0 ||
        td_channel_new(loop, &pair[0], options, &events, &reader, &channel, NULL) < 0)
        abort();
    for (size_t at = 0; at < size && !reader.over; at += step) {
        size_t n = size - at < step ? size - at : step;
        if (write(pair[1], data + at, n) != (ssize_t)n)
            abort();
        td_channel_read_now(channel);
    }
    if (!reader.over && next_length(&reader) >= 0)
        abort(); /* a whole frame was not delivered */
    td_fd_close(&pair[1]);
    td_channel_read_now(channel);
    if (!reader.over)
        abort();
    td_channel_free(channel);
    td_loop_free(loop);
    return 0;
}
