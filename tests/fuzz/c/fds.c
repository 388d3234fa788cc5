/* fds.c - fuzzes io/fds: of descriptors that arrive, each is kept or closed.
 *
 * Its file is included for its insides.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE

#include "fuzz.h"

#include "io/fds.c"

#include <sys/resource.h>

static hl_transport transport;
static int far = -1;

static void
set_up(void)
{
    int fds[2];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    transport.fd = fds[0];
    far = fds[1];
}

/* A message of the peer's; how many descriptors it has. */
static int
send_message(fuzz_input *in)
{
    int fds[HL_PACKET_FDS];
    char data[64] = {0};
    char control[CMSG_SPACE(sizeof(fds))];
    int count = (int)fuzz_upto(in, fuzz_byte(in) & 3 ? 4 : HL_PACKET_FDS);
    for (int i = 0; i < count; i++) {
        fds[i] = STDERR_FILENO;
    }
    struct iovec part = {data, fuzz_upto(in, sizeof(data) - 1) + 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        memset(control, 0, sizeof(control));
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(head), fds, (size_t)count * sizeof(int));
    }
    return sendmsg(far, &message, MSG_NOSIGNAL) < 0 ? 0 : count;
}

static int
open_count(int from)
{
    int count = 0;
    for (int fd = from; fd < from + 3 * HL_PACKET_FDS; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

/* Takes them as recv_fds() does, and is their owner then. */
static void
take(int expected)
{
    PyObject *list = box_take(transport.fds);
    FUZZ_CHECK(list != NULL && PyList_GET_SIZE(list) == expected);
    for (Py_ssize_t i = 0; i < expected; i++) {
        int fd = (int)PyLong_AsLong(PyList_GET_ITEM(list, i));
        FUZZ_CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && close(fd) == 0);
    }
    Py_DECREF(list);
}

/* As if the process had no room for more than so many descriptors. */
static void
limit_fds(int next, uint32_t room, struct rlimit *before)
{
    FUZZ_CHECK(getrlimit(RLIMIT_NOFILE, before) == 0);
    struct rlimit less = *before;
    less.rlim_cur = (rlim_t)(next + (int)room);
    FUZZ_CHECK(setrlimit(RLIMIT_NOFILE, &less) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    if (far < 0) {
        fuzz_begin();
        set_up();
    }
    fuzz_begin();
    int next = fuzz_next_fd(), kept = 0, others = open_count(next);
    FUZZ_CHECK(hl_fds_want(&transport) == 0);
    while (fuzz_more(&in)) {
        uint8_t op = fuzz_byte(&in);
        char room[100];
        struct rlimit before = {0, 0};
        int sent = send_message(&in);
        if (op > 220) {
            limit_fds(next, fuzz_upto(&in, 8), &before);
        }
        while (hl_fds_recv(&transport, room, 1 + op % sizeof(room)) >= 0) {
        }
        int error = errno;
        if (op > 220) {
            FUZZ_CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
            while (hl_fds_recv(&transport, room, sizeof(room)) >= 0) {
            }
        }
        if (error == EMFILE) { /* none of this message */
            FUZZ_CHECK(op > 220 && transport.fds->count == kept);
        }
        else {
            kept = Py_MIN(kept + sent, HL_PACKET_FDS);
        }
        FUZZ_CHECK(transport.fds->count == kept);
        if (op & 1) {
            take(kept);
            kept = 0;
        }
    }
    FUZZ_CHECK(open_count(next) == others + kept);
    hl_fds_free(&transport);
    FUZZ_CHECK(open_count(next) == others && transport.fds == NULL);
    fuzz_end(true);
    return 0;
}
