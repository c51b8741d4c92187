#include "os/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "os/fd.h"

enum { SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

struct memfile {
    int fd;
    void *data;
    size_t len;
};

/* How many are mapped. A process may have 65,530 mappings, as Linux comes, and not even the heap
 * grows beyond them: so a caller that holds many results gets copies from some number on. */
static atomic_uint mapped;

static void release(void *context)
{
    struct memfile *file = context;
    if (file->data) {
        (void)munmap(file->data, file->len); /* it was mapped with this size */
        atomic_fetch_sub(&mapped, 1);
    }
    td_fd_close(&file->fd);
    td_free(file);
}

/* Takes *fd on success. */
static int map_file(int *fd, size_t len, struct td_blob **ret_blob, struct td_error *err)
{
    struct memfile *file = td_alloc_zero(sizeof *file);
    if (!file)
        return td_error_set(err, TD_ENOMEM, "shared memory: out of memory");
    *file = (struct memfile){.fd = -1, .len = len};
    void *data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, *fd, 0);
    int r = data == MAP_FAILED ? td_error_sys(err, errno, "mmap") : 0;
    file->data = r < 0 ? NULL : data;
    atomic_fetch_add(&mapped, r == 0);
    struct td_blob *blob = r == 0 ? td_blob_wrap(data, len, release, file) : NULL;
    if (!blob) {
        release(file);
        return r < 0 ? r : td_error_set(err, TD_ENOMEM, "shared memory: out of memory");
    }
    file->fd = *fd;
    *fd = -1;
    *ret_blob = blob;
    return 0;
}

static int write_pieces(int fd, const struct td_bytes *pieces, size_t npieces)
{
    struct iovec parts[IOV_MAX];
    while (npieces > 0) {
        size_t n = npieces < IOV_MAX ? npieces : IOV_MAX;
        for (size_t i = 0; i < n; i++)
            parts[i] = (struct iovec){(void *)pieces[i].data, pieces[i].len};
        struct iovec *left = parts;
        size_t nleft = n;
        td_fd_iov_drop(&left, &nleft, 0); /* empty ones at the front */
        while (nleft > 0) {
            ssize_t written = writev(fd, left, (int)nleft);
            if (written < 0 && errno != EINTR)
                return -1;
            td_fd_iov_drop(&left, &nleft, written < 0 ? 0 : (size_t)written);
        }
        pieces += n;
        npieces -= n;
    }
    return 0;
}

int td_memfile_new(const struct td_bytes *pieces, size_t npieces, struct td_blob **ret_blob,
                   struct td_error *err)
{
    size_t len = 0;
    for (size_t i = 0; i < npieces; i++)
        len += pieces[i].len;
    if (len == 0)
        return td_error_set(err, TD_EINVAL, "shared memory of no bytes");
    TD_CLEANUP(td_fd_close) int fd = memfd_create("tendril-value", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write_pieces(fd, pieces, npieces) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return td_error_sys(err, errno, "shared memory");
    return map_file(&fd, len, ret_blob, err);
}

int td_memfile_begin(size_t len, int *ret_fd, struct td_error *err)
{
    if (len == 0)
        return td_error_set(err, TD_EINVAL, "shared memory of no bytes");
    int fd = memfd_create("tendril-value", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)len) < 0) {
        int failed = errno;
        td_fd_close(&fd);
        return td_error_sys(err, failed, "shared memory");
    }
    *ret_fd = fd;
    return 0;
}

int td_memfile_put(int fd, size_t at, struct td_bytes piece, struct td_error *err)
{
    struct stat found;
    if (fstat(fd, &found) < 0)
        return td_error_sys(err, errno, "shared memory");
    if (at > (size_t)found.st_size || piece.len > (size_t)found.st_size - at)
        return td_error_set(err, TD_EINVAL, "a piece beyond the end of shared memory");
    const char *data = piece.data;
    for (size_t done = 0; done < piece.len;) {
        ssize_t n = pwrite(fd, data + done, piece.len - done, (off_t)(at + done));
        if (n < 0 && errno != EINTR)
            return td_error_sys(err, errno, "shared memory");
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int td_memfile_seal(int fd, struct td_error *err)
{
    return fcntl(fd, F_ADD_SEALS, SEALS) < 0 ? td_error_sys(err, errno, "shared memory") : 0;
}

static int copy_file(int fd, size_t len, struct td_blob **ret_blob, struct td_error *err)
{
    char *data = td_alloc(len);
    if (!data)
        return td_error_set(err, TD_ENOMEM, "shared memory: out of memory");
    size_t at = 0;
    while (at < len) {
        ssize_t n = pread(fd, data + at, len - at, (off_t)at);
        if (n <= 0 && errno != EINTR)
            break; /* never so: all of it is in memory */
        at += n > 0 ? (size_t)n : 0;
    }
    struct td_blob *blob = at == len ? td_blob_wrap(data, len, td_free, data) : NULL;
    if (!blob) {
        td_free(data);
        return td_error_set(err, TD_ENOMEM, "shared memory: out of memory");
    }
    *ret_blob = blob;
    return 0;
}

int td_memfile_open(int *fd, struct td_blob **ret_blob, struct td_error *err)
{
    TD_CLEANUP(td_fd_close) int own = *fd;
    struct stat found;
    *fd = -1;
    int seals = fcntl(own, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(own, &found) < 0 || found.st_size <= 0)
        return td_error_set(err, TD_EPROTO, "a value came in a file that is not sealed");
    int r = TD_ELIMIT;
    if (atomic_load(&mapped) < TD_MEMFILES_MAX)
        r = map_file(&own, (size_t)found.st_size, ret_blob, err);
    return r < 0 ? copy_file(own, (size_t)found.st_size, ret_blob, err) : 0;
}

int td_memfile_fd(const struct td_blob *blob)
{
    const struct memfile *file = td_blob_context(blob, release);
    return file ? file->fd : -1;
}

void td_memfile_close(struct td_blob *blob)
{
    struct memfile *file = td_blob_context(blob, release);
    if (file)
        td_fd_close(&file->fd);
}

bool td_memfile_writable(const struct td_blob *blob)
{
    return td_blob_context(blob, release) || td_blob_context(blob, td_free);
}
