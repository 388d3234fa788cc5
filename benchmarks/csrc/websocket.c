/* websocket.c - the client's side of RFC 6455, as far as an echo takes it.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "websocket.h"
#include "support.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define FIN_BINARY 0x82
#define MASKED 0x80
#define MASK_BYTES 4
#define TWO_BYTES 126
#define EIGHT_BYTES 127
#define LONGEST_HEAD 14
#define ANSWER 4096

static const char REQUEST[] = "GET / HTTP/1.1\r\n"
                              "Host: 127.0.0.1\r\n"
                              "Upgrade: websocket\r\n"
                              "Connection: Upgrade\r\n"
                              "Sec-WebSocket-Key: aGVsbG8gZnJvbSB0aGUgQw==\r\n"
                              "Sec-WebSocket-Version: 13\r\n\r\n";

void
websocket_open(int fd)
{
    char answer[ANSWER + 1];
    size_t got = 0;

    if (send(fd, REQUEST, sizeof(REQUEST) - 1, MSG_NOSIGNAL) < 0) {
        fail("send: %s before the WebSocket", strerror(errno));
    }
    for (;;) {
        ssize_t n = recv(fd, answer + got, ANSWER - got, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            fail("the server closed a connection before the WebSocket");
        }
        got += (size_t)n;
        answer[got] = '\0';
        if (strstr(answer, "\r\n\r\n") != NULL) {
            break;
        }
    }
    if (strncmp(answer, "HTTP/1.1 101 ", 13) != 0) {
        fail("the server agrees to no WebSocket");
    }
}

char *
websocket_message(const char *data, size_t length, int masked, size_t *size)
{
    char *message = allocate(1, LONGEST_HEAD + length);
    size_t at = 2, bytes = length < TWO_BYTES ? 0 : length < 65536 ? 2 : 8;

    message[0] = (char)FIN_BINARY;
    message[1] = (char)(bytes == 0   ? length
                        : bytes == 2 ? (size_t)TWO_BYTES
                                     : (size_t)EIGHT_BYTES);
    for (size_t left = bytes; left > 0; left--) {
        message[at++] = (char)(length >> (8 * (left - 1)) & 0xff);
    }
    if (masked) {
        message[1] = (char)(message[1] | MASKED);
        at += MASK_BYTES;
    }
    memcpy(message + at, data, length);
    *size = at + length;
    return message;
}
