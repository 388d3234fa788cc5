/* reader_type.c - the Python side of StreamReader.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/reader_ops.h"

#include "base/args.h"
#include "loop/loop.h"

#include <stddef.h>

#define SELF(op) ((hl_reader *)(op))
#define DEFAULT_LIMIT (64 * 1024)

/* May the method do its work itself? */
static inline bool
is_stock(hl_state *st, PyObject *op)
{
    return hl_subclass_is_stock(op, &st->reader_stock) && SELF(op)->limit > 0;
}

/* The method of asyncio's class, which goes by the attributes. */
static PyObject *
inherited(hl_state *st, PyObject *op, PyObject *name, PyObject *const *args,
          Py_ssize_t nargs, PyObject *kwnames)
{
    return hl_subclass_inherited(st->StreamReader, name, op, args, nargs,
                                 kwnames);
}

/* ---- the life of a reader ---- */

static PyObject *
StreamReader_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *op = hl_subclass_new(type, args, kwargs);
    if (op != NULL) {
        SELF(op)->transport = Py_NewRef(Py_None);
        SELF(op)->exception = Py_NewRef(Py_None);
        SELF(op)->waiter = Py_NewRef(Py_None);
    }
    return op;
}

/* _limit: what comparisons with it come to.  0 where only Python can tell. */
static Py_ssize_t
limit_as_size(PyObject *value)
{
    if (!PyLong_CheckExact(value)) {
        return 0;
    }
    int overflow;
    long long size = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow > 0 || size > PY_SSIZE_T_MAX / 2) {
        return PY_SSIZE_T_MAX / 2;
    }
    return size > 0 ? (Py_ssize_t)size : 0;
}

static int
set_limit(hl_reader *self, PyObject *value)
{
    self->limit = limit_as_size(value);
    Py_XSETREF(self->limit_value, Py_NewRef(value));
    return 0;
}

/* For a loop of ours that is not in debug mode: 1 if that was all. */
static int
init_simple(hl_state *st, hl_reader *self, PyObject *limit, PyObject *loop)
{
    if (loop == NULL || !hl_loop_check(st, loop) || ((hl_loop *)loop)->debug ||
        !hl_subclass_is_stock((PyObject *)self, &st->reader_stock) ||
        (limit != NULL && limit_as_size(limit) == 0)) {
        return 0;
    }
    PyObject *value =
        limit == NULL ? PyLong_FromLong(DEFAULT_LIMIT) : Py_NewRef(limit);
    if (value == NULL || set_limit(self, value) < 0) {
        return -1;
    }
    Py_DECREF(value);
    Py_XSETREF(self->loop, Py_NewRef(loop));
    Py_XSETREF(self->transport, Py_NewRef(Py_None));
    Py_XSETREF(self->exception, Py_NewRef(Py_None));
    hl_reader_end_wait(self);
    self->start = self->end = self->scanned = 0;
    Py_CLEAR(self->store);
    Py_CLEAR(self->full);
    Py_CLEAR(self->exposed);
    self->eof = self->paused = false;
    return 1;
}

static int
StreamReader_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"limit", "loop", NULL};
    PyObject *given[2];
    hl_state *st = hl_subclass_state(op);
    if (st == NULL || hl_subclass_parse_init("StreamReader", names, 0, args,
                                             kwargs, given) < 0) {
        return -1;
    }
    int done = init_simple(st, SELF(op), given[0], given[1]);
    if (done != 0) {
        return done < 0 ? -1 : 0;
    }
    PyObject *limit = given[0] == NULL ? PyLong_FromLong(DEFAULT_LIMIT)
                                       : Py_NewRef(given[0]);
    if (limit == NULL) {
        return -1;
    }
    PyObject *both[] = {limit, given[1]};
    PyObject *res = inherited(st, op, st->str___init__, both,
                              given[1] == NULL ? 1 : 2, NULL);
    Py_DECREF(limit);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static int
StreamReader_tp_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    hl_state *st = hl_subclass_state(op);
    return st == NULL
               ? -1
               : hl_subclass_setattr(op, name, value, &st->reader_stock);
}

/* ---- what the protocol calls ---- */

PyDoc_STRVAR(StreamReader_feed_data__doc__, "feed_data($self, data)\n--\n\n"
                                            "Append what was received.");

static PyObject *
StreamReader_feed_data(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    static const char *const names[] = {"data", NULL};
    static const hl_params params = {"feed_data", names, 1, 1};
    PyObject *data;
    hl_state *st = hl_subclass_state(op);
    if (st == NULL ||
        hl_params_parse(&params, args, nargs, kwnames, &data) < 0) {
        return NULL;
    }
    hl_reader *self = SELF(op);
    bool bytes = PyBytes_CheckExact(data);
    if (!is_stock(st, op) || self->eof ||
        (!bytes && !PyByteArray_CheckExact(data)) || data == self->exposed) {
        return inherited(st, op, st->str_feed_data, &data, 1, NULL);
    }
    Py_ssize_t size = Py_SIZE(data);
    const char *content =
        bytes ? PyBytes_AS_STRING(data) : PyByteArray_AS_STRING(data);
    if (size > 0 && hl_reader_feed(self, content, size) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(StreamReader_feed_eof__doc__, "feed_eof($self)\n--\n\n"
                                           "No more data will come.");

static PyObject *
StreamReader_feed_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = hl_subclass_state(op);
    if (st == NULL || !is_stock(st, op)) {
        return st == NULL ? NULL
                          : inherited(st, op, st->str_feed_eof, NULL, 0, NULL);
    }
    return hl_reader_feed_eof(SELF(op)) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(StreamReader_set_exception__doc__,
             "set_exception($self, exc)\n--\n\n"
             "Have reading raise this exception from now on.");

static PyObject *
StreamReader_set_exception(PyObject *op, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"exc", NULL};
    static const hl_params params = {"set_exception", names, 1, 1};
    PyObject *exc;
    hl_state *st = hl_subclass_state(op);
    if (st == NULL ||
        hl_params_parse(&params, args, nargs, kwnames, &exc) < 0) {
        return NULL;
    }
    if (!is_stock(st, op)) {
        return inherited(st, op, st->str_set_exception, &exc, 1, NULL);
    }
    return hl_reader_set_exception(SELF(op), exc) < 0 ? NULL
                                                      : Py_NewRef(Py_None);
}

PyDoc_STRVAR(StreamReader_exception__doc__,
             "exception($self)\n--\n\n"
             "Return what set_exception() was called with, or None.");

static PyObject *
StreamReader_exception(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *exc = SELF(op)->exception;
    return Py_NewRef(exc == NULL ? Py_None : exc);
}

PyDoc_STRVAR(StreamReader_at_eof__doc__,
             "at_eof($self)\n--\n\n"
             "Return True if the end was reached and everything read.");

static PyObject *
StreamReader_at_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(SELF(op)->eof && hl_reader_size(SELF(op)) == 0);
}

/* ---- what coroutines call ---- */

PyDoc_STRVAR(
    StreamReader_read__doc__,
    "read($self, n=-1)\n--\n\n"
    "Read up to n bytes: as soon as there are some, or to the end (n < 0).\n\n"
    "Returns b'' at the end, and for n == 0.  As asyncio's.");

static PyObject *
StreamReader_read(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    static const hl_params params = {"read", names, 1, 0};
    PyObject *number;
    hl_state *st = hl_subclass_state(op);
    if (st == NULL ||
        hl_params_parse(&params, args, nargs, kwnames, &number) < 0) {
        return NULL;
    }
    Py_ssize_t n = -1;
    bool plain = is_stock(st, op);
    if (plain && number != NULL) {
        int overflow = 0;
        plain = PyLong_CheckExact(number);
        long long size =
            plain ? PyLong_AsLongLongAndOverflow(number, &overflow) : 0;
        if (overflow != 0) {
            size = overflow < 0 ? -1 : PY_SSIZE_T_MAX;
        }
        n = (Py_ssize_t)Py_MIN(size, (long long)PY_SSIZE_T_MAX);
    }
    if (!plain) {
        return inherited(st, op, st->str_read, args, nargs, kwnames);
    }
    return hl_stream_op_new(st, n < 0 ? &hl_op_read_all : &hl_op_read, op,
                            NULL, n);
}

PyDoc_STRVAR(StreamReader_readexactly__doc__,
             "readexactly($self, n)\n--\n\n"
             "Read exactly n bytes.\n\n"
             "Raises IncompleteReadError, its partial what there was, when "
             "the end\ncomes before.  As asyncio's.");

static PyObject *
StreamReader_readexactly(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    static const hl_params params = {"readexactly", names, 1, 1};
    PyObject *number;
    hl_state *st = hl_subclass_state(op);
    if (st == NULL ||
        hl_params_parse(&params, args, nargs, kwnames, &number) < 0) {
        return NULL;
    }
    if (is_stock(st, op) && PyLong_CheckExact(number)) {
        int overflow;
        long long n = PyLong_AsLongLongAndOverflow(number, &overflow);
        if (overflow == 0 && n <= (long long)PY_SSIZE_T_MAX) {
            return hl_stream_op_new(st, &hl_op_readexactly, op, NULL,
                                    n < 0 ? -1 : (Py_ssize_t)n);
        }
    }
    return inherited(st, op, st->str_readexactly, &number, 1, NULL);
}

PyDoc_STRVAR(
    StreamReader_readline__doc__,
    "readline($self)\n--\n\n"
    "Read a line with its newline; less at the end, and then b''.\n\n"
    "Raises ValueError, and drops the line, when it is longer than the\n"
    "limit.  As asyncio's.");

static PyObject *
StreamReader_readline(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = hl_subclass_state(op);
    if (HL_UNLIKELY(st == NULL || !is_stock(st, op))) {
        return st == NULL ? NULL
                          : inherited(st, op, st->str_readline, NULL, 0, NULL);
    }
    return hl_stream_op_new(st, &hl_op_readline, op, NULL, 0);
}

PyDoc_STRVAR(
    StreamReader_readuntil__doc__,
    "readuntil($self, separator=b'\\n')\n--\n\n"
    "Read up to the separator, which is part of the result.\n\n"
    "Raises IncompleteReadError when the end comes before, and\n"
    "LimitOverrunError when the limit does: nothing is lost then.  From\n"
    "Python 3.13 on there may be a tuple of separators.  As asyncio's.");

static PyObject *
StreamReader_readuntil(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    static const char *const names[] = {"separator", NULL};
    static const hl_params params = {"readuntil", names, 1, 0};
    PyObject *separator, *arg = NULL;
    hl_state *st = hl_subclass_state(op);
    if (st == NULL ||
        hl_params_parse(&params, args, nargs, kwnames, &separator) < 0) {
        return NULL;
    }
    if (is_stock(st, op) && separator != NULL) {
        arg = hl_reader_separators(separator);
    }
    if (!is_stock(st, op) || (separator != NULL && arg == NULL)) {
        return PyErr_Occurred() ? NULL
                                : inherited(st, op, st->str_readuntil, args,
                                            nargs, kwnames);
    }
    PyObject *made = hl_stream_op_new(st, &hl_op_readuntil, op, arg, 0);
    Py_XDECREF(arg);
    return made;
}

static PyObject *
StreamReader_am_anext(PyObject *op)
{
    hl_state *st = hl_subclass_state(op);
    if (st == NULL || !is_stock(st, op)) {
        return st == NULL
                   ? NULL
                   : inherited(st, op, st->str___anext__, NULL, 0, NULL);
    }
    return hl_stream_op_new(st, &hl_op_anext, op, NULL, 0);
}

#define KEYWORDS(name)                                                       \
    {#name, HL_FASTCALL(StreamReader_##name), METH_FASTCALL | METH_KEYWORDS, \
     StreamReader_##name##__doc__}
#define NOARGS(name) \
    {#name, StreamReader_##name, METH_NOARGS, StreamReader_##name##__doc__}

static PyMethodDef StreamReader_methods[] = {
    KEYWORDS(feed_data),   NOARGS(feed_eof), KEYWORDS(set_exception),
    NOARGS(exception),     NOARGS(at_eof),   KEYWORDS(read),
    KEYWORDS(readexactly), NOARGS(readline), KEYWORDS(readuntil),
    {NULL, NULL, 0, NULL},
};

/* ---- attributes ---- */

static PyObject *
StreamReader_get_buffer(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_XNewRef(hl_reader_expose(SELF(op)));
}

/* value is NULL for `del`.  0 or -1. */
static int
refuse_delete(PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    return 0;
}

static int
StreamReader_set_buffer(PyObject *op, PyObject *value,
                        void *Py_UNUSED(closure))
{
    if (refuse_delete(value) < 0) {
        return -1;
    }
    if (!PyByteArray_Check(value)) {
        PyErr_Format(PyExc_TypeError, "_buffer must be a bytearray, not %.50s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    hl_reader_replace(SELF(op), value);
    return 0;
}

static PyObject *
StreamReader_get_limit(PyObject *op, void *Py_UNUSED(closure))
{
    if (SELF(op)->limit_value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_limit");
    }
    return Py_XNewRef(SELF(op)->limit_value);
}

static int
StreamReader_set_limit(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    return refuse_delete(value) < 0 ? -1 : set_limit(SELF(op), value);
}

static PyObject *
StreamReader_get_waiter(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *waiter = SELF(op)->waiter;
    return Py_NewRef(waiter == NULL ? Py_None : waiter);
}

static int
StreamReader_set_waiter(PyObject *op, PyObject *value,
                        void *Py_UNUSED(closure))
{
    if (refuse_delete(value) < 0) {
        return -1;
    }
    SELF(op)->need = 0;
    Py_XSETREF(SELF(op)->waiter, Py_NewRef(value));
    return 0;
}

static PyObject *
StreamReader_get_eof(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->eof);
}

static PyObject *
StreamReader_get_paused(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->paused);
}

static int
set_flag(bool *flag, PyObject *value)
{
    int is_true = refuse_delete(value) < 0 ? -1 : PyObject_IsTrue(value);
    if (is_true < 0) {
        return -1;
    }
    *flag = is_true;
    return 0;
}

static int
StreamReader_set_eof(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    return set_flag(&SELF(op)->eof, value);
}

static int
StreamReader_set_paused(PyObject *op, PyObject *value,
                        void *Py_UNUSED(closure))
{
    return set_flag(&SELF(op)->paused, value);
}

#define ATTRIBUTE(name) \
    {"_" #name, StreamReader_get_##name, StreamReader_set_##name, NULL, NULL}

static PyGetSetDef StreamReader_getset[] = {
    ATTRIBUTE(buffer), ATTRIBUTE(limit),  ATTRIBUTE(waiter),
    ATTRIBUTE(eof),    ATTRIBUTE(paused), {NULL, NULL, NULL, NULL, NULL},
};

#define MEMBER(name, field) \
    {name, T_OBJECT_EX, offsetof(hl_reader, field), 0, NULL}

static PyMemberDef StreamReader_members[] = {
    HL_SUBCLASS_MEMBER,
    MEMBER("_loop", loop),
    MEMBER("_transport", transport),
    MEMBER("_exception", exception),
    MEMBER(HL_HIDDEN "waiter", waiter),
    MEMBER(HL_HIDDEN "limit", limit_value),
    MEMBER(HL_HIDDEN "store", store),
    MEMBER(HL_HIDDEN "full", full),
    MEMBER(HL_HIDDEN "exposed", exposed),
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(StreamReader__doc__,
             "StreamReader(limit=65536, loop=None)\n--\n\n"
             "asyncio's StreamReader in C: the same API, errors and limits.");

static PyType_Slot StreamReader_slots[] = {
    {Py_tp_doc, HL_DOC(StreamReader__doc__)},
    {Py_tp_new, HL_SLOT(StreamReader_tp_new)},
    {Py_tp_init, HL_SLOT(StreamReader_tp_init)},
    {Py_tp_setattro, HL_SLOT(StreamReader_tp_setattro)},
    {Py_am_anext, HL_SLOT(StreamReader_am_anext)},
    {Py_tp_methods, StreamReader_methods},
    {Py_tp_members, StreamReader_members},
    {Py_tp_getset, StreamReader_getset},
    {0, NULL},
};

static PyType_Spec StreamReader_spec = {
    .name = "hotloop._core.StreamReader",
    .basicsize = sizeof(hl_reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = StreamReader_slots,
};

/* All that the methods in C do without asking. */
static const char *const stock_names[] = {
    "read",
    "readexactly",
    "readline",
    "readuntil",
    "__anext__",
    "feed_data",
    "feed_eof",
    "set_exception",
    "exception",
    "at_eof",
    "set_transport",
    "_maybe_resume_transport",
    "_buffer",
    "_limit",
    "_waiter",
    "_eof",
    "_paused",
    "_loop",
    "_transport",
    "_exception",
    "_wakeup_waiter",
    "_wait_for_data",
    NULL,
};

int
hl_reader_type_init(PyObject *module, hl_state *st)
{
    return hl_subclass_add_type(
        module, &st->StreamReader_type, &StreamReader_spec, st->StreamReader,
        stock_names, &st->reader_originals, &st->reader_stock);
}
