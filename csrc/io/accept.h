/* accept.h - one accept().
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_ACCEPT_H
#define HL_IO_ACCEPT_H

#include "io/address.h"

/* A descriptor that is non-blocking and not inherited, with the peer's
 * address, or -1 with errno. */
int hl_accept(int listening, hl_address *address, socklen_t *size);

#endif
