#include "bus/libnats.h"

#include <dlfcn.h>
#include <pthread.h>

#include "base/err.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
struct td_libnats td_libnats;
static struct td_error failure;

/* A name without a version belongs to the development package, and serves as well. */
static void *open_library(void)
{
    static const char *const names[] = {"libnats.so.3.4", "libnats.so.3", "libnats.so"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library; /* for ever: its threads may run as long as we do */
    }
    return NULL;
}

static void load(void)
{
    void *library = open_library();
    if (!library) {
        (void)td_error_set(&failure, TD_ENOTFOUND,
                           "the client library of NATS is not here (Debian: apt install "
                           "libnats3.4)");
        return;
    }
#define LOAD(function)                                                  \
    *(void **)&td_libnats.function = dlsym(library, #function);         \
    if (!td_libnats.function)                                           \
        (void)td_error_set(&failure, TD_ENOTFOUND,                      \
                           "the client library of NATS has no %s: 3.4 " \
                           "or newer is needed",                        \
                           #function);
    TD_LIBNATS_FUNCTIONS(LOAD)
#undef LOAD
}

int td_libnats_load(struct td_error *err)
{
    (void)pthread_once(&once, load); /* fails for a bad argument only */
    return failure.status ? td_error_set(err, failure.status, "%s", failure.text) : 0;
}
