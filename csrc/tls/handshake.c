/* handshake.c - the handshake of a TLS connection, and its timeout.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "state/errors.h"
#include "state/log.h"

int
hl_tls_start_handshake(hl_tls *self)
{
    hl_state *st = hl_tls_module_state(self);
    if (hl_tls_log_debug(self, "%r starts SSL handshake") < 0) {
        return -1;
    }
    self->handshake_start = hl_loop_now();
    if (hl_tls_set_state(self, HL_TLS_HANDSHAKE) < 0) {
        return -1;
    }
    return hl_tls_start_timer(self, &self->handshake_timer,
                              self->handshake_timeout,
                              st->str__check_handshake_timeout) < 0
               ? -1
               : hl_tls_do_handshake(self);
}

int
hl_tls_check_handshake_timeout(hl_tls *self)
{
    if (self->state != HL_TLS_HANDSHAKE) {
        return 0;
    }
    PyObject *message = PyUnicode_FromFormat(
        "SSL handshake is taking longer than %S seconds: aborting the "
        "connection",
        self->handshake_timeout);
    PyObject *exc =
        message == NULL
            ? NULL
            : PyObject_CallOneArg(PyExc_ConnectionAbortedError, message);
    int rv = exc == NULL
                 ? -1
                 : hl_tls_fatal_error(self, exc, "Fatal error on transport");
    Py_XDECREF(exc);
    Py_XDECREF(message);
    return rv;
}

bool
hl_tls_is_again(hl_tls *self)
{
    hl_state *st = hl_tls_module_state(self);
    return PyErr_ExceptionMatches(st->SSLWantReadError) ||
           PyErr_ExceptionMatches(st->SSLSyscallError);
}

int
hl_tls_do_handshake(hl_tls *self)
{
    hl_state *st = hl_tls_module_state(self);
    PyObject *res = hl_tls_call_object(self, st->str_do_handshake, NULL);
    if (res != NULL) {
        Py_DECREF(res);
        return hl_tls_handshake_done(self, NULL);
    }
    if (HL_UNLIKELY(self->bio.failed)) {
        PyErr_NoMemory(); /* in the place of an end of file */
    }
    else if (hl_tls_is_again(self)) {
        PyErr_Clear();
        return hl_tls_flush(self, false);
    }
    else if (!PyErr_ExceptionMatches(st->SSLError)) {
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    int rv = hl_tls_handshake_done(self, exc);
    Py_DECREF(exc);
    return rv;
}

/* The connection is not going to be one. */
static int
handshake_failed(hl_tls *self, PyObject *exc)
{
    hl_state *st = hl_tls_module_state(self);
    self->state = HL_TLS_UNWRAPPED;
    const char *message =
        PyErr_GivenExceptionMatches(exc, st->SSLCertVerificationError)
            ? "SSL handshake failed on verifying the certificate"
            : "SSL handshake failed";
    return hl_tls_fatal_error(self, exc, message) < 0
               ? -1
               : hl_tls_wake_waiter(self, exc);
}

static int
handshake_log(hl_tls *self)
{
    if (HL_LIKELY(!hl_tls_loop(self)->debug)) {
        return 0;
    }
    hl_state *st = hl_tls_module_state(self);
    return hl_log(st, st->sslproto, "debug", NULL, "(sOd)",
                  "%r: SSL handshake took %.1f ms", self,
                  (hl_loop_now() - self->handshake_start) * 1e3);
}

/* The program hears of its connection. */
static int
handshake_call_made(hl_tls *self)
{
    if (self->app_state != HL_TLS_APP_INIT) {
        return 0;
    }
    self->app_state = HL_TLS_APP_MADE;
    /* Gone already, if something ended the connection meanwhile. */
    return hl_call_dropping(self->protocol != NULL ? self->protocol : Py_None,
                            hl_tls_module_state(self)->str_connection_made,
                            (PyObject *)self);
}

int
hl_tls_handshake_done(hl_tls *self, PyObject *exc)
{
    if (hl_tls_cancel_timer(self, &self->handshake_timer) < 0) {
        return -1;
    }
    if (exc != NULL) {
        return handshake_failed(self, exc);
    }
    PyObject *cert = NULL;
    if (hl_tls_set_state(self, HL_TLS_WRAPPED) == 0) {
        cert = hl_tls_call_object(
            self, hl_tls_module_state(self)->str_getpeercert, NULL);
    }
    if (cert == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            return -1;
        }
        exc = hl_error_fetch();
        int rv = handshake_failed(self, exc);
        Py_DECREF(exc);
        return rv;
    }
    Py_XSETREF(self->peercert, cert);
    if (handshake_log(self) < 0 || handshake_call_made(self) < 0 ||
        hl_tls_wake_waiter(self, NULL) < 0) {
        return -1;
    }
    /* What the handshake has to say, and what was written meanwhile. */
    if (self->state == HL_TLS_WRAPPED && hl_tls_flush(self, false) < 0) {
        return hl_tls_failed(self, "Fatal error on SSL protocol");
    }
    return hl_tls_do_read(self);
}
