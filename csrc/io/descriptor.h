/* descriptor.h - the flags that every descriptor of ours has.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_DESCRIPTOR_H
#define HL_IO_DESCRIPTOR_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Makes a new descriptor non-blocking and not inherited, for systems that do
 * not open it so.  fd, or -1 with errno when that fails (it is closed then) or
 * fd is -1 already. */
static inline int
hl_descriptor_prepare(int fd)
{
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
                    fcntl(fd, F_SETFL, O_NONBLOCK) < 0)) {
        int errnum = errno;
        close(fd);
        errno = errnum;
        fd = -1;
    }
    return fd;
}

#endif
