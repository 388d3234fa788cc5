/* shutdown.c - the end of a TLS connection that is not an error.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "state/errors.h"
#include "state/log.h"

/* So much of it sent within the timeout is worth another one, in bytes. */
#define PROGRESS (64 * 1024)

/* What the transport below has to send still. */
static size_t
lower_unsent(const hl_tls *self)
{
    return self->is_socket ? ((hl_transport *)self->lower)->queue.size : 0;
}

static int
start_timer(hl_tls *self)
{
    if (self->shutdown_timer != NULL) {
        return 0;
    }
    self->lower_left = lower_unsent(self);
    return hl_tls_start_timer(
        self, &self->shutdown_timer, self->shutdown_timeout,
        hl_tls_module_state(self)->str__check_shutdown_timeout);
}

/* All that was written goes, then what says that there is no more. */
static int
say_goodbye(hl_tls *self)
{
    if (HL_UNLIKELY(self->sending_file)) {
        self->shutdown_due = true;
        hl_tls_stop_file(self);
        return 0;
    }
    if (hl_tls_send_all(self, true) < 0) {
        return hl_tls_failed(self, "Fatal error on SSL protocol");
    }
    if (self->state != HL_TLS_FLUSHING) {
        return 0;
    }
    self->state = HL_TLS_SHUTDOWN;
    return hl_tls_do_shutdown(self);
}

/* close() of a connection that has ended while reading was paused: what was
 * not read never will be. */
static int
shutdown_unread(hl_tls *self)
{
    if (self->state != HL_TLS_FLUSHING || !self->eof || !self->app_paused ||
        self->lower == NULL) {
        return 0;
    }
    return start_timer(self) < 0 ? -1 : say_goodbye(self);
}

int
hl_tls_start_shutdown(hl_tls *self)
{
    if (self->state == HL_TLS_FLUSHING || self->state == HL_TLS_SHUTDOWN ||
        self->state == HL_TLS_UNWRAPPED) {
        return shutdown_unread(self);
    }
    self->closed = true;
    if (self->state == HL_TLS_HANDSHAKE) {
        return hl_tls_abort(self, NULL);
    }
    self->state = HL_TLS_FLUSHING;
    return start_timer(self) < 0 ? -1 : hl_tls_do_flush(self);
}

/* Has the peer read a good part of what was left when the timeout began?  A
 * trickle is no reason to wait on. */
static bool
peer_reads_on(const hl_tls *self)
{
    size_t left = self->lower_left, unsent = lower_unsent(self);
    return unsent < left && (left - unsent >= PROGRESS || unsent <= left / 2);
}

int
hl_tls_check_shutdown_timeout(hl_tls *self)
{
    if ((self->state != HL_TLS_FLUSHING && self->state != HL_TLS_SHUTDOWN) ||
        self->lower == NULL) {
        return 0;
    }
    if (self->is_closing_lower && peer_reads_on(self)) {
        Py_CLEAR(self->shutdown_timer);
        return start_timer(self);
    }
    PyObject *exc = PyObject_CallFunction(PyExc_TimeoutError, "s",
                                          "SSL shutdown timed out");
    int rv = exc == NULL ? -1 : hl_tls_lower_force_close(self, exc);
    Py_XDECREF(exc);
    return rv;
}

/* Reads what is there.  A buffer of the protocol's may take a part at a time,
 * and nothing comes after this. */
static int
read_rest(hl_tls *self)
{
    Py_ssize_t left = PY_SSIZE_T_MAX;
    for (;;) {
        if (hl_tls_do_read(self) < 0) {
            return -1;
        }
        if (self->feed != HL_FEED_BUFFER || self->engine == NULL ||
            self->state != HL_TLS_FLUSHING || self->app_paused) {
            return 0;
        }
        Py_ssize_t bound = self->engine->bound(self);
        if (bound <= 0 || bound >= left) {
            return bound < 0 ? -1 : 0;
        }
        left = bound;
    }
}

int
hl_tls_do_flush(hl_tls *self)
{
    if (read_rest(self) < 0) {
        return -1;
    }
    if (self->state != HL_TLS_FLUSHING || self->lower == NULL) {
        return 0; /* ended by a callback */
    }
    return say_goodbye(self);
}

/* The goodbye failed, as when the peer goes on sending after ours. */
static int
shutdown_failed(hl_tls *self, PyObject *exc)
{
    hl_state *st = hl_tls_module_state(self);
    if (self->lower == NULL || lower_unsent(self) == 0) {
        return hl_tls_fatal_error(self, exc, "Fatal error on transport");
    }
    /* What was written before is on its way, and is worth the wait that the
     * timeout grants; connection_lost() is told what happened. */
    Py_XSETREF(self->lost_exc, Py_NewRef(exc));
    self->is_closing_lower = true;
    return hl_tls_lower_call(self, st->str_close);
}

/* The transport below closes when it has sent everything, but not for ever:
 * the timeout runs on until connection_lost(). */
static int
shutdown_done(hl_tls *self)
{
    hl_state *st = hl_tls_module_state(self);
    if (start_timer(self) < 0 || self->lower == NULL) {
        return self->lower == NULL ? 0 : -1;
    }
    if (self->is_closing_lower) {
        return 0;
    }
    self->is_closing_lower = true;
    return hl_tls_call_soon(self, self->lower, st->str_close);
}

/* sslobj.unwrap(): 1 if both sides are done, 0 if the peer is not, -1 with an
 * exception. */
static int
unwrap(hl_tls *self)
{
    PyObject *res =
        hl_tls_call_object(self, hl_tls_module_state(self)->str_unwrap, NULL);
    if (res != NULL) {
        Py_DECREF(res);
        return 1;
    }
    if (HL_UNLIKELY(self->bio.failed)) {
        PyErr_NoMemory(); /* in the place of what ssl makes of it */
        return -1;
    }
    if (!hl_tls_is_again(self)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

int
hl_tls_do_shutdown(hl_tls *self)
{
    int done = self->eof ? 1 : unwrap(self);
    if (done < 0) {
        if (!self->bio.failed &&
            !PyErr_ExceptionMatches(hl_tls_module_state(self)->SSLError)) {
            return -1;
        }
        PyObject *exc = hl_error_fetch();
        int rv = shutdown_failed(self, exc);
        Py_DECREF(exc);
        return rv;
    }
    if (hl_tls_flush(self, true) < 0) {
        return -1;
    }
    if (!done) {
        return 0;
    }
    return hl_tls_call_eof_received(self) < 0 ? -1 : shutdown_done(self);
}

int
hl_tls_call_eof_received(hl_tls *self)
{
    if (self->app_state != HL_TLS_APP_MADE || self->protocol == NULL) {
        return 0;
    }
    hl_state *st = hl_tls_module_state(self);
    self->app_state = HL_TLS_APP_EOF;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *res = PyObject_CallMethodNoArgs(protocol, st->str_eof_received);
    Py_DECREF(protocol);
    int keep_open = res == NULL ? -1 : PyObject_IsTrue(res);
    Py_XDECREF(res);
    if (keep_open > 0) {
        return hl_log(st, st->sslproto, "warning", NULL, "(s)",
                      "returning true from eof_received() has no effect when "
                      "using ssl");
    }
    if (keep_open == 0) {
        return 0;
    }
    if (hl_error_is_exit()) {
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    int rv = hl_tls_fatal_error(self, exc, "Error calling eof_received()");
    Py_DECREF(exc);
    return rv;
}
