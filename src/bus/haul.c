#include "bus/haul.h"

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "bus/cluster.h"
#include "bus/jet.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/memfile.h"

enum { UNDER_WAY = 8, CHUNK_MAX = 1 << 20, LARGE = 1 << 20 };
#define CHUNK_NS (60 * TD_NS_PER_S) /* for one chunk, the server being away included */

struct chunk {
    struct td_haul *haul;
    struct td_jet_ask ask;
    uint32_t number;
};

struct td_haul {
    struct td_jet *jet;
    struct td_blob *blob; /* up */
    int fd;               /* down */
    struct td_msg_parcel parcel;
    td_haul_fn *done;
    void *context;
    uint32_t chunks, next, arrived;
    int status;
    struct chunk under_way[UNDER_WAY];
};

size_t td_haul_inline_max(const struct td_jet *jet)
{
    size_t most = td_jet_payload_max(jet) / 2;
    return most < LARGE ? most : LARGE - 1;
}

static uint32_t chunks_of(const struct td_msg_parcel *parcel)
{
    return (uint32_t)((parcel->size + parcel->chunk - 1) / parcel->chunk);
}

static size_t size_of(const struct td_haul *haul, uint32_t number)
{
    uint64_t at = (uint64_t)number * haul->parcel.chunk;
    uint64_t left = haul->parcel.size - at;
    return left < haul->parcel.chunk ? (size_t)left : haul->parcel.chunk;
}

static struct td_name name_of(const struct td_haul *haul, uint32_t number)
{
    return td_name_blob(haul->parcel.session, haul->parcel.scope, haul->parcel.blob, number);
}

static void finish(struct td_haul *haul, int status)
{
    struct td_blob *blob = NULL;
    if (status == 0 && haul->fd >= 0) {
        status = td_memfile_seal(haul->fd, NULL);
        if (status == 0)
            status = td_memfile_open(&haul->fd, &blob, NULL);
    }
    td_haul_fn *done = haul->done;
    void *context = haul->context;
    td_haul_free(haul);
    done(context, status, blob);
}

/* -- up --------------------------------------------------------------------------------------- */

static void on_stored(void *context, int status, uint64_t sequence);

/* Sends the next chunk; false: it could not be. */
static int send_next(struct td_haul *haul)
{
    uint32_t number = haul->next;
    const char *data = td_blob_bytes(haul->blob).data;
    struct td_bytes piece = {data + (size_t)number * haul->parcel.chunk, size_of(haul, number)};
    struct td_name name = name_of(haul, number);
    int r = td_jet_store(haul->jet, name.text, piece, on_stored, haul);
    haul->next += r == 0;
    return r;
}

static void on_stored(void *context, int status, uint64_t sequence)
{
    (void)sequence;
    struct td_haul *haul = context;
    haul->arrived++;
    if (status == 0 && haul->next < haul->chunks)
        status = send_next(haul);
    if (status < 0 || haul->arrived == haul->chunks)
        finish(haul, status);
}

int td_haul_up(struct td_jet *jet, struct td_blob *blob, struct td_msg_parcel *parcel,
               td_haul_fn *done, void *context, struct td_haul **ret_haul)
{
    size_t most = td_jet_payload_max(jet);
    struct td_haul *haul = td_alloc_zero(sizeof *haul);
    if (!haul)
        return TD_ENOMEM;
    parcel->size = td_blob_bytes(blob).len;
    parcel->chunk = (uint32_t)(most < CHUNK_MAX ? most : CHUNK_MAX);
    *haul = (struct td_haul){.jet = jet,
                             .blob = td_blob_ref(blob),
                             .fd = -1,
                             .parcel = *parcel,
                             .chunks = chunks_of(parcel),
                             .done = done,
                             .context = context};
    int r = 0;
    while (r == 0 && haul->next < haul->chunks && haul->next < UNDER_WAY)
        r = send_next(haul);
    if (r < 0) {
        td_haul_free(haul);
        return r;
    }
    *ret_haul = haul;
    return 0;
}

/* -- down ------------------------------------------------------------------------------------- */

static void ask_next(struct chunk *chunk);

static void on_chunk(void *context, int status, const struct td_nats_message *answer)
{
    struct chunk *chunk = context;
    struct td_haul *haul = chunk->haul;
    size_t at = (size_t)chunk->number * haul->parcel.chunk;
    if (status == 0 && answer->status)
        status = TD_ENOTFOUND;
    if (status == 0 && answer->payload.len != size_of(haul, chunk->number))
        status = TD_EPROTO;
    if (status == 0)
        status = td_memfile_put(haul->fd, at, answer->payload, NULL);
    haul->arrived++;
    haul->status = haul->status ? haul->status : status;
    if (haul->status < 0 || haul->arrived == haul->chunks)
        finish(haul, haul->status);
    else if (haul->next < haul->chunks)
        ask_next(chunk);
}

static void ask_next(struct chunk *chunk)
{
    struct td_haul *haul = chunk->haul;
    chunk->number = haul->next++;
    struct td_name name = name_of(haul, chunk->number);
    struct td_name question = td_name_direct(TD_STREAM_BLOBS, name.text);
    int r = td_jet_ask(haul->jet, &chunk->ask, question.text, (struct td_bytes){0},
                       td_clock_now() + CHUNK_NS);
    haul->status = haul->status ? haul->status : r; /* the next to arrive tells */
}

int td_haul_down(struct td_jet *jet, const struct td_msg_parcel *parcel, td_haul_fn *done,
                 void *context, struct td_haul **ret_haul)
{
    if (parcel->size == 0 || parcel->chunk == 0 || parcel->size / parcel->chunk > UINT32_MAX - 1)
        return TD_EPROTO;
    struct td_haul *haul = td_alloc_zero(sizeof *haul);
    if (!haul)
        return TD_ENOMEM;
    *haul = (struct td_haul){.jet = jet,
                             .fd = -1,
                             .parcel = *parcel,
                             .chunks = chunks_of(parcel),
                             .done = done,
                             .context = context};
    int r = td_memfile_begin(parcel->size, &haul->fd, NULL);
    for (size_t i = 0; i < UNDER_WAY && r == 0 && haul->next < haul->chunks; i++) {
        struct chunk *chunk = &haul->under_way[i];
        *chunk = (struct chunk){.haul = haul, .ask = {.fn = on_chunk, .context = chunk}};
        ask_next(chunk);
        r = haul->status;
    }
    if (r < 0) {
        td_haul_free(haul);
        return r;
    }
    *ret_haul = haul;
    return 0;
}

struct td_haul *td_haul_free(struct td_haul *haul)
{
    if (!haul)
        return NULL;
    if (haul->blob)
        td_jet_unstore(haul->jet, haul);
    for (size_t i = 0; i < UNDER_WAY; i++)
        td_jet_unask(&haul->under_way[i].ask);
    td_blob_unref(haul->blob);
    td_fd_close(&haul->fd);
    td_free(haul);
    return NULL;
}
