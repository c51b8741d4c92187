/* results.c: the type Results: an iterator whose next item is, most of the time, in a list already.
 *
 * A subclass has two methods: _refill() gives the next list, or raises StopIteration or what else
 * is to be raised at this turn; _unreadable(item, at) says what becomes of an Unreadable at that
 * place of the list: it gives a value, raises, or gives NotImplemented, which skips it. */
#include "state.h"

struct results_object {
    PyObject_HEAD
    PyObject *items; /* a list, or NULL; what was given is None in there */
    Py_ssize_t at;
};

static struct results_object *results_of(PyObject *self)
{
    return (struct results_object *)self;
}

static int refill(PyObject *self)
{
    PyObject *items = PyObject_CallMethod(self, "_refill", NULL); /* new */
    if (items && !PyList_CheckExact(items)) {
        Py_DECREF(items);
        PyErr_SetString(PyExc_TypeError, "_refill() must return a list");
        return -1;
    }
    if (!items)
        return -1;
    Py_XSETREF(results_of(self)->items, items);
    results_of(self)->at = 0;
    return 0;
}

/* The next item, new; a list that _refill gives may be empty. */
static PyObject *results_next(PyObject *self)
{
    struct results_object *results = results_of(self);
    PyObject *unreadable = NULL; /* borrowed, when it is needed */
    for (;;) {
        if (!results->items || results->at >= PyList_GET_SIZE(results->items)) {
            if (refill(self) < 0)
                return NULL;
            continue;
        }
        Py_ssize_t at = results->at++;
        PyObject *item = PyList_GET_ITEM(results->items, at); /* ours now: */
        PyList_SET_ITEM(results->items, at, Py_NewRef(Py_None));
        if (!PyExceptionInstance_Check(item))
            return item;
        if (!unreadable)
            unreadable = td_state_of(self)->unreadable;
        if ((PyObject *)Py_TYPE(item) != unreadable)
            return item;
        PyObject *value = PyObject_CallMethod(self, "_unreadable", "Nn", item, at); /* new */
        if (value != Py_NotImplemented)
            return value;
        Py_DECREF(value);
    }
}

static PyObject *get_left(PyObject *self, void *ignored)
{
    (void)ignored;
    struct results_object *results = results_of(self);
    return PyLong_FromSsize_t(results->items ? PyList_GET_SIZE(results->items) - results->at : 0);
}

static int results_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(results_of(self)->items);
    return 0;
}

static int results_clear(PyObject *self)
{
    Py_CLEAR(results_of(self)->items);
    return 0;
}

static void results_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)results_clear(self); /* always 0 */
    type->tp_free(self);
    Py_DECREF(type);
}

static PyGetSetDef attributes[] = {
    {"_left", get_left, NULL, "Items of the list that were not given yet.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"An iterator over lists of results; see results.c."},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, results_next},
    {Py_tp_traverse, results_traverse},
    {Py_tp_clear, results_clear},
    {Py_tp_dealloc, results_dealloc},
    {Py_tp_getset, attributes},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "tendril._tendril.Results",
    .basicsize = sizeof(struct results_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyObject *td_results_type_new(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
