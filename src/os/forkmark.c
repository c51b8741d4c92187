#include "os/forkmark.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "base/err.h"

/* It lives in a page of its own, which is why there is nothing else in it. */
struct td_forkmark {
    bool made_here;
};

int td_forkmark_new(struct td_forkmark **ret_mark, struct td_error *err)
{
    struct td_forkmark *mark = mmap(NULL, sizeof *mark, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mark == MAP_FAILED)
        return td_error_sys(err, errno, "mmap");
    if (madvise(mark, sizeof *mark, MADV_WIPEONFORK) < 0) {
        int r = td_error_sys(err, errno, "madvise(MADV_WIPEONFORK)");
        td_forkmark_free(mark);
        return r;
    }
    mark->made_here = true;
    *ret_mark = mark;
    return 0;
}

struct td_forkmark *td_forkmark_free(struct td_forkmark *mark)
{
    if (mark)
        (void)munmap(mark, sizeof *mark); /* cannot fail for a mapping of ours */
    return NULL;
}

bool td_forkmark_is_child(const struct td_forkmark *mark)
{
    return !mark->made_here;
}
