/* timers.c - fuzzes base/timers: run and heap together, against one array.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "base/timers.h"

#include <math.h>

typedef struct {
    double when;
    uint64_t order; /* 0: not among the timers */
} model_timer;

static model_timer model[FUZZ_OBJECTS];
static size_t count;
static uint64_t next_order;
static bool ordered; /* no time was NaN, which has no place */

static size_t
index_of(const PyObject *timer)
{
    size_t i = 0;
    while (i < FUZZ_OBJECTS && fuzz_object(i) != timer) {
        i++;
    }
    FUZZ_CHECK(i < FUZZ_OBJECTS);
    return i;
}

/* The one that is due first. */
static size_t
earliest(void)
{
    size_t best = FUZZ_OBJECTS;
    for (size_t i = 0; i < FUZZ_OBJECTS; i++) {
        const model_timer *one = &model[i];
        if (one->order != 0 &&
            (best == FUZZ_OBJECTS || one->when < model[best].when ||
             (one->when == model[best].when &&
              one->order < model[best].order))) {
            best = i;
        }
    }
    return best;
}

static void
forget(size_t i)
{
    FUZZ_CHECK(model[i].order != 0);
    model[i].order = 0;
    count--;
    Py_DECREF(fuzz_object(i)); /* what the timers owned */
}

static void
push(hl_timers *timers, double when, uint8_t i)
{
    if (model[i].order != 0) {
        return;
    }
    if (hl_timers_push(timers, when, fuzz_object(i), false) < 0) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_MemoryError));
        PyErr_Clear();
        return;
    }
    ordered = ordered && !isnan(when);
    model[i] = (model_timer){when, ++next_order};
    count++;
}

static void
pop(hl_timers *timers)
{
    if (count == 0) {
        return;
    }
    const hl_heap_item *top = hl_timers_first(timers);
    FUZZ_CHECK(top != NULL);
    PyObject *expected = top->timer;
    PyObject *timer = hl_timers_pop(timers);
    FUZZ_CHECK(timer == expected);
    FUZZ_CHECK(!ordered || timer == fuzz_object(earliest()));
    forget(index_of(timer));
}

static void
remove_one(hl_timers *timers, uint8_t i)
{
    bool there = model[i].order != 0;
    if (hl_timers_remove(timers, fuzz_object(i))) {
        FUZZ_CHECK(there);
        forget(i);
    }
}

static bool
drop(void *arg, PyObject *timer)
{
    return ((index_of(timer) ^ *(uint8_t *)arg) & 3) == 0;
}

static void
filter(hl_timers *timers, uint8_t mask)
{
    PyObject *dropped[FUZZ_OBJECTS];
    size_t n = hl_timers_filter(timers, drop, &mask, dropped);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(drop(&mask, dropped[i]));
        forget(index_of(dropped[i]));
    }
    for (size_t i = 0; i < FUZZ_OBJECTS; i++) {
        FUZZ_CHECK(model[i].order == 0 || !drop(&mask, fuzz_object(i)));
    }
}

/* Each is there once, with its time. */
static void
check_all(const hl_timers *timers)
{
    bool seen[FUZZ_OBJECTS] = {false};
    FUZZ_CHECK(!ordered || count == 0 ||
               hl_timers_first(timers)->timer == fuzz_object(earliest()));
    for (size_t k = 0; k < count; k++) {
        const hl_heap_item *item = hl_timers_at(timers, k);
        size_t i = index_of(item->timer);
        FUZZ_CHECK(model[i].order != 0 && !seen[i]);
        FUZZ_CHECK(item->when == model[i].when || isnan(item->when));
        seen[i] = true;
    }
}

static void
check(const hl_timers *timers)
{
    FUZZ_CHECK(hl_timers_count(timers) == count);
    const hl_heap_item *top = hl_timers_first(timers);
    FUZZ_CHECK((top != NULL) == (count > 0));
}

static void
step(hl_timers *timers, fuzz_input *in)
{
    double when;
    uint8_t start;
    uint32_t op = fuzz_upto(in, 8);
    switch (op) {
    case 0:
    case 1:
        when = fuzz_time(in, true);
        push(timers, when, fuzz_byte(in));
        break;
    case 2:
        pop(timers);
        break;
    case 3: /* each later than the one before, as most are */
    case 4: /* or earlier */
        when = fuzz_time(in, false);
        start = fuzz_byte(in);
        for (unsigned n = 0, end = fuzz_byte(in); n < end; n++) {
            push(timers, op == 3 ? when + n : when - n, (uint8_t)(start + n));
        }
        break;
    case 5:
        remove_one(timers, fuzz_byte(in));
        break;
    case 6:
        filter(timers, fuzz_byte(in));
        break;
    case 7:
        fuzz_fail_allocation(fuzz_upto(in, 2));
        break;
    default:
        check_all(timers);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    hl_timers timers;
    fuzz_begin();
    memset(model, 0, sizeof(model));
    count = 0;
    next_order = 0;
    ordered = true;
    hl_timers_init(&timers);
    /* The counters go round some day. */
    timers.run_head = timers.run_tail = (size_t)0 - fuzz_byte(&in);
    while (fuzz_more(&in)) {
        step(&timers, &in);
        check(&timers);
    }
    check_all(&timers);
    while (count > 0) {
        pop(&timers);
    }
    fuzz_fail_allocation(0);
    hl_timers_free(&timers);
    fuzz_end(false);
    return 0;
}
