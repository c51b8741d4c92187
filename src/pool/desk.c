#include "pool/desk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/blob.h"
#include "base/err.h"
#include "base/mem.h"
#include "os/clock.h"
#include "os/fd.h"

/* Two 32-bit numbers that change together. */
#define PAIR(high, low) ((uint64_t)(high) << 32 | (low))
#define HIGH(pair)      ((uint32_t)((pair) >> 32))
#define LOW(pair)       ((uint32_t)(pair))

/* What is shared. */
struct page {
    _Atomic uint64_t turn; /* calls that may begin, calls that have begun */
    _Atomic int64_t since_ns;
    uint32_t head, foot; /* bytes of the edges */
    unsigned char token[TD_TOKEN_SIZE];
    char edges[2][TD_DESK_EDGE_MAX];
    _Atomic uint64_t progress; /* bytes filled, calls done */
    char results[TD_DESK_RESULTS_MAX];
};

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "atomics between processes must be free of locks");

struct td_desk {
    struct page *page;
    uint32_t calls; /* node: of this batch */
    uint32_t begun; /* runner: as it last was */
    uint32_t done, filled;
    int64_t since_ns;
};

static int map_page(int fd, struct td_desk **ret_desk, struct td_error *err)
{
    struct td_desk *desk = td_alloc_zero(sizeof *desk);
    if (!desk)
        return td_error_set(err, TD_ENOMEM, "shared memory: out of memory");
    desk->page = mmap(NULL, sizeof *desk->page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (desk->page == MAP_FAILED) {
        td_free(desk);
        return td_error_sys(err, errno, "shared memory");
    }
    *ret_desk = desk;
    return 0;
}

/* Its size is sealed: a page that is cut off under us would kill the node. */
int td_desk_new(struct td_desk **ret_desk, int *ret_fd, struct td_error *err)
{
    *ret_fd = memfd_create("tendril-desk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int fd = *ret_fd; /* the caller closes it, also when we fail */
    if (fd < 0 || ftruncate(fd, sizeof(struct page)) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return td_error_sys(err, errno, "shared memory");
    int r = map_page(fd, ret_desk, err);
    if (r < 0)
        return r;
    if (getrandom((*ret_desk)->page->token, TD_TOKEN_SIZE, 0) != TD_TOKEN_SIZE) {
        *ret_desk = td_desk_free(*ret_desk);
        return td_error_set(err, TD_ESYS, "no random numbers");
    }
    (*ret_desk)->page->token[0] = 0xff; /* in no text of UTF-8 */
    return 0;
}

int td_desk_open(int fd, struct td_desk **ret_desk, struct td_error *err)
{
    struct stat found;
    if (fstat(fd, &found) < 0 || found.st_size != sizeof(struct page))
        return td_error_set(err, TD_EPROTO, "shared memory: not of the expected size");
    return map_page(fd, ret_desk, err);
}

struct td_desk *td_desk_free(struct td_desk *desk)
{
    if (!desk)
        return NULL;
    (void)munmap(desk->page, sizeof *desk->page); /* it was mapped with this size */
    td_free(desk);
    return NULL;
}

const unsigned char *td_desk_token(const struct td_desk *desk)
{
    return desk->page->token;
}

/* -- node ------------------------------------------------------------------------------------- */

void td_desk_lay(struct td_desk *desk, uint32_t calls)
{
    desk->calls = calls;
    atomic_store_explicit(&desk->page->progress, 0, memory_order_relaxed);
    atomic_store_explicit(&desk->page->since_ns, td_clock_now(), memory_order_relaxed);
    atomic_store_explicit(&desk->page->turn, PAIR(calls, 0), memory_order_release);
}

struct td_desk_state td_desk_look(const struct td_desk *desk)
{
    uint64_t progress = atomic_load_explicit(&desk->page->progress, memory_order_acquire);
    uint64_t turn = atomic_load_explicit(&desk->page->turn, memory_order_acquire);
    struct td_desk_state state = {
        .begun = LOW(turn),
        .done = LOW(progress),
        .filled = HIGH(progress),
        .since_ns = atomic_load_explicit(&desk->page->since_ns, memory_order_relaxed)};
    if (state.begun > desk->calls)
        state.begun = desk->calls;
    if (state.done > state.begun)
        state.done = state.begun;
    if (state.filled > TD_DESK_RESULTS_MAX)
        state.filled = TD_DESK_RESULTS_MAX;
    return state;
}

uint32_t td_desk_cut(struct td_desk *desk)
{
    uint64_t turn = atomic_load_explicit(&desk->page->turn, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&desk->page->turn, &turn, PAIR(LOW(turn), LOW(turn))))
        continue;
    return LOW(turn) < desk->calls ? LOW(turn) : desk->calls;
}

struct td_blob *td_desk_results(const struct td_desk *desk, uint32_t from, uint32_t to)
{
    const struct page *page = desk->page;
    uint32_t head = page->head, foot = page->foot;
    if (head > TD_DESK_EDGE_MAX || foot > TD_DESK_EDGE_MAX || from > to || to > TD_DESK_RESULTS_MAX)
        return NULL;
    return td_blob_join((const struct td_bytes[]){{page->edges[0], head},
                                                  {page->results + from, to - from},
                                                  {page->edges[1], foot}},
                        3);
}

/* -- runner ----------------------------------------------------------------------------------- */

int td_desk_edges(struct td_desk *desk, struct td_bytes head, struct td_bytes foot)
{
    if (head.len > TD_DESK_EDGE_MAX || foot.len > TD_DESK_EDGE_MAX)
        return TD_ELIMIT;
    memcpy(desk->page->edges[0], head.data, head.len);
    memcpy(desk->page->edges[1], foot.data, foot.len);
    desk->page->head = (uint32_t)head.len;
    desk->page->foot = (uint32_t)foot.len;
    return 0;
}

bool td_desk_begin(struct td_desk *desk)
{
    uint64_t turn = atomic_load_explicit(&desk->page->turn, memory_order_acquire);
    do {
        if (LOW(turn) >= HIGH(turn))
            return false;
    } while (
        !atomic_compare_exchange_weak(&desk->page->turn, &turn, PAIR(HIGH(turn), LOW(turn) + 1)));
    if (LOW(turn) == 0)
        desk->done = desk->filled = 0;
    desk->begun = LOW(turn) + 1;
    desk->since_ns = td_clock_now();
    atomic_store_explicit(&desk->page->since_ns, desk->since_ns, memory_order_relaxed);
    return true;
}

char *td_desk_room(struct td_desk *desk, size_t size)
{
    return size <= TD_DESK_RESULTS_MAX - desk->filled ? desk->page->results + desk->filled : NULL;
}

void td_desk_done(struct td_desk *desk, uint32_t size)
{
    desk->done++;
    desk->filled += size;
    atomic_store_explicit(&desk->page->progress, PAIR(desk->filled, desk->done),
                          memory_order_release);
}

uint32_t td_desk_at(const struct td_desk *desk)
{
    return desk->begun - 1;
}

int64_t td_desk_since(const struct td_desk *desk)
{
    return desk->since_ns;
}

uint32_t td_desk_filled(const struct td_desk *desk)
{
    return desk->filled;
}
