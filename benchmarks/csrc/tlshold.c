/* tlshold.c - TLS connections that are used once and then held.
 *
 * Every line on standard input says how many more are wanted. Each sends a
 * message of 1 KiB and one of 64 KiB to an echo server on this machine, gets
 * them back, and idles. Prints a line of JSON when they all do. Linux only.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "support.h"
#include "tlsconn.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define SMALL 1024
#define LARGE (64 * 1024)
#define WAIT_MS 10000

static void
await(struct tlsconn *c, short events)
{
    struct pollfd wait = {.fd = c->fd, .events = events};

    if (poll(&wait, 1, WAIT_MS) != 1) {
        fail("no answer");
    }
    tlsconn_readable(c);
}

static void
echo(struct tlsconn *c, const char *payload, int size)
{
    static char scratch[LARGE];
    int received = 0, done;

    if (tlsconn_write(c, payload, size) != 0) {
        fail("a message cannot be written");
    }
    while ((done = tlsconn_flush(c)) == 0) {
        await(c, POLLOUT);
    }
    while (done == 1 && received < size) {
        int n = tlsconn_read(c, scratch, LARGE);
        if (n < 0) {
            break;
        }
        received += n;
        if (n == 0) {
            await(c, POLLIN);
        }
    }
    if (received != size) {
        fail("the server closed a connection");
    }
}

int
main(int argc, char **argv)
{
    static char payload[LARGE];
    char line[32];
    struct tls tls;
    long held = 0;

    if (argc != 2) {
        fail("usage: tlshold PORT");
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    raise_descriptor_limit();
    tls_init_client(&tls);
    fill_lines(payload, LARGE);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        for (int left = atoi(line); left > 0; left--) {
            struct tlsconn *c = allocate(1, sizeof(*c));
            tlsconn_open(c, &tls, connect_local(atoi(argv[1])));
            tlsconn_connect(c);
            echo(c, payload, SMALL);
            echo(c, payload, LARGE);
            held++;
        }
        printf("{\"held\": %ld}\n", held);
        fflush(stdout);
    }
    return 0;
}
