/* cgroup_base.h: where control groups of ours could be made: folders below the mount points of
 * the cgroup file systems, next to where this process lives. Internal to cgroup.c and its test.
 *
 * Threads: any. td_cgroup_base_parse is pure, so that a test can show it the tables of machines
 * that are not at hand (containers, systemd sessions, hybrid hierarchies). */
#ifndef TD_OS_CGROUP_BASE_H
#define TD_OS_CGROUP_BASE_H

#include <stddef.h>

enum { TD_CGROUP_BASES_MAX = 2, TD_CGROUP_PATH_MAX = 512 };

struct td_cgroup_base {
    char path[TD_CGROUP_PATH_MAX];
};

/* Finds the folders for a v1 controller ("memory", "cpu"), or for v2 when it is NULL, the best one
 * first; returns how many. The tables are the zero-terminated texts of /proc/self/mountinfo and
 * /proc/self/cgroup.
 * v1: this process's own group; then the root of the mount, for when the own group is not below
 * the mount (it is that of another namespace, or was removed).
 * v2: the own group; then its parent, because a group that holds processes may not hand
 * controllers to groups below it. */
size_t td_cgroup_base_parse(const char *mountinfo, const char *cgroup, const char *controller,
                            struct td_cgroup_base ret_bases[TD_CGROUP_BASES_MAX]);

/* The same from this machine's tables; 0 also when these cannot be read. */
size_t td_cgroup_base_find(const char *controller,
                           struct td_cgroup_base ret_bases[TD_CGROUP_BASES_MAX]);

#endif
