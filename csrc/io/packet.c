/* packet.c - bytes that are sent with a control message.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/packet.h"

#include "io/ktls.h"

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
    unsigned char record_type; /* 0: no record */
    int count;                 /* of descriptors left to send */
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
    hl_packet *self = hl_alloc(type);
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

PyObject *
hl_packet_new_record(hl_state *st, PyObject *data, unsigned char type)
{
    PyObject *op = hl_packet_new(st, data, NULL, 0);
    if (op != NULL) {
        ((hl_packet *)op)->record_type = type;
    }
    return op;
}

bool
hl_packet_is_loaded(PyObject *op)
{
    const hl_packet *self = (const hl_packet *)op;
    return Py_TYPE(op)->tp_dealloc == packet_dealloc &&
           (self->count > 0 || self->record_type != 0);
}

/* sendmsg() with size bytes at value in a control message. */
static ssize_t
send_with(int fd, struct iovec *part, int level, int type, const void *value,
          size_t size)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(HL_PACKET_FDS * sizeof(int))];
    } control;
    memset(&control, 0, sizeof(control));
    struct msghdr message = {.msg_iov = part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = level;
    head->cmsg_type = type;
    head->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(head), value, size);
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

ssize_t
hl_packet_send(PyObject *op, int fd, struct iovec *part)
{
    hl_packet *self = (hl_packet *)op;
    if (self->record_type != 0) {
        /* What is left of it stays of its type. */
        return send_with(fd, part, HL_SOL_TLS, HL_TLS_SET_RECORD_TYPE,
                         &self->record_type, 1);
    }
    ssize_t sent = send_with(fd, part, SOL_SOCKET, SCM_RIGHTS, self->fds,
                             (size_t)self->count * sizeof(int));
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
