/* state.h: what the extension's files share: the module's state and the turning of statuses into
 * exceptions. The extension converts and calls; policy is in Python.
 *
 * No function of libtendril that can block is called with the GIL held. */
#ifndef TD_PYTHON_STATE_H
#define TD_PYTHON_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

struct td_desk;
struct td_error;

/* Whose turn it is in a runner that goes through several calls: the one at which its desk is. */
struct turn {
    struct td_desk *desk; /* NULL: there is one call only */
};

struct state {
    struct turn turn;
    PyTypeObject *block_type;
    PyTypeObject *client_type;
    PyTypeObject *map_type;
    PyTypeObject *results_type;
    PyTypeObject *seat_type;
    PyTypeObject *spec_type;
    PyTypeObject *stream_type;
    PyObject *unreadable; /* _tendril.Unreadable(exception) */
    PyObject *error;      /* _tendril.Error(name, text) */
};

extern struct PyModuleDef td_module; /* for PyType_GetModuleByDef */

struct state *td_state_of(PyObject *object); /* of an instance of one of our types */

/* Raises _tendril.Error(name of the status, text of err or of the status); returns NULL. */
PyObject *td_raise(struct state *state, int status, const struct td_error *err);

/* Seconds from Python (None: for ever) to a deadline. -1 with an exception set. */
int td_deadline(PyObject *seconds, int64_t *ret_deadline_ns);

/* The types; each returns a new reference or NULL with an exception set. */
PyObject *td_block_type_new(PyObject *module);
PyObject *td_client_type_new(PyObject *module);
PyObject *td_map_type_new(PyObject *module);
PyObject *td_results_type_new(PyObject *module);
PyObject *td_seat_type_new(PyObject *module);
PyObject *td_spec_type_new(PyObject *module);
PyObject *td_stream_type_new(PyObject *module);

/* Of a Stream. Writes what is held of a line; marks what others write with the call whose turn it
 * is. 0, or -1 with an exception set. */
int td_stream_flush(PyObject *stream);
int td_stream_mark(PyObject *stream);
uint64_t td_stream_written(PyObject *stream); /* bytes, marks not counted */

#endif
