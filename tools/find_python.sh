#!/usr/bin/env bash
# find_python.sh [WANTED] - print the path of a CPython that hotloop can use.
#
# WANTED is nothing (the newest of 3.11 to 3.15 that has all a build needs, else
# the newest at all), a version such as 3.12, or a command or path. Besides PATH
# this looks in pyenv's folder, where a plain "python3.12" may refuse to run.
# Exit status 1, with nothing printed, where there is none.
set -u

versions="3.15 3.14 3.13 3.12 3.11"

# The real path of an interpreter, resolved through shims; nothing if it is not
# a CPython of 3.11 or later.
resolve() {
    "$1" -c '
import sys
if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
    sys.exit(1)
print(sys.executable)' </dev/null 2>/dev/null
}

is_complete() {
    "$1" -c '
import os, sys, sysconfig
import ensurepip, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not os.path.exists(header))' </dev/null >/dev/null 2>&1
}

# Every interpreter of one version, one path a line.
candidates() {
    local version=$1 path
    {
        type -aP "python$version"
        for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/"python$version"; do
            if [ -x "$path" ]; then printf '%s\n' "$path"; fi
        done
        # A container image may only have the plain name.
        for path in python3 python; do
            path=$("$path" -c '
import sys
print(sys.executable if "%d.%d" % sys.version_info[:2] == sys.argv[1] else "")
' "$version" </dev/null 2>/dev/null)
            if [ -n "$path" ]; then printf '%s\n' "$path"; fi
        done
    } | while read -r path; do resolve "$path"; done
}

# The best interpreter among the versions given.
best() {
    local version path found=""
    for version in "$@"; do
        while read -r path; do
            if is_complete "$path"; then
                printf '%s\n' "$path"
                return 0
            fi
            found=${found:-$path}
        done < <(candidates "$version")
    done
    if [ -n "$found" ]; then printf '%s\n' "$found"; fi
    [ -n "$found" ]
}

wanted=${1:-}
if [ -z "$wanted" ]; then
    # shellcheck disable=SC2086  # a list of words
    best $versions
elif [[ $wanted =~ ^3\.[0-9]+$ ]]; then
    best "$wanted"
elif ! resolve "$wanted"; then
    # A shim that will not run this version; a path means that very file.
    version=${wanted#python}
    [[ $version =~ ^3\.[0-9]+$ ]] && best "$version"
fi
