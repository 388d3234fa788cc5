#!/usr/bin/env bash
# sanitized.sh COMMAND... - run a command with the sanitizers' libraries loaded.
#
# The interpreter is not built with AddressSanitizer, so its library must come
# first in the process; Python's own allocator would hide overruns of its
# blocks. Leaks are the reference-leak run's business: the interpreter itself
# does not free everything at exit. What the sanitizers report is shown at the
# end; the exit status is 1 if there was a report, whatever process made it.
set -u
here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck source=tools/reports.sh
. "$here/reports.sh"

libraries="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
common="abort_on_error=1:log_path=$reports/report"
LD_PRELOAD="$libraries" PYTHONMALLOC=malloc \
    ASAN_OPTIONS="detect_leaks=0:$common:${ASAN_OPTIONS:-}" \
    UBSAN_OPTIONS="print_stacktrace=1:$common:${UBSAN_OPTIONS:-}" "$@"
end_with_reports $? "sanitizer"
