/* echo_runner.c: a runner without Python: what tests of client, node and pool run, and a model of
 * how little a runner is. Started as `echo_runner zygote|runner FD` like any other.
 *
 * Its calls are bytes: "echo:X" gives X back; "print:X" writes X to both streams; "fail:X" raises
 * X; "crash" dies by SIGSEGV, "exit" by exit(7); "hang" sleeps until it is killed; "linger" leaves
 * a child behind and gives back its pid; "grow:N" takes N MiB of memory. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/text.h"
#include "pool/desk.h"
#include "pool/seat.h"
#include "task/outcome.h"

static bool is(struct td_bytes args, const char *word, struct td_bytes *ret_rest)
{
    size_t len = strlen(word);
    if (args.len < len || memcmp(args.data, word, len) != 0)
        return false;
    *ret_rest = (struct td_bytes){(const char *)args.data + len, args.len - len};
    return true;
}

static void grow(struct td_bytes number)
{
    uint64_t mib = 0;
    (void)td_text_u64(number.data, number.len, &mib);
    char *memory = malloc(mib << 20);
    for (uint64_t i = 0; memory && i < mib << 20; i += 4096)
        ((volatile char *)memory)[i] = 1;
    free(memory);
}

/* Runs one call; the value it gives back is borrowed from text. */
static uint8_t run(struct td_bytes args, char text[64], struct td_bytes *ret_value)
{
    struct td_bytes rest;
    *ret_value = (struct td_bytes){text, 0};
    if (is(args, "run", &rest)) {
        *ret_value = args;
    } else if (is(args, "zzz", &rest)) {
        for (;;)
            (void)pause();
    } else if (is(args, "bad", &rest)) {
        return TD_OUTCOME_RAISED;
    } else if (is(args, "die", &rest)) {
        _exit(7);
    } else if (is(args, "echo:", &rest)) {
        *ret_value = rest;
    } else if (is(args, "print:", &rest)) {
        (void)!write(1, rest.data, rest.len);
        (void)!write(2, rest.data, rest.len);
    } else if (is(args, "fail:", &rest)) {
        *ret_value = rest;
        return TD_OUTCOME_RAISED;
    } else if (is(args, "crash", &rest)) {
        (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer would turn it into an exit */
        (void)raise(SIGSEGV);
    } else if (is(args, "exit", &rest)) {
        _exit(7);
    } else if (is(args, "hang", &rest)) {
        for (;;)
            (void)pause();
    } else if (is(args, "linger", &rest)) {
        pid_t pid = fork();
        if (pid == 0)
            for (;;)
                (void)pause();
        ret_value->len = (size_t)snprintf(text, 64, "%d", (int)pid);
    } else if (is(args, "grow:", &rest)) {
        grow(rest);
    }
    return TD_OUTCOME_OK;
}

/* Goes through a batch of calls with 8 bytes each, and gives these back; or raises ("bad..."),
 * crashes ("die..."), or sleeps for ever ("zzz..."). */
static int run_batch(struct td_seat *seat, const struct td_msg_call *call)
{
    enum { ITEM = 8 };
    struct td_desk *desk = seat->desk;
    while (td_desk_begin(desk)) {
        const char *item = (const char *)call->args.data +
                           (call->skip + td_desk_at(desk)) * (size_t)ITEM;
        struct td_message finish = {.type = TD_MSG_FINISH,
                                    .finish = {.map = call->map,
                                               .index = call->index + td_desk_at(desk),
                                               .attempt = call->attempt,
                                               .status = TD_OUTCOME_RAISED,
                                               .filled = td_desk_filled(desk)}};
        char *room = td_desk_room(desk, ITEM);
        if (memcmp(item, "die", 3) == 0)
            _exit(7);
        while (memcmp(item, "zzz", 3) == 0)
            (void)pause();
        if (memcmp(item, "bad", 3) == 0) {
            if (td_seat_send(seat, &finish, NULL, 0, NULL) < 0)
                return -1;
            td_desk_done(desk, 0);
        } else if (room) {
            memcpy(room, item, ITEM);
            td_desk_done(desk, ITEM);
        }
    }
    struct td_message idle = {.type = TD_MSG_IDLE,
                              .idle = {.duration_ns = 1000 * (int64_t)call->count}};
    return td_seat_send(seat, &idle, NULL, 0, NULL);
}

static void serve(int fd)
{
    struct td_seat seat;
    struct td_message message = {.type = TD_MSG_HELLO,
                                 .hello = {.version = TD_WIRE_VERSION, .pid = getpid()}};
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    td_seat_init(&seat, fd);
    if (td_seat_send(&seat, &message, NULL, 0, NULL) < 0)
        _exit(1);
    while (td_seat_receive(&seat, &message, NULL) == 0) {
        if (message.type != TD_MSG_CALL)
            continue;
        struct td_msg_call call = message.call;
        if (call.count > 1) {
            if (run_batch(&seat, &call) < 0)
                break;
            continue;
        }
        char text[64];
        struct td_bytes value, rest;
        if (call.args.len > (size_t)call.skip * 8) { /* one of a batch that was cut off */
            call.args.data = (const char *)call.args.data + call.skip * (size_t)8;
            call.args.len = call.skip ? 8 : call.args.len;
        }
        uint8_t status = run(call.args, text, &value);
        struct td_message finish = {.type = TD_MSG_FINISH,
                                    .finish = {.map = call.map,
                                               .index = call.index,
                                               .attempt = call.attempt,
                                               .status = status,
                                               .retire = is(call.args, "linger", &rest),
                                               .duration_ns = 1000,
                                               .value = value}};
        if (td_seat_send(&seat, &finish, NULL, 0, NULL) < 0)
            break;
    }
    td_seat_done(&seat);
}

int main(int argc, char **argv)
{
    uint64_t fd;
    if (argc < 3 || td_text_u64(argv[argc - 1], strlen(argv[argc - 1]), &fd) < 0)
        return 2;
    if (strcmp(argv[argc - 2], "zygote") == 0) {
        /* This program does not fork runners: as if an import had left it with threads. */
        struct td_seat seat;
        struct td_message ready = {.type = TD_MSG_ZYGOTE_READY, .zygote_ready = {.threads = 2}};
        td_seat_init(&seat, (int)fd);
        (void)td_seat_send(&seat, &ready, NULL, 0, NULL);
        while (td_seat_receive(&seat, &ready, NULL) == 0)
            continue;
        td_seat_done(&seat);
        return 0;
    }
    serve((int)fd);
    return 0;
}
