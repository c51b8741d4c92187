/* turns.c: what a runner does with its calls: a single one, or those of a batch one after another.
 * Each ends in an outcome, whatever the function does; what it leaves behind is looked at once they
 * are over. */
#include "seat_object.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "block.h"
#include "os/cgroup.h"
#include "os/clock.h"
#include "os/forkmark.h"
#include "plain.h"
#include "pool/desk.h"
#include "task/outcome.h"
#include "wire/message.h"

/* Calls that are gone through: all of a batch, or one alone. */
struct trip {
    PyObject *self;
    struct seat_object *object;
    struct td_desk *desk; /* of a batch; else NULL */
    uint64_t map, index;
    uint32_t attempt;
    bool marked;
    bool over; /* no more results fit on the desk */
};

/* Which files the descriptors 1 and 2 are, to be compared; zeros for one that is closed. */
static void read_outputs(uint64_t ret_outputs[2][2])
{
    for (int i = 0; i < 2; i++) {
        struct stat found = {0};
        (void)fstat(i + 1, &found); /* closed: zeros */
        ret_outputs[i][0] = found.st_dev;
        ret_outputs[i][1] = found.st_ino;
    }
}

const char td_seat_prepare_doc[] =
    "prepare(head, foot, settle, dumps, fail, out, err)\n--\n\n"
    "What calls need: the edges of a run of results; settle(result) for coroutines and generators; "
    "dumps(result) -> bytes or Block; fail(exception) -> bytes; the two Streams.";
PyObject *td_seat_prepare(PyObject *self, PyObject *args)
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
    read_outputs(object->outputs);
    object->limited = td_cgroup_own_kills() >= 0;
    Py_RETURN_NONE;
}

static bool prepared(const struct seat_object *object)
{
    if (!object->fail)
        PyErr_SetString(PyExc_ValueError, "the seat was not prepared");
    return object->fail;
}

/* -- values ----------------------------------------------------------------------------------- */

/* A result on its way: the bytes of an object, or what a Block holds. */
struct value {
    struct td_bytes bytes;
    struct td_blob *shared;
};

/* Of bytes or a Block, from which it borrows the bytes. */
static struct value value_of(struct trip *trip, PyObject *object)
{
    struct state *state = td_state_of(trip->self);
    if (td_is_block(state, object))
        return (struct value){.shared = td_object_blob(state, object)};
    return (struct value){.bytes = {PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object)}};
}

/* Calls a hook that gives bytes or a Block: new, or NULL with an exception. */
static PyObject *ask(struct trip *trip, PyObject *hook, PyObject *value)
{
    PyObject *data = PyObject_CallOneArg(hook, value); /* new */
    if (!data || PyBytes_CheckExact(data) || td_is_block(td_state_of(trip->self), data))
        return data;
    Py_DECREF(data);
    PyErr_SetString(PyExc_TypeError, "a hook gave no bytes");
    return NULL;
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

/* The exception that is set, as bytes: new, or NULL with another one. */
static PyObject *failure(struct trip *trip)
{
    PyObject *error = caught();                            /* new */
    PyObject *data = ask(trip, trip->object->fail, error); /* new */
    Py_DECREF(error);
    return data;
}

/* -- calls ------------------------------------------------------------------------------------ */

/* What the function gave, new: coroutines are run, generators collected. Takes result. */
static PyObject *settled(struct trip *trip, PyObject *result)
{
    if (!result ||
        !(PyCoro_CheckExact(result) || PyGen_CheckExact(result) || PyAsyncGen_CheckExact(result)))
        return result;
    PyObject *value = PyObject_CallOneArg(trip->object->settle, result); /* new */
    Py_DECREF(result);
    return value;
}

/* To be asked after user code has run. */
static void end_copies(const struct seat_object *object)
{
    if (td_forkmark_is_child(object->mark))
        _exit(0); /* a copy of us that the call forked: it is not for it to answer */
}

static bool ends_process(void)
{
    return PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* -- when they are over ----------------------------------------------------------------------- */

/* Writes out what Python's and C's streams hold, as far as the calls have left them in order. */
static void flush(void)
{
    static const char *const names[] = {"stdout", "stderr"};
    for (size_t i = 0; i < TD_COUNT(names); i++) {
        PyObject *stream = PySys_GetObject(names[i]); /* borrowed */
        PyObject *done = stream ? PyObject_CallMethod(stream, "flush", NULL) : NULL;
        if (!done)
            PyErr_Clear();
        Py_XDECREF(done);
    }
    (void)fflush(NULL); /* what cannot be written has no reader any more */
}

/* Whether child processes of this one are alive; those that have ended are reaped. */
static bool children_left(void)
{
    pid_t pid;
    do
        pid = waitpid(-1, NULL, WNOHANG);
    while (pid > 0 || (pid < 0 && errno == EINTR));
    return pid == 0;
}

/* Whether this runner is not to have other calls, for what they have left behind. */
static bool spoilt(const struct seat_object *object)
{
    uint64_t outputs[2][2];
    if (object->limited && td_cgroup_own_kills() > 0)
        (void)raise(SIGKILL); /* as the kernel would have done, had it taken us */
    read_outputs(outputs);
    return children_left() || memcmp(outputs, object->outputs, sizeof outputs) != 0;
}

static uint64_t peak_bytes(void)
{
    struct rusage usage = {0};
    (void)getrusage(RUSAGE_SELF, &usage); /* cannot fail for ourselves */
    return (uint64_t)usage.ru_maxrss * 1024;
}

/* -- a single call ---------------------------------------------------------------------------- */

/* A result as bytes, or a Block: new, or NULL with an exception. */
static PyObject *pickled(struct trip *trip, PyObject *result)
{
    Py_ssize_t plain = td_plain_size(result);
    if (plain < 0)
        return ask(trip, trip->object->dumps, result);
    PyObject *data = PyBytes_FromStringAndSize(NULL, plain + 3); /* new: PROTO 5, value, STOP */
    if (!data)
        return NULL;
    char *to = PyBytes_AS_STRING(data);
    to[0] = '\x80';
    to[1] = 5;
    char *end = td_plain_write(to + 2, result);
    *end++ = '.';
    (void)_PyBytes_Resize(&data, end - to); /* NULL with an exception when it fails */
    return data;
}

/* The outcome of what load(*given) -> (function, arguments, keywords) stands for: new, bytes or a
 * Block, and its status; NULL with an exception that ends the runner. */
static PyObject *run(struct trip *trip, PyObject *load, PyObject *given, uint8_t *ret_status)
{
    PyObject *what = PyObject_CallObject(load, given); /* new */
    PyObject *fn, *args, *keywords, *result = NULL;
    if (what && PyArg_ParseTuple(what, "OO!O!", &fn, &PyTuple_Type, &args, &PyDict_Type, &keywords))
        result = settled(trip, PyObject_Call(fn, args, keywords)); /* new */
    Py_XDECREF(what);
    end_copies(trip->object);
    if (ends_process())
        return NULL;
    *ret_status = TD_OUTCOME_OK;
    PyObject *data = result ? pickled(trip, result) : NULL; /* new */
    Py_XDECREF(result);
    if (!data) {
        *ret_status = TD_OUTCOME_RAISED;
        data = failure(trip); /* new */
    }
    return data;
}

const char td_seat_one_doc[] =
    "one(map, index, attempt, load, given)\n--\n\n"
    "Run a call, for which load(*given) -> (function, arguments, keywords), and send its outcome.";
PyObject *td_seat_one(PyObject *self, PyObject *args)
{
    struct trip trip = {.self = self, .object = (struct seat_object *)self};
    struct seat_object *object = trip.object;
    unsigned long long map, index;
    unsigned attempt;
    PyObject *load, *given;
    if (!PyArg_ParseTuple(args, "KKIOO!", &map, &index, &attempt, &load, &PyTuple_Type, &given) ||
        !prepared(object))
        return NULL;
    int64_t begun = td_clock_now();
    uint64_t written = td_stream_written(object->out) + td_stream_written(object->err);
    uint8_t status;
    PyObject *data = run(&trip, load, given, &status); /* new */
    if (!data)
        return NULL;
    int64_t duration = td_clock_now() - begun;
    flush();
    bool retire = spoilt(object);
    struct td_error err = {0};
    int r;
    for (;;) {
        struct value value = value_of(&trip, data);
        struct td_message message = {.type = TD_MSG_FINISH,
                                     .shared = value.shared,
                                     .finish = {.map = map,
                                                .index = index,
                                                .attempt = attempt,
                                                .status = status,
                                                .retire = retire,
                                                .printed = td_stream_written(object->out) +
                                                           td_stream_written(object->err) - written,
                                                .duration_ns = duration,
                                                .peak_bytes = peak_bytes(),
                                                .value = value.bytes}};
        r = td_seat_say(object, &message, &err);
        td_blob_unref(value.shared);
        Py_DECREF(data);
        if (r != TD_ELIMIT || status != TD_OUTCOME_OK)
            break;
        (void)td_raise(td_state_of(self), r, &err); /* too large: an error that says so */
        status = TD_OUTCOME_RAISED;
        data = failure(&trip); /* new */
        if (!data)
            return NULL;
    }
    if (r < 0)
        return td_raise(td_state_of(self), r, &err);
    Py_RETURN_NONE;
}

/* -- a batch ---------------------------------------------------------------------------------- */

/* Sends one outcome past the desk. 0, or -1 with an exception set. */
static int send_outcome(struct trip *trip, uint8_t status, PyObject *data)
{
    struct td_desk *desk = trip->desk;
    struct value value = value_of(trip, data);
    struct td_message message = {.type = TD_MSG_FINISH,
                                 .shared = value.shared,
                                 .finish = {.map = trip->map,
                                            .index = trip->index + td_desk_at(desk),
                                            .attempt = trip->attempt,
                                            .status = status,
                                            .filled = td_desk_filled(desk),
                                            .duration_ns = td_clock_now() - td_desk_since(desk),
                                            .value = value.bytes}};
    struct td_error err = {0};
    int r = td_seat_say(trip->object, &message, &err);
    td_blob_unref(value.shared);
    if (r < 0)
        (void)td_raise(td_state_of(trip->self), r, &err); /* always NULL */
    return r < 0 ? -1 : 0;
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
    PyObject *data = ask(trip, trip->object->dumps, result); /* new */
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

/* The call has raised: its exception travels. */
static int lay_failure(struct trip *trip)
{
    PyObject *data = failure(trip); /* new */
    int r = data ? send_outcome(trip, TD_OUTCOME_RAISED, data) : -1;
    if (r == 0)
        td_desk_done(trip->desk, 0);
    Py_XDECREF(data);
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
    return settled(trip, spread ? PyObject_Call(fn, item, NULL) : PyObject_CallOneArg(fn, item));
}

/* One call, from its input to its outcome. 0, or -1 with an exception that ends the runner. */
static int run_one(struct trip *trip, PyObject *fn, PyObject *item, bool spread)
{
    struct seat_object *object = trip->object;
    if (trip->marked && (td_stream_mark(object->out) < 0 || td_stream_mark(object->err) < 0))
        PyErr_Clear(); /* the call has closed them: there is nothing to be told apart */
    PyObject *result = call(trip, fn, item, spread); /* new */
    end_copies(object);
    if (ends_process())
        return -1;
    PyObject *kept = result ? NULL : caught(); /* new */
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

/* Goes through the items after the first `skip`. 0, or -1 with an exception that ends the runner.
 */
static int go_through(struct trip *trip, PyObject *fn, PyObject *items, Py_ssize_t skip,
                      bool spread)
{
    struct turn *turn = &td_state_of(trip->self)->turn;
    int r = 0;
    while (r == 0 && !trip->over && td_desk_begin(trip->desk)) {
        turn->desk = trip->desk;
        Py_ssize_t at = skip + td_desk_at(trip->desk);
        if (at >= PyList_GET_SIZE(items)) {
            PyErr_SetString(PyExc_SystemError, "more calls than inputs");
            r = -1;
            break;
        }
        PyObject *item = PyList_GET_ITEM(items, at); /* ours now: */
        PyList_SET_ITEM(items, at, Py_NewRef(Py_None));
        r = run_one(trip, fn, item, spread);
        Py_DECREF(item);
        if (r == 0)
            r = PyErr_CheckSignals();
    }
    turn->desk = NULL;
    return r;
}

const char td_seat_go_doc[] =
    "go(map, index, attempt, marked, skip, load, given)\n--\n\n"
    "Go through the calls of a batch, for which load(*given) -> (function, items, spread): "
    "function(item), or function(*item), for those in the list after the first `skip`, as far as "
    "the node lets them begin.";
PyObject *td_seat_go(PyObject *self, PyObject *args)
{
    struct seat_object *object = (struct seat_object *)self;
    struct trip trip = {.self = self, .object = object, .desk = object->seat.desk};
    unsigned long long map, index;
    unsigned attempt;
    int marked, spread;
    PyObject *load, *given, *fn, *items;
    Py_ssize_t skip;
    if (!PyArg_ParseTuple(args, "KKIpnOO!", &map, &index, &attempt, &marked, &skip, &load,
                          &PyTuple_Type, &given) ||
        !prepared(object))
        return NULL;
    trip.map = map;
    trip.index = index;
    trip.attempt = attempt;
    trip.marked = marked != 0;
    int64_t begun = td_clock_now();
    PyObject *what = PyObject_CallObject(load, given); /* new */
    int r = -1;
    if (what && PyArg_ParseTuple(what, "OO!p", &fn, &PyList_Type, &items, &spread))
        r = go_through(&trip, fn, items, skip, spread != 0);
    Py_XDECREF(what);
    if (r < 0)
        return NULL;
    int64_t duration = td_clock_now() - begun;
    flush();
    struct td_message message = {
        .type = TD_MSG_IDLE,
        .idle = {.retire = spoilt(object), .duration_ns = duration, .peak_bytes = peak_bytes()}};
    struct td_error err = {0};
    r = td_seat_say(object, &message, &err);
    if (r < 0)
        return td_raise(td_state_of(self), r, &err);
    Py_RETURN_NONE;
}
