/* ring.h - the ready queue: a growing ring of things to run.
 *
 * An entry is an owned object and the function that runs it, so that the
 * queue knows nothing of handles, tasks or transports.
 * Threading: touched with the GIL held only.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_RING_H
#define HL_BASE_RING_H

#include "base/hotloop.h"

struct hl_loop;

/* Runs one entry.  Steals the reference to obj.  Returns 0, or -1 with an
 * exception that must end the run (SystemExit, KeyboardInterrupt and the
 * like); every other exception is reported by the function itself. */
typedef int (*hl_run_fn)(struct hl_loop *loop, PyObject *obj);

/* What may be entered still when an entry runs: a task sees to the current
 * task and to the context itself, a handle to the context. */
typedef enum {
    HL_ENTRY_OTHER,
    HL_ENTRY_HANDLE,
    HL_ENTRY_TASK
} hl_entry_kind;

typedef struct {
    PyObject *obj; /* owned */
    hl_run_fn run;
    hl_entry_kind kind;
} hl_entry;

typedef struct {
    hl_entry *items;
    size_t capacity; /* a power of two; 0 before init and after free */
    size_t head;     /* counts up for ever; index is head & (capacity - 1) */
    size_t tail;
} hl_ring;

/* 0, or -1 with MemoryError set. */
int hl_ring_init(hl_ring *ring);

/* Frees the storage; the ring must be empty. */
void hl_ring_free(hl_ring *ring);

/* Doubles the capacity.  0, or -1 with MemoryError set and the ring as it
 * was. */
int hl_ring_grow(hl_ring *ring);

static inline size_t
hl_ring_count(const hl_ring *ring)
{
    return ring->tail - ring->head;
}

/* Steals obj, also on failure.  0, or -1 with MemoryError set. */
static inline int
hl_ring_push(hl_ring *ring, PyObject *obj, hl_run_fn run, hl_entry_kind kind)
{
    if (HL_UNLIKELY(hl_ring_count(ring) == ring->capacity)) {
        if (hl_ring_grow(ring) < 0) {
            Py_DECREF(obj);
            return -1;
        }
    }
    hl_entry *entry = &ring->items[ring->tail++ & (ring->capacity - 1)];
    entry->obj = obj;
    entry->run = run;
    entry->kind = kind;
    return 0;
}

/* The ring must not be empty; the caller owns the entry's object. */
static inline hl_entry
hl_ring_pop(hl_ring *ring)
{
    return ring->items[ring->head++ & (ring->capacity - 1)];
}

/* The i-th entry from the head, borrowed; i < hl_ring_count(). */
static inline const hl_entry *
hl_ring_peek(const hl_ring *ring, size_t i)
{
    return &ring->items[(ring->head + i) & (ring->capacity - 1)];
}

#endif
