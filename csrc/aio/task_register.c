/* task_register.c - asyncio's own books: all tasks, and who awaits whom.
 *
 * 3.11 to 3.13 keep tasks in a WeakSet, whose add() is a Python call of about
 * a microsecond and costs a weak reference.  A TaskRef goes straight into the
 * set inside it instead: small, and all that the WeakSet asks of a weak
 * reference (call, hash, equality).  It borrows the task, which takes it out
 * before it dies.
 * 3.14+ links the tasks into a list, through a node in asyncio's part of the
 * object: entered through asyncio's function, left by hand.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

#include "state/errors.h"

static int
call_with_task(PyObject *func, hl_task *task)
{
    PyObject *res = PyObject_CallOneArg(func, hl_task_op(task));
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

#if PY_VERSION_HEX >= 0x030E0000

int
hl_task_ref_type_init(PyObject *Py_UNUSED(module), hl_state *Py_UNUSED(st))
{
    return 0;
}

int
hl_task_register(hl_state *st, hl_task *task)
{
    task->node_offset = hl_aio_of(st)->layout.task_node;
    return call_with_task(st->register_task, task);
}

int
hl_task_register_eager(hl_state *st, hl_task *task)
{
    return hl_task_register(st, task);
}

int
hl_task_unregister_eager(hl_state *Py_UNUSED(st), hl_task *Py_UNUSED(task))
{
    return 0;
}

/* Takes the node at offset out of asyncio's list, if it is in there. */
static void
unlink_node(hl_task *task, unsigned offset)
{
    void **node = (void **)(void *)hl_base_field(hl_task_op(task), offset);
    void **next = node[0], **prev = node[1];
    if (next != NULL) {
        prev[0] = next;
        next[1] = prev;
        node[0] = node[1] = NULL;
    }
}

void
hl_task_unregister(hl_state *st, hl_task *task)
{
    unsigned offset = hl_aio_of(st)->layout.task_node;
    if (HL_LIKELY(offset != 0)) {
        unlink_node(task, offset);
    }
    else if (call_with_task(st->unregister_task, task) < 0) {
        PyErr_Clear();
    }
}

void
hl_task_unregister_dying(hl_task *task)
{
    if (HL_LIKELY(task->node_offset != 0)) {
        unlink_node(task, task->node_offset);
        return;
    }
    /* Never registered by us; others could have done that. */
    PyObject *pending = hl_error_fetch();
    hl_state *st = hl_future_st(&task->fut);
    if (st != NULL &&
        (hl_aio_of(st)->layout.task_node != 0 || !Py_IsFinalizing())) {
        hl_task_unregister(st, task);
    }
    PyErr_Clear();
    if (pending != NULL) {
        hl_error_restore(pending);
    }
}

/* The field of a future of ours in which asyncio keeps who awaits it; NULL
 * for other objects, or where it was not found. */
static PyObject **
awaited_by_field(hl_state *st, PyObject *fut)
{
    unsigned offset = hl_aio_of(st)->layout.awaited_by;
    return offset != 0 && hl_future_is_exact(st, fut)
               ? hl_base_field(fut, offset)
               : NULL;
}

static int
call_awaited_by(PyObject *func, PyObject *fut, hl_task *task)
{
    PyObject *args[2] = {fut, hl_task_op(task)};
    PyObject *res = PyObject_Vectorcall(func, args, 2, NULL);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

int
hl_awaited_by_add(hl_state *st, PyObject *fut, hl_task *task)
{
    PyObject **field = awaited_by_field(st, fut);
    if (field != NULL && *field == NULL) {
        *field = Py_NewRef(hl_task_op(task));
        return 0;
    }
    return call_awaited_by(st->add_to_awaited_by, fut, task);
}

int
hl_awaited_by_discard(hl_state *st, PyObject *fut, hl_task *task)
{
    PyObject **field = awaited_by_field(st, fut);
    if (field != NULL && (*field == NULL || *field == hl_task_op(task))) {
        Py_CLEAR(*field);
        return 0;
    }
    return call_awaited_by(st->discard_from_awaited_by, fut, task);
}

#else

typedef struct {
    PyObject_HEAD
    hl_task *task;  /* borrowed; NULL once the task is done or dead */
    Py_hash_t hash; /* that of the task */
} hl_task_ref;

/* The task: new reference, or NULL without an exception. */
static PyObject *
ref_target(PyObject *op)
{
    hl_task *task = ((hl_task_ref *)op)->task;
    /* At zero its deallocation waits in the trashcan. */
    if (task == NULL || Py_REFCNT(hl_task_op(task)) == 0) {
        return NULL;
    }
    return Py_NewRef(hl_task_op(task));
}

/* The referent of a weakref.ref: new reference, or NULL (no exception). */
static PyObject *
weakref_target(PyObject *ref)
{
#    if PY_VERSION_HEX >= 0x030D0000
    PyObject *target = NULL;
    if (PyWeakref_GetRef(ref, &target) < 0) {
        PyErr_Clear();
    }
    return target;
#    else
    PyObject *target = PyWeakref_GetObject(ref);
    return target == NULL || target == Py_None ? NULL : Py_NewRef(target);
#    endif
}

static PyObject *
TaskRef_tp_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) != 0 ||
        (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)) {
        PyErr_SetString(PyExc_TypeError, "TaskRef takes no arguments");
        return NULL;
    }
    PyObject *task = ref_target(op);
    return task == NULL ? Py_NewRef(Py_None) : task;
}

static Py_hash_t
TaskRef_tp_hash(PyObject *op)
{
    return ((hl_task_ref *)op)->hash;
}

/* Equal to itself and, as two weak references are, to one whose referent
 * equals the task. */
static PyObject *
TaskRef_tp_richcompare(PyObject *op, PyObject *other, int cmp)
{
    if (cmp != Py_EQ && cmp != Py_NE) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    if (op == other) {
        return PyBool_FromLong(cmp == Py_EQ);
    }
    if (!PyWeakref_CheckRef(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *rv = NULL, *mine = ref_target(op);
    PyObject *theirs = weakref_target(other);
    if (mine == NULL || theirs == NULL) {
        rv = PyBool_FromLong(cmp == Py_NE);
    }
    else {
        rv = PyObject_RichCompare(mine, theirs, cmp);
    }
    Py_XDECREF(mine);
    Py_XDECREF(theirs);
    return rv;
}

static void
TaskRef_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot TaskRef_slots[] = {
    {Py_tp_call, HL_SLOT(TaskRef_tp_call)},
    {Py_tp_hash, HL_SLOT(TaskRef_tp_hash)},
    {Py_tp_richcompare, HL_SLOT(TaskRef_tp_richcompare)},
    {Py_tp_dealloc, HL_SLOT(TaskRef_tp_dealloc)},
    {0, NULL},
};

static PyType_Spec TaskRef_spec = {
    .name = "hotloop._core.TaskRef",
    .basicsize = sizeof(hl_task_ref),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = TaskRef_slots,
};

int
hl_task_ref_type_init(PyObject *module, hl_state *st)
{
    return hl_state_add_type(module, &st->TaskRef_type, &TaskRef_spec, NULL);
}

int
hl_task_register(hl_state *st, hl_task *task)
{
    if (task->ref != NULL || task->fut.state != HL_FUTURE_PENDING) {
        return 0;
    }
    Py_hash_t hash = PyObject_Hash(hl_task_op(task));
    if (hash == -1) {
        return -1;
    }
    hl_task_ref *ref = PyObject_New(hl_task_ref, st->TaskRef_type);
    if (ref == NULL) {
        return -1;
    }
    ref->task = task;
    ref->hash = hash;
    if (PySet_Add(hl_aio_of(st)->scheduled, (PyObject *)ref) < 0) {
        ref->task = NULL;
        Py_DECREF(ref);
        return -1;
    }
    Py_XSETREF(task->ref, (PyObject *)ref);
    return 0;
}

int
hl_task_register_eager(hl_state *st, hl_task *task)
{
    return call_with_task(st->register_eager_task, task);
}

int
hl_task_unregister_eager(hl_state *st, hl_task *task)
{
    return call_with_task(st->unregister_eager_task, task);
}

/* Takes a reference out of the set; while somebody iterates over the WeakSet
 * it is left for the end of that, as the WeakSet itself does. */
static void
forget_ref(hl_aio *aio, PyObject *ref)
{
    int rv = PySet_GET_SIZE(aio->iterating) > 0
                 ? PyList_Append(aio->removals, ref)
                 : PySet_Discard(aio->scheduled, ref);
    if (rv < 0) {
        PyErr_Clear(); /* a dead reference does no harm there */
    }
}

void
hl_task_unregister(hl_state *st, hl_task *task)
{
    hl_task_ref *ref = (hl_task_ref *)task->ref;
    if (ref != NULL) {
        task->ref = NULL;
        ref->task = NULL;
        forget_ref(hl_aio_of(st), (PyObject *)ref);
        Py_DECREF(ref);
    }
}

void
hl_task_unregister_dying(hl_task *task)
{
    if (HL_LIKELY(task->ref == NULL)) {
        return;
    }
    PyObject *pending = hl_error_fetch();
    hl_state *st = hl_future_st(&task->fut);
    if (st != NULL && hl_aio_of(st)->scheduled != NULL) {
        hl_task_unregister(st, task);
    }
    else {
        /* What is left in the set says that its task is dead. */
        ((hl_task_ref *)task->ref)->task = NULL;
        Py_CLEAR(task->ref);
    }
    PyErr_Clear();
    if (pending != NULL) {
        hl_error_restore(pending);
    }
}

int
hl_awaited_by_add(hl_state *Py_UNUSED(st), PyObject *Py_UNUSED(fut),
                  hl_task *Py_UNUSED(task))
{
    return 0;
}

int
hl_awaited_by_discard(hl_state *Py_UNUSED(st), PyObject *Py_UNUSED(fut),
                      hl_task *Py_UNUSED(task))
{
    return 0;
}

#endif
