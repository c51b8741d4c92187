#include "bus/token.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/base64.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/text.h"
#include "os/file.h"

#define BEGINNING "tendril-"

enum { FORMAT = 1, SECRET_BYTES = 32, ECHO_MAX = 128 };

static const char *const roles[] = {"client", "agent", "hub"};

/* The members of the JSON object. */
static const struct {
    const char *name;
    size_t offset, size;
} members[] = {
#define MEMBER(name)                                                                    \
    {                                                                                   \
#name, offsetof(struct td_token, name), sizeof(((struct td_token *)NULL)->name) \
    }
    MEMBER(url),
    MEMBER(user),
    MEMBER(secret),
    MEMBER(cluster),
#undef MEMBER
};

static void json_freep(json_t **json)
{
    json_decref(*json);
    *json = NULL;
}

/* -- text -> token ---------------------------------------------------------------------------- */

static int damaged(struct td_error *err)
{
    return td_error_set(err, TD_EINVAL, "the token is damaged; copy it again, whole");
}

/* "1-": which format is it? *at is moved behind it. */
static int parse_format(const char **at, struct td_error *err)
{
    uint64_t format;
    size_t len = td_text_digits(*at);
    if (td_text_u64(*at, len, &format) < 0 || (*at)[len] != '-')
        return td_error_set(err, TD_EINVAL,
                            "this is not a token, though it begins as one (a file of such a name "
                            "is given with its folder: ./tendril-...)");
    if (format != FORMAT)
        return td_error_set(err, TD_EINVAL,
                            "the token has format %llu, and this version of Tendril reads format "
                            "%d; use the version that made it",
                            (unsigned long long)format, FORMAT);
    *at += len + 1;
    return 0;
}

static int parse_role(const char **at, struct td_token *token, struct td_error *err)
{
    for (size_t i = 0; i < TD_COUNT(roles); i++) {
        size_t len = strlen(roles[i]);
        if (strncmp(*at, roles[i], len) != 0 || (*at)[len] != '-')
            continue;
        memcpy(token->role, roles[i], len + 1);
        *at += len + 1;
        return 0;
    }
    return td_error_set(err, TD_EINVAL,
                        "the token is damaged, or for a role that this version of Tendril does "
                        "not know");
}

static int parse_member(json_t *object, size_t i, struct td_token *token, struct td_error *err)
{
    json_t *value = json_object_get(object, members[i].name);
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    if (!text || len == 0)
        return td_error_set(err, TD_EINVAL, "the token lacks its %s", members[i].name);
    if (len >= members[i].size)
        return td_error_set(err, TD_ELIMIT, "the token's %s is too long", members[i].name);
    for (size_t k = 0; k < len; k++)
        if ((unsigned char)text[k] < ' ' || text[k] == '\x7f') /* also a zero, which ends texts */
            return damaged(err);
    memcpy((char *)token + members[i].offset, text, len + 1);
    return 0;
}

static int parse_body(const char *text, struct td_token *token, struct td_error *err)
{
    TD_CLEANUP(td_buf_done) struct td_buf body;
    td_buf_init(&body, TD_TOKEN_TEXT_MAX);
    int r = td_base64_read(text, strlen(text), &body);
    if (r == TD_EPROTO)
        return damaged(err);
    if (r < 0)
        return td_error_set(err, r, "token: %s", td_status_text(r));
    TD_CLEANUP(json_freep)
    json_t *object = json_loadb(body.data, body.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(object))
        return damaged(err);
    for (size_t i = 0; i < TD_COUNT(members) && r == 0; i++)
        r = parse_member(object, i, token, err);
    return r;
}

int td_token_parse(const char *text, struct td_token *ret_token, struct td_error *err)
{
    struct td_token token = {0};
    const char *at = text;
    if (strncmp(text, BEGINNING, strlen(BEGINNING)) != 0)
        return td_error_set(err, TD_EINVAL, "this is not a token: it does not begin with '%s'",
                            BEGINNING);
    if (strlen(text) >= TD_TOKEN_TEXT_MAX)
        return td_error_set(err, TD_ELIMIT, "the token is longer than a token can be");
    at += strlen(BEGINNING);
    int r = parse_format(&at, err);
    if (r == 0)
        r = parse_role(&at, &token, err);
    if (r == 0)
        r = parse_body(at, &token, err);
    if (r == 0)
        *ret_token = token;
    return r;
}

/* -- token -> text ---------------------------------------------------------------------------- */

static bool role_known(const char *role)
{
    for (size_t i = 0; i < TD_COUNT(roles); i++)
        if (strcmp(role, roles[i]) == 0)
            return true;
    return false;
}

/* The JSON object. */
static int format_body(const struct td_token *token, struct td_buf *to)
{
    TD_CLEANUP(json_freep) json_t *object = json_object();
    for (size_t i = 0; i < TD_COUNT(members); i++) {
        const char *text = (const char *)token + members[i].offset;
        if (!*text || json_object_set_new(object, members[i].name, json_string(text)) < 0)
            return TD_EINVAL;
    }
    size_t size = json_dumpb(object, NULL, 0, JSON_COMPACT);
    int r = size ? td_buf_reserve(to, size) : TD_ENOMEM;
    if (r < 0)
        return r;
    to->len += json_dumpb(object, to->data + to->len, size, JSON_COMPACT);
    return 0;
}

int td_token_format(const struct td_token *token, struct td_buf *to)
{
    char beginning[64];
    if (!role_known(token->role))
        return TD_EINVAL;
    int len = snprintf(beginning, sizeof beginning, BEGINNING "%d-%s-", FORMAT, token->role);
    TD_CLEANUP(td_buf_done) struct td_buf body;
    td_buf_init(&body, TD_TOKEN_TEXT_MAX);
    int r = format_body(token, &body);
    if (r == 0)
        r = td_buf_add(to, beginning, (size_t)len);
    if (r == 0)
        r = td_base64_write((struct td_bytes){body.data, body.len}, to);
    return r;
}

/* -- files ------------------------------------------------------------------------------------ */

static bool is_blank(char letter)
{
    return letter == ' ' || letter == '\t' || letter == '\r' || letter == '\n';
}

int td_token_read(const char *path, struct td_token *ret_token, struct td_error *err)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    struct td_error why = {0};
    TD_CLEANUP(td_buf_done) struct td_buf text;
    td_buf_init(&text, TD_TOKEN_TEXT_MAX + 16); /* newlines */
    int r = standard ? td_file_read_fd(STDIN_FILENO, name, &text, err)
                     : td_file_read(path, &text, err);
    if (r < 0)
        return r;
    while (text.len > 0 && is_blank(text.data[text.len - 1]))
        text.len--;
    if (memchr(text.data ? text.data : "", '\0', text.len))
        return td_error_set(err, TD_EINVAL, "%s: this is not a token", name);
    r = td_buf_add(&text, "", 1);
    if (r == 0)
        r = td_token_parse(text.data, ret_token, &why);
    else
        (void)td_error_set(&why, r, "%s", td_status_text(r)); /* r is returned below */
    return r < 0 ? td_error_set(err, r, "%s: %s", name, why.text) : 0;
}

int td_token_write(const char *path, const struct td_token *token, struct td_error *err)
{
    TD_CLEANUP(td_buf_done) struct td_buf text;
    td_buf_init(&text, TD_TOKEN_TEXT_MAX);
    int r = td_token_format(token, &text);
    if (r == 0)
        r = td_buf_add(&text, "\n", 1);
    if (r < 0)
        return td_error_set(err, r, "%s: the token cannot be written: %s", path, td_status_text(r));
    return td_file_write(path, (struct td_bytes){text.data, text.len}, err);
}

/* -- for commands ----------------------------------------------------------------------------- */

int td_token_place(const char *place, const char *role, struct td_token *ret_token,
                   struct td_error *err)
{
    struct td_token token;
    int r;
    if (strncmp(place, BEGINNING, strlen(BEGINNING)) == 0)
        r = td_token_parse(place, &token, err);
    else if (!strchr(place, '/') &&
             strlen(place) > ECHO_MAX) /* a token that lacks its beginning? */
        return td_error_set(err, TD_EINVAL, "this is neither a token nor the path of one");
    else
        r = td_token_read(place, &token, err);
    if (r < 0)
        return r;
    if (strcmp(token.role, role) != 0)
        return td_error_set(err, TD_EINVAL,
                            "this is a token for the role '%s', and one for the "
                            "role '%s' is needed",
                            token.role, role);
    *ret_token = token;
    return 0;
}

int td_token_secret(char ret_secret[TD_TOKEN_SECRET_MAX], struct td_error *err)
{
    unsigned char random[SECRET_BYTES];
    TD_CLEANUP(td_buf_done) struct td_buf text;
    td_buf_init(&text, TD_TOKEN_SECRET_MAX);
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return td_error_sys(err, errno, "getrandom");
    int r = td_base64_write((struct td_bytes){random, sizeof random}, &text);
    if (r == 0)
        r = td_buf_add(&text, "", 1);
    if (r < 0)
        return td_error_set(err, r, "secret: %s", td_status_text(r));
    memcpy(ret_secret, text.data, text.len); /* it fits: as large as the buffer may get */
    return 0;
}
