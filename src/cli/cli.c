#include "cli/cli.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/text.h"

int td_cli_usage(const char *command, const char *format, ...)
{
    va_list args;
    (void)fprintf(stderr, "tendril %s: ", command); /* nowhere to say it otherwise */
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "; see 'tendril %s --help'\n", command);
    return EXIT_USAGE;
}

int td_cli_failed(const char *command, const struct td_error *err)
{
    (void)fprintf(stderr, "tendril %s: %s\n", command, err->text); /* nowhere else to say it */
    return EXIT_FAILED;
}

int td_cli_option(int argc, char **argv, const char *letters, const struct option *options)
{
    opterr = 0;
    int found = getopt_long(argc, argv, letters, options, NULL);
    if (found == -1 && optind < argc) {
        (void)td_cli_usage(argv[0], "'%s' is not expected", argv[optind]); /* '?' says the same */
        return '?';
    }
    if (found == ':')
        (void)td_cli_usage(argv[0], "%s needs a value", argv[optind - 1]);
    if (found == '?' && strncmp(argv[optind - 1], "--", 2) == 0)
        (void)td_cli_usage(argv[0], "'%s' is not an option", argv[optind - 1]);
    else if (found == '?')
        (void)td_cli_usage(argv[0], "'-%c' is not an option", optopt);
    return found == ':' ? '?' : found;
}

int td_cli_folder(const char *name, char ret_path[PATH_MAX], struct td_error *err)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int len;
    if (state && state[0] == '/') /* others are to be ignored, says the XDG specification */
        len = snprintf(ret_path, PATH_MAX, "%s/tendril/%s", state, name);
    else if (home && home[0] == '/')
        len = snprintf(ret_path, PATH_MAX, "%s/.local/state/tendril/%s", home, name);
    else
        return td_error_set(err, TD_EINVAL, "HOME is not set; name a folder: --folder DIR");
    return len < PATH_MAX ? 0 : td_error_set(err, TD_EINVAL, "the path of the folder is too long");
}

bool td_cli_number(const char *text, uint64_t most, uint64_t *ret_number)
{
    return td_text_u64(text, strlen(text), ret_number) == 0 && *ret_number <= most;
}

bool td_cli_fd(const char *text, int *ret_fd)
{
    uint64_t fd;
    if (!td_cli_number(text, INT_MAX, &fd) || fcntl((int)fd, F_GETFD) < 0)
        return false;
    *ret_fd = (int)fd;
    return fcntl(*ret_fd, F_SETFD, FD_CLOEXEC) == 0;
}
