/* seat_object.h: a Seat: a runner's or a zygote's connection to those who give it work (seat.c),
 * and the turns of a runner that has one (turns.c). */
#ifndef TD_PYTHON_SEAT_OBJECT_H
#define TD_PYTHON_SEAT_OBJECT_H

#include "state.h"

#include <stdbool.h>
#include <stdint.h>

#include "pool/seat.h"

struct td_forkmark;

struct seat_object {
    PyObject_HEAD
    struct td_seat seat;
    struct td_forkmark *mark;
    /* What `prepare` was given, or NULL. */
    PyObject *settle, *dumps, *fail, *out, *err;
    uint64_t outputs[2][2]; /* which files the descriptors 1 and 2 were then */
    bool limited;           /* its memory, by a control group */
};

/* Sends a message whole, without the GIL. The statuses of td_seat_send. */
int td_seat_say(struct seat_object *seat, const struct td_message *message, struct td_error *err);

/* Methods that are in turns.c. */
PyObject *td_seat_prepare(PyObject *self, PyObject *args);
PyObject *td_seat_one(PyObject *self, PyObject *args);
PyObject *td_seat_go(PyObject *self, PyObject *args);
extern const char td_seat_prepare_doc[], td_seat_one_doc[], td_seat_go_doc[];

#endif
