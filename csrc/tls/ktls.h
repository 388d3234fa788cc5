/* ktls.h - leaving the encryption of a connection to the kernel.
 *
 * Where the program asks for it (ssl.OP_ENABLE_KTLS) OpenSSL asks the BIO, at
 * the moment that it has the keys for data.  If the kernel takes them, what
 * OpenSSL writes from then on is plaintext, and records of another type than
 * data are announced: they are remembered here as parts of what is to be sent.
 * All of this may be called without the GIL, in the loop's thread.
 * SPDX-License-Identifier: MIT */

#ifndef HL_TLS_KTLS_H
#define HL_TLS_KTLS_H

#include "io/ktls.h"
#include "tls/bio.h"

/* A record in what is to be sent that is not data. */
typedef struct {
    size_t start;
    size_t size;
    unsigned char type;
} hl_ktls_record;

typedef struct hl_ktls {
    const hl_transport *lower; /* borrowed; NULL: nothing to leave it to */
    hl_ktls_record *records;   /* owned */
    size_t count;
    size_t room;
    unsigned char next_type; /* of the write that comes; 0 is data */
    bool active;
    bool refused; /* nothing more may be sent: new keys are wanted, which the
                   * kernel cannot have, or it is not that socket any more */
} hl_ktls;

/* Does ssl want this? */
bool hl_ktls_is_wanted(const hl_openssl *lib, const hl_ssl *ssl);

/* NULL with MemoryError. */
hl_ktls *hl_ktls_new(void);
void hl_ktls_free(hl_ktls *ktls);

/* Of the BIO: gives the kernel the keys in info, if it takes them; what is to
 * be sent goes before. */
bool hl_ktls_begin(hl_bio_data *data, const void *info);

/* Of the BIO: hl_bio_put() of a record of the type that was announced. */
bool hl_ktls_put(hl_bio_data *data, const char *bytes, size_t size);

/* The peer wants new keys: appends an alert, after which nothing is put. */
void hl_ktls_refuse(hl_bio_data *data);

#endif
