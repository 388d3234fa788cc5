/* support.h - what the load generators share: ends, memory and sockets.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_SUPPORT_H
#define BENCH_SUPPORT_H

#include <stddef.h>

/* Write the message to standard error and exit with status 1. */
void fail(const char *format, ...)
    __attribute__((format(printf, 1, 2), noreturn));

/* Memory of zeros; ends the process when there is none. */
void *allocate(size_t count, size_t size);

/* Permit as many descriptors as the system lets this process have. */
void raise_descriptor_limit(void);

/* A socket connected to 127.0.0.1:port, with TCP_NODELAY. */
int connect_local(int port);

/* Letters, and a newline at the end. */
void fill_lines(char *payload, size_t size);

#endif
