/* observe.c - running an entry that somebody looks at.
 *
 * In debug mode, with a profile or under a watchdog; all other entries are run
 * by run.c without a question asked.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/observe.h"

#include "loop/handle_int.h"
#include "loop/insight.h"
#include "loop/watchdog.h"
#include "state/errors.h"
#include "state/log.h"

/* What _format_handle() makes of an entry, for the slow-callback warning. */
static PyObject *
entry_describe(hl_loop *loop, const hl_entry *entry)
{
    if (entry->run == hl_handle_run) {
        return PyObject_CallOneArg(loop->st->format_handle, entry->obj);
    }
    return PyObject_Repr(entry->obj);
}

static int
entry_warn_slow(hl_loop *loop, const hl_entry *entry, double seconds)
{
    PyObject *limit = loop->slow_callback_duration;
    PyObject *took = PyFloat_FromDouble(seconds);
    if (took == NULL) {
        return -1;
    }
    int slow = PyObject_RichCompareBool(took, limit, Py_GE);
    int rv = slow;
    if (slow > 0) {
        rv = -1;
        PyObject *text = entry_describe(loop, entry);
        if (text != NULL) {
            rv = hl_log(loop->st, loop->st->base_events, "warning", NULL,
                        "(sOO)", "Executing %s took %.3f seconds", text, took);
            Py_DECREF(text);
        }
    }
    Py_DECREF(took);
    return rv;
}

/* Runs an entry in debug mode: known as the current handle, and timed. */
static int
entry_run_timed(hl_loop *loop, hl_entry entry)
{
    PyObject *self = (PyObject *)loop;
    PyObject *name = loop->st->str__current_handle;
    bool is_handle = entry.run == hl_handle_run;
    Py_INCREF(entry.obj); /* run() takes the other */
    if (is_handle && PyObject_SetAttr(self, name, entry.obj) < 0) {
        Py_DECREF(entry.obj);
        Py_DECREF(entry.obj);
        return -1;
    }
    double start = hl_loop_time(loop), end;
    int rv = -1;
    if (start == -1.0 && PyErr_Occurred()) {
        Py_DECREF(entry.obj); /* an overridden time() that fails */
    }
    else if ((rv = entry.run(loop, entry.obj)) == 0) {
        end = hl_loop_time(loop);
        rv = end == -1.0 && PyErr_Occurred()
                 ? -1
                 : entry_warn_slow(loop, &entry, end - start);
    }
    PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
    if (is_handle && PyObject_SetAttr(self, name, Py_None) < 0) {
        PyErr_Clear();
    }
    Py_DECREF(entry.obj);
    if (exc != NULL) {
        hl_error_restore(exc);
    }
    return rv;
}

static bool
is_slow(const hl_loop *loop, int64_t ns)
{
    PyObject *limit = loop->slow_callback_duration;
    return PyFloat_Check(limit) &&
           (double)ns >= PyFloat_AS_DOUBLE(limit) * 1e9;
}

static int
run_profiled(hl_loop *loop, hl_entry entry)
{
    hl_subject subject = hl_profile_subject(loop, &entry);
    int64_t start = hl_loop_now_ns();
    int rv = loop->debug ? entry_run_timed(loop, entry)
                         : entry.run(loop, entry.obj);
    int64_t took = hl_loop_now_ns() - start;
    PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
    hl_insight *insight = loop->insight;
    hl_histogram_add(&insight->callbacks, took);
    insight->slow_callbacks += is_slow(loop, took);
    hl_profile_add(&insight->profile, &subject, took);
    if (exc != NULL) {
        hl_error_restore(exc);
    }
    return rv;
}

static int
run_inner(hl_loop *loop, hl_entry entry)
{
    if (loop->insight != NULL && loop->insight->profiling) {
        return run_profiled(loop, entry);
    }
    return loop->debug ? entry_run_timed(loop, entry)
                       : entry.run(loop, entry.obj);
}

/* What the watchdog shall know while the entry runs. */
static int
run_watched(hl_loop *loop, hl_entry entry)
{
    hl_watch *watch = loop->watch;
    const hl_entry *outer = watch->entry;
    Py_INCREF(entry.obj); /* to run it takes the other */
    watch->entry = &entry;
    uint64_t pulse = hl_watch_beat(watch, true);
    int rv = run_inner(loop, entry);
    if (HL_LIKELY(loop->watch == watch)) {
        watch->entry = outer;
        (void)hl_watch_beat(watch, true);
        if (HL_UNLIKELY(hl_watch_is_suspect(watch, pulse))) {
            PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
            int told = hl_watch_report_ended(watch, pulse, &entry);
            if (exc != NULL) {
                PyErr_Clear();
                hl_error_restore(exc);
            }
            rv = exc != NULL ? -1 : told;
        }
    }
    if (entry.kind == HL_ENTRY_HANDLE) {
        hl_handle_drop(loop, entry.obj);
    }
    else {
        Py_DECREF(entry.obj);
    }
    return rv;
}

int
hl_entry_run_observed(hl_loop *loop, hl_entry entry)
{
    return loop->watch != NULL ? run_watched(loop, entry)
                               : run_inner(loop, entry);
}

void
hl_loop_observe(hl_loop *loop)
{
    loop->observed = loop->debug || loop->watch != NULL ||
                     (loop->insight != NULL && loop->insight->profiling);
}
