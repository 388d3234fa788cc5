/* accept.c - one accept().
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/accept.h"

#include "io/descriptor.h"

int
hl_accept(int listening, hl_address *address, socklen_t *size)
{
    int fd;
    do {
        *size = sizeof(*address);
#ifdef __linux__
        fd = accept4(listening, &address->sa, size,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
        fd = accept(listening, &address->sa, size);
#endif
    } while (fd < 0 && errno == EINTR);
#ifndef __linux__
    fd = hl_descriptor_prepare(fd);
#endif
    return fd;
}
