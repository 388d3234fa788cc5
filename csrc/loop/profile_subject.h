/* profile_subject.h - how an entry of a profile gets its name.
 *
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_PROFILE_SUBJECT_H
#define HL_LOOP_PROFILE_SUBJECT_H

#include "loop/profile.h"

/* Fills in name, file and line, references to be released by the caller.  0,
 * or -1 with an exception and nothing to be released. */
int hl_subject_describe(const hl_subject *subject, hl_profile_entry *entry);

#endif
