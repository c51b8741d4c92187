/* module.c: the module `tendril._tendril`: its state, and the functions that belong to no type. */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/err.h"
#include "os/clock.h"
#include "os/proc.h"
#include "plain.h"
#include "pool/seat.h"
#include "state.h"
#include "task/outcome.h"
#include "wire/message.h"

struct state *td_state_of(PyObject *object)
{
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(object), &td_module); /* borrowed */
    return module ? PyModule_GetState(module) : NULL;
}

PyObject *td_raise(struct state *state, int status, const struct td_error *err)
{
    if (status == TD_ENOMEM && !(err && err->text[0]))
        return PyErr_NoMemory();
    const char *text = err && err->text[0] ? err->text : td_status_text(status);
    PyObject *args = Py_BuildValue("(ss)", td_status_name(status), text); /* new */
    if (args)
        PyErr_SetObject(state->error, args);
    Py_XDECREF(args);
    return NULL;
}

int td_deadline(PyObject *seconds, int64_t *ret_deadline_ns)
{
    *ret_deadline_ns = TD_NO_DEADLINE;
    if (seconds == Py_None)
        return 0;
    double s = PyFloat_AsDouble(seconds);
    if (s == -1.0 && PyErr_Occurred())
        return -1;
    if (s < 0)
        s = 0;
    if (s < 1e9)
        *ret_deadline_ns = td_clock_now() + (int64_t)(s * 1e9);
    return 0;
}

PyDoc_STRVAR(die_with_doc, "die_with(parent_pid)\n--\n\n"
                           "Be killed when that parent dies, or now if it has died.");
static PyObject *die_with(PyObject *module, PyObject *arg)
{
    (void)module;
    long pid = PyLong_AsLong(arg);
    if (pid == -1 && PyErr_Occurred())
        return NULL;
    td_seat_die_with((pid_t)pid);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(adopt_doc, "adopt_orphans()\n--\n\n"
                        "Become the reaper of all descendants, so that none can slip away.");
static PyObject *adopt_orphans(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(line_buffer_doc, "line_buffer_stdout()\n--\n\n"
                              "Make C's stdout hand on each line as it is complete.");
static PyObject *line_buffer_stdout(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    (void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* fails for a bad mode only */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(flush_doc, "flush_stdout()\n--\n\nWrite out what C's stdout and stderr hold.");
static PyObject *flush_stdout(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    (void)fflush(NULL); /* what cannot be written has no reader any more */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(thread_count_doc, "thread_count() -> int\n--\n\nThreads of this process.");
static PyObject *thread_count(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    return PyLong_FromLong(td_proc_threads(getpid()));
}

PyDoc_STRVAR(environ_doc,
             "environ() -> bytes\n--\n\n"
             "The environment of this process, NAME=value each, ended by a zero byte.");
static PyObject *environ_block(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    size_t size = 0;
    for (char **entry = environ; entry && *entry; entry++)
        size += strlen(*entry) + 1;
    PyObject *block = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size); /* new */
    if (!block)
        return NULL;
    char *at = PyBytes_AS_STRING(block);
    for (char **entry = environ; entry && *entry; entry++) {
        size_t len = strlen(*entry) + 1;
        memcpy(at, *entry, len); /* fits: measured above, and the GIL was held since */
        at += len;
    }
    return block;
}

PyDoc_STRVAR(changed_doc, "changed_ns(path) -> int | None\n--\n\n"
                          "When a file was changed, ns; None for one that is not there.");
static PyObject *changed_ns(PyObject *module, PyObject *arg)
{
    (void)module;
    PyObject *path; /* new */
    struct stat found;
    if (!PyUnicode_FSConverter(arg, &path))
        return NULL;
    int r = stat(PyBytes_AS_STRING(path), &found);
    Py_DECREF(path);
    if (r < 0)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(found.st_mtim.tv_sec * TD_NS_PER_S + found.st_mtim.tv_nsec);
}

static PyMethodDef functions[] = {
    {"changed_ns", changed_ns, METH_O, changed_doc},
    {"die_with", die_with, METH_O, die_with_doc},
    {"adopt_orphans", adopt_orphans, METH_NOARGS, adopt_doc},
    {"line_buffer_stdout", line_buffer_stdout, METH_NOARGS, line_buffer_doc},
    {"flush_stdout", flush_stdout, METH_NOARGS, flush_doc},
    {"environ", environ_block, METH_NOARGS, environ_doc},
    {"thread_count", thread_count, METH_NOARGS, thread_count_doc},
    {NULL, NULL, 0, NULL},
};

/* OUTCOME_OK = 0, OUTCOME_RAISED = 1, ... */
static int add_constants(PyObject *module)
{
#define ADD_OUTCOME(number, NAME, retry, words)                          \
    if (PyModule_AddIntConstant(module, "OUTCOME_" #NAME, (number)) < 0) \
        return -1;
    TD_OUTCOMES(ADD_OUTCOME)
#undef ADD_OUTCOME
    if (PyModule_AddIntConstant(module, "KEY_SIZE", TD_KEY_SIZE) < 0 ||
        PyModule_AddIntConstant(module, "INPUT_MAX", (long)(TD_FRAME_MAX / 2 - TD_NESTED_EXTRA)) <
            0)
        return -1;
    return PyModule_AddStringConstant(module, "__version__", TD_VERSION);
}

static int add_type(PyObject *module, PyObject *type, const char *name, PyTypeObject **ret_type)
{
    if (!type)
        return -1;
    *ret_type = (PyTypeObject *)type; /* the state keeps the reference */
    return PyModule_AddObjectRef(module, name, type);
}

static int module_exec(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    state->error = PyErr_NewExceptionWithDoc(
        "tendril._tendril.Error", "A status of the core: args are its name and a sentence.",
        PyExc_RuntimeError, NULL);
    if (!state->error || PyModule_AddObjectRef(module, "Error", state->error) < 0)
        return -1;
    state->unreadable = PyErr_NewExceptionWithDoc(
        "tendril._tendril.Unreadable",
        "Stands for one of many values that could not be read: args is the reason.",
        PyExc_Exception, NULL);
    if (!state->unreadable || PyModule_AddObjectRef(module, "Unreadable", state->unreadable) < 0)
        return -1;
    if (add_type(module, td_block_type_new(module), "Block", &state->block_type) < 0 ||
        add_type(module, td_client_type_new(module), "Client", &state->client_type) < 0 ||
        add_type(module, td_results_type_new(module), "Results", &state->results_type) < 0 ||
        add_type(module, td_spec_type_new(module), "Spec", &state->spec_type) < 0 ||
        add_type(module, td_stream_type_new(module), "Stream", &state->stream_type) < 0 ||
        add_type(module, td_map_type_new(module), "Map", &state->map_type) < 0 ||
        add_type(module, td_seat_type_new(module), "Seat", &state->seat_type) < 0)
        return -1;
    return add_constants(module);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->block_type);
    Py_VISIT(state->client_type);
    Py_VISIT(state->map_type);
    Py_VISIT(state->results_type);
    Py_VISIT(state->seat_type);
    Py_VISIT(state->spec_type);
    Py_VISIT(state->stream_type);
    Py_VISIT(state->unreadable);
    Py_VISIT(state->error);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    Py_CLEAR(state->block_type);
    Py_CLEAR(state->client_type);
    Py_CLEAR(state->map_type);
    Py_CLEAR(state->results_type);
    Py_CLEAR(state->seat_type);
    Py_CLEAR(state->spec_type);
    Py_CLEAR(state->stream_type);
    Py_CLEAR(state->unreadable);
    Py_CLEAR(state->error);
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module); /* always 0 */
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

struct PyModuleDef td_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tendril._tendril",
    .m_doc = "The C core of Tendril, converted. Use the package `tendril` instead.",
    .m_size = sizeof(struct state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__tendril(void);

PyMODINIT_FUNC PyInit__tendril(void)
{
    return PyModuleDef_Init(&td_module);
}
