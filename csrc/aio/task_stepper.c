/* task_stepper.c - the callable that a loop which wants Handles gets to run a
 * step: what asyncio calls TaskStepMethWrapper.
 *
 * __self__ is the task: that is how asyncio's debug output finds its name.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

typedef struct {
    PyObject_HEAD
    hl_task *task; /* owned; NULL once collected */
    PyObject *exc; /* owned; to throw in, or NULL */
} hl_task_stepper;

PyObject *
hl_task_stepper_new(hl_state *st, hl_task *task, PyObject *exc)
{
    hl_task_stepper *self =
        PyObject_GC_New(hl_task_stepper, st->TaskStepMethWrapper_type);
    if (self == NULL) {
        return NULL;
    }
    self->task = (hl_task *)Py_NewRef(hl_task_op(task));
    self->exc = Py_XNewRef(exc);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyObject *
Stepper_tp_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    hl_task_stepper *self = (hl_task_stepper *)op;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError,
                        "function takes no keyword arguments");
        return NULL;
    }
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_SetString(PyExc_TypeError,
                        "function takes no positional arguments");
        return NULL;
    }
    if (self->task == NULL) {
        Py_RETURN_NONE;
    }
    hl_task *task = (hl_task *)Py_NewRef(hl_task_op(self->task));
    PyObject *exc = Py_XNewRef(self->exc);
    hl_state *st = hl_future_st(&task->fut);
    int rv = st == NULL ? -1 : hl_task_step_entered(st, task, exc);
    Py_XDECREF(exc);
    Py_DECREF(hl_task_op(task));
    if (rv < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
Stepper_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_task_stepper *self = (hl_task_stepper *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->task);
    Py_VISIT(self->exc);
    return 0;
}

static int
Stepper_tp_clear(PyObject *op)
{
    hl_task_stepper *self = (hl_task_stepper *)op;
    Py_CLEAR(self->task);
    Py_CLEAR(self->exc);
    return 0;
}

static void
Stepper_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Stepper_tp_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
Stepper_get_self(PyObject *op, void *Py_UNUSED(closure))
{
    hl_task_stepper *self = (hl_task_stepper *)op;
    return Py_NewRef(self->task ? hl_task_op(self->task) : Py_None);
}

static PyGetSetDef Stepper_getset[] = {
    {"__self__", Stepper_get_self, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Stepper_slots[] = {
    {Py_tp_call, HL_SLOT(Stepper_tp_call)},
    {Py_tp_traverse, HL_SLOT(Stepper_tp_traverse)},
    {Py_tp_clear, HL_SLOT(Stepper_tp_clear)},
    {Py_tp_dealloc, HL_SLOT(Stepper_tp_dealloc)},
    {Py_tp_getset, Stepper_getset},
    {0, NULL},
};

static PyType_Spec Stepper_spec = {
    .name = "hotloop._core.TaskStepMethWrapper",
    .basicsize = sizeof(hl_task_stepper),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Stepper_slots,
};

int
hl_task_stepper_type_init(PyObject *module, hl_state *st)
{
    return hl_state_add_type(module, &st->TaskStepMethWrapper_type,
                             &Stepper_spec, NULL);
}
