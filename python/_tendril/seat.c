/* seat.c: the type Seat: a runner's or a zygote's connection to those who give it work. */
#include "seat_object.h"

#include "base/err.h"
#include "block.h"
#include "os/forkmark.h"
#include "wire/message.h"

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

static int say(struct seat_object *object, const struct td_message *message, const int *fds,
               size_t nfds, struct td_error *err)
{
    int r;
    Py_BEGIN_ALLOW_THREADS
    r = td_seat_send(&object->seat, message, fds, nfds, err);
    Py_END_ALLOW_THREADS
    return r;
}

int td_seat_say(struct seat_object *seat, const struct td_message *message, struct td_error *err)
{
    return say(seat, message, NULL, 0, err);
}

/* Sends and returns None, or NULL with an exception. */
static PyObject *send(PyObject *self, const struct td_message *message, const int *fds, size_t nfds)
{
    struct td_error err = {0};
    int r = say((struct seat_object *)self, message, fds, nfds, &err);
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
    {"prepare", td_seat_prepare, METH_VARARGS, td_seat_prepare_doc},
    {"one", td_seat_one, METH_VARARGS, td_seat_one_doc},
    {"go", td_seat_go, METH_VARARGS, td_seat_go_doc},
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
