#include "os/cgroup_base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "os/fd.h"

enum { PROC_FILE_MAX = 4 << 20, READ_STEP = 4096 };

/* Takes the next word up to `stop` off *at, which lies within one line that ends before `end`. */
static struct td_bytes word_next(const char **at, const char *end, char stop)
{
    const char *start = *at;
    const char *found = memchr(start, stop, (size_t)(end - start));
    *at = found ? found + 1 : end;
    return (struct td_bytes){start, (size_t)((found ? found : end) - start)};
}

static bool word_is(struct td_bytes word, const char *text)
{
    return word.len == strlen(text) && memcmp(word.data, text, word.len) == 0;
}

/* Is `text` one of the words between commas? */
static bool list_has(struct td_bytes list, const char *text)
{
    const char *at = list.data;
    const char *end = at + list.len;
    while (at < end)
        if (word_is(word_next(&at, end, ','), text))
            return true;
    return false;
}

/* Copies a path, undoing mountinfo's \040 for a blank and the like where it is escaped; the paths
 * of /proc/self/cgroup are not, and systemd's contain \x2d. False: it is too long. */
static bool path_copy(char to[TD_CGROUP_PATH_MAX], struct td_bytes from, bool escaped)
{
    const char *p = from.data;
    size_t n = 0;
    for (size_t i = 0; i < from.len; n++) {
        if (n == TD_CGROUP_PATH_MAX - 1)
            return false;
        if (escaped && p[i] == '\\' && from.len - i >= 4) {
            to[n] = (char)((p[i + 1] - '0') << 6 | (p[i + 2] - '0') << 3 | (p[i + 3] - '0'));
            i += 4;
        } else {
            to[n] = p[i++];
        }
    }
    to[n] = '\0';
    return true;
}

struct mount {
    char root[TD_CGROUP_PATH_MAX]; /* what of the hierarchy is visible at `point` */
    char point[TD_CGROUP_PATH_MAX];
};

/* "36 35 98:0 /root /point options [optional ...] - type source super,options" */
static bool mount_parse(const char *at, const char *end, const char *controller,
                        struct mount *ret_mount)
{
    for (int i = 0; i < 3; i++)
        (void)word_next(&at, end, ' '); /* the two ids and the device */
    struct td_bytes root = word_next(&at, end, ' ');
    struct td_bytes point = word_next(&at, end, ' ');
    while (at < end)
        if (word_is(word_next(&at, end, ' '), "-"))
            break;
    struct td_bytes type = word_next(&at, end, ' ');
    (void)word_next(&at, end, ' '); /* the source */
    struct td_bytes options = word_next(&at, end, ' ');
    if (!word_is(type, controller ? "cgroup" : "cgroup2"))
        return false;
    if (controller && !list_has(options, controller))
        return false;
    return path_copy(ret_mount->root, root, true) && path_copy(ret_mount->point, point, true);
}

/* "4:memory:/path", and "0::/path" for v2. */
static bool own_parse(const char *at, const char *end, const char *controller,
                      char ret_path[TD_CGROUP_PATH_MAX])
{
    struct td_bytes number = word_next(&at, end, ':');
    struct td_bytes controllers = word_next(&at, end, ':');
    if (controller ? !list_has(controllers, controller)
                   : !word_is(number, "0") || controllers.len > 0)
        return false;
    return path_copy(ret_path, (struct td_bytes){at, (size_t)(end - at)}, false);
}

/* What is left of path below root, "" for root itself, or NULL when it is not below it. */
static const char *path_below(const char *path, const char *root)
{
    size_t len = strlen(root);
    if (strncmp(path, "/..", 3) == 0)
        return NULL; /* outside this process's cgroup namespace */
    if (len == 1)
        return path[1] ? path : "";
    if (strncmp(path, root, len) != 0 || (path[len] && path[len] != '/'))
        return NULL;
    return path + len;
}

static size_t base_add(struct td_cgroup_base *bases, size_t n, const char *point, const char *below,
                       size_t below_len)
{
    int len = snprintf(bases[n].path, sizeof bases[n].path, "%s%.*s", point, (int)below_len, below);
    return len > 0 && (size_t)len < sizeof bases[n].path ? n + 1 : n;
}

size_t td_cgroup_base_parse(const char *mountinfo, const char *cgroup, const char *controller,
                            struct td_cgroup_base ret_bases[TD_CGROUP_BASES_MAX])
{
    struct mount mount;
    char own[TD_CGROUP_PATH_MAX];
    bool mounted = false;
    bool known = false;
    const char *end = mountinfo + strlen(mountinfo);
    for (const char *at = mountinfo; at < end && !mounted;) {
        struct td_bytes line = word_next(&at, end, '\n');
        mounted = mount_parse(line.data, (const char *)line.data + line.len, controller, &mount);
    }
    end = cgroup + strlen(cgroup);
    for (const char *at = cgroup; at < end && !known;) {
        struct td_bytes line = word_next(&at, end, '\n');
        known = own_parse(line.data, (const char *)line.data + line.len, controller, own);
    }
    if (!mounted || !known)
        return 0;

    const char *below = path_below(own, mount.root);
    size_t n = 0;
    if (below)
        n = base_add(ret_bases, n, mount.point, below, strlen(below));
    if (controller && (!below || below[0]))
        n = base_add(ret_bases, n, mount.point, "", 0);
    if (!controller && below && below[0])
        n = base_add(ret_bases, n, mount.point, below, (size_t)(strrchr(below, '/') - below));
    return n;
}

/* The whole file, zero-terminated. */
static bool read_text(const char *path, struct td_buf *text)
{
    TD_CLEANUP(td_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    for (;;) {
        if (td_buf_reserve(text, READ_STEP) < 0)
            return false;
        ssize_t n = read(fd, text->data + text->len, READ_STEP);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            return td_buf_add(text, "", 1) == 0;
        text->len += (size_t)n;
    }
}

size_t td_cgroup_base_find(const char *controller,
                           struct td_cgroup_base ret_bases[TD_CGROUP_BASES_MAX])
{
    TD_CLEANUP(td_buf_done) struct td_buf mountinfo;
    TD_CLEANUP(td_buf_done) struct td_buf cgroup;
    td_buf_init(&mountinfo, PROC_FILE_MAX);
    td_buf_init(&cgroup, PROC_FILE_MAX);
    if (!read_text("/proc/self/mountinfo", &mountinfo) || !read_text("/proc/self/cgroup", &cgroup))
        return 0;
    return td_cgroup_base_parse(mountinfo.data, cgroup.data, controller, ret_bases);
}
