#include "os/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "os/cgroup_base.h"
#include "os/fd.h"

#define NAME_PREFIX "tendril-"

enum {
    NAME_MAX_LEN = 64,
    TEXT_MAX = 4096, /* of the small files of a group */
    PATH_LEN_MAX = TD_CGROUP_PATH_MAX + 128,
    CPU_PERIOD_US = 100000,
    CPU_PERIOD_LONG_US = 1000000,
    CPU_QUOTA_MIN_US = 1000, /* the kernel takes no less */
};

enum controllers { MEMORY = 1 << 0, CPU = 1 << 1 };

/* One folder of ours: v1 has one for each controller, v2 one for all. */
struct place {
    unsigned controllers;
    enum td_cgroup_kind kind;
    char path[PATH_LEN_MAX];
};

struct td_cgroup {
    struct place places[2];
    size_t nplaces;
};

/* Writes a file of a group; 0 or the errno. */
static int file_write(const char *group, const char *file, const char *text)
{
    char path[PATH_LEN_MAX + 64];
    (void)snprintf(path, sizeof path, "%s/%s", group, file); /* file is one of our constants */
    TD_CLEANUP(td_fd_close) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    return write(fd, text, strlen(text)) < 0 ? errno : 0;
}

/* Reads a file of a group, zero-terminated; "" when that is not possible. */
static void file_read(const char *group, const char *file, char text[TEXT_MAX])
{
    char path[PATH_LEN_MAX + 64];
    text[0] = '\0';
    (void)snprintf(path, sizeof path, "%s/%s", group, file); /* as above */
    TD_CLEANUP(td_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, TEXT_MAX - 1);
    text[n > 0 ? n : 0] = '\0';
}

static bool file_writable(const char *group, const char *file)
{
    char path[PATH_LEN_MAX + 64];
    (void)snprintf(path, sizeof path, "%s/%s", group, file); /* as above */
    return faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

static const char *memory_file(enum td_cgroup_kind kind)
{
    return kind == TD_CGROUP_V1 ? "memory.limit_in_bytes" : "memory.max";
}

static const char *cpu_file(enum td_cgroup_kind kind)
{
    return kind == TD_CGROUP_V1 ? "cpu.cfs_quota_us" : "cpu.max";
}

/* A v2 group gets the controllers that its parent hands down. Refused (EBUSY) when the parent
 * holds processes itself; then the files are not there, which usable() finds. */
static void hand_down(const char *base, unsigned controllers)
{
    char handed[TEXT_MAX];
    file_read(base, "cgroup.subtree_control", handed);
    if (controllers & MEMORY && !strstr(handed, "memory"))
        (void)file_write(base, "cgroup.subtree_control", "+memory");
    /* "cpuset" is another controller. */
    if (controllers & CPU && !strstr(handed, "cpu ") && !strstr(handed, "cpu\n"))
        (void)file_write(base, "cgroup.subtree_control", "+cpu");
}

/* Could processes be put into the group and limited there? */
static bool usable(const struct place *place)
{
    return file_writable(place->path, "cgroup.procs") &&
           (!(place->controllers & MEMORY) ||
            file_writable(place->path, memory_file(place->kind))) &&
           (!(place->controllers & CPU) || file_writable(place->path, cpu_file(place->kind)));
}

/* A group beside our own is not held by our own group's limits: that would let work out of a
 * limit that somebody set on us. */
static bool own_unlimited(const char *own, unsigned controllers)
{
    char memory[TEXT_MAX], cpu[TEXT_MAX];
    file_read(own, "memory.max", memory);
    file_read(own, "cpu.max", cpu);
    return (!(controllers & MEMORY) || !memory[0] || strncmp(memory, "max", 3) == 0) &&
           (!(controllers & CPU) || !cpu[0] || strncmp(cpu, "max", 3) == 0);
}

/* Makes the folder; a left-over of the same name, by a maker that had our pid, goes first. */
static int folder_make(const char *path)
{
    if (mkdir(path, 0755) == 0)
        return 0;
    if (errno == EEXIST && rmdir(path) == 0 && mkdir(path, 0755) == 0)
        return 0;
    return errno;
}

/* Makes the group in the first place that gives the controllers; false when none does, with the
 * reason of the last failure in *ret_errno. */
static bool place_make(enum td_cgroup_kind kind, unsigned controllers, const char *name,
                       struct place *ret_place, int *ret_errno)
{
    const char *v1 = controllers & MEMORY ? "memory" : "cpu";
    struct td_cgroup_base bases[TD_CGROUP_BASES_MAX];
    size_t n = td_cgroup_base_find(kind == TD_CGROUP_V1 ? v1 : NULL, bases);
    struct place place = {.controllers = controllers, .kind = kind};
    *ret_errno = ENOENT;
    for (size_t i = 0; i < n; i++) {
        if (kind == TD_CGROUP_V2 && i > 0 && !own_unlimited(bases[0].path, controllers))
            return false;
        if (kind == TD_CGROUP_V2)
            hand_down(bases[i].path, controllers);
        int len = snprintf(place.path, sizeof place.path, "%s/" NAME_PREFIX "%d-%s", bases[i].path,
                           (int)getpid(), name);
        if (len < 0 || (size_t)len >= sizeof place.path)
            return false;
        *ret_errno = folder_make(place.path);
        if (*ret_errno == 0 && usable(&place)) {
            *ret_place = place;
            return true;
        }
        if (*ret_errno == 0) {
            (void)rmdir(place.path); /* just made, empty */
            *ret_errno = ENOTSUP;
        }
        if (kind == TD_CGROUP_V1 && *ret_errno != ENOENT)
            return false; /* our own group is there: its limits are not to be left */
    }
    return false;
}

static bool place_possible(enum td_cgroup_kind kind, unsigned controllers)
{
    char name[32];
    struct place place;
    int ignored;
    (void)snprintf(name, sizeof name, "probe-%d", (int)gettid()); /* always fits */
    if (!place_make(kind, controllers, name, &place, &ignored))
        return false;
    (void)rmdir(place.path); /* just made, empty */
    return true;
}

struct td_cgroup_support td_cgroup_probe(void)
{
    struct td_cgroup_support support = {TD_CGROUP_NONE, TD_CGROUP_NONE};
    if (place_possible(TD_CGROUP_V1, MEMORY))
        support.memory = TD_CGROUP_V1;
    if (place_possible(TD_CGROUP_V1, CPU))
        support.cpu = TD_CGROUP_V1;
    if (!support.memory && !support.cpu && place_possible(TD_CGROUP_V2, MEMORY | CPU))
        return (struct td_cgroup_support){TD_CGROUP_V2, TD_CGROUP_V2};
    if (!support.memory && place_possible(TD_CGROUP_V2, MEMORY))
        support.memory = TD_CGROUP_V2;
    else if (!support.cpu && place_possible(TD_CGROUP_V2, CPU))
        support.cpu = TD_CGROUP_V2;
    return support;
}

static int limit_memory(const struct place *place, uint64_t bytes)
{
    bool v1 = place->kind == TD_CGROUP_V1;
    char text[32];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)bytes); /* always fits */
    int e = file_write(place->path, memory_file(place->kind), text);
    if (e != 0)
        return e;
    /* Swap would only put off the end, slowly; a kernel without the file does not count it. */
    e = v1 ? file_write(place->path, "memory.memsw.limit_in_bytes", text)
           : file_write(place->path, "memory.swap.max", "0");
    if (!v1 && (e == 0 || e == ENOENT)) /* the kernel shall end all in there, not one of them */
        e = file_write(place->path, "memory.oom.group", "1");
    return e == ENOENT ? 0 : e;
}

static int limit_cpu(const struct place *place, uint32_t milli)
{
    uint64_t period = milli >= 10 ? CPU_PERIOD_US : CPU_PERIOD_LONG_US;
    uint64_t quota = period * milli / 1000;
    if (quota < CPU_QUOTA_MIN_US)
        quota = CPU_QUOTA_MIN_US;
    char text[64];
    if (place->kind == TD_CGROUP_V2) {
        (void)snprintf(text, sizeof text, "%llu %llu", (unsigned long long)quota,
                       (unsigned long long)period); /* always fits */
        return file_write(place->path, "cpu.max", text);
    }
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)period); /* always fits */
    int e = file_write(place->path, "cpu.cfs_period_us", text);
    if (e != 0)
        return e;
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)quota); /* always fits */
    e = file_write(place->path, "cpu.cfs_quota_us", text);
    return e == EINVAL ? 0 : e; /* v1: a group above us allows less, which holds here too */
}

/* Is it usable as a part of a folder's name? */
static bool name_valid(const char *name)
{
    return name[0] && strlen(name) <= NAME_MAX_LEN && !strchr(name, '/');
}

static void cgroup_freep(struct td_cgroup **cgroup)
{
    *cgroup = td_cgroup_free(*cgroup);
}

static int place_add(struct td_cgroup *cgroup, enum td_cgroup_kind kind, unsigned controllers,
                     const char *name, struct td_error *err)
{
    if (controllers == 0)
        return 0;
    int e;
    if (!place_make(kind, controllers, name, &cgroup->places[cgroup->nplaces], &e))
        return td_error_sys(err, e, "cannot make a control group");
    cgroup->nplaces++;
    return 0;
}

static int places_make(struct td_cgroup *cgroup, struct td_cgroup_support support,
                       unsigned controllers, const char *name, struct td_error *err)
{
    unsigned v2 = (support.memory == TD_CGROUP_V2 ? (unsigned)MEMORY : 0) |
                  (support.cpu == TD_CGROUP_V2 ? (unsigned)CPU : 0);
    int r = place_add(cgroup, TD_CGROUP_V2, controllers & v2, name, err);
    if (r == 0)
        r = place_add(cgroup, TD_CGROUP_V1, controllers & ~v2 & MEMORY, name, err);
    if (r == 0)
        r = place_add(cgroup, TD_CGROUP_V1, controllers & ~v2 & CPU, name, err);
    return r;
}

int td_cgroup_new(struct td_cgroup_support support, const char *name, uint64_t memory_bytes,
                  uint32_t cpu_milli, struct td_cgroup **ret_cgroup, struct td_error *err)
{
    unsigned controllers = (memory_bytes ? (unsigned)MEMORY : 0) | (cpu_milli ? (unsigned)CPU : 0);
    if (!name_valid(name))
        return td_error_set(err, TD_EINVAL, "not a name for a control group: %.80s", name);
    if (memory_bytes && !support.memory)
        return td_error_set(err, TD_EINVAL, "memory cannot be limited by control group here");
    if (cpu_milli && !support.cpu)
        return td_error_set(err, TD_EINVAL, "cpu cannot be limited by control group here");
    TD_CLEANUP(cgroup_freep) struct td_cgroup *cgroup = td_alloc_zero(sizeof *cgroup);
    if (!cgroup)
        return td_error_set(err, TD_ENOMEM, "control group: out of memory");
    int r = places_make(cgroup, support, controllers, name, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < cgroup->nplaces; i++) {
        const struct place *place = &cgroup->places[i];
        int e = place->controllers & MEMORY ? limit_memory(place, memory_bytes) : 0;
        if (e != 0)
            return td_error_sys(err, e, "cannot limit memory by control group");
        e = place->controllers & CPU ? limit_cpu(place, cpu_milli) : 0;
        if (e != 0)
            return td_error_sys(err, e, "cannot limit cpu by control group");
    }
    *ret_cgroup = TD_TAKE(cgroup);
    return 0;
}

int td_cgroup_enter(struct td_cgroup *cgroup, pid_t pid, struct td_error *err)
{
    char text[16];
    (void)snprintf(text, sizeof text, "%d", (int)pid); /* always fits */
    for (size_t i = 0; i < cgroup->nplaces; i++) {
        int e = file_write(cgroup->places[i].path, "cgroup.procs", text);
        if (e == ESRCH)
            return td_error_set(err, TD_ENOTFOUND, "process %d has ended", (int)pid);
        if (e != 0)
            return td_error_sys(err, e, "cannot enter a control group");
    }
    return 0;
}

static const struct place *memory_place(const struct td_cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->nplaces; i++)
        if (cgroup->places[i].controllers & MEMORY)
            return &cgroup->places[i];
    return NULL;
}

/* The number at the beginning of text; 0 when there is none. */
static uint64_t leading_number(const char *text)
{
    uint64_t number = 0;
    (void)td_text_u64(text, td_text_digits(text), &number); /* not a number: stays 0 */
    return number;
}

uint64_t td_cgroup_peak(const struct td_cgroup *cgroup)
{
    const struct place *place = memory_place(cgroup);
    char text[TEXT_MAX];
    if (!place)
        return 0;
    bool v1 = place->kind == TD_CGROUP_V1;
    file_read(place->path, v1 ? "memory.max_usage_in_bytes" : "memory.peak", text);
    return leading_number(text);
}

/* How often the kernel killed for memory in there; a kernel that does not tell says 0. */
static uint64_t oom_kills(const char *group, enum td_cgroup_kind kind)
{
    char text[TEXT_MAX];
    file_read(group, kind == TD_CGROUP_V1 ? "memory.oom_control" : "memory.events", text);
    const char *kills = strstr(text, "oom_kill "); /* not oom_kill_disable */
    return kills ? leading_number(kills + strlen("oom_kill ")) : 0;
}

bool td_cgroup_oom(const struct td_cgroup *cgroup)
{
    const struct place *place = memory_place(cgroup);
    return place && oom_kills(place->path, place->kind) > 0;
}

int64_t td_cgroup_own_kills(void)
{
    static const struct {
        const char *controller;
        enum td_cgroup_kind kind;
    } hierarchies[] = {{"memory", TD_CGROUP_V1}, {NULL, TD_CGROUP_V2}};
    for (size_t i = 0; i < TD_COUNT(hierarchies); i++) {
        struct td_cgroup_base bases[TD_CGROUP_BASES_MAX];
        size_t n = td_cgroup_base_find(hierarchies[i].controller, bases);
        const char *name = n ? strrchr(bases[0].path, '/') : NULL;
        if (name && strncmp(name + 1, NAME_PREFIX, strlen(NAME_PREFIX)) == 0)
            return (int64_t)oom_kills(bases[0].path, hierarchies[i].kind);
    }
    return -1;
}

bool td_cgroup_remove(struct td_cgroup *cgroup)
{
    while (cgroup->nplaces > 0) {
        if (rmdir(cgroup->places[cgroup->nplaces - 1].path) < 0 && errno == EBUSY)
            return false;
        cgroup->nplaces--; /* removed; or whatever keeps it will do so for ever */
    }
    return true;
}

struct td_cgroup *td_cgroup_free(struct td_cgroup *cgroup)
{
    if (!cgroup)
        return NULL;
    (void)td_cgroup_remove(cgroup); /* busy: left for the sweep */
    td_free(cgroup);
    return NULL;
}

/* Is it a group's name whose maker has ended? */
static bool abandoned(const char *name)
{
    const size_t prefix = strlen(NAME_PREFIX);
    uint64_t pid;
    if (strncmp(name, NAME_PREFIX, prefix) != 0)
        return false;
    size_t digits = td_text_digits(name + prefix);
    if (name[prefix + digits] != '-' || td_text_u64(name + prefix, digits, &pid) < 0 || pid == 0 ||
        pid > INT32_MAX)
        return false;
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

static void sweep_below(const char *base)
{
    DIR *dir = opendir(base);
    if (!dir)
        return;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        if (abandoned(entry->d_name))
            (void)unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR); /* busy: a later sweep */
    (void)closedir(dir);
}

void td_cgroup_sweep(void)
{
    static const char *const controllers[] = {"memory", "cpu", NULL}; /* NULL: v2 */
    for (size_t i = 0; i < TD_COUNT(controllers); i++) {
        struct td_cgroup_base bases[TD_CGROUP_BASES_MAX];
        size_t n = td_cgroup_base_find(controllers[i], bases);
        for (size_t j = 0; j < n; j++)
            sweep_below(bases[j].path);
    }
}
