/* openssl.h - the OpenSSL that the ssl module of this process uses.
 *
 * hotloop neither links OpenSSL nor is compiled with its headers: what it
 * calls is taken from the library that _ssl has loaded, so that there is one
 * OpenSSL, of one version.  The prototypes below are the same in 1.1.1 and all
 * of 3.x, but that of SSL_get_options(), which is called of 3.x only.
 * SPDX-License-Identifier: MIT */

#ifndef HL_TLS_OPENSSL_H
#define HL_TLS_OPENSSL_H

#include "state/state.h"

/* All of them opaque. */
typedef struct hl_ssl hl_ssl;
typedef struct hl_ssl_ctx hl_ssl_ctx;
typedef struct hl_bio hl_bio;
typedef struct hl_bio_method hl_bio_method;

#define HL_SSL_OP_ENABLE_KTLS 8u    /* since 3.0 */
#define HL_OPENSSL_3_0 0x30000000UL /* of OpenSSL_version_num() */

/* Constants of OpenSSL's interface. */
enum {
    HL_SSL_WRITING = 2,
    HL_SSL_READING = 3,
    HL_SSL_RECEIVED_SHUTDOWN = 2,
    HL_SSL_ERROR_ZERO_RETURN = 6,
    HL_SSL_KEY_UPDATE_NONE = -1,
    HL_BIO_FLAGS_READ = 0x01,
    HL_BIO_FLAGS_SHOULD_RETRY = 0x08,
    HL_BIO_FLAGS_ALL_RETRY = 0x0f,
    HL_BIO_CTRL_PENDING = 10,
    HL_BIO_CTRL_FLUSH = 11,
    HL_BIO_CTRL_DUP = 12,
    /* Asked of a socket's BIO by an OpenSSL that leaves encryption to the
     * kernel; the second alone is a documented one. */
    HL_BIO_CTRL_SET_KTLS = 72,
    HL_BIO_CTRL_GET_KTLS_SEND = 73,
    HL_BIO_CTRL_SET_RECORD_TYPE = 74,
    HL_BIO_CTRL_CLEAR_RECORD_TYPE = 75,
    HL_BIO_TYPE_SOURCE_SINK = 0x0400,
};

#define HL_OPENSSL_FUNCTIONS(X)                                      \
    X(unsigned long, OpenSSL_version_num, (void))                    \
    X(int, SSL_read_ex, (hl_ssl *, void *, size_t, size_t *))        \
    X(int, SSL_write_ex, (hl_ssl *, const void *, size_t, size_t *)) \
    X(int, SSL_want, (const hl_ssl *))                               \
    X(int, SSL_get_error, (const hl_ssl *, int))                     \
    X(int, SSL_get_shutdown, (const hl_ssl *))                       \
    X(int, SSL_pending, (const hl_ssl *))                            \
    X(uint64_t, SSL_get_options, (const hl_ssl *))                   \
    X(int, SSL_get_key_update_type, (const hl_ssl *))                \
    X(void, SSL_set_bio, (hl_ssl *, hl_bio *, hl_bio *))             \
    X(hl_ssl_ctx *, SSL_get_SSL_CTX, (const hl_ssl *))               \
    X(void *, SSL_get_ex_data, (const hl_ssl *, int))                \
    X(void, ERR_clear_error, (void))                                 \
    X(hl_bio_method *, BIO_meth_new, (int, const char *))            \
    X(void, BIO_meth_free, (hl_bio_method *))                        \
    X(int, BIO_meth_set_read,                                        \
      (hl_bio_method *, int (*)(hl_bio *, char *, int)))             \
    X(int, BIO_meth_set_write,                                       \
      (hl_bio_method *, int (*)(hl_bio *, const char *, int)))       \
    X(int, BIO_meth_set_ctrl,                                        \
      (hl_bio_method *, long (*)(hl_bio *, int, long, void *)))      \
    X(const hl_bio_method *, BIO_s_mem, (void))                      \
    X(hl_bio *, BIO_new, (const hl_bio_method *))                    \
    X(int, BIO_free, (hl_bio *))                                     \
    X(void, BIO_set_data, (hl_bio *, void *))                        \
    X(void *, BIO_get_data, (hl_bio *))                              \
    X(void, BIO_set_init, (hl_bio *, int))                           \
    X(void, BIO_set_flags, (hl_bio *, int))                          \
    X(void, BIO_clear_flags, (hl_bio *, int))

typedef struct hl_openssl {
#define HL_OPENSSL_FIELD(type, name, params) type(*name) params;
    HL_OPENSSL_FUNCTIONS(HL_OPENSSL_FIELD)
#undef HL_OPENSSL_FIELD
    hl_bio_method *method;      /* of our BIOs: bio.c */
    hl_bio_method *ktls_method; /* borrowed */
    void *library;              /* what dlopen() gave */
} hl_openssl;

/* The functions, once all is checked: one library of a known version behind
 * _ssl, and objects of _ssl laid out as expected.  With st->openssl NULL the
 * direct engine is not to be used, and st->openssl_reason says why.  Done
 * once; 0, or -1 with an exception. */
int hl_openssl_load(hl_state *st);
void hl_openssl_unload(hl_state *st);

/* The SSL that the _ssl._SSLSocket called raw drives; NULL if raw is not one
 * as checked (without an exception). */
hl_ssl *hl_openssl_ssl_of(hl_state *st, PyObject *raw);

#endif
