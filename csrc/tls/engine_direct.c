/* engine_direct.c - data by calls of OpenSSL, on the SSL of the SSLObject.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "state/errors.h"

static const hl_openssl *
direct_lib(const hl_tls *self)
{
    return hl_tls_module_state(self)->openssl;
}

int
hl_direct_feed(hl_tls *self, const char *data, size_t size)
{
    if (self->bio.lent_size > 0 && hl_bio_keep_lent(&self->bio) < 0) {
        return -1;
    }
    self->bio.lent = data;
    self->bio.lent_size = size;
    return 0;
}

int
hl_direct_settle(hl_tls *self)
{
    return HL_LIKELY(hl_bio_unread(&self->bio) == 0 && self->bio.kept == NULL)
               ? 0
               : hl_bio_keep_lent(&self->bio);
}

Py_ssize_t
hl_direct_unread(hl_tls *self)
{
    return (Py_ssize_t)hl_bio_unread(&self->bio);
}

Py_ssize_t
hl_direct_bound(hl_tls *self)
{
    /* What came, and what is left of a record that was read in part. */
    Py_ssize_t bound = (Py_ssize_t)hl_bio_unread(&self->bio) +
                       direct_lib(self)->SSL_pending(self->ssl);
    return bound > 0 && self->partial ? bound + HL_TLS_RECORD_ROOM : bound;
}

/* OpenSSL has failed: the ssl module, asked for the same, finds the error
 * where OpenSSL has left it, and makes its exception of that. */
static hl_tls_result
direct_raise(hl_tls *self, PyObject *method, PyObject *arg)
{
    hl_state *st = hl_tls_module_state(self);
    PyObject *res = arg == NULL ? NULL : hl_tls_call_object(self, method, arg);
    if (res != NULL) {
        Py_DECREF(res);
        PyErr_SetString(st->SSLError, "A failure in the SSL library occurred");
    }
    Py_XDECREF(arg);
    if (hl_tls_is_again(self)) {
        PyErr_Clear();
        return HL_TLS_AGAIN;
    }
    return HL_TLS_FAILED;
}

/* Only the BIO has failed, having nothing to read.  Asked of the connection,
 * not of OpenSSL's queue of errors, where others may have left some. */
static bool
is_waiting(const hl_openssl *lib, const hl_ssl *ssl)
{
    int want = lib->SSL_want(ssl);
    return want == HL_SSL_READING || want == HL_SSL_WRITING;
}

static hl_tls_result
direct_read(hl_tls *self, char *buffer, size_t size, size_t *got)
{
    const hl_openssl *lib = direct_lib(self);
    if (HL_UNLIKELY(self->busy)) {
        return HL_TLS_AGAIN; /* called by what OpenSSL called */
    }
    self->busy = true;
    int rv = lib->SSL_read_ex(self->ssl, buffer, size, got);
    hl_tls_leave(self, false);
    if (HL_UNLIKELY(self->engine == NULL)) {
        return rv == 1 ? HL_TLS_OK : HL_TLS_AGAIN;
    }
    if (HL_LIKELY(rv == 1)) {
        self->partial = false;
        /* A record is read whole; the next one has not begun. */
        return *got < size && hl_bio_unread(&self->bio) == 0 ? HL_TLS_AGAIN
                                                             : HL_TLS_OK;
    }
    *got = 0;
    if (is_waiting(lib, self->ssl)) {
        self->partial = true;
        return HL_TLS_AGAIN;
    }
    if (lib->SSL_get_error(self->ssl, rv) == HL_SSL_ERROR_ZERO_RETURN &&
        lib->SSL_get_shutdown(self->ssl) == HL_SSL_RECEIVED_SHUTDOWN) {
        return HL_TLS_EOF;
    }
    return direct_raise(self, hl_tls_module_state(self)->str_read,
                        PyLong_FromLong(1));
}

static hl_tls_result
direct_write(hl_tls *self, const char *data, size_t size, size_t *taken)
{
    const hl_openssl *lib = direct_lib(self);
    if (HL_UNLIKELY(self->busy)) {
        return HL_TLS_AGAIN; /* called by what OpenSSL called */
    }
    if (self->bio.out == NULL) {
        char *buffer = hl_loop_lend_buffer(hl_tls_loop(self));
        if (buffer == NULL) {
            return HL_TLS_FAILED;
        }
        hl_bio_lend_out(&self->bio, buffer, HL_BUFFER_SIZE);
    }
    self->busy = true;
    int rv = lib->SSL_write_ex(self->ssl, data, size, taken);
    hl_tls_leave(self, false);
    if (HL_LIKELY(rv == 1)) {
        return HL_TLS_OK;
    }
    *taken = 0;
    if (self->engine == NULL) {
        return HL_TLS_AGAIN;
    }
    if (self->bio.failed) {
        PyErr_NoMemory();
        return HL_TLS_FAILED;
    }
    return is_waiting(lib, self->ssl)
               ? HL_TLS_AGAIN
               : direct_raise(self, hl_tls_module_state(self)->str_write,
                              PyBytes_FromStringAndSize(data, 1));
}

Py_ssize_t
hl_direct_unsent(hl_tls *self)
{
    return (Py_ssize_t)self->bio.out_size;
}

void
hl_tls_release_out(hl_tls *self, hl_bio_out *out)
{
    hl_bio_free_out(out);
    if (out->lent != NULL) {
        hl_loop_take_back_buffer(hl_tls_loop(self), out->lent);
    }
}

static int
direct_send(hl_tls *self)
{
    if (HL_UNLIKELY(self->bio.failed)) {
        PyErr_NoMemory();
        return -1;
    }
    if (self->bio.out == NULL) {
        return 0;
    }
    hl_bio_out out = hl_bio_take_out(&self->bio);
    int rv = 0;
    if (out.size > 0) {
        rv = hl_tls_lower_write(self, out.data, out.size);
    }
    hl_tls_release_out(self, &out);
    return rv;
}

static void
direct_close(hl_tls *self)
{
    hl_bio_out out = hl_bio_take_out(&self->bio);
    hl_tls_release_out(self, &out);
    hl_bio_detach(direct_lib(self), self->ssl, &self->bio);
    hl_bio_free(&self->bio);
    self->ssl = NULL;
    Py_CLEAR(self->raw);
}

const hl_tls_engine hl_tls_direct = {
    HL_TLS_DIRECT_OPS,   .read = direct_read,   .write = direct_write,
    .send = direct_send, .close = direct_close,
};
