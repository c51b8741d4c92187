/* blob.h: immutable bytes shared by reference: a call's arguments, a function's body, a result.
 *
 * A blob is copied once, when it enters, and from then on only counted. The bytes of a large one
 * may lie in a file that is mapped (os/memfile.h), and go to another process by its descriptor.
 * Threads: any; the count is atomic and the bytes never change after td_blob_new.
 * Lifetime: from td_blob_new until the last td_blob_unref. */
#ifndef TD_BASE_BLOB_H
#define TD_BASE_BLOB_H

#include "base/bytes.h"

struct td_blob;

/* A copy of the bytes, or NULL when memory is out. */
struct td_blob *td_blob_new(const void *data, size_t len);

/* A copy of several pieces one after another, or NULL. */
struct td_blob *td_blob_join(const struct td_bytes *pieces, size_t npieces);

/* Bytes that lie elsewhere, until `release` is called with this context. NULL: nothing was taken.
 */
typedef void td_blob_release_fn(void *context);
struct td_blob *td_blob_wrap(const void *data, size_t len, td_blob_release_fn *release,
                             void *context);

/* What a wrapped blob of this kind was made with, or NULL. */
void *td_blob_context(const struct td_blob *blob, td_blob_release_fn *release);

struct td_blob *td_blob_ref(struct td_blob *blob);   /* accepts NULL */
struct td_blob *td_blob_unref(struct td_blob *blob); /* accepts NULL, returns NULL */
void td_blob_unrefp(struct td_blob **blob);          /* for TD_CLEANUP */

/* The bytes; empty for NULL. Valid as long as a reference is held. */
struct td_bytes td_blob_bytes(const struct td_blob *blob);

#endif
