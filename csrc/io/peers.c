/* peers.c - the addresses that one datagram socket has to do with.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/peers.h"

#include <string.h>

/* An address is looked for in this many slots from its own one on. */
#define PEERS_PROBES 8
#define PEERS_MIN 16
#define PEERS_MAX 1024

static uint64_t
hash_mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ (hash >> 29);
}

static uint64_t
hash_raw(const void *raw, size_t size)
{
    uint64_t hash = size, word;
    const char *next = raw;
    for (; size >= sizeof(word); size -= sizeof(word)) {
        memcpy(&word, next, sizeof(word));
        hash = hash_mix(hash, word);
        next += sizeof(word);
    }
    word = 0;
    memcpy(&word, next, size);
    return hash_mix(hash, word);
}

static uint64_t
hash_object(const PyObject *op)
{
    return hash_mix(0, (uint64_t)(uintptr_t)op);
}

static hl_peer *
table_slot(hl_peer_table *table, uint64_t hash, uint32_t probe)
{
    return &table->slots[((uint32_t)hash + probe) & (table->size - 1)];
}

static void
peer_free(hl_peer *peer)
{
    Py_CLEAR(peer->addr);
    Py_CLEAR(peer->raw);
}

static void
table_clear(hl_peer_table *table)
{
    for (uint32_t i = 0; i < table->size; i++) {
        peer_free(&table->slots[i]);
    }
    PyMem_Free(table->slots);
    memset(table, 0, sizeof(*table));
}

/* A free slot for the hash, or NULL. */
static hl_peer *
table_find_free(hl_peer_table *table, uint64_t hash)
{
    for (uint32_t i = 0; i < PEERS_PROBES && table->size > 0; i++) {
        hl_peer *peer = table_slot(table, hash, i);
        if (peer->addr == NULL) {
            return peer;
        }
    }
    return NULL;
}

/* Four times the size.  0, or -1 (nothing raised) with the table as it was. */
static int
table_grow(hl_peer_table *table)
{
    hl_peer_table grown = {.size = table->size ? table->size * 4 : PEERS_MIN};
    grown.slots = PyMem_Calloc(grown.size, sizeof(hl_peer));
    if (grown.slots == NULL) {
        return -1;
    }
    for (uint32_t i = 0; i < table->size; i++) {
        hl_peer *old = &table->slots[i];
        hl_peer *fresh =
            old->addr == NULL ? NULL : table_find_free(&grown, old->hash);
        if (fresh != NULL) {
            *fresh = *old;
        }
        else {
            peer_free(old);
        }
    }
    PyMem_Free(table->slots);
    *table = grown;
    return 0;
}

/* Remembers a peer, without which all goes on as well. */
static void
table_store(hl_peer_table *table, uint64_t hash, PyObject *addr, PyObject *raw)
{
    hl_peer *peer = table_find_free(table, hash);
    if (peer == NULL && table->size < PEERS_MAX && table_grow(table) == 0) {
        peer = table_find_free(table, hash);
    }
    if (peer == NULL) {
        if (table->size == 0) {
            return;
        }
        peer = table_slot(table, hash, table->next++ % PEERS_PROBES);
        peer_free(peer);
    }
    peer->addr = Py_NewRef(addr);
    peer->raw = Py_NewRef(raw);
    peer->hash = hash;
}

static hl_peer *
find_raw(hl_peer_table *table, uint64_t hash, const void *raw, size_t size)
{
    for (uint32_t i = 0; i < PEERS_PROBES && table->size > 0; i++) {
        hl_peer *peer = table_slot(table, hash, i);
        if (peer->addr != NULL && peer->hash == hash &&
            (size_t)PyBytes_GET_SIZE(peer->raw) == size &&
            memcmp(PyBytes_AS_STRING(peer->raw), raw, size) == 0) {
            return peer;
        }
    }
    return NULL;
}

static hl_peer *
find_addr(hl_peer_table *table, uint64_t hash, PyObject *addr)
{
    for (uint32_t i = 0; i < PEERS_PROBES && table->size > 0; i++) {
        hl_peer *peer = table_slot(table, hash, i);
        if (peer->addr == addr) {
            return peer;
        }
    }
    return NULL;
}

PyObject *
hl_peers_addr(hl_peers *peers, const void *raw, size_t size)
{
    if (size == 0) {
        Py_RETURN_NONE; /* a Unix socket without a name */
    }
    uint64_t hash = hash_raw(raw, size);
    hl_peer *peer = find_raw(&peers->by_raw, hash, raw, size);
    if (HL_LIKELY(peer != NULL)) {
        return Py_NewRef(peer->addr);
    }
    PyObject *addr = hl_address_to_python(raw, size);
    PyObject *copy =
        addr == NULL
            ? NULL
            : PyBytes_FromStringAndSize((const char *)raw, (Py_ssize_t)size);
    if (copy == NULL) {
        Py_XDECREF(addr);
        return NULL;
    }
    table_store(&peers->by_raw, hash, addr, copy);
    /* The answer goes to this very object as a rule. */
    table_store(&peers->by_addr, hash_object(addr), addr, copy);
    Py_DECREF(copy);
    return addr;
}

PyObject *
hl_peers_raw(hl_peers *peers, int family, PyObject *addr)
{
    uint64_t hash = hash_object(addr);
    hl_peer *peer = find_addr(&peers->by_addr, hash, addr);
    if (HL_LIKELY(peer != NULL)) {
        return peer->raw;
    }
    hl_address address;
    socklen_t size = 0;
    if (family == AF_UNIX) {
        size = (socklen_t)hl_address_from_name(&address, addr);
    }
    else if (!hl_address_from_python(family, addr, &address, &size)) {
        size = 0;
    }
    if (size == 0) {
        return NULL;
    }
    PyObject *raw =
        PyBytes_FromStringAndSize((const char *)&address, (Py_ssize_t)size);
    if (raw == NULL) {
        return NULL;
    }
    table_store(&peers->by_addr, hash, addr, raw);
    peer = find_addr(&peers->by_addr, hash, addr);
    Py_DECREF(raw); /* the table has another reference */
    if (peer == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    return peer->raw;
}

void
hl_peers_clear(hl_peers *peers)
{
    table_clear(&peers->by_raw);
    table_clear(&peers->by_addr);
}
