/* run.c - the turns of the loop.
 *
 * A turn is asyncio's _run_once(): poll, queue what is ready and what is due,
 * run as many callbacks as were queued at that point.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/handle.h"
#include "loop/insight.h"
#include "loop/observe.h"
#include "loop/watchdog.h"
#include "state/errors.h"

#include <math.h>

/* asyncio's limits: when cancelled timers are swept out, and the
 * longest wait of one poll. */
#define SWEEP_MIN_TIMERS 100
#define MAX_WAIT_S (24.0 * 3600.0)

/* While callbacks are ready a turn may go without its poll for this long, so
 * that switching between tasks costs no system call.  Everything the loop
 * itself does that could make a descriptor ready sets must_poll. */
#define UNPOLLED_NS 20000
#define UNPOLLED_TURNS 16

/* The same where nothing can come but a signal. */
#define UNPOLLED_ALONE_NS 100000

static bool
timer_is_cancelled(void *st, PyObject *timer)
{
    return hl_handle_cancelled(st, timer);
}

/* Sweeps cancelled timers out when they are the majority.  The dead are
 * released last: that may run Python, which may add timers. */
static int
timers_sweep(hl_loop *loop)
{
    PyObject **dead = PyMem_New(PyObject *, hl_timers_count(&loop->timers));
    if (dead == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    size_t count =
        hl_timers_filter(&loop->timers, timer_is_cancelled, loop->st, dead);
    loop->timers_cancelled = 0;
    for (size_t i = 0; i < count; i++) {
        hl_timer_set_scheduled(loop->st, dead[i], false);
        Py_DECREF(dead[i]);
    }
    PyMem_Free(dead);
    return 0;
}

/* Takes the earliest timer out; the caller owns it. */
static PyObject *
timers_pop(hl_loop *loop)
{
    PyObject *timer = hl_timers_pop(&loop->timers);
    hl_timer_set_scheduled(loop->st, timer, false);
    if (hl_handle_cancelled(loop->st, timer) && loop->timers_cancelled > 0) {
        loop->timers_cancelled--;
    }
    return timer;
}

static int
timers_tidy(hl_loop *loop)
{
    const hl_heap_item *first;
    size_t count = hl_timers_count(&loop->timers);
    if (count > SWEEP_MIN_TIMERS && loop->timers_cancelled * 2 > count) {
        return timers_sweep(loop);
    }
    while ((first = hl_timers_first(&loop->timers)) != NULL &&
           hl_handle_cancelled(loop->st, first->timer)) {
        Py_DECREF(timers_pop(loop));
    }
    return 0;
}

/* Queues the timers that are due: never before their time. */
static int
timers_collect(hl_loop *loop)
{
    const hl_heap_item *first;
    double now = hl_loop_time(loop);
    if (now == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    while ((first = hl_timers_first(&loop->timers)) != NULL &&
           first->when <= now) {
        if (HL_UNLIKELY(loop->insight != NULL)) {
            hl_insight_timer(loop, now - first->when);
        }
        if (hl_loop_push_handle(loop, timers_pop(loop), hl_handle_run) < 0) {
            return -1;
        }
    }
    return 0;
}

/* How long the poll may block, in ns; -1 for ever, -2 with an exception. */
static int64_t
turn_timeout(hl_loop *loop)
{
    if (hl_ring_count(&loop->ready) > 0 || loop->stopping) {
        return 0;
    }
    const hl_heap_item *first = hl_timers_first(&loop->timers);
    if (first == NULL) {
        return -1;
    }
    double deadline = first->when;
    double now = hl_loop_time(loop);
    if (now == -1.0 && PyErr_Occurred()) {
        return -2;
    }
    double wait = deadline - now;
    if (!(wait > 0.0)) {
        return 0;
    }
    return (int64_t)ceil(Py_MIN(wait, MAX_WAIT_S) * 1e9);
}

/* May a turn with callbacks waiting do without its poll? */
static bool
may_skip_poll(hl_loop *loop)
{
    if (loop->must_poll || hl_ring_count(&loop->ready) == 0) {
        return false;
    }
    bool alone = loop->watching == loop->watching_internal;
    if (alone && !loop->handles_signals &&
        ++loop->turns_unpolled % UNPOLLED_TURNS != 0) {
        return true;
    }
    int64_t limit = alone && !hl_loop_has_other_threads() ? UNPOLLED_ALONE_NS
                                                          : UNPOLLED_NS;
    return hl_loop_now_ns() - loop->last_poll < limit;
}

/* Leaves what an entry that is no task must not find entered. */
static inline int
leave_before(hl_loop *loop, hl_entry_kind kind)
{
    /* A handle runs in the blank context too, but a task that ends with being
     * left may have its own entered for its last word. */
    if (kind == HL_ENTRY_HANDLE && loop->entered_context == loop->blank) {
        return loop->entered_task == NULL ? 0 : hl_loop_leave_current(loop);
    }
    return loop->entered_task == NULL && loop->entered_context == NULL
               ? 0
               : hl_loop_leave_task(loop);
}

/* Runs what is queued now, not what that queues. */
static int
ready_drain(hl_loop *loop)
{
    hl_ring *ready = &loop->ready;
    for (size_t n = hl_ring_count(ready); n > 0; n--) {
        if (HL_UNLIKELY(hl_ring_count(ready) == 0)) {
            break; /* a nested turn took them */
        }
        hl_entry entry = hl_ring_pop(ready);
        if (entry.kind != HL_ENTRY_TASK &&
            leave_before(loop, entry.kind) < 0) {
            Py_DECREF(entry.obj);
            return -1;
        }
        int rv = HL_LIKELY(!loop->observed)
                     ? entry.run(loop, entry.obj)
                     : hl_entry_run_observed(loop, entry);
        if (HL_UNLIKELY(rv < 0)) {
            return -1;
        }
    }
    return 0;
}

int
hl_loop_run_flushes(hl_loop *loop)
{
    PyObject *first = NULL;
    for (int i = 0; i < loop->flush_count; i++) {
        hl_flush_item item = loop->flush[i];
        loop->flush[i].obj = NULL; /* a nested turn skips it */
        if (item.obj != NULL) {
            hl_error_keep(item.run(loop, item.obj), &first);
        }
    }
    loop->flush_count = 0;
    if (first != NULL) {
        hl_error_restore(first);
        return -1;
    }
    return 0;
}

static int
turn_poll(hl_loop *loop)
{
    int64_t timeout = turn_timeout(loop);
    if (timeout == -2) {
        return -1;
    }
    if (timeout == 0 && may_skip_poll(loop)) {
        return 0;
    }
    return hl_loop_poll(loop, timeout);
}

static int
loop_turn(hl_loop *loop)
{
    loop->counts.turns++;
    if (loop->flush_count > 0 &&
        (hl_loop_leave_task(loop) < 0 || hl_loop_run_flushes(loop) < 0)) {
        return -1;
    }
    if (hl_timers_count(&loop->timers) > 0 && timers_tidy(loop) < 0) {
        return -1;
    }
    if (turn_poll(loop) < 0) {
        return -1;
    }
    if (hl_timers_count(&loop->timers) > 0 && timers_collect(loop) < 0) {
        return -1;
    }
    if (HL_UNLIKELY(loop->insight != NULL)) {
        hl_insight_turn(loop);
    }
    return ready_drain(loop);
}

/* Ends a run: no task entered, nothing written left unsent. */
static int
run_finish(hl_loop *loop, int rv)
{
    PyObject *exc = NULL;
    hl_error_keep(rv, &exc);
    loop->running = false;
    hl_error_keep(hl_loop_leave_task(loop), &exc);
    hl_error_keep(hl_loop_run_flushes(loop), &exc);
    if (exc == NULL) {
        return 0;
    }
    hl_error_restore(exc);
    return -1;
}

unsigned
hl_loop_find_replaced(hl_loop *loop)
{
    hl_state *st = loop->st;
    PyObject *task = PyDict_GetItemWithError(st->tasks_names, st->str_Task);
    PyObject *future =
        PyDict_GetItemWithError(st->futures_names, st->str_Future);
    PyObject *run = PyObject_GetAttr(st->AbstractHandle, st->str__run);
    unsigned found = 0;
    if (run == NULL) {
        PyErr_Clear();
    }
    else if (run != st->handle_run) {
        found |= HL_REPLACED_RUN;
    }
    Py_XDECREF(run);
    if (task != st->asyncio_Task && task != (PyObject *)st->Task_type) {
        found |= HL_REPLACED_TASK;
    }
    if (future != st->asyncio_Future &&
        future != (PyObject *)st->Future_type) {
        found |= HL_REPLACED_FUTURE;
    }
    return found;
}

/* Tells those who look.  To be inside of another run changes nothing. */
static void
run_begins(hl_loop *loop, bool nested)
{
    if (loop->insight != NULL && !nested) {
        hl_insight_begin(loop);
    }
    if (loop->watch != NULL) {
        (void)hl_watch_beat(loop->watch, true);
    }
}

static void
run_ends(hl_loop *loop, bool nested)
{
    if (loop->insight != NULL && !nested) {
        hl_insight_end(loop);
    }
    if (loop->watch != NULL) {
        (void)hl_watch_beat(loop->watch, nested);
    }
}

int
hl_loop_run(hl_loop *loop, bool once)
{
    hl_entered outer;
    bool nested = loop->running;
    hl_loop_set_aside(loop, &outer);
    loop->must_poll = true;
    loop->replaced = hl_loop_find_replaced(loop);
    loop->running = true;
    if (HL_UNLIKELY(loop->observed || loop->insight != NULL)) {
        run_begins(loop, nested);
    }
    int rv;
    do {
        rv = loop_turn(loop);
    } while (rv == 0 && !once && !loop->stopping);
    rv = run_finish(loop, rv);
    loop->running = nested;
    if (HL_UNLIKELY(loop->observed || loop->insight != NULL)) {
        run_ends(loop, nested);
    }
    hl_loop_take_back(loop, &outer);
    return rv;
}

void
hl_loop_drop_queues(hl_loop *loop)
{
    while (hl_ring_count(&loop->ready) > 0) {
        loop->counts.dropped++;
        Py_DECREF(hl_ring_pop(&loop->ready).obj);
    }
    while (hl_timers_count(&loop->timers) > 0) {
        Py_DECREF(timers_pop(loop));
    }
    loop->timers_cancelled = 0;
    for (int i = 0; i < loop->flush_count; i++) {
        Py_CLEAR(loop->flush[i].obj);
    }
    loop->flush_count = 0;
}
