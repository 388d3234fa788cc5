/* loadgen.c - closed-loop load for an echo server on this machine.
 *
 * Prints one line of JSON: requests per second, latency, and CPU time of
 * the server per request. Linux only.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "client.h"
#include "support.h"
#include "window.h"

#include <stdlib.h>
#include <string.h>

struct options {
    int port;
    int connections;
    long size;
    double warmup;
    double duration;
    pid_t server;
    int prefixed;
    int websocket;
};

static void
parse_options(int argc, char **argv, struct options *o)
{
    o->prefixed = argc == 8 && strcmp(argv[7], "prefixed") == 0;
    o->websocket = argc == 8 && strcmp(argv[7], "websocket") == 0;
    if (argc != 7 && !o->prefixed && !o->websocket) {
        fail("usage: loadgen PORT CONNECTIONS SIZE WARMUP SECONDS SERVER_PID "
             "[prefixed | websocket]");
    }
    o->port = atoi(argv[1]);
    o->connections = atoi(argv[2]);
    o->size = atol(argv[3]);
    o->warmup = atof(argv[4]);
    o->duration = atof(argv[5]);
    o->server = (pid_t)atol(argv[6]);
    if (o->port < 1 || o->port > 65535 || o->connections < 1 || o->size < 1 ||
        o->warmup < 0 || o->duration <= 0 || o->server < 1 ||
        (o->prefixed && o->size <= PREFIX)) {
        fail("an argument is out of range");
    }
}

static void
measure(struct client *c, const struct options *o)
{
    struct window w;
    uint64_t before = c->completed;

    window_begin(&w, o->server);
    client_run(c, (uint64_t)(o->duration * 1e9));
    window_end(&w);
    window_print(&w, (double)(c->completed - before), c->latency);
}

int
main(int argc, char **argv)
{
    static struct histogram latency;
    struct options o;
    struct client c;

    parse_options(argc, argv, &o);
    raise_descriptor_limit();
    client_open(&c, o.port, o.connections, (size_t)o.size);
    if (o.prefixed) {
        client_prefix(&c);
    }
    if (o.websocket) {
        client_websocket(&c);
    }
    c.verify = 1;
    client_first_round(&c);
    c.verify = 0;
    client_run(&c, (uint64_t)(o.warmup * 1e9));
    c.latency = &latency;
    measure(&c, &o);
    return 0;
}
