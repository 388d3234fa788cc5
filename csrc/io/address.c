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
