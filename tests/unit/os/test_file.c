#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "os/file.h"

/* A folder of the test's own, and a path in it. */
struct place {
    char folder[64];
    char path[128];
};

static void place_make(struct place *place, const char *name)
{
    *place = (struct place){.folder = "/tmp/tendril-test-XXXXXX"};
    assert_non_null(mkdtemp(place->folder));
    (void)snprintf(place->path, sizeof place->path, "%s/%s", place->folder, name);
}

static void place_remove(struct place *place)
{
    assert_int_equal(remove(place->path), 0);
    assert_int_equal(rmdir(place->folder), 0); /* nothing else is left in there */
}

static void expect(const char *path, const char *content)
{
    struct td_buf buf;
    td_buf_init(&buf, 64);
    assert_int_equal(td_file_read(path, &buf, NULL), 0);
    assert_int_equal(buf.len, strlen(content));
    assert_memory_equal(buf.data, content, buf.len);
    td_buf_done(&buf);
}

static void refused(const char *path, int status, const char *words)
{
    struct td_error err = {0};
    struct td_buf buf;
    td_buf_init(&buf, 8);
    assert_int_equal(td_file_read(path, &buf, &err), status);
    assert_non_null(strstr(err.text, words));
    td_buf_done(&buf);
}

static void test_file_both_ways(void **state)
{
    (void)state;
    struct place place;
    struct stat stat_now;
    size_t fds = support_fds();
    place_make(&place, "file");
    (void)umask(0);
    assert_int_equal(td_file_write(place.path, (struct td_bytes){"one", 3}, NULL), 0);
    expect(place.path, "one");
    assert_int_equal(td_file_write(place.path, (struct td_bytes){"other", 5}, NULL), 0);
    expect(place.path, "other");
    assert_int_equal(stat(place.path, &stat_now), 0);
    assert_int_equal(stat_now.st_mode & 07777, 0600);
    place_remove(&place);
    assert_int_equal(support_fds(), fds);
}

static void test_file_refuses(void **state)
{
    (void)state;
    struct place place;
    place_make(&place, "file");
    refused(place.path, TD_ENOTFOUND, "no such file");
    refused(place.folder, TD_EINVAL, "not a regular file");
    assert_int_equal(td_file_write(place.path, (struct td_bytes){"123456789", 9}, NULL), 0);
    refused(place.path, TD_ELIMIT, "longer than 8 bytes");
    assert_int_equal(chmod(place.path, 0640), 0);
    refused(place.path, TD_EINVAL, "chmod 600");
    if (geteuid() == 0) {
        assert_int_equal(chmod(place.path, 0600), 0);
        assert_int_equal(chown(place.path, 12345, (gid_t)-1), 0);
        refused(place.path, TD_EINVAL, "another user");
    }
    assert_int_equal(remove(place.path), 0);
    assert_int_equal(mkfifo(place.path, 0600), 0);
    refused(place.path, TD_EINVAL, "not a regular file");
    place_remove(&place);
}

static void test_file_is_whole_or_not_there(void **state)
{
    (void)state;
    struct td_error err = {0};
    struct place place;
    place_make(&place, "folder");
    assert_int_equal(mkdir(place.path, 0700), 0);
    assert_int_equal(td_file_write(place.path, (struct td_bytes){"one", 3}, &err), TD_ESYS);
    assert_int_equal(td_file_write("/tmp/no-such-folder/file", (struct td_bytes){"one", 3}, &err),
                     TD_ENOTFOUND);
    place_remove(&place);
}

static void test_file_folder(void **state)
{
    (void)state;
    struct td_error err = {0};
    struct place place;
    char below[160];
    place_make(&place, "a");
    (void)umask(022);
    (void)snprintf(below, sizeof below, "%s/b", place.path);
    assert_int_equal(td_file_folder(below, NULL), 0);
    assert_int_equal(td_file_folder(below, NULL), 0);
    assert_int_equal(chmod(below, 0750), 0);
    assert_int_equal(td_file_folder(below, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "others may enter"));
    assert_int_equal(rmdir(below), 0);
    assert_int_equal(td_file_write(below, (struct td_bytes){"one", 3}, NULL), 0);
    assert_int_equal(td_file_folder(below, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "not a folder"));
    assert_int_equal(remove(below), 0);
    place_remove(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_both_ways),
        cmocka_unit_test(test_file_refuses),
        cmocka_unit_test(test_file_is_whole_or_not_there),
        cmocka_unit_test(test_file_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
