/* faults.h - calls that can be made to fail, in builds for development.
 *
 * Each function that may run out of memory is a macro here, which asks first
 * whether this call is to fail.  Who answers is no part of hotloop: the weak
 * symbol is there only in a process that tests/nomemory set up.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_FAULTS_H
#define HL_BASE_FAULTS_H

#include "base/hotloop.h"

/* Whether the call of this name in this place has to fail.  Any thread. */
extern int hotloop_call_fails(const char *name, const char *file, int line)
    __attribute__((weak, visibility("default")));

static inline bool
hl_fault_here(const char *name, const char *file, int line)
{
    return hotloop_call_fails != NULL && hotloop_call_fails(name, file, line);
}

static inline void *
hl_fault_object(void)
{
    return PyErr_NoMemory();
}

static inline void *
hl_fault_memory(void)
{
    return NULL; /* as malloc() does: no exception, maybe no GIL */
}

static inline int
hl_fault_int(void)
{
    PyErr_NoMemory();
    return -1;
}

static inline int
hl_fault_uv(void)
{
    return UV_ENOMEM;
}

static inline void
hl_fault_void(void)
{
    PyErr_NoMemory();
}

#define HL_FAULT(kind, name, ...)                                 \
    (hl_fault_here(#name, __FILE__, __LINE__) ? hl_fault_##kind() \
                                              : (name)(__VA_ARGS__))

/* Pointers to objects. */
#define PyByteArray_FromObject(...) \
    HL_FAULT(object, PyByteArray_FromObject, __VA_ARGS__)
#define PyByteArray_FromStringAndSize(...) \
    HL_FAULT(object, PyByteArray_FromStringAndSize, __VA_ARGS__)
#define PyBytes_FromObject(...) \
    HL_FAULT(object, PyBytes_FromObject, __VA_ARGS__)
#define PyBytes_FromStringAndSize(...) \
    HL_FAULT(object, PyBytes_FromStringAndSize, __VA_ARGS__)
#define PyCMethod_New(...) HL_FAULT(object, PyCMethod_New, __VA_ARGS__)
#define PyContextVar_New(...) HL_FAULT(object, PyContextVar_New, __VA_ARGS__)
#define PyContextVar_Set(...) HL_FAULT(object, PyContextVar_Set, __VA_ARGS__)
#define PyContext_Copy(...) HL_FAULT(object, PyContext_Copy, __VA_ARGS__)
#define PyContext_CopyCurrent(...) \
    HL_FAULT(object, PyContext_CopyCurrent, __VA_ARGS__)
#define PyContext_New(...) HL_FAULT(object, PyContext_New, __VA_ARGS__)
#define PyDescr_NewGetSet(...) HL_FAULT(object, PyDescr_NewGetSet, __VA_ARGS__)
#define PyDescr_NewMethod(...) HL_FAULT(object, PyDescr_NewMethod, __VA_ARGS__)
#define PyDict_New(...) HL_FAULT(object, PyDict_New, __VA_ARGS__)
#define PyFloat_FromDouble(...) \
    HL_FAULT(object, PyFloat_FromDouble, __VA_ARGS__)
#define PyImport_ImportModule(...) \
    HL_FAULT(object, PyImport_ImportModule, __VA_ARGS__)
#define PyList_New(...) HL_FAULT(object, PyList_New, __VA_ARGS__)
#define PyLong_FromLong(...) HL_FAULT(object, PyLong_FromLong, __VA_ARGS__)
#define PyLong_FromLongLong(...) \
    HL_FAULT(object, PyLong_FromLongLong, __VA_ARGS__)
#define PyLong_FromSize_t(...) HL_FAULT(object, PyLong_FromSize_t, __VA_ARGS__)
#define PyLong_FromSsize_t(...) \
    HL_FAULT(object, PyLong_FromSsize_t, __VA_ARGS__)
#define PyLong_FromUnsignedLong(...) \
    HL_FAULT(object, PyLong_FromUnsignedLong, __VA_ARGS__)
#define PyMemoryView_FromObject(...) \
    HL_FAULT(object, PyMemoryView_FromObject, __VA_ARGS__)
#define PyNumber_Add(...) HL_FAULT(object, PyNumber_Add, __VA_ARGS__)
#define PyNumber_FloorDivide(...) \
    HL_FAULT(object, PyNumber_FloorDivide, __VA_ARGS__)
#define PyNumber_Long(...) HL_FAULT(object, PyNumber_Long, __VA_ARGS__)
#define PyNumber_Multiply(...) HL_FAULT(object, PyNumber_Multiply, __VA_ARGS__)
#define PyObject_Call(...) HL_FAULT(object, PyObject_Call, __VA_ARGS__)
#define PyObject_CallFunctionObjArgs(...) \
    HL_FAULT(object, PyObject_CallFunctionObjArgs, __VA_ARGS__)
#define PyObject_CallMethodNoArgs(...) \
    HL_FAULT(object, PyObject_CallMethodNoArgs, __VA_ARGS__)
#define PyObject_CallMethodObjArgs(...) \
    HL_FAULT(object, PyObject_CallMethodObjArgs, __VA_ARGS__)
#define PyObject_CallMethodOneArg(...) \
    HL_FAULT(object, PyObject_CallMethodOneArg, __VA_ARGS__)
#define PyObject_CallNoArgs(...) \
    HL_FAULT(object, PyObject_CallNoArgs, __VA_ARGS__)
#define PyObject_CallObject(...) \
    HL_FAULT(object, PyObject_CallObject, __VA_ARGS__)
#define PyObject_CallOneArg(...) \
    HL_FAULT(object, PyObject_CallOneArg, __VA_ARGS__)
#define PyObject_GenericGetAttr(...) \
    HL_FAULT(object, PyObject_GenericGetAttr, __VA_ARGS__)
#define PyObject_GetAttr(...) HL_FAULT(object, PyObject_GetAttr, __VA_ARGS__)
#define PyObject_GetAttrString(...) \
    HL_FAULT(object, PyObject_GetAttrString, __VA_ARGS__)
#define PyObject_Repr(...) HL_FAULT(object, PyObject_Repr, __VA_ARGS__)
#define PyObject_RichCompare(...) \
    HL_FAULT(object, PyObject_RichCompare, __VA_ARGS__)
#define PyObject_Str(...) HL_FAULT(object, PyObject_Str, __VA_ARGS__)
#define PyObject_Vectorcall(...) \
    HL_FAULT(object, PyObject_Vectorcall, __VA_ARGS__)
#define PyObject_VectorcallMethod(...) \
    HL_FAULT(object, PyObject_VectorcallMethod, __VA_ARGS__)
#define PySequence_GetItem(...) \
    HL_FAULT(object, PySequence_GetItem, __VA_ARGS__)
#define PySequence_GetSlice(...) \
    HL_FAULT(object, PySequence_GetSlice, __VA_ARGS__)
#define PySequence_List(...) HL_FAULT(object, PySequence_List, __VA_ARGS__)
#define PySequence_Tuple(...) HL_FAULT(object, PySequence_Tuple, __VA_ARGS__)
#define PySet_New(...) HL_FAULT(object, PySet_New, __VA_ARGS__)
#define PyTuple_New(...) HL_FAULT(object, PyTuple_New, __VA_ARGS__)
#define PyTuple_Pack(...) HL_FAULT(object, PyTuple_Pack, __VA_ARGS__)
#define PyType_FromModuleAndSpec(...) \
    HL_FAULT(object, PyType_FromModuleAndSpec, __VA_ARGS__)
#define PyUnicode_DecodeFSDefault(...) \
    HL_FAULT(object, PyUnicode_DecodeFSDefault, __VA_ARGS__)
#define PyUnicode_EncodeFSDefault(...) \
    HL_FAULT(object, PyUnicode_EncodeFSDefault, __VA_ARGS__)
#define PyUnicode_FromFormat(...) \
    HL_FAULT(object, PyUnicode_FromFormat, __VA_ARGS__)
#define PyUnicode_FromFormatV(...) \
    HL_FAULT(object, PyUnicode_FromFormatV, __VA_ARGS__)
#define PyUnicode_FromString(...) \
    HL_FAULT(object, PyUnicode_FromString, __VA_ARGS__)
#define PyUnicode_InternFromString(...) \
    HL_FAULT(object, PyUnicode_InternFromString, __VA_ARGS__)
#define hl_alloc(...) HL_FAULT(object, hl_alloc, __VA_ARGS__)
#define _PyObject_GC_New(...) HL_FAULT(object, _PyObject_GC_New, __VA_ARGS__)
#define _PyObject_New(...) HL_FAULT(object, _PyObject_New, __VA_ARGS__)

/* The same, macros of other names before 3.13. */
#if PY_VERSION_HEX < 0x030D0000
#    define _Py_BuildValue_SizeT(...) \
        HL_FAULT(object, _Py_BuildValue_SizeT, __VA_ARGS__)
#    define _Py_VaBuildValue_SizeT(...) \
        HL_FAULT(object, _Py_VaBuildValue_SizeT, __VA_ARGS__)
#    define _PyObject_CallFunction_SizeT(...) \
        HL_FAULT(object, _PyObject_CallFunction_SizeT, __VA_ARGS__)
#    define _PyObject_CallMethod_SizeT(...) \
        HL_FAULT(object, _PyObject_CallMethod_SizeT, __VA_ARGS__)
#else
#    define Py_BuildValue(...) HL_FAULT(object, Py_BuildValue, __VA_ARGS__)
#    define Py_VaBuildValue(...) HL_FAULT(object, Py_VaBuildValue, __VA_ARGS__)
#    define PyObject_CallFunction(...) \
        HL_FAULT(object, PyObject_CallFunction, __VA_ARGS__)
#    define PyObject_CallMethod(...) \
        HL_FAULT(object, PyObject_CallMethod, __VA_ARGS__)
#endif

/* Memory. */
#define PyMem_Calloc(...) HL_FAULT(memory, PyMem_Calloc, __VA_ARGS__)
#define PyMem_Malloc(...) HL_FAULT(memory, PyMem_Malloc, __VA_ARGS__)
#define PyMem_RawCalloc(...) HL_FAULT(memory, PyMem_RawCalloc, __VA_ARGS__)
#define PyMem_RawMalloc(...) HL_FAULT(memory, PyMem_RawMalloc, __VA_ARGS__)
#define PyMem_RawRealloc(...) HL_FAULT(memory, PyMem_RawRealloc, __VA_ARGS__)
#define PyMem_Realloc(...) HL_FAULT(memory, PyMem_Realloc, __VA_ARGS__)
#define PyObject_Realloc(...) HL_FAULT(memory, PyObject_Realloc, __VA_ARGS__)

/* As it fails, the bytes are gone. */
static inline int
hl_fault_resize(PyObject **bytes, Py_ssize_t size, const char *file, int line)
{
    if (hl_fault_here("_PyBytes_Resize", file, line)) {
        Py_CLEAR(*bytes);
        return hl_fault_int();
    }
    return _PyBytes_Resize(bytes, size);
}

#define _PyBytes_Resize(...) hl_fault_resize(__VA_ARGS__, __FILE__, __LINE__)

/* -1 with an exception. */
#define PyByteArray_Resize(...) HL_FAULT(int, PyByteArray_Resize, __VA_ARGS__)
#define PyDict_SetItem(...) HL_FAULT(int, PyDict_SetItem, __VA_ARGS__)
#define PyDict_SetItemString(...) \
    HL_FAULT(int, PyDict_SetItemString, __VA_ARGS__)
#define PyErr_CheckSignals(...) HL_FAULT(int, PyErr_CheckSignals, __VA_ARGS__)
#define PyErr_ResourceWarning(...) \
    HL_FAULT(int, PyErr_ResourceWarning, __VA_ARGS__)
#define PyErr_WarnEx(...) HL_FAULT(int, PyErr_WarnEx, __VA_ARGS__)
#define PyErr_WarnFormat(...) HL_FAULT(int, PyErr_WarnFormat, __VA_ARGS__)
#define PyList_Append(...) HL_FAULT(int, PyList_Append, __VA_ARGS__)
#define PyModule_AddType(...) HL_FAULT(int, PyModule_AddType, __VA_ARGS__)
#define PyObject_AsFileDescriptor(...) \
    HL_FAULT(int, PyObject_AsFileDescriptor, __VA_ARGS__)
#define PyObject_GetBuffer(...) HL_FAULT(int, PyObject_GetBuffer, __VA_ARGS__)
#define PyObject_IsInstance(...) \
    HL_FAULT(int, PyObject_IsInstance, __VA_ARGS__)
#define PyObject_IsTrue(...) HL_FAULT(int, PyObject_IsTrue, __VA_ARGS__)
#define PyObject_RichCompareBool(...) \
    HL_FAULT(int, PyObject_RichCompareBool, __VA_ARGS__)
#define PyObject_SetAttr(...) HL_FAULT(int, PyObject_SetAttr, __VA_ARGS__)
#define PyObject_SetAttrString(...) \
    HL_FAULT(int, PyObject_SetAttrString, __VA_ARGS__)
#define PySequence_DelSlice(...) \
    HL_FAULT(int, PySequence_DelSlice, __VA_ARGS__)
#define PySet_Add(...) HL_FAULT(int, PySet_Add, __VA_ARGS__)
#define PySys_Audit(...) HL_FAULT(int, PySys_Audit, __VA_ARGS__)

/* Exceptions that cannot be made. */
#define PyErr_SetNone(...) HL_FAULT(void, PyErr_SetNone, __VA_ARGS__)
#define PyErr_SetObject(...) HL_FAULT(void, PyErr_SetObject, __VA_ARGS__)
#define PyErr_SetString(...) HL_FAULT(void, PyErr_SetString, __VA_ARGS__)

/* Error codes of libuv. */
#define uv_loop_fork(...) HL_FAULT(uv, uv_loop_fork, __VA_ARGS__)
#define uv_loop_init(...) HL_FAULT(uv, uv_loop_init, __VA_ARGS__)
#define uv_pipe(...) HL_FAULT(uv, uv_pipe, __VA_ARGS__)
#define uv_poll_init(...) HL_FAULT(uv, uv_poll_init, __VA_ARGS__)
#define uv_poll_start(...) HL_FAULT(uv, uv_poll_start, __VA_ARGS__)

#endif
