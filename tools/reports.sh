# shellcheck shell=bash
# reports.sh - for scripts that run a command with a sanitizer, to be sourced.
#
# What a sanitizer finds goes into files in $reports, whatever process it is in:
# pytest captures standard error.
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT

# end_with_reports STATUS KIND - show what was found, and exit: with 1 if there was
# something, else with STATUS.
end_with_reports() {
    local status=$1 report
    for report in "$reports"/*; do
        if [ -s "$report" ]; then
            printf '\n---- %s report ----\n' "$2"
            cat "$report"
            status=1
        fi
    done
    exit "$status"
}
