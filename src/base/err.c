#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *name;
    const char *text;
} errors[] = {{TD_OK, "TD_OK", "no error"},
#define TD_ERROR_ROW(code, name, text) {TD_E##name, "TD_E" #name, text},
              TD_ERRORS(TD_ERROR_ROW)
#undef TD_ERROR_ROW
};

const char *td_status_name(int status)
{
    for (size_t i = 0; i < TD_COUNT(errors); i++)
        if (errors[i].status == status)
            return errors[i].name;
    return "TD_E?";
}

const char *td_status_text(int status)
{
    for (size_t i = 0; i < TD_COUNT(errors); i++)
        if (errors[i].status == status)
            return errors[i].text;
    return "unknown status";
}

int td_error_set(struct td_error *err, int status, const char *format, ...)
{
    if (!err)
        return status;
    err->status = status;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(err->text, sizeof err->text, format, args); /* a cut text is still a text */
    va_end(args);
    return status;
}

int td_error_sys(struct td_error *err, int errno_value, const char *what)
{
    int status = TD_ESYS;
    if (errno_value == EMFILE || errno_value == ENFILE)
        status = TD_ELIMIT;
    else if (errno_value == ENOMEM)
        status = TD_ENOMEM;
    const char *text = strerrordesc_np(errno_value);
    return td_error_set(err, status, "%s: %s", what, text ? text : "unknown error");
}
