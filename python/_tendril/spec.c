/* spec.c: the type Spec: what the calls of a map have in common, made once for many maps. */
#include "task/spec.h"

#include <string.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "spec_object.h"
#include "state.h"

struct spec_object {
    PyObject_HEAD
    struct td_spec *spec; /* NULL before __init__ */
};

static int spec_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key",          "body",      "argv",    "env",        "cwd",
                            "memory_bytes", "cpu_milli", "retries", "timeout_ns", NULL};
    struct spec_object *object = (struct spec_object *)self;
    const char *key, *body, *argv, *env, *cwd;
    Py_ssize_t key_len, body_len, argv_len, env_len, cwd_len;
    unsigned long long memory;
    unsigned cpu, retries;
    long long timeout;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y#y#y#y#y#KIIL", names, &key, &key_len, &body,
                                     &body_len, &argv, &argv_len, &env, &env_len, &cwd, &cwd_len,
                                     &memory, &cpu, &retries, &timeout))
        return -1;
    struct td_spec wanted = {.retries = retries,
                             .timeout_ns = timeout,
                             .runner = {.argv = {argv, (size_t)argv_len},
                                        .env = {env, (size_t)env_len},
                                        .cwd = {cwd, (size_t)cwd_len},
                                        .memory_bytes = memory,
                                        .cpu_milli = cpu}};
    if (key_len != TD_KEY_SIZE || object->spec) {
        PyErr_SetString(PyExc_ValueError,
                        "the key is not a SHA-256, or the spec is filled already");
        return -1;
    }
    memcpy(wanted.function.bytes, key, TD_KEY_SIZE);
    TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = td_blob_new(body, (size_t)body_len);
    if (!blob) {
        PyErr_NoMemory();
        return -1;
    }
    wanted.body = blob;
    struct td_error err = {0};
    int r = td_spec_new(&wanted, &object->spec, &err);
    if (r < 0)
        (void)td_raise(td_state_of(self), r, &err); /* always NULL */
    return r < 0 ? -1 : 0;
}

static void spec_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    td_spec_unref(((struct spec_object *)self)->spec);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"Spec(key, body, argv, env, cwd, memory_bytes, cpu_milli, retries, "
                        "timeout_ns): see src/task/spec.h."},
    {Py_tp_init, spec_init},
    {Py_tp_dealloc, spec_dealloc},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "tendril._tendril.Spec",
    .basicsize = sizeof(struct spec_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

PyObject *td_spec_type_new(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &type_spec, NULL);
}

struct td_spec *td_object_spec(PyObject *object)
{
    struct td_spec *spec = ((struct spec_object *)object)->spec;
    if (!spec)
        PyErr_SetString(PyExc_ValueError, "the spec was not filled");
    return spec;
}
