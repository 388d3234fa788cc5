#!/usr/bin/env bash
# tsan.sh COMMAND... - run a command with ThreadSanitizer's library loaded.
#
# Only hotloop is built with it. What the interpreter does is not seen, but for its
# locks: they are pthread's, which the library replaces, so that the GIL counts as
# what it is and a race is a pair of accesses that it does not order. The layout of
# memory that the library needs takes a process without randomised addresses. What
# is found is shown at the end; the exit status is 1 if there was something,
# whatever process made it.
set -u
here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck source=tools/reports.sh
. "$here/reports.sh"

library=$(gcc -print-file-name=libtsan.so)
options="exitcode=0:log_path=$reports/report:suppressions=$here/tsan.supp"
# Modules without the instrumentation still make happens-before with their locks.
options+=":ignore_noninstrumented_modules=0:die_after_fork=0:history_size=4"
LD_PRELOAD="$library" TSAN_OPTIONS="$options:${TSAN_OPTIONS:-}" \
    setarch "$(uname -m)" --addr-no-randomize "$@"
end_with_reports $? "thread sanitizer"
