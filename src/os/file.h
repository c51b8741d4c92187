/* file.h: small files and folders that are their owner's alone: what holds a secret, or the state
 * of a service.
 *
 * Invariant: a file is there whole or not at all, and nobody else could ever read it.
 * Threads: any. */
#ifndef TD_OS_FILE_H
#define TD_OS_FILE_H

#include "base/bytes.h"

struct td_buf;
struct td_error;

/* Appends all that can be read from fd until its end; name is for *err. TD_ELIMIT: more than fits
 * into `to`; TD_ENOMEM, TD_ESYS. */
int td_file_read_fd(int fd, const char *name, struct td_buf *to, struct td_error *err);

/* Appends the file's content. TD_ENOTFOUND; TD_EINVAL: it is not a regular file, not ours, or
 * others may read or write it; TD_ELIMIT, TD_ENOMEM, TD_ESYS. */
int td_file_read(const char *path, struct td_buf *to, struct td_error *err);

/* Puts a file with this content there, in the place of one that is there already. TD_ENOTFOUND
 * (its folder), TD_EINVAL (a path that is too long), TD_ESYS. */
int td_file_write(const char *path, struct td_bytes content, struct td_error *err);

/* Makes the folder, and those above it, unless it is there. TD_EINVAL: it is not a folder, not
 * ours, or others may enter it; TD_ESYS. */
int td_file_folder(const char *path, struct td_error *err);

#endif
