#include "base/blob.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"

struct td_blob {
    atomic_uint refs;
    size_t len;
    const char *data; /* own, or elsewhere */
    td_blob_release_fn *release;
    void *context;
    char own[];
};

static struct td_blob *blob_new(size_t len, size_t own)
{
    struct td_blob *blob = td_alloc(sizeof *blob + own);
    if (!blob)
        return NULL;
    *blob = (struct td_blob){.len = len, .data = blob->own};
    atomic_init(&blob->refs, 1);
    return blob;
}

struct td_blob *td_blob_join(const struct td_bytes *pieces, size_t npieces)
{
    size_t len = 0;
    for (size_t i = 0; i < npieces; i++) {
        if (pieces[i].len > SIZE_MAX - sizeof(struct td_blob) - len)
            return NULL;
        len += pieces[i].len;
    }
    struct td_blob *blob = blob_new(len, len);
    if (!blob)
        return NULL;
    char *to = blob->own;
    for (size_t i = 0; i < npieces; i++) {
        if (pieces[i].len)
            memcpy(to, pieces[i].data, pieces[i].len);
        to += pieces[i].len;
    }
    return blob;
}

struct td_blob *td_blob_new(const void *data, size_t len)
{
    return td_blob_join(&(struct td_bytes){data, len}, 1);
}

struct td_blob *td_blob_wrap(const void *data, size_t len, td_blob_release_fn *release,
                             void *context)
{
    struct td_blob *blob = blob_new(len, 0);
    if (!blob)
        return NULL;
    blob->data = data;
    blob->release = release;
    blob->context = context;
    return blob;
}

void *td_blob_context(const struct td_blob *blob, td_blob_release_fn *release)
{
    return blob && blob->release == release ? blob->context : NULL;
}

struct td_blob *td_blob_ref(struct td_blob *blob)
{
    if (blob)
        atomic_fetch_add_explicit(&blob->refs, 1, memory_order_relaxed);
    return blob;
}

struct td_blob *td_blob_unref(struct td_blob *blob)
{
    if (blob && atomic_fetch_sub_explicit(&blob->refs, 1, memory_order_acq_rel) == 1) {
        if (blob->release)
            blob->release(blob->context);
        td_free(blob);
    }
    return NULL;
}

void td_blob_unrefp(struct td_blob **blob)
{
    *blob = td_blob_unref(*blob);
}

struct td_bytes td_blob_bytes(const struct td_blob *blob)
{
    return blob ? (struct td_bytes){blob->data, blob->len} : (struct td_bytes){NULL, 0};
}
