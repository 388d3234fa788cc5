/* writeq.c - fuzzes io/writeq and io/packet: what arrives at the other end of a
 * socket or pipe is what was queued, and so are the descriptors.
 *
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE

#include "fuzz.h"

#include "io/packet.h"
#include "io/writeq.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define MODEL_MAX 200000
#define PIECE_MAX 3000

static hl_state *st;
static int sockets[2] = {-1, -1}, pipes[2] = {-1, -1};

/* All that was queued; how much of it left, and how much was received. */
static char model[MODEL_MAX + PIECE_MAX];
static size_t queued, left, received;
/* Where packets begin, and how many descriptors they have. */
static struct {
    size_t at;
    int fds;
} packets[256];
static int packet_count, fds_received;
static uint8_t filler;
static hl_counts counts;

static void
set_up(void)
{
    PyObject *module;
    int small = 1;
    st = fuzz_state(&module);
    FUZZ_CHECK(hl_packet_type_init(module, st) == 0);
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets) ==
               0);
    FUZZ_CHECK(setsockopt(sockets[0], SOL_SOCKET, SO_SNDBUF, &small,
                          sizeof(small)) == 0);
    FUZZ_CHECK(pipe2(pipes, O_NONBLOCK) == 0);
    FUZZ_CHECK(fcntl(pipes[1], F_SETPIPE_SZ, 4096) > 0);
}

/* ---- the other end ---- */

static void
count_fds(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL;
         c = CMSG_NXTHDR(message, c)) {
        FUZZ_CHECK(c->cmsg_type == SCM_RIGHTS);
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        int fds[HL_PACKET_FDS];
        memcpy(fds, CMSG_DATA(c), n * sizeof(int));
        fds_received += (int)n;
        for (size_t i = 0; i < n; i++) {
            close(fds[i]);
        }
    }
}

/* Receives once; false when there is nothing. */
static bool
receive(bool is_socket, size_t max)
{
    char data[8192];
    char control[CMSG_SPACE(HL_PACKET_FDS * sizeof(int))];
    struct iovec part = {data, Py_MIN(max, sizeof(data))};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t n = is_socket ? recvmsg(sockets[1], &message, 0)
                          : read(pipes[0], data, part.iov_len);
    if (n <= 0) {
        FUZZ_CHECK(n < 0 && errno == EAGAIN);
        return false;
    }
    FUZZ_CHECK(received + (size_t)n <= left);
    FUZZ_CHECK(memcmp(data, model + received, (size_t)n) == 0);
    received += (size_t)n;
    if (is_socket) {
        count_fds(&message);
    }
    return true;
}

/* ---- the queue ---- */

static int
send_queue(hl_writeq *queue, bool is_socket)
{
    int error = hl_writeq_send(queue, is_socket ? sockets[0] : pipes[1],
                               is_socket, &counts);
    left = queued - queue->size;
    FUZZ_CHECK(counts.bytes_sent == left);
    return error;
}

static const char *
fill(size_t size)
{
    char *at = model + queued;
    for (size_t i = 0; i < size; i++) {
        at[i] = (char)(filler++ * 7);
    }
    return at;
}

static void
pushed(int rv, size_t size)
{
    if (rv < 0) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_MemoryError));
        PyErr_Clear();
        return;
    }
    queued += size;
}

/* Something with a buffer that holds the data. */
static PyObject *
make_data(uint32_t kind, const char *data, size_t size)
{
    if (kind == 0) {
        return PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    }
    PyObject *base =
        kind == 1 ? PyBytes_FromStringAndSize(data, (Py_ssize_t)size)
                  : PyByteArray_FromStringAndSize(data, (Py_ssize_t)size);
    if (kind != 1 && kind != 2) {
        return base;
    }
    PyObject *view = PyMemoryView_FromObject(base);
    Py_DECREF(base);
    return view;
}

/* As write() does it: the program changes its buffer afterwards. */
static void
push_piece(hl_writeq *queue, fuzz_input *in, unsigned fail)
{
    uint32_t kind = fuzz_upto(in, 3);
    size_t size = fuzz_upto(in, PIECE_MAX - 1) + 1;
    PyObject *data = make_data(kind, fill(size), size);
    FUZZ_CHECK(data != NULL);
    hl_piece piece;
    FUZZ_CHECK(hl_piece_get(&piece, data) == 0);
    FUZZ_CHECK(piece.size == size && piece.stable == (kind < 2));
    fuzz_fail_allocation(fail);
    pushed(hl_piece_push(queue, &piece), size);
    fuzz_fail_allocation(0);
    hl_piece_release(&piece);
    if (kind >= 2) {
        PyObject *base = kind == 2 ? PyMemoryView_GET_BASE(data) : data;
        memset(PyByteArray_AS_STRING(base), '!', size);
    }
    Py_DECREF(data);
}

/* As a write() that sends at once and keeps what did not leave. */
static void
push_unowned(hl_writeq *queue, fuzz_input *in, bool is_socket, unsigned fail)
{
    size_t size = fuzz_upto(in, PIECE_MAX - 1) + 1;
    PyObject *owner =
        PyByteArray_FromStringAndSize(fill(size), (Py_ssize_t)size);
    FUZZ_CHECK(owner != NULL);
    size_t before = queue->size;
    pushed(hl_writeq_push(queue, owner, PyByteArray_AS_STRING(owner), size),
           size);
    FUZZ_CHECK(queue->size == before + size);
    (void)send_queue(queue, is_socket);
    fuzz_fail_allocation(fail);
    int rv = hl_writeq_own(queue, owner);
    if (fuzz_allocation_failed() || rv < 0) {
        FUZZ_CHECK(rv < 0 && hl_writeq_own(queue, owner) == 0);
    }
    FUZZ_CHECK(Py_REFCNT(owner) == 1);
    memset(PyByteArray_AS_STRING(owner), '?', size);
    Py_DECREF(owner);
}

static void
push_packet(hl_writeq *queue, fuzz_input *in)
{
    int fds[4] = {STDERR_FILENO, STDERR_FILENO, STDERR_FILENO, STDERR_FILENO};
    int count = (int)fuzz_upto(in, 4);
    size_t size = fuzz_upto(in, 100) + 1;
    if (packet_count == (int)Py_ARRAY_LENGTH(packets)) {
        return;
    }
    PyObject *data = PyBytes_FromStringAndSize(fill(size), (Py_ssize_t)size);
    FUZZ_CHECK(data != NULL);
    PyObject *packet = hl_packet_new(st, data, fds, count);
    FUZZ_CHECK(packet != NULL);
    FUZZ_CHECK(hl_packet_is_loaded(packet) == (count > 0));
    packets[packet_count].at = queued;
    packets[packet_count++].fds = count;
    pushed(hl_writeq_push(queue, packet, PyBytes_AS_STRING(data), size), size);
    queue->packets++;
    Py_DECREF(packet);
    Py_DECREF(data);
}

static void
send_some(hl_writeq *queue, bool is_socket, bool bad)
{
    size_t before = queue->size;
    if (bad && before > 0) {
        FUZZ_CHECK(hl_writeq_send(queue, -1, is_socket, &counts) == EBADF);
        FUZZ_CHECK(queue->size == before);
        return;
    }
    int error = send_queue(queue, is_socket);
    FUZZ_CHECK(error == 0 || error == EAGAIN);
    FUZZ_CHECK((error == 0) == (queue->count == 0));
    FUZZ_CHECK(queue->size <= before);
}

static void
check(hl_writeq *queue)
{
    size_t at = queued - queue->size;
    FUZZ_CHECK(at == left && received <= left);
    for (uint32_t i = 0; i < queue->count; i++) {
        const hl_chunk *chunk = hl_writeq_chunk(queue, i);
        FUZZ_CHECK(chunk->size > 0);
        FUZZ_CHECK(memcmp(chunk->data, model + at, chunk->size) == 0);
        at += chunk->size;
    }
    FUZZ_CHECK(at == queued);
    FUZZ_CHECK(queue->count > 0 || queue->array == NULL);
}

static void
step(hl_writeq *queue, fuzz_input *in, bool is_socket)
{
    uint32_t op = fuzz_upto(in, 7);
    if (op <= 3 && queued >= MODEL_MAX) {
        return;
    }
    switch (op) {
    case 0:
        push_piece(queue, in, fuzz_upto(in, 3));
        break;
    case 1:
        push_unowned(queue, in, is_socket, fuzz_upto(in, 3));
        break;
    case 2:
        if (is_socket) {
            push_packet(queue, in);
        }
        break;
    case 3: /* more chunks than one call takes */
        for (unsigned n = fuzz_byte(in) * 2; n > 0; n--) {
            PyObject *one = PyBytes_FromStringAndSize(fill(1), 1);
            FUZZ_CHECK(one != NULL);
            pushed(hl_writeq_push(queue, one, PyBytes_AS_STRING(one), 1), 1);
            Py_DECREF(one);
        }
        break;
    case 4:
    case 5:
        send_some(queue, is_socket, op == 5);
        break;
    case 6:
        (void)receive(is_socket, fuzz_upto(in, 5000) + 1);
        break;
    default: /* a packet's bytes cannot leave without its descriptors */
        if (packet_count == 0 && queue->size > 0) {
            size_t size = fuzz_upto(in, PIECE_MAX);
            hl_writeq_drop(queue, Py_MIN(size, queue->size));
            memmove(model + left, model + queued - queue->size, queue->size);
            queued = left + queue->size;
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    static hl_writeq queue; /* its inline chunks are looked for in it */
    if (st == NULL) {
        fuzz_begin();
        set_up();
    }
    fuzz_begin();
    int next_fd = fuzz_next_fd();
    queued = left = received = 0;
    counts = (hl_counts){0};
    packet_count = fds_received = 0;
    bool is_socket = (fuzz_byte(&in) & 1) != 0;
    while (fuzz_more(&in)) {
        step(&queue, &in, is_socket);
        check(&queue);
    }
    if (size % 2 == 0) { /* all of it leaves, or the rest is dropped */
        do {
            send_some(&queue, is_socket, false);
            while (receive(is_socket, 8192)) {
            }
        } while (queue.count > 0);
    }
    hl_writeq_clear(&queue);
    while (receive(is_socket, 8192)) {
    }
    FUZZ_CHECK(received == left);
    int expected = 0;
    for (int i = 0; i < packet_count; i++) {
        expected += packets[i].at < left ? packets[i].fds : 0;
    }
    FUZZ_CHECK(fds_received == expected);
    FUZZ_CHECK(fuzz_next_fd() == next_fd);
    fuzz_end(false);
    return 0;
}
