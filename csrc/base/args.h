/* args.h - arguments of methods that pass *args on to a callback.
 *
 * Argument Clinic and PyArg_ParseTupleAndKeywords() know no such signature.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_ARGS_H
#define HL_BASE_ARGS_H

#include "base/hotloop.h"

#define HL_ARGS_MAX 2

/* def method(self, <names...>, *args, context=None) */
typedef struct {
    const char *method;                 /* for error messages */
    const char *names[HL_ARGS_MAX + 1]; /* leading parameters, NULL-ended */
    bool has_context;
} hl_args_spec;

typedef struct {
    PyObject *leading[HL_ARGS_MAX]; /* borrowed */
    PyObject *context;              /* borrowed; NULL for absent or None */
    PyObject *rest;                 /* owned tuple */
} hl_args;

/* Parses a METH_FASTCALL | METH_KEYWORDS call.  0 with out->rest owned by the
 * caller, or -1 with TypeError as Python words it. */
int hl_args_parse(const hl_args_spec *spec, PyObject *empty_tuple,
                  PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  hl_args *out);

/* The keyword arguments of a METH_FASTCALL | METH_KEYWORDS function without
 * variadic part: positional ones first, then by name; missing ones are NULL in
 * out.  The first required ones must be given; the first positional ones may
 * be given by position.  0 or -1 with TypeError. */
typedef struct {
    const char *method;
    const char *const *names; /* NULL-ended */
    int positional;
    int required;
} hl_params;

int hl_params_parse(const hl_params *params, PyObject *const *args,
                    Py_ssize_t nargs, PyObject *kwnames, PyObject **out);

/* For methods without keywords: 0, or -1 with TypeError unless nargs is
 * count. */
int hl_args_count(const char *method, Py_ssize_t nargs, Py_ssize_t count);

#endif
