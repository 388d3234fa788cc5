/* heap.h - a binary heap of timers on (deadline, sequence): see timers.h.
 *
 * Threading: touched with the GIL held only.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_HEAP_H
#define HL_BASE_HEAP_H

#include "base/hotloop.h"

typedef struct {
    double when;     /* seconds on the loop's clock */
    uint64_t seq;    /* its lowest bit is the timer's mark */
    PyObject *timer; /* owned */
} hl_heap_item;

typedef struct {
    hl_heap_item *items;
    size_t count;
    size_t capacity;
} hl_heap;

void hl_heap_init(hl_heap *heap);

/* Frees the storage; the heap must be empty. */
void hl_heap_free(hl_heap *heap);

/* Without a branch: which of two timers is the earlier one cannot be
 * predicted. */
static inline size_t
hl_heap_before(const hl_heap_item *a, const hl_heap_item *b)
{
    return (size_t)(a->when < b->when) |
           ((size_t)(a->when == b->when) & (size_t)(a->seq < b->seq));
}

/* Takes the item, with its reference unless that fails.  0, or -1 with
 * MemoryError set. */
int hl_heap_push(hl_heap *heap, hl_heap_item item);

/* Removes the earliest item; the caller owns the reference.  The heap must
 * not be empty. */
PyObject *hl_heap_pop(hl_heap *heap);

/* Removes timer if it is the last leaf, whose reference the caller then owns:
 * that leaves the order as it is. */
bool hl_heap_drop_last(hl_heap *heap, PyObject *timer);

/* Restores the heap order after items were removed from the array. */
void hl_heap_rebuild(hl_heap *heap);

#endif
