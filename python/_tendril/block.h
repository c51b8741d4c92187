/* block.h: values that travel, between Python's objects and the core's blobs. */
#ifndef TD_PYTHON_BLOCK_H
#define TD_PYTHON_BLOCK_H

#include "state.h"

#include <stdbool.h>

struct td_blob;

bool td_is_block(const struct state *state, PyObject *object);

/* What a Block holds, or a copy of a bytes-like object: a new reference, or NULL with an exception
 * set. */
struct td_blob *td_object_blob(struct state *state, PyObject *object);

/* New: bytes, a memoryview of what is large, or None for NULL; or NULL with an exception set. */
PyObject *td_blob_object(struct state *state, struct td_blob *blob);

#endif
