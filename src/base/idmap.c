#include "base/idmap.h"

#include "base/err.h"
#include "base/mem.h"

void td_idmap_done(struct td_idmap *map)
{
    td_free(map->rows);
    *map = (struct td_idmap){0};
}

/* splitmix64's finisher: ids are small and dense, rows must not cluster. */
static size_t home(const struct td_idmap *map, uint64_t id)
{
    id = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9u;
    id = (id ^ (id >> 27)) * 0x94d049bb133111ebu;
    return (size_t)(id ^ (id >> 31)) & (map->cap - 1);
}

static struct td_idmap_row *find(const struct td_idmap *map, uint64_t id)
{
    size_t i = home(map, id);
    while (map->rows[i].value && map->rows[i].id != id)
        i = (i + 1) & (map->cap - 1);
    return &map->rows[i];
}

static int grow(struct td_idmap *map)
{
    struct td_idmap bigger = {.cap = map->cap ? map->cap * 2 : 16, .len = map->len};
    bigger.rows = td_alloc_zero(bigger.cap * sizeof bigger.rows[0]);
    if (!bigger.rows)
        return TD_ENOMEM;
    for (size_t i = 0; i < map->cap; i++)
        if (map->rows[i].value)
            *find(&bigger, map->rows[i].id) = map->rows[i];
    td_free(map->rows);
    *map = bigger;
    return 0;
}

int td_idmap_put(struct td_idmap *map, uint64_t id, void *value)
{
    if (map->len * 4 >= map->cap * 3) {
        int r = grow(map);
        if (r < 0)
            return r;
    }
    struct td_idmap_row *row = find(map, id);
    if (row->value)
        return TD_EEXISTS;
    *row = (struct td_idmap_row){id, value};
    map->len++;
    return 0;
}

void *td_idmap_get(const struct td_idmap *map, uint64_t id)
{
    return map->cap ? find(map, id)->value : NULL;
}

void *td_idmap_remove(struct td_idmap *map, uint64_t id)
{
    if (!map->cap)
        return NULL;
    struct td_idmap_row *row = find(map, id);
    void *value = row->value;
    if (!value)
        return NULL;
    map->len--;
    /* Close the hole: move back every follower that may not live behind a free row. */
    size_t hole = (size_t)(row - map->rows);
    map->rows[hole].value = NULL;
    for (size_t i = (hole + 1) & (map->cap - 1); map->rows[i].value; i = (i + 1) & (map->cap - 1)) {
        size_t from_home = (i - home(map, map->rows[i].id)) & (map->cap - 1);
        size_t from_hole = (i - hole) & (map->cap - 1);
        if (from_home >= from_hole) {
            map->rows[hole] = map->rows[i];
            map->rows[i].value = NULL;
            hole = i;
        }
    }
    return value;
}

void *td_idmap_next(const struct td_idmap *map, size_t *cursor)
{
    while (*cursor < map->cap) {
        struct td_idmap_row *row = &map->rows[(*cursor)++];
        if (row->value)
            return row->value;
    }
    return NULL;
}
