/* timers.h - the timers of a loop, by (deadline, sequence).
 *
 * The sequence number makes timers of the same deadline fire in the order in
 * which they were made.  Most programs make timers with the same few delays
 * over and over, so that each is due after those before it: such timers form a
 * sorted run, a ring that grows at its end and shrinks at its head.  What is
 * due long before the end of the run goes into a heap.
 * Threading: touched with the GIL held only.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_TIMERS_H
#define HL_BASE_TIMERS_H

#include "base/heap.h"

typedef struct {
    hl_heap_item *run;   /* a ring */
    size_t run_capacity; /* a power of two, or 0 */
    size_t run_head;     /* both count up for ever, as in ring.h */
    size_t run_tail;
    hl_heap heap;
    uint64_t next_seq;
} hl_timers;

void hl_timers_init(hl_timers *timers);

/* Frees the storage; there must be no timers. */
void hl_timers_free(hl_timers *timers);

/* Takes a new reference to timer, and a mark, which means nothing here.  0, or
 * -1 with MemoryError set. */
int hl_timers_push(hl_timers *timers, double when, PyObject *timer, bool mark);

static inline bool
hl_timers_marked(const hl_heap_item *item)
{
    return (item->seq & 1) != 0;
}

/* Removes the earliest timer; the caller owns the reference.  There must be
 * one. */
PyObject *hl_timers_pop(hl_timers *timers);

/* Removes timer if that takes no search, as it does for one of the latest: the
 * caller owns the reference then. */
bool hl_timers_remove(hl_timers *timers, PyObject *timer);

/* Moves all timers for which drop(arg, timer) into dropped, which has room for
 * all of them; the caller owns these references.  Returns how many. */
size_t hl_timers_filter(hl_timers *timers, bool (*drop)(void *, PyObject *),
                        void *arg, PyObject **dropped);

static inline size_t
hl_timers_count(const hl_timers *timers)
{
    return timers->run_tail - timers->run_head + timers->heap.count;
}

/* The earliest, borrowed until the next change; NULL if there is none. */
const hl_heap_item *hl_timers_first(const hl_timers *timers);

/* The i-th, i < hl_timers_count(): in no order, but each once. */
const hl_heap_item *hl_timers_at(const hl_timers *timers, size_t i);

#endif
