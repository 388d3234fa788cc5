/* profile.h - which functions and coroutines the loop's time goes to.
 *
 * A table of at most HL_PROFILE_MAX entries by what was run: the code of a
 * function or coroutine, the definition of a function in C, or a type.  What
 * finds no place any more is counted in one entry for all of it.
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_PROFILE_H
#define HL_LOOP_PROFILE_H

#include "loop/loop.h"

#define HL_PROFILE_MAX 1024

typedef enum {
    HL_PROFILE_CALLBACK,
    HL_PROFILE_TASK,
    HL_PROFILE_EVENT,
    HL_PROFILE_OTHER
} hl_profile_kind;

/* What an entry of the ready queue is about. */
typedef struct {
    const void *key; /* identity; kept from being used again by owner */
    PyObject *owner; /* owned; NULL where key is of static storage */
    PyObject *named; /* owned: what tells its name; NULL with no memory */
    hl_profile_kind kind;
} hl_subject;

typedef struct {
    const void *key; /* NULL: free */
    PyObject *owner;
    PyObject *name; /* a str */
    PyObject *file; /* a str */
    int line;
    hl_profile_kind kind;
    uint64_t calls;
    uint64_t total_ns;
    uint64_t max_ns;
} hl_profile_entry;

typedef struct hl_profile {
    hl_profile_entry *entries; /* twice HL_PROFILE_MAX; NULL if not open */
    size_t count;
    hl_profile_entry rest; /* of those that found no place */
} hl_profile;

/* Makes room.  0, or -1 with MemoryError. */
int hl_profile_open(hl_profile *profile);
void hl_profile_clear(hl_profile *profile);
void hl_profile_free(hl_profile *profile);
int hl_profile_traverse(hl_profile *profile, visitproc visit, void *arg);

/* What an entry is about, found before it runs: afterwards a coroutine may be
 * gone.  Never fails; keeps no exception. */
hl_subject hl_profile_subject(hl_loop *loop, const hl_entry *entry);

/* Adds a call; drops the subject. */
void hl_profile_add(hl_profile *profile, hl_subject *subject, int64_t ns);

/* A list of tuples as hotloop.ProfileEntry takes them.  New reference or
 * NULL. */
PyObject *hl_profile_tell(const hl_profile *profile);

#endif
