/* args.c - arguments of METH_FASTCALL | METH_KEYWORDS methods.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "base/args.h"

/* The index of name in names, or -1. */
static int
find_name(const char *const *names, PyObject *name)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static int
raise_unexpected(const char *method, PyObject *name)
{
    PyErr_Format(PyExc_TypeError,
                 "%s() got an unexpected keyword argument '%U'", method, name);
    return -1;
}

static int
raise_multiple(const char *method, PyObject *name)
{
    PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                 method, name);
    return -1;
}

static int
check_required(const char *method, const char *const *names, int required,
               PyObject *const *values)
{
    for (int i = 0; i < required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%s() missing required argument: '%s'", method,
                         names[i]);
            return -1;
        }
    }
    return 0;
}

static int
parse_keywords(const hl_args_spec *spec, PyObject *const *values,
               PyObject *kwnames, hl_args *out)
{
    Py_ssize_t n = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (spec->has_context &&
            PyUnicode_CompareWithASCIIString(name, "context") == 0) {
            out->context = values[i] == Py_None ? NULL : values[i];
            continue;
        }
        int k = find_name(spec->names, name);
        if (k < 0) {
            return raise_unexpected(spec->method, name);
        }
        if (out->leading[k] != NULL) {
            return raise_multiple(spec->method, name);
        }
        out->leading[k] = values[i];
    }
    return 0;
}

int
hl_args_parse(const hl_args_spec *spec, PyObject *empty_tuple,
              PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
              hl_args *out)
{
    int count = 0;
    out->context = NULL;
    while (spec->names[count] != NULL) {
        out->leading[count] = count < nargs ? args[count] : NULL;
        count++;
    }
    if (kwnames != NULL &&
        parse_keywords(spec, args + nargs, kwnames, out) < 0) {
        return -1;
    }
    if (check_required(spec->method, spec->names, count, out->leading) < 0) {
        return -1;
    }
    if (nargs <= count) {
        out->rest = Py_NewRef(empty_tuple);
        return 0;
    }
    out->rest = PyTuple_New(nargs - count);
    if (out->rest == NULL) {
        return -1;
    }
    for (Py_ssize_t i = count; i < nargs; i++) {
        PyTuple_SET_ITEM(out->rest, i - count, Py_NewRef(args[i]));
    }
    return 0;
}

int
hl_params_parse(const hl_params *params, PyObject *const *args,
                Py_ssize_t nargs, PyObject *kwnames, PyObject **out)
{
    if (nargs > params->positional) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes at most %d positional arguments (%zd given)",
                     params->method, params->positional, nargs);
        return -1;
    }
    for (int i = 0; params->names[i] != NULL; i++) {
        out[i] = i < nargs ? args[i] : NULL;
    }
    Py_ssize_t n = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int k = find_name(params->names, name);
        if (k < 0) {
            return raise_unexpected(params->method, name);
        }
        if (out[k] != NULL) {
            return raise_multiple(params->method, name);
        }
        out[k] = args[nargs + i];
    }
    return check_required(params->method, params->names, params->required,
                          out);
}

int
hl_args_count(const char *method, Py_ssize_t nargs, Py_ssize_t count)
{
    if (nargs == count) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() takes exactly %zd arguments", method,
                 count);
    return -1;
}
