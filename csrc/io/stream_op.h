/* stream_op.h - what the coroutine methods of streams return.
 *
 * To those who await it, an operation is a coroutine: nothing happens before
 * it is first sent to, it runs once, and a task can be made of it.  What does
 * not have to wait ends with that first send, without a future.
 *
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_STREAM_OP_H
#define HL_IO_STREAM_OP_H

#include "state/state.h"

typedef struct hl_stream_op hl_stream_op;

/* The methods return 1 with a new reference in *result, 0 to wait, -1 with an
 * exception. */
typedef struct {
    const char *name; /* of the coroutine */
    const char *qualname;
    int (*begin)(hl_stream_op *op, PyObject **result);
    /* What was waited for has come. */
    int (*go_on)(hl_stream_op *op, PyObject **result);
    /* The wait is over, for whatever reason.  Keeps the pending exception.
     * May be NULL. */
    void (*end_wait)(hl_stream_op *op);
    /* What is to become of the pending exception (1 or -1).  May be NULL. */
    int (*failed)(hl_stream_op *op, PyObject **result);
} hl_stream_op_kind;

typedef enum {
    HL_OP_CREATED = 0,
    HL_OP_RUNNING,
    HL_OP_SUSPENDED,
    HL_OP_DONE,
} hl_stream_op_state;

struct hl_stream_op {
    PyObject_HEAD
    hl_state *st;
    PyObject *module; /* owned: keeps st whole */
    const hl_stream_op_kind *kind;
    PyObject *owner;  /* the reader or the writer; all owned, NULL once done */
    PyObject *arg;    /* as the kind likes, may be NULL */
    PyObject *future; /* of ours, waited for */
    PyObject *inner;  /* or an iterator that is awaited; both NULL: a yield */
    Py_ssize_t n;
    Py_ssize_t offset;
    uint8_t state; /* hl_stream_op_state */
    bool waited;   /* for the kinds */
};

/* A new operation; arg may be NULL.  NULL with MemoryError. */
PyObject *hl_stream_op_new(hl_state *st, const hl_stream_op_kind *kind,
                           PyObject *owner, PyObject *arg, Py_ssize_t n);

/* Waits for what `await awaitable` would.  0 or -1. */
int hl_stream_op_await(hl_stream_op *op, PyObject *awaitable);

/* Waits for a future (stolen), ours or foreign.  0 or -1. */
int hl_stream_op_wait(hl_stream_op *op, PyObject *future);

/* What the coroutine methods do: am_send, throw() (exc is borrowed), close()
 * (0 or -1). */
PySendResult hl_stream_op_send(PyObject *op, PyObject *value,
                               PyObject **result);
PySendResult hl_stream_op_throw(hl_stream_op *op, PyObject *exc,
                                PyObject **result);
int hl_stream_op_close(hl_stream_op *op);

/* Dropped without having ended: what a coroutine's finalizer does, and what
 * the garbage collector does. */
void hl_stream_op_abandon(hl_stream_op *op);
void hl_stream_op_clear(hl_stream_op *op);

int hl_stream_op_type_init(PyObject *module, hl_state *st);

/* Frees the dead operations that the module keeps for the next ones. */
void hl_stream_op_free_pool(hl_state *st);

#endif
