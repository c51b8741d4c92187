/* forkmark.h: tells, without a system call, whether this process is the one that made the mark or
 * a forked child of it: a page that the kernel hands to children wiped (MADV_WIPEONFORK).
 *
 * Threads: any. Lifetime: td_forkmark_new .. td_forkmark_free. */
#ifndef TD_OS_FORKMARK_H
#define TD_OS_FORKMARK_H

#include <stdbool.h>

struct td_error;
struct td_forkmark;

/* TD_ENOMEM, TD_ESYS. */
int td_forkmark_new(struct td_forkmark **ret_mark, struct td_error *err);
struct td_forkmark *td_forkmark_free(struct td_forkmark *mark); /* accepts NULL, returns NULL */

/* True in a child that was forked since the mark was made. */
bool td_forkmark_is_child(const struct td_forkmark *mark);

#endif
