/* heap.c - fuzzes base/heap: the smallest of an unsorted array is the same.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "base/heap.h"

#include <math.h>

#define MODEL_MAX 1024

static hl_heap_item model[MODEL_MAX];
static size_t count;
static uint64_t next_seq;
static bool ordered; /* no time was NaN, which has no place */

static bool
before(const hl_heap_item *a, const hl_heap_item *b)
{
    return a->when < b->when || (a->when == b->when && a->seq < b->seq);
}

static void
push(hl_heap *heap, double when, uint8_t object)
{
    if (count == MODEL_MAX) {
        return;
    }
    hl_heap_item item = {when, next_seq++, Py_NewRef(fuzz_object(object))};
    if (hl_heap_push(heap, item) < 0) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_MemoryError));
        PyErr_Clear();
        Py_DECREF(item.timer);
        return;
    }
    ordered = ordered && !isnan(when);
    model[count++] = item;
}

/* Forgets the item of this number, which is there. */
static void
forget(uint64_t seq, const PyObject *timer)
{
    size_t i = 0;
    while (i < count && model[i].seq != seq) {
        i++;
    }
    FUZZ_CHECK(i < count && model[i].timer == timer);
    model[i] = model[--count];
}

static void
pop(hl_heap *heap)
{
    if (count == 0) {
        return;
    }
    hl_heap_item top = heap->items[0];
    for (size_t i = 0; i < count && ordered; i++) {
        FUZZ_CHECK(!before(&model[i], &top));
    }
    PyObject *timer = hl_heap_pop(heap);
    FUZZ_CHECK(timer == top.timer);
    forget(top.seq, timer);
    Py_DECREF(timer);
}

static void
drop_last(hl_heap *heap, uint8_t object)
{
    bool last = (object & 1) != 0 && heap->count > 0;
    PyObject *timer =
        last ? heap->items[heap->count - 1].timer : fuzz_object(object);
    uint64_t seq = heap->count > 0 ? heap->items[heap->count - 1].seq : 0;
    if (hl_heap_drop_last(heap, timer)) {
        forget(seq, timer);
        Py_DECREF(timer);
    }
    else {
        FUZZ_CHECK(!last);
    }
}

static void
check_order(const hl_heap *heap)
{
    for (size_t i = 1; i < heap->count && ordered; i++) {
        FUZZ_CHECK(!before(&heap->items[i], &heap->items[(i - 1) / 2]));
    }
}

/* As those do that drop cancelled timers. */
static void
filter(hl_heap *heap, uint8_t mask)
{
    size_t kept = 0;
    for (size_t i = 0; i < heap->count; i++) {
        hl_heap_item item = heap->items[i];
        if (item.seq & mask) {
            heap->items[kept++] = item;
        }
        else {
            forget(item.seq, item.timer);
            Py_DECREF(item.timer);
        }
    }
    heap->count = kept;
    hl_heap_rebuild(heap);
    check_order(heap);
}

static void
step(hl_heap *heap, fuzz_input *in)
{
    double when;
    switch (fuzz_upto(in, 7)) {
    case 0:
    case 1:
        when = fuzz_time(in, true);
        push(heap, when, fuzz_byte(in));
        break;
    case 2:
        pop(heap);
        break;
    case 3:
        when = fuzz_time(in, false);
        for (unsigned n = fuzz_upto(in, 63); n > 0; n--) {
            push(heap, n & 1 ? when - n : when + n, (uint8_t)n);
        }
        break;
    case 4:
        drop_last(heap, fuzz_byte(in));
        break;
    case 5:
        filter(heap, fuzz_byte(in));
        break;
    case 6:
        for (unsigned n = fuzz_upto(in, 31); n > 0; n--) {
            pop(heap);
        }
        break;
    default:
        fuzz_fail_allocation(fuzz_upto(in, 2));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    hl_heap heap;
    fuzz_begin();
    count = 0;
    next_seq = 0;
    ordered = true;
    hl_heap_init(&heap);
    while (fuzz_more(&in)) {
        step(&heap, &in);
        FUZZ_CHECK(heap.count == count && count <= heap.capacity);
    }
    check_order(&heap);
    while (count > 0) {
        pop(&heap);
    }
    fuzz_fail_allocation(0);
    hl_heap_free(&heap);
    fuzz_end(false);
    return 0;
}
