/* bio.h - what OpenSSL reads from and writes to.
 *
 * In place of a pair of buffers per connection: ciphertext is read where it
 * was received, and only what is left of it is kept; what is to be sent
 * gathers in memory that is lent for the time.  A BIO is called without the
 * GIL as well, during a handshake, so nothing here touches Python.
 * SPDX-License-Identifier: MIT */

#ifndef HL_TLS_BIO_H
#define HL_TLS_BIO_H

#include "tls/openssl.h"

/* Zero-filled is empty. */
typedef struct {
    char *kept; /* received before, owned; comes first */
    size_t kept_size;
    size_t kept_used;
    size_t kept_room;
    const char *lent; /* being received: somebody else's memory */
    size_t lent_size;

    char *out; /* to be sent */
    size_t out_size;
    size_t out_room;
    char *outgrown; /* the lent memory, once out had to grow beyond it */
    bool out_lent;  /* out belongs to somebody else */
    bool failed;    /* out of memory: what was to be sent has a gap */

    struct hl_ktls *ktls; /* ktls.h; NULL where nobody asks for it */
} hl_bio_data;

static inline size_t
hl_bio_unread(const hl_bio_data *data)
{
    return data->kept_size - data->kept_used + data->lent_size;
}

/* Fills in the methods of lib: the second is for data that has a struct
 * hl_ktls, and is not to be freed.  False without memory. */
bool hl_bio_init(hl_openssl *lib);

/* Has ssl read and write data, which must live until hl_bio_detach(): that
 * leaves it with empty memory.  0, or -1 with MemoryError. */
int hl_bio_attach(const hl_openssl *lib, hl_ssl *ssl, hl_bio_data *data);
void hl_bio_detach(const hl_openssl *lib, hl_ssl *ssl,
                   const hl_bio_data *data);

/* Appends to what is to be sent; false, with data->failed, without memory. */
bool hl_bio_put(hl_bio_data *data, const char *bytes, size_t size);

/* Keeps a copy of what is left of lent memory, or of size more bytes.  0, or
 * -1 with MemoryError. */
int hl_bio_keep_lent(hl_bio_data *data);
int hl_bio_keep(hl_bio_data *data, const char *more, size_t size);

/* Takes buffer, of room bytes, for what is to be sent; out must be NULL. */
void hl_bio_lend_out(hl_bio_data *data, char *buffer, size_t room);

/* Takes what was to be sent away, to be given to hl_bio_free_out(). */
typedef struct {
    char *data;
    size_t size;
    char *lent; /* for its owner */
} hl_bio_out;
hl_bio_out hl_bio_take_out(hl_bio_data *data);
void hl_bio_free_out(hl_bio_out *out);

/* Frees what was received. */
void hl_bio_free(hl_bio_data *data);

#endif
