#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/blob.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "os/channel.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/loop.h"
#include "os/memfile.h"

enum { FRAME_MAX = 8 << 20, QUEUE_MAX = 1 << 20, END_MAX = 64 };

/* One end of a connection and what it has seen. */
struct end {
    struct td_loop *loop;
    struct td_channel *channel;
    struct td_buf seen; /* each frame's bytes, and '|' behind it */
    size_t frames;
    int closed;
    char reason[128];
    void (*on_frame)(struct end *end, struct td_bytes frame);
    size_t stop_after; /* frames; 0: never */
    int fds[END_MAX];  /* taken, -1 for a frame that came without */
    size_t nfds;
};

struct bench {
    struct td_loop *loop;
    struct end a;
    struct end b;
    int raw;  /* the other side of b where a test speaks bytes itself */
    int copy; /* of b's own side, as a forked child would have it */
    size_t fds_before;
};

static void on_frame(void *context, struct td_bytes frame)
{
    struct end *end = context;
    end->frames++;
    if (end->on_frame)
        end->on_frame(end, frame);
    else {
        assert_int_equal(td_buf_add(&end->seen, frame.data, frame.len), 0);
        assert_int_equal(td_buf_add(&end->seen, "|", 1), 0);
    }
    if (end->frames == end->stop_after)
        td_loop_stop(end->loop);
}

static void on_closed(void *context, const char *reason)
{
    struct end *end = context;
    end->closed++;
    strncpy(end->reason, reason, sizeof end->reason - 1);
    td_loop_stop(end->loop);
}

static const struct td_channel_events events = {.frame = on_frame, .closed = on_closed};
static const struct td_channel_options options = {.frame_max = FRAME_MAX, .queue_max = QUEUE_MAX};

static void end_open(struct bench *bench, struct end *end, int *fd)
{
    end->loop = bench->loop;
    td_buf_init(&end->seen, (size_t)64 << 20);
    assert_int_equal(td_channel_new(bench->loop, fd, options, &events, end, &end->channel, NULL),
                     0);
    assert_int_equal(*fd, -1);
}

static struct bench *bench_new(void)
{
    size_t fds_before = support_fds();
    struct bench *bench = td_alloc_zero(sizeof *bench);
    assert_non_null(bench);
    bench->fds_before = fds_before;
    bench->raw = bench->copy = -1;
    assert_int_equal(td_loop_new(&bench->loop, NULL), 0);
    return bench;
}

/* Two channels, a and b. */
static int setup_pair(void **state)
{
    struct bench *bench = bench_new();
    int pair[2];
    assert_int_equal(td_fd_socketpair(pair, NULL), 0);
    end_open(bench, &bench->a, &pair[0]);
    end_open(bench, &bench->b, &pair[1]);
    *state = bench;
    return 0;
}

/* One channel, b; the test itself is the other side. */
static int setup_raw(void **state)
{
    struct bench *bench = bench_new();
    int pair[2];
    assert_int_equal(td_fd_socketpair(pair, NULL), 0);
    bench->raw = pair[0];
    bench->copy = dup(pair[1]);
    end_open(bench, &bench->b, &pair[1]);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    bench->a.channel = td_channel_free(bench->a.channel);
    bench->b.channel = td_channel_free(bench->b.channel);
    td_buf_done(&bench->a.seen);
    td_buf_done(&bench->b.seen);
    td_fd_close(&bench->raw);
    td_fd_close(&bench->copy);
    td_loop_free(bench->loop);
    size_t fds_before = bench->fds_before;
    td_free(bench);
    assert_int_equal(support_fds(), fds_before); /* nothing was left open */
    return 0;
}

static void on_time_up(void *context)
{
    td_loop_stop(context);
}

static void run(struct bench *bench, int64_t ms)
{
    struct td_timer end = {.fn = on_time_up, .context = bench->loop};
    assert_int_equal(td_loop_timer(bench->loop, &end, td_clock_now() + ms * TD_NS_PER_MS), 0);
    assert_int_equal(td_loop_run(bench->loop), 0);
    td_loop_untimer(bench->loop, &end);
}

static void saw(const struct end *end, const char *text)
{
    assert_int_equal(end->seen.len, strlen(text));
    assert_memory_equal(end->seen.data, text, end->seen.len);
}

static int send_text(struct end *end, const char *text)
{
    return td_channel_send(end->channel, (struct td_bytes){text, strlen(text)}, NULL);
}

static void test_channel_both_ways(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(send_text(&bench->a, "one"), 0);
    assert_int_equal(send_text(&bench->a, ""), 0);
    assert_int_equal(send_text(&bench->a, "three"), 0);
    assert_int_equal(send_text(&bench->b, "back"), 0);
    bench->b.stop_after = 3;
    run(bench, 1000);
    bench->b.stop_after = 0;
    run(bench, 5);
    saw(&bench->b, "one||three|");
    saw(&bench->a, "back|");
}

static void test_channel_tail(void **state)
{
    struct bench *bench = *state;
    struct td_blob *tail = td_blob_new("tail", 4);
    assert_int_equal(td_channel_send(bench->a.channel, (struct td_bytes){"head+", 5}, tail), 0);
    assert_int_equal(td_channel_send(bench->a.channel, (struct td_bytes){NULL, 0}, tail), 0);
    td_blob_unrefp(&tail);
    bench->b.stop_after = 2;
    run(bench, 1000);
    saw(&bench->b, "head+tail|tail|");
}

static char big[5 << 20];

static void check_big(struct end *end, struct td_bytes frame)
{
    (void)end;
    const char *bytes = frame.data;
    assert_int_equal(frame.len, 4 + sizeof big);
    assert_memory_equal(bytes, "head", 4);
    assert_memory_equal(bytes + 4, big, sizeof big);
}

static void test_channel_big(void **state)
{
    struct bench *bench = *state;
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)support_random(&seed);
    struct td_blob *tail = td_blob_new(big, sizeof big);
    assert_non_null(tail);
    bench->b.on_frame = check_big;
    bench->b.stop_after = 1;
    for (size_t i = 1; i <= 3; i++) {
        bench->b.stop_after = i;
        assert_int_equal(td_channel_send(bench->a.channel, (struct td_bytes){"head", 4}, tail), 0);
        run(bench, 3000);
        assert_int_equal(bench->b.frames, i);
        assert_int_equal(td_channel_queued(bench->a.channel), 0);
    }
    td_blob_unrefp(&tail);
}

static void test_channel_queue_max(void **state)
{
    struct bench *bench = *state;
    struct td_blob *tail = td_blob_new(big, 300000);
    size_t sent = 0;
    int r = 0;
    while (r == 0 && sent < 100) {
        r = td_channel_send(bench->a.channel, (struct td_bytes){"x", 1}, tail);
        sent += r == 0;
    }
    td_blob_unrefp(&tail);
    assert_int_equal(r, TD_ELIMIT);
    assert_true(td_channel_queued(bench->a.channel) > QUEUE_MAX);
    bench->b.stop_after = sent;
    run(bench, 3000);
    assert_int_equal(bench->b.frames, sent); /* what was taken is delivered */
    assert_int_equal(td_channel_queued(bench->a.channel), 0);
    assert_int_equal(send_text(&bench->a, "again"), 0);
}

static void test_channel_frame_max(void **state)
{
    struct bench *bench = *state;
    struct td_blob *tail = td_blob_new(NULL, 0);
    struct td_bytes head = {big, (size_t)FRAME_MAX + 1}; /* refused before a byte is looked at */
    assert_int_equal(td_channel_send(bench->a.channel, head, tail), TD_ELIMIT);
    td_blob_unrefp(&tail);
    assert_int_equal(td_channel_queued(bench->a.channel), 0);
}

/* However the bytes are cut on the way, the frames are the same. */
static void test_channel_byte_by_byte(void **state)
{
    struct bench *bench = *state;
    static const char bytes[] = "\3\0\0\0abc\0\0\0\0\1\0\0\0d";
    for (size_t i = 0; i < sizeof bytes - 1; i++) {
        assert_int_equal(write(bench->raw, bytes + i, 1), 1);
        td_channel_read_now(bench->b.channel);
    }
    saw(&bench->b, "abc||d|");
    assert_int_equal(write(bench->raw, bytes, sizeof bytes - 1), sizeof bytes - 1);
    td_channel_read_now(bench->b.channel);
    saw(&bench->b, "abc||d|abc||d|");
}

static void test_channel_frame_too_long(void **state)
{
    struct bench *bench = *state;
    static const char bytes[] = "\1\0\0\0a\1\0\200\0";
    assert_int_equal(write(bench->raw, bytes, 9), 9);
    run(bench, 1000);
    saw(&bench->b, "a|");
    assert_int_equal(bench->b.closed, 1);
    assert_non_null(strstr(bench->b.reason, "longer than allowed"));
    assert_int_equal(send_text(&bench->b, "x"), TD_ECLOSED);
}

/* Nonsense is found by its type: nobody waits for the gigabyte that "hello" announces. */
static void test_channel_types(void **state)
{
    static const uint8_t types[] = {'a', 'b'};
    struct bench *bench = bench_new();
    struct td_channel_options only = options;
    int pair[2];
    only.types = types;
    only.ntypes = sizeof types;
    bench->b.loop = bench->loop;
    td_buf_init(&bench->b.seen, 100);
    assert_int_equal(td_fd_socketpair(pair, NULL), 0);
    bench->raw = pair[0];
    assert_int_equal(
        td_channel_new(bench->loop, &pair[1], only, &events, &bench->b, &bench->b.channel, NULL),
        0);
    assert_int_equal(write(bench->raw, "\1\0\0\0b\2\0\0\0ax\5\0\0\0", 15), 15);
    run(bench, 20);
    saw(&bench->b, "b|ax|");
    assert_int_equal(bench->b.closed, 0);
    assert_int_equal(write(bench->raw, "hello", 5), 5);
    run(bench, 1000);
    assert_int_equal(bench->b.closed, 1);
    assert_non_null(strstr(bench->b.reason, "unexpected type"));
    *state = bench;
    (void)teardown(state);
}

/* A claimed length costs nothing until the bytes come. */
static void test_channel_length_is_only_a_claim(void **state)
{
    struct bench *bench = *state;
    static const char bytes[] = "\0\0\177\0some"; /* 8323072 bytes are announced */
    td_mem_fail(3, 1); /* the timer of run() and one small run of bytes */
    assert_int_equal(write(bench->raw, bytes, 8), 8);
    run(bench, 5);
    td_mem_fail(0, 0);
    assert_int_equal(bench->b.closed, 0);
}

static void test_channel_no_memory_to_read(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(write(bench->raw, "\1\0\0\0a", 5), 5);
    td_mem_fail(2, 1); /* the first is the timer of run() */
    run(bench, 1000);
    td_mem_fail(0, 0);
    assert_int_equal(bench->b.closed, 1);
    assert_non_null(strstr(bench->b.reason, "memory"));
}

static void test_channel_no_memory_to_send(void **state)
{
    struct bench *bench = *state;
    td_mem_fail(1, 0);
    assert_int_equal(send_text(&bench->a, "x"), TD_ENOMEM);
    assert_int_equal(send_text(&bench->a, "y"), 0);
    bench->b.stop_after = 1;
    run(bench, 1000);
    saw(&bench->b, "y|");
}

static void test_channel_new_fails(void **state)
{
    (void)state;
    size_t before = support_fds();
    struct td_loop *loop;
    struct td_channel *channel = NULL;
    int pair[2];
    assert_int_equal(td_loop_new(&loop, NULL), 0);
    assert_int_equal(td_fd_socketpair(pair, NULL), 0);
    td_mem_fail(1, 0);
    assert_int_equal(td_channel_new(loop, &pair[0], options, &events, NULL, &channel, NULL),
                     TD_ENOMEM);
    assert_true(pair[0] >= 0); /* still the caller's */
    int bad = 9999;
    assert_int_equal(td_channel_new(loop, &bad, options, &events, NULL, &channel, NULL), TD_ESYS);
    assert_null(channel);
    assert_null(td_channel_free(NULL));
    td_fd_close(&pair[0]);
    td_fd_close(&pair[1]);
    td_loop_free(loop);
    assert_int_equal(support_fds(), before);
}

/* What the peer said before it went is delivered first. */
static void test_channel_peer_closes(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(send_text(&bench->a, "last words"), 0);
    bench->a.channel = td_channel_free(bench->a.channel);
    run(bench, 1000);
    run(bench, 5);
    saw(&bench->b, "last words|");
    assert_int_equal(bench->b.closed, 1);
    assert_non_null(strstr(bench->b.reason, "closed the connection"));
    assert_int_equal(send_text(&bench->b, "x"), TD_ECLOSED);
}

/* Did the peer read everything before it closed? */
static void test_channel_unread(void **state)
{
    struct bench *bench = *state;
    char byte;
    assert_int_equal(send_text(&bench->b, "x"), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(read(bench->raw, &byte, 1), 1);
    td_fd_close(&bench->raw);
    run(bench, 1000);
    assert_int_equal(bench->b.closed, 1);
    assert_false(td_channel_unread(bench->b.channel));
}

static void test_channel_unread_in_socket(void **state)
{
    struct bench *bench = *state;
    char byte;
    assert_int_equal(send_text(&bench->b, "x"), 0);
    assert_int_equal(read(bench->raw, &byte, 1), 1); /* the others are left */
    td_fd_close(&bench->raw);
    run(bench, 1000);
    assert_int_equal(bench->b.closed, 1);
    assert_true(td_channel_unread(bench->b.channel));
}

static void test_channel_unread_when_closed(void **state)
{
    struct bench *bench = *state;
    td_fd_close(&bench->raw);
    assert_int_equal(send_text(&bench->b, "x"), 0); /* it is not known yet */
    run(bench, 1000);
    assert_int_equal(bench->b.closed, 1);
    assert_true(td_channel_unread(bench->b.channel));
}

static void *close_after_end(void *context)
{
    int *fd = context;
    char byte;
    while (read(*fd, &byte, 1) > 0)
        continue;
    (void)poll(NULL, 0, 20);
    td_fd_close(fd);
    return NULL;
}

/* It hears the end although somebody has a copy of our socket; we wait until it has closed. */
static void test_channel_hang_up(void **state)
{
    struct bench *bench = *state;
    pthread_t thread;
    int64_t began = td_clock_now();
    int64_t deadline = began + 5 * TD_NS_PER_S;
    assert_int_equal(send_text(&bench->b, "good bye"), 0);
    assert_int_equal(pthread_create(&thread, NULL, close_after_end, &bench->raw), 0);
    bench->b.channel = td_channel_hang_up(bench->b.channel, deadline);
    assert_null(bench->b.channel);
    assert_true(td_clock_now() >= began + 20 * TD_NS_PER_MS);
    assert_true(td_clock_now() < deadline);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(bench->b.closed, 0); /* no events */
    assert_null(td_channel_hang_up(NULL, 0));
}

static void test_channel_hang_up_deadline(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(write(bench->raw, "\1\0\0\0a", 5), 5); /* what still comes is dropped */
    int64_t deadline = td_clock_now() + 30 * TD_NS_PER_MS;
    bench->b.channel = td_channel_hang_up(bench->b.channel, deadline);
    assert_true(td_clock_now() >= deadline);
    saw(&bench->b, "");
}

/* Sending to a peer that is gone does not end reading what it said. */
static void test_channel_send_to_closed(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(write(bench->raw, "\1\0\0\0a", 5), 5);
    assert_int_equal(shutdown(bench->raw, SHUT_RD), 0);
    (void)send_text(&bench->b, "nobody reads this");
    assert_int_equal(td_channel_queued(bench->b.channel), 0);
    (void)send_text(&bench->b, "nor this");
    assert_int_equal(bench->b.closed, 0);
    bench->b.stop_after = 1;
    run(bench, 1000);
    saw(&bench->b, "a|");
    td_fd_close(&bench->raw);
    run(bench, 1000);
    assert_int_equal(bench->b.closed, 1);
}

static void free_on_frame(struct end *end, struct td_bytes frame)
{
    (void)frame;
    end->channel = td_channel_free(end->channel);
}

static void test_channel_free_in_frame(void **state)
{
    struct bench *bench = *state;
    bench->b.on_frame = free_on_frame;
    assert_int_equal(write(bench->raw, "\1\0\0\0a\1\0\0\0b", 10), 10);
    run(bench, 5);
    assert_int_equal(bench->b.frames, 1); /* none after the free */
    assert_int_equal(bench->b.closed, 0);
}

static void free_on_closed(void *context, const char *reason)
{
    (void)reason;
    struct end *end = context;
    end->closed++;
    end->channel = td_channel_free(end->channel);
    td_loop_stop(end->loop);
}

static void test_channel_free_in_closed(void **state)
{
    (void)state;
    static const struct td_channel_events freeing = {.frame = on_frame, .closed = free_on_closed};
    struct bench *bench = bench_new();
    int pair[2];
    assert_int_equal(td_fd_socketpair(pair, NULL), 0);
    bench->b.loop = bench->loop;
    assert_int_equal(td_channel_new(bench->loop, &pair[0], options, &freeing, &bench->b,
                                    &bench->b.channel, NULL),
                     0);
    td_fd_close(&pair[1]);
    run(bench, 1000);
    assert_int_equal(bench->b.closed, 1);
    assert_null(bench->b.channel);
    void *again = bench;
    (void)teardown(&again);
}

static void pause_on_frame(struct end *end, struct td_bytes frame)
{
    (void)frame;
    td_channel_pause(end->channel, true);
}

static void test_channel_pause(void **state)
{
    struct bench *bench = *state;
    bench->b.on_frame = pause_on_frame;
    assert_int_equal(send_text(&bench->a, "1"), 0);
    assert_int_equal(send_text(&bench->a, "2"), 0);
    assert_int_equal(send_text(&bench->a, "3"), 0);
    bench->a.channel = td_channel_free(bench->a.channel); /* the end waits behind the frames */
    for (size_t i = 1; i <= 3; i++) {
        run(bench, 5);
        assert_int_equal(bench->b.frames, i);
        td_channel_read_now(bench->b.channel); /* nothing is read while paused */
        assert_int_equal(bench->b.frames, i);
        assert_int_equal(bench->b.closed, 0);
        td_channel_pause(bench->b.channel, false); /* delivers the next, which pauses again */
    }
    td_channel_pause(bench->b.channel, false);
    run(bench, 1000);
    assert_int_equal(bench->b.closed, 1);
}

/* Opens something that can be told apart from others: a pipe's write end. */
static int marker_new(int *ret_read)
{
    int ends[2];
    assert_int_equal(td_fd_pipe(ends, NULL), 0);
    *ret_read = ends[0];
    return ends[1];
}

/* Does a byte written to fd come out at `reader`? */
static bool leads_to(int fd, int reader)
{
    char byte;
    return write(fd, "x", 1) == 1 && read(reader, &byte, 1) == 1;
}

static void take_on_frame(struct end *end, struct td_bytes frame)
{
    size_t wanted = ((const unsigned char *)frame.data)[0] - '0';
    for (size_t i = 0; i < wanted; i++)
        end->fds[end->nfds++] = td_channel_take_fd(end->channel);
}

static void close_taken(struct end *end)
{
    for (size_t i = 0; i < end->nfds; i++)
        td_fd_close(&end->fds[i]);
    end->nfds = 0;
}

static void test_channel_fds(void **state)
{
    struct bench *bench = *state;
    struct td_channel *a = bench->a.channel;
    int readers[4], writers[4];
    for (int i = 0; i < 4; i++)
        writers[i] = marker_new(&readers[i]);
    bench->b.on_frame = take_on_frame;
    bench->b.stop_after = 4;
    assert_int_equal(send_text(&bench->a, "1"), 0); /* wants one and none came */
    assert_int_equal(td_channel_send_fds(a, (struct td_bytes){"2", 1}, writers, 2), 0);
    assert_int_equal(td_channel_send_fds(a, (struct td_bytes){"0", 1}, writers + 2, 1), 0);
    assert_int_equal(td_channel_send_fds(a, (struct td_bytes){"2", 1}, writers + 3, 1), 0);
    assert_int_equal(td_channel_send_fds(a, (struct td_bytes){"x", 1}, writers, 5), TD_EINVAL);
    run(bench, 1000);
    assert_int_equal(bench->b.nfds, 5);
    assert_int_equal(bench->b.fds[0], -1);
    assert_true(leads_to(bench->b.fds[1], readers[0]));
    assert_true(leads_to(bench->b.fds[2], readers[1]));
    assert_true(leads_to(bench->b.fds[3], readers[3])); /* not the one that nobody took */
    assert_int_equal(bench->b.fds[4], -1);
    assert_true(fcntl(bench->b.fds[1], F_GETFD) & FD_CLOEXEC);
    close_taken(&bench->b);
    for (int i = 0; i < 4; i++) {
        td_fd_close(&writers[i]);
        td_fd_close(&readers[i]);
    }
}

static void test_channel_fds_many(void **state)
{
    struct bench *bench = *state;
    int reader;
    int writer = marker_new(&reader);
    struct td_blob *tail = td_blob_new(big, 50000);
    bench->b.on_frame = take_on_frame;
    for (int i = 0; i < 50; i++) {
        struct td_bytes one = {"1", 1}, none = {"0", 1};
        assert_int_equal(td_channel_send(bench->a.channel, none, i % 10 ? NULL : tail), 0);
        assert_int_equal(td_channel_send_fds(bench->a.channel, one, &writer, 1), 0);
    }
    td_blob_unrefp(&tail);
    bench->b.stop_after = 100;
    run(bench, 3000);
    assert_int_equal(bench->b.nfds, 50);
    for (int i = 0; i < 50; i++)
        assert_true(leads_to(bench->b.fds[i], reader));
    close_taken(&bench->b);
    td_fd_close(&writer);
    td_fd_close(&reader);
}

/* At our limit of open files the kernel drops descriptors: those frames come without, and later
 * ones are not given theirs. */
static void test_channel_fds_at_limit(void **state)
{
    struct bench *bench = *state;
    struct rlimit before, tight;
    int readers[2], writers[2];
    for (int i = 0; i < 2; i++)
        writers[i] = marker_new(&readers[i]);
    bench->b.on_frame = take_on_frame;
    struct td_bytes two = {"2", 1};
    int twice[2] = {writers[0], writers[0]};
    assert_int_equal(td_channel_send_fds(bench->a.channel, two, twice, 2), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = (rlim_t)dup(0);
    assert_int_equal(close((int)tight.rlim_cur), 0);
    tight.rlim_cur++; /* room for one */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    td_channel_read_now(bench->b.channel);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(bench->b.nfds, 2);
    assert_true(leads_to(bench->b.fds[0], readers[0]));
    assert_int_equal(bench->b.fds[1], -1);
    close_taken(&bench->b);
    twice[0] = twice[1] = writers[1];
    assert_int_equal(td_channel_send_fds(bench->a.channel, two, twice, 2), 0);
    td_channel_read_now(bench->b.channel);
    assert_int_equal(bench->b.nfds, 2);
    assert_true(leads_to(bench->b.fds[0], readers[1]));
    assert_true(leads_to(bench->b.fds[1], readers[1]));
    close_taken(&bench->b);
    for (int i = 0; i < 2; i++) {
        td_fd_close(&writers[i]);
        td_fd_close(&readers[i]);
    }
}

/* Unsent and untaken descriptors are closed with the channel; teardown counts. */
static void test_channel_fds_left(void **state)
{
    struct bench *bench = *state;
    int reader;
    int writer = marker_new(&reader);
    struct td_blob *tail = td_blob_new(big, 1000000); /* more than the socket takes */
    assert_int_equal(td_channel_send_fds(bench->a.channel, (struct td_bytes){"0", 1}, &writer, 1),
                     0);
    td_channel_read_now(bench->b.channel); /* holds it */
    assert_int_equal(td_channel_send(bench->a.channel, (struct td_bytes){"0", 1}, tail), 0);
    assert_int_equal(td_channel_send_fds(bench->a.channel, (struct td_bytes){"0", 1}, &writer, 1),
                     0); /* waits behind the big one */
    assert_true(td_channel_queued(bench->a.channel) > 0);
    td_blob_unrefp(&tail);
    td_fd_close(&writer);
    td_fd_close(&reader);
}

/* A tail in a memory file comes beside its frame; those around it are as ever. */
static void read_tail(struct end *end, struct td_bytes frame)
{
    struct td_bytes tail = td_blob_bytes(td_channel_tail(end->channel));
    assert_int_equal(td_buf_add(&end->seen, frame.data, frame.len), 0);
    assert_int_equal(td_buf_add(&end->seen, tail.data, tail.len), 0);
    assert_int_equal(td_buf_add(&end->seen, "|", 1), 0);
}

static void test_channel_beside(void **state)
{
    struct bench *bench = *state;
    struct td_blob *tail;
    assert_int_equal(td_memfile_new(&(struct td_bytes){"tail", 4}, 1, &tail, NULL), 0);
    bench->b.on_frame = read_tail;
    bench->b.stop_after = 4;
    struct td_bytes head = {"head+", 5};
    assert_int_equal(send_text(&bench->a, "before"), 0);
    assert_int_equal(td_channel_send(bench->a.channel, head, tail), 0);
    assert_int_equal(td_channel_send(bench->a.channel, head, tail), 0);
    assert_int_equal(send_text(&bench->a, "after"), 0);
    td_blob_unrefp(&tail);
    run(bench, 1000);
    saw(&bench->b, "before|head+tail|head+tail|after|");
    assert_null(td_channel_tail(bench->b.channel));
}

/* One that claims a tail and brings none, or a file that may change, ends the connection. */
static void test_channel_beside_missing(void **state)
{
    struct bench *bench = *state;
    uint32_t length = 1 | TD_CHANNEL_BESIDE;
    char frame[5];
    memcpy(frame, &length, 4);
    frame[4] = 'x';
    assert_int_equal(write(bench->raw, frame, sizeof frame), sizeof frame);
    run(bench, 1000);
    assert_int_equal(bench->b.frames, 0);
    assert_non_null(strstr(bench->b.reason, "no descriptor"));
}

#define PAIR_TEST(name) cmocka_unit_test_setup_teardown(name, setup_pair, teardown)
#define RAW_TEST(name)  cmocka_unit_test_setup_teardown(name, setup_raw, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAIR_TEST(test_channel_both_ways),
        PAIR_TEST(test_channel_tail),
        PAIR_TEST(test_channel_big),
        PAIR_TEST(test_channel_queue_max),
        PAIR_TEST(test_channel_frame_max),
        RAW_TEST(test_channel_byte_by_byte),
        RAW_TEST(test_channel_frame_too_long),
        RAW_TEST(test_channel_length_is_only_a_claim),
        RAW_TEST(test_channel_no_memory_to_read),
        PAIR_TEST(test_channel_no_memory_to_send),
        cmocka_unit_test(test_channel_new_fails),
        cmocka_unit_test(test_channel_types),
        PAIR_TEST(test_channel_peer_closes),
        RAW_TEST(test_channel_unread),
        RAW_TEST(test_channel_unread_in_socket),
        RAW_TEST(test_channel_unread_when_closed),
        RAW_TEST(test_channel_hang_up),
        RAW_TEST(test_channel_hang_up_deadline),
        RAW_TEST(test_channel_send_to_closed),
        RAW_TEST(test_channel_free_in_frame),
        cmocka_unit_test(test_channel_free_in_closed),
        PAIR_TEST(test_channel_pause),
        PAIR_TEST(test_channel_fds),
        PAIR_TEST(test_channel_fds_many),
        PAIR_TEST(test_channel_fds_at_limit),
        PAIR_TEST(test_channel_fds_left),
        PAIR_TEST(test_channel_beside),
        RAW_TEST(test_channel_beside_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
