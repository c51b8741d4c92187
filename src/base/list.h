/* list.h: an intrusive doubly linked list. The code is in the header because each function is a
 * few pointer moves that every queue here is made of.
 *
 * Invariant: a head is linked to itself when empty; a node that is in no list is linked to
 * itself too, so td_list_remove may be called twice. */
#ifndef TD_BASE_LIST_H
#define TD_BASE_LIST_H

#include <stdbool.h>

#include "base/attr.h"

struct td_list {
    struct td_list *prev;
    struct td_list *next;
};

static inline void td_list_init(struct td_list *list)
{
    list->prev = list->next = list;
}

static inline bool td_list_empty(const struct td_list *list)
{
    return list->next == list;
}

static inline void td_list_append(struct td_list *list, struct td_list *node)
{
    node->prev = list->prev;
    node->next = list;
    list->prev->next = node;
    list->prev = node;
}

static inline void td_list_remove(struct td_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    td_list_init(node);
}

/* The first node, removed, or NULL. */
static inline struct td_list *td_list_pop(struct td_list *list)
{
    if (td_list_empty(list))
        return NULL;
    struct td_list *node = list->next;
    td_list_remove(node);
    return node;
}

#define TD_LIST_EACH(node, list) \
    for (struct td_list *node = (list)->next; node != (list); node = node->next)

/* The same where the body may remove the node. */
#define TD_LIST_EACH_SAFE(node, list)                                              \
    for (struct td_list *node = (list)->next, *next_ = node->next; node != (list); \
         node = next_, next_ = node->next)

#endif
