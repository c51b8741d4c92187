#include "agent/adapt.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "task/spec.h"

enum { LIST_MAX = 16 << 20, PATH_SIZE = 4096 };

extern char **environ;

/* What says where a program's calls run, or which cluster we are of, is not for calls. */
static bool is_ours(const char *entry)
{
    static const char *const ours[] = {"TENDRIL_PLACE=", "TENDRIL_JOIN_FILE="};
    for (size_t i = 0; i < TD_COUNT(ours); i++)
        if (strncmp(entry, ours[i], strlen(ours[i])) == 0)
            return true;
    return false;
}

/* Whether the list, strings that end by a zero byte, has a variable of this entry's name. */
static bool names(struct td_bytes list, const char *entry)
{
    const char *at = list.data, *end = at + list.len;
    size_t len = strcspn(entry, "=") + 1;
    for (; at < end; at += strlen(at) + 1)
        if (strncmp(at, entry, len) == 0)
            return true;
    return false;
}

static int add_string(struct td_buf *to, const char *text)
{
    return td_buf_add(to, text, strlen(text) + 1);
}

/* This process's variables where the caller has not set them, and the caller's. */
static int make_env(struct td_bytes wanted, struct td_buf *to)
{
    int r = 0;
    for (char **entry = environ; *entry && r == 0; entry++)
        if (!is_ours(*entry) && !names(wanted, *entry))
            r = add_string(to, *entry);
    return r < 0 ? r : td_buf_add(to, wanted.data, wanted.len);
}

static const char *find_in_path(const char *program, char *to, size_t size)
{
    const char *path = getenv("PATH");
    for (const char *at = path ? path : "/usr/local/bin:/usr/bin:/bin"; *at;) {
        size_t len = strcspn(at, ":");
        int n = snprintf(to, size, "%.*s/%s", (int)len, at, program);
        if (n > 0 && (size_t)n < size && access(to, X_OK) == 0)
            return to;
        at += len + (at[len] == ':');
    }
    return NULL;
}

/* The caller's command, with an interpreter that is here. */
static int make_argv(const struct td_adapt *adapt, struct td_bytes wanted, struct td_buf *to,
                     struct td_error *err)
{
    char path[PATH_SIZE];
    const char *own = wanted.data, *program = adapt->python;
    size_t len = strlen(own) + 1;
    if (!program)
        program = access(own, X_OK) == 0 ? own : find_in_path("python3", path, sizeof path);
    if (!program)
        return td_error_set(err, TD_ENOTFOUND,
                            "this machine has neither the caller's interpreter %s nor a python3: "
                            "name one by tendril agent --python",
                            own);
    int r = add_string(to, program);
    if (r == 0)
        r = td_buf_add(to, own + len, wanted.len - len);
    return r < 0 ? td_error_set(err, r, "command: %s", td_status_text(r)) : 0;
}

/* The caller's folder if it is here, too, else ours. */
static struct td_bytes make_cwd(const struct td_adapt *adapt, struct td_bytes wanted)
{
    char path[PATH_SIZE];
    struct stat found;
    if (wanted.len > 0 && wanted.len < sizeof path) {
        memcpy(path, wanted.data, wanted.len);
        path[wanted.len] = '\0';
        if (stat(path, &found) == 0 && S_ISDIR(found.st_mode) && access(path, X_OK) == 0)
            return wanted;
    }
    return (struct td_bytes){adapt->folder, strlen(adapt->folder)};
}

int td_adapt_spec(const struct td_adapt *adapt, const struct td_spec *spec,
                  struct td_spec **ret_spec, struct td_error *err)
{
    TD_CLEANUP(td_buf_done) struct td_buf argv;
    TD_CLEANUP(td_buf_done) struct td_buf env;
    td_buf_init(&argv, LIST_MAX);
    td_buf_init(&env, LIST_MAX);
    int r = td_runner_spec_check(&spec->runner, err);
    if (r == 0)
        r = make_argv(adapt, spec->runner.argv, &argv, err);
    if (r < 0)
        return r;
    r = make_env(spec->runner.env, &env);
    if (r < 0)
        return td_error_set(err, r, "environment: %s", td_status_text(r));
    struct td_spec adapted = *spec;
    adapted.runner.argv = (struct td_bytes){argv.data, argv.len};
    adapted.runner.env = (struct td_bytes){env.data, env.len};
    adapted.runner.cwd = make_cwd(adapt, spec->runner.cwd);
    return td_spec_new(&adapted, ret_spec, err);
}
