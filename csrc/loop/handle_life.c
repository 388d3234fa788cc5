/* handle_life.c - how handles are made, kept for the next one, and released.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/handle_int.h"

static inline void
slot_init(PyObject *op, Py_ssize_t offset, PyObject *value)
{
    HL_SLOT_OF(op, offset) = Py_NewRef(value);
}

/* What hardly a handle ever has otherwise: a dead one keeps it in the free
 * list for the next. */
static void
usual_init(hl_state *st, PyObject *op)
{
    slot_init(op, st->slots.cancelled, Py_False);
    slot_init(op, st->slots.repr, Py_None);
    slot_init(op, st->slots.source_traceback, Py_None);
    if (Py_IS_TYPE(op, st->TimerHandle_type)) {
        slot_init(op, st->slots.scheduled, Py_False);
    }
}

static inline void
slot_reset(PyObject *op, Py_ssize_t offset, PyObject *value)
{
    if (HL_SLOT_OF(op, offset) != value) {
        Py_XSETREF(HL_SLOT_OF(op, offset), Py_NewRef(value));
    }
}

static inline void
usual_reset(hl_state *st, PyObject *op)
{
    slot_reset(op, st->slots.cancelled, Py_False);
    slot_reset(op, st->slots.repr, Py_None);
    slot_reset(op, st->slots.source_traceback, Py_None);
    if (Py_IS_TYPE(op, st->TimerHandle_type)) {
        slot_reset(op, st->slots.scheduled, Py_False);
    }
}

static void
usual_clear(hl_state *st, PyObject *op, bool is_timer)
{
    Py_CLEAR(HL_SLOT_OF(op, st->slots.cancelled));
    Py_CLEAR(HL_SLOT_OF(op, st->slots.repr));
    Py_CLEAR(HL_SLOT_OF(op, st->slots.source_traceback));
    if (is_timer) {
        Py_CLEAR(HL_SLOT_OF(op, st->slots.scheduled));
    }
}

PyObject *
hl_handle_alloc(hl_state *st, PyTypeObject *type, hl_freelist *list)
{
    PyObject *op = hl_freelist_get(list);
    if (op != NULL) {
        return PyObject_Init(op, type);
    }
    op = hl_alloc(type);
    if (op != NULL) {
        PyObject_GC_UnTrack(op);
        usual_init(st, op);
    }
    return op;
}

static void
freelist_free(hl_state *st, hl_freelist *list, bool is_timer)
{
    while (list->count > 0) {
        PyObject *op = list->items[--list->count];
        usual_clear(st, op, is_timer);
        PyObject_GC_Del(op);
    }
}

void
hl_handles_free(hl_loop *loop)
{
    freelist_free(loop->st, &loop->free_handles, false);
    freelist_free(loop->st, &loop->free_timers, true);
    freelist_free(loop->st, &loop->free_threadsafe, false);
}

static int
handle_record_origin(hl_state *st, PyObject *op)
{
    PyObject *stack = PyObject_CallNoArgs(st->extract_stack);
    if (stack == NULL) {
        return -1;
    }
    Py_SETREF(HL_SLOT_OF(op, st->slots.source_traceback), stack);
    return 0;
}

/* Drops a handle that was not filled. */
static void
handle_abandon(hl_state *st, PyObject *op)
{
    HL_SLOT_OF(op, st->slots.callback) = NULL;
    HL_SLOT_OF(op, st->slots.args) = NULL;
    HL_SLOT_OF(op, st->slots.context) = NULL;
    HL_SLOT_OF(op, st->slots.loop) = NULL;
    Py_DECREF(op);
}

PyObject *
hl_handle_fill(hl_loop *loop, PyObject *op, PyObject *callback, PyObject *args,
               PyObject *context)
{
    hl_state *st = loop->st;
    const hl_handle_slots *slots = &st->slots;
    if (context == NULL || context == Py_None) {
        context = hl_context_capture(st);
        if (context == NULL) {
            handle_abandon(st, op);
            return NULL;
        }
    }
    else {
        Py_INCREF(context);
    }
    HL_SLOT_OF(op, slots->context) = context;
    slot_init(op, slots->callback, callback);
    slot_init(op, slots->args, args);
    slot_init(op, slots->loop, (PyObject *)loop);
    PyObject_GC_Track(op);
    if (HL_UNLIKELY(loop->debug) && handle_record_origin(st, op) < 0) {
        Py_DECREF(op);
        return NULL;
    }
    return op;
}

PyObject *
hl_handle_new(hl_loop *loop, PyObject *callback, PyObject *args,
              PyObject *context)
{
    hl_state *st = loop->st;
    PyObject *op = hl_handle_alloc(st, st->Handle_type, &loop->free_handles);
    return op == NULL ? NULL
                      : hl_handle_fill(loop, op, callback, args, context);
}

PyObject *
hl_timer_new(hl_loop *loop, double when, PyObject *callback, PyObject *args,
             PyObject *context)
{
    hl_state *st = loop->st;
    PyObject *op =
        hl_handle_alloc(st, st->TimerHandle_type, &loop->free_timers);
    if (op == NULL) {
        return NULL;
    }
    *hl_timer_when(st, op) = when;
    return hl_handle_fill(loop, op, callback, args, context);
}

hl_state *
hl_handle_state(PyObject *op)
{
    PyObject *module = ((PyHeapTypeObject *)Py_TYPE(op))->ht_module;
    return module == NULL ? NULL : PyModule_GetState(module);
}

int
hl_handle_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_state *st = hl_handle_state(op);
    Py_VISIT(Py_TYPE(op));
    if (st == NULL) {
        return 0;
    }
    const hl_handle_slots *slots = &st->slots;
    Py_VISIT(HL_SLOT_OF(op, slots->callback));
    Py_VISIT(HL_SLOT_OF(op, slots->args));
    Py_VISIT(HL_SLOT_OF(op, slots->context));
    Py_VISIT(HL_SLOT_OF(op, slots->loop));
    Py_VISIT(HL_SLOT_OF(op, slots->source_traceback));
    return 0;
}

int
hl_handle_clear(PyObject *op)
{
    hl_state *st = hl_handle_state(op);
    if (st == NULL) {
        return 0;
    }
    const hl_handle_slots *slots = &st->slots;
    Py_CLEAR(HL_SLOT_OF(op, slots->callback));
    Py_CLEAR(HL_SLOT_OF(op, slots->args));
    Py_CLEAR(HL_SLOT_OF(op, slots->context));
    Py_CLEAR(HL_SLOT_OF(op, slots->loop));
    Py_CLEAR(HL_SLOT_OF(op, slots->source_traceback));
    return 0;
}

static hl_freelist *
handle_freelist(hl_state *st, hl_loop *loop, PyObject *op)
{
    if (Py_IS_TYPE(op, st->Handle_type)) {
        return &loop->free_handles;
    }
    return Py_IS_TYPE(op, st->TimerHandle_type) ? &loop->free_timers
                                                : &loop->free_threadsafe;
}

/* Releases what the handle holds, but for the loop; the storage goes to the
 * loop's free list if there is a loop and it can. */
static inline bool
handle_recycle(hl_state *st, hl_loop *loop, PyObject *op)
{
    const hl_handle_slots *slots = &st->slots;
    Py_XDECREF(HL_SLOT_OF(op, slots->args)); /* in the order of asyncio's */
    Py_XDECREF(HL_SLOT_OF(op, slots->callback));
    Py_XDECREF(HL_SLOT_OF(op, slots->context));
    usual_reset(st, op);
    bool kept = loop != NULL &&
                hl_freelist_put(loop, handle_freelist(st, loop, op), op);
    if (!kept) {
        usual_clear(st, op, Py_IS_TYPE(op, st->TimerHandle_type));
    }
    return kept;
}

void
hl_handle_drop(hl_loop *loop, PyObject *op)
{
#ifdef Py_REF_DEBUG
    (void)loop; /* the interpreter counts references: by the book */
#else
    /* What hl_handle_dealloc() does, by one who knows the loop. */
    hl_state *st = loop->st;
    PyTypeObject *type = Py_TYPE(op);
    if (HL_LIKELY(Py_REFCNT(op) == 1 && type == st->Handle_type &&
                  HL_SLOT_OF(op, st->slots.loop) == (PyObject *)loop &&
                  HL_SLOT_OF(op, type->tp_weaklistoffset) == NULL)) {
        PyObject_GC_UnTrack(op);
        if (!handle_recycle(st, loop, op)) {
            type->tp_free(op);
        }
        Py_DECREF(type);
        Py_DECREF(loop); /* which runs: this is not the last one */
        return;
    }
#endif
    Py_DECREF(op);
}

void
hl_handle_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    hl_state *st = hl_handle_state(op);
    PyObject_GC_UnTrack(op);
    if (HL_SLOT_OF(op, type->tp_weaklistoffset) != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    PyObject *held = NULL;
    bool kept = false;
    if (st != NULL) {
        held = HL_SLOT_OF(op, st->slots.loop);
        kept = handle_recycle(st, hl_handle_loop(st, op), op);
    }
    if (!kept) {
        type->tp_free(op);
    }
    Py_XDECREF(held);
    Py_DECREF(type);
}
