#include "plain.h"

#include <string.h>

enum { TEXT_MAX = 64 << 10, DEPTH_MAX = 4 };

static Py_ssize_t size_of(PyObject *value, int depth);

static Py_ssize_t int_size(PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow)
        return -1;
    if (number >= 0 && number < 1 << 8)
        return 2;
    if (number >= 0 && number < 1 << 16)
        return 3;
    return number == (int32_t)number ? 5 : 10;
}

static Py_ssize_t text_size(Py_ssize_t len)
{
    return len > TEXT_MAX ? -1 : len < 256 ? 2 + len : 5 + len;
}

static Py_ssize_t str_size(PyObject *value)
{
    Py_ssize_t len;
    if (PyUnicode_GET_LENGTH(value) > TEXT_MAX)
        return -1;
    if (PyUnicode_AsUTF8AndSize(value, &len))
        return text_size(len);
    PyErr_Clear(); /* a lone surrogate, or no memory: the pickler says it better */
    return -1;
}

static Py_ssize_t tuple_size(PyObject *value, int depth)
{
    Py_ssize_t len = PyTuple_GET_SIZE(value), size = 2; /* '(' and 't', or less */
    if (depth == DEPTH_MAX)
        return -1;
    for (Py_ssize_t i = 0; i < len; i++) {
        Py_ssize_t item = size_of(PyTuple_GET_ITEM(value, i), depth + 1);
        if (item < 0 || size + item > TEXT_MAX)
            return -1;
        size += item;
    }
    return size;
}

static Py_ssize_t size_of(PyObject *value, int depth)
{
    if (value == Py_None || value == Py_True || value == Py_False)
        return 1;
    if (PyLong_CheckExact(value))
        return int_size(value);
    if (PyFloat_CheckExact(value))
        return 9;
    if (PyUnicode_CheckExact(value))
        return str_size(value);
    if (PyBytes_CheckExact(value))
        return text_size(PyBytes_GET_SIZE(value));
    return PyTuple_CheckExact(value) ? tuple_size(value, depth) : -1;
}

Py_ssize_t td_plain_size(PyObject *value)
{
    return size_of(value, 0);
}

/* The lowest `bytes` bytes of a number, little endian. */
static char *put(char *to, uint64_t number, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *to++ = (char)(number >> 8 * i);
    return to;
}

static char *put_text(char *to, char brief, char wide, const char *data, Py_ssize_t len)
{
    *to++ = len < 256 ? brief : wide;
    to = put(to, (uint64_t)len, len < 256 ? 1 : 4);
    memcpy(to, data, (size_t)len);
    return to + len;
}

static char *put_int(char *to, PyObject *value)
{
    long long number = PyLong_AsLongLong(value);
    if (number >= 0 && number < 1 << 8) {
        *to++ = 'K'; /* BININT1 */
        return put(to, (uint64_t)number, 1);
    }
    if (number >= 0 && number < 1 << 16) {
        *to++ = 'M'; /* BININT2 */
        return put(to, (uint64_t)number, 2);
    }
    if (number == (int32_t)number) {
        *to++ = 'J'; /* BININT */
        return put(to, (uint64_t)number, 4);
    }
    *to++ = (char)0x8a; /* LONG1, of 8 bytes */
    *to++ = 8;
    return put(to, (uint64_t)number, 8);
}

static char *put_float(char *to, PyObject *value)
{
    double number = PyFloat_AS_DOUBLE(value);
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    *to++ = 'G'; /* BINFLOAT, big endian */
    for (int i = 7; i >= 0; i--)
        *to++ = (char)(bits >> 8 * i);
    return to;
}

char *td_plain_write(char *to, PyObject *value)
{
    if (value == Py_None || value == Py_True || value == Py_False) {
        *to++ = value == Py_None ? 'N' : value == Py_True ? (char)0x88 : (char)0x89;
        return to;
    }
    if (PyLong_CheckExact(value))
        return put_int(to, value);
    if (PyFloat_CheckExact(value))
        return put_float(to, value);
    if (PyBytes_CheckExact(value)) /* SHORT_BINBYTES, BINBYTES */
        return put_text(to, 'C', 'B', PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    if (PyUnicode_CheckExact(value)) { /* SHORT_BINUNICODE, BINUNICODE */
        Py_ssize_t len;
        const char *text = PyUnicode_AsUTF8AndSize(value, &len); /* cached by td_plain_size */
        return put_text(to, (char)0x8c, 'X', text, len);
    }
    Py_ssize_t len = PyTuple_GET_SIZE(value);
    if (len == 0) {
        *to++ = ')'; /* EMPTY_TUPLE */
        return to;
    }
    if (len > 3)
        *to++ = '('; /* MARK */
    for (Py_ssize_t i = 0; i < len; i++)
        to = td_plain_write(to, PyTuple_GET_ITEM(value, i));
    *to++ = len > 3 ? 't' : (char)(0x84 + len); /* TUPLE, TUPLE1 to TUPLE3 */
    return to;
}

char *td_nested_write(char *to, const char *data, uint32_t len)
{
    *to++ = 'h'; /* BINGET */
    *to++ = 0;
    *to++ = 'B'; /* BINBYTES */
    to = put(to, len, 4);
    memcpy(to, data, len);
    to += len;
    *to++ = (char)0x85; /* TUPLE1 */
    *to++ = 'R';        /* REDUCE */
    return to;
}
