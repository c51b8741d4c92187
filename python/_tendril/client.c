/* client.c: the types Client and Map: the caller's end, converted. */
#include "client/client.h"

#include <string.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "block.h"
#include "os/clock.h"
#include "plain.h"
#include "spec_object.h"
#include "state.h"
#include "task/outcome.h"
#include "task/spec.h"

/* How often a reader looks whether a signal came, in case it came a moment before it slept. */
#define LOOK_NS ((int64_t)300000000)

struct client_object {
    PyObject_HEAD
    struct td_client *client; /* NULL before __init__ */
};

struct map_object {
    PyObject_HEAD
    struct td_map *map; /* a reference */
};

static struct td_client *client_of(PyObject *self)
{
    struct td_client *client = ((struct client_object *)self)->client;
    if (!client)
        PyErr_SetString(PyExc_ValueError, "the client was not initialised");
    return client;
}

static struct td_map *map_of(PyObject *self)
{
    return ((struct map_object *)self)->map;
}

/* What a wait came to: 1 done, 0 the deadline passed, -1 an exception is set. EINTR becomes the
 * signal's handler, and *again when that did not raise. */
static int waited(PyObject *self, int r, bool *again)
{
    *again = false;
    if (r == 0)
        return 1;
    if (r == TD_ETIMEOUT || r == TD_EAGAIN)
        return 0;
    if (r == TD_EINTR && PyErr_CheckSignals() == 0) {
        *again = true;
        return 0;
    }
    if (r != TD_EINTR)
        (void)td_raise(td_state_of(self), r, NULL); /* always NULL */
    return -1;
}

/* -- Map -------------------------------------------------------------------------------------- */

/* A new tuple; the outcome stays the caller's. */
static PyObject *outcome_tuple(struct state *state, const struct td_outcome *outcome)
{
    return Py_BuildValue(
        "(KIIBINiiLLKKNN)", (unsigned long long)outcome->index, (unsigned)outcome->count,
        (unsigned)outcome->skip, outcome->status, outcome->attempt,
        td_blob_object(state, outcome->value), outcome->code, outcome->pid,
        (long long)outcome->started_ns, (long long)outcome->duration_ns,
        (unsigned long long)outcome->peak_bytes, (unsigned long long)outcome->limit_bytes,
        td_blob_object(state, outcome->last_output), td_blob_object(state, outcome->detail));
}

PyDoc_STRVAR(map_next_doc,
             "next(timeout) -> tuple | None\n--\n\n"
             "The next outcome (index, count, skip, status, attempt, value, code, pid, started_ns, "
             "duration_ns, "
             "peak_bytes, limit_bytes, last_output, detail); None when `timeout` seconds passed or "
             "output is waiting; StopIteration when all were delivered.");
static PyObject *map_next(PyObject *self, PyObject *arg)
{
    int64_t deadline;
    if (td_deadline(arg, &deadline) < 0)
        return NULL;
    TD_CLEANUP(td_outcome_freep) struct td_outcome *outcome = NULL;
    bool again;
    int done;
    do {
        int r;
        int64_t look = td_clock_now() + LOOK_NS;
        Py_BEGIN_ALLOW_THREADS
        r = td_map_next(map_of(self), look < deadline ? look : deadline, &outcome);
        Py_END_ALLOW_THREADS
        if (r == TD_ENOTFOUND) {
            PyErr_SetNone(PyExc_StopIteration);
            return NULL;
        }
        if (r == TD_ETIMEOUT && look < deadline)
            r = TD_EINTR;
        done = waited(self, r, &again);
    } while (again);
    if (done < 0)
        return NULL;
    if (done == 0)
        Py_RETURN_NONE;
    return outcome_tuple(td_state_of(self), outcome);
}

PyDoc_STRVAR(map_submit_doc, "submit(args) -> int\n--\n\nAdd a call; its index.");
static PyObject *map_submit(PyObject *self, PyObject *arg)
{
    TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = td_object_blob(td_state_of(self), arg);
    if (!blob)
        return NULL;
    struct td_error err = {0};
    uint64_t index = 0;
    int r;
    Py_BEGIN_ALLOW_THREADS
    r = td_map_submit(map_of(self), blob, &index, &err);
    Py_END_ALLOW_THREADS
    if (r < 0)
        return td_raise(td_state_of(self), r, &err);
    return PyLong_FromUnsignedLongLong(index);
}

PyDoc_STRVAR(map_reject_doc,
             "reject(value)\n--\n\nAdd a call that failed before it could be sent.");
static PyObject *map_reject(PyObject *self, PyObject *arg)
{
    Py_buffer bytes;
    if (PyObject_GetBuffer(arg, &bytes, PyBUF_SIMPLE) < 0)
        return NULL;
    struct td_error err = {0};
    int r;
    Py_BEGIN_ALLOW_THREADS
    r = td_map_reject(map_of(self), (struct td_bytes){bytes.buf, (size_t)bytes.len}, &err);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&bytes);
    if (r < 0)
        return td_raise(td_state_of(self), r, &err);
    Py_RETURN_NONE;
}

/* Adds a call to a batch, or alone when it has a blob, waiting for room first where there is none.
 * 0, or -1 with an exception set. */
static int add(PyObject *self, const char *data, size_t len, struct td_blob *blob)
{
    struct td_map *map = map_of(self);
    for (;;) {
        struct td_error err = {0};
        int r = blob ? td_map_offer(map, blob, &err)
                     : td_map_pack(map, (struct td_bytes){data, len}, &err);
        if (r == 0)
            return 0;
        if (r == TD_EAGAIN) {
            Py_BEGIN_ALLOW_THREADS
            r = td_map_wait_room(map, TD_NO_DEADLINE);
            Py_END_ALLOW_THREADS
        }
        bool again;
        if (r < 0 && r != TD_EINTR) {
            (void)td_raise(td_state_of(self), r, &err); /* always NULL */
            return -1;
        }
        if (waited(self, r, &again) < 0)
            return -1;
    }
}

/* One input: plainly, or as the bytes that `dumps` makes of it, or not at all if that gives None.
 */
static int feed_one(PyObject *self, PyObject *item, PyObject *dumps)
{
    enum { BRIEF_MAX = 512 };
    char brief[BRIEF_MAX];
    Py_ssize_t plain = td_plain_size(item);
    if (plain >= 0 && plain <= BRIEF_MAX)
        return add(self, brief, (size_t)(td_plain_write(brief, item) - brief), NULL);
    PyObject *data = plain < 0 ? PyObject_CallOneArg(dumps, item) : NULL; /* new */
    if (plain < 0 && (!data || data == Py_None)) {
        int r = data ? 0 : -1;
        Py_XDECREF(data);
        return r;
    }
    if (data && td_is_block(td_state_of(self), data)) {
        TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = td_object_blob(td_state_of(self), data);
        Py_DECREF(data);
        return add(self, NULL, 0, blob);
    }
    size_t len = data ? (size_t)PyBytes_GET_SIZE(data) : 0;
    char *wide = td_alloc(plain < 0 ? len + TD_NESTED_EXTRA : (size_t)plain);
    if (!wide) {
        Py_XDECREF(data);
        PyErr_NoMemory();
        return -1;
    }
    char *end = data ? td_nested_write(wide, PyBytes_AS_STRING(data), (uint32_t)len)
                     : td_plain_write(wide, item);
    int r = add(self, wide, (size_t)(end - wide), NULL);
    td_free(wide);
    Py_XDECREF(data);
    return r;
}

PyDoc_STRVAR(
    map_feed_doc,
    "feed(inputs, dumps)\n--\n\n"
    "Draw all inputs of an iterator and add a call for each, as room allows. What is not "
    "plain goes through dumps(input), which gives bytes, a Block, or None if it was rejected.");
static PyObject *map_feed(PyObject *self, PyObject *args)
{
    enum { BREATH = 256 }; /* inputs, before other threads may have a turn */
    PyObject *inputs, *dumps;
    if (!PyArg_ParseTuple(args, "OO", &inputs, &dumps))
        return NULL;
    for (unsigned n = 1;; n++) {
        PyObject *item = PyIter_Next(inputs); /* new */
        if (!item)
            break;
        int r = feed_one(self, item, dumps);
        Py_DECREF(item);
        if (r < 0)
            return NULL;
        if (n % BREATH == 0) {
            Py_BEGIN_ALLOW_THREADS
            Py_END_ALLOW_THREADS
        }
    }
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(map_end_doc, "end()\n--\n\nNo more calls will be added.");
static PyObject *map_end(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    int r = td_map_end(map_of(self));
    if (r < 0)
        return td_raise(td_state_of(self), r, NULL);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(map_cancel_doc, "cancel()\n--\n\nStop everything of this map.");
static PyObject *map_cancel(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    td_map_cancel(map_of(self));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(map_counts_doc, "counts() -> (submitted, running, finished, failed, taken)\n--\n\n");
static PyObject *map_counts(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct td_window_counts counts = td_map_counts(map_of(self));
    return Py_BuildValue("(KKKKK)", (unsigned long long)counts.submitted,
                         (unsigned long long)counts.running, (unsigned long long)counts.finished,
                         (unsigned long long)counts.failed, (unsigned long long)counts.taken);
}

PyDoc_STRVAR(map_running_doc, "running(index) -> bool\n--\n\nWhether a runner has that call now.");
static PyObject *map_running(PyObject *self, PyObject *arg)
{
    unsigned long long index = PyLong_AsUnsignedLongLong(arg);
    if (index == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(td_map_state(map_of(self), index) == TD_CALL_RUNS);
}

PyDoc_STRVAR(map_logs_doc, "logs(index, stream) -> (bytes, lost)\n--\n\n"
                           "What a call has written to stream 1, 2 or (0) both, and how many bytes "
                           "of the map's output were dropped.");
static PyObject *map_logs(PyObject *self, PyObject *args)
{
    unsigned long long index;
    int stream;
    if (!PyArg_ParseTuple(args, "Ki", &index, &stream))
        return NULL;
    TD_CLEANUP(td_blob_unrefp) struct td_blob *text = NULL;
    uint64_t lost;
    int r = td_map_logs(map_of(self), index, stream, &text, &lost);
    if (r < 0)
        return td_raise(td_state_of(self), r, NULL);
    struct td_bytes bytes = td_blob_bytes(text);
    return Py_BuildValue("(y#K)", (const char *)bytes.data, (Py_ssize_t)bytes.len,
                         (unsigned long long)lost);
}

static PyObject *map_id(PyObject *self, void *ignored)
{
    (void)ignored;
    return PyLong_FromUnsignedLongLong(td_map_id(map_of(self)));
}

static PyObject *map_is_cancelled(PyObject *self, void *ignored)
{
    (void)ignored;
    return PyBool_FromLong(td_map_cancelled(map_of(self)));
}

static void map_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct td_map *map = map_of(self);
    Py_BEGIN_ALLOW_THREADS
    td_map_unref(map);
    Py_END_ALLOW_THREADS
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef map_methods[] = {
    {"submit", map_submit, METH_O, map_submit_doc},
    {"reject", map_reject, METH_O, map_reject_doc},
    {"next", map_next, METH_O, map_next_doc},
    {"feed", map_feed, METH_VARARGS, map_feed_doc},
    {"end", map_end, METH_NOARGS, map_end_doc},
    {"cancel", map_cancel, METH_NOARGS, map_cancel_doc},
    {"counts", map_counts, METH_NOARGS, map_counts_doc},
    {"running", map_running, METH_O, map_running_doc},
    {"logs", map_logs, METH_VARARGS, map_logs_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef map_attributes[] = {
    {"id", map_id, NULL, "The map's number: random, unique.", NULL},
    {"cancelled", map_is_cancelled, NULL, "Whether cancel() was called.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot map_slots[] = {
    {Py_tp_doc, (void *)"A map at the caller; made by Client.map."},
    {Py_tp_dealloc, map_dealloc},
    {Py_tp_methods, map_methods},
    {Py_tp_getset, map_attributes},
    {0, NULL},
};

static PyType_Spec map_spec = {
    .name = "tendril._tendril.Map",
    .basicsize = sizeof(struct map_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = map_slots,
};

PyObject *td_map_type_new(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &map_spec, NULL);
}

/* -- Client ----------------------------------------------------------------------------------- */

static int client_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"supervisor_path", "slots", "runners_max", "link_fd", "place", NULL};
    struct client_object *object = (struct client_object *)self;
    struct td_client_options options = {.link_fd = -1};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|IIiz", names, &options.supervisor_path,
                                     &options.slots, &options.runners_max, &options.link_fd,
                                     &options.place))
        return -1;
    if (object->client) {
        PyErr_SetString(PyExc_ValueError, "the client is initialised already");
        return -1;
    }
    struct td_error err = {0};
    int r;
    Py_BEGIN_ALLOW_THREADS
    r = td_client_new(&options, &object->client, &err);
    Py_END_ALLOW_THREADS
    if (r < 0)
        (void)td_raise(td_state_of(self), r, &err); /* always NULL */
    return r < 0 ? -1 : 0;
}

static void client_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct td_client *client = ((struct client_object *)self)->client;
    Py_BEGIN_ALLOW_THREADS
    td_client_unref(client);
    Py_END_ALLOW_THREADS
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(client_map_doc,
             "map(spec, ordered=True, notify=False, direct=False, head=b'', foot=b'', length=-1, "
             "ahead_calls=0, ahead_bytes=0) -> Map\n--\n\n"
             "Open a map of what a Spec has; see src/client/client.h for the rest.");
static PyObject *client_map(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"spec", "ordered", "notify",      "direct",      "head",
                            "foot", "length",  "ahead_calls", "ahead_bytes", NULL};
    struct td_client *client = client_of(self);
    struct state *state = td_state_of(self);
    PyObject *given;
    int ordered = 1, notify = 0, direct = 0;
    const char *head = "", *foot = "";
    Py_ssize_t head_len = 0, foot_len = 0;
    long long length = -1;
    unsigned long long ahead_calls = 0, ahead_bytes = 0;
    if (!client ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O!|pppy#y#LKK", names, state->spec_type, &given,
                                     &ordered, &notify, &direct, &head, &head_len, &foot, &foot_len,
                                     &length, &ahead_calls, &ahead_bytes))
        return NULL;
    struct td_spec *spec = td_object_spec(given);
    if (!spec)
        return NULL;
    struct map_object *object = (struct map_object *)state->map_type->tp_alloc(state->map_type,
                                                                               0); /* new */
    if (!object)
        return NULL;
    struct td_error err = {0};
    int r = td_map_new(client, spec,
                       (struct td_map_options){.ordered = ordered != 0,
                                               .notify = notify != 0,
                                               .direct = direct != 0,
                                               .relay = true,
                                               .head = {head, (size_t)head_len},
                                               .foot = {foot, (size_t)foot_len},
                                               .length = length < 0 ? UINT64_MAX : (uint64_t)length,
                                               .ahead_calls = ahead_calls,
                                               .ahead_bytes = ahead_bytes},
                       &object->map, &err);
    if (r == 0)
        return (PyObject *)object;
    Py_DECREF(object);
    return td_raise(state, r, &err);
}

PyDoc_STRVAR(client_wait_doc, "wait(timeout) -> bool\n--\n\n"
                              "Wait until output or a notice is there.");
static PyObject *client_wait(PyObject *self, PyObject *arg)
{
    struct td_client *client = client_of(self);
    int64_t deadline;
    if (!client || td_deadline(arg, &deadline) < 0)
        return NULL;
    bool again;
    int done;
    do {
        int r;
        Py_BEGIN_ALLOW_THREADS
        r = td_client_wait(client, deadline);
        Py_END_ALLOW_THREADS
        done = waited(self, r, &again);
    } while (again);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

PyDoc_STRVAR(client_take_output_doc,
             "take_output() -> (map, index, stream, bytes) | None\n--\n\nThe oldest output.");
static PyObject *client_take_output(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct td_client *client = client_of(self);
    if (!client)
        return NULL;
    struct td_output *output = td_client_take_output(client);
    if (!output)
        Py_RETURN_NONE;
    PyObject *result = Py_BuildValue(
        "(KKiy#)", (unsigned long long)output->map, (unsigned long long)output->index,
        output->stream, (const char *)output->text.data, (Py_ssize_t)output->text.len); /* new */
    td_output_free(output);
    return result;
}

PyDoc_STRVAR(client_wake_doc, "wake()\n--\n\nMake wait() return once.");
static PyObject *client_wake(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct td_client *client = client_of(self);
    if (!client)
        return NULL;
    td_client_wake(client);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(client_take_notice_doc, "take_notice() -> int | None\n--\n\n"
                                     "The id of the next notifying map whose outcome has come.");
static PyObject *client_take_notice(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct td_client *client = client_of(self);
    if (!client)
        return NULL;
    struct td_map *map = td_client_take_notice(client);
    if (!map)
        Py_RETURN_NONE;
    PyObject *id = PyLong_FromUnsignedLongLong(td_map_id(map)); /* new */
    Py_BEGIN_ALLOW_THREADS
    td_map_unref(map);
    Py_END_ALLOW_THREADS
    return id;
}

PyDoc_STRVAR(client_info_doc, "info() -> (slots, supervisor_pid, limits)\n--\n\n");
static PyObject *client_info(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct td_client *client = client_of(self);
    if (!client)
        return NULL;
    struct td_client_info info = td_client_info(client);
    return Py_BuildValue("(Iis)", info.slots, info.supervisor_pid, info.limits);
}

PyDoc_STRVAR(client_close_doc, "close()\n--\n\nCancel everything and end every process.");
static PyObject *client_close(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    struct td_client *client = client_of(self);
    if (!client)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    td_client_close(client);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef client_methods[] = {
    {"map", (PyCFunction)(void (*)(void))client_map, METH_VARARGS | METH_KEYWORDS, client_map_doc},
    {"wait", client_wait, METH_O, client_wait_doc},
    {"take_output", client_take_output, METH_NOARGS, client_take_output_doc},
    {"wake", client_wake, METH_NOARGS, client_wake_doc},
    {"take_notice", client_take_notice, METH_NOARGS, client_take_notice_doc},
    {"info", client_info, METH_NOARGS, client_info_doc},
    {"close", client_close, METH_NOARGS, client_close_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot client_slots[] = {
    {Py_tp_doc, (void *)"Client(supervisor_path, slots=0, runners_max=0, link_fd=-1, place=None)"},
    {Py_tp_init, client_init},
    {Py_tp_dealloc, client_dealloc},
    {Py_tp_methods, client_methods},
    {0, NULL},
};

static PyType_Spec client_spec = {
    .name = "tendril._tendril.Client",
    .basicsize = sizeof(struct client_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = client_slots,
};

PyObject *td_client_type_new(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &client_spec, NULL);
}
