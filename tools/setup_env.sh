#!/usr/bin/env bash
# setup_env.sh MODE EXTRAS [NEED...] - a virtual environment with hotloop in it.
#
# MODE is how hotloop is built: release, debug, sanitize, tsan, or tools (not at all);
# integration is debug and docs is release, each in an environment of its own.
# EXTRAS names optional dependencies of pyproject.toml, with commas. NEEDs are
# those of system_packages.sh beyond what the build takes. PYTHON chooses the
# interpreter as find_python.sh takes it.
#
# The environment is .venv/VERSION-MODE in the checkout (in tools/debian_root.sh
# VERSION-sid-MODE: its interpreters are others) and is made anew only where
# something changed. Its path is all that standard output gets.
set -eu

mode=$1
build=$1 # the folder in build/
extras=$2
shift 2
cd "$(dirname "$0")/.."

say() { printf 'hotloop: %s\n' "$*" >&2; }

case $mode in
release | docs)
    build=release
    unset HOTLOOP_DEBUG HOTLOOP_SANITIZE
    ;;
debug | integration)
    build=debug
    export HOTLOOP_DEBUG=1
    unset HOTLOOP_SANITIZE
    ;;
sanitize)
    # The run-time libraries that tools/sanitized.sh preloads are gcc's.
    export HOTLOOP_SANITIZE=1 CC=gcc
    ;;
tsan)
    export HOTLOOP_SANITIZE=thread CC=gcc
    ;;
tools) ;;
*)
    say "setup_env.sh: unknown mode '$mode'"
    exit 2
    ;;
esac

if ! python=$(tools/find_python.sh "${PYTHON:-}"); then
    say "found no CPython 3.11 or newer${PYTHON:+ by the name of $PYTHON}."
    say "Install one (Debian, Ubuntu: python3), or name it: make ... PYTHON=/path"
    exit 1
fi

needs=(venv)
[ "$mode" = tools ] || needs+=(build)
tools/system_packages.sh "$python" "${needs[@]}" "$@"

version=$("$python" -c '
import sys
print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags))')
system=${HOTLOOP_SYSTEM:+$HOTLOOP_SYSTEM-}
env=$PWD/.venv/$version-$system$mode

# Builds share build/: one at a time, where the system has a lock for it.
mkdir -p .venv
if command -v flock >/dev/null; then
    exec 8>.venv/lock
    flock 8
fi

# An environment of another interpreter, or one cut short, is made anew. Two
# systems that share the checkout may each have one at the same path.
interpreter=$("$python" -c 'import sys; print(sys.executable, sys.version)')
if [ "$(cat "$env/.interpreter" 2>/dev/null)" != "$interpreter" ]; then
    say "making $env with $python"
    rm -rf "$env"
    "$python" -m venv "$env" >&2
    printf '%s\n' "$interpreter" >"$env/.interpreter"
fi

sources=(pyproject.toml)
[ "$mode" = tools ] || sources+=(setup.py csrc pkg)

# Every source file, none that a build or an interpreter leaves behind.
source_files() {
    find "${sources[@]}" \( -name '*.egg-info' -o -name __pycache__ \) -prune \
        -o -type f "$@" -print
}

# What the environment was made from, beside the contents of the sources.
settings() {
    printf '%s\n' "$extras" "${CC:-}" "${CFLAGS:-}" "${LDFLAGS:-}" \
        "${HOTLOOP_WERROR:-}"
    source_files | LC_ALL=C sort
}

is_current() {
    settings | cmp -s - "$env/.installed" &&
        [ -z "$(source_files -newer "$env/.installed")" ]
}

# The requirements of the extras, and of the build.
requirements() {
    "$env/bin/python" - "$extras" <<'PYTHON'
import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    config = tomllib.load(file)
print(*config["build-system"]["requires"], sep="\n")
for extra in filter(None, sys.argv[1].split(",")):
    print(*config["project"]["optional-dependencies"][extra], sep="\n")
PYTHON
}

if ! is_current; then
    started=$SECONDS
    # Dated from before the build: an edit during it counts as newer.
    settings >"$env/.installing"
    pip=("$env/bin/python" -W ignore -m pip --disable-pip-version-check
        install -qq --no-input)
    say "installing for Python $version: ${extras:-the build tools} ..."
    requirements | "${pip[@]}" -r /dev/stdin >&2
    if [ "$mode" != tools ]; then
        say "building hotloop ($mode) for Python $version ..."
        # A module that was removed would live on in the build folder.
        rm -rf "build/$system$build"/lib.*/hotloop/{*.py*,*/}
        # pip itself takes an unchanged version as installed: force it.
        "${pip[@]}" --no-deps --no-build-isolation --force-reinstall . >&2
    fi
    mv "$env/.installing" "$env/.installed"
    say "done in $((SECONDS - started)) s."
fi
printf '%s\n' "$env"
