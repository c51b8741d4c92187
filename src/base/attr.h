/* attr.h: compiler attributes and the two ownership macros, used by every file. */
#ifndef TD_BASE_ATTR_H
#define TD_BASE_ATTR_H

#include <stddef.h>

#define TD_PRINTF(text, first) __attribute__((format(printf, text, first)))
#define TD_API                 __attribute__((visibility("default")))

/* A local that owns something: TD_CLEANUP(td_buf_done) struct td_buf b = ...; the function gets
 * a pointer to the variable when it goes out of scope. */
#define TD_CLEANUP(function) __attribute__((cleanup(function)))

/* Moves a pointer out of its owner, which becomes NULL: return TD_TAKE(p); */
#define TD_TAKE(pointer)                         \
    ({                                           \
        __typeof__(pointer) *from_ = &(pointer); \
        __typeof__(pointer) taken_ = *from_;     \
        *from_ = NULL;                           \
        taken_;                                  \
    })

#define TD_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define TD_CONTAINER(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
