/* seat.c: the type Seat: a runner's or a zygote's connection to those who give it work. */
#include "pool/seat.h"

#include <stdio.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "block.h"
#include "os/clock.h"
#include "os/forkmark.h"
#include "plain.h"
#include "pool/desk.h"
#include "state.h"
#include "task/outcome.h"

struct seat_object {
    PyObject_HEAD
    struct td_seat seat;
    struct td_forkmark *mark;
    /* What `prepare` was given, or NULL. */
    PyObject *settle, *dumps, *fail, *out, *err;
};

static int seat_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", NULL};
    struct seat_object *object = (struct seat_object *)self;
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i", names, &fd))
        return -1;
    td_seat_init(&object->seat, fd);
    return 0;
}

static void seat_dealloc(PyObject *self)
{
    struct seat_object *object = (struct seat_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    td_seat_done(&object->seat);
    td_forkmark_free(object->mark);
    Py_XDECREF(object->settle);
    Py_XDECREF(object->dumps);
    Py_XDECREF(object->fail);
    Py_XDECREF(object->out);
    Py_XDECREF(object->err);
    type->tp_free(self);
    Py_DECREF(type);
}

static int take_fd(struct td_seat *seat, size_t i)
{
    int fd = seat->fds[i];
    seat->fds[i] = -1;
    return fd;
}

/* A new tuple for the messages that a seat can get, or NULL with an exception. */
static PyObject *convert(struct seat_object *object, const struct td_message *message)
{
    struct td_seat *seat = &object->seat;
    switch (message->type) {
    case TD_MSG_CALL: {
        const struct td_msg_call *call = &message->call;
        PyObject *args = message->shared /* new */
                             ? td_blob_object(td_state_of((PyObject *)object), message->shared)
                             : PyBytes_FromStringAndSize(call->args.data,
                                                         (Py_ssize_t)call->args.len);
        return args ? Py_BuildValue("(sKKIIIOy#N)", "call", (unsigned long long)call->map,
                                    (unsigned long long)call->index, (unsigned)call->count,
                                    (unsigned)call->skip, (unsigned)call->attempt,
                                    call->marked ? Py_True : Py_False,
                                    (const char *)call->function.bytes, (Py_ssize_t)TD_KEY_SIZE,
                                    args)
                    : NULL;
    }
    case TD_MSG_FUNCTION:
        return Py_BuildValue("(sy#y#)", "function", (const char *)message->function.function.bytes,
                             (Py_ssize_t)TD_KEY_SIZE, (const char *)message->function.body.data,
                             (Py_ssize_t)message->function.body.len);
    case TD_MSG_FORGET:
        return Py_BuildValue("(sy#)", "forget", (const char *)message->forget.function.bytes,
                             (Py_ssize_t)TD_KEY_SIZE);
    case TD_MSG_FORK:
        return Py_BuildValue("(sIiii)", "fork", (unsigned)message->fork.runner, take_fd(seat, 0),
                             take_fd(seat, 1), take_fd(seat, 2));
    default: return Py_BuildValue("(s)", td_message_name((int)message->type));
    }
}

PyDoc_STRVAR(receive_doc, "receive() -> tuple | None\n--\n\n"
                          "Wait for the next message; None when the other side is gone.");
static PyObject *seat_receive(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct seat_object *object = (struct seat_object *)self;
    struct td_message message;
    struct td_error err = {0};
    int r;
    do {
        Py_BEGIN_ALLOW_THREADS
        r = td_seat_receive(&object->seat, &message, &err);
        Py_END_ALLOW_THREADS
        if (r == TD_EINTR && PyErr_CheckSignals() < 0)
            return NULL;
    } while (r == TD_EINTR);
    if (r == TD_ECLOSED)
        Py_RETURN_NONE;
    return r < 0 ? td_raise(td_state_of(self), r, &err) : convert(object, &message);
}

/* Sends and returns None, or NULL with an exception. */
static PyObject *send(PyObject *self, const struct td_message *message, const int *fds, size_t nfds)
{
    struct seat_object *object = (struct seat_object *)self;
    struct td_error err = {0};
    int r;
    Py_BEGIN_ALLOW_THREADS
    r = td_seat_send(&object->seat, message, fds, nfds, &err);
    Py_END_ALLOW_THREADS
    if (r < 0)
        return td_raise(td_state_of(self), r, &err);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(hello_doc, "hello()\n--\n\nSay that this runner is ready for work.");
static PyObject *seat_hello(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct td_message message = {.type = TD_MSG_HELLO,
                                 .hello = {.version = TD_WIRE_VERSION, .pid = getpid()}};
    return send(self, &message, NULL, 0);
}

/* A result on its way: the bytes of an object, or what a Block holds. */
struct value {
    struct td_bytes bytes;
    struct td_blob *shared;
    Py_buffer buffer;
};

/* Borrows from the object until value_done. 0, or -1 with an exception set. */
static int value_of(PyObject *self, PyObject *object, struct value *ret_value)
{
    struct state *state = td_state_of(self);
    *ret_value = (struct value){0};
    if (td_is_block(state, object)) {
        ret_value->shared = td_object_blob(state, object);
        return 0;
    }
    if (PyObject_GetBuffer(object, &ret_value->buffer, PyBUF_SIMPLE) < 0)
        return -1;
    ret_value->bytes = (struct td_bytes){ret_value->buffer.buf, (size_t)ret_value->buffer.len};
    return 0;
}

static void value_done(struct value *value)
{
    value->shared = td_blob_unref(value->shared);
    PyBuffer_Release(&value->buffer); /* one without an object is let be */
}

PyDoc_STRVAR(finish_doc,
             "finish(map, index, attempt, status, retire, printed, duration_ns, peak_bytes, value)"
             "\n--\n\nGive a call's outcome back.");
static PyObject *seat_finish(PyObject *self, PyObject *args)
{
    unsigned long long map, index, printed, peak;
    unsigned attempt;
    unsigned char status;
    int retire;
    long long duration;
    struct value value = {0};
    PyObject *object;
    if (!PyArg_ParseTuple(args, "KKIbpKLKO", &map, &index, &attempt, &status, &retire, &printed,
                          &duration, &peak, &object) ||
        value_of(self, object, &value) < 0)
        return NULL;
    struct td_message message = {.type = TD_MSG_FINISH,
                                 .finish = {.map = map,
                                            .index = index,
                                            .attempt = attempt,
                                            .status = status,
                                            .retire = (uint8_t)retire,
                                            .printed = printed,
                                            .duration_ns = duration,
                                            .peak_bytes = peak,
                                            .value = value.bytes},
                                 .shared = value.shared};
    PyObject *result = send(self, &message, NULL, 0);
    value_done(&value);
    return result;
}

PyDoc_STRVAR(idle_doc, "idle(retire, duration_ns, peak_bytes)\n--\n\n"
                       "Say that this runner has come to the end of several calls.");
static PyObject *seat_idle(PyObject *self, PyObject *args)
{
    int retire;
    long long duration;
    unsigned long long peak;
    if (!PyArg_ParseTuple(args, "pLK", &retire, &duration, &peak))
        return NULL;
    struct td_message message = {
        .type = TD_MSG_IDLE,
        .idle = {.retire = (uint8_t)retire, .duration_ns = duration, .peak_bytes = peak}};
    return send(self, &message, NULL, 0);
}

/* -- going through several calls -------------------------------------------------------------- */

PyDoc_STRVAR(
    prepare_doc,
    "prepare(head, foot, settle, dumps, fail, out, err)\n--\n\n"
    "What go() needs: the edges of a run of results; settle(result) for coroutines and "
    "generators; dumps(result) -> bytes or Block; fail(exception) -> bytes; the two Streams.");
static PyObject *seat_prepare(PyObject *self, PyObject *args)
{
    struct seat_object *object = (struct seat_object *)self;
    struct td_bytes head, foot;
    Py_ssize_t head_len, foot_len;
    PyObject *settle, *dumps, *fail, *out, *err;
    PyTypeObject *stream = td_state_of(self)->stream_type;
    if (!PyArg_ParseTuple(args, "y#y#OOOO!O!", &head.data, &head_len, &foot.data, &foot_len,
                          &settle, &dumps, &fail, stream, &out, stream, &err))
        return NULL;
    head.len = (size_t)head_len;
    foot.len = (size_t)foot_len;
    struct td_error why = {0};
    int r = object->mark ? 0 : td_forkmark_new(&object->mark, &why);
    if (r == 0)
        r = object->seat.desk ? td_desk_edges(object->seat.desk, head, foot) : TD_EPROTO;
    if (r < 0)
        return td_raise(td_state_of(self), r, &why);
    Py_XSETREF(object->settle, Py_NewRef(settle));
    Py_XSETREF(object->dumps, Py_NewRef(dumps));
    Py_XSETREF(object->fail, Py_NewRef(fail));
    Py_XSETREF(object->out, Py_NewRef(out));
    Py_XSETREF(object->err, Py_NewRef(err));
    Py_RETURN_NONE;
}

/* Where a batch is. */
struct trip {
    PyObject *self;
    struct seat_object *object;
    struct td_desk *desk;
    uint64_t map, index;
    uint32_t attempt;
    bool marked;
    bool over; /* no more results fit on the desk */
};

/* Sends one outcome past the desk. 0, or -1 with an exception set. */
static int send_outcome(struct trip *trip, uint8_t status, PyObject *object)
{
    struct td_desk *desk = trip->desk;
    struct value value;
    if (value_of(trip->self, object, &value) < 0)
        return -1;
    struct td_message message = {.type = TD_MSG_FINISH,
                                 .finish = {.map = trip->map,
                                            .index = trip->index + td_desk_at(desk),
                                            .attempt = trip->attempt,
                                            .status = status,
                                            .filled = td_desk_filled(desk),
                                            .duration_ns = td_clock_now() - td_desk_since(desk),
                                            .value = value.bytes},
                                 .shared = value.shared};
    PyObject *sent = send(trip->self, &message, NULL, 0); /* new */
    value_done(&value);
    Py_XDECREF(sent);
    return sent ? 0 : -1;
}

/* Calls a hook that gives bytes or a Block: new, or NULL with an exception. */
static PyObject *bytes_of(struct trip *trip, PyObject *hook, PyObject *value)
{
    PyObject *data = PyObject_CallOneArg(hook, value); /* new */
    if (!data || PyBytes_CheckExact(data) || td_is_block(td_state_of(trip->self), data))
        return data;
    Py_DECREF(data);
    PyErr_SetString(PyExc_TypeError, "a hook gave no bytes");
    return NULL;
}

/* Brings one result home: onto the desk, or past it when it is large. */
static int lay(struct trip *trip, PyObject *result)
{
    enum { NESTED_MAX = 64 << 10 };
    struct td_desk *desk = trip->desk;
    Py_ssize_t plain = td_plain_size(result);
    char *room = plain >= 0 ? td_desk_room(desk, (size_t)plain) : NULL;
    if (room) {
        td_desk_done(desk, (uint32_t)(td_plain_write(room, result) - room));
        return 0;
    }
    trip->over = plain >= 0;
    PyObject *data = bytes_of(trip, trip->object->dumps, result); /* new */
    if (!data)
        return -1;
    size_t len = PyBytes_CheckExact(data) ? (size_t)PyBytes_GET_SIZE(data) : SIZE_MAX;
    int r = 0;
    room = len <= NESTED_MAX ? td_desk_room(desk, len + TD_NESTED_EXTRA) : NULL;
    if (room) {
        char *end = td_nested_write(room, PyBytes_AS_STRING(data), (uint32_t)len);
        td_desk_done(desk, (uint32_t)(end - room));
    } else {
        trip->over |= len <= NESTED_MAX;
        r = send_outcome(trip, TD_OUTCOME_OK, data);
        if (r == 0)
            td_desk_done(desk, 0);
    }
    Py_DECREF(data);
    return r;
}

/* The exception that is set, new, with its traceback; none is set any more. */
static PyObject *caught(void)
{
    PyObject *type, *value, *trace; /* new */
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace)
        (void)PyException_SetTraceback(value, trace); /* it is one */
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return value;
}

/* The call has raised: its exception travels. */
static int lay_failure(struct trip *trip)
{
    PyObject *error = caught();                                 /* new */
    PyObject *data = bytes_of(trip, trip->object->fail, error); /* new */
    int r = data ? send_outcome(trip, TD_OUTCOME_RAISED, data) : -1;
    if (r == 0)
        td_desk_done(trip->desk, 0);
    Py_XDECREF(data);
    Py_DECREF(error);
    return r;
}

/* fn(item), or fn(*item); an item that could not be read raises what reading raised. */
static PyObject *call(struct trip *trip, PyObject *fn, PyObject *item, bool spread)
{
    if ((PyObject *)Py_TYPE(item) == td_state_of(trip->self)->unreadable) {
        PyObject *why = PyObject_GetAttrString(item, "args");      /* new */
        PyObject *error = why ? PySequence_GetItem(why, 0) : NULL; /* new */
        if (error)
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_XDECREF(why);
        Py_XDECREF(error);
        return NULL;
    }
    PyObject *result = spread ? PyObject_Call(fn, item, NULL) : PyObject_CallOneArg(fn, item);
    if (!result ||
        !(PyCoro_CheckExact(result) || PyGen_CheckExact(result) || PyAsyncGen_CheckExact(result)))
        return result;
    PyObject *settled = PyObject_CallOneArg(trip->object->settle, result); /* new */
    Py_DECREF(result);
    return settled;
}

/* One call, from its input to its outcome. 0, or -1 with an exception that ends the runner. */
static int run_one(struct trip *trip, PyObject *fn, PyObject *item, bool spread)
{
    struct seat_object *object = trip->object;
    if (trip->marked && (td_stream_mark(object->out) < 0 || td_stream_mark(object->err) < 0))
        PyErr_Clear(); /* the call has closed them: there is nothing to be told apart */
    PyObject *result = call(trip, fn, item, spread); /* new */
    if (td_forkmark_is_child(object->mark))
        _exit(0); /* a copy of us that the call forked: it is not for it to answer */
    PyObject *kept = NULL;
    if (!result) {
        if (PyErr_ExceptionMatches(PyExc_SystemExit))
            return -1;
        kept = caught(); /* new */
    }
    if (td_stream_flush(object->out) < 0 || td_stream_flush(object->err) < 0)
        PyErr_Clear(); /* as above */
    if (trip->marked)
        (void)fflush(NULL); /* as above */
    int r = -1;
    if (result)
        r = lay(trip, result);
    else
        PyErr_SetObject((PyObject *)Py_TYPE(kept), kept);
    if (r < 0)
        r = lay_failure(trip);
    Py_XDECREF(kept);
    Py_XDECREF(result);
    return r;
}

PyDoc_STRVAR(go_doc, "go(map, index, attempt, marked, fn, items, skip, spread)\n--\n\n"
                     "Go through the calls of a batch: fn(item), or fn(*item), for those in the "
                     "list after the first `skip`, as far as the node lets them begin.");
static PyObject *seat_go(PyObject *self, PyObject *args)
{
    struct seat_object *object = (struct seat_object *)self;
    struct trip trip = {.self = self, .object = object, .desk = object->seat.desk};
    unsigned long long map, index;
    unsigned attempt;
    int marked, spread;
    PyObject *fn, *items;
    Py_ssize_t skip;
    if (!PyArg_ParseTuple(args, "KKIpOO!np", &map, &index, &attempt, &marked, &fn, &PyList_Type,
                          &items, &skip, &spread))
        return NULL;
    if (!object->fail) {
        PyErr_SetString(PyExc_ValueError, "the seat was not prepared");
        return NULL;
    }
    trip.map = map;
    trip.index = index;
    trip.attempt = attempt;
    trip.marked = marked != 0;
    struct turn *turn = &td_state_of(self)->turn;
    int r = 0;
    while (r == 0 && !trip.over && td_desk_begin(trip.desk)) {
        turn->desk = trip.desk;
        Py_ssize_t at = skip + td_desk_at(trip.desk);
        if (at >= PyList_GET_SIZE(items)) {
            PyErr_SetString(PyExc_SystemError, "more calls than inputs");
            r = -1;
            break;
        }
        PyObject *item = PyList_GET_ITEM(items, at); /* ours now: */
        PyList_SET_ITEM(items, at, Py_NewRef(Py_None));
        r = run_one(&trip, fn, item, spread != 0);
        Py_DECREF(item);
        if (r == 0)
            r = PyErr_CheckSignals();
    }
    turn->desk = NULL;
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(guest_doc, "guest(fd)\n--\n\n"
                        "Hand over one end of a socket pair: a client of this runner's own pool "
                        "talks behind it.");
static PyObject *seat_guest(PyObject *self, PyObject *arg)
{
    int fd = (int)PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    struct td_message message = {.type = TD_MSG_GUEST, .guest = {.version = TD_WIRE_VERSION}};
    return send(self, &message, &fd, 1);
}

PyDoc_STRVAR(ready_doc, "ready(threads)\n--\n\nA zygote has imported what it should.");
static PyObject *seat_ready(PyObject *self, PyObject *arg)
{
    long threads = PyLong_AsLong(arg);
    if (threads == -1 && PyErr_Occurred())
        return NULL;
    struct td_message message = {.type = TD_MSG_ZYGOTE_READY,
                                 .zygote_ready = {.threads = (uint32_t)threads}};
    return send(self, &message, NULL, 0);
}

PyDoc_STRVAR(forked_doc, "forked(runner, pid)\n--\n\nA zygote forked that runner; or it could not, "
                         "and pid is minus the number of the error.");
static PyObject *seat_forked(PyObject *self, PyObject *args)
{
    unsigned runner;
    int pid;
    if (!PyArg_ParseTuple(args, "Ii", &runner, &pid))
        return NULL;
    struct td_message message = {.type = TD_MSG_FORKED, .forked = {.runner = runner, .pid = pid}};
    return send(self, &message, NULL, 0);
}

static PyMethodDef methods[] = {
    {"receive", seat_receive, METH_NOARGS, receive_doc},
    {"hello", seat_hello, METH_NOARGS, hello_doc},
    {"finish", seat_finish, METH_VARARGS, finish_doc},
    {"idle", seat_idle, METH_VARARGS, idle_doc},
    {"prepare", seat_prepare, METH_VARARGS, prepare_doc},
    {"go", seat_go, METH_VARARGS, go_doc},
    {"guest", seat_guest, METH_O, guest_doc},
    {"ready", seat_ready, METH_O, ready_doc},
    {"forked", seat_forked, METH_VARARGS, forked_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"Seat(fd): a runner's end of its connection."},
    {Py_tp_init, seat_init},
    {Py_tp_dealloc, seat_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "tendril._tendril.Seat",
    .basicsize = sizeof(struct seat_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

PyObject *td_seat_type_new(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
