/* api.h - the parts of the Loop type, each in its own file.
 *
 * SPDX-License-Identifier: MIT */

#ifndef HL_API_API_H
#define HL_API_API_H

#include "base/args.h"
#include "loop/loop.h"

int hl_loop_type_init(PyObject *module, hl_state *st);

/* Gives create_task() the signature that it has in the running release; once
 * that has been asked (aio_state.h). */
void hl_loop_describe_create_task(hl_state *st);

/* Method tables; loop_type.c joins them into one. */
extern PyMethodDef hl_loop_schedule_methods[];
extern PyMethodDef hl_loop_run_methods[];
extern PyMethodDef hl_loop_io_methods[];
extern PyMethodDef hl_loop_sock_methods[];
extern PyMethodDef hl_loop_net_methods[];
extern PyMethodDef hl_loop_tls_methods[];
extern PyMethodDef hl_loop_insight_methods[];
extern PyMethodDef hl_loop_share_methods[];

/* call_soon_threadsafe(), and the calls of high priority from the loop's
 * thread or any.  New reference to the handle, or NULL. */
PyObject *hl_loop_queue_call(hl_loop *self, const hl_args_spec *spec,
                             bool threadsafe, bool urgent,
                             PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);

/* What a new loop begins with. */
extern const hl_budget hl_loop_default_budget;

/* hl_wrap_fn: the TLS of an accepted connection; tls is (sslcontext,
 * ssl_handshake_timeout, ssl_shutdown_timeout). */
PyObject *hl_loop_wrap_accepted(hl_loop *loop, PyObject *protocol,
                                PyObject *tls);

/* The attributes that the stdlib's loop classes expect on self. */
extern PyGetSetDef hl_loop_getset[];

#endif
