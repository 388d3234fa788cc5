/* heap.h - the timers of a loop: a binary heap on (deadline, sequence).
 *
 * The sequence number makes timers of the same deadline fire in the order in
 * which they were made.
 * Threading: touched with the GIL held only.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_HEAP_H
#define HL_BASE_HEAP_H

#include "base/hotloop.h"

typedef struct {
    double when; /* seconds on the loop's clock */
    uint64_t seq;
    PyObject *timer; /* owned */
} hl_heap_item;

typedef struct {
    hl_heap_item *items;
    size_t count;
    size_t capacity;
    uint64_t next_seq;
} hl_heap;

void hl_heap_init(hl_heap *heap);

/* Frees the storage; the heap must be empty. */
void hl_heap_free(hl_heap *heap);

/* Takes a new reference to timer.  0, or -1 with MemoryError set. */
int hl_heap_push(hl_heap *heap, double when, PyObject *timer);

/* Removes the earliest item; the caller owns the reference.  The heap must
 * not be empty. */
PyObject *hl_heap_pop(hl_heap *heap);

/* Restores the heap order after items were removed from the array. */
void hl_heap_rebuild(hl_heap *heap);

#endif
