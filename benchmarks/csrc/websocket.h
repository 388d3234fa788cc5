/* websocket.h - the client's side of RFC 6455, as far as an echo takes it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H

#include <stddef.h>

/* Ask the server on this connected, blocking socket for a WebSocket without
 * extensions. Ends the process with a message unless it agrees. */
void websocket_open(int fd);

/* One binary message in one frame, masked as a client's has to be (with a
 * mask of zeros, which leaves the bytes alone) or bare as a server's. The
 * caller owns it; `size` gets its length. */
char *websocket_message(const char *data, size_t length, int masked,
                        size_t *size);

#endif
