#include "pool/profile.h"

#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/mem.h"
#include "task/spec.h"

struct td_profile {
    struct td_runner_spec spec; /* its bytes are our copies */
    char *cwd;
    char **argv; /* made once: pointers into spec.argv, room for the two words */
    char **env;
    size_t argc;
    char fd_word[16];
};

/* Pointers to each string of the list and `more` free places behind; NULL when memory is out. */
static char **list_split(struct td_bytes list, size_t more, size_t *ret_count)
{
    size_t n = 0;
    const char *data = list.data;
    for (size_t i = 0; i < list.len; i++)
        n += data[i] == '\0';
    char **words = td_alloc_zero((n + more + 1) * sizeof *words);
    if (!words)
        return NULL;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        words[i] = (char *)data + at;
        at += strlen(data + at) + 1;
    }
    *ret_count = n;
    return words;
}

static int copy(struct td_bytes from, struct td_bytes *ret_to)
{
    void *data = td_memdup(from.data, from.len);
    if (!data)
        return TD_ENOMEM;
    *ret_to = (struct td_bytes){data, from.len};
    return 0;
}

static void profile_freep(struct td_profile **profile)
{
    *profile = td_profile_free(*profile);
}

int td_profile_new(const struct td_runner_spec *spec, struct td_profile **ret_profile,
                   struct td_error *err)
{
    int r = td_runner_spec_check(spec, err);
    if (r < 0)
        return r;
    TD_CLEANUP(profile_freep) struct td_profile *profile = td_alloc_zero(sizeof *profile);
    if (!profile)
        return td_error_set(err, TD_ENOMEM, "profile: out of memory");
    profile->spec = (struct td_runner_spec){.memory_bytes = spec->memory_bytes,
                                            .cpu_milli = spec->cpu_milli};
    size_t ignored;
    if (copy(spec->argv, &profile->spec.argv) < 0 || copy(spec->env, &profile->spec.env) < 0 ||
        copy(spec->cwd, &profile->spec.cwd) < 0)
        return td_error_set(err, TD_ENOMEM, "profile: out of memory");
    profile->argv = list_split(profile->spec.argv, 2, &profile->argc);
    profile->env = list_split(profile->spec.env, 0, &ignored);
    profile->cwd = td_alloc_zero(spec->cwd.len + 1);
    if (!profile->argv || !profile->env || !profile->cwd)
        return td_error_set(err, TD_ENOMEM, "profile: out of memory");
    if (spec->cwd.len)
        memcpy(profile->cwd, spec->cwd.data, spec->cwd.len);
    *ret_profile = TD_TAKE(profile);
    return 0;
}

struct td_profile *td_profile_free(struct td_profile *profile)
{
    if (!profile)
        return NULL;
    td_free((void *)profile->spec.argv.data);
    td_free((void *)profile->spec.env.data);
    td_free((void *)profile->spec.cwd.data);
    td_free(profile->argv);
    td_free(profile->env);
    td_free(profile->cwd);
    td_free(profile);
    return NULL;
}

const struct td_runner_spec *td_profile_spec(const struct td_profile *profile)
{
    return &profile->spec;
}

static bool same(struct td_bytes a, struct td_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool td_profile_equal(const struct td_profile *profile, const struct td_runner_spec *spec)
{
    const struct td_runner_spec *own = &profile->spec;
    return own->memory_bytes == spec->memory_bytes && own->cpu_milli == spec->cpu_milli &&
           same(own->argv, spec->argv) && same(own->env, spec->env) && same(own->cwd, spec->cwd);
}

void td_profile_command(struct td_profile *profile, const char *role, int fd, char ***ret_argv,
                        char ***ret_env)
{
    (void)snprintf(profile->fd_word, sizeof profile->fd_word, "%d", fd); /* always fits */
    profile->argv[profile->argc] = (char *)role;
    profile->argv[profile->argc + 1] = profile->fd_word;
    *ret_argv = profile->argv;
    *ret_env = profile->env;
}

const char *td_profile_cwd(const struct td_profile *profile)
{
    return profile->cwd[0] ? profile->cwd : NULL;
}
