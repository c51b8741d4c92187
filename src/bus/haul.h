/* haul.h: a large value on its way through the engine: cut into chunks that are stored under the
 * value's name, and put together again at the other end, a few of them under way at a time.
 *
 *      td_haul_up:   blob ---> td.blob.<session>.<scope>.<blob>.<0, 1, 2, ...>
 *      td_haul_down: the same ---> blob, in a memory file
 *
 * Neither the server nor we hold more of it in memory than the chunks under way, apart from the
 * value itself. Threads: the loop thread. Lifetime: until `done` was called, or td_haul_free, which
 * may not be called inside. */
#ifndef TD_BUS_HAUL_H
#define TD_BUS_HAUL_H

#include <stddef.h>

#include "wire/message.h"

struct td_blob;
struct td_haul;
struct td_jet;

/* status 0; TD_ENOTFOUND: a chunk is not there any more; TD_ELIMIT, TD_ETIMEOUT, TD_ENOMEM,
 * TD_ESYS. Down: blob is the receiver's. The haul is gone. */
typedef void td_haul_fn(void *context, int status, struct td_blob *blob);

/* The largest value that goes in a message: a MiB at most, since larger ones shall lie in memory
 * files at both ends. */
size_t td_haul_inline_max(const struct td_jet *jet);

/* Takes a reference to the blob; *parcel names it, and is completed by its size and chunks.
 * TD_ENOMEM. */
int td_haul_up(struct td_jet *jet, struct td_blob *blob, struct td_msg_parcel *parcel,
               td_haul_fn *done, void *context, struct td_haul **ret_haul);
/* TD_ENOMEM, TD_ELIMIT, TD_ESYS, TD_EPROTO: the parcel makes no sense. */
int td_haul_down(struct td_jet *jet, const struct td_msg_parcel *parcel, td_haul_fn *done,
                 void *context, struct td_haul **ret_haul);
struct td_haul *td_haul_free(struct td_haul *haul); /* accepts NULL, returns NULL */

#endif
