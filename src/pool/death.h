/* death.h: how a runner ended, as the supervisor tells it (RUNNER_GONE.cause). */
#ifndef TD_POOL_DEATH_H
#define TD_POOL_DEATH_H

/* number on the wire, NAME */
#define TD_DEATHS(D)                                        \
    D(0, EXITED)        /* by itself or by a signal */      \
    D(1, OUT_OF_MEMORY) /* it went over its memory limit */ \
    D(2, NOT_STARTED)   /* it never ran */                  \
    D(3, KILLED)        /* it lived until we killed it, as we were told */

#define TD_DEATH_ENUM(number, NAME) TD_DEATH_##NAME = (number),
enum td_death { TD_DEATHS(TD_DEATH_ENUM) };
#undef TD_DEATH_ENUM

#endif
