/* ancillary.c - control messages of datagrams.
 *
 * In Python they are what socket.recvmsg() returns and socket.sendmsg() takes:
 * (level, type, data) tuples.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/datagram.h"

#include <string.h>
#include <sys/socket.h>

PyObject *
hl_ancillary_to_python(const void *control, size_t size)
{
    PyObject *list = PyList_New(0);
    struct msghdr header = {
        .msg_control = (void *)(uintptr_t)control,
        .msg_controllen = size,
    };
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); list != NULL && c != NULL;
         c = CMSG_NXTHDR(&header, c)) {
        size_t head = (size_t)((const char *)CMSG_DATA(c) - (const char *)c);
        size_t left = size - (size_t)((const char *)c - (const char *)control);
        if (c->cmsg_len < head) {
            break;
        }
        /* One that was cut off claims its full length on some systems. */
        size_t length = Py_MIN((size_t)c->cmsg_len, left);
        PyObject *item = Py_BuildValue(
            "iiy#", c->cmsg_level, c->cmsg_type, (const char *)CMSG_DATA(c),
            (Py_ssize_t)(length > head ? length - head : 0));
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

typedef struct {
    int level;
    int type;
    Py_buffer data;
} control_part;

static int
part_get(control_part *part, PyObject *message)
{
    PyObject *tuple = PySequence_Tuple(message);
    int rv = -1;
    if (tuple != NULL) {
        rv = PyArg_ParseTuple(tuple, "iiy*:[sendmsg() ancillary data items]",
                              &part->level, &part->type, &part->data)
                 ? 0
                 : -1;
        Py_DECREF(tuple);
    }
    return rv;
}

/* Writes the messages one behind the other into zeroed room. */
static void
parts_write(const control_part *parts, Py_ssize_t n, char *room, size_t size)
{
    struct msghdr header = {.msg_control = room, .msg_controllen = size};
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    for (Py_ssize_t i = 0; i < n && c != NULL; i++) {
        c->cmsg_level = parts[i].level;
        c->cmsg_type = parts[i].type;
        c->cmsg_len = CMSG_LEN((size_t)parts[i].data.len);
        memcpy(CMSG_DATA(c), parts[i].data.buf, (size_t)parts[i].data.len);
        c = CMSG_NXTHDR(&header, c);
    }
}

static PyObject *
parts_join(const control_part *parts, Py_ssize_t n)
{
    size_t size = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        size_t length = (size_t)parts[i].data.len;
        if (length > INT_MAX / 4 || size > INT_MAX / 2) {
            PyErr_SetString(PyExc_OSError, "too much ancillary data");
            return NULL;
        }
        size += CMSG_SPACE(length);
    }
    PyObject *raw = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (raw != NULL) {
        memset(PyBytes_AS_STRING(raw), 0, size);
        parts_write(parts, n, PyBytes_AS_STRING(raw), size);
    }
    return raw;
}

PyObject *
hl_ancillary_to_raw(PyObject *messages)
{
    PyObject *items = PySequence_Tuple(messages);
    if (items == NULL) {
        return NULL;
    }
    PyObject *raw = NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(items), got = 0;
    control_part *parts = PyMem_New(control_part, (size_t)Py_MAX(n, 1));
    if (parts == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    while (got < n &&
           part_get(&parts[got], PyTuple_GET_ITEM(items, got)) == 0) {
        got++;
    }
    if (got == n) {
        raw = parts_join(parts, n);
    }
    for (Py_ssize_t i = 0; i < got; i++) {
        PyBuffer_Release(&parts[i].data);
    }
    PyMem_Free(parts);
done:
    Py_DECREF(items);
    return raw;
}
