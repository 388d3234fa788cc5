/* state.h - what the module owns: types, strings, imported objects.
 *
 * One per interpreter and module object; nothing in hotloop is global.
 * SPDX-License-Identifier: MIT */

#ifndef HL_STATE_STATE_H
#define HL_STATE_STATE_H

#include "base/attrs.h"

typedef struct hl_loop hl_loop;
typedef struct hl_watcher hl_watcher;
typedef struct hl_future hl_future;
typedef struct hl_task hl_task;

/* Offsets of the slots of asyncio.Handle, the same in every subtype. */
typedef struct {
    Py_ssize_t callback;
    Py_ssize_t args;
    Py_ssize_t cancelled;
    Py_ssize_t context;
    Py_ssize_t loop;
    Py_ssize_t repr;
    Py_ssize_t source_traceback;
    Py_ssize_t scheduled; /* TimerHandle only */
    Py_ssize_t when;      /* our TimerHandle only: a double behind the slots */
    Py_ssize_t lock;      /* _ThreadSafeHandle only (3.14+) */
    Py_ssize_t hold;      /* ours only: who holds it, behind the slots */
} hl_handle_slots;

/* Offsets of what the socket module's type tells of itself. */
typedef struct {
    Py_ssize_t family;
    Py_ssize_t type;
    Py_ssize_t proto;
} hl_socket_slots;

/* Where a contextvars.Context keeps its mapping, and the one mapping that all
 * empty contexts share: found by looking at some, see loop/context.c. */
typedef struct {
    Py_ssize_t offset; /* 0 with mapping NULL: not found */
    void *mapping;     /* borrowed from the marker blank_context */
} hl_context_layout;

/* What a class was, and whether it still is, see io/subclass.h. */
typedef struct {
    PyObject
        *originals;   /* borrowed dict: name -> (ours, the base's or None) */
    PyObject *base;   /* borrowed: the Python class, NULL if none */
    unsigned int tag; /* of the type for which same was found out last */
    bool same;
} hl_stock;

#define HL_OP_POOL_MAX 64

/* What the running release of asyncio does, where those of one version differ;
 * hotloop._release asks for it. */
typedef struct {
    bool names_types;       /* that write() takes, in its TypeError */
    bool accepts_one_more;  /* than the backlog, in one turn */
    bool skips_aborted;     /* connections, and goes on accepting */
    bool moves_file;        /* if sendfile() has sent nothing, too */
    bool chains_by_thread;  /* an outcome in the loop's is passed on at once */
    bool eager_takes_start; /* eager_start=, the eager task factory */
    bool checks_context;    /* that a task is to run in */
    bool tls_looks_below;   /* is_closing() of the transport below counts */
} hl_release;

typedef struct hl_state {
#define HL_TYPE(name) PyTypeObject *name##_type;
#define HL_STR(name) PyObject *str_##name;
#define HL_ATTR(name, module, attr) PyObject *name;
#define HL_ATTR_OPT(name, module, attr) PyObject *name;
#define HL_OBJECT(name) PyObject *name;
#include "state/names.def"
#undef HL_TYPE
#undef HL_STR
#undef HL_ATTR
#undef HL_ATTR_OPT
#undef HL_OBJECT
    PyObject *module; /* borrowed: the state lives inside it */
    hl_handle_slots slots;
    hl_socket_slots socket_slots;
    hl_context_layout context_layout;
    hl_release release;
    PyMethodDef *loop_methods;  /* the joined table of the Loop type */
    PyMethodDef *tls_methods;   /* and of SSLTransport */
    struct hl_openssl *openssl; /* tls/openssl.h; NULL: see the reason */
    const char *openssl_reason; /* both NULL: not looked for yet */
    uint64_t task_counter;      /* numbers of default task names */
    hl_stock reader_stock;      /* with reader_originals, and so on */
    hl_stock writer_stock;
    hl_stock protocol_stock;
    hl_stock transport_stock;
    hl_stock asyncio_reader_stock; /* io/streamreader.c */
    hl_stock asyncio_protocol_stock;
    hl_attrs asyncio_reader_attrs;
    hl_attrs asyncio_protocol_attrs;
    PyObject *op_pool[HL_OP_POOL_MAX]; /* dead StreamOperation objects */
    int op_pool_count;
} hl_state;

extern struct PyModuleDef hl_module_def;

/* The state behind any of our types or their Python subclasses; NULL with
 * TypeError set for a foreign type, RuntimeError for one that the garbage
 * collector has cleared.  Walks the MRO: objects that are hot cache
 * the loop, which holds the pointer (hl_loop_state()). */
hl_state *hl_state_of_type(PyTypeObject *type);

/* Fills strings and imported attributes.  Types are added by each file's
 * hl_<x>_type_init().  0 or -1 with an exception set. */
int hl_state_init(PyObject *module, hl_state *st);
int hl_state_traverse(hl_state *st, visitproc visit, void *arg);
void hl_state_clear(hl_state *st);

/* The tables of several files as the one that a type takes: to be freed with
 * PyMem_Free() after the type, or NULL with MemoryError. */
PyMethodDef *hl_state_join_methods(PyMethodDef *const *tables, size_t count);

/* Creates a heap type of this module from spec, with base (or NULL for
 * object), and stores it in *slot.  0 or -1 with an exception set. */
int hl_state_add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec,
                      PyObject *base);

#endif
