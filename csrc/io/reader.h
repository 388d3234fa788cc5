/* reader.h - StreamReader: asyncio's with its state in C.
 *
 * Bytes wait in a store of our own, out of which a read is cut, or which
 * becomes the result as it is.  Who looks at _buffer gets a real bytearray,
 * which from then on is the store: it may be kept and changed.  The functions
 * here know both.
 *
 * Threading: GIL held.  The caller holds a reference to the reader.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_READER_H
#define HL_IO_READER_H

#include "io/subclass.h"

typedef struct {
    hl_subclass base;
    PyObject *loop; /* all owned; NULL before __init__() */
    PyObject *transport;
    PyObject *exception;
    PyObject *waiter;
    PyObject *limit_value; /* _limit as it was given */
    PyObject *store;   /* bytes, nobody else's: [start, end) is the content.
                         * NULL: none */
    PyObject *full;    /* bytes in front of them: what a readexactly() waited
                         * for, until it takes it.  NULL: none */
    PyObject *exposed; /* the bytearray, then there is no store.  NULL: none */
    Py_ssize_t start;
    Py_ssize_t end;
    Py_ssize_t limit;   /* 0: not a size, and nothing here can go by it */
    Py_ssize_t need;    /* > 0: who waits does so for this many */
    Py_ssize_t scanned; /* so many bytes hold no newline */
    bool eof;
    bool paused;
} hl_reader;

/* Is op such a reader, of methods that were not replaced? */
static inline bool
hl_reader_check(hl_state *st, PyObject *op)
{
    return PyObject_TypeCheck(op, st->StreamReader_type) &&
           hl_subclass_is_stock(op, &st->reader_stock) &&
           ((hl_reader *)op)->limit > 0;
}

/* ---- reader_buffer.c ---- */

static inline Py_ssize_t
hl_reader_size(const hl_reader *self)
{
    return HL_UNLIKELY(self->exposed != NULL)
               ? PyByteArray_GET_SIZE(self->exposed)
               : self->end - self->start +
                     (self->full == NULL ? 0 : PyBytes_GET_SIZE(self->full));
}

/* The content; valid until anything else is done.  NULL with MemoryError. */
const char *hl_reader_data(hl_reader *self);

/* 0, or -1 with MemoryError, or with BufferError while somebody uses the
 * bytearray. */
int hl_reader_append(hl_reader *self, const char *data, Py_ssize_t size);

/* Drops the first size bytes.  0 or -1, as above. */
int hl_reader_drop(hl_reader *self, Py_ssize_t size);

/* Takes the first size bytes out.  New reference; or NULL, then nothing is
 * lost. */
PyObject *hl_reader_take(hl_reader *self, Py_ssize_t size);

/* Prepares for being filled up to size, which then is taken without a copy.
 * Does nothing where that is no gain or there is no memory for it. */
void hl_reader_reserve(hl_reader *self, Py_ssize_t size);

/* _buffer: borrowed, or NULL with MemoryError. */
PyObject *hl_reader_expose(hl_reader *self);

/* Puts a bytearray in the place of all content. */
void hl_reader_replace(hl_reader *self, PyObject *bytearray);

/* ---- reader.c: 0, or -1 with an exception ---- */

/* Data for a reader that has not seen its end: feed_data(). */
int hl_reader_feed(hl_reader *self, const char *data, Py_ssize_t size);

/* The same in two steps, where a readexactly() waits for much more: what is
 * received into the room (NULL: there is none) is counted with _commit(), and
 * then _fed() follows.  Nothing may be done with the reader in between. */
char *hl_reader_room(hl_reader *self, Py_ssize_t *room);
void hl_reader_commit(hl_reader *self, Py_ssize_t size);
int hl_reader_fed(hl_reader *self);

int hl_reader_feed_eof(hl_reader *self);
int hl_reader_set_exception(hl_reader *self, PyObject *exc);

/* raise exc; the reader's is what set_exception() stored.  -1. */
int hl_stream_raise(PyObject *exc);
int hl_reader_raise(hl_reader *self);

/* _maybe_resume_transport() */
int hl_reader_maybe_resume(hl_reader *self);

/* The two halves of _wait_for_data().  begin: a new future, or NULL. */
PyObject *hl_reader_begin_wait(hl_reader *self, const char *method);
void hl_reader_end_wait(hl_reader *self);

int hl_reader_type_init(PyObject *module, hl_state *st);

#endif
