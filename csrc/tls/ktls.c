/* ktls.c - leaving the encryption of a connection to the kernel.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/ktls.h"

#include <string.h>

/* The handshake message that announces new keys of the sender. */
#define KEY_UPDATE 24

bool
hl_ktls_is_wanted(const hl_openssl *lib, const hl_ssl *ssl)
{
    return lib->OpenSSL_version_num() >= HL_OPENSSL_3_0 &&
           (lib->SSL_get_options(ssl) & HL_SSL_OP_ENABLE_KTLS) != 0;
}

hl_ktls *
hl_ktls_new(void)
{
    hl_ktls *ktls = PyMem_RawCalloc(1, sizeof(*ktls));
    if (ktls == NULL) {
        PyErr_NoMemory();
    }
    return ktls;
}

void
hl_ktls_free(hl_ktls *ktls)
{
    if (ktls != NULL) {
        PyMem_RawFree(ktls->records);
        PyMem_RawFree(ktls);
    }
}

bool
hl_ktls_begin(hl_bio_data *data, const void *info)
{
    hl_ktls *ktls = data->ktls;
    if (ktls->lower == NULL || ktls->active || data->failed) {
        return false;
    }
    size_t unsent = data->out_size;
    ktls->active = hl_ktls_start(ktls->lower, data->out, &unsent, info);
    if (unsent > 0 && unsent < data->out_size) {
        memmove(data->out, data->out + data->out_size - unsent, unsent);
    }
    data->out_size = unsent;
    return ktls->active;
}

static bool
record_add(hl_ktls *ktls, size_t start, size_t size, unsigned char type)
{
    if (ktls->count == ktls->room) {
        size_t room = Py_MAX(4, 2 * ktls->room);
        hl_ktls_record *records =
            PyMem_RawRealloc(ktls->records, room * sizeof(*records));
        if (records == NULL) {
            return false;
        }
        ktls->records = records;
        ktls->room = room;
    }
    ktls->records[ktls->count++] = (hl_ktls_record){start, size, type};
    return true;
}

static bool
put_record(hl_bio_data *data, const char *bytes, size_t size,
           unsigned char type)
{
    size_t start = data->out_size;
    if (!hl_bio_put(data, bytes, size)) {
        return false;
    }
    if (!record_add(data->ktls, start, size, type)) {
        data->failed = true;
        return false;
    }
    return true;
}

void
hl_ktls_refuse(hl_bio_data *data)
{
    static const char internal_error[] = {2, 80};
    data->ktls->refused = true;
    (void)put_record(data, internal_error, sizeof(internal_error),
                     HL_RECORD_ALERT);
}

bool
hl_ktls_put(hl_bio_data *data, const char *bytes, size_t size)
{
    hl_ktls *ktls = data->ktls;
    unsigned char type = ktls->next_type;
    ktls->next_type = 0;
    if (ktls->refused) {
        return false;
    }
    if (type == 0) {
        return hl_bio_put(data, bytes, size);
    }
    if (type == HL_RECORD_HANDSHAKE && bytes[0] == KEY_UPDATE) {
        /* The peer asks for it.  What follows would need keys that the kernel
         * has not got, and nothing may follow without: this is the end. */
        hl_ktls_refuse(data);
        return false;
    }
    return put_record(data, bytes, size, type);
}
