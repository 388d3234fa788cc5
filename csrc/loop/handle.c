/* handle.c - Handle and TimerHandle, C subtypes of asyncio's: what they do.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/handle_int.h"

#include "state/errors.h"

bool
hl_handle_cancelled(hl_state *st, PyObject *handle)
{
    return HL_SLOT_OF(handle, st->slots.cancelled) == Py_True;
}

void
hl_timer_set_scheduled(hl_state *st, PyObject *timer, bool scheduled)
{
    Py_XSETREF(HL_SLOT_OF(timer, st->slots.scheduled),
               Py_NewRef(scheduled ? Py_True : Py_False));
}

int
hl_handle_cancel_own(hl_state *st, PyObject *op)
{
    const hl_handle_slots *slots = &st->slots;
    if (hl_handle_cancelled(st, op)) {
        return 0;
    }
    Py_XSETREF(HL_SLOT_OF(op, slots->cancelled), Py_NewRef(Py_True));
    hl_loop *loop = hl_handle_loop(st, op);
    if (loop != NULL && loop->debug) {
        /* Callback and arguments stay readable for slow-callback reports. */
        PyObject *repr = PyObject_Repr(op);
        if (repr == NULL) {
            return -1;
        }
        Py_XSETREF(HL_SLOT_OF(op, slots->repr), repr);
        loop = hl_handle_loop(st, op); /* to tell may have changed it */
    }
    if (loop != NULL && Py_IS_TYPE(op, st->TimerHandle_type) &&
        HL_SLOT_OF(op, slots->scheduled) == Py_True) {
        hl_loop_timer_cancelled(loop, op);
    }
    PyObject *callback = HL_SLOT_OF(op, slots->callback);
    PyObject *args = HL_SLOT_OF(op, slots->args);
    HL_SLOT_OF(op, slots->callback) = Py_NewRef(Py_None);
    HL_SLOT_OF(op, slots->args) = Py_NewRef(Py_None);
    Py_XDECREF(callback);
    Py_XDECREF(args);
    return 0;
}

static inline bool
handle_is_ours(hl_state *st, PyObject *op)
{
    return Py_IS_TYPE(op, st->Handle_type) ||
           Py_IS_TYPE(op, st->TimerHandle_type);
}

int
hl_handle_cancel(hl_state *st, PyObject *handle)
{
    if (handle_is_ours(st, handle)) {
        return hl_handle_cancel_own(st, handle);
    }
    PyObject *res = PyObject_CallMethodNoArgs(handle, st->str_cancel);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

/* 'Exception in callback ...' as the running asyncio words it. */
static PyObject *
handle_error_text(hl_loop *loop, PyObject *handle)
{
    hl_state *st = loop->st;
    PyObject *callback = HL_SLOT_OF(handle, st->slots.callback);
    PyObject *args = HL_SLOT_OF(handle, st->slots.args);
    PyObject *stack[3] = {callback ? callback : Py_None, args ? args : Py_None,
                          loop->debug ? Py_True : Py_False};
    PyObject *source = PyObject_Vectorcall(
        st->format_callback_source, stack, 2,
        st->format_kwnames == Py_None ? NULL : st->format_kwnames);
    if (source == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_FromFormat("Exception in callback %U", source);
    Py_DECREF(source);
    return text;
}

int
hl_handle_report(hl_loop *loop, PyObject *handle)
{
    hl_state *st = loop->st;
    if (hl_error_is_exit()) {
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    PyObject *text = handle_error_text(loop, handle);
    if (text == NULL) {
        Py_XDECREF(exc);
        return -1;
    }
    PyObject *origin = HL_SLOT_OF(handle, st->slots.source_traceback);
    if (origin == Py_None) {
        origin = NULL;
    }
    int rv = hl_report_text(st, (PyObject *)loop, text, exc, st->str_handle,
                            handle, st->str_source_traceback, origin, NULL);
    Py_DECREF(text);
    Py_XDECREF(exc);
    return rv;
}

/* Reports as above, with nothing of the callback's entered any more. */
static int
handle_failed(hl_loop *loop, PyObject *handle)
{
    PyObject *exc = hl_error_fetch();
    if (hl_loop_leave_context(loop) < 0) {
        PyErr_Clear();
    }
    hl_error_restore(exc);
    return hl_handle_report(loop, handle);
}

/* A handle of another type, or of unusual contents: its own method knows. */
static int
handle_run_foreign(hl_loop *loop, PyObject *handle)
{
    if (hl_loop_leave_context(loop) < 0) {
        return -1;
    }
    PyObject *res = PyObject_CallMethodNoArgs(handle, loop->st->str__run);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

/* callback(*args), result dropped. */
static inline int
call_dropped(PyObject *callback, PyObject *args)
{
    PyObject *res =
        PyObject_Vectorcall(callback, ((PyTupleObject *)args)->ob_item,
                            (size_t)PyTuple_GET_SIZE(args), NULL);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

/* Calls callback(*args) in a context of the handle's own. */
static int
call_in_own(hl_loop *loop, PyObject *callback, PyObject *args,
            PyObject *context)
{
    if ((loop->entered_context != loop->blank &&
         hl_loop_leave_context(loop) < 0) ||
        PyContext_Enter(context) < 0) {
        return -1;
    }
    int rv = call_dropped(callback, args);
    return PyContext_Exit(context) < 0 ? -1 : rv;
}

/* Calls callback(*args) in the context of the handle. */
static int
handle_call(hl_loop *loop, PyObject *handle, PyObject *callback,
            PyObject *args)
{
    PyObject **slot = &HL_SLOT_OF(handle, loop->st->slots.context);
    if (HL_UNLIKELY(*slot != loop->st->blank_context)) {
        PyObject *context = Py_NewRef(*slot);
        int rv = call_in_own(loop, callback, args, context);
        Py_DECREF(context);
        return rv;
    }
    if (hl_loop_enter_owner(loop, handle, slot) < 0) {
        return -1;
    }
    int rv = call_dropped(callback, args);
    hl_loop_settle_owner(loop, slot);
    return rv;
}

int
hl_handle_run_own(hl_loop *loop, PyObject *handle)
{
    const hl_handle_slots *slots = &loop->st->slots;
    PyObject *callback = HL_SLOT_OF(handle, slots->callback);
    PyObject *args = HL_SLOT_OF(handle, slots->args);
    PyObject *context = HL_SLOT_OF(handle, slots->context);
    if (HL_UNLIKELY(callback == NULL || args == NULL ||
                    !PyTuple_CheckExact(args) || context == NULL ||
                    !PyContext_CheckExact(context))) {
        return handle_run_foreign(loop, handle);
    }
    /* The callback may cancel its own handle, which drops both. */
    Py_INCREF(callback);
    Py_INCREF(args);
    int rv = 0;
    if (HL_UNLIKELY(handle_call(loop, handle, callback, args) < 0)) {
        rv = handle_failed(loop, handle);
    }
    Py_DECREF(callback);
    Py_DECREF(args);
    return rv;
}

int
hl_handle_run(hl_loop *loop, PyObject *handle)
{
    hl_state *st = loop->st;
    int rv = 0;
    if (HL_UNLIKELY(hl_handle_cancelled(st, handle))) {
        /* It has had its answer. */
    }
    else if (HL_UNLIKELY(loop->replaced & HL_REPLACED_RUN)) {
        rv = handle_run_foreign(loop, handle);
    }
    else if (HL_LIKELY(handle_is_ours(st, handle))) {
        rv = hl_handle_run_own(loop, handle);
    }
    else if (Py_IS_TYPE(handle, st->ThreadSafeHandle_type)) {
        rv = hl_handle_run_locked(loop, handle);
    }
    else {
        rv = handle_run_foreign(loop, handle);
    }
    hl_handle_drop(loop, handle);
    return rv;
}

PyDoc_STRVAR(Handle_cancel__doc__,
             "cancel($self, /)\n--\n\n"
             "Cancel the callback: it will not be called.\n\n"
             "Does nothing if it was called or cancelled already.  As\n"
             "asyncio.Handle.cancel().");

static PyObject *
Handle_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (hl_handle_cancel_own(PyType_GetModuleState(Py_TYPE(op)), op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Handle_cancelled__doc__,
             "cancelled($self, /)\n--\n\n"
             "Return True if the callback was cancelled.");

static PyObject *
Handle_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = PyType_GetModuleState(Py_TYPE(op));
    return PyBool_FromLong(hl_handle_cancelled(st, op));
}

PyDoc_STRVAR(
    TimerHandle_when__doc__,
    "when($self, /)\n--\n\n"
    "Return the scheduled time in seconds, a float on the loop's clock.");

static PyObject *
TimerHandle_when(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = PyType_GetModuleState(Py_TYPE(op));
    return PyFloat_FromDouble(*hl_timer_when(st, op));
}

static PyObject *
TimerHandle_get_when(PyObject *op, void *Py_UNUSED(closure))
{
    return TimerHandle_when(op, NULL);
}

PyObject *
hl_Handle_get_context(PyObject *op, void *Py_UNUSED(closure))
{
    hl_state *st = PyType_GetModuleState(Py_TYPE(op));
    PyObject **slot = &HL_SLOT_OF(op, st->slots.context);
    hl_loop *loop = hl_handle_loop(st, op);
    if (*slot == NULL) {
        PyErr_SetObject(PyExc_AttributeError, st->str__context);
        return NULL;
    }
    if (hl_context_claim(st, loop, op, slot) < 0) {
        return NULL;
    }
    return Py_NewRef(*slot);
}

int
hl_Handle_set_context(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    hl_state *st = PyType_GetModuleState(Py_TYPE(op));
    Py_XSETREF(HL_SLOT_OF(op, st->slots.context), Py_XNewRef(value));
    return 0;
}

static PyGetSetDef Handle_getset[] = {
    HL_HANDLE_GETSET,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef Handle_methods[] = {
    {"cancel", Handle_cancel, METH_NOARGS, Handle_cancel__doc__},
    {"cancelled", Handle_cancelled, METH_NOARGS, Handle_cancelled__doc__},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef TimerHandle_methods[] = {
    {"cancel", Handle_cancel, METH_NOARGS, Handle_cancel__doc__},
    {"cancelled", Handle_cancelled, METH_NOARGS, Handle_cancelled__doc__},
    {"when", TimerHandle_when, METH_NOARGS, TimerHandle_when__doc__},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef TimerHandle_getset[] = {
    HL_HANDLE_GETSET,
    {"_when", TimerHandle_get_when, NULL,
     "The scheduled time in seconds on the loop's clock.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Handle_slots[] = {
    {Py_tp_doc, HL_DOC("A callback in the ready queue, an asyncio.Handle.")},
    {Py_tp_traverse, HL_SLOT(hl_handle_traverse)},
    {Py_tp_clear, HL_SLOT(hl_handle_clear)},
    {Py_tp_dealloc, HL_SLOT(hl_handle_dealloc)},
    {Py_tp_methods, Handle_methods},
    {Py_tp_getset, Handle_getset},
    {0, NULL},
};

static PyType_Slot TimerHandle_slots[] = {
    {Py_tp_doc, HL_DOC("A callback with a deadline, an asyncio.TimerHandle.")},
    {Py_tp_traverse, HL_SLOT(hl_handle_traverse)},
    {Py_tp_clear, HL_SLOT(hl_handle_clear)},
    {Py_tp_dealloc, HL_SLOT(hl_handle_dealloc)},
    {Py_tp_methods, TimerHandle_methods},
    {Py_tp_getset, TimerHandle_getset},
    {0, NULL},
};

/* Does this asyncio's formatter take debug=?  Later ones do. */
static int
find_format_kwnames(hl_state *st)
{
    PyObject *defaults =
        PyObject_GetAttrString(st->format_callback_source, "__kwdefaults__");
    if (defaults == NULL) {
        return -1;
    }
    bool takes_debug = PyDict_Check(defaults) &&
                       PyDict_GetItemString(defaults, "debug") != NULL;
    Py_DECREF(defaults);
    st->format_kwnames =
        takes_debug ? Py_BuildValue("(s)", "debug") : Py_NewRef(Py_None);
    return st->format_kwnames == NULL ? -1 : 0;
}

int
hl_handle_type_init(PyObject *module, hl_state *st)
{
    PyTypeObject *timer_base = (PyTypeObject *)st->AbstractTimerHandle;
    st->handle_run = PyObject_GetAttr(st->AbstractHandle, st->str__run);
    if (st->handle_run == NULL) {
        return -1;
    }
    st->slots.when = (timer_base->tp_basicsize + 7) & ~(Py_ssize_t)7;
    PyType_Spec handle_spec = {
        .name = "hotloop._core.Handle",
        .flags = HL_HANDLE_FLAGS,
        .slots = Handle_slots,
    };
    PyType_Spec timer_spec = {
        .name = "hotloop._core.TimerHandle",
        .basicsize = (int)(st->slots.when + (Py_ssize_t)sizeof(double)),
        .flags = HL_HANDLE_FLAGS,
        .slots = TimerHandle_slots,
    };
    if (hl_state_add_type(module, &st->Handle_type, &handle_spec,
                          st->AbstractHandle) < 0) {
        return -1;
    }
    if (hl_state_add_type(module, &st->TimerHandle_type, &timer_spec,
                          st->AbstractTimerHandle) < 0) {
        return -1;
    }
    if (hl_threadsafe_type_init(module, st) < 0) {
        return -1;
    }
    return find_format_kwnames(st);
}
