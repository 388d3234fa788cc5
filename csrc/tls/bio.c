/* bio.c - what OpenSSL reads from and writes to.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/bio.h"

#include "tls/ktls.h"

#include <string.h>

/* OpenSSL calls a BIO's functions with nothing but the BIO, so these they need
 * must be found without it.  The one mutable global of hotloop: addresses in
 * the one OpenSSL of the process, the same for every interpreter in it,
 * written before the first BIO is made.  And the method of BIOs for the
 * kernel: an SSL keeps such a BIO when its connection is over, for longer than
 * the module may last. */
static struct {
    void *(*get_data)(hl_bio *);
    void (*set_flags)(hl_bio *, int);
    void (*clear_flags)(hl_bio *, int);
    void (*set_init)(hl_bio *, int);
    hl_bio_method *ktls_method; /* never freed */
} bio_functions;

static size_t
data_read(hl_bio_data *data, char *buffer, size_t size)
{
    size_t kept = Py_MIN(size, data->kept_size - data->kept_used);
    if (kept > 0) {
        memcpy(buffer, data->kept + data->kept_used, kept);
        data->kept_used += kept;
    }
    size_t lent = Py_MIN(size - kept, data->lent_size);
    if (lent > 0) {
        memcpy(buffer + kept, data->lent, lent);
        data->lent += lent;
        data->lent_size -= lent;
    }
    return kept + lent;
}

/* Nothing there is no end: that is told by other means. */
static int
bio_read(hl_bio *bio, char *buffer, int size)
{
    hl_bio_data *data = bio_functions.get_data(bio);
    bio_functions.clear_flags(bio, HL_BIO_FLAGS_ALL_RETRY);
    if (data == NULL || size <= 0) {
        return -1;
    }
    size_t got = data_read(data, buffer, (size_t)size);
    if (got == 0) {
        bio_functions.set_flags(bio,
                                HL_BIO_FLAGS_READ | HL_BIO_FLAGS_SHOULD_RETRY);
        return -1;
    }
    return (int)got;
}

/* Makes memory of our own for size bytes behind what is there. */
static bool
out_grow(hl_bio_data *data, size_t size)
{
    size_t room = Py_MAX(2 * data->out_room, data->out_size + size);
    char *own = PyMem_RawRealloc(data->out_lent ? NULL : data->out, room);
    if (own == NULL) {
        return false;
    }
    if (data->out_lent) {
        /* More than the lent memory was meant for: it stays the lender's, who
         * gets it by hl_bio_take_out(). */
        memcpy(own, data->out, data->out_size);
        data->outgrown = data->out;
        data->out_lent = false;
    }
    data->out = own;
    data->out_room = room;
    return true;
}

bool
hl_bio_put(hl_bio_data *data, const char *bytes, size_t size)
{
    if (data->out_room - data->out_size < size && !out_grow(data, size)) {
        data->failed = true;
        return false;
    }
    memcpy(data->out + data->out_size, bytes, size);
    data->out_size += size;
    return true;
}

static int
bio_write(hl_bio *bio, const char *bytes, int size)
{
    hl_bio_data *data = bio_functions.get_data(bio);
    bio_functions.clear_flags(bio, HL_BIO_FLAGS_ALL_RETRY);
    if (data == NULL || size <= 0) {
        return -1;
    }
    return hl_bio_put(data, bytes, (size_t)size) ? size : -1;
}

static long
bio_ctrl(hl_bio *bio, int command, long Py_UNUSED(number),
         void *Py_UNUSED(pointer))
{
    hl_bio_data *data = bio_functions.get_data(bio);
    switch (command) {
    case HL_BIO_CTRL_FLUSH:
    case HL_BIO_CTRL_DUP:
        return 1;
    case HL_BIO_CTRL_PENDING:
        return data == NULL ? 0 : (long)hl_bio_unread(data);
    default:
        return 0;
    }
}

static int
ktls_write(hl_bio *bio, const char *bytes, int size)
{
    hl_bio_data *data = bio_functions.get_data(bio);
    bio_functions.clear_flags(bio, HL_BIO_FLAGS_ALL_RETRY);
    if (data == NULL || size <= 0) {
        return -1;
    }
    return hl_ktls_put(data, bytes, (size_t)size) ? size : -1;
}

/* Without data the connection is over, but its SSL goes on believing that the
 * kernel encrypts: it has no buffers left for doing so. */
static long
ktls_ctrl(hl_bio *bio, int command, long number, void *pointer)
{
    hl_bio_data *data = bio_functions.get_data(bio);
    switch (command) {
    case HL_BIO_CTRL_SET_KTLS:
        return data != NULL && number != 0 && hl_ktls_begin(data, pointer);
    case HL_BIO_CTRL_GET_KTLS_SEND:
        return data == NULL || data->ktls->active;
    case HL_BIO_CTRL_SET_RECORD_TYPE:
    case HL_BIO_CTRL_CLEAR_RECORD_TYPE:
        if (data != NULL) {
            data->ktls->next_type = (unsigned char)number;
        }
        return 1;
    default:
        return bio_ctrl(bio, command, number, pointer);
    }
}

/* NULL if OpenSSL has no memory. */
static hl_bio_method *
method_make(const hl_openssl *lib, int (*write)(hl_bio *, const char *, int),
            long (*ctrl)(hl_bio *, int, long, void *))
{
    /* Without a number of its own: there are few of them, for ever. */
    hl_bio_method *method =
        lib->BIO_meth_new(HL_BIO_TYPE_SOURCE_SINK, "hotloop");
    if (method != NULL && (lib->BIO_meth_set_read(method, bio_read) != 1 ||
                           lib->BIO_meth_set_write(method, write) != 1 ||
                           lib->BIO_meth_set_ctrl(method, ctrl) != 1)) {
        lib->BIO_meth_free(method);
        return NULL;
    }
    return method;
}

bool
hl_bio_init(hl_openssl *lib)
{
    if (bio_functions.get_data == NULL) {
        bio_functions.set_flags = lib->BIO_set_flags;
        bio_functions.clear_flags = lib->BIO_clear_flags;
        bio_functions.set_init = lib->BIO_set_init;
        bio_functions.get_data = lib->BIO_get_data;
    }
    if (bio_functions.ktls_method == NULL) {
        bio_functions.ktls_method = method_make(lib, ktls_write, ktls_ctrl);
    }
    lib->method = method_make(lib, bio_write, bio_ctrl);
    lib->ktls_method = bio_functions.ktls_method;
    return lib->method != NULL && lib->ktls_method != NULL;
}

int
hl_bio_attach(const hl_openssl *lib, hl_ssl *ssl, hl_bio_data *data)
{
    hl_bio *bio =
        lib->BIO_new(data->ktls != NULL ? lib->ktls_method : lib->method);
    if (bio == NULL) {
        lib->ERR_clear_error();
        PyErr_NoMemory();
        return -1;
    }
    bio_functions.set_init(bio, 1);
    lib->BIO_set_data(bio, data);
    lib->SSL_set_bio(ssl, bio, bio); /* which owns it from now on */
    return 0;
}

void
hl_bio_detach(const hl_openssl *lib, hl_ssl *ssl, const hl_bio_data *data)
{
    bool ktls = data->ktls != NULL && data->ktls->active;
    /* Without memory for these, ssl has none at all and says so when used. */
    hl_bio *in = lib->BIO_new(lib->BIO_s_mem());
    hl_bio *out = lib->BIO_new(ktls ? lib->ktls_method : lib->BIO_s_mem());
    if (ktls && out != NULL) {
        bio_functions.set_init(out, 1);
    }
    lib->SSL_set_bio(ssl, in, out);
}

int
hl_bio_keep(hl_bio_data *data, const char *more, size_t size)
{
    size_t left = data->kept_size - data->kept_used;
    if (left == 0 && size == 0) {
        PyMem_RawFree(data->kept);
        data->kept = NULL;
        data->kept_size = data->kept_used = data->kept_room = 0;
        return 0;
    }
    if (data->kept_used > 0) {
        memmove(data->kept, data->kept + data->kept_used, left);
        data->kept_used = 0;
        data->kept_size = left;
    }
    if (left + size > data->kept_room) {
        char *kept = PyMem_RawRealloc(data->kept, left + size);
        if (kept == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        data->kept = kept;
        data->kept_room = left + size;
    }
    if (size > 0) {
        memcpy(data->kept + left, more, size);
        data->kept_size += size;
    }
    return 0;
}

int
hl_bio_keep_lent(hl_bio_data *data)
{
    int rv = hl_bio_keep(data, data->lent, data->lent_size);
    data->lent = NULL;
    data->lent_size = 0;
    return rv;
}

void
hl_bio_lend_out(hl_bio_data *data, char *buffer, size_t room)
{
    data->out = buffer;
    data->out_room = room;
    data->out_size = 0;
    data->out_lent = true;
}

hl_bio_out
hl_bio_take_out(hl_bio_data *data)
{
    hl_bio_out out = {
        .data = data->out,
        .size = data->out_size,
        .lent = data->out_lent ? data->out : data->outgrown,
    };
    data->out = data->outgrown = NULL;
    data->out_size = data->out_room = 0;
    data->out_lent = false;
    return out;
}

void
hl_bio_free_out(hl_bio_out *out)
{
    if (out->data != out->lent) {
        PyMem_RawFree(out->data);
    }
}

void
hl_bio_free(hl_bio_data *data)
{
    PyMem_RawFree(data->kept);
    data->kept = NULL;
    data->kept_size = data->kept_used = data->kept_room = 0;
    data->lent = NULL;
    data->lent_size = 0;
}
