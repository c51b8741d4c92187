/* message.h: every message that Tendril's processes exchange, in one table, and its codec.
 *
 * A frame on a socket is a 32-bit little-endian length and that many bytes; this file is about
 * those bytes: one for the type, then the fields in the order of the table, integers little
 * endian, `bytes` with a 32-bit length before them, `tail` running to the end of the frame.
 * So a large value is never copied into a message: it is sent behind the encoded head, or beside
 * the frame as a file in memory (os/memfile.h).
 *
 *      pool --PROFILE, RUNNER_START--> supervisor --FORK--> zygote
 *      node --DESK, FUNCTION, CALL--> runner --FINISH, IDLE--> node       (the way of a call)
 *      client --MAP_OPEN, MAP_CALL--> node --STARTED, OUTPUT, OUTCOME--> client   (over a socket)
 *      client --MAP_OPEN, MAP, JOB--> agent --STARTED, OUTPUT, OUTCOME--> client  (over the engine)
 *
 * Decoding is strict: any run of bytes gives a message that uses each byte once, or TD_EPROTO
 * with a text. What is decoded borrows from the frame.
 * Threads: any (pure functions). */
#ifndef TD_WIRE_MESSAGE_H
#define TD_WIRE_MESSAGE_H

#include <stdint.h>

#include "base/bytes.h"

struct td_blob;
struct td_buf;
struct td_error;

enum {
    TD_WIRE_VERSION = 3,
    TD_KEY_SIZE = 32,             /* SHA-256 of a function's body */
    TD_WIRE_BYTES_MAX = 64 << 20, /* a `bytes` field; a `tail` may fill the frame */
};
#define TD_FRAME_MAX (((size_t)2 << 30) - 1) /* body of a frame, bytes */

struct td_key {
    unsigned char bytes[TD_KEY_SIZE];
};

/* clang-format off */
/* F(message, kind, field). Kinds: u8 u32 u64 i32 i64 key bytes tail. */
#define TD_FIELDS_hello(F, m)         F(m, u32, version) F(m, i32, pid)
#define TD_FIELDS_function(F, m)      F(m, key, function) F(m, tail, body)
#define TD_FIELDS_forget(F, m)        F(m, key, function)
#define TD_FIELDS_desk(F, m)          F(m, u32, size) /* carries a descriptor */
/* `count` calls from `index` on; their arguments come after `skip` others in args. */
#define TD_FIELDS_call(F, m)          F(m, u64, map) F(m, u64, index) F(m, u32, count) \
                                      F(m, u32, skip) F(m, u32, attempt) F(m, u8, marked) \
                                      F(m, key, function) F(m, tail, args)
/* The outcome of one call: the only one of its batch, or one whose result is not on the desk, which
 * held `filled` bytes before it. */
#define TD_FIELDS_finish(F, m)        F(m, u64, map) F(m, u64, index) F(m, u32, attempt) \
                                      F(m, u8, status) F(m, u8, retire) F(m, u32, filled) \
                                      F(m, u64, printed) F(m, i64, duration_ns) \
                                      F(m, u64, peak_bytes) F(m, tail, value)
/* It has come to the end of several calls, or leaves the rest to others; after one call FINISH
 * says as much. */
#define TD_FIELDS_idle(F, m)          F(m, u8, retire) F(m, i64, duration_ns) F(m, u64, peak_bytes)
#define TD_FIELDS_guest(F, m)         F(m, u8, version) /* carries a descriptor */

#define TD_FIELDS_map_open(F, m)      F(m, u64, map) F(m, key, function) F(m, u32, retries) \
                                      F(m, i64, timeout_ns) F(m, u64, memory_bytes) \
                                      F(m, u32, cpu_milli) F(m, bytes, argv) F(m, bytes, env) \
                                      F(m, bytes, cwd) F(m, tail, body)
#define TD_FIELDS_map_call(F, m)      F(m, u64, map) F(m, u64, index) F(m, u32, count) \
                                      F(m, tail, args)
#define TD_FIELDS_map_cancel(F, m)    F(m, u64, map)
#define TD_FIELDS_map_forget(F, m)    F(m, u64, map)
#define TD_FIELDS_started(F, m)       F(m, u64, map) F(m, u64, index) F(m, u32, count)
#define TD_FIELDS_output(F, m)        F(m, u64, map) F(m, u64, index) F(m, u32, count) \
                                      F(m, u8, stream) F(m, tail, text)
#define TD_FIELDS_outcome(F, m)       F(m, u64, map) F(m, u64, index) F(m, u32, count) \
                                      F(m, u32, skip) F(m, u32, attempt) \
                                      F(m, u8, status) F(m, i32, code) F(m, i32, pid) \
                                      F(m, i64, started_ns) F(m, i64, duration_ns) \
                                      F(m, u64, peak_bytes) F(m, u64, limit_bytes) \
                                      F(m, bytes, last_output) F(m, bytes, detail) F(m, tail, value)

/* Over the engine: calls of a map for whoever takes them; `spec` numbers a MAP_OPEN of the session;
 * their outcomes are behind number `since` in the stream of results. */
#define TD_FIELDS_job(F, m)           F(m, u32, version) F(m, u64, session) F(m, u64, map) \
                                      F(m, u32, spec) F(m, u64, index) F(m, u32, count) \
                                      F(m, u64, since) F(m, tail, args)
/* The tail of the message behind this one, which lies apart, cut into chunks. */
#define TD_FIELDS_parcel(F, m)        F(m, u64, session) F(m, u64, scope) F(m, u64, blob) \
                                      F(m, u64, size) F(m, u32, chunk)
/* What is known of a map, whoever asks. */
#define TD_FIELDS_map(F, m)           F(m, u32, version) F(m, u64, session) F(m, u64, map) \
                                      F(m, u32, spec) F(m, u8, state) F(m, u8, detached) \
                                      F(m, u8, laned) F(m, u32, priority) F(m, u64, submitted) \
                                      F(m, i64, opened_s) F(m, tail, name)
/* An agent's answer to whoever asks who is there. */
#define TD_FIELDS_agent(F, m)         F(m, u32, version) F(m, u64, agent) F(m, i32, pid) \
                                      F(m, u32, slots) F(m, u32, busy) F(m, u8, draining) \
                                      F(m, bytes, host) F(m, tail, pool)

#define TD_FIELDS_supervisor_up(F, m) F(m, u32, version) F(m, i32, pid) F(m, tail, limits)
#define TD_FIELDS_profile(F, m)       F(m, u32, profile) F(m, u64, memory_bytes) F(m, u32, cpu_milli) \
                                      F(m, bytes, argv) F(m, bytes, env) F(m, bytes, cwd)
#define TD_FIELDS_profile_drop(F, m)  F(m, u32, profile)
#define TD_FIELDS_runner_start(F, m)  F(m, u32, runner) F(m, u32, profile) /* carries 3 descriptors */
#define TD_FIELDS_runner_kill(F, m)   F(m, u32, runner)
#define TD_FIELDS_runner_up(F, m)     F(m, u32, runner) F(m, i32, pid)
#define TD_FIELDS_runner_gone(F, m)   F(m, u32, runner) F(m, u8, cause) F(m, i32, code) \
                                      F(m, u64, peak_bytes) F(m, tail, detail)
#define TD_FIELDS_zygote_ready(F, m)  F(m, u32, threads)
#define TD_FIELDS_fork(F, m)          F(m, u32, runner) /* carries 3 descriptors */
#define TD_FIELDS_forked(F, m)        F(m, u32, runner) F(m, i32, pid) /* or minus an errno */

/* M(number on the wire, NAME, name); numbers are never used again for something else. */
#define TD_MESSAGES(M)                                                                           \
    M(1, HELLO, hello) M(2, FUNCTION, function) M(3, FORGET, forget) M(4, CALL, call)            \
    M(5, FINISH, finish) M(6, GUEST, guest) M(7, DESK, desk) M(8, IDLE, idle)                    \
    M(16, MAP_OPEN, map_open) M(17, MAP_CALL, map_call) M(18, MAP_CANCEL, map_cancel)            \
    M(19, MAP_FORGET, map_forget) M(20, STARTED, started) M(21, OUTPUT, output)                  \
    M(22, OUTCOME, outcome) M(23, JOB, job) M(24, PARCEL, parcel) M(25, MAP, map)                \
    M(26, AGENT, agent)                                                                          \
    M(32, SUPERVISOR_UP, supervisor_up) M(33, PROFILE, profile)                                  \
    M(34, PROFILE_DROP, profile_drop) M(35, RUNNER_START, runner_start)                          \
    M(36, RUNNER_KILL, runner_kill) M(37, RUNNER_UP, runner_up)                                  \
    M(38, RUNNER_GONE, runner_gone) M(39, ZYGOTE_READY, zygote_ready) M(40, FORK, fork)          \
    M(41, FORKED, forked)
/* clang-format on */

typedef uint8_t td_wire_u8;
typedef uint32_t td_wire_u32;
typedef uint64_t td_wire_u64;
typedef int32_t td_wire_i32;
typedef int64_t td_wire_i64;
typedef struct td_key td_wire_key;
typedef struct td_bytes td_wire_bytes;
typedef struct td_bytes td_wire_tail;

#define TD_MESSAGE_ENUM(number, NAME, name) TD_MSG_##NAME = (number),
enum td_message_type { TD_MESSAGES(TD_MESSAGE_ENUM) };
#undef TD_MESSAGE_ENUM

#define TD_FIELD_DECLARE(m, kind, field) td_wire_##kind field;
#define TD_MESSAGE_STRUCT(number, NAME, name)    \
    struct td_msg_##name {                       \
        TD_FIELDS_##name(TD_FIELD_DECLARE, name) \
    };
TD_MESSAGES(TD_MESSAGE_STRUCT)
#undef TD_MESSAGE_STRUCT
#undef TD_FIELD_DECLARE

struct td_message {
    enum td_message_type type;
    struct td_blob *shared; /* borrowed: what its tail lies in when that was not in the frame */
    union {
#define TD_MESSAGE_MEMBER(number, NAME, name) struct td_msg_##name name;
        TD_MESSAGES(TD_MESSAGE_MEMBER)
#undef TD_MESSAGE_MEMBER
    };
};

/* Appends the type and every field but the content of a `tail`, which *ret_tail borrows (empty
 * when the message has none): send it right behind. On failure head is as it was. TD_EINVAL (no
 * such type), TD_ENOMEM, TD_ELIMIT (a field or the frame is larger than its maximum). */
int td_message_encode(const struct td_message *message, struct td_buf *head,
                      struct td_bytes *ret_tail, struct td_error *err);

/* Reads one frame's body. *ret_message borrows from it. TD_EPROTO. */
int td_message_decode(struct td_bytes frame, struct td_message *ret_message, struct td_error *err);

/* Gives a decoded message the tail that came beside the frame, which must have none of its own.
 * TD_EPROTO. */
int td_message_attach(struct td_message *message, struct td_blob *shared, struct td_error *err);

/* The tail as a blob of its own: new, a reference or a copy; NULL when memory is out. */
struct td_blob *td_message_tail(const struct td_message *message);

const char *td_message_name(int type); /* "CALL", or "?" */

#endif
