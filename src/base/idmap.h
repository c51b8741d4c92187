/* idmap.h: a hash table from a 64-bit number to a pointer, open addressing, grown by doubling.
 *
 * Threads: one owner. The table borrows its values. A value is never NULL. */
#ifndef TD_BASE_IDMAP_H
#define TD_BASE_IDMAP_H

#include <stddef.h>
#include <stdint.h>

struct td_idmap_row {
    uint64_t id;
    void *value; /* NULL: the row is free */
};

struct td_idmap {
    struct td_idmap_row *rows;
    size_t cap; /* 0 or a power of two */
    size_t len;
};

void td_idmap_done(struct td_idmap *map);

/* TD_EEXISTS when the id is inside, TD_ENOMEM. */
int td_idmap_put(struct td_idmap *map, uint64_t id, void *value);

void *td_idmap_get(const struct td_idmap *map, uint64_t id);     /* NULL when it is not there */
void *td_idmap_remove(struct td_idmap *map, uint64_t id);        /* the value, or NULL */
void *td_idmap_next(const struct td_idmap *map, size_t *cursor); /* walk: cursor starts at 0 */

#endif
