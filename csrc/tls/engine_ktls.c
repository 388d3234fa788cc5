/* engine_ktls.c - the direct engine where the kernel may encrypt.
 *
 * Until it does nothing is different.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/ktls.h"
#include "tls/tls.h"

bool
hl_tls_kernel_sends(const hl_tls *self)
{
    return self->bio.ktls != NULL && self->bio.ktls->active && self->is_socket;
}

/* Sends a part of what is to be sent. */
static int
send_part(hl_tls *self, const hl_bio_out *out, size_t start, size_t end)
{
    return start == end
               ? 0
               : hl_tls_lower_write(self, out->data + start, end - start);
}

static int
send_record(hl_tls *self, const hl_bio_out *out, const hl_ktls_record *record)
{
    if (!self->is_socket) {
        return 0; /* gone, or replaced by one without a kernel */
    }
    PyObject *lower = Py_NewRef(self->lower);
    int rv = hl_ktls_write_record((hl_transport *)lower, record->type,
                                  out->data + record->start, record->size);
    Py_DECREF(lower);
    return rv;
}

/* Sending may call the program, which may write, or end the connection. */
static int
ktls_send(hl_tls *self)
{
    hl_ktls *ktls = self->bio.ktls;
    if (HL_LIKELY(ktls->count == 0) || self->bio.failed) {
        return hl_tls_direct.send(self);
    }
    hl_ktls_record *records = ktls->records;
    size_t count = ktls->count, done = 0;
    ktls->records = NULL;
    ktls->count = ktls->room = 0;
    hl_bio_out out = hl_bio_take_out(&self->bio);
    int rv = 0;
    for (size_t i = 0; i < count && rv == 0; i++) {
        rv = send_part(self, &out, done, records[i].start);
        if (rv == 0) {
            rv = send_record(self, &out, &records[i]);
        }
        done = records[i].start + records[i].size;
    }
    if (rv == 0) {
        rv = send_part(self, &out, done, out.size);
    }
    PyMem_RawFree(records);
    hl_tls_release_out(self, &out);
    return rv;
}

/* The peer is told that this is the end, and so is the program. */
static hl_tls_result
refuse_keys(hl_tls *self)
{
    hl_state *st = hl_tls_module_state(self);
    PyErr_Clear();
    st->openssl->ERR_clear_error();
    if (ktls_send(self) == 0) {
        PyErr_SetString(st->SSLError, "the peer asks for new keys, which "
                                      "kernel TLS does not support");
    }
    return HL_TLS_FAILED;
}

static hl_tls_result
check_refused(hl_tls *self, hl_tls_result result)
{
    return HL_UNLIKELY(result != HL_TLS_OK && self->engine != NULL &&
                       self->bio.ktls->refused)
               ? refuse_keys(self)
               : result;
}

int
hl_tls_check_keys(hl_tls *self)
{
    const hl_openssl *lib = hl_tls_module_state(self)->openssl;
    if (!hl_tls_kernel_sends(self) ||
        lib->SSL_get_key_update_type(self->ssl) == HL_SSL_KEY_UPDATE_NONE) {
        return 0;
    }
    hl_ktls_refuse(&self->bio);
    (void)refuse_keys(self);
    return -1;
}

static hl_tls_result
ktls_read(hl_tls *self, char *buffer, size_t size, size_t *got)
{
    return check_refused(self, hl_tls_direct.read(self, buffer, size, got));
}

static hl_tls_result
ktls_write(hl_tls *self, const char *data, size_t size, size_t *taken)
{
    return check_refused(self, hl_tls_direct.write(self, data, size, taken));
}

void
hl_tls_forget_ktls(hl_tls *self)
{
    hl_ktls_free(self->bio.ktls);
    self->bio.ktls = NULL;
}

static void
ktls_close(hl_tls *self)
{
    hl_tls_direct.close(self);
    hl_tls_forget_ktls(self);
}

int
hl_tls_use_ktls(hl_tls *self, const hl_ssl *ssl)
{
    const hl_openssl *lib = hl_tls_module_state(self)->openssl;
    if (!hl_ktls_is_wanted(lib, ssl)) {
        return 0;
    }
    self->bio.ktls = hl_ktls_new();
    return self->bio.ktls == NULL ? -1 : 1;
}

void
hl_tls_set_kernel_below(hl_tls *self)
{
    hl_ktls *ktls = self->bio.ktls;
    if (ktls == NULL) {
        return;
    }
    const hl_transport *lower =
        self->is_socket ? (const hl_transport *)self->lower : NULL;
    if (ktls->active && ktls->lower != lower) {
        /* Plaintext is for the socket alone that encrypts it. */
        ktls->refused = true;
    }
    ktls->lower = lower;
}

const hl_tls_engine hl_tls_direct_ktls = {
    HL_TLS_DIRECT_OPS, .read = ktls_read,   .write = ktls_write,
    .send = ktls_send, .close = ktls_close,
};
