/* ktls.h - sockets that the kernel encrypts for (Linux: the "tls" protocol).
 *
 * From hl_ktls_start() on what is sent to the socket is plaintext: the kernel
 * makes records of it, by sendfile() as well, and only who sends anything but
 * data has to say so.  There is no way back.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_KTLS_H
#define HL_IO_KTLS_H

#include "io/stream.h"

/* Of Linux's interface, whose header a C library need not have. */
enum {
    HL_SOL_TLS = 282,
    HL_TLS_SET_RECORD_TYPE = 1,
};

/* Types of records. */
enum {
    HL_RECORD_ALERT = 21,
    HL_RECORD_HANDSHAKE = 22,
};

/* Has the kernel encrypt all that is sent to self from now on, after so many
 * bytes of *size at unsent that are to go as they are; *size is what of them
 * could not be sent.  info is the kernel's struct tls_crypto_info with what
 * follows it.  False if the kernel does not, or if something is unsent; then
 * all goes on as before.  Needs no GIL, but the loop's thread. */
bool hl_ktls_start(const hl_transport *self, const char *unsent, size_t *size,
                   const void *info);

/* write() of size > 0 bytes that are a record of another type than data.  0 or
 * -1. */
int hl_ktls_write_record(hl_transport *self, unsigned char type,
                         const char *data, size_t size);

#endif
