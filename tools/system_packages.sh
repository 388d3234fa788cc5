#!/usr/bin/env bash
# system_packages.sh PYTHON NEED... - install what the system lacks, or say how.
#
# NEED is one of: build (compiler, pkg-config, libuv, Python's headers), venv,
# wrk, valgrind, openssl (its command and headers), debug-python (python3.11-dbg, whatever
# PYTHON is), testsuite (CPython's own tests of asyncio), debootstrap, uml
# (user-mode Linux, and what it is set up with), browser (Chromium), musl (another C
# library, to compile with), services (PostgreSQL, Redis, NATS, Mosquitto and a load
# generator for HTTP/2). Where something is missing this says so first.
# With root (or a sudo that asks nothing) apt-get then installs it; otherwise the
# command is printed and the exit status is 1. Prints on standard error only.
set -u

libuv_minimum=1.44
python=$1
shift

say() { printf 'hotloop: %s\n' "$*" >&2; }

has() { command -v "$1" >/dev/null 2>&1; }

has_libuv() { has pkg-config && pkg-config --atleast-version=$libuv_minimum libuv; }

has_compiler() {
    # shellcheck disable=SC2086  # CC may carry options
    echo 'int main(void) { return 0; }' |
        ${CC:-gcc} -x c - -o /dev/null >/dev/null 2>&1
}

has_headers() {
    "$python" -c '
import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not os.path.exists(header))'
}

has_venv() { "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; }

has_testsuite() { "$python" -c 'import test.test_asyncio' >/dev/null 2>&1; }

# Debian keeps the server's programs out of PATH, in a folder per version.
has_postgresql() {
    has initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

has_debian_keys() { [ -e /usr/share/keyrings/debian-archive-keyring.gpg ]; }

# The distribution's name of the interpreter's packages: "python3.13".
package_of_python() {
    "$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'
}

# The packages that are missing, as "package:what it gives", one a line.
missing() {
    local need
    for need in "$@"; do
        case $need in
        build)
            has_compiler || printf '%s\n' 'gcc:C compiler' 'libc6-dev:C library headers'
            has pkg-config || echo 'pkg-config:finds libuv'
            has_libuv || echo "libuv1-dev:libuv $libuv_minimum or newer"
            has_headers || echo "$(package_of_python)-dev:Python.h"
            ;;
        venv) has_venv || echo "$(package_of_python)-venv:virtual environments" ;;
        debug-python)
            has python3.11-dbg || printf '%s\n' 'python3.11-dbg:counts references' \
                'python3.11-venv:virtual environments'
            ;;
        testsuite)
            has_testsuite || echo "lib$(package_of_python)-testsuite:CPython's own tests"
            ;;
        valgrind) has valgrind || echo "valgrind:watches every access to memory" ;;
        debootstrap)
            has debootstrap || echo "debootstrap:makes a root folder of Debian"
            has_debian_keys || echo "debian-archive-keyring:Debian's signatures"
            ;;
        uml)
            has linux.uml || echo "user-mode-linux:a kernel that is a process"
            has insmod || echo "kmod:loads its modules"
            has ip || echo "iproute2:sets up its network"
            ;;
        openssl)
            has openssl || echo 'openssl:makes certificates'
            { has pkg-config && pkg-config --exists openssl; } ||
                echo 'libssl-dev:OpenSSL headers'
            ;;
        browser) has chromium || echo 'chromium:shows the pages of the doctor' ;;
        musl) has musl-gcc || echo 'musl-tools:compiles with another C library' ;;
        services)
            has_postgresql || echo 'postgresql:database server'
            has redis-server || echo 'redis-server:key-value server'
            has nats-server || echo 'nats-server:message broker'
            has mosquitto || echo 'mosquitto:MQTT broker'
            has h2load || echo 'nghttp2-client:HTTP/2 load generator'
            ;;
        wrk) has wrk || echo 'wrk:HTTP load generator' ;;
        *)
            say "system_packages.sh: unknown need '$need'"
            exit 2
            ;;
        esac
    done
}

lines=$(missing "$@") || exit 2
[ -z "$lines" ] && exit 0

say "this machine lacks:"
packages=()
while IFS=: read -r package purpose; do
    packages+=("$package")
    printf '    %-18s %s\n' "$package" "$purpose" >&2
done <<<"$lines"

if ! has apt-get; then
    say "these are their Debian names; install their equivalents with this"
    say "system's package manager (Fedora: gcc pkgconf-pkg-config libuv-devel"
    say "python3-devel wrk; Alpine: gcc musl-dev pkgconf libuv-dev python3-dev"
    say "wrk; macOS: brew install pkgconf libuv wrk), then run this again."
    exit 1
fi

install=(apt-get install -y --no-install-recommends "${packages[@]}")
if [ "$(id -u)" = 0 ]; then
    as_root=(env)
elif has sudo && sudo -n true 2>/dev/null; then
    as_root=(sudo -n env)
else
    say "without root they cannot be installed from here. Run this, then again:"
    printf '\n    sudo apt-get update && sudo %s\n\n' "${install[*]}" >&2
    exit 1
fi

say "installing them: apt-get update, ${install[*]}"
as_root+=(DEBIAN_FRONTEND=noninteractive)
if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" "${install[@]}"; } \
    </dev/null >&2; then
    say "apt-get failed; its message stands above."
    exit 1
fi

lines=$(missing "$@")
if [ -n "$lines" ]; then
    say "still missing after the installation:"
    printf '    %s\n' "${lines//$'\n'/$'\n'    }" >&2
    if ! has_libuv && has pkg-config && pkg-config --exists libuv; then
        say "this release's libuv is $(pkg-config --modversion libuv): too old."
    fi
    exit 1
fi
