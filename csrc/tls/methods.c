/* methods.c - SSLTransport as the transport of the program's protocol.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "base/args.h"

#define SELF(op) ((hl_tls *)(op))

static PyObject *
TLS_get_extra_info(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    static const char *const names[] = {"name", "default", NULL};
    static const hl_params params = {"get_extra_info", names, 2, 1};
    PyObject *values[2];
    if (hl_params_parse(&params, args, nargs, kwnames, values) < 0) {
        return NULL;
    }
    return hl_tls_extra_info(SELF(op), values[0],
                             values[1] != NULL ? values[1] : Py_None);
}

PyDoc_STRVAR(TLS_get_extra_info__doc__,
             "get_extra_info($self, name, default=None)\n--\n\n"
             "Return 'ssl_object', 'sslcontext', 'peercert', 'cipher',\n"
             "'compression' or 'ktls_send' (True if the kernel encrypts), or "
             "what\n"
             "the transport below knows by the name.");

static PyObject *
TLS_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    static const char *const names[] = {"protocol", NULL};
    static const hl_params params = {"set_protocol", names, 1, 1};
    PyObject *protocol;
    if (hl_params_parse(&params, args, nargs, kwnames, &protocol) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_tls_set_protocol(SELF(op), protocol));
}

PyDoc_STRVAR(TLS_set_protocol__doc__,
             "set_protocol($self, protocol)\n--\n\n"
             "Have another protocol called from now on.");

static PyObject *
TLS_get_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = SELF(op)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

PyDoc_STRVAR(TLS_get_protocol__doc__,
             "get_protocol($self)\n--\n\n"
             "Return the protocol, None after connection_lost().");

static PyObject *
TLS_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    if (!self->closed && self->lower != NULL &&
        hl_tls_module_state(self)->release.tls_looks_below) {
        return PyObject_CallMethod(self->lower, "is_closing", NULL);
    }
    return PyBool_FromLong(self->closed);
}

PyDoc_STRVAR(TLS_is_closing__doc__,
             "is_closing($self)\n--\n\n"
             "Return True if the transport is closing or closed.");

static PyObject *
TLS_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    if (self->closed) {
        hl_tls_forget(self);
        Py_RETURN_NONE;
    }
    self->closed = true;
    return hl_none_or_null(hl_tls_start_shutdown(self));
}

PyDoc_STRVAR(
    TLS_close__doc__,
    "close($self)\n--\n\n"
    "Send what is buffered, say goodbye to the peer, then call\n"
    "connection_lost(None).  Takes ssl_shutdown_timeout seconds at most.");

static PyObject *
TLS__force_close(PyObject *op, PyObject *exc)
{
    SELF(op)->closed = true;
    return hl_none_or_null(
        hl_tls_abort(SELF(op), exc == Py_None ? NULL : exc));
}

static PyObject *
TLS_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return TLS__force_close(op, Py_None);
}

PyDoc_STRVAR(TLS_abort__doc__, "abort($self)\n--\n\n"
                               "Close at once; buffered data is lost.");

static PyObject *
TLS_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!SELF(op)->app_paused);
}

PyDoc_STRVAR(TLS_is_reading__doc__,
             "is_reading($self)\n--\n\n"
             "Return True unless paused by pause_reading().");

static PyObject *
TLS_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    SELF(op)->app_paused = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(TLS_pause_reading__doc__,
             "pause_reading($self)\n--\n\n"
             "Hand nothing to the protocol until resume_reading().");

/* The next turn after resume_reading(). */
static PyObject *
TLS__do_resume(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    if (self->state == HL_TLS_HANDSHAKE || self->lower == NULL) {
        Py_RETURN_NONE;
    }
    return hl_none_or_null(hl_tls_advance(self));
}

static PyObject *
TLS_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    if (!self->app_paused) {
        Py_RETURN_NONE;
    }
    self->app_paused = false;
    return hl_none_or_null(
        hl_tls_call_soon(self, op, hl_tls_module_state(self)->str__do_resume));
}

PyDoc_STRVAR(TLS_resume_reading__doc__,
             "resume_reading($self)\n--\n\n"
             "Hand over again what comes, after pause_reading().");

/* The limits of one direction, and what follows from them. */
static int
limits_set(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           const char *method, long dflt, PyObject *values[2],
           Py_ssize_t sizes[2])
{
    static const char *const names[] = {"high", "low", NULL};
    const hl_params params = {method, names, 2, 0};
    PyObject *given[2], *parsed[2];
    if (hl_params_parse(&params, args, nargs, kwnames, given) < 0 ||
        hl_flow_parse_limits(given[0], given[1], dflt, parsed, sizes) < 0) {
        return -1;
    }
    Py_XSETREF(values[0], parsed[0]);
    Py_XSETREF(values[1], parsed[1]);
    return 0;
}

static PyObject *
limits_get(PyObject *const values[2], const Py_ssize_t sizes[2])
{
    if (values[0] != NULL) {
        return PyTuple_Pack(2, values[1], values[0]);
    }
    return Py_BuildValue("(nn)", sizes[1], sizes[0]);
}

static PyObject *
TLS_set_write_buffer_limits(PyObject *op, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames)
{
    hl_tls *self = SELF(op);
    hl_tls_send_deferred(op);
    if (limits_set(args, nargs, kwnames, "set_write_buffer_limits", 512 * 1024,
                   self->write_values, self->write_sizes) < 0) {
        return NULL;
    }
    /* A transport closed twice is as good as gone, as it is in asyncio. */
    return hl_none_or_null(self->forgotten ? 0 : hl_tls_control_writing(self));
}

PyDoc_STRVAR(
    TLS_set_write_buffer_limits__doc__,
    "set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
    "Set when pause_writing() and resume_writing() are called, in bytes.\n\n"
    "Defaults: high is 524288 or four times low, low is a quarter of high.\n"
    "Raises ValueError unless high >= low >= 0.");

static PyObject *
TLS_get_write_buffer_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return limits_get(SELF(op)->write_values, SELF(op)->write_sizes);
}

PyDoc_STRVAR(TLS_get_write_buffer_limits__doc__,
             "get_write_buffer_limits($self)\n--\n\n"
             "Return (low, high) in bytes.");

static PyObject *
TLS_get_write_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    hl_tls_send_deferred(op);
    Py_ssize_t size = hl_tls_unsent(self);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(TLS_get_write_buffer_size__doc__,
             "get_write_buffer_size($self)\n--\n\n"
             "Return how many bytes the transport below has not taken yet.");

static PyObject *
TLS_set_read_buffer_limits(PyObject *op, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames)
{
    hl_tls *self = SELF(op);
    if (limits_set(args, nargs, kwnames, "set_read_buffer_limits", 256 * 1024,
                   self->read_values, self->read_sizes) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_tls_control_reading(self));
}

PyDoc_STRVAR(
    TLS_set_read_buffer_limits__doc__,
    "set_read_buffer_limits($self, high=None, low=None)\n--\n\n"
    "Set how much ciphertext may wait before receiving pauses, in bytes.\n\n"
    "Defaults: high is 262144 or four times low, low is a quarter of high.\n"
    "Raises ValueError unless high >= low >= 0.");

static PyObject *
TLS_get_read_buffer_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return limits_get(SELF(op)->read_values, SELF(op)->read_sizes);
}

PyDoc_STRVAR(TLS_get_read_buffer_limits__doc__,
             "get_read_buffer_limits($self)\n--\n\n"
             "Return (low, high) in bytes.");

static PyObject *
TLS_get_read_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    Py_ssize_t size = self->engine == NULL ? 0 : self->engine->unread(self);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(TLS_get_read_buffer_size__doc__,
             "get_read_buffer_size($self)\n--\n\n"
             "Return how many bytes of ciphertext are not decrypted yet.");

static PyObject *
TLS_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames)
{
    static const char *const names[] = {"data", NULL};
    static const hl_params params = {"write", names, 1, 1};
    PyObject *data;
    if (hl_params_parse(&params, args, nargs, kwnames, &data) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_tls_write(SELF(op), data));
}

PyDoc_STRVAR(
    TLS_write__doc__,
    "write($self, data)\n--\n\n"
    "Encrypt and send bytes, a bytearray or a memoryview; never blocks.\n\n"
    "Several writes of one turn of the loop leave together.  Raises "
    "TypeError\n"
    "for other types; after close() data is dropped.");

static PyObject *
TLS_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const char *const names[] = {"list_of_data", NULL};
    static const hl_params params = {"writelines", names, 1, 1};
    PyObject *list;
    if (hl_params_parse(&params, args, nargs, kwnames, &list) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_tls_writelines(SELF(op), list));
}

PyDoc_STRVAR(TLS_writelines__doc__,
             "writelines($self, list_of_data)\n--\n\n"
             "Write an iterable of bytes-like objects.");

static PyObject *
TLS_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

PyDoc_STRVAR(TLS_write_eof__doc__,
             "write_eof($self)\n--\n\n"
             "Raise NotImplementedError: TLS ends both directions at once.");

static PyObject *
TLS_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

PyDoc_STRVAR(TLS_can_write_eof__doc__, "can_write_eof($self)\n--\n\n"
                                       "Return False.");

#define METHOD(name) {#name, TLS_##name, METH_NOARGS, TLS_##name##__doc__}
#define KEYWORDS(name)                                              \
    {#name, HL_FASTCALL(TLS_##name), METH_FASTCALL | METH_KEYWORDS, \
     TLS_##name##__doc__}

PyMethodDef hl_tls_transport_methods[] = {
    KEYWORDS(get_extra_info),
    KEYWORDS(set_protocol),
    METHOD(get_protocol),
    METHOD(is_closing),
    METHOD(close),
    METHOD(abort),
    METHOD(is_reading),
    METHOD(pause_reading),
    METHOD(resume_reading),
    KEYWORDS(set_write_buffer_limits),
    METHOD(get_write_buffer_limits),
    METHOD(get_write_buffer_size),
    KEYWORDS(set_read_buffer_limits),
    METHOD(get_read_buffer_limits),
    METHOD(get_read_buffer_size),
    KEYWORDS(write),
    KEYWORDS(writelines),
    METHOD(write_eof),
    METHOD(can_write_eof),
    {"_force_close", TLS__force_close, METH_O,
     "_force_close($self, exc, /)\n--\n\n"},
    {"_do_resume", TLS__do_resume, METH_NOARGS, "_do_resume($self)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};
