/* loop_insight.c - Loop methods that tell what the loop does.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "loop/insight.h"
#include "loop/watchdog.h"

/* Sets dict[name] to value, stolen.  0, or -1: also if value is NULL. */
static int
set_item(PyObject *dict, const char *name, PyObject *value)
{
    int rv = value == NULL ? -1 : PyDict_SetItemString(dict, name, value);
    Py_XDECREF(value);
    return rv;
}

typedef struct {
    const char *name;
    uint64_t value;
} named_count;

static int
set_counts(PyObject *dict, const named_count *counts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(counts[i].value);
        if (set_item(dict, counts[i].name, value) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The counts of the loop itself. */
static int
tell_loop(PyObject *dict, hl_loop *self)
{
    const hl_counts *c = &self->counts;
    const named_count counts[] = {
        {"turns", c->turns},
        {"polls", c->polls},
        {"callbacks", (uint64_t)self->ready.head - c->dropped},
        {"task_steps", c->task_steps},
        {"blocked", c->blocked},
        {"ready", hl_ring_count(&self->ready)},
        {"timers", hl_timers_count(&self->timers)},
        {"timers_cancelled", self->timers_cancelled},
        {"timers_scheduled", self->timers.next_seq},
        {"threadsafe_calls", c->threadsafe_calls},
        {"tasks", c->tasks_created - c->tasks_done},
        {"tasks_created", c->tasks_created},
        {"executor_jobs", c->executor_jobs},
    };
    return set_counts(dict, counts, Py_ARRAY_LENGTH(counts));
}

/* The counts of input and output. */
static int
tell_io(PyObject *dict, hl_loop *self)
{
    const hl_counts *c = &self->counts;
    const uint64_t *made = c->made, *lost = c->lost;
    const named_count counts[] = {
        {"reads", c->reads},
        {"writes", c->writes},
        {"bytes_received", c->bytes_received},
        {"bytes_sent", c->bytes_sent},
        {"datagrams_received", c->datagrams_received},
        {"datagrams_sent", c->datagrams_sent},
        {"datagram_bytes_received", c->datagram_bytes_received},
        {"datagram_bytes_sent", c->datagram_bytes_sent},
        {"connections_open", made[HL_LINK_STREAM] - lost[HL_LINK_STREAM]},
        {"connections_accepted", c->accepted},
        {"connections_made", made[HL_LINK_STREAM]},
        {"connections_lost", lost[HL_LINK_STREAM]},
        {"connects_failed", c->connects_failed},
        {"datagram_endpoints",
         made[HL_LINK_DATAGRAM] - lost[HL_LINK_DATAGRAM]},
        {"pipes", made[HL_LINK_PIPE] - lost[HL_LINK_PIPE]},
        {"listeners", c->listeners_started - c->listeners_stopped},
        {"watching", (uint64_t)(self->watching - self->watching_internal)},
    };
    return set_counts(dict, counts, Py_ARRAY_LENGTH(counts));
}

/* What needs clocks. */
static int
tell_times(PyObject *dict, hl_loop *self)
{
    const hl_insight *insight = self->insight;
    hl_insight_times times = hl_insight_times_now(self);
    double busy = (double)times.busy_ns / 1e9;
    double poll = (double)times.poll_ns / 1e9;
    double gil = (double)times.gil_ns / 1e9;
    if (set_item(dict, "run_seconds", PyFloat_FromDouble(busy + poll + gil)) <
            0 ||
        set_item(dict, "busy_seconds", PyFloat_FromDouble(busy)) < 0 ||
        set_item(dict, "poll_seconds", PyFloat_FromDouble(poll)) < 0 ||
        set_item(dict, "gil_seconds", PyFloat_FromDouble(gil)) < 0) {
        return -1;
    }
    if (insight == NULL) {
        return 0;
    }
    const named_count counts[] = {
        {"ready_max", insight->ready_max},
        {"slow_callbacks", insight->slow_callbacks},
    };
    if (set_counts(dict, counts, Py_ARRAY_LENGTH(counts)) < 0 ||
        set_item(dict, "lag", hl_histogram_tell(&insight->lag)) < 0 ||
        set_item(dict, "timer_lag", hl_histogram_tell(&insight->timer_lag)) <
            0) {
        return -1;
    }
    return set_item(dict, "callback_seconds",
                    hl_histogram_tell(&insight->callbacks));
}

static int
tell_state(PyObject *dict, hl_loop *self)
{
    const hl_insight *insight = self->insight;
    bool enabled = insight != NULL && insight->phase != HL_PHASE_OFF;
    bool profiling = insight != NULL && insight->profiling;
    if (set_item(dict, "time", PyFloat_FromDouble(hl_loop_now())) < 0 ||
        set_item(dict, "started",
                 PyFloat_FromDouble((double)self->created / 1e9)) < 0 ||
        set_item(dict, "enabled", PyBool_FromLong(enabled)) < 0 ||
        set_item(dict, "profiling", PyBool_FromLong(profiling)) < 0 ||
        set_item(dict, "running", PyBool_FromLong(self->thread_id != NULL)) <
            0) {
        return -1;
    }
    return set_item(dict, "closed", PyBool_FromLong(self->closed));
}

PyDoc_STRVAR(Loop__metrics__doc__,
             "_metrics($self, /)\n--\n\n"
             "Return the fields of hotloop.Metrics by name, histograms as\n"
             "(count, total, max, ((low, high, count), ...)).");

static PyObject *
Loop__metrics(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_loop *self = (hl_loop *)op;
    PyObject *dict = PyDict_New();
    if (dict != NULL &&
        (tell_state(dict, self) < 0 || tell_loop(dict, self) < 0 ||
         tell_times(dict, self) < 0 || tell_io(dict, self) < 0)) {
        Py_CLEAR(dict);
    }
    return dict;
}

PyDoc_STRVAR(Loop__enable_metrics__doc__,
             "_enable_metrics($self, enabled, profile, /)\n--\n\n"
             "Start or stop the clocks, and the profile.");

static PyObject *
Loop__enable_metrics(PyObject *op, PyObject *args)
{
    int enabled, profile;
    if (!PyArg_ParseTuple(args, "pp:_enable_metrics", &enabled, &profile) ||
        hl_insight_enable((hl_loop *)op, enabled, enabled && profile) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__profile__doc__,
             "_profile($self, clear, /)\n--\n\n"
             "Return rows as hotloop.ProfileEntry takes them; forget them.");

static PyObject *
Loop__profile(PyObject *op, PyObject *clear)
{
    hl_insight *insight = ((hl_loop *)op)->insight;
    int forget = PyObject_IsTrue(clear);
    if (forget < 0) {
        return NULL;
    }
    if (insight == NULL) {
        return PyList_New(0);
    }
    PyObject *rows = hl_profile_tell(&insight->profile);
    if (rows != NULL && forget) {
        hl_profile_clear(&insight->profile);
    }
    return rows;
}

PyDoc_STRVAR(
    Loop__watch__doc__,
    "_watch($self, limit, reporter, errors, /)\n--\n\n"
    "Have reporter(loop, frame, obj, is_handle, seconds, gil_wait, ended)\n"
    "called for callbacks that last longer than limit seconds; what can be\n"
    "said without the GIL goes to the descriptor errors, unless it is -1.");

static PyObject *
Loop__watch(PyObject *op, PyObject *args)
{
    hl_loop *self = (hl_loop *)op;
    double limit;
    PyObject *reporter;
    int errors;
    if (!PyArg_ParseTuple(args, "dOi:_watch", &limit, &reporter, &errors) ||
        hl_loop_check_closed(self) < 0 ||
        hl_watch_start(self, limit, reporter, errors) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__unwatch__doc__,
             "_unwatch($self, wait, /)\n--\n\n"
             "End what _watch() began; wait a second at most for reports.");

static PyObject *
Loop__unwatch(PyObject *op, PyObject *wait)
{
    int truth = PyObject_IsTrue(wait);
    if (truth < 0) {
        return NULL;
    }
    hl_watch_stop((hl_loop *)op, truth != 0);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__count_job__doc__,
             "_count_job($self, /)\n--\n\n"
             "Count a call of run_in_executor() that _work() does not see.");

static PyObject *
Loop__count_job(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((hl_loop *)op)->counts.executor_jobs++;
    Py_RETURN_NONE;
}

PyMethodDef hl_loop_insight_methods[] = {
    {"_metrics", Loop__metrics, METH_NOARGS, Loop__metrics__doc__},
    {"_enable_metrics", Loop__enable_metrics, METH_VARARGS,
     Loop__enable_metrics__doc__},
    {"_profile", Loop__profile, METH_O, Loop__profile__doc__},
    {"_count_job", Loop__count_job, METH_NOARGS, Loop__count_job__doc__},
    {"_watch", Loop__watch, METH_VARARGS, Loop__watch__doc__},
    {"_unwatch", Loop__unwatch, METH_O, Loop__unwatch__doc__},
    {NULL, NULL, 0, NULL},
};
