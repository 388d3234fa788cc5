/* address.h - socket addresses as the socket module's Python values.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_ADDRESS_H
#define HL_IO_ADDRESS_H

#include "base/hotloop.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Room for any address of a family that hl_address_is_known(). */
typedef union {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
    struct sockaddr_storage storage;
} hl_address;

/* Can hl_address_to_python() convert this family?  For others the caller asks
 * the Python socket object. */
bool hl_address_is_known(int family);

/* What socket.getsockname() makes of the address: (host, port), (host, port,
 * flowinfo, scope_id), a path as str, or the bytes of an abstract name; None
 * when size is 0.  raw need not be aligned.  New reference, or NULL with an
 * exception set. */
PyObject *hl_address_to_python(const void *raw, size_t size);

/* Reads the Python address of a family, if it is an IPv4 or IPv6 one, numeric
 * and well formed: true, or false without an exception. */
bool hl_address_from_python(int family, PyObject *value, hl_address *address,
                            socklen_t *size);

/* The name of a Unix socket: a path as str, or on Linux an abstract name, as
 * str or bytes.  Returns the size, 0 (nothing raised) for all else. */
size_t hl_address_from_name(hl_address *address, PyObject *addr);

#endif
