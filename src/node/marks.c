#include "node/marks.h"

#include <string.h>

static void put_number(char *to, uint32_t number)
{
    for (int i = 0; i < 4; i++)
        to[i] = (char)(number >> 8 * i);
}

void td_mark_write(char mark[TD_MARK_SIZE], const unsigned char token[TD_TOKEN_SIZE], uint32_t at,
                   uint32_t len)
{
    memcpy(mark, token, TD_TOKEN_SIZE);
    put_number(mark + TD_TOKEN_SIZE, at);
    put_number(mark + TD_TOKEN_SIZE + 4, len);
}

static uint32_t number_at(const char *data)
{
    const unsigned char *byte = (const unsigned char *)data;
    return (uint32_t)byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 |
           (uint32_t)byte[3] << 24;
}

/* Where a mark begins in the text, whole or cut off by its end; its length when there is none. */
static size_t find_mark(const unsigned char *token, const char *data, size_t len)
{
    const char *found = memmem(data, len, token, TD_TOKEN_SIZE);
    if (found)
        return (size_t)(found - data);
    for (size_t cut = len < TD_TOKEN_SIZE ? len : TD_TOKEN_SIZE - 1; cut > 0; cut--)
        if (memcmp(data + len - cut, token, cut) == 0)
            return len - cut;
    return len;
}

static size_t take_text(struct td_marks *marks, const char *data, size_t len, td_marks_fn *fn,
                        void *context)
{
    size_t n = len < marks->left ? len : marks->left;
    marks->left -= (uint32_t)n;
    fn(context, marks->at, true, (struct td_bytes){data, n});
    return n;
}

static void take_mark(struct td_marks *marks, const char *mark)
{
    marks->at = number_at(mark + TD_TOKEN_SIZE);
    marks->left = number_at(mark + TD_TOKEN_SIZE + 4);
}

/* Adds to what is held of a mark until it is whole or turns out to be none, which is handed on. */
static size_t complete(struct td_marks *marks, const unsigned char *token, const char *data,
                       size_t len, td_marks_fn *fn, void *context)
{
    size_t used = 0;
    while (used < len && marks->nheld < TD_MARK_SIZE) {
        marks->held[marks->nheld++] = data[used++];
        if (marks->nheld > TD_TOKEN_SIZE)
            continue;
        size_t begins = find_mark(token, marks->held, marks->nheld);
        if (begins == 0)
            continue;
        char no_mark[TD_MARK_SIZE];
        memcpy(no_mark, marks->held, begins);
        marks->nheld -= begins;
        memmove(marks->held, marks->held + begins, marks->nheld);
        fn(context, marks->at, false, (struct td_bytes){no_mark, begins});
        if (marks->nheld == 0)
            return used;
    }
    if (marks->nheld == TD_MARK_SIZE) {
        take_mark(marks, marks->held);
        marks->nheld = 0;
    }
    return used;
}

void td_marks_add(struct td_marks *marks, const unsigned char token[TD_TOKEN_SIZE],
                  struct td_bytes text, td_marks_fn *fn, void *context)
{
    const char *data = text.data;
    size_t len = text.len;
    while (len > 0) {
        size_t used;
        if (marks->nheld > 0) {
            used = complete(marks, token, data, len, fn, context);
        } else if (marks->left > 0) {
            used = take_text(marks, data, len, fn, context);
        } else {
            used = find_mark(token, data, len);
            if (used > 0)
                fn(context, marks->at, false, (struct td_bytes){data, used});
            size_t rest = len - used;
            if (rest >= TD_MARK_SIZE) {
                take_mark(marks, data + used);
                used += TD_MARK_SIZE;
            } else {
                memcpy(marks->held, data + used, rest);
                marks->nheld = rest;
                used = len;
            }
        }
        data += used;
        len -= used;
    }
}

void td_marks_end(struct td_marks *marks, td_marks_fn *fn, void *context)
{
    if (marks->nheld > 0)
        fn(context, marks->at, false, (struct td_bytes){marks->held, marks->nheld});
    *marks = (struct td_marks){0};
}
