/* fds.c - descriptors that come and go over a Unix stream transport.
 *
 * asyncio has nothing of the kind.  Descriptors travel with the first byte of
 * the data they were sent with.  On receipt the kernel may put plain data that
 * was waiting in front of that byte, but nothing that comes after.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/fds.h"

#include "base/args.h"
#include "io/packet.h"
#include "state/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct hl_fds {
    int count; /* received, and neither delivered nor taken */
    int fds[HL_PACKET_FDS];
};

int
hl_fds_want(hl_transport *self)
{
    if (self->fds == NULL) {
        self->fds = PyMem_Calloc(1, sizeof(struct hl_fds));
        if (self->fds == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 0;
}

static void
close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        close(fds[i]);
    }
}

void
hl_fds_free(hl_transport *self)
{
    struct hl_fds *box = self->fds;
    if (box != NULL) {
        self->fds = NULL;
        close_all(box->fds, box->count);
        PyMem_Free(box);
    }
}

/* Keeps the descriptors of one control message; what does not fit is closed,
 * or a peer could use up the process's descriptors. */
static void
box_add(struct hl_fds *box, const int *fds, int count)
{
    int room = Py_MIN(HL_PACKET_FDS - box->count, count);
    memcpy(box->fds + box->count, fds, (size_t)room * sizeof(int));
    box->count += room;
    close_all(fds + room, count - room);
#ifndef MSG_CMSG_CLOEXEC
    for (int i = box->count - room; i < box->count; i++) {
        (void)fcntl(box->fds[i], F_SETFD, FD_CLOEXEC);
    }
#endif
}

static void
box_add_message(struct hl_fds *box, struct msghdr *message)
{
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head != NULL;
         head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
            int fds[HL_PACKET_FDS];
            size_t size = head->cmsg_len - CMSG_LEN(0);
            memcpy(fds, CMSG_DATA(head), Py_MIN(size, sizeof(fds)));
            box_add(box, fds, (int)(size / sizeof(int)));
        }
    }
}

ssize_t
hl_fds_recv(hl_transport *self, void *buffer, size_t size)
{
    struct hl_fds *box = self->fds;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(box->fds))];
    } control;
    struct iovec part = {.iov_base = buffer, .iov_len = size};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
#ifdef MSG_CMSG_CLOEXEC
    ssize_t got = recvmsg(hl_transport_fd(self), &message, MSG_CMSG_CLOEXEC);
#else
    ssize_t got = recvmsg(hl_transport_fd(self), &message, 0);
#endif
    if (got < 0) {
        return got;
    }
    int before = box->count;
    box_add_message(box, &message);
    if (message.msg_flags & MSG_CTRUNC) {
        /* Out of descriptors: the others would be taken for those lost. */
        close_all(box->fds + before, box->count - before);
        box->count = before;
        errno = EMFILE;
        return -1;
    }
    return got;
}

/* Empties the box into a list of ints. */
static PyObject *
box_take(struct hl_fds *box)
{
    PyObject *list = PyList_New(box->count);
    for (int i = 0; i < box->count && list != NULL; i++) {
        PyObject *number = PyLong_FromLong(box->fds[i]);
        if (number == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, i, number);
        }
    }
    if (list != NULL) {
        box->count = 0;
    }
    return list;
}

int
hl_fds_deliver(hl_transport *self)
{
    struct hl_fds *box = self->fds;
    if (box->count == 0 || !self->gives_fds) {
        return 0;
    }
    PyObject *list = box_take(box);
    if (list == NULL) {
        return -1;
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    /* In parentheses base/faults.h is not asked: nobody would own them. */
    PyObject *res = (PyObject_CallMethodOneArg)(protocol,
                                                hl_loop_state(self->loop)
                                                    ->str_fds_received,
                                                list);
    Py_DECREF(protocol);
    Py_DECREF(list);
    Py_XDECREF(res); /* the protocol owns them now, also when it raised */
    return res == NULL ? -1 : 0;
}

/* The descriptors in a sequence of ints or objects with fileno().  How many,
 * or -1 with an exception. */
static int
fds_from_python(PyObject *sequence, int fds[HL_PACKET_FDS])
{
    PyObject *items = PySequence_List(sequence);
    if (items == NULL) {
        return -1;
    }
    int count = 0;
    if (PyList_GET_SIZE(items) > HL_PACKET_FDS) {
        PyErr_Format(PyExc_ValueError,
                     "at most %d descriptors go into one message, not %zd",
                     HL_PACKET_FDS, PyList_GET_SIZE(items));
        count = -1;
    }
    for (Py_ssize_t i = 0; count >= 0 && i < PyList_GET_SIZE(items); i++) {
        int fd = PyObject_AsFileDescriptor(PyList_GET_ITEM(items, i));
        if (fd < 0) {
            count = -1;
            break;
        }
        fds[count++] = fd;
    }
    Py_DECREF(items);
    return count;
}

static int
fds_write(hl_transport *self, PyObject *data, const int *fds, int count)
{
    PyObject *packet =
        hl_packet_new(hl_loop_state(self->loop), data, fds, count);
    if (packet == NULL) {
        return -1;
    }
    int rv = hl_transport_flush(self);
    if (rv == 0 && self->conn_lost == 0 && self->loop != NULL) {
        rv = hl_writeq_push(&self->queue, packet, PyBytes_AS_STRING(data),
                            (size_t)PyBytes_GET_SIZE(data));
        if (rv == 0) {
            self->queue.packets++;
            rv = hl_transport_flush(self);
        }
        if (rv == 0 && self->loop != NULL) {
            rv = hl_flow_maybe_pause(self);
        }
    }
    Py_DECREF(packet);
    return rv;
}

/* data is exact bytes. */
static int
fds_send(hl_transport *self, PyObject *data, PyObject *sequence)
{
    int fds[HL_PACKET_FDS];
    if (self->family != AF_UNIX) {
        PyErr_SetString(PyExc_ValueError,
                        "descriptors travel over Unix sockets only");
        return -1;
    }
    int count = fds_from_python(sequence, fds);
    if (count < 0) {
        return -1;
    }
    if (count > 0 && PyBytes_GET_SIZE(data) == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "descriptors need at least one byte to travel with");
        return -1;
    }
    /* write() has the checks; of a lost connection as well. */
    bool plain = count == 0 || self->conn_lost || self->loop == NULL;
    PyObject *checked =
        plain ? Py_NewRef(data) : PyBytes_FromStringAndSize(NULL, 0);
    if (checked == NULL) {
        return -1;
    }
    int rv = hl_transport_write(self, checked);
    Py_DECREF(checked);
    return plain || rv < 0 ? rv : fds_write(self, data, fds, count);
}

PyObject *
hl_fds_send_method(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    static const char *const names[] = {"data", "fds", NULL};
    static const hl_params params = {"send_fds", names, 2, 2};
    PyObject *v[2];
    if (hl_params_parse(&params, args, nargs, kwnames, v) < 0) {
        return NULL;
    }
    if (!PyObject_CheckBuffer(v[0])) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not %R",
                     Py_TYPE(v[0]));
        return NULL;
    }
    PyObject *data =
        PyBytes_CheckExact(v[0]) ? Py_NewRef(v[0]) : PyBytes_FromObject(v[0]);
    if (data == NULL) {
        return NULL;
    }
    int rv = fds_send((hl_transport *)op, data, v[1]);
    Py_DECREF(data);
    return rv < 0 ? NULL : Py_NewRef(Py_None);
}

const char hl_fds_send_doc[] =
    "send_fds($self, data, fds)\n--\n\n"
    "Write data, and with its first byte descriptors for the peer to own.\n\n"
    "data is bytes-like, of at least one byte; fds are up to 253 ints or "
    "objects with\n"
    "fileno().  They are duplicated: the caller may close its own at once.  "
    "Keeps the\n"
    "order of all writes; never blocks.  Raise ValueError unless it is a Unix "
    "socket,\n"
    "OSError for a bad descriptor, RuntimeError after write_eof().";

PyObject *
hl_fds_recv_method(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_transport *self = (hl_transport *)op;
    if (self->family != AF_UNIX) {
        PyErr_SetString(PyExc_ValueError,
                        "descriptors travel over Unix sockets only");
        return NULL;
    }
    return hl_fds_want(self) < 0 ? NULL : box_take(self->fds);
}

const char hl_fds_recv_doc[] =
    "recv_fds($self)\n--\n\n"
    "Return the descriptors received and not taken yet, a list of ints.\n\n"
    "They are the caller's to close.  The first call has the transport keep "
    "what\n"
    "arrives from then on, up to 253 at a time; before, and beyond, "
    "descriptors are\n"
    "closed on arrival.  A protocol with a method fds_received(fds) is given "
    "them\n"
    "instead, right before the data with the byte they came with.  Raise "
    "ValueError unless "
    "it is a\n"
    "Unix socket.";
