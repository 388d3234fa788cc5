/* bytes.h - making a bytes object shorter that nobody else has seen.
 *
 * _PyBytes_Resize() frees what it has no memory to make smaller, and with it
 * what a peer has sent.
 *
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_BYTES_H
#define HL_BASE_BYTES_H

#include "base/hotloop.h"

/* The same object, perhaps elsewhere, with its first size bytes: bytes
 * (stolen) has at least these, one reference and no hash yet.  Never fails:
 * without memory it only goes on taking as much as before. */
PyObject *hl_bytes_cut(PyObject *bytes, Py_ssize_t size);

#endif
