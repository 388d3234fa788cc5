/* resolve.h - addresses that are numeric already, and so need no resolver.
 *
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_RESOLVE_H
#define HL_IO_RESOLVE_H

#include "io/address.h"
#include "state/state.h"

/* What socket.getaddrinfo() was given; the numbers are C's. */
typedef struct {
    PyObject *host; /* borrowed */
    PyObject *port; /* borrowed */
    int family;
    int type;
    int proto;
    int flags;
} hl_addrinfo_query;

/* The list that socket.getaddrinfo() returns if the C library can make it
 * without a look at files or servers: host is numeric or None, port a number
 * or None.  Raises the audit event as the socket module does.  New reference;
 * None where the real call has to tell, be it a result or an error; NULL with
 * an exception. */
PyObject *hl_numeric_addrinfo(hl_state *st, const hl_addrinfo_query *query);

/* asyncio's _ipaddr_info(): [(family, type, proto, '', address)] for a numeric
 * host and port, rest being what follows them in the address; the items are
 * the objects given.  New reference; None where asyncio must look; NULL with
 * an exception. */
PyObject *hl_numeric_resolved(hl_state *st, PyObject *address,
                              PyObject *family, PyObject *type,
                              PyObject *proto);

/* AF_INET or AF_INET6 if host is an exact str that inet_pton() takes, else
 * AF_UNSPEC. */
int hl_address_family_of(PyObject *host);

/* hl_address_from_python(), or the path or abstract name of AF_UNIX. */
bool hl_name_from_python(int family, PyObject *value, hl_address *address,
                         socklen_t *size);

#endif
