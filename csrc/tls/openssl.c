/* openssl.c - finding OpenSSL, and the SSL inside of an ssl.SSLObject.
 *
 * What _ssl keeps in its objects is not an interface.  So it is looked at
 * before it is believed: a connection is made and what is found in it must
 * agree with what OpenSSL and Python say, pointer by pointer.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/openssl.h"

#include "tls/bio.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* How _ssl._SSLSocket begins, in CPython 3.11 to 3.15. */
typedef struct {
    PyObject_HEAD
    PyObject *socket; /* a weak reference; NULL over BIOs */
    hl_ssl *ssl;
    PyObject *context;
} ssl_socket;

/* And _ssl._SSLContext. */
typedef struct {
    PyObject_HEAD
    hl_ssl_ctx *ctx;
} ssl_context;

/* OpenSSL's slot for application data, where _ssl keeps the object. */
#define APP_DATA 0

#define OLDEST 0x1010100fL  /* 1.1.1 */
#define TOO_NEW 0x40000000L /* 4.0 */
#define VERSION_MASK 0xfffff000L

/* Records why there is no direct engine. */
static int
load_refuse(hl_state *st, const char *reason)
{
    st->openssl_reason = reason;
    return 0;
}

/* Is the memory at p that of this process?  A page at a time, which is enough
 * for looking at the beginning of an object. */
static bool
memory_is_mapped(const void *p)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)p & ~(page - 1);
    return p != NULL && (uintptr_t)p % sizeof(void *) == 0 &&
           msync((void *)start, page, MS_ASYNC) == 0;
}

static bool
load_symbols(hl_openssl *lib)
{
#define LOAD(type, name, params)                               \
    *(void **)(void *)&lib->name = dlsym(lib->library, #name); \
    if (lib->name == NULL) {                                   \
        return false;                                          \
    }
    HL_OPENSSL_FUNCTIONS(LOAD)
#undef LOAD
    return true;
}

/* The file of _ssl as dlopen() knows it: _ssl and all that it is linked with.
 * NULL without an exception if _ssl is part of the interpreter. */
static void *
load_library(PyObject *module)
{
    PyObject *file = PyObject_GetAttrString(module, "__file__");
    const char *path = file == NULL ? NULL : PyUnicode_AsUTF8(file);
    void *library =
        path == NULL ? NULL : dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    Py_XDECREF(file);
    PyErr_Clear();
    return library;
}

/* Does the ssl module run on the OpenSSL found?  1, 0 or -1. */
static int
version_agrees(const hl_openssl *lib, PyObject *module)
{
    PyObject *number =
        PyObject_GetAttrString(module, "OPENSSL_VERSION_NUMBER");
    PyObject *text = number == NULL
                         ? NULL
                         : PyObject_GetAttrString(module, "OPENSSL_VERSION");
    int rv = -1;
    if (text == NULL) {
        goto done;
    }
    unsigned long version = PyLong_AsUnsignedLong(number);
    const char *name = PyUnicode_AsUTF8(text);
    if (name != NULL && !PyErr_Occurred()) {
        rv = version == lib->OpenSSL_version_num() && version >= OLDEST &&
             version < TOO_NEW && strncmp(name, "OpenSSL ", 8) == 0;
    }
done:
    Py_XDECREF(number);
    Py_XDECREF(text);
    return rv;
}

/* An ssl.SSLObject that is connected to nothing, and its context. */
static PyObject *
probe_object(PyObject *ssl, PyObject **context)
{
    PyObject *object = NULL;
    PyObject *protocol = PyObject_GetAttrString(ssl, "PROTOCOL_TLS_SERVER");
    PyObject *in =
        protocol == NULL ? NULL : PyObject_CallMethod(ssl, "MemoryBIO", NULL);
    *context = in == NULL
                   ? NULL
                   : PyObject_CallMethod(ssl, "SSLContext", "O", protocol);
    if (*context != NULL) {
        object =
            PyObject_CallMethod(*context, "wrap_bio", "OOO", in, in, Py_True);
    }
    Py_XDECREF(in);
    Py_XDECREF(protocol);
    return object;
}

/* Is everything where it should be? */
static bool
probe_agrees(hl_openssl *lib, PyObject *raw, PyObject *context)
{
    const ssl_socket *socket = (const ssl_socket *)(void *)raw;
    const ssl_context *inner = (const ssl_context *)(void *)context;
    if (Py_TYPE(raw)->tp_basicsize < (Py_ssize_t)sizeof(ssl_socket) ||
        Py_TYPE(context)->tp_basicsize < (Py_ssize_t)sizeof(ssl_context) ||
        socket->socket != NULL || socket->context != context ||
        !memory_is_mapped(socket->ssl) || !memory_is_mapped(inner->ctx)) {
        return false;
    }
    return lib->SSL_get_ex_data(socket->ssl, APP_DATA) == raw &&
           lib->SSL_get_SSL_CTX(socket->ssl) == inner->ctx;
}

static int
layout_agrees(hl_state *st, hl_openssl *lib, PyObject *ssl)
{
    int rv = -1;
    PyObject *context = NULL, *raw = NULL;
    PyObject *object = probe_object(ssl, &context);
    if (object != NULL &&
        (raw = PyObject_GetAttrString(object, "_sslobj")) != NULL) {
        rv = probe_agrees(lib, raw, context);
        st->ssl_socket_type = Py_NewRef((PyObject *)Py_TYPE(raw));
    }
    Py_XDECREF(raw);
    Py_XDECREF(object);
    Py_XDECREF(context);
    return rv;
}

/* Fills lib; 1, or 0 with the reason recorded, or -1. */
static int
load_checked(hl_state *st, hl_openssl *lib, PyObject *module, PyObject *ssl)
{
    lib->library = load_library(module);
    if (lib->library == NULL) {
        return load_refuse(st, "_ssl is not a shared library");
    }
    if (!load_symbols(lib)) {
        return load_refuse(st, "_ssl shares no OpenSSL that is new enough");
    }
    int agrees = version_agrees(lib, module);
    if (agrees <= 0) {
        return agrees < 0 ? -1 : load_refuse(st, "OpenSSL is not 1.1.1 to 3");
    }
    agrees = layout_agrees(st, lib, ssl);
    if (agrees <= 0) {
        return agrees < 0 ? -1 : load_refuse(st, "_ssl is not as expected");
    }
    return hl_bio_init(lib) ? 1 : load_refuse(st, "OpenSSL takes no new BIO");
}

static void
library_free(hl_openssl *lib)
{
    if (lib->method != NULL) {
        lib->BIO_meth_free(lib->method);
    }
    if (lib->library != NULL) {
        dlclose(lib->library);
    }
    PyMem_Free(lib);
}

int
hl_openssl_load(hl_state *st)
{
    if (st->openssl != NULL || st->openssl_reason != NULL) {
        return 0;
    }
    const char *wish = getenv("HOTLOOP_TLS");
    if (wish != NULL && strcmp(wish, "object") == 0) {
        return load_refuse(st, "HOTLOOP_TLS=object");
    }
    if (st->SSLObject == NULL) {
        return load_refuse(st, "this Python has no module ssl");
    }
    hl_openssl *lib = PyMem_Calloc(1, sizeof(*lib));
    if (lib == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *module = PyImport_ImportModule("_ssl");
    PyObject *ssl = module == NULL ? NULL : PyImport_ImportModule("ssl");
    int rv = ssl == NULL ? -1 : load_checked(st, lib, module, ssl);
    Py_XDECREF(ssl);
    Py_XDECREF(module);
    if (rv > 0) {
        st->openssl = lib;
        return 0;
    }
    library_free(lib);
    return rv;
}

void
hl_openssl_unload(hl_state *st)
{
    if (st->openssl != NULL) {
        library_free(st->openssl);
        st->openssl = NULL;
    }
}

hl_ssl *
hl_openssl_ssl_of(hl_state *st, PyObject *raw)
{
    const ssl_socket *socket = (const ssl_socket *)(void *)raw;
    if (st->openssl == NULL ||
        (PyObject *)Py_TYPE(raw) != st->ssl_socket_type ||
        socket->socket != NULL ||
        st->openssl->SSL_get_ex_data(socket->ssl, APP_DATA) != raw) {
        return NULL;
    }
    return socket->ssl;
}
