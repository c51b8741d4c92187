/* profile.h: what kind of runner a function needs: a command, its surroundings and its limits.
 *
 * Runners of one profile are alike, so any of them can take any call that asks for it.
 * Threads: immutable once made. Lifetime: td_profile_new copies; td_profile_free. */
#ifndef TD_POOL_PROFILE_H
#define TD_POOL_PROFILE_H

#include <stdbool.h>

struct td_profile;
struct td_error;
struct td_runner_spec;

/* TD_EINVAL (see td_runner_spec_check), TD_ENOMEM. */
int td_profile_new(const struct td_runner_spec *spec, struct td_profile **ret_profile,
                   struct td_error *err);
struct td_profile *td_profile_free(struct td_profile *profile); /* accepts NULL, returns NULL */

/* What it was made of; borrowed. */
const struct td_runner_spec *td_profile_spec(const struct td_profile *profile);
bool td_profile_equal(const struct td_profile *profile, const struct td_runner_spec *spec);

/* argv with the two words added and env, as execve wants them; borrowed from *profile until the
 * next call. */
void td_profile_command(struct td_profile *profile, const char *role, int fd, char ***ret_argv,
                        char ***ret_env);
const char *td_profile_cwd(const struct td_profile *profile); /* NULL: the supervisor's */

#endif
