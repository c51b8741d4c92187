#include "pool/guardian.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "os/cgroup.h"
#include "os/proc.h"

static void wait_for(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

int td_guardian_fork(struct td_error *err)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return td_error_sys(err, errno, "prctl(PR_SET_CHILD_SUBREAPER)");
    pid_t pid = fork();
    if (pid < 0)
        return td_error_sys(err, errno, "fork");
    if (pid == 0)
        return 0;
    /* It must outlive the supervisor: only SIGKILL ends it before. */
    sigset_t all;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, NULL); /* cannot fail: the arguments are valid */
    wait_for(pid);
    td_proc_end_below(); /* nothing, when the supervisor has done its work */
    td_cgroup_sweep();
    _exit(EXIT_SUCCESS);
}
