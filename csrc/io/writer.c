/* writer.c - StreamWriter: asyncio's with what is hot in C.
 *
 * write() goes straight to a transport of ours; drain() that need not wait
 * ends where it began.  The rest is asyncio's.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/writer.h"

#include "base/args.h"
#include "io/reader_ops.h"
#include "io/stream.h"

#include <stddef.h>

#define SELF(op) ((hl_writer *)(op))

/* The transport if it is one whose methods need not be looked up; borrowed. */
static inline hl_transport *
direct_transport(hl_state *st, hl_writer *self)
{
    PyObject *op = self->transport;
    if (HL_UNLIKELY(op == NULL || !Py_IS_TYPE(op, st->SocketTransport_type) ||
                    ((hl_transport *)op)->dict != NULL)) {
        return NULL;
    }
    return hl_stock_check(&st->transport_stock, st->SocketTransport_type)
               ? (hl_transport *)op
               : NULL;
}

static inline bool
is_stock(hl_state *st, PyObject *op)
{
    return hl_subclass_is_stock(op, &st->writer_stock);
}

/* self._transport, or AttributeError.  New reference. */
static PyObject *
get_transport(hl_writer *self)
{
    if (self->transport == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_transport");
    }
    return Py_XNewRef(self->transport);
}

/* self._transport.name(arg); arg may be NULL.  New reference or NULL. */
static PyObject *
call_transport(hl_writer *self, PyObject *name, PyObject *arg)
{
    PyObject *transport = get_transport(self);
    if (transport == NULL) {
        return NULL;
    }
    PyObject *res = arg == NULL
                        ? PyObject_CallMethodNoArgs(transport, name)
                        : PyObject_CallMethodOneArg(transport, name, arg);
    Py_DECREF(transport);
    return res;
}

/* ---- drain() ---- */

/* The reader's exception: new reference, None if there is none; or NULL. */
static PyObject *
drain_exception(hl_state *st, hl_writer *self)
{
    PyObject *reader = self->reader;
    if (reader == NULL || reader == Py_None) {
        return Py_NewRef(Py_None);
    }
    if (HL_LIKELY(hl_reader_check(st, reader))) {
        PyObject *exc = ((hl_reader *)reader)->exception;
        return Py_NewRef(exc == NULL ? Py_None : exc);
    }
    Py_INCREF(reader);
    PyObject *exc = PyObject_CallMethodNoArgs(reader, st->str_exception);
    Py_DECREF(reader);
    return exc;
}

/* self._transport.is_closing(): 1, 0 or -1. */
static int
drain_is_closing(hl_state *st, hl_writer *self)
{
    hl_transport *transport = direct_transport(st, self);
    if (HL_LIKELY(transport != NULL)) {
        return transport->closing;
    }
    PyObject *res = call_transport(self, st->str_is_closing, NULL);
    int closing = res == NULL ? -1 : PyObject_IsTrue(res);
    Py_XDECREF(res);
    return closing;
}

/* await self._protocol._drain_helper() */
static int
drain_helper(hl_stream_op *op, PyObject **result)
{
    hl_state *st = op->st;
    PyObject *protocol = SELF(op->owner)->protocol;
    if (protocol != NULL && hl_stream_protocol_check(st, protocol)) {
        hl_stream_protocol *ours = (hl_stream_protocol *)protocol;
        if (HL_UNLIKELY(ours->connection_lost)) {
            PyErr_SetString(PyExc_ConnectionResetError, "Connection lost");
            return -1;
        }
        if (HL_LIKELY(!ours->paused)) {
            *result = Py_NewRef(Py_None);
            return 1;
        }
    }
    Py_XINCREF(protocol);
    PyObject *helper = PyObject_CallMethodNoArgs(
        protocol == NULL ? Py_None : protocol, st->str__drain_helper);
    Py_XDECREF(protocol);
    op->waited = true;
    int rv = helper == NULL ? -1 : hl_stream_op_await(op, helper);
    Py_XDECREF(helper);
    return rv;
}

static int
drain_begin(hl_stream_op *op, PyObject **result)
{
    hl_writer *self = SELF(op->owner);
    PyObject *exc = drain_exception(op->st, self);
    if (HL_UNLIKELY(exc != Py_None)) {
        if (exc != NULL) {
            (void)hl_stream_raise(exc);
            Py_DECREF(exc);
        }
        return -1;
    }
    Py_DECREF(exc);
    int closing = drain_is_closing(op->st, self);
    if (closing != 0) {
        /* Yields once, so that connection_lost() may be called: who writes
         * and drains in a loop would not see an error otherwise. */
        return closing < 0 ? -1 : 0;
    }
    return drain_helper(op, result);
}

static int
drain_go_on(hl_stream_op *op, PyObject **result)
{
    if (op->waited) {
        *result = Py_NewRef(Py_None);
        return 1;
    }
    return drain_helper(op, result);
}

static const hl_stream_op_kind op_drain = {
    .name = "drain",
    .qualname = "StreamWriter.drain",
    .begin = drain_begin,
    .go_on = drain_go_on,
};

PyDoc_STRVAR(StreamWriter_drain__doc__,
             "drain($self)\n--\n\n"
             "Wait until it is reasonable to write more.\n\n"
             "Raises what the connection was lost with.  As asyncio's.");

static PyObject *
StreamWriter_drain(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = hl_subclass_state(op);
    if (HL_UNLIKELY(st == NULL || !is_stock(st, op))) {
        return st == NULL
                   ? NULL
                   : hl_subclass_inherited(st->StreamWriter, st->str_drain, op,
                                           NULL, 0, NULL);
    }
    return hl_stream_op_new(st, &op_drain, op, NULL, 0);
}

/* ---- writing ---- */

PyDoc_STRVAR(StreamWriter_write__doc__,
             "write($self, data)\n--\n\n"
             "Write to the transport; drain() should follow.");

static PyObject *
StreamWriter_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    static const char *const names[] = {"data", NULL};
    static const hl_params params = {"write", names, 1, 1};
    PyObject *data;
    hl_state *st = hl_subclass_state(op);
    if (st == NULL ||
        hl_params_parse(&params, args, nargs, kwnames, &data) < 0) {
        return NULL;
    }
    hl_transport *transport = direct_transport(st, SELF(op));
    if (HL_LIKELY(transport != NULL)) {
        Py_INCREF(transport);
        int rv = hl_transport_write(transport, data);
        Py_DECREF(transport);
        return hl_none_or_null(rv);
    }
    PyObject *res = call_transport(SELF(op), st->str_write, data);
    Py_XDECREF(res);
    return hl_none_or_null(res == NULL ? -1 : 0);
}

PyDoc_STRVAR(StreamWriter_writelines__doc__,
             "writelines($self, data)\n--\n\n"
             "Write an iterable of bytes-like objects.");

static PyObject *
StreamWriter_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames)
{
    static const char *const names[] = {"data", NULL};
    static const hl_params params = {"writelines", names, 1, 1};
    PyObject *data;
    hl_state *st = hl_subclass_state(op);
    if (st == NULL ||
        hl_params_parse(&params, args, nargs, kwnames, &data) < 0) {
        return NULL;
    }
    PyObject *res = call_transport(SELF(op), st->str_writelines, data);
    Py_XDECREF(res);
    return hl_none_or_null(res == NULL ? -1 : 0);
}

PyDoc_STRVAR(StreamWriter_close__doc__,
             "close($self)\n--\n\n"
             "Close the transport; wait_closed() should follow.");

static PyObject *
StreamWriter_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = hl_subclass_state(op);
    return st == NULL ? NULL : call_transport(SELF(op), st->str_close, NULL);
}

PyDoc_STRVAR(StreamWriter_is_closing__doc__,
             "is_closing($self)\n--\n\n"
             "Return True if the transport is closing or closed.");

static PyObject *
StreamWriter_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = hl_subclass_state(op);
    return st == NULL ? NULL
                      : call_transport(SELF(op), st->str_is_closing, NULL);
}

#define KEYWORDS(name)                                                       \
    {#name, HL_FASTCALL(StreamWriter_##name), METH_FASTCALL | METH_KEYWORDS, \
     StreamWriter_##name##__doc__}
#define NOARGS(name) \
    {#name, StreamWriter_##name, METH_NOARGS, StreamWriter_##name##__doc__}

static PyMethodDef StreamWriter_methods[] = {
    NOARGS(drain), KEYWORDS(write),    KEYWORDS(writelines),
    NOARGS(close), NOARGS(is_closing), {NULL, NULL, 0, NULL},
};

/* ---- the type ---- */

static int
StreamWriter_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"transport", "protocol", "reader",
                                        "loop", NULL};
    PyObject *given[4];
    hl_state *st = hl_subclass_state(op);
    if (st == NULL || hl_subclass_parse_init("StreamWriter", names, 4, args,
                                             kwargs, given) < 0) {
        return -1;
    }
    hl_writer *self = SELF(op);
    Py_XSETREF(self->transport, Py_NewRef(given[0]));
    Py_XSETREF(self->protocol, Py_NewRef(given[1]));
    int known = given[2] == Py_None
                    ? 1
                    : PyObject_IsInstance(given[2], st->StreamReader);
    if (known <= 0) {
        if (known == 0) {
            PyErr_SetNone(PyExc_AssertionError);
        }
        return -1;
    }
    Py_XSETREF(self->reader, Py_NewRef(given[2]));
    Py_XSETREF(self->loop, Py_NewRef(given[3]));
    Py_CLEAR(self->complete);
    return 0;
}

static int
StreamWriter_tp_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    hl_state *st = hl_subclass_state(op);
    return st == NULL
               ? -1
               : hl_subclass_setattr(op, name, value, &st->writer_stock);
}

/* A future that is done, which nothing in asyncio looks at any more. */
static PyObject *
StreamWriter_get_complete(PyObject *op, void *Py_UNUSED(closure))
{
    hl_writer *self = SELF(op);
    hl_state *st = hl_subclass_state(op);
    if (st == NULL) {
        return NULL;
    }
    if (self->complete == NULL) {
        PyObject *loop = Py_NewRef(self->loop == NULL ? Py_None : self->loop);
        PyObject *fut = PyObject_CallMethodNoArgs(loop, st->str_create_future);
        Py_DECREF(loop);
        if (fut == NULL ||
            hl_future_set_result_unless_done(st, fut, Py_None) < 0) {
            Py_XDECREF(fut);
            return NULL;
        }
        Py_XSETREF(self->complete, fut);
    }
    return Py_NewRef(self->complete);
}

static int
StreamWriter_set_complete(PyObject *op, PyObject *value,
                          void *Py_UNUSED(closure))
{
    Py_XSETREF(SELF(op)->complete, Py_XNewRef(value));
    return 0;
}

static PyGetSetDef StreamWriter_getset[] = {
    {"_complete_fut", StreamWriter_get_complete, StreamWriter_set_complete,
     NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define MEMBER(name, field) \
    {name, T_OBJECT_EX, offsetof(hl_writer, field), 0, NULL}

static PyMemberDef StreamWriter_members[] = {
    HL_SUBCLASS_MEMBER,
    MEMBER("_transport", transport),
    MEMBER("_protocol", protocol),
    MEMBER("_reader", reader),
    MEMBER("_loop", loop),
    MEMBER(HL_HIDDEN "complete", complete),
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(StreamWriter__doc__,
             "StreamWriter(transport, protocol, reader, loop)\n--\n\n"
             "asyncio's StreamWriter in C: the same API and errors.");

static PyType_Slot StreamWriter_slots[] = {
    {Py_tp_doc, HL_DOC(StreamWriter__doc__)},
    {Py_tp_new, HL_SLOT(hl_subclass_new)},
    {Py_tp_init, HL_SLOT(StreamWriter_tp_init)},
    {Py_tp_setattro, HL_SLOT(StreamWriter_tp_setattro)},
    {Py_tp_methods, StreamWriter_methods},
    {Py_tp_members, StreamWriter_members},
    {Py_tp_getset, StreamWriter_getset},
    {0, NULL},
};

static PyType_Spec StreamWriter_spec = {
    .name = "hotloop._core.StreamWriter",
    .basicsize = sizeof(hl_writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = StreamWriter_slots,
};

static const char *const stock_names[] = {
    "drain", "_transport", "_protocol", "_reader", NULL,
};

static const char *const transport_names[] = {"write", "is_closing", NULL};

int
hl_writer_type_init(PyObject *module, hl_state *st)
{
    if (hl_subclass_add_type(module, &st->StreamWriter_type,
                             &StreamWriter_spec, st->StreamWriter, stock_names,
                             &st->writer_originals, &st->writer_stock) < 0) {
        return -1;
    }
    return hl_stock_init(&st->transport_stock, &st->transport_originals,
                         st->SocketTransport_type, NULL, transport_names);
}
