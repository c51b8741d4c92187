#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "os/fd.h"

enum { READ_SIZE = 4096, OTHERS = S_IRWXG | S_IRWXO };

static int failed(struct td_error *err, const char *path)
{
    if (errno == ENOENT)
        return td_error_set(err, TD_ENOTFOUND, "%s: no such file or folder", path);
    return td_error_sys(err, errno, path);
}

int td_file_read_fd(int fd, const char *name, struct td_buf *to, struct td_error *err)
{
    for (;;) {
        char part[READ_SIZE];
        ssize_t n = read(fd, part, sizeof part);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return td_error_sys(err, errno, name);
        if (n == 0)
            return 0;
        int r = td_buf_add(to, part, (size_t)n);
        if (r == TD_ELIMIT)
            return td_error_set(err, r, "%s is longer than %zu bytes", name, to->max);
        if (r < 0)
            return td_error_set(err, r, "%s: out of memory", name);
    }
}

int td_file_read(const char *path, struct td_buf *to, struct td_error *err)
{
    struct stat stat;
    /* O_NONBLOCK: a FIFO is refused, not waited for. */
    TD_CLEANUP(td_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &stat) < 0)
        return failed(err, path);
    if (!S_ISREG(stat.st_mode))
        return td_error_set(err, TD_EINVAL, "%s is not a regular file", path);
    if (stat.st_uid != geteuid())
        return td_error_set(err, TD_EINVAL, "%s belongs to another user", path);
    if (stat.st_mode & OTHERS)
        return td_error_set(err, TD_EINVAL,
                            "others may use %s (mode %04o); take that from them: chmod 600 %s",
                            path, (unsigned)(stat.st_mode & 07777), path);
    return td_file_read_fd(fd, path, to, err);
}

static int write_all(int fd, struct td_bytes content)
{
    const char *from = content.data;
    for (size_t done = 0; done < content.len;) {
        ssize_t n = write(fd, from + done, content.len - done);
        if (n < 0 && errno != EINTR)
            return -1;
        done += n > 0 ? (size_t)n : 0;
    }
    return fsync(fd);
}

/* The renaming lasts over a loss of power, too. */
static int sync_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int len = slash ? (int)(slash - path) : 0;
    (void)snprintf(folder, sizeof folder, "%.*s", len, path); /* it fits: part of a path */
    const char *name = slash ? (len ? folder : "/") : ".";
    TD_CLEANUP(td_fd_close) int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

int td_file_write(const char *path, struct td_bytes content, struct td_error *err)
{
    char other[PATH_MAX];
    int len = snprintf(other, sizeof other, "%s.XXXXXX", path);
    if (len < 0 || (size_t)len >= sizeof other)
        return td_error_set(err, TD_EINVAL, "the path of a file is too long");
    TD_CLEANUP(td_fd_close) int fd = mkostemp(other, O_CLOEXEC); /* mode 0600, O_EXCL */
    if (fd < 0)
        return failed(err, path);
    int r = write_all(fd, content);
    if (r == 0)
        r = rename(other, path);
    if (r < 0) {
        r = failed(err, path);
        (void)unlink(other); /* what went wrong is told */
        return r;
    }
    return sync_folder(path) < 0 ? failed(err, path) : 0;
}

static int make_folders(char *path, struct td_error *err)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int r = mkdir(path, S_IRWXU);
        if (r < 0 && errno != EEXIST)
            return failed(err, path);
        *slash = '/';
    }
    if (mkdir(path, S_IRWXU) < 0 && errno != EEXIST)
        return failed(err, path);
    return 0;
}

int td_file_folder(const char *path, struct td_error *err)
{
    char folder[PATH_MAX];
    struct stat stat;
    int len = snprintf(folder, sizeof folder, "%s", path);
    if (len <= 0 || (size_t)len >= sizeof folder)
        return td_error_set(err, TD_EINVAL, "the path of a folder is empty or too long");
    int r = make_folders(folder, err);
    if (r < 0)
        return r;
    TD_CLEANUP(td_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &stat) < 0)
        return failed(err, path);
    if (!S_ISDIR(stat.st_mode))
        return td_error_set(err, TD_EINVAL, "%s is not a folder", path);
    if (stat.st_uid != geteuid())
        return td_error_set(err, TD_EINVAL, "%s belongs to another user", path);
    if (stat.st_mode & OTHERS)
        return td_error_set(err, TD_EINVAL,
                            "others may enter %s (mode %04o); name a folder of your own, which is "
                            "made if need be",
                            path, (unsigned)(stat.st_mode & 07777));
    return 0;
}
