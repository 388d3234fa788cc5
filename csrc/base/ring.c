/* ring.c - the ready queue: a growing ring of things to run.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "base/ring.h"

#define RING_INITIAL 64

int
hl_ring_init(hl_ring *ring)
{
    ring->items = PyMem_New(hl_entry, RING_INITIAL);
    if (ring->items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    ring->capacity = RING_INITIAL;
    ring->head = ring->tail = 0;
    return 0;
}

void
hl_ring_free(hl_ring *ring)
{
    PyMem_Free(ring->items);
    ring->items = NULL;
    ring->capacity = 0;
    ring->head = ring->tail = 0;
}

int
hl_ring_grow(hl_ring *ring)
{
    size_t capacity = Py_MAX(RING_INITIAL, ring->capacity * 2);
    hl_entry *items = PyMem_New(hl_entry, capacity);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    /* Each at its place in the larger ring: head and tail never go back, they
     * are what the metrics count callbacks by. */
    for (size_t at = ring->head; at != ring->tail; at++) {
        items[at & (capacity - 1)] = ring->items[at & (ring->capacity - 1)];
    }
    PyMem_Free(ring->items);
    ring->items = items;
    ring->capacity = capacity;
    return 0;
}
