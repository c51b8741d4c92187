/* block.c: the type Block: a large value in memory that goes to another process by its descriptor.
 */
#include "block.h"

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "os/memfile.h"
#include "state.h"

enum { LARGE = 1 << 20 }; /* bytes that are not copied once more */

struct block_object {
    PyObject_HEAD
    struct td_blob *blob;
};

/* One piece: borrowed from an object that gives its buffer. 0, or -1 with an exception set. */
static int write_pieces(PyObject *pieces, Py_buffer *buffers, struct td_bytes *ret_pieces,
                        Py_ssize_t *ret_held)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(pieces); i++) {
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(pieces, i), &buffers[i], PyBUF_SIMPLE) < 0)
            return -1;
        *ret_held = i + 1;
        ret_pieces[i] = (struct td_bytes){buffers[i].buf, (size_t)buffers[i].len};
    }
    return 0;
}

static int fill(struct block_object *block, PyObject *pieces)
{
    size_t n = (size_t)PyTuple_GET_SIZE(pieces);
    Py_buffer *buffers = PyMem_New(Py_buffer, n);
    struct td_bytes *bytes = PyMem_New(struct td_bytes, n);
    Py_ssize_t held = 0;
    int r = -1;
    struct td_error err = {0};
    if (!buffers || !bytes) {
        PyErr_NoMemory();
    } else if (write_pieces(pieces, buffers, bytes, &held) == 0) {
        Py_BEGIN_ALLOW_THREADS
        r = td_memfile_new(bytes, n, &block->blob, &err);
        Py_END_ALLOW_THREADS
        if (r < 0)
            (void)td_raise(td_state_of((PyObject *)block), r, &err); /* always NULL */
    }
    while (held > 0)
        PyBuffer_Release(&buffers[--held]);
    PyMem_Free(bytes);
    PyMem_Free(buffers);
    return r < 0 ? -1 : 0;
}

static int block_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct block_object *block = (struct block_object *)self;
    PyObject *given;
    if ((kwargs && PyDict_GET_SIZE(kwargs)) || !PyArg_ParseTuple(args, "O", &given))
        return -1;
    if (block->blob) {
        PyErr_SetString(PyExc_ValueError, "the block is filled already");
        return -1;
    }
    PyObject *pieces = PySequence_Tuple(given); /* new */
    int r = pieces ? fill(block, pieces) : -1;
    Py_XDECREF(pieces);
    return r;
}

static void block_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    td_blob_unref(((struct block_object *)self)->blob);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Writable where the bytes are this process's own: `x += 1` works on what came as a result. */
static int block_buffer(PyObject *self, Py_buffer *view, int flags)
{
    struct td_blob *blob = ((struct block_object *)self)->blob;
    struct td_bytes bytes = td_blob_bytes(blob);
    return PyBuffer_FillInfo(view, self, (void *)bytes.data, (Py_ssize_t)bytes.len,
                             !td_memfile_writable(blob), flags);
}

static Py_ssize_t block_length(PyObject *self)
{
    return (Py_ssize_t)td_blob_bytes(((struct block_object *)self)->blob).len;
}

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"Block(pieces): bytes-like objects, one after another, in shared memory."},
    {Py_tp_init, block_init},
    {Py_tp_dealloc, block_dealloc},
    {Py_bf_getbuffer, block_buffer},
    {Py_sq_length, block_length},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "tendril._tendril.Block",
    .basicsize = sizeof(struct block_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

PyObject *td_block_type_new(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}

bool td_is_block(const struct state *state, PyObject *object)
{
    return Py_TYPE(object) == state->block_type;
}

struct td_blob *td_object_blob(struct state *state, PyObject *object)
{
    if (td_is_block(state, object))
        return td_blob_ref(((struct block_object *)object)->blob);
    Py_buffer bytes;
    if (PyObject_GetBuffer(object, &bytes, PyBUF_SIMPLE) < 0)
        return NULL;
    struct td_blob *blob = td_blob_new(bytes.buf, (size_t)bytes.len);
    PyBuffer_Release(&bytes);
    if (!blob)
        PyErr_NoMemory();
    return blob;
}

PyObject *td_blob_object(struct state *state, struct td_blob *blob)
{
    struct td_bytes bytes = td_blob_bytes(blob);
    if (!blob)
        Py_RETURN_NONE;
    if (bytes.len < LARGE)
        return PyBytes_FromStringAndSize(bytes.data, (Py_ssize_t)bytes.len);
    PyTypeObject *type = state->block_type;
    struct block_object *block = (struct block_object *)type->tp_alloc(type, 0); /* new */
    if (!block)
        return NULL;
    block->blob = td_blob_ref(blob);
    PyObject *view = PyMemoryView_FromObject((PyObject *)block); /* new */
    Py_DECREF(block);
    return view;
}
