/* args.c - fuzzes base/args: arguments go where Python puts them.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "base/args.h"

#define GIVEN_MAX 12

typedef struct {
    const char *source; /* of the same function in Python: returns a list */
    hl_args_spec spec;
    PyObject *function;
} variadic;

static variadic variadics[] = {
    {"lambda *args, context=None: [(), context, args]",
     {"f", {NULL}, true},
     NULL},
    {"lambda callback, *args, context=None: [(callback,), context, args]",
     {"f", {"callback", NULL}, true},
     NULL},
    {"lambda when, callback, *args, context=None:"
     " [(when, callback), context, args]",
     {"f", {"when", "callback", NULL}, true},
     NULL},
    {"lambda fd, callback, *args: [(fd, callback), None, args]",
     {"f", {"fd", "callback", NULL}, false},
     NULL},
};

static const char *const names_two[] = {"data", "fds", NULL};
static const char *const names_three[] = {"data", "fds", "context", NULL};

typedef struct {
    const char *source;
    hl_params params;
    PyObject *function;
} plain;

static plain plains[] = {
    {"lambda data, fds: [data, fds]", {"f", names_two, 2, 2}, NULL},
    {"lambda data, fds=None: [data, fds]", {"f", names_two, 2, 1}, NULL},
    {"lambda data=None, *, fds=None: [data, fds]",
     {"f", names_two, 1, 0},
     NULL},
    {"lambda data, *, fds=None, context=None: [data, fds, context]",
     {"f", names_three, 1, 1},
     NULL},
};

static PyObject *keywords[16], *empty;
static const char *const words[16] = {
    "callback", "context",  "when", "fd",        "data", "fds",
    "",         "args",     "f",    "callback ", "Data", "contex",
    "x",        "contexts", "self", "d"};

static PyObject *
function_of(const char *source)
{
    PyObject *globals = PyDict_New();
    PyObject *function = PyRun_String(source, Py_eval_input, globals, globals);
    Py_DECREF(globals);
    FUZZ_CHECK(function != NULL);
    return function;
}

static void
set_up(void)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(variadics); i++) {
        variadics[i].function = function_of(variadics[i].source);
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(plains); i++) {
        plains[i].function = function_of(plains[i].source);
    }
    for (size_t i = 0; i < 16; i++) {
        /* Some are no interned strings, and one is no ASCII. */
        keywords[i] = i % 2 ? PyUnicode_InternFromString(words[i])
                            : PyUnicode_FromString(words[i]);
    }
    Py_SETREF(keywords[15],
              PyUnicode_DecodeUTF8("\xed\xb2\x80", 3, "surrogatepass"));
    FUZZ_CHECK(keywords[15] != NULL);
    empty = PyTuple_New(0);
}

typedef struct {
    PyObject *values[GIVEN_MAX + 16];
    Py_ssize_t positional;
    PyObject *names; /* owned; NULL: none */
} given;

static void
make_given(given *g, fuzz_input *in)
{
    Py_ssize_t named = fuzz_upto(in, 4);
    bool used[16] = {false};
    g->positional = fuzz_upto(in, 6);
    g->names = NULL;
    Py_ssize_t total = g->positional;
    PyObject *list = PyList_New(0);
    for (; named > 0; named--) {
        uint32_t i = fuzz_upto(in, 15);
        if (!used[i]) { /* the interpreter refuses one twice */
            used[i] = true;
            PyList_Append(list, keywords[i]);
            total++;
        }
    }
    if (total > g->positional) {
        g->names = PyList_AsTuple(list);
    }
    Py_DECREF(list);
    for (Py_ssize_t i = 0; i < total; i++) {
        uint8_t which = fuzz_byte(in);
        g->values[i] = which == 255 ? Py_None : fuzz_object(which);
    }
}

/* What Python does with them: a list, or NULL for a TypeError. */
static PyObject *
expected_of(PyObject *function, const given *g)
{
    PyObject *list = PyObject_Vectorcall(function, g->values,
                                         (size_t)g->positional, g->names);
    if (list == NULL) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_TypeError));
        PyErr_Clear();
    }
    return list;
}

static bool
is_value(PyObject *value, PyObject *expected)
{
    return value == expected || (value == NULL && expected == Py_None);
}

static void
check_variadic(variadic *v, const given *g)
{
    hl_args out;
    PyObject *list = expected_of(v->function, g);
    int rv = hl_args_parse(&v->spec, empty, g->values, g->positional, g->names,
                           &out);
    FUZZ_CHECK((rv == 0) == (list != NULL));
    if (rv < 0) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_TypeError));
        PyErr_Clear();
        return;
    }
    PyObject *leading = PyList_GET_ITEM(list, 0);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(leading); i++) {
        FUZZ_CHECK(out.leading[i] == PyTuple_GET_ITEM(leading, i));
    }
    FUZZ_CHECK(is_value(out.context, PyList_GET_ITEM(list, 1)));
    PyObject *rest = PyList_GET_ITEM(list, 2);
    FUZZ_CHECK(PyTuple_GET_SIZE(rest) == PyTuple_GET_SIZE(out.rest));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(rest); i++) {
        FUZZ_CHECK(PyTuple_GET_ITEM(rest, i) == PyTuple_GET_ITEM(out.rest, i));
    }
    Py_DECREF(out.rest);
    Py_DECREF(list);
}

static void
check_plain(plain *p, const given *g)
{
    PyObject *out[3];
    PyObject *list = expected_of(p->function, g);
    int rv =
        hl_params_parse(&p->params, g->values, g->positional, g->names, out);
    FUZZ_CHECK((rv == 0) == (list != NULL));
    if (rv < 0) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_TypeError));
        PyErr_Clear();
        return;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        FUZZ_CHECK(is_value(out[i], PyList_GET_ITEM(list, i)));
    }
    Py_DECREF(list);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    if (empty == NULL) {
        fuzz_begin();
        set_up();
    }
    fuzz_begin();
    while (fuzz_more(&in)) {
        uint32_t which = fuzz_upto(&in, 7);
        given g;
        make_given(&g, &in);
        if (which < 4) {
            check_variadic(&variadics[which], &g);
        }
        else {
            check_plain(&plains[which - 4], &g);
        }
        Py_XDECREF(g.names);
    }
    fuzz_end(true);
    return 0;
}
