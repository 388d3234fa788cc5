/* ring.c - fuzzes base/ring: a queue in a plain array must do the same.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "base/ring.h"

#define MODEL_MAX 8192

typedef struct {
    uint16_t object;
    hl_entry_kind kind;
} model_entry;

static model_entry model[MODEL_MAX];
static size_t first, last;

static int
run_entry(struct hl_loop *Py_UNUSED(loop), PyObject *Py_UNUSED(obj))
{
    return 0;
}

static void
check_entry(const hl_entry *entry, const model_entry *expected)
{
    FUZZ_CHECK(entry->obj == fuzz_object(expected->object));
    FUZZ_CHECK(entry->kind == expected->kind && entry->run == run_entry);
}

static void
push(hl_ring *ring, uint8_t object)
{
    if (last == MODEL_MAX) {
        return;
    }
    hl_entry_kind kind = (hl_entry_kind)(object % 3);
    Py_INCREF(fuzz_object(object));
    int rv = hl_ring_push(ring, fuzz_object(object), run_entry, kind);
    if (rv < 0) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_MemoryError));
        PyErr_Clear();
        return;
    }
    model[last++] = (model_entry){object, kind};
}

static void
pop(hl_ring *ring)
{
    if (first < last) {
        hl_entry entry = hl_ring_pop(ring);
        check_entry(&entry, &model[first++]);
        Py_DECREF(entry.obj);
    }
}

static void
check(const hl_ring *ring)
{
    FUZZ_CHECK(hl_ring_count(ring) == last - first);
    FUZZ_CHECK(hl_ring_count(ring) <= ring->capacity);
    FUZZ_CHECK((ring->capacity & (ring->capacity - 1)) == 0);
}

static void
check_all(const hl_ring *ring)
{
    for (size_t i = 0; i < last - first; i++) {
        check_entry(hl_ring_peek(ring, i), &model[first + i]);
    }
}

static void
step(hl_ring *ring, fuzz_input *in)
{
    uint32_t op = fuzz_upto(in, 7);
    switch (op) {
    case 0:
    case 1:
        push(ring, fuzz_byte(in));
        break;
    case 2:
        pop(ring);
        break;
    case 3:
    case 4:
        for (unsigned n = fuzz_byte(in); n > 0; n--) {
            op == 3 ? push(ring, (uint8_t)n) : pop(ring);
        }
        break;
    case 5:
        fuzz_fail_allocation(fuzz_upto(in, 3));
        break;
    case 6:
        fuzz_fail_allocation(0);
        break;
    default:
        check_all(ring);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    hl_ring ring;
    fuzz_begin();
    first = last = 0;
    FUZZ_CHECK(hl_ring_init(&ring) == 0);
    /* The counters go round some day. */
    ring.head = ring.tail = (size_t)0 - fuzz_byte(&in);
    while (fuzz_more(&in)) {
        step(&ring, &in);
        check(&ring);
    }
    check_all(&ring);
    while (first < last) {
        pop(&ring);
    }
    fuzz_fail_allocation(0);
    hl_ring_free(&ring);
    fuzz_end(false);
    return 0;
}
