/* reader_buffer.c - the bytes that wait in a StreamReader.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/reader.h"

#include "base/bytes.h"

#include <string.h>

#define STORE_MIN 256          /* the smallest store */
#define STORE_KEPT 2048        /* the largest one kept while it is empty */
#define GIVE_MIN 1024          /* less is copied out, and the store kept */
#define ROOM_MIN (32 * 1024)   /* worth a read of its own */
#define RESERVE_MAX (16 << 20) /* reserved on the word of a peer */

static inline Py_ssize_t
store_capacity(const hl_reader *self)
{
    return self->store == NULL ? 0 : PyBytes_GET_SIZE(self->store);
}

/* Moves the content into a store of this capacity. */
static int
store_move(hl_reader *self, Py_ssize_t capacity)
{
    PyObject *store = PyBytes_FromStringAndSize(NULL, capacity);
    if (store == NULL) {
        return -1;
    }
    Py_ssize_t size = self->end - self->start;
    if (size > 0) {
        memcpy(PyBytes_AS_STRING(store),
               PyBytes_AS_STRING(self->store) + self->start, (size_t)size);
    }
    Py_XSETREF(self->store, store);
    self->start = 0;
    self->end = size;
    return 0;
}

static Py_ssize_t
store_next_capacity(const hl_reader *self, Py_ssize_t least)
{
    Py_ssize_t capacity = store_capacity(self);
    if (self->start == self->end) {
        return Py_MAX(least, STORE_MIN); /* not more: it may be given away */
    }
    Py_ssize_t more =
        capacity > PY_SSIZE_T_MAX / 2 ? PY_SSIZE_T_MAX / 2 : 2 * capacity;
    if (self->need > capacity) {
        more = Py_MIN(more, self->need);
    }
    return Py_MAX(least, more);
}

/* Makes room behind the content.  Bytes move at most once for each that was
 * taken, or that comes. */
static int
store_make_room(hl_reader *self, Py_ssize_t room)
{
    Py_ssize_t size = self->end - self->start;
    Py_ssize_t capacity = store_capacity(self);
    if (room <= capacity - self->end) {
        return 0;
    }
    if (room > PY_SSIZE_T_MAX / 2 - size) {
        PyErr_NoMemory();
        return -1;
    }
    if (size <= self->start && size + room <= capacity) {
        char *data = PyBytes_AS_STRING(self->store);
        memcpy(data, data + self->start, (size_t)size);
        self->start = 0;
        self->end = size;
        return 0;
    }
    return store_move(self, store_next_capacity(self, size + room));
}

static void
store_put(hl_reader *self, const char *data, Py_ssize_t size)
{
    memcpy(PyBytes_AS_STRING(self->store) + self->end, data, (size_t)size);
    self->end += size;
}

/* The data goes beyond what a readexactly() waits for, which gets a store of
 * exactly its size; a new one takes the rest. */
static int
store_fill_up(hl_reader *self, const char *data, Py_ssize_t size)
{
    if ((self->start != 0 || store_capacity(self) != self->need) &&
        store_move(self, self->need) < 0) {
        return -1;
    }
    Py_ssize_t first = self->need - self->end;
    PyObject *rest =
        PyBytes_FromStringAndSize(NULL, Py_MAX(size - first, 256));
    if (rest == NULL) {
        return -1;
    }
    store_put(self, data, first);
    self->full = self->store;
    self->store = rest;
    self->start = self->end = 0;
    store_put(self, data + first, size - first);
    return 0;
}

/* Puts full and the store together again. */
static int
store_join(hl_reader *self)
{
    Py_ssize_t first = PyBytes_GET_SIZE(self->full);
    Py_ssize_t size = self->end - self->start;
    PyObject *store = PyBytes_FromStringAndSize(NULL, first + size);
    if (store == NULL) {
        return -1;
    }
    char *data = PyBytes_AS_STRING(store);
    memcpy(data, PyBytes_AS_STRING(self->full), (size_t)first);
    memcpy(data + first, PyBytes_AS_STRING(self->store) + self->start,
           (size_t)size);
    Py_CLEAR(self->full);
    Py_SETREF(self->store, store);
    self->start = 0;
    self->end = first + size;
    return 0;
}

/* An empty bytearray that nobody else holds will not be missed. */
static inline void
retire_exposed(hl_reader *self)
{
    PyObject *exposed = self->exposed;
    if (HL_UNLIKELY(exposed != NULL) && Py_REFCNT(exposed) == 1 &&
        PyByteArray_CheckExact(exposed) &&
        PyByteArray_GET_SIZE(exposed) == 0) {
        Py_CLEAR(self->exposed);
    }
}

const char *
hl_reader_data(hl_reader *self)
{
    if (HL_UNLIKELY(self->full != NULL) && store_join(self) < 0) {
        return NULL;
    }
    if (self->exposed != NULL) {
        return PyByteArray_AS_STRING(self->exposed);
    }
    return self->store == NULL ? ""
                               : PyBytes_AS_STRING(self->store) + self->start;
}

static int
exposed_append(PyObject *exposed, const char *data, Py_ssize_t size)
{
    Py_ssize_t before = PyByteArray_GET_SIZE(exposed);
    if (size > PY_SSIZE_T_MAX - before) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyByteArray_Resize(exposed, before + size) < 0) {
        return -1;
    }
    memcpy(PyByteArray_AS_STRING(exposed) + before, data, (size_t)size);
    return 0;
}

int
hl_reader_append(hl_reader *self, const char *data, Py_ssize_t size)
{
    retire_exposed(self);
    if (HL_UNLIKELY(self->exposed != NULL)) {
        return exposed_append(self->exposed, data, size);
    }
    Py_ssize_t before = self->end - self->start;
    if (self->need >= GIVE_MIN && self->full == NULL && before <= self->need &&
        size > self->need - before) {
        return store_fill_up(self, data, size);
    }
    if (store_make_room(self, size) < 0) {
        return -1;
    }
    store_put(self, data, size);
    return 0;
}

/* Nothing is in the store. */
static inline void
store_emptied(hl_reader *self)
{
    self->start = self->end = 0;
    if (store_capacity(self) > STORE_KEPT) {
        Py_CLEAR(self->store);
    }
}

int
hl_reader_drop(hl_reader *self, Py_ssize_t size)
{
    if (self->full != NULL && store_join(self) < 0) {
        return -1;
    }
    if (size == 0) {
        return 0;
    }
    if (self->exposed != NULL) {
        if (PySequence_DelSlice(self->exposed, 0, size) < 0) {
            return -1;
        }
    }
    else {
        self->start += size;
        if (self->start == self->end) {
            store_emptied(self);
        }
    }
    self->scanned = 0;
    return 0;
}

/* May the store become the result? */
static inline bool
store_is_it(const hl_reader *self, Py_ssize_t size)
{
    return size >= GIVE_MIN && self->exposed == NULL && self->start == 0 &&
           self->end == size && store_capacity(self) / 2 <= size;
}

static PyObject *
store_give(hl_reader *self)
{
    PyObject *store = self->store;
    Py_ssize_t size = self->end;
    self->store = NULL;
    self->start = self->end = self->scanned = 0;
    return hl_bytes_cut(store, size);
}

PyObject *
hl_reader_take(hl_reader *self, Py_ssize_t size)
{
    if (HL_UNLIKELY(self->full != NULL) &&
        PyBytes_GET_SIZE(self->full) == size) {
        PyObject *full = self->full;
        self->full = NULL;
        self->scanned = 0;
        return full;
    }
    if (store_is_it(self, size) && self->full == NULL) {
        return store_give(self);
    }
    const char *data = hl_reader_data(self);
    PyObject *taken =
        data == NULL ? NULL : PyBytes_FromStringAndSize(data, size);
    if (taken != NULL && hl_reader_drop(self, size) < 0) {
        Py_CLEAR(taken);
    }
    return taken;
}

void
hl_reader_reserve(hl_reader *self, Py_ssize_t size)
{
    retire_exposed(self);
    Py_ssize_t wanted =
        Py_MIN(size, Py_MAX(RESERVE_MAX, self->end - self->start));
    if (self->exposed != NULL || self->full != NULL || size < GIVE_MIN ||
        self->end - self->start >= size ||
        (self->start == 0 && store_capacity(self) >= wanted &&
         store_capacity(self) <= size)) {
        return;
    }
    if (store_move(self, wanted) < 0) {
        PyErr_Clear();
    }
}

char *
hl_reader_room(hl_reader *self, Py_ssize_t *room)
{
    *room = Py_MIN(store_capacity(self), self->need) - self->end;
    return self->start == 0 && *room >= ROOM_MIN && self->full == NULL
               ? PyBytes_AS_STRING(self->store) + self->end
               : NULL;
}

void
hl_reader_commit(hl_reader *self, Py_ssize_t size)
{
    self->end += size;
}

PyObject *
hl_reader_expose(hl_reader *self)
{
    if (self->exposed != NULL) {
        return self->exposed;
    }
    const char *data = hl_reader_data(self);
    PyObject *exposed =
        data == NULL
            ? NULL
            : PyByteArray_FromStringAndSize(data, self->end - self->start);
    if (exposed != NULL) {
        hl_reader_replace(self, exposed);
        Py_DECREF(exposed);
    }
    return exposed;
}

void
hl_reader_replace(hl_reader *self, PyObject *bytearray)
{
    self->start = self->end = self->scanned = 0;
    Py_CLEAR(self->store);
    Py_CLEAR(self->full);
    Py_XSETREF(self->exposed, Py_NewRef(bytearray));
}
