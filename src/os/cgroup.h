/* cgroup.h: limits on one process tree by control group, v2 or v1, where this process may make
 * groups (it is root, or the group it lives in was delegated to it).
 *
 * A group is made below the caller's own, named tendril-<pid of the maker>-<name>. It limits what
 * is put in and everything that this starts. When memory runs out the kernel kills inside the
 * group only.
 * Threads: one owner. Lifetime: td_cgroup_new .. td_cgroup_free, which removes the group; all
 * processes in it must have ended, else the directory stays for td_cgroup_sweep.
 * Source: kernel documentation, admin-guide/cgroup-v2 and cgroup-v1/memory, scheduler/sched-bwc. */
#ifndef TD_OS_CGROUP_H
#define TD_OS_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct td_cgroup;
struct td_error;

enum td_cgroup_kind { TD_CGROUP_NONE, TD_CGROUP_V1, TD_CGROUP_V2 };

struct td_cgroup_support {
    enum td_cgroup_kind memory; /* how memory can be limited here; NONE: not by cgroup */
    enum td_cgroup_kind cpu;
};

/* What is possible here, found by trying (a group is made and removed). */
struct td_cgroup_support td_cgroup_probe(void);

/* memory_bytes or cpu_milli (1000 = one core) 0: not limited. TD_EINVAL when support lacks what
 * is asked for, TD_ENOMEM, TD_ESYS. */
int td_cgroup_new(struct td_cgroup_support support, const char *name, uint64_t memory_bytes,
                  uint32_t cpu_milli, struct td_cgroup **ret_cgroup, struct td_error *err);

/* Moves a process in; what it forks from then on is inside. */
int td_cgroup_enter(struct td_cgroup *cgroup, pid_t pid, struct td_error *err);

uint64_t
td_cgroup_peak(const struct td_cgroup *cgroup);     /* bytes; 0 when the kernel does not tell */
bool td_cgroup_oom(const struct td_cgroup *cgroup); /* the kernel killed for memory in here */

/* Removes the group, after which it can only be freed. False: a process in it lives still, or is
 * about to end; to be tried again. */
bool td_cgroup_remove(struct td_cgroup *cgroup);

struct td_cgroup *td_cgroup_free(struct td_cgroup *cgroup); /* accepts NULL, returns NULL */

/* How often the kernel has killed for memory in the group that this process is in; -1 when it is in
 * none of ours. For the process inside: the one that was killed need not be the one that asked. */
int64_t td_cgroup_own_kills(void);

/* Removes groups of makers that are no more (killed by -9). */
void td_cgroup_sweep(void);

#endif
