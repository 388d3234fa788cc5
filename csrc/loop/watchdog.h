/* watchdog.h - a thread that notices callbacks which block the loop.
 *
 * The loop's thread stores a number whenever it begins something else; the
 * watchdog's thread, which is not one of Python's and never takes the GIL,
 * looks whether it changes.  If it does not for longer than the limit, another
 * thread is started that takes the GIL as soon as it can be had, and reports
 * the loop's Python stack.
 *
 * Code in C that keeps the GIL is reported when it gives it up: as a rule on
 * the way back into the interpreter, with the stack as it was.  Until then
 * there is a line on the standard error.
 *
 * Threading: GIL held and any thread, except where said otherwise.
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_WATCHDOG_H
#define HL_LOOP_WATCHDOG_H

#include "loop/loop.h"

#include <stdatomic.h>

/* The pulse: even while the loop waits or does not run, odd while it is to
 * come back soon. */
typedef struct hl_watch {
    atomic_uint_fast64_t pulse;   /* stored by the loop's thread */
    atomic_uint_fast64_t suspect; /* the pulse that lasts too long; 0: none */
    atomic_int_fast64_t since;    /* clock when that was seen first, ns */

    /* With the GIL. */
    hl_loop *loop;         /* borrowed; NULL once stopped */
    PyObject *reporter;    /* owned; NULL once stopped */
    const hl_entry *entry; /* what runs now, borrowed; NULL: not known */
    uint64_t reported;     /* the pulse that was reported last */

    struct hl_watch_threads *threads; /* watchdog.c */
} hl_watch;

/* Starts watching; whatever watched before is stopped.  reporter(loop, frame,
 * obj, is_handle, seconds, gil_wait, ended) is called for a callback that
 * blocks, obj None where unknown, frame None when it has ended.  errors is the
 * descriptor for what can be said without the GIL, or -1.  0 or -1. */
int hl_watch_start(hl_loop *loop, double limit, PyObject *reporter,
                   int errors);

/* Stops watching; harmless if nothing does.  With wait, reports on their way
 * get a second to end, without the GIL. */
void hl_watch_stop(hl_loop *loop, bool wait);

/* In a forked child, which has only the thread that forked. */
void hl_watch_after_fork(hl_loop *loop);

int hl_watch_traverse(hl_loop *loop, visitproc visit, void *arg);

/* The loop begins something (busy), or to wait.  Returns the pulse. */
static inline uint64_t
hl_watch_beat(hl_watch *watch, bool busy)
{
    uint64_t pulse = atomic_load_explicit(&watch->pulse, memory_order_relaxed);
    pulse = ((pulse | 1) + 1) | (uint64_t)busy;
    atomic_store_explicit(&watch->pulse, pulse, memory_order_relaxed);
    return pulse;
}

/* An entry was run during one pulse that the watchdog found too long, and that
 * nobody reported: done now.  0, or -1 with what must end the run. */
int hl_watch_report_ended(hl_watch *watch, uint64_t pulse,
                          const hl_entry *entry);

static inline bool
hl_watch_is_suspect(hl_watch *watch, uint64_t pulse)
{
    return atomic_load_explicit(&watch->suspect, memory_order_acquire) ==
           pulse;
}

#endif
