/* context.c - the contexts that callbacks and steps run in.
 *
 * A copy of an empty context is empty, and until somebody sets a variable in
 * it or asks for the object, it cannot be told from any other.  So where the
 * current context is empty nothing is copied: handles, tasks and callbacks of
 * futures hold a marker, and all of them run in one context of the loop, the
 * blank one, which stays entered from one to the next.  Whoever leaves a
 * variable or a reference behind there is given it for his own, and the loop
 * takes another.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/loop.h"

/* Those of the loop (two) and of the thread state. */
#define BLANK_REFS 3

/* len(context) == 0, which cannot fail. */
static inline bool
is_empty(PyObject *context)
{
    return PyContext_Type.tp_as_mapping->mp_length(context) == 0;
}

PyObject *
hl_context_capture(hl_state *st)
{
    PyObject *current = PyThreadState_Get()->context;
    if (HL_LIKELY(current == NULL || is_empty(current))) {
        return Py_NewRef(st->blank_context);
    }
    return PyContext_CopyCurrent();
}

int
hl_loop_enter_context(hl_loop *loop, PyObject *context)
{
    if (loop->entered_context == context) {
        return 0;
    }
    if (hl_loop_leave_context(loop) < 0 || PyContext_Enter(context) < 0) {
        return -1;
    }
    loop->entered_context = Py_NewRef(context);
    return 0;
}

int
hl_loop_leave_context(hl_loop *loop)
{
    PyObject *context = loop->entered_context;
    if (context == NULL) {
        return 0;
    }
    loop->entered_context = NULL;
    int rv = PyContext_Exit(context);
    Py_DECREF(context);
    return rv;
}

/* Enters the blank context, or a new one where a finalizer spoilt it. */
static int
enter_blank(hl_loop *loop)
{
    if (HL_LIKELY(loop->blank != NULL)) {
        if (HL_LIKELY(is_empty(loop->blank))) {
            return hl_loop_enter_context(loop, loop->blank);
        }
        Py_CLEAR(loop->blank);
    }
    loop->blank = PyContext_New();
    return loop->blank == NULL ? -1 : hl_loop_enter_context(loop, loop->blank);
}

/* The blank context becomes that of *slot. */
static void
give_blank(hl_loop *loop, PyObject **slot)
{
    PyObject *blank = loop->blank;
    loop->blank = NULL;
    if (*slot == loop->st->blank_context) {
        Py_SETREF(*slot, blank);
    }
    else {
        Py_DECREF(blank);
    }
}

int
hl_loop_enter_owner(hl_loop *loop, PyObject *owner, PyObject **slot)
{
    if (HL_UNLIKELY(*slot != loop->st->blank_context)) {
        return hl_loop_enter_context(loop, *slot);
    }
    if (enter_blank(loop) < 0) {
        return -1;
    }
    loop->blank_owner = owner;
    return 0;
}

void
hl_loop_settle_owner(hl_loop *loop, PyObject **slot)
{
    PyObject *blank = loop->blank;
    if (loop->blank_owner == NULL) {
        return;
    }
    loop->blank_owner = NULL;
    if (HL_UNLIKELY(blank != NULL &&
                    (Py_REFCNT(blank) != BLANK_REFS || !is_empty(blank)))) {
        give_blank(loop, slot);
    }
}

int
hl_context_claim(hl_state *st, hl_loop *loop, PyObject *owner, PyObject **slot)
{
    if (HL_LIKELY(*slot != st->blank_context)) {
        return 0;
    }
    if (loop != NULL && loop->blank_owner == owner && loop->blank != NULL) {
        give_blank(loop, slot);
        return 0;
    }
    PyObject *context = PyContext_New();
    if (context == NULL) {
        return -1;
    }
    Py_SETREF(*slot, context);
    return 0;
}

void
hl_loop_set_aside(hl_loop *loop, hl_entered *entered)
{
    entered->task = loop->entered_task;
    entered->context = loop->entered_context;
    entered->blank = loop->blank;
    entered->blank_owner = loop->blank_owner;
    loop->entered_task = loop->entered_context = NULL;
    loop->blank = loop->blank_owner = NULL;
}

void
hl_loop_take_back(hl_loop *loop, const hl_entered *entered)
{
    Py_XDECREF(loop->blank);
    loop->entered_task = entered->task;
    loop->entered_context = entered->context;
    loop->blank = entered->blank;
    loop->blank_owner = entered->blank_owner;
}
