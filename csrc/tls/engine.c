/* engine.c - making the ssl.SSLObject, and choosing how data goes through it.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

/* context.wrap_bio(incoming, outgoing, server_side=..., server_hostname=...):
 * the arguments that the object is verified with are the ssl module's to
 * understand. */
static PyObject *
wrap_bio(hl_tls *self)
{
    PyObject *object = NULL;
    PyObject *method = PyObject_GetAttrString(self->context, "wrap_bio");
    PyObject *args = Py_BuildValue("(OO)", self->incoming, self->outgoing);
    PyObject *kwargs = Py_BuildValue(
        "{sOsO}", "server_side", self->server_side ? Py_True : Py_False,
        "server_hostname", self->hostname != NULL ? self->hostname : Py_None);
    if (method != NULL && args != NULL && kwargs != NULL) {
        object = PyObject_Call(method, args, kwargs);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(method);
    return object;
}

/* Is obj.name what SSLObject had by that name at import?  An exception counts
 * as no. */
static bool
method_is_stock(PyObject *obj, PyObject *name, PyObject *stock)
{
    PyObject *method = PyObject_GetAttr(obj, name);
    bool same = method != NULL && PyMethod_Check(method) &&
                PyMethod_GET_FUNCTION(method) == stock &&
                PyMethod_GET_SELF(method) == obj;
    Py_XDECREF(method);
    PyErr_Clear();
    return same;
}

/* A message callback is Python code that OpenSSL calls in the middle of
 * everything, and whose exceptions the ssl module raises afterwards. */
static bool
has_message_callback(PyObject *object)
{
    PyObject *context = PyObject_GetAttrString(object, "context");
    PyObject *callback =
        context == NULL ? NULL
                        : PyObject_GetAttrString(context, "_msg_callback");
    bool has = callback != Py_None;
    Py_XDECREF(callback);
    Py_XDECREF(context);
    PyErr_Clear();
    return has;
}

/* The SSL in object if data may go past its methods, or NULL; *raw is what
 * keeps it, a new reference. */
static hl_ssl *
find_ssl(hl_tls *self, PyObject *object, PyObject **raw)
{
    hl_state *st = hl_tls_module_state(self);
    if (st->openssl == NULL ||
        !method_is_stock(object, st->str_read, st->sslobject_read) ||
        !method_is_stock(object, st->str_write, st->sslobject_write) ||
        has_message_callback(object)) {
        return NULL;
    }
    *raw = PyObject_GetAttrString(object, "_sslobj");
    hl_ssl *ssl = *raw == NULL ? NULL : hl_openssl_ssl_of(st, *raw);
    if (ssl == NULL) {
        Py_CLEAR(*raw);
    }
    PyErr_Clear();
    return ssl;
}

int
hl_tls_open(hl_tls *self)
{
    hl_state *st = hl_tls_module_state(self);
    if (hl_openssl_load(st) < 0) {
        return -1;
    }
    self->incoming = PyObject_CallNoArgs(st->MemoryBIO);
    self->outgoing =
        self->incoming == NULL ? NULL : PyObject_CallNoArgs(st->MemoryBIO);
    if (self->outgoing == NULL || (self->object = wrap_bio(self)) == NULL) {
        return -1;
    }
    PyObject *raw = NULL;
    hl_ssl *ssl = find_ssl(self, self->object, &raw);
    if (ssl == NULL) {
        self->engine = &hl_tls_object;
        return 0;
    }
    int ktls = hl_tls_use_ktls(self, ssl);
    if (ktls < 0 || hl_bio_attach(st->openssl, ssl, &self->bio) < 0) {
        hl_tls_forget_ktls(self);
        Py_DECREF(raw);
        return -1;
    }
    self->raw = raw;
    self->ssl = ssl;
    self->engine = ktls ? &hl_tls_direct_ktls : &hl_tls_direct;
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->outgoing);
    return 0;
}
