/* extra.c - get_extra_info() of a TLS connection, and its attributes.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#define SELF(op) ((hl_tls *)(op))

static int
extra_store(hl_tls *self, const char *name, PyObject *value)
{
    if (self->layer.extra == NULL &&
        (self->layer.extra = PyDict_New()) == NULL) {
        return -1;
    }
    return PyDict_SetItemString(self->layer.extra, name, value);
}

/* object.name(), as it was when first asked for after the handshake. */
static PyObject *
extra_of_object(hl_tls *self, const char *name)
{
    PyObject *value = PyObject_CallMethod(self->object, name, NULL);
    if (value != NULL && extra_store(self, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

/* What this layer knows by this name: new reference; NULL without an
 * exception if nothing. */
static PyObject *
extra_own(hl_tls *self, PyObject *name)
{
    if (!PyUnicode_Check(name)) {
        return NULL;
    }
    if (PyUnicode_CompareWithASCIIString(name, "sslcontext") == 0) {
        return Py_XNewRef(self->context);
    }
    if (self->peercert == NULL || self->object == NULL) {
        return NULL; /* the rest is known after the handshake */
    }
    if (PyUnicode_CompareWithASCIIString(name, "ssl_object") == 0) {
        return Py_NewRef(self->object);
    }
    if (PyUnicode_CompareWithASCIIString(name, "peercert") == 0) {
        return Py_NewRef(self->peercert);
    }
    if (PyUnicode_CompareWithASCIIString(name, "cipher") == 0) {
        return extra_of_object(self, "cipher");
    }
    if (PyUnicode_CompareWithASCIIString(name, "compression") == 0) {
        return extra_of_object(self, "compression");
    }
    if (PyUnicode_CompareWithASCIIString(name, "ktls_send") == 0) {
        return PyBool_FromLong(hl_tls_kernel_sends(self));
    }
    return NULL;
}

/* What this layer knows, or was given by the program in _extra. */
static PyObject *
extra_find(hl_tls *self, PyObject *name)
{
    PyObject *value = self->layer.extra == NULL
                          ? NULL
                          : PyDict_GetItemWithError(self->layer.extra, name);
    if (value != NULL) {
        return Py_NewRef(value);
    }
    return PyErr_Occurred() ? NULL : extra_own(self, name);
}

PyObject *
hl_tls_extra_info(hl_tls *self, PyObject *name, PyObject *dflt)
{
    /* Whoever gets hold of the socket or of the object finds it all sent. */
    hl_tls_send_deferred((PyObject *)self);
    PyObject *value =
        PyObject_Hash(name) == -1 ? NULL : extra_find(self, name);
    if (value != NULL || PyErr_Occurred()) {
        return value;
    }
    if (self->lower == NULL) {
        return Py_NewRef(dflt);
    }
    PyObject *lower = Py_NewRef(self->lower);
    value = PyObject_CallMethodObjArgs(
        lower, hl_tls_module_state(self)->str_get_extra_info, name, dflt,
        NULL);
    Py_DECREF(lower);
    return value;
}

static PyObject *
value_or_none(PyObject *value)
{
    return Py_NewRef(value != NULL ? value : Py_None);
}

static PyObject *
TLS_get__extra(PyObject *op, void *Py_UNUSED(closure))
{
    static const char *const names[] = {"sslcontext", "peercert", "cipher",
                                        "compression", "ssl_object"};
    hl_tls *self = SELF(op);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        PyObject *value = name == NULL ? NULL : extra_find(self, name);
        int rv = value == NULL ? (PyErr_Occurred() ? -1 : 0)
                               : extra_store(self, names[i], value);
        Py_XDECREF(value);
        Py_XDECREF(name);
        if (rv < 0) {
            return NULL;
        }
    }
    return value_or_none(self->layer.extra);
}

static PyObject *
TLS_get__loop(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none((PyObject *)SELF(op)->layer.loop);
}

/* asyncio has two objects where this is one. */
static PyObject *
TLS_get_self(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(op);
}

/* None once the connection is lost. */
static PyObject *
TLS_get__app_transport(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(SELF(op)->protocol == NULL ? Py_None : op);
}

static PyObject *
TLS_get__transport(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->lower);
}

static PyObject *
TLS_get__app_protocol(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->protocol);
}

static PyObject *
TLS_get__sslobj(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->object);
}

static PyObject *
TLS_get__sslcontext(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->context);
}

static PyObject *
TLS_get__server_hostname(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->hostname);
}

static PyObject *
TLS_get__server_side(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->server_side);
}

static PyObject *
TLS_get__waiter(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->waiter);
}

static PyObject *
TLS_get__closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->closed);
}

static PyObject *
TLS_get__conn_lost(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(SELF(op)->conn_lost);
}

static PyObject *
TLS_get__protocol_paused(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->app_write_paused);
}

static PyObject *
TLS_get__app_reading_paused(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->app_paused);
}

static PyObject *
TLS_get__ssl_reading_paused(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->lower_paused);
}

static PyObject *
TLS_get__ssl_writing_paused(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->write_paused);
}

static PyObject *
TLS_get__eof_received(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->eof);
}

static PyObject *
TLS_get__state(PyObject *op, void *Py_UNUSED(closure))
{
    static const char *const names[] = {"UNWRAPPED", "DO_HANDSHAKE", "WRAPPED",
                                        "FLUSHING", "SHUTDOWN"};
    hl_state *st = hl_tls_module_state(SELF(op));
    PyObject *states =
        PyObject_GetAttrString(st->sslproto, "SSLProtocolState");
    PyObject *state =
        states == NULL
            ? NULL
            : PyObject_GetAttrString(states, names[SELF(op)->state]);
    Py_XDECREF(states);
    return state;
}

static PyObject *
TLS_get__engine(PyObject *op, void *Py_UNUSED(closure))
{
    const hl_tls_engine *engine = SELF(op)->engine;
    return engine == NULL ? Py_NewRef(Py_None)
                          : PyUnicode_FromString(engine->name);
}

/* Only the kernel can encrypt a file that it sends. */
static PyObject *
TLS_get__sendfile_compatible(PyObject *op, void *Py_UNUSED(closure))
{
    hl_tls *self = SELF(op);
    return PyObject_GetAttrString(hl_tls_module_state(self)->SendfileMode,
                                  hl_tls_kernel_sends(self) ? "TRY_NATIVE"
                                                            : "FALLBACK");
}

#define GETTER(name) {#name, TLS_get_##name, NULL, NULL, NULL}

PyGetSetDef hl_tls_getset[] = {
    {"_ssl_protocol", TLS_get_self, NULL, NULL, NULL},
    GETTER(_app_transport),
    GETTER(_extra),
    GETTER(_loop),
    GETTER(_transport),
    GETTER(_app_protocol),
    GETTER(_sslobj),
    GETTER(_sslcontext),
    GETTER(_server_hostname),
    GETTER(_server_side),
    GETTER(_waiter),
    GETTER(_closed),
    GETTER(_conn_lost),
    GETTER(_protocol_paused),
    {"_app_writing_paused", TLS_get__protocol_paused, NULL, NULL, NULL},
    GETTER(_app_reading_paused),
    GETTER(_ssl_reading_paused),
    GETTER(_ssl_writing_paused),
    GETTER(_eof_received),
    GETTER(_state),
    GETTER(_engine),
    GETTER(_sendfile_compatible),
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
