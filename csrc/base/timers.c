/* timers.c - the timers of a loop: a sorted run, and a heap.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "base/timers.h"

#include <string.h>

#define RUN_INITIAL 64

/* How far from its end the run takes a timer: a few distant timers, as that of
 * a whole program's time limit, must not send all others to the heap. */
#define RUN_REACH 8

void
hl_timers_init(hl_timers *timers)
{
    memset(timers, 0, sizeof(*timers));
    hl_heap_init(&timers->heap);
}

void
hl_timers_free(hl_timers *timers)
{
    hl_heap_free(&timers->heap);
    PyMem_Free(timers->run);
    timers->run = NULL;
    timers->run_capacity = timers->run_head = timers->run_tail = 0;
}

static inline size_t
run_count(const hl_timers *timers)
{
    return timers->run_tail - timers->run_head;
}

/* The item at a position from run_head to run_tail. */
static inline hl_heap_item *
run_at(const hl_timers *timers, size_t position)
{
    return &timers->run[position & (timers->run_capacity - 1)];
}

static int
run_grow(hl_timers *timers)
{
    size_t count = run_count(timers);
    size_t capacity = Py_MAX(RUN_INITIAL, timers->run_capacity * 2);
    hl_heap_item *run = PyMem_New(hl_heap_item, capacity);
    if (run == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        run[i] = *run_at(timers, timers->run_head + i);
    }
    PyMem_Free(timers->run);
    timers->run = run;
    timers->run_capacity = capacity;
    timers->run_head = 0;
    timers->run_tail = count;
    return 0;
}

/* The position in the run for a timer that is newer than all: behind those due
 * at the same time or earlier.  False if it is out of reach. */
static inline bool
run_place(const hl_timers *timers, double when, size_t *place)
{
    size_t position = timers->run_tail;
    size_t reach = Py_MIN(run_count(timers), RUN_REACH);
    while (reach > 0 && when < run_at(timers, position - 1)->when) {
        position--;
        reach--;
    }
    *place = position;
    return reach > 0 || position == timers->run_head;
}

static int
run_insert(hl_timers *timers, hl_heap_item item, size_t place)
{
    if (run_count(timers) == timers->run_capacity) {
        size_t behind = timers->run_tail - place;
        if (run_grow(timers) < 0) {
            return -1;
        }
        place = timers->run_tail - behind;
    }
    for (size_t i = timers->run_tail; i > place; i--) {
        *run_at(timers, i) = *run_at(timers, i - 1);
    }
    *run_at(timers, place) = item;
    timers->run_tail++;
    return 0;
}

int
hl_timers_push(hl_timers *timers, double when, PyObject *timer, bool mark)
{
    size_t place;
    hl_heap_item item = {when, timers->next_seq++ * 2 + mark, timer};
    int rv = run_place(timers, when, &place)
                 ? run_insert(timers, item, place)
                 : hl_heap_push(&timers->heap, item);
    if (rv == 0) {
        Py_INCREF(timer);
    }
    return rv;
}

/* Is the earliest timer, of at least one, that at the head of the run? */
static inline bool
run_is_first(const hl_timers *timers)
{
    const hl_heap *heap = &timers->heap;
    return heap->count == 0 ||
           (run_count(timers) > 0 &&
            hl_heap_before(run_at(timers, timers->run_head), &heap->items[0]));
}

const hl_heap_item *
hl_timers_first(const hl_timers *timers)
{
    if (hl_timers_count(timers) == 0) {
        return NULL;
    }
    return run_is_first(timers) ? run_at(timers, timers->run_head)
                                : &timers->heap.items[0];
}

PyObject *
hl_timers_pop(hl_timers *timers)
{
    if (run_is_first(timers)) {
        return run_at(timers, timers->run_head++)->timer;
    }
    return hl_heap_pop(&timers->heap);
}

bool
hl_timers_remove(hl_timers *timers, PyObject *timer)
{
    size_t reach = Py_MIN(run_count(timers), RUN_REACH);
    for (size_t back = 1; back <= reach; back++) {
        size_t position = timers->run_tail - back;
        if (run_at(timers, position)->timer == timer) {
            timers->run_tail--;
            for (; position < timers->run_tail; position++) {
                *run_at(timers, position) = *run_at(timers, position + 1);
            }
            return true;
        }
    }
    return hl_heap_drop_last(&timers->heap, timer);
}

const hl_heap_item *
hl_timers_at(const hl_timers *timers, size_t i)
{
    size_t count = run_count(timers);
    return i < count ? run_at(timers, timers->run_head + i)
                     : &timers->heap.items[i - count];
}

size_t
hl_timers_filter(hl_timers *timers, bool (*drop)(void *, PyObject *),
                 void *arg, PyObject **dropped)
{
    size_t count = 0, tail = timers->run_head, kept = 0;
    for (size_t i = timers->run_head; i != timers->run_tail; i++) {
        hl_heap_item item = *run_at(timers, i);
        if (drop(arg, item.timer)) {
            dropped[count++] = item.timer;
        }
        else {
            *run_at(timers, tail++) = item;
        }
    }
    timers->run_tail = tail;
    hl_heap *heap = &timers->heap;
    for (size_t i = 0; i < heap->count; i++) {
        if (drop(arg, heap->items[i].timer)) {
            dropped[count++] = heap->items[i].timer;
        }
        else {
            heap->items[kept++] = heap->items[i];
        }
    }
    heap->count = kept;
    hl_heap_rebuild(heap);
    return count;
}
