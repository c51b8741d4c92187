/* memfile.h: large values in memory that processes hand to each other by descriptor, so that nobody
 * copies them through a socket.
 *
 *      one process:  td_memfile_new, and the blob is sent (channel.h, seat.h send its descriptor)
 *      another:      td_memfile_open, td_memfile_close when the blob is not sent on
 *
 * The files are sealed: their bytes never change, and are never cut off under a reader. Each
 * process maps them privately, so that it may write to its own copy, a page at a time. Threads:
 * any, but td_memfile_close. Lifetime: the blob's. */
#ifndef TD_OS_MEMFILE_H
#define TD_OS_MEMFILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"

struct td_blob;
struct td_error;

enum { TD_MEMFILES_MAX = 16384 }; /* mapped at once by a process; more are copied */

/* The pieces one after another, at least a byte. TD_ELIMIT: too many open files; TD_ENOMEM,
 * TD_ESYS, TD_EINVAL. */
int td_memfile_new(const struct td_bytes *pieces, size_t npieces, struct td_blob **ret_blob,
                   struct td_error *err);

/* One that is filled piece by piece, in any order: begun with a length of at least a byte, put, and
 * opened by td_memfile_open once it is sealed. TD_ELIMIT, TD_ENOMEM, TD_ESYS, TD_EINVAL (put:
 * beyond its length). */
int td_memfile_begin(size_t len, int *ret_fd, struct td_error *err);
int td_memfile_put(int fd, size_t at, struct td_bytes piece, struct td_error *err);
int td_memfile_seal(int fd, struct td_error *err);

/* Takes *fd, also on failure. Its bytes are copied where no more can be mapped. TD_EPROTO: it is no
 * sealed file; TD_ESYS, TD_ENOMEM. */
int td_memfile_open(int *fd, struct td_blob **ret_blob, struct td_error *err);

/* The descriptor of the file that a blob lies in, borrowed; -1: it does not, or was closed. */
int td_memfile_fd(const struct td_blob *blob);

/* Closes the descriptor ahead of the blob: it counts against the limit of open files. Nobody may be
 * sending it any more. The bytes stay. */
void td_memfile_close(struct td_blob *blob);

/* Whether the blob was made here: its only reader may write to the bytes. */
bool td_memfile_writable(const struct td_blob *blob);

#endif
