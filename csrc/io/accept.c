/* accept.c - one accept().
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/accept.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

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
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
                    fcntl(fd, F_SETFL, O_NONBLOCK) < 0)) {
        int errnum = errno;
        close(fd);
        errno = errnum;
        fd = -1;
    }
#endif
    return fd;
}
