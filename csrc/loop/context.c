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

static inline void *
word_at(PyObject *op, Py_ssize_t offset)
{
    return *(void **)(void *)((char *)op + offset);
}

/* len(context) == 0, which cannot fail. */
static inline bool
is_empty(hl_state *st, PyObject *context)
{
    const hl_context_layout *layout = &st->context_layout;
    return HL_LIKELY(word_at(context, layout->offset) == layout->mapping) ||
           PyContext_Type.tp_as_mapping->mp_length(context) == 0;
}

/* A context with one variable. */
static PyObject *
context_with_variable(void)
{
    PyObject *token = NULL;
    PyObject *context = PyContext_New();
    PyObject *var = PyContextVar_New("hotloop", NULL);
    if (context != NULL && var != NULL && PyContext_Enter(context) == 0) {
        token = PyContextVar_Set(var, Py_None);
        if (PyContext_Exit(context) < 0) {
            Py_CLEAR(token);
        }
    }
    Py_XDECREF(var);
    if (token == NULL) {
        Py_CLEAR(context);
    }
    Py_XDECREF(token);
    return context;
}

/* What a context refers to: only its mapping, while it is not entered. */
typedef struct {
    PyObject *op; /* borrowed */
    int count;
} referents;

static int
referents_add(PyObject *op, void *arg)
{
    referents *found = arg;
    found->op = op;
    found->count++;
    return 0;
}

/* The mapping, borrowed; NULL if that cannot be told. */
static PyObject *
mapping_of(PyObject *context)
{
    referents found = {NULL, 0};
    PyContext_Type.tp_traverse(context, referents_add, &found);
    return found.count == 1 ? found.op : NULL;
}

/* All empty contexts share one mapping, so that a look at a pointer tells that
 * a context is empty.  Where this interpreter does otherwise is_empty() asks
 * for the length each time. */
int
hl_context_find_layout(hl_state *st)
{
    PyObject *marker = st->blank_context;
    PyObject *other = PyContext_New(), *filled = context_with_variable();
    int rv = other == NULL || filled == NULL ? -1 : 0;
    PyObject *mapping = mapping_of(marker);
    if (rv == 0 && mapping != NULL && mapping == mapping_of(other) &&
        mapping != mapping_of(filled)) {
        Py_ssize_t at = PyContext_Type.tp_basicsize;
        while ((at -= (Py_ssize_t)sizeof(void *)) > 0 &&
               word_at(marker, at) != mapping) {
        }
        if (at > 0) {
            st->context_layout.offset = at;
            st->context_layout.mapping = mapping;
        }
    }
    Py_XDECREF(other);
    Py_XDECREF(filled);
    return rv;
}

PyObject *
hl_context_capture(hl_state *st)
{
    PyObject *current = PyThreadState_Get()->context;
    if (HL_LIKELY(current == NULL || is_empty(st, current))) {
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
        if (HL_LIKELY(is_empty(loop->st, loop->blank))) {
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
    if (HL_UNLIKELY(blank != NULL && (Py_REFCNT(blank) != BLANK_REFS ||
                                      !is_empty(loop->st, blank)))) {
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
