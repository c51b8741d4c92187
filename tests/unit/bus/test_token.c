#include "bus/token.h"

#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

#define SECRET "s3cr3t-s3cr3t-s3cr3t"

static const struct td_token example = {.role = "client",
                                        .url = "nats://127.0.0.1:4222",
                                        .user = "client",
                                        .secret = SECRET,
                                        .cluster = "home"};

static void same(const struct td_token *one, const struct td_token *other)
{
    assert_string_equal(one->role, other->role);
    assert_string_equal(one->url, other->url);
    assert_string_equal(one->user, other->user);
    assert_string_equal(one->secret, other->secret);
    assert_string_equal(one->cluster, other->cluster);
}

/* The text of the token, zero-terminated. */
static void text_of(const struct td_token *token, struct td_buf *to)
{
    td_buf_init(to, TD_TOKEN_TEXT_MAX);
    assert_int_equal(td_token_format(token, to), 0);
    assert_int_equal(td_buf_add(to, "", 1), 0);
}

/* A token's text with another body. */
static void text_with(const char *body, struct td_buf *to)
{
    td_buf_init(to, TD_TOKEN_TEXT_MAX);
    assert_int_equal(td_buf_add(to, "tendril-1-agent-", 16), 0);
    assert_int_equal(td_base64_write((struct td_bytes){body, strlen(body)}, to), 0);
    assert_int_equal(td_buf_add(to, "", 1), 0);
}

static void refused(const char *text, int status, const char *words)
{
    struct td_error err = {0};
    struct td_token token = {.role = "was"};
    assert_int_equal(td_token_parse(text, &token, &err), status);
    assert_string_equal(token.role, "was");
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say '%s'", err.text, words);
    assert_null(strstr(err.text, SECRET));
}

static void body_refused(const char *body, int status, const char *words)
{
    struct td_buf text;
    text_with(body, &text);
    refused(text.data, status, words);
    td_buf_done(&text);
}

static void test_token_both_ways(void **state)
{
    (void)state;
    struct td_buf text;
    struct td_token token;
    text_of(&example, &text);
    assert_int_equal(strncmp(text.data, "tendril-1-client-", 17), 0);
    assert_int_equal(strspn(text.data + 17, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                            "0123456789-_"),
                     text.len - 18);
    assert_int_equal(td_token_parse(text.data, &token, NULL), 0);
    same(&token, &example);
    td_buf_done(&text);
}

static void test_token_later_members(void **state)
{
    (void)state;
    struct td_buf text;
    struct td_token token;
    text_with(
        "{\"ca\":{\"pem\":[1]},\"url\":\"u\",\"user\":\"a\",\"secret\":\"s\",\"cluster\":\"c\"}",
        &text);
    assert_int_equal(td_token_parse(text.data, &token, NULL), 0);
    same(&token, &(struct td_token){"agent", "u", "a", "s", "c"});
    td_buf_done(&text);
}

static void test_token_not_one(void **state)
{
    (void)state;
    static char longest[TD_TOKEN_TEXT_MAX + 1];
    refused("", TD_EINVAL, "not a token");
    refused("hello", TD_EINVAL, "not a token");
    refused("tendril-", TD_EINVAL, "not a token");
    refused("tendril-client", TD_EINVAL, "not a token");
    refused("tendril-1", TD_EINVAL, "not a token");
    refused("tendril-2-client-abc", TD_EINVAL, "has format 2");
    refused("tendril-99999999999999999999-client-abc", TD_EINVAL, "not a token");
    refused("tendril-1-king-e30", TD_EINVAL, "role");
    refused("tendril-1-client", TD_EINVAL, "role");
    refused("tendril-1-client-", TD_EINVAL, "damaged");
    memset(longest, 'a', sizeof longest - 1);
    memcpy(longest, "tendril-1-hub-", 14);
    refused(longest, TD_ELIMIT, "longer");
}

static void test_token_damaged(void **state)
{
    (void)state;
    struct td_buf text;
    struct td_token token;
    text_of(&example, &text);
    size_t len = text.len - 1;
    for (size_t cut = 1; cut < len; cut++) { /* no beginning of it is one */
        char was = text.data[len - cut];
        text.data[len - cut] = '\0';
        assert_true(td_token_parse(text.data, &token, NULL) < 0);
        text.data[len - cut] = was;
    }
    text.data[len / 2] = '=';
    refused(text.data, TD_EINVAL, "damaged");
    td_buf_done(&text);
    body_refused("", TD_EINVAL, "damaged");
    body_refused("[]", TD_EINVAL, "damaged");
    body_refused("{}", TD_EINVAL, "lacks its url");
    body_refused("{\"url\":1}", TD_EINVAL, "lacks its url");
    body_refused("{\"url\":\"u\",\"user\":\"\"}", TD_EINVAL, "lacks its user");
    body_refused("{\"url\":\"u\",\"url\":\"u\"}", TD_EINVAL, "damaged");
    body_refused("{\"url\":\"u\\u000av\"}", TD_EINVAL, "damaged");
    body_refused("{\"url\":\"u\\u0000v\"}", TD_EINVAL, "damaged");
    body_refused("{\"url\":\"\xff\"}", TD_EINVAL, "damaged");
    body_refused("{\"url\":\"u\",\"user\":\"a\",\"secret\":\"" SECRET SECRET SECRET SECRET "\"}",
                 TD_ELIMIT, "secret is too long");
}

static void test_token_format_refuses(void **state)
{
    (void)state;
    struct td_buf text;
    struct td_token token = example;
    td_buf_init(&text, TD_TOKEN_TEXT_MAX);
    (void)snprintf(token.role, sizeof token.role, "king");
    assert_int_equal(td_token_format(&token, &text), TD_EINVAL);
    token = example;
    token.url[0] = '\0';
    assert_int_equal(td_token_format(&token, &text), TD_EINVAL);
    token.url[0] = '\xff';
    assert_int_equal(td_token_format(&token, &text), TD_EINVAL);
    td_buf_init(&text, 32);
    assert_int_equal(td_token_format(&example, &text), TD_ELIMIT);
    td_buf_done(&text);
}

static void test_token_files(void **state)
{
    (void)state;
    char folder[] = "/tmp/tendril-test-XXXXXX";
    char path[64];
    struct stat stat_now;
    struct td_token token;
    struct td_error err = {0};
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/client.token", folder);
    (void)umask(0);
    assert_int_equal(td_token_write(path, &example, NULL), 0);
    assert_int_equal(stat(path, &stat_now), 0);
    assert_int_equal(stat_now.st_mode & 07777, 0600);
    assert_int_equal(td_token_read(path, &token, NULL), 0);
    same(&token, &example);
    assert_int_equal(td_token_place(path, "client", &token, NULL), 0);
    assert_int_equal(td_token_place(path, "agent", &token, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "for the role 'client'"));
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(td_token_read(path, &token, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "chmod 600"));
    assert_int_equal(chmod(path, 0600), 0);
    FILE *file = fopen(path, "ae");
    assert_non_null(file);
    (void)fputs("more\n", file);
    (void)fclose(file);
    assert_int_equal(td_token_read(path, &token, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, path));
    assert_null(strstr(err.text, SECRET));
    assert_int_equal(remove(path), 0);
    assert_int_equal(td_token_read(path, &token, &err), TD_ENOTFOUND);
    assert_int_equal(rmdir(folder), 0);
}

static void test_token_place_text(void **state)
{
    (void)state;
    struct td_buf text;
    struct td_token token;
    struct td_error err = {0};
    text_of(&example, &text);
    assert_int_equal(td_token_place(text.data, "client", &token, NULL), 0);
    same(&token, &example);
    assert_int_equal(td_token_place(text.data, "agent", &token, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "'agent' is needed"));
    /* Without its beginning it is taken for a path, and still never shown. */
    assert_int_equal(td_token_place(text.data + 1, "client", &token, &err), TD_EINVAL);
    assert_null(strstr(err.text, text.data + 20));
    td_buf_done(&text);
}

static void test_token_standard_input(void **state)
{
    (void)state;
    int ends[2];
    struct td_buf text;
    struct td_token token;
    text_of(&example, &text);
    assert_int_equal(pipe(ends), 0);
    text.data[text.len - 1] = '\n';
    assert_int_equal(write(ends[1], text.data, text.len), (ssize_t)text.len);
    (void)close(ends[1]);
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    (void)close(ends[0]);
    assert_int_equal(td_token_place("-", "client", &token, NULL), 0);
    same(&token, &example);
    td_buf_done(&text);
}

static void test_token_secret(void **state)
{
    (void)state;
    char one[TD_TOKEN_SECRET_MAX], other[TD_TOKEN_SECRET_MAX];
    assert_int_equal(td_token_secret(one, NULL), 0);
    assert_int_equal(td_token_secret(other, NULL), 0);
    assert_int_equal(strlen(one), 43);
    assert_string_not_equal(one, other);
}

static void test_token_without_memory(void **state)
{
    (void)state;
    struct td_buf text;
    struct td_token token;
    text_of(&example, &text);
    for (int64_t n = 1;; n++) {
        td_mem_fail(n, 0);
        int r = td_token_parse(text.data, &token, NULL);
        td_mem_fail(0, 0);
        if (r == 0)
            break;
        assert_int_equal(r, TD_ENOMEM);
    }
    td_buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_both_ways),      cmocka_unit_test(test_token_later_members),
        cmocka_unit_test(test_token_not_one),        cmocka_unit_test(test_token_damaged),
        cmocka_unit_test(test_token_format_refuses), cmocka_unit_test(test_token_files),
        cmocka_unit_test(test_token_place_text),     cmocka_unit_test(test_token_standard_input),
        cmocka_unit_test(test_token_secret),         cmocka_unit_test(test_token_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
