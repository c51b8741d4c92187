/* plain.h: pickles values of the plain built-in types without asking the pickler, for calls by the
 * million: as the opcodes of one item, many of which stand one after another in one pickle.
 *
 * Plain are None, bool, int of 64 bits, float, str, bytes, and tuples of these; not their
 * subclasses. They are immutable, so that sharing one between calls cannot be seen.
 * Source: pickle protocol 5, CPython's Lib/pickletools.py. The GIL is held. */
#ifndef TD_PYTHON_PLAIN_H
#define TD_PYTHON_PLAIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Bytes that the value takes; -1 when it is not plain, or large. No exception is set. */
Py_ssize_t td_plain_size(PyObject *value);

/* Writes a value for which td_plain_size gave a size; the end of it. */
char *td_plain_write(char *to, PyObject *value);

/* The same for a value that was pickled by itself: an item that calls what the pickle has in its
 * memo at 0 with these bytes. */
enum { TD_NESTED_EXTRA = 9 };
char *td_nested_write(char *to, const char *data, uint32_t len);

#endif
