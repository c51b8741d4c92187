/* spec_object.h: a Python Spec's core. */
#ifndef TD_PYTHON_SPEC_OBJECT_H
#define TD_PYTHON_SPEC_OBJECT_H

#include "state.h"

struct td_spec;

/* Of a Spec, borrowed; NULL with an exception set: it was not filled. */
struct td_spec *td_object_spec(PyObject *object);

#endif
