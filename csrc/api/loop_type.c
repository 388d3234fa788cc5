/* loop_type.c - the Loop type: its life and what it is made of.
 *
 * hotloop.Loop is a Python class over this type and asyncio's selector loop.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "loop/handle.h"
#include "loop/insight.h"
#include "loop/watchdog.h"
#include "loop/watcher.h"

#include <string.h>

/* Does type have another attribute name than our C type? */
static int
is_overridden(hl_state *st, PyTypeObject *type, PyObject *name, bool *flag)
{
    PyObject *ours = PyObject_GetAttr((PyObject *)st->Loop_type, name);
    PyObject *theirs = PyObject_GetAttr((PyObject *)type, name);
    *flag = ours != theirs;
    int rv = ours == NULL || theirs == NULL ? -1 : 0;
    Py_XDECREF(ours);
    Py_XDECREF(theirs);
    return rv;
}

static int
find_overrides(hl_loop *self)
{
    hl_state *st = self->st;
    PyTypeObject *type = Py_TYPE(self);
    if (is_overridden(st, type, st->str_call_soon,
                      &self->call_soon_overridden) < 0 ||
        is_overridden(st, type, st->str_call_at, &self->call_at_overridden) <
            0) {
        return -1;
    }
    return is_overridden(st, type, st->str_time, &self->time_overridden);
}

static PyObject *
Loop_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
            PyObject *Py_UNUSED(kwargs))
{
    hl_state *st = hl_state_of_type(type);
    if (st == NULL) {
        return NULL;
    }
    hl_loop *self = (hl_loop *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->st = st;
    self->module = Py_NewRef(st->module);
    self->created = hl_loop_now_ns();
    self->slow_callback_duration = PyFloat_FromDouble(0.1);
    hl_timers_init(&self->timers);
    if (self->slow_callback_duration == NULL ||
        hl_ring_init(&self->ready) < 0 || find_overrides(self) < 0 ||
        hl_loop_open_uv(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Loop_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_loop *self = (hl_loop *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->module);
    Py_VISIT(self->thread_id);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->entered_task);
    Py_VISIT(self->entered_context);
    Py_VISIT(self->blank);
    Py_VISIT(self->slow_callback_duration);
    for (size_t i = 0; i < hl_ring_count(&self->ready); i++) {
        Py_VISIT(hl_ring_peek(&self->ready, i)->obj);
    }
    for (size_t i = 0; i < hl_timers_count(&self->timers); i++) {
        Py_VISIT(hl_timers_at(&self->timers, i)->timer);
    }
    for (int i = 0; i < self->flush_count; i++) {
        Py_VISIT(self->flush[i].obj);
    }
    int rv = hl_watch_traverse(self, visit, arg);
    if (rv == 0) {
        rv = hl_insight_traverse(self, visit, arg);
    }
    return rv != 0 ? rv : hl_watchers_traverse(self, visit, arg);
}

static int
Loop_tp_clear(PyObject *op)
{
    hl_loop *self = (hl_loop *)op;
    self->closed = true;
    hl_watch_stop(self, false);
    hl_loop_drop_queues(self);
    hl_loop_close_uv(self);
    if (self->insight != NULL) {
        hl_profile_free(&self->insight->profile);
    }
    Py_CLEAR(self->thread_id);
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->blank);
    return 0;
}

static void
freelist_free(hl_freelist *list)
{
    while (list->count > 0) {
        PyObject_GC_Del(list->items[--list->count]);
    }
}

static void
Loop_tp_dealloc(PyObject *op)
{
    hl_loop *self = (hl_loop *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Loop_tp_clear(op);
    Py_CLEAR(self->slow_callback_duration);
    hl_ring_free(&self->ready);
    hl_timers_free(&self->timers);
    hl_handles_free(self);
    freelist_free(&self->free_futures);
    freelist_free(&self->free_tasks);
    hl_insight_free(self);
    PyMem_Free(self->watchers);
    PyMem_Free(self->dirty);
    PyMem_Free(self->flush);
    hl_loop_free_buffers(self);
    Py_XDECREF(self->module);
    type->tp_free(op);
    Py_DECREF(type);
}

/* An attribute of the instance may replace a method that C would call
 * directly: tests patch loop.time and loop.call_soon. */
static int
Loop_tp_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    hl_loop *self = (hl_loop *)op;
    int rv = PyObject_GenericSetAttr(op, name, value);
    if (rv < 0) {
        return -1;
    }
    if (name == self->st->str_time) {
        self->time_overridden = true;
    }
    else if (name == self->st->str_call_soon) {
        self->call_soon_overridden = true;
    }
    else if (name == self->st->str_call_at) {
        self->call_at_overridden = true;
    }
    else if (name == self->st->str_sock_connect) {
        self->connect_overridden = true;
    }
    return 0;
}

/* The tables of all files as the one that a type takes; it lives as long as
 * the type, so with the module state. */
static PyMethodDef *
join_methods(void)
{
    PyMethodDef *const tables[] = {
        hl_loop_run_methods,    hl_loop_schedule_methods, hl_loop_io_methods,
        hl_loop_sock_methods,   hl_loop_net_methods,      hl_loop_tls_methods,
        hl_loop_insight_methods};
    return hl_state_join_methods(tables, Py_ARRAY_LENGTH(tables));
}

int
hl_loop_type_init(PyObject *module, hl_state *st)
{
    st->loop_methods = join_methods();
    if (st->loop_methods == NULL) {
        return -1;
    }
    PyType_Slot slots[] = {
        {Py_tp_doc, HL_DOC("The C core of hotloop.Loop.")},
        {Py_tp_new, HL_SLOT(Loop_tp_new)},
        {Py_tp_traverse, HL_SLOT(Loop_tp_traverse)},
        {Py_tp_clear, HL_SLOT(Loop_tp_clear)},
        {Py_tp_dealloc, HL_SLOT(Loop_tp_dealloc)},
        {Py_tp_setattro, HL_SLOT(Loop_tp_setattro)},
        {Py_tp_methods, st->loop_methods},
        {Py_tp_getset, hl_loop_getset},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "hotloop._core.Loop",
        .basicsize = (int)sizeof(hl_loop),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE |
                 Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return hl_state_add_type(module, &st->Loop_type, &spec, NULL);
}
