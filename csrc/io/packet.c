/* packet.c - bytes with descriptors, on their way over a Unix socket.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/packet.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Linux asks per call; elsewhere Python has SIGPIPE ignored. */
#ifndef MSG_NOSIGNAL
#    define MSG_NOSIGNAL 0
#endif

typedef struct {
    PyObject_HEAD
    PyObject *data;
    int count; /* of what is left to send */
    int fds[HL_PACKET_FDS];
} hl_packet;

static void
packet_unload(hl_packet *self)
{
    while (self->count > 0) {
        close(self->fds[--self->count]);
    }
}

static void
packet_dealloc(PyObject *op)
{
    hl_packet *self = (hl_packet *)op;
    PyTypeObject *type = Py_TYPE(op);
    packet_unload(self);
    Py_CLEAR(self->data);
    type->tp_free(op);
    Py_DECREF(type);
}

PyObject *
hl_packet_new(hl_state *st, PyObject *data, const int *fds, int count)
{
    PyTypeObject *type = st->Packet_type;
    hl_packet *self = (hl_packet *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->data = Py_NewRef(data);
    for (int i = 0; i < count; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (copy < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            Py_DECREF(self);
            return NULL;
        }
        self->fds[self->count++] = copy;
    }
    return (PyObject *)self;
}

bool
hl_packet_is_loaded(PyObject *op)
{
    return Py_TYPE(op)->tp_dealloc == packet_dealloc &&
           ((hl_packet *)op)->count > 0;
}

ssize_t
hl_packet_send(PyObject *op, int fd, struct iovec *part)
{
    hl_packet *self = (hl_packet *)op;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(self->fds))];
    } control;
    size_t size = (size_t)self->count * sizeof(int);
    memset(&control, 0, sizeof(control));
    struct msghdr message = {.msg_iov = part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(head), self->fds, size);
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent > 0) {
        packet_unload(self);
    }
    return sent;
}

static PyType_Slot packet_slots[] = {
    {Py_tp_dealloc, HL_SLOT(packet_dealloc)},
    {0, NULL},
};

static PyType_Spec packet_spec = {
    .name = "hotloop._core.Packet",
    .basicsize = sizeof(hl_packet),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = packet_slots,
};

int
hl_packet_type_init(PyObject *module, hl_state *st)
{
    return hl_state_add_type(module, &st->Packet_type, &packet_spec, NULL);
}
