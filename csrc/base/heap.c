/* heap.c - a binary heap of timers on (deadline, sequence).
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "base/heap.h"

#define HEAP_INITIAL 64

static void
heap_sift_up(hl_heap *heap, size_t i)
{
    hl_heap_item item = heap->items[i];
    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (!hl_heap_before(&item, &heap->items[parent])) {
            break;
        }
        heap->items[i] = heap->items[parent];
        i = parent;
    }
    heap->items[i] = item;
}

static void
heap_sift_down(hl_heap *heap, size_t i)
{
    hl_heap_item item = heap->items[i];
    size_t top = i, child;
    /* To a leaf first, without looking at the item: as a rule it came from the
     * end of the array and belongs there again. */
    while ((child = 2 * i + 1) + 1 < heap->count) {
        child += hl_heap_before(&heap->items[child + 1], &heap->items[child]);
        heap->items[i] = heap->items[child];
        i = child;
    }
    if (child < heap->count) {
        heap->items[i] = heap->items[child];
        i = child;
    }
    while (i > top) {
        size_t parent = (i - 1) / 2;
        if (!hl_heap_before(&item, &heap->items[parent])) {
            break;
        }
        heap->items[i] = heap->items[parent];
        i = parent;
    }
    heap->items[i] = item;
}

void
hl_heap_init(hl_heap *heap)
{
    heap->items = NULL;
    heap->count = heap->capacity = 0;
}

void
hl_heap_free(hl_heap *heap)
{
    PyMem_Free(heap->items);
    heap->items = NULL;
    heap->count = heap->capacity = 0;
}

int
hl_heap_push(hl_heap *heap, hl_heap_item item)
{
    if (heap->count == heap->capacity) {
        size_t capacity = Py_MAX(HEAP_INITIAL, heap->capacity * 2);
        hl_heap_item *items = heap->items;
        PyMem_Resize(items, hl_heap_item, capacity);
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        heap->items = items;
        heap->capacity = capacity;
    }
    heap->items[heap->count] = item;
    heap_sift_up(heap, heap->count++);
    return 0;
}

PyObject *
hl_heap_pop(hl_heap *heap)
{
    PyObject *timer = heap->items[0].timer;
    heap->count--;
    if (heap->count > 0) {
        heap->items[0] = heap->items[heap->count];
        heap_sift_down(heap, 0);
    }
    return timer;
}

bool
hl_heap_drop_last(hl_heap *heap, PyObject *timer)
{
    if (heap->count == 0 || heap->items[heap->count - 1].timer != timer) {
        return false;
    }
    heap->count--;
    return true;
}

void
hl_heap_rebuild(hl_heap *heap)
{
    for (size_t i = heap->count / 2; i-- > 0;) {
        heap_sift_down(heap, i);
    }
}
