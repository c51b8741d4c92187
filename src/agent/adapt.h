/* adapt.h: makes of what a caller asks for what can be had on this machine: the interpreter, the
 * environment and the folder of a function's runners.
 *
 * Threads: any. */
#ifndef TD_AGENT_ADAPT_H
#define TD_AGENT_ADAPT_H

struct td_error;
struct td_spec;

struct td_adapt {
    const char *python; /* NULL: see agent.h */
    const char *folder;
};

/* A new specification. TD_ENOTFOUND: no interpreter is here; TD_EINVAL, TD_ENOMEM. */
int td_adapt_spec(const struct td_adapt *adapt, const struct td_spec *spec,
                  struct td_spec **ret_spec, struct td_error *err);

#endif
