/* program.h: the nats-server of this machine: where it is, and whether it can serve.
 *
 * Threads: any. */
#ifndef TD_HUB_PROGRAM_H
#define TD_HUB_PROGRAM_H

#include <limits.h>
#include <stdbool.h>

struct td_error;

enum { TD_PROGRAM_VERSION_MAX = 32 };

struct td_program {
    char path[PATH_MAX];                  /* or its name, in PATH */
    char version[TD_PROGRAM_VERSION_MAX]; /* "2.9.10" */
    bool old;                             /* it serves, with faults that newer ones lack */
};

/* The chosen one; with NULL that of TENDRIL_NATS_SERVER, or in PATH, or in /usr/sbin. Runs it to
 * ask for its version, and blocks for that. TD_ENOTFOUND; TD_EREFUSED: it is no nats-server, or
 * too old; TD_EINVAL, TD_ESYS. */
int td_program_find(const char *chosen, struct td_program *ret_program, struct td_error *err);

#endif
