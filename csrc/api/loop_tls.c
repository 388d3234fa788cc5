/* loop_tls.c - Loop methods on TLS connections.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "base/args.h"
#include "tls/tls.h"

PyDoc_STRVAR(Loop__make_tls__doc__,
             "_make_tls($self, protocol, sslcontext, waiter, server_side, "
             "server_hostname, call_connection_made, ssl_handshake_timeout, "
             "ssl_shutdown_timeout, /)\n--\n\n"
             "Make a SSLTransport, which is to become the protocol of another "
             "transport.\n\n"
             "As asyncio.sslproto.SSLProtocol.");

static PyObject *
Loop__make_tls(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (hl_args_count("_make_tls", nargs, 8) < 0) {
        return NULL;
    }
    int server_side = PyObject_IsTrue(args[3]);
    int call_made = server_side < 0 ? -1 : PyObject_IsTrue(args[5]);
    if (call_made < 0) {
        return NULL;
    }
    const hl_tls_options options = {
        .protocol = args[0],
        .context = args[1],
        .waiter = args[2],
        .hostname = args[4],
        .handshake_timeout = args[6],
        .shutdown_timeout = args[7],
        .server_side = server_side,
        .call_connection_made = call_made,
    };
    return hl_tls_new((hl_loop *)op, &options);
}

PyObject *
hl_loop_wrap_accepted(hl_loop *loop, PyObject *protocol, PyObject *tls)
{
    const hl_tls_options options = {
        .protocol = protocol,
        .context = PyTuple_GET_ITEM(tls, 0),
        .waiter = Py_None,
        .hostname = Py_None,
        .handshake_timeout = PyTuple_GET_ITEM(tls, 1),
        .shutdown_timeout = PyTuple_GET_ITEM(tls, 2),
        .server_side = true,
        .call_connection_made = true,
    };
    return hl_tls_new(loop, &options);
}

PyDoc_STRVAR(Loop__tls_engine__doc__,
             "_tls_engine($self, /)\n--\n\n"
             "Return None if TLS calls OpenSSL directly, else the reason why "
             "it does not, a str.");

static PyObject *
Loop__tls_engine(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = hl_loop_state((hl_loop *)op);
    if (hl_openssl_load(st) < 0) {
        return NULL;
    }
    return st->openssl != NULL ? Py_NewRef(Py_None)
                               : PyUnicode_FromString(st->openssl_reason);
}

PyMethodDef hl_loop_tls_methods[] = {
    {"_make_tls", HL_FASTCALL(Loop__make_tls), METH_FASTCALL,
     Loop__make_tls__doc__},
    {"_tls_engine", Loop__tls_engine, METH_NOARGS, Loop__tls_engine__doc__},
    {NULL, NULL, 0, NULL},
};
