/* profile.c - the table of what the loop's time goes to.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/profile.h"

#include "loop/profile_subject.h"

#define TABLE_SIZE (2 * HL_PROFILE_MAX) /* a power of two */

int
hl_profile_open(hl_profile *profile)
{
    if (profile->entries == NULL) {
        profile->entries = PyMem_Calloc(TABLE_SIZE, sizeof(hl_profile_entry));
        if (profile->entries == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 0;
}

/* What the entries held is released last: that may run Python code, which may
 * look at the table. */
static void
release_entries(hl_profile_entry *entries)
{
    for (size_t i = 0; entries != NULL && i < TABLE_SIZE; i++) {
        Py_XDECREF(entries[i].owner);
        Py_XDECREF(entries[i].name);
        Py_XDECREF(entries[i].file);
    }
    PyMem_Free(entries);
}

void
hl_profile_free(hl_profile *profile)
{
    hl_profile_entry *entries = profile->entries;
    profile->entries = NULL;
    profile->count = 0;
    memset(&profile->rest, 0, sizeof(profile->rest));
    release_entries(entries);
}

void
hl_profile_clear(hl_profile *profile)
{
    bool open = profile->entries != NULL;
    hl_profile_free(profile);
    if (open && hl_profile_open(profile) < 0) {
        PyErr_Clear(); /* everything is counted as the rest */
    }
}

int
hl_profile_traverse(hl_profile *profile, visitproc visit, void *arg)
{
    for (size_t i = 0; profile->entries != NULL && i < TABLE_SIZE; i++) {
        Py_VISIT(profile->entries[i].owner);
    }
    return 0;
}

/* The entry of key, or the free one where it belongs; there are always some
 * free ones. */
static hl_profile_entry *
find_entry(hl_profile *profile, const hl_subject *subject)
{
    uintptr_t hash = (uintptr_t)subject->key >> 4;
    hash = (hash ^ (hash >> 11)) * 31 + (uintptr_t)subject->kind;
    for (;; hash++) {
        hl_profile_entry *entry = &profile->entries[hash % TABLE_SIZE];
        if (entry->key == NULL ||
            (entry->key == subject->key && entry->kind == subject->kind)) {
            return entry;
        }
    }
}

/* Finds the subject's entry, or makes it.  To name it may run Python code,
 * and that may clear the table. */
static hl_profile_entry *
entry_for(hl_profile *profile, const hl_subject *subject)
{
    if (profile->entries == NULL || subject->key == NULL) {
        return &profile->rest;
    }
    hl_profile_entry *entry = find_entry(profile, subject);
    if (HL_LIKELY(entry->key != NULL)) {
        return entry;
    }
    hl_profile_entry fresh = {.key = subject->key, .kind = subject->kind};
    if (profile->count >= HL_PROFILE_MAX ||
        hl_subject_describe(subject, &fresh) < 0) {
        PyErr_Clear();
        return &profile->rest;
    }
    entry = profile->entries == NULL ? NULL : find_entry(profile, subject);
    if (entry == NULL || entry->key != NULL ||
        profile->count >= HL_PROFILE_MAX) {
        Py_DECREF(fresh.name);
        Py_DECREF(fresh.file);
        return entry == NULL || entry->key == NULL ? &profile->rest : entry;
    }
    fresh.owner = Py_XNewRef(subject->owner);
    *entry = fresh;
    profile->count++;
    return entry;
}

void
hl_profile_add(hl_profile *profile, hl_subject *subject, int64_t ns)
{
    uint64_t value = ns < 0 ? 0 : (uint64_t)ns;
    hl_profile_entry *entry = entry_for(profile, subject);
    entry->calls++;
    entry->total_ns += value;
    entry->max_ns = Py_MAX(entry->max_ns, value);
    Py_CLEAR(subject->owner);
    Py_CLEAR(subject->named);
}

static int
tell_entry(PyObject *list, const hl_profile_entry *entry, const char *kind,
           PyObject *name, PyObject *file)
{
    PyObject *row = Py_BuildValue("(OsOiKdd)", name, kind, file, entry->line,
                                  (unsigned long long)entry->calls,
                                  (double)entry->total_ns / 1e9,
                                  (double)entry->max_ns / 1e9);
    int rv = row == NULL ? -1 : PyList_Append(list, row);
    Py_XDECREF(row);
    return rv;
}

static int
tell_rest(PyObject *list, const hl_profile_entry *rest)
{
    PyObject *name = PyUnicode_FromString("(other)");
    PyObject *file = PyUnicode_FromString("");
    int rv = name == NULL || file == NULL
                 ? -1
                 : tell_entry(list, rest, "event", name, file);
    Py_XDECREF(name);
    Py_XDECREF(file);
    return rv;
}

PyObject *
hl_profile_tell(const hl_profile *profile)
{
    static const char *const kinds[] = {"callback", "task", "event"};
    PyObject *list = PyList_New(0);
    int rv = list == NULL ? -1 : 0;
    /* To allocate may run Python code, by the collector. */
    for (size_t i = 0; rv == 0 && i < TABLE_SIZE; i++) {
        if (profile->entries == NULL) {
            break;
        }
        hl_profile_entry entry = profile->entries[i];
        if (entry.key != NULL) {
            Py_INCREF(entry.name);
            Py_INCREF(entry.file);
            rv = tell_entry(list, &entry, kinds[entry.kind], entry.name,
                            entry.file);
            Py_DECREF(entry.name);
            Py_DECREF(entry.file);
        }
    }
    if (rv == 0 && profile->rest.calls > 0) {
        rv = tell_rest(list, &profile->rest);
    }
    if (rv < 0) {
        Py_CLEAR(list);
    }
    return list;
}
