#include "task/spec.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"

struct counted {
    struct td_spec spec;
    atomic_uint refs;
};

static int list_check(struct td_bytes list, const char *what, struct td_error *err)
{
    if (list.len && ((const char *)list.data)[list.len - 1] != '\0')
        return td_error_set(err, TD_EINVAL, "%s: the last string does not end", what);
    return 0;
}

int td_runner_spec_check(const struct td_runner_spec *spec, struct td_error *err)
{
    int r = list_check(spec->argv, "argv", err);
    if (r == 0)
        r = list_check(spec->env, "env", err);
    if (r == 0 && spec->argv.len == 0)
        r = td_error_set(err, TD_EINVAL, "argv is empty");
    return r;
}

static bool copy(struct td_bytes from, struct td_bytes *ret_to)
{
    *ret_to = (struct td_bytes){td_memdup(from.data, from.len), from.len};
    return ret_to->data != NULL;
}

int td_spec_new(const struct td_spec *from, struct td_spec **ret_spec, struct td_error *err)
{
    int r = td_runner_spec_check(&from->runner, err);
    if (r == 0 && from->timeout_ns < 0)
        r = td_error_set(err, TD_EINVAL, "the timeout is negative");
    if (r < 0)
        return r;
    struct counted *counted = td_alloc_zero(sizeof *counted);
    if (!counted)
        return td_error_set(err, TD_ENOMEM, "map: out of memory");
    TD_CLEANUP(td_spec_unrefp) struct td_spec *spec = &counted->spec;
    atomic_init(&counted->refs, 1);
    *spec = *from;
    spec->runner.argv = spec->runner.env = spec->runner.cwd = (struct td_bytes){0};
    spec->body = td_blob_ref(from->body);
    if (!copy(from->runner.argv, &spec->runner.argv) ||
        !copy(from->runner.env, &spec->runner.env) || !copy(from->runner.cwd, &spec->runner.cwd))
        return td_error_set(err, TD_ENOMEM, "map: out of memory");
    *ret_spec = TD_TAKE(spec);
    return 0;
}

struct td_spec *td_spec_ref(struct td_spec *spec)
{
    struct counted *counted = TD_CONTAINER(spec, struct counted, spec);
    atomic_fetch_add_explicit(&counted->refs, 1, memory_order_relaxed);
    return spec;
}

struct td_spec *td_spec_unref(struct td_spec *spec)
{
    if (!spec)
        return NULL;
    struct counted *counted = TD_CONTAINER(spec, struct counted, spec);
    if (atomic_fetch_sub_explicit(&counted->refs, 1, memory_order_acq_rel) > 1)
        return NULL;
    td_free((void *)spec->runner.argv.data);
    td_free((void *)spec->runner.env.data);
    td_free((void *)spec->runner.cwd.data);
    td_blob_unref(spec->body);
    td_free(counted);
    return NULL;
}

void td_spec_unrefp(struct td_spec **spec)
{
    *spec = td_spec_unref(*spec);
}

void td_spec_message(const struct td_spec *spec, uint64_t map, struct td_message *ret_message)
{
    *ret_message = (struct td_message){.type = TD_MSG_MAP_OPEN,
                                       .map_open = {.map = map,
                                                    .function = spec->function,
                                                    .retries = spec->retries,
                                                    .timeout_ns = spec->timeout_ns,
                                                    .memory_bytes = spec->runner.memory_bytes,
                                                    .cpu_milli = spec->runner.cpu_milli,
                                                    .argv = spec->runner.argv,
                                                    .env = spec->runner.env,
                                                    .cwd = spec->runner.cwd,
                                                    .body = td_blob_bytes(spec->body)}};
}

int td_spec_from(const struct td_msg_map_open *message, struct td_spec **ret_spec,
                 struct td_error *err)
{
    TD_CLEANUP(td_blob_unrefp)
    struct td_blob *body = td_blob_new(message->body.data, message->body.len);
    if (!body)
        return td_error_set(err, TD_ENOMEM, "map: out of memory");
    struct td_spec spec = {.function = message->function,
                           .body = body,
                           .retries = message->retries,
                           .timeout_ns = message->timeout_ns,
                           .runner = {.argv = message->argv,
                                      .env = message->env,
                                      .cwd = message->cwd,
                                      .memory_bytes = message->memory_bytes,
                                      .cpu_milli = message->cpu_milli}};
    return td_spec_new(&spec, ret_spec, err);
}

unsigned td_spec_cost(const struct td_spec *spec, unsigned slots, uint64_t memory_bytes)
{
    uint64_t cost = ((uint64_t)spec->runner.cpu_milli + 999) / 1000;
    if (memory_bytes && spec->runner.memory_bytes) {
        /* A share of the memory takes the same share of the slots, rounded up. */
        double share = (double)spec->runner.memory_bytes / (double)memory_bytes * slots;
        uint64_t by_memory = share > slots ? slots : (uint64_t)share;
        by_memory += (double)by_memory < share;
        cost = by_memory > cost ? by_memory : cost;
    }
    if (cost < 1)
        cost = 1;
    return cost > slots ? slots : (unsigned)cost;
}
