/* uvecho.c - echo server in plain C over libuv: the ceiling of suite net.
 *
 * Modes: "echo" writes what it reads; "two_writes" writes it as a head of
 * 64 bytes and a body; "fixed" collects messages of a fixed size first;
 * "http" answers a request head that comes in one piece, and closes;
 * "http_keep" answers it and waits for the next one.
 * Prints its port as one line of JSON and serves until standard input ends.
 *
 * SPDX-License-Identifier: MIT
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define BACKLOG 1024
#define READ_SIZE (256 * 1024)
#define HEAD 64

enum mode {
    MODE_ECHO,
    MODE_TWO_WRITES,
    MODE_FIXED,
    MODE_HTTP,
    MODE_HTTP_KEEP
};

struct server {
    uv_tcp_t listener;
    uv_pipe_t input;
    enum mode mode;
    size_t message_size;
    char *scratch; /* what every connection reads into */
};

struct conn {
    uv_tcp_t tcp;  /* its data is the server */
    size_t held;   /* bytes of an incomplete message */
    char *message; /* of message_size, in mode "fixed" */
};

struct late_write {
    uv_write_t request;
    char bytes[];
};

static void
check(int err, const char *what)
{
    if (err < 0) {
        fprintf(stderr, "uvecho: %s: %s\n", what, uv_strerror(err));
        exit(1);
    }
}

static void *
allocate(size_t size)
{
    void *memory = malloc(size);

    if (memory == NULL) {
        check(UV_ENOMEM, "malloc");
    }
    return memory;
}

static void
conn_on_close(uv_handle_t *handle)
{
    struct conn *conn = (struct conn *)handle;

    free(conn->message);
    free(conn);
}

static void
conn_close(struct conn *conn)
{
    uv_handle_t *handle = (uv_handle_t *)&conn->tcp;

    if (!uv_is_closing(handle)) {
        uv_close(handle, conn_on_close);
    }
}

static void
write_on_done(uv_write_t *request, int status)
{
    struct conn *conn = (struct conn *)request->handle;

    free(request);
    if (status < 0) {
        conn_close(conn);
    }
}

static void
conn_write(struct conn *conn, char *bytes, size_t size)
{
    uv_stream_t *stream = (uv_stream_t *)&conn->tcp;
    uv_buf_t buf = uv_buf_init(bytes, (unsigned)size);
    int n = uv_try_write(stream, &buf, 1);

    if (n < 0 && n != UV_EAGAIN) {
        conn_close(conn);
        return;
    }
    size_t done = n < 0 ? 0 : (size_t)n;
    if (done == size) {
        return;
    }
    struct late_write *late = allocate(sizeof(*late) + size - done);
    memcpy(late->bytes, bytes + done, size - done);
    buf = uv_buf_init(late->bytes, (unsigned)(size - done));
    check(uv_write(&late->request, stream, &buf, 1, write_on_done), "write");
}

static void
conn_collect(struct conn *conn, size_t wanted, const char *bytes, size_t size)
{
    while (size > 0) {
        size_t part = wanted - conn->held < size ? wanted - conn->held : size;
        memcpy(conn->message + conn->held, bytes, part);
        conn->held += part;
        bytes += part;
        size -= part;
        if (conn->held == wanted) {
            conn->held = 0;
            conn_write(conn, conn->message, wanted);
        }
    }
}

static void
conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct server *server = handle->data;

    (void)suggested;
    *buf = uv_buf_init(server->scratch, READ_SIZE);
}

static char last_response[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
    "Content-Length: 13\r\nConnection: close\r\n\r\nHello, world!";
static char response[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                         "Content-Length: 13\r\n\r\nHello, world!";

static void
conn_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *conn = (struct conn *)stream;
    struct server *server = stream->data;
    size_t size = (size_t)n;

    if (n == 0) {
        return;
    }
    if (n < 0) {
        conn_close(conn);
    }
    else if (server->mode == MODE_FIXED) {
        conn_collect(conn, server->message_size, buf->base, size);
    }
    else if (server->mode == MODE_HTTP) {
        conn_write(conn, last_response, sizeof(last_response) - 1);
        conn_close(conn);
    }
    else if (server->mode == MODE_HTTP_KEEP) {
        conn_write(conn, response, sizeof(response) - 1);
    }
    else if (server->mode == MODE_TWO_WRITES && size > HEAD) {
        conn_write(conn, buf->base, HEAD);
        conn_write(conn, buf->base + HEAD, size - HEAD);
    }
    else {
        conn_write(conn, buf->base, size);
    }
}

static void
server_on_connection(uv_stream_t *listener, int status)
{
    struct server *server = listener->data;
    struct conn *conn = allocate(sizeof(*conn));

    check(status, "listen");
    memset(conn, 0, sizeof(*conn));
    if (server->mode == MODE_FIXED) {
        conn->message = allocate(server->message_size);
    }
    check(uv_tcp_init(listener->loop, &conn->tcp), "uv_tcp_init");
    conn->tcp.data = server;
    check(uv_accept(listener, (uv_stream_t *)&conn->tcp), "accept");
    check(uv_tcp_nodelay(&conn->tcp, 1), "TCP_NODELAY");
    check(
        uv_read_start((uv_stream_t *)&conn->tcp, conn_on_alloc, conn_on_read),
        "read");
}

static void
input_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    (void)buf;
    if (n < 0) {
        uv_stop(stream->loop);
    }
}

static void
server_listen(struct server *server, uv_loop_t *loop)
{
    struct sockaddr_in address;
    int size = sizeof(address);

    check(uv_tcp_init(loop, &server->listener), "uv_tcp_init");
    server->listener.data = server;
    check(uv_ip4_addr("127.0.0.1", 0, &address), "uv_ip4_addr");
    check(uv_tcp_bind(&server->listener, (struct sockaddr *)&address, 0),
          "bind");
    check(uv_listen((uv_stream_t *)&server->listener, BACKLOG,
                    server_on_connection),
          "listen");
    check(uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address,
                             &size),
          "getsockname");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
}

static enum mode
parse_mode(const char *name)
{
    if (strcmp(name, "two_writes") == 0) {
        return MODE_TWO_WRITES;
    }
    if (strcmp(name, "http") == 0) {
        return MODE_HTTP;
    }
    if (strcmp(name, "http_keep") == 0) {
        return MODE_HTTP_KEEP;
    }
    return strcmp(name, "fixed") == 0 ? MODE_FIXED : MODE_ECHO;
}

int
main(int argc, char **argv)
{
    static struct server server;
    uv_loop_t *loop = uv_default_loop();

    if (argc != 3 || atol(argv[2]) < 1) {
        fputs("usage: uvecho echo|two_writes|fixed|http|http_keep "
              "MESSAGE_SIZE\n",
              stderr);
        return 2;
    }
    server.mode = parse_mode(argv[1]);
    server.message_size = (size_t)atol(argv[2]);
    server.scratch = allocate(READ_SIZE);
    server_listen(&server, loop);
    check(uv_pipe_init(loop, &server.input, 0), "uv_pipe_init");
    server.input.data = &server;
    check(uv_pipe_open(&server.input, STDIN_FILENO), "stdin");
    check(uv_read_start((uv_stream_t *)&server.input, conn_on_alloc,
                        input_on_read),
          "stdin");
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}
