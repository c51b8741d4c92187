/* stream.c: the type Stream: what sys.stdout and sys.stderr of a runner write to.
 *
 * It writes line by line to a descriptor. While a runner goes through several calls, each piece is
 * marked with the call that wrote it (src/node/marks.h). */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/buf.h"
#include "node/marks.h"
#include "os/fd.h"
#include "pool/desk.h"
#include "state.h"

enum { HOLD_MAX = 8 << 10, PIECE_MAX = 1 << 30 };

struct stream_object {
    PyObject_HEAD
    int fd;
    struct td_buf held;
    uint64_t written; /* bytes, marks not counted */
};

static struct stream_object *stream_of(PyObject *self)
{
    return (struct stream_object *)self;
}

/* Without the GIL. 0, or -1 with errno set. */
static int write_all(int fd, struct iovec *parts, size_t nparts)
{
    while (nparts > 0) {
        ssize_t n = writev(fd, parts, (int)nparts);
        if (n < 0 && errno == EAGAIN) { /* the call has changed the descriptor */
            struct pollfd wanted = {.fd = fd, .events = POLLOUT};
            (void)poll(&wanted, 1, -1); /* interrupted: written again at once */
        }
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return -1;
        td_fd_iov_drop(&parts, &nparts, (size_t)n);
    }
    return 0;
}

/* Writes text, with its mark where calls are told apart. 0, or -1 with an exception set. */
static int write_text(PyObject *self, const char *text, size_t len)
{
    const struct turn *turn = &td_state_of(self)->turn;
    char mark[TD_MARK_SIZE];
    struct iovec parts[] = {{mark, sizeof mark}, {(void *)text, len}};
    int fd = stream_of(self)->fd;
    size_t first = turn->desk ? 0 : 1;
    stream_of(self)->written += len;
    if (turn->desk)
        td_mark_write(mark, td_desk_token(turn->desk), td_desk_at(turn->desk), (uint32_t)len);
    int r;
    Py_BEGIN_ALLOW_THREADS
    r = write_all(fd, parts + first, (len ? (size_t)2 : 1) - first);
    Py_END_ALLOW_THREADS
    if (r < 0)
        PyErr_SetFromErrno(PyExc_OSError);
    return r;
}

/* Another thread may add to it meanwhile: what is written is taken out first. */
int td_stream_flush(PyObject *self)
{
    struct td_buf *held = &stream_of(self)->held;
    if (held->len == 0)
        return 0;
    TD_CLEANUP(td_buf_done) struct td_buf out = *held;
    td_buf_init(held, PIECE_MAX);
    return write_text(self, out.data, out.len);
}

uint64_t td_stream_written(PyObject *self)
{
    return stream_of(self)->written;
}

int td_stream_mark(PyObject *self)
{
    return td_stream_flush(self) < 0 ? -1 : write_text(self, NULL, 0);
}

PyDoc_STRVAR(write_doc, "write(data) -> int\n--\n\nWrite bytes, at the latest with their line.");
static PyObject *stream_write(PyObject *self, PyObject *arg)
{
    struct td_buf *held = &stream_of(self)->held;
    Py_buffer data;
    if (PyObject_GetBuffer(arg, &data, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t len = (size_t)data.len;
    bool line = len > 0 && memchr(data.buf, '\n', len) != NULL;
    int r = 0;
    if (held->len == 0 && (line || len > HOLD_MAX)) { /* print writes a line in two pieces */
        for (size_t at = 0, n; r == 0 && at < len; at += n) {
            n = len - at < PIECE_MAX ? len - at : PIECE_MAX;
            r = write_text(self, (const char *)data.buf + at, n);
        }
    } else if (td_buf_add(held, data.buf, len) < 0) {
        PyErr_NoMemory();
        r = -1;
    } else if (line || held->len > HOLD_MAX) {
        r = td_stream_flush(self);
    }
    PyBuffer_Release(&data);
    return r < 0 ? NULL : PyLong_FromSize_t(len);
}

PyDoc_STRVAR(flush_doc, "flush()\n--\n\nWrite what is held of a line that has begun.");
static PyObject *stream_flush(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    if (td_stream_flush(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *stream_fileno(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return PyLong_FromLong(stream_of(self)->fd);
}

static PyObject *yes(PyObject *self, PyObject *ignored)
{
    (void)self, (void)ignored;
    Py_RETURN_TRUE;
}

static PyObject *no(PyObject *self, PyObject *ignored)
{
    (void)self, (void)ignored;
    Py_RETURN_FALSE;
}

static PyObject *get_closed(PyObject *self, void *ignored)
{
    (void)self, (void)ignored;
    Py_RETURN_FALSE;
}

static PyObject *get_mode(PyObject *self, void *ignored)
{
    (void)self, (void)ignored;
    return PyUnicode_FromString("wb");
}

static PyObject *get_name(PyObject *self, void *ignored)
{
    (void)ignored;
    return PyUnicode_FromString(stream_of(self)->fd == 1 ? "<stdout>" : "<stderr>");
}

static PyObject *get_raw(PyObject *self, void *ignored)
{
    (void)ignored;
    return Py_NewRef(self);
}

static int stream_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", NULL};
    struct stream_object *stream = stream_of(self);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i", names, &stream->fd))
        return -1;
    td_buf_done(&stream->held);
    td_buf_init(&stream->held, PIECE_MAX);
    return 0;
}

static void stream_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    td_buf_done(&stream_of(self)->held);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"write", stream_write, METH_O, write_doc},
    {"flush", stream_flush, METH_NOARGS, flush_doc},
    {"close", stream_flush, METH_NOARGS, "close()\n--\n\nAs flush: the descriptor stays."},
    {"fileno", stream_fileno, METH_NOARGS, "fileno() -> int\n--\n\nThe descriptor."},
    {"writable", yes, METH_NOARGS, "writable() -> bool\n--\n\nTrue."},
    {"readable", no, METH_NOARGS, "readable() -> bool\n--\n\nFalse."},
    {"seekable", no, METH_NOARGS, "seekable() -> bool\n--\n\nFalse."},
    {"isatty", no, METH_NOARGS, "isatty() -> bool\n--\n\nFalse: it is a pipe."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"closed", get_closed, NULL, "False.", NULL},
    {"mode", get_mode, NULL, "As of a binary file.", NULL},
    {"name", get_name, NULL, "As of Python's own.", NULL},
    {"raw", get_raw, NULL, "Itself: there is nothing below it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"Stream(fd): a binary file for a runner's sys.stdout or sys.stderr."},
    {Py_tp_init, stream_init},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "tendril._tendril.Stream",
    .basicsize = sizeof(struct stream_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

PyObject *td_stream_type_new(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
