/* resolve.c - addresses that are numeric already, and so need no resolver.
 *
 * getaddrinfo(3) itself makes the results, so that they are those of this
 * machine; AI_NUMERICHOST keeps it from asking anybody.  Whatever is not
 * plainly numeric, errors included, is left to the socket module.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The codec "idna", which str goes through, takes labels of up to 63. */
#define HOST_MAX 63

/* Flags that do not make the C library treat a numeric host otherwise. */
#define FLAGS_KNOWN                                                \
    (AI_PASSIVE | AI_CANONNAME | AI_NUMERICHOST | AI_NUMERICSERV | \
     AI_V4MAPPED | AI_ALL | AI_ADDRCONFIG)

#define SERVICE_SIZE 24

/* The text of an exact str or bytes that may be a numeric host; NULL if it is
 * none.  Borrowed from text. */
static const char *
host_text(PyObject *text)
{
    const char *data;
    Py_ssize_t size;
    if (PyUnicode_CheckExact(text)) {
        if (!PyUnicode_IS_ASCII(text)) {
            return NULL;
        }
        data = (const char *)PyUnicode_1BYTE_DATA(text);
        size = PyUnicode_GET_LENGTH(text);
    }
    else if (PyBytes_CheckExact(text)) {
        data = PyBytes_AS_STRING(text);
        size = PyBytes_GET_SIZE(text);
    }
    else {
        return NULL;
    }
    if (size == 0 || size > HOST_MAX || strlen(data) != (size_t)size) {
        return NULL;
    }
    return data;
}

/* The digits of an exact int, or of a str or bytes made of digits only.  True
 * if port is one of these; else the C library would look into /etc/services,
 * or Python has an error to raise. */
static bool
port_digits(PyObject *port, char digits[SERVICE_SIZE])
{
    if (PyLong_CheckExact(port)) {
        int overflow;
        long value = PyLong_AsLongAndOverflow(port, &overflow);
        if (overflow) {
            return false;
        }
        snprintf(digits, SERVICE_SIZE, "%ld", value);
        return true;
    }
    const char *text = host_text(port);
    if (text == NULL || strlen(text) >= SERVICE_SIZE ||
        strspn(text, "0123456789") != strlen(text)) {
        return false;
    }
    strcpy(digits, text);
    return true;
}

/* The enum member for a family or type, borrowed; NULL for a rare one. */
static PyObject *
family_member(hl_state *st, int family)
{
    return family == AF_INET    ? st->family_inet
           : family == AF_INET6 ? st->family_inet6
                                : NULL;
}

static PyObject *
type_member(hl_state *st, int type)
{
    return type == SOCK_STREAM  ? st->type_stream
           : type == SOCK_DGRAM ? st->type_dgram
           : type == SOCK_RAW   ? st->type_raw
                                : NULL;
}

/* (family, type, proto, canonname, address) of one result. */
static PyObject *
addrinfo_item(hl_state *st, const struct addrinfo *info)
{
    PyObject *family = family_member(st, info->ai_family);
    PyObject *type = type_member(st, info->ai_socktype);
    PyObject *address =
        hl_address_to_python(info->ai_addr, (size_t)info->ai_addrlen);
    if (address == NULL) {
        return NULL;
    }
    return Py_BuildValue("(OOisN)", family, type, info->ai_protocol,
                         info->ai_canonname != NULL ? info->ai_canonname : "",
                         address);
}

static PyObject *
addrinfo_list(hl_state *st, const struct addrinfo *first)
{
    PyObject *list = PyList_New(0);
    for (const struct addrinfo *info = first; info != NULL && list != NULL;
         info = info->ai_next) {
        PyObject *item = addrinfo_item(st, info);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

/* Are all results of kinds that addrinfo_item() names? */
static bool
addrinfo_is_common(hl_state *st, const struct addrinfo *info)
{
    for (; info != NULL; info = info->ai_next) {
        if (family_member(st, info->ai_family) == NULL ||
            type_member(st, info->ai_socktype) == NULL) {
            return false;
        }
    }
    return true;
}

PyObject *
hl_numeric_addrinfo(hl_state *st, const hl_addrinfo_query *query)
{
    char digits[SERVICE_SIZE];
    const char *host = NULL, *service = NULL;
    if (query->host != Py_None && (host = host_text(query->host)) == NULL) {
        Py_RETURN_NONE;
    }
    if (query->port != Py_None) {
        if (!port_digits(query->port, digits)) {
            Py_RETURN_NONE;
        }
        service = digits;
    }
    if (query->flags & ~FLAGS_KNOWN) {
        Py_RETURN_NONE;
    }
    struct addrinfo hints = {
        .ai_flags = query->flags | (host != NULL ? AI_NUMERICHOST : 0),
        .ai_family = query->family,
        .ai_socktype = query->type,
        .ai_protocol = query->proto,
    };
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        Py_RETURN_NONE;
    }
    PyObject *list = NULL;
    if (!addrinfo_is_common(st, found)) {
        list = Py_NewRef(Py_None);
    }
    else if (PySys_Audit("socket.getaddrinfo", "OOiii", query->host,
                         query->port, query->family, query->type,
                         query->proto) == 0) {
        list = addrinfo_list(st, found);
    }
    freeaddrinfo(found);
    return list;
}

/* Exact strings only: inet_pton() knows no zones and no shorthands, as
 * asyncio's own test.  The family, or AF_UNSPEC. */
static int
host_family(PyObject *host, int family, hl_address *address)
{
    if (!PyUnicode_CheckExact(host)) {
        return AF_UNSPEC;
    }
    const char *text = host_text(host);
    if (text == NULL) {
        return AF_UNSPEC;
    }
    if (family != AF_INET6 &&
        inet_pton(AF_INET, text, &address->in.sin_addr) == 1) {
        return AF_INET;
    }
    if (family != AF_INET &&
        inet_pton(AF_INET6, text, &address->in6.sin6_addr) == 1) {
        return AF_INET6;
    }
    return AF_UNSPEC;
}

int
hl_address_family_of(PyObject *host)
{
    hl_address raw;
    return host_family(host, AF_UNSPEC, &raw);
}

/* (host, port) for IPv4; for IPv6 (host, port, flowinfo, scopeid), the last
 * two being those of the address asked for, 0 where it has none. */
static PyObject *
resolved_address(int family, PyObject *asked, PyObject *zero)
{
    PyObject *host = PyTuple_GET_ITEM(asked, 0);
    PyObject *port = PyTuple_GET_ITEM(asked, 1);
    if (port == Py_None) {
        port = zero;
    }
    if (family == AF_INET) {
        return PyTuple_Pack(2, host, port);
    }
    Py_ssize_t size = PyTuple_GET_SIZE(asked);
    return PyTuple_Pack(4, host, port,
                        size > 2 ? PyTuple_GET_ITEM(asked, 2) : zero,
                        size > 3 ? PyTuple_GET_ITEM(asked, 3) : zero);
}

PyObject *
hl_numeric_resolved(hl_state *st, PyObject *address, PyObject *family,
                    PyObject *type, PyObject *proto)
{
    hl_address raw;
    if (!PyTuple_CheckExact(address) || PyTuple_GET_SIZE(address) < 2 ||
        PyTuple_GET_SIZE(address) > 4 || !PyLong_Check(family) ||
        !PyLong_Check(type) || !PyLong_Check(proto)) {
        Py_RETURN_NONE;
    }
    PyObject *port = PyTuple_GET_ITEM(address, 1);
    long kind = PyLong_AsLong(type), number = PyLong_AsLong(proto);
    long wanted = PyLong_AsLong(family);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    if ((port != Py_None && !PyLong_CheckExact(port)) ||
        (number != 0 && number != IPPROTO_TCP && number != IPPROTO_UDP) ||
        (kind != SOCK_STREAM && kind != SOCK_DGRAM) ||
        (wanted != AF_UNSPEC && wanted != AF_INET && wanted != AF_INET6)) {
        Py_RETURN_NONE;
    }
    int found = host_family(PyTuple_GET_ITEM(address, 0), (int)wanted, &raw);
    if (found == AF_UNSPEC) {
        Py_RETURN_NONE;
    }
    PyObject *zero = PyLong_FromLong(0);
    if (zero == NULL) {
        return NULL;
    }
    PyObject *target = resolved_address(found, address, zero);
    Py_DECREF(zero);
    if (target == NULL) {
        return NULL;
    }
    return Py_BuildValue(
        "[(OOisN)]", wanted != AF_UNSPEC ? family : family_member(st, found),
        type, kind == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP, "", target);
}

/* A path as str or bytes; on Linux a leading NUL makes it an abstract name,
 * which is all of the bytes. */
static bool
read_unix(PyObject *value, hl_address *address, socklen_t *size)
{
    PyObject *path = NULL;
    if (PyUnicode_CheckExact(value)) {
        path = PyUnicode_EncodeFSDefault(value);
    }
    else if (PyBytes_CheckExact(value)) {
        path = Py_NewRef(value);
    }
    if (path == NULL) {
        PyErr_Clear();
        return false;
    }
    const char *data = PyBytes_AS_STRING(path);
    size_t length = (size_t)PyBytes_GET_SIZE(path);
    size_t room = sizeof(address->un.sun_path);
    bool fits = length > 0 && length < room && strlen(data) == length;
#ifdef __linux__
    fits = fits || (length > 0 && length <= room && data[0] == '\0');
#endif
    if (fits) {
        memcpy(address->un.sun_path, data, length);
        *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length +
                            (data[0] != '\0'));
    }
    Py_DECREF(path);
    return fits;
}

bool
hl_name_from_python(int family, PyObject *value, hl_address *address,
                    socklen_t *size)
{
    if (family != AF_UNIX) {
        return hl_address_from_python(family, value, address, size);
    }
    memset(address, 0, sizeof(*address));
    address->sa.sa_family = AF_UNIX;
    return read_unix(value, address, size);
}
