#include "pool/limit.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/mem.h"
#include "os/proc.h"

struct td_limit {
    struct td_cgroup *cgroup; /* NULL: nothing is limited by group */
    uint64_t memory_bytes;
    uint32_t serial;
    unsigned cpus; /* 0: not bounded by affinity */
    bool polled;
    bool exceeded;
    uint64_t peak;
};

static void limit_freep(struct td_limit **limit)
{
    *limit = td_limit_free(*limit);
}

int td_limit_new(struct td_cgroup_support support, uint32_t serial, uint64_t memory_bytes,
                 uint32_t cpu_milli, struct td_limit **ret_limit, struct td_error *err)
{
    TD_CLEANUP(limit_freep) struct td_limit *limit = td_alloc_zero(sizeof *limit);
    if (!limit)
        return td_error_set(err, TD_ENOMEM, "limit: out of memory");
    bool memory_by_group = memory_bytes && support.memory != TD_CGROUP_NONE;
    bool cpu_by_group = cpu_milli && support.cpu != TD_CGROUP_NONE;
    limit->memory_bytes = memory_bytes;
    limit->serial = serial;
    limit->polled = memory_bytes && !memory_by_group;
    limit->cpus = cpu_milli && !cpu_by_group ? (cpu_milli + 999) / 1000 : 0;
    if (memory_by_group || cpu_by_group) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", serial); /* always fits */
        int r = td_cgroup_new(support, name, memory_by_group ? memory_bytes : 0,
                              cpu_by_group ? cpu_milli : 0, &limit->cgroup, err);
        if (r < 0)
            return r;
    }
    *ret_limit = TD_TAKE(limit);
    return 0;
}

bool td_limit_end(struct td_limit *limit)
{
    return !limit->cgroup || td_cgroup_remove(limit->cgroup);
}

struct td_limit *td_limit_free(struct td_limit *limit)
{
    if (!limit)
        return NULL;
    td_cgroup_free(limit->cgroup);
    td_free(limit);
    return NULL;
}

/* Allows `cpus` of the CPUs that we may use ourselves, starting at a different one per runner. */
static int bind(const struct td_limit *limit, pid_t pid, struct td_error *err)
{
    cpu_set_t ours, chosen;
    if (sched_getaffinity(0, sizeof ours, &ours) < 0)
        return td_error_sys(err, errno, "sched_getaffinity");
    unsigned have = (unsigned)CPU_COUNT(&ours);
    if (limit->cpus >= have)
        return 0;
    CPU_ZERO(&chosen);
    unsigned first = limit->serial * limit->cpus % have;
    unsigned seen = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &ours))
            continue;
        if ((seen + have - first) % have < limit->cpus)
            CPU_SET(cpu, &chosen);
        seen++;
    }
    if (sched_setaffinity(pid, sizeof chosen, &chosen) < 0)
        return td_error_sys(err, errno, "sched_setaffinity");
    return 0;
}

int td_limit_enter(struct td_limit *limit, pid_t pid, struct td_error *err)
{
    int r = limit->cgroup ? td_cgroup_enter(limit->cgroup, pid, err) : 0;
    if (r == 0 && limit->cpus)
        r = bind(limit, pid, err);
    return r;
}

bool td_limit_polled(const struct td_limit *limit)
{
    return limit->polled;
}

/* Resident size counts a page in every process that shares it, which is too much for a call that
 * forks, or whose zygote has imported a lot. It is quick to read; what it suspects is weighed. */
bool td_limit_poll(struct td_limit *limit, pid_t pid, uint64_t rss_bytes)
{
    uint64_t now = rss_bytes > limit->memory_bytes ? td_proc_tree_pss(pid) : rss_bytes;
    if (now > limit->peak)
        limit->peak = now;
    if (now > limit->memory_bytes)
        limit->exceeded = true;
    return limit->exceeded;
}

bool td_limit_exceeded(const struct td_limit *limit)
{
    return limit->exceeded || (limit->cgroup && td_cgroup_oom(limit->cgroup));
}

uint64_t td_limit_peak(const struct td_limit *limit)
{
    return limit->cgroup ? td_cgroup_peak(limit->cgroup) : limit->peak;
}
