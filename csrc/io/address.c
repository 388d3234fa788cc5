/* address.c - socket addresses as the socket module's Python values.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/address.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>

bool
hl_address_is_known(int family)
{
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

static PyObject *
address_from_in(const struct sockaddr_in *in)
{
    char host[INET_ADDRSTRLEN];
    if (inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("si", host, (int)ntohs(in->sin_port));
}

static PyObject *
address_from_in6(const struct sockaddr_in6 *in6)
{
    char host[INET6_ADDRSTRLEN];
    if (inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("siII", host, (int)ntohs(in6->sin6_port),
                         (unsigned)ntohl(in6->sin6_flowinfo),
                         (unsigned)in6->sin6_scope_id);
}

/* address is zeroed past its end, so a path always has its NUL. */
static PyObject *
address_from_un(const struct sockaddr_un *un, size_t size)
{
#ifdef __linux__
    size_t head = offsetof(struct sockaddr_un, sun_path);
    if (size > head && un->sun_path[0] == '\0') {
        return PyBytes_FromStringAndSize(un->sun_path,
                                         (Py_ssize_t)(size - head));
    }
#else
    (void)size;
#endif
    return PyUnicode_DecodeFSDefault(un->sun_path);
}

PyObject *
hl_address_to_python(const void *raw, size_t size)
{
    if (size == 0) {
        Py_RETURN_NONE;
    }
    struct {
        hl_address address;
        char end; /* the NUL of a path that fills sun_path */
    } copy;
    memset(&copy, 0, sizeof(copy));
    memcpy(&copy.address, raw, Py_MIN(size, sizeof(copy.address)));
    switch (copy.address.sa.sa_family) {
    case AF_INET:
        return address_from_in(&copy.address.in);
    case AF_INET6:
        return address_from_in6(&copy.address.in6);
    default:
        return address_from_un(&copy.address.un, size);
    }
}

/* A plain int from 0 to max, or -1. */
static int64_t
number_from_python(PyObject *value, int64_t max)
{
    if (!PyLong_CheckExact(value)) {
        return -1;
    }
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    return overflow != 0 || number < 0 || number > max ? -1 : number;
}

/* inet_pton() of a str. */
static bool
host_from_python(int family, PyObject *value, void *to)
{
    Py_ssize_t size;
    const char *host;
    if (!PyUnicode_CheckExact(value) || !PyUnicode_IS_COMPACT_ASCII(value)) {
        return false;
    }
    host = PyUnicode_AsUTF8AndSize(value, &size);
    return host != NULL && strlen(host) == (size_t)size &&
           inet_pton(family, host, to) == 1;
}

bool
hl_address_from_python(int family, PyObject *value, hl_address *address,
                       socklen_t *size)
{
    Py_ssize_t count = PyTuple_CheckExact(value) ? PyTuple_GET_SIZE(value) : 0;
    bool v6 = family == AF_INET6;
    if (count < 2 || count > (v6 ? 4 : 2) || (!v6 && family != AF_INET)) {
        return false;
    }
    memset(address, 0, sizeof(*address));
    address->sa.sa_family = (sa_family_t)family;
    void *host =
        v6 ? (void *)&address->in6.sin6_addr : (void *)&address->in.sin_addr;
    int64_t port = number_from_python(PyTuple_GET_ITEM(value, 1), UINT16_MAX);
    int64_t flow = 0, scope = 0;
    if (count > 2) {
        flow = number_from_python(PyTuple_GET_ITEM(value, 2), 0xfffff);
    }
    if (count > 3) {
        scope = number_from_python(PyTuple_GET_ITEM(value, 3), UINT32_MAX);
    }
    if (port < 0 || flow < 0 || scope < 0 ||
        !host_from_python(family, PyTuple_GET_ITEM(value, 0), host)) {
        return false;
    }
    if (v6) {
        address->in6.sin6_port = htons((uint16_t)port);
        address->in6.sin6_flowinfo = htonl((uint32_t)flow);
        address->in6.sin6_scope_id = (uint32_t)scope;
    }
    else {
        address->in.sin_port = htons((uint16_t)port);
    }
    *size = v6 ? sizeof(address->in6) : sizeof(address->in);
    return true;
}

size_t
hl_address_from_name(hl_address *address, PyObject *addr)
{
    struct sockaddr_un *un = &address->un;
    memset(address, 0, sizeof(*address));
    PyObject *name = NULL;
    if (PyUnicode_CheckExact(addr)) {
        name = PyUnicode_EncodeFSDefault(addr);
    }
    else if (PyBytes_CheckExact(addr)) {
        name = Py_NewRef(addr);
    }
    if (name == NULL) {
        PyErr_Clear();
        return 0;
    }
    const char *text = PyBytes_AS_STRING(name);
    size_t size = (size_t)PyBytes_GET_SIZE(name);
    size_t head = offsetof(struct sockaddr_un, sun_path), total = 0;
#ifdef __linux__
    bool abstract = size > 0 && text[0] == '\0';
#else
    bool abstract = false;
#endif
    if (abstract && size <= sizeof(un->sun_path)) {
        total = head + size;
    }
    else if (size > 0 && size < sizeof(un->sun_path) && strlen(text) == size) {
        total = head + size + 1;
    }
    if (total > 0) {
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, text, size);
    }
    Py_DECREF(name);
    return total;
}
