/* udpecho.c - UDP server in plain C: the ceiling of suite udp.
 *
 * One recvmmsg() and one sendmmsg() per batch and nothing in between. Modes:
 * "echo" sends back what it receives; "sink" counts, and answers a datagram
 * that begins with 'L' with the count. Prints its port as one line of JSON and
 * serves until it is killed.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

#define BATCH 64
#define SLOT 2048

struct server {
    int fd;
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    struct sockaddr_in peers[BATCH];
    char bytes[BATCH][SLOT];
    unsigned long long count;
};

static void
check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "udpecho: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void
server_open(struct server *s)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t size = sizeof(address);

    s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    check(s->fd >= 0, "socket");
    check(bind(s->fd, (struct sockaddr *)&address, size) == 0, "bind");
    check(getsockname(s->fd, (struct sockaddr *)&address, &size) == 0,
          "getsockname");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
}

static int
server_receive(struct server *s)
{
    for (int i = 0; i < BATCH; i++) {
        s->vectors[i].iov_base = s->bytes[i];
        s->vectors[i].iov_len = SLOT;
        s->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &s->peers[i],
            .msg_namelen = sizeof(s->peers[i]),
            .msg_iov = &s->vectors[i],
            .msg_iovlen = 1,
        };
    }
    int n = recvmmsg(s->fd, s->messages, BATCH, 0, NULL);
    check(n >= 0 || errno == EAGAIN || errno == EINTR, "recvmmsg");
    return n;
}

static void
server_echo(struct server *s, int n)
{
    for (int i = 0; i < n; i++) {
        s->vectors[i].iov_len = s->messages[i].msg_len;
    }
    for (int sent = 0; sent < n;) {
        int more =
            sendmmsg(s->fd, s->messages + sent, (unsigned)(n - sent), 0);
        check(more >= 0 || errno == EAGAIN || errno == EINTR, "sendmmsg");
        sent += more > 0 ? more : 0;
    }
}

static void
server_count(struct server *s, int n)
{
    char answer[32];

    for (int i = 0; i < n; i++) {
        s->count++;
        if (s->bytes[i][0] == 'L') {
            int size = snprintf(answer, sizeof(answer), "%llu", s->count);
            sendto(s->fd, answer, (size_t)size, 0,
                   (struct sockaddr *)&s->peers[i], sizeof(s->peers[i]));
        }
    }
}

int
main(int argc, char **argv)
{
    static struct server s;

    if (argc != 2) {
        fputs("usage: udpecho echo|sink\n", stderr);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    server_open(&s);
    for (;;) {
        struct pollfd ready = {.fd = s.fd, .events = POLLIN};
        poll(&ready, 1, -1);
        int n = server_receive(&s);
        if (strcmp(argv[1], "echo") == 0) {
            server_echo(&s, n);
        }
        else {
            server_count(&s, n);
        }
    }
}
