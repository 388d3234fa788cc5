#!/usr/bin/env bash
# lint.sh BIN [--fix] - every source check, with the programs of the folder BIN.
#
# Goes on after a check that fails; exit status 1 if any did. With --fix the
# formatters rewrite the sources and ruff mends what it can; nothing else runs.
set -u
bin=$1
cd "$(dirname "$0")/.." || exit

c_files=()
while read -r file; do c_files+=("$file"); done \
    < <(find csrc benchmarks tests/fuzz/c -name '*.[ch]' | LC_ALL=C sort)

if [ "${2:-}" = --fix ]; then
    "$bin/ruff" check --fix -q .
    "$bin/ruff" format . && "$bin/clang-format" -i "${c_files[@]}"
    exit
fi

failed=()
check() {
    printf -- '-- %s\n' "$1"
    "${@:2}" || failed+=("$1")
}

c_is_formatted() {
    local file good=0
    for file in "${c_files[@]}"; do
        "$bin/clang-format" --dry-run -Werror "$file" 2>/dev/null && continue
        printf 'Would reformat: %s\n' "$file"
        good=1
    done
    return $good
}

check "ruff" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check "mypy" "$bin/mypy"
check "shellcheck" "$bin/shellcheck" tools/*.sh .ci/run
check "clang-format" c_is_formatted
check "zizmor" "$bin/zizmor" --offline --quiet .github

if [ ${#failed[@]} -gt 0 ]; then
    printf 'lint failed: %s\n' "$(IFS=,; echo "${failed[*]}")"
    exit 1
fi
echo "lint: all passed"
