/* token.h: how to reach a cluster, and as whom: the one thing that a person carries from a hub to
 * the machines that join it or submit to it.
 *
 * As text it is one line, `tendril-1-ROLE-` and a JSON object in base64url. Members that are not
 * known are passed over, so that later versions may add some; the number says that it cannot be
 * read at all by those who know lower ones only. Whoever has the text has the rights of its role:
 * it stands in files of mode 0600, never in arguments, logs or texts of errors.
 * Threads: any. Lifetime: a token is plain memory. */
#ifndef TD_BUS_TOKEN_H
#define TD_BUS_TOKEN_H

struct td_buf;
struct td_error;

/* Sizes with the terminating zero; TEXT leaves room for a certificate. */
enum {
    TD_TOKEN_ROLE_MAX = 8,
    TD_TOKEN_URL_MAX = 256,
    TD_TOKEN_USER_MAX = 64,
    TD_TOKEN_SECRET_MAX = 64,
    TD_TOKEN_CLUSTER_MAX = 64,
    TD_TOKEN_TEXT_MAX = 32768,
};

/* None of them is empty. */
struct td_token {
    char role[TD_TOKEN_ROLE_MAX];       /* client, agent or hub */
    char url[TD_TOKEN_URL_MAX];         /* nats://HOST:PORT */
    char user[TD_TOKEN_USER_MAX];       /* at the server, */
    char secret[TD_TOKEN_SECRET_MAX];   /* with this password */
    char cluster[TD_TOKEN_CLUSTER_MAX]; /* its name, the same in all its tokens */
};

/* The text, nothing before or behind it. TD_EINVAL: it is none, or damaged, or of another format or
 * role than is known here; TD_ELIMIT: it is longer than a token can be; TD_ENOMEM. */
int td_token_parse(const char *text, struct td_token *ret_token, struct td_error *err);

/* Appends the text, without a newline. TD_EINVAL: a member is empty or no UTF-8, or the role is not
 * known; TD_ELIMIT, TD_ENOMEM. */
int td_token_format(const struct td_token *token, struct td_buf *to);

/* From a file that is ours alone (see td_file_read), or with "-" from standard input. Blanks and
 * newlines behind it are passed over. As td_token_parse and td_file_read. */
int td_token_read(const char *path, struct td_token *ret_token, struct td_error *err);

/* Into a file, see td_file_write. */
int td_token_write(const char *path, const struct td_token *token, struct td_error *err);

/* What a person gave to say where: the text of a token, which begins with "tendril-", or else the
 * path of a file with one. TD_EINVAL also: it is for another role. */
int td_token_place(const char *place, const char *role, struct td_token *ret_token,
                   struct td_error *err);

/* A new secret: 32 random bytes as base64url. TD_ESYS. */
int td_token_secret(char ret_secret[TD_TOKEN_SECRET_MAX], struct td_error *err);

#endif
