#include "os/memfile.h"

#include "support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "os/fd.h"

static struct td_blob *file_of(const char *text)
{
    struct td_bytes piece = {text, strlen(text)};
    struct td_blob *blob;
    assert_int_equal(td_memfile_new(&piece, 1, &blob, NULL), 0);
    return blob;
}

static void holds(const struct td_blob *blob, const char *text)
{
    struct td_bytes bytes = td_blob_bytes(blob);
    assert_int_equal(bytes.len, strlen(text));
    assert_memory_equal(bytes.data, text, bytes.len);
}

static void test_memfile_pieces(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct td_bytes pieces[MANY] = {0}; /* most of them are empty */
    pieces[1] = (struct td_bytes){"one ", 4};
    pieces[2000] = (struct td_bytes){"two ", 4};
    pieces[MANY - 1] = (struct td_bytes){"three", 5};
    TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = NULL;
    assert_int_equal(td_memfile_new(pieces, MANY, &blob, NULL), 0);
    holds(blob, "one two three");
    assert_int_equal(td_memfile_new(pieces, 1, &blob, NULL), TD_EINVAL);
}

/* Another reader has the same bytes; what one of them writes is its own. */
static void test_memfile_open(void **state)
{
    (void)state;
    TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = file_of("value");
    TD_CLEANUP(td_blob_unrefp) struct td_blob *other = NULL;
    int fd = dup(td_memfile_fd(blob));
    assert_int_equal(td_memfile_open(&fd, &other, NULL), 0);
    assert_int_equal(fd, -1);
    holds(other, "value");
    assert_true(td_memfile_writable(other));
    ((char *)td_blob_bytes(other).data)[0] = 'V';
    holds(other, "Value");
    holds(blob, "value");
}

static void test_memfile_close(void **state)
{
    (void)state;
    size_t before = support_fds();
    TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = file_of("value");
    assert_int_equal(support_fds(), before + 1);
    td_memfile_close(blob);
    td_memfile_close(blob);
    assert_int_equal(support_fds(), before);
    assert_int_equal(td_memfile_fd(blob), -1);
    holds(blob, "value");
}

/* A file that its sender could still change, or cut off under us, is refused. */
static void test_memfile_not_sealed(void **state)
{
    (void)state;
    static const int seals[] = {0, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
                                F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK};
    struct td_blob *blob = NULL;
    size_t before = support_fds();
    for (size_t i = 0; i < TD_COUNT(seals); i++) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(write(fd, "value", 5), 5);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, seals[i]), 0);
        assert_int_equal(td_memfile_open(&fd, &blob, NULL), TD_EPROTO);
    }
    int pipe[2];
    assert_int_equal(td_fd_pipe(pipe, NULL), 0);
    assert_int_equal(td_memfile_open(&pipe[0], &blob, NULL), TD_EPROTO);
    td_fd_close(&pipe[1]);
    assert_null(blob);
    assert_int_equal(support_fds(), before);
}

static void test_memfile_plain_blobs(void **state)
{
    (void)state;
    TD_CLEANUP(td_blob_unrefp) struct td_blob *plain = td_blob_new("plain", 5);
    td_memfile_close(plain);
    assert_int_equal(td_memfile_fd(plain), -1);
    assert_int_equal(td_memfile_fd(NULL), -1);
    assert_false(td_memfile_writable(plain));
    holds(plain, "plain");
}

static void test_memfile_no_descriptor(void **state)
{
    (void)state;
    struct rlimit before, tight;
    struct td_blob *blob = NULL;
    struct td_error err;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    int r = td_memfile_new(&(struct td_bytes){"value", 5}, 1, &blob, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(r, TD_ELIMIT);
    assert_non_null(strstr(err.text, "open files"));
}

/* Where it cannot be mapped its bytes are copied; without memory for that it is refused. */
static void test_memfile_no_memory(void **state)
{
    (void)state;
    TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = file_of("value");
    size_t before = support_fds();
    for (int nth = 1; nth <= 4; nth++) {
        TD_CLEANUP(td_blob_unrefp) struct td_blob *other = NULL;
        int fd = dup(td_memfile_fd(blob));
        td_mem_fail(nth, 1);
        int r = td_memfile_open(&fd, &other, NULL);
        td_mem_fail(0, 0);
        assert_true(r == 0 || r == TD_ENOMEM);
        assert_int_equal(r == 0, other != NULL);
        td_mem_fail(nth, 0); /* once: the copy succeeds */
        fd = dup(td_memfile_fd(blob));
        TD_CLEANUP(td_blob_unrefp) struct td_blob *copy = NULL;
        assert_int_equal(td_memfile_open(&fd, &copy, NULL), 0);
        td_mem_fail(0, 0);
        holds(copy, "value");
        assert_true(td_memfile_writable(copy));
    }
    assert_int_equal(support_fds(), before);
}

/* A process may not map as many as it likes: from some number on their bytes are copied. */
static void test_memfile_many(void **state)
{
    (void)state;
    enum { MORE = 10 };
    static struct td_blob *blobs[TD_MEMFILES_MAX + MORE];
    TD_CLEANUP(td_blob_unrefp) struct td_blob *blob = file_of("value");
    unsigned copies = 0;
    for (size_t i = 0; i < TD_COUNT(blobs); i++) {
        int fd = dup(td_memfile_fd(blob));
        assert_int_equal(td_memfile_open(&fd, &blobs[i], NULL), 0);
        copies += td_memfile_fd(blobs[i]) < 0;
        td_memfile_close(blobs[i]);
        holds(blobs[i], "value");
    }
    assert_int_equal(copies, MORE + 1);
    for (size_t i = 0; i < TD_COUNT(blobs); i++)
        td_blob_unref(blobs[i]);
    TD_CLEANUP(td_blob_unrefp) struct td_blob *again = NULL;
    int fd = dup(td_memfile_fd(blob));
    assert_int_equal(td_memfile_open(&fd, &again, NULL), 0);
    assert_int_not_equal(td_memfile_fd(again), -1); /* mapped */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memfile_pieces),      cmocka_unit_test(test_memfile_open),
        cmocka_unit_test(test_memfile_close),       cmocka_unit_test(test_memfile_not_sealed),
        cmocka_unit_test(test_memfile_plain_blobs), cmocka_unit_test(test_memfile_no_descriptor),
        cmocka_unit_test(test_memfile_no_memory),   cmocka_unit_test(test_memfile_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
