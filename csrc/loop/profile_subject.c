/* profile_subject.c - what the entries of the ready queue are about.
 *
 * A task is about the code of its coroutine, a handle about the function that
 * it calls, what the loop queues by itself about its type, or the protocol it
 * calls.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/profile_subject.h"

#include "loop/handle.h"

/* Callables inside of callables that are looked through. */
#define WRAPPINGS_MAX 8

/* The attribute of a name that may not be there: new reference or NULL, never
 * with an exception. */
static PyObject *
get_optional(PyObject *op, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(op, name);
    if (value == NULL) {
        PyErr_Clear();
    }
    return value;
}

static hl_subject
subject_of(PyObject *key, PyObject *named, hl_profile_kind kind)
{
    return (hl_subject){key, Py_NewRef(key), Py_NewRef(named), kind};
}

static hl_subject
subject_of_type(PyObject *op, hl_profile_kind kind)
{
    PyObject *type = (PyObject *)Py_TYPE(op);
    return subject_of(type, type, kind);
}

/* By the coroutine's code; a coroutine of another kind by its type. */
static hl_subject
subject_of_coroutine(hl_state *st, PyObject *coro)
{
    PyObject *code = get_optional(coro, st->str_cr_code);
    if (code == NULL) {
        code = get_optional(coro, st->str_gi_code);
    }
    if (code == NULL || !PyCode_Check(code)) {
        Py_XDECREF(code);
        return subject_of_type(coro, HL_PROFILE_TASK);
    }
    return (hl_subject){code, code, Py_NewRef(code), HL_PROFILE_TASK};
}

static hl_subject
subject_of_task(hl_state *st, PyObject *task)
{
    PyObject *coro = get_optional(task, st->str__coro);
    if (coro == NULL || coro == Py_None) {
        Py_XDECREF(coro);
        return subject_of_type(task, HL_PROFILE_TASK);
    }
    hl_subject subject = subject_of_coroutine(st, coro);
    Py_DECREF(coro);
    return subject;
}

/* What a wrapper calls in the end: new reference. */
static PyObject *
unwrap(hl_state *st, PyObject *callback)
{
    PyObject *op = Py_NewRef(callback);
    for (int i = 0; i < WRAPPINGS_MAX; i++) {
        PyObject *inner = NULL;
        if (PyMethod_Check(op)) {
            inner = Py_NewRef(PyMethod_GET_FUNCTION(op));
        }
        else if (PyObject_TypeCheck(op, (PyTypeObject *)st->partial)) {
            inner = get_optional(op, st->str_func);
        }
        if (inner == NULL) {
            break;
        }
        Py_SETREF(op, inner);
    }
    return op;
}

static hl_subject
subject_of_callable(hl_state *st, PyObject *op)
{
    if (PyFunction_Check(op)) {
        return subject_of(PyFunction_GET_CODE(op), op, HL_PROFILE_CALLBACK);
    }
    if (PyCFunction_Check(op)) {
        /* The definition is static, but for what makes functions at run time:
         * then an entry may be of two that had it one after the other. */
        PyMethodDef *definition = ((PyCFunctionObject *)op)->m_ml;
        return (hl_subject){definition, NULL, Py_NewRef(op),
                            HL_PROFILE_CALLBACK};
    }
    if (Py_IS_TYPE(op, st->TaskStepMethWrapper_type)) {
        PyObject *task = get_optional(op, st->str___self__);
        if (task != NULL) {
            hl_subject subject = subject_of_task(st, task);
            Py_DECREF(task);
            return subject;
        }
    }
    return PyType_Check(op) ? subject_of(op, op, HL_PROFILE_CALLBACK)
                            : subject_of_type(op, HL_PROFILE_CALLBACK);
}

static hl_subject
subject_of_handle(hl_loop *loop, PyObject *handle)
{
    hl_state *st = loop->st;
    PyObject *callback = HL_SLOT_OF(handle, st->slots.callback);
    if (callback == NULL || callback == Py_None) {
        return subject_of_type(handle, HL_PROFILE_CALLBACK);
    }
    PyObject *op = unwrap(st, callback);
    hl_subject subject = subject_of_callable(st, op);
    Py_DECREF(op);
    return subject;
}

/* A transport is about its protocol; that of TLS about the one behind it. */
static hl_subject
subject_of_event(hl_loop *loop, PyObject *op)
{
    hl_state *st = loop->st;
    PyObject *protocol = Py_NewRef(op);
    for (int i = 0; i < WRAPPINGS_MAX; i++) {
        if (!PyObject_TypeCheck(protocol, st->Transport_type) &&
            !Py_IS_TYPE(protocol, st->SSLTransport_type)) {
            break;
        }
        PyObject *next =
            PyObject_CallMethodNoArgs(protocol, st->str_get_protocol);
        if (next == NULL || next == Py_None) {
            PyErr_Clear();
            Py_XDECREF(next);
            break;
        }
        Py_SETREF(protocol, next);
    }
    hl_subject subject = subject_of_type(protocol, HL_PROFILE_EVENT);
    Py_DECREF(protocol);
    return subject;
}

hl_subject
hl_profile_subject(hl_loop *loop, const hl_entry *entry)
{
    switch (entry->kind) {
    case HL_ENTRY_TASK:
        return subject_of_task(loop->st, entry->obj);
    case HL_ENTRY_HANDLE:
        return subject_of_handle(loop, entry->obj);
    case HL_ENTRY_OTHER:
    default:
        return subject_of_event(loop, entry->obj);
    }
}

/* ---- names ---- */

/* 'module.qualname', or only the latter; a new reference or NULL. */
static PyObject *
full_name(PyObject *op)
{
    PyObject *module = PyObject_GetAttrString(op, "__module__");
    PyErr_Clear();
    PyObject *name = PyObject_GetAttrString(op, "__qualname__");
    if (name != NULL && module != NULL && PyUnicode_Check(module) &&
        PyUnicode_CompareWithASCIIString(module, "builtins") != 0) {
        Py_SETREF(name, PyUnicode_FromFormat("%U.%S", module, name));
    }
    else if (name != NULL && !PyUnicode_Check(name)) {
        Py_SETREF(name, PyObject_Str(name));
    }
    Py_XDECREF(module);
    return name;
}

int
hl_subject_describe(const hl_subject *subject, hl_profile_entry *entry)
{
    PyObject *named = subject->named, *code = NULL;
    if (PyFunction_Check(named)) {
        code = PyFunction_GET_CODE(named);
    }
    else if (PyCode_Check(named)) {
        code = named;
    }
    entry->line = 0;
    if (code != NULL) {
        PyCodeObject *co = (PyCodeObject *)code;
        entry->name = Py_NewRef(co->co_qualname);
        entry->file = Py_NewRef(co->co_filename);
        entry->line = co->co_firstlineno;
        return 0;
    }
    entry->name = full_name(named);
    entry->file = entry->name == NULL ? NULL : PyUnicode_FromString("");
    if (entry->file == NULL) {
        Py_CLEAR(entry->name);
        return -1;
    }
    return 0;
}
