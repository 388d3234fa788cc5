#!/usr/bin/env bash
# debian_root.sh COMMAND [ARG...] - run a command in a root folder of Debian
# unstable, where the CPython releases are that a stable system has not yet.
#
# The folder is ${XDG_CACHE_HOME:-~/.cache}/hotloop/debian-sid. It is made where
# it is missing or broken (debootstrap, about a minute) and reused afterwards;
# remove it to get a newer one. The command runs as root in this checkout, at the
# path it has here, and sees this machine's /proc, /dev, /tmp, name service, and
# what pip is configured with. Everything is mounted in a mount namespace of its
# own, which the kernel undoes however the command ends; the cache itself never
# has a mount in it. Exit status: the command's, or 69 where there is no root
# folder, for the reason that the last line of standard error gives.
set -u

suite=sid
no_root=69 # EX_UNAVAILABLE
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hotloop
root=$cache/debian-$suite
here=$(cd "$(dirname "$0")/.." && pwd -P)

base=(ca-certificates gcc libc6-dev libssl-dev libuv1-dev make netbase pkg-config
    procps wrk)
versions=(3.13 3.14 3.15)
# What one version is; one that the archive lacks costs only itself.
packages_of() { printf '%s\n' "python$1-dev" "python$1-venv"; }
tests_of() { printf '%s\n' "libpython$1-testsuite"; }

say() { printf 'hotloop: %s\n' "$*" >&2; }
give_up() {
    say "$*"
    exit $no_root
}

# What the folder was made from.
recipe() {
    printf '%s\n' "$suite" "${base[@]}"
    local version
    for version in "${versions[@]}"; do
        packages_of "$version"
        tests_of "$version"
    done
}

# Where this machine's apt gets Debian from. Nothing: debootstrap knows one.
mirror() {
    # shellcheck disable=SC2016  # apt-get replaces these
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' \
        'Created-By: Packages' 2>/dev/null | sed -n 's/^Debian|Debian|//p' | head -n 1
}

# Nothing is removed that has a mount in it: that would empty what is mounted.
remove() {
    local path
    while read -r path; do
        printf -v path '%b' "$path"
        case $path in "$1" | "$1"/*)
            give_up "$path is a mount: unmount it, nothing is removed before"
            ;;
        esac
    done < <(cut -d ' ' -f 5 /proc/self/mountinfo)
    rm -rf --one-file-system -- "$1"
}

in_root() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    ${http_proxy:+"http_proxy=$http_proxy"} DEBIAN_FRONTEND=noninteractive \
    chroot "$@"; }

install() { in_root "$made" apt-get install -qq -y --no-install-recommends "$@"; }

make_root() {
    "$here/tools/system_packages.sh" python3 debootstrap || return 1
    http_proxy=${http_proxy:-$(apt-config --format '%v' dump Acquire::http::Proxy \
        2>/dev/null | head -n 1)}
    export http_proxy
    made=$(mktemp -d "$cache/making.XXXXXX") || return 1
    local from version
    from=$(mirror)
    say "making $root (debootstrap, about a minute) ..."
    # shellcheck disable=SC2046,SC2086  # nothing where no mirror is known
    debootstrap --variant=minbase --include="$(IFS=, && echo "${base[*]}")" \
        "$suite" "$made" $from || return 1
    for version in "${versions[@]}"; do
        # shellcheck disable=SC2046  # a list of words
        if install $(packages_of "$version"); then
            install $(tests_of "$version") ||
                say "$suite has no tests of CPython $version"
        else
            say "$suite has no CPython $version"
        fi
    done
    rm -rf "$made"/var/cache/apt/archives/*.deb
    recipe >"$made/.hotloop-recipe"
    chmod 755 "$made"
    mv "$made" "$root"
}

# Whether the folder is what this script makes today, and still works.
is_whole() {
    recipe | cmp -s - "$root/.hotloop-recipe" || return 1
    # shellcheck disable=SC2016  # for the shell in there
    in_root "$root" sh -c '
        pkg-config --exists libuv openssl && gcc --version && make --version || exit 1
        for python in /usr/bin/python3.[0-9]*[0-9]; do
            "$python" -c "import ssl, venv, ensurepip" || exit 1
        done' >/dev/null 2>&1
}

# One at a time makes the folder; it stays while anyone is in it.
provide_root() {
    mkdir -p "$cache" || give_up "cannot make $cache"
    exec 9>"$cache/lock"
    flock --shared 9
    is_whole && return
    say "waiting for the other users of $root"
    flock --exclusive 9
    if ! is_whole; then
        local left
        for left in "$root" "$cache"/making.*; do
            if [ -e "$left" ]; then remove "$left"; fi
        done
        made=
        if ! make_root >&2; then
            if [ -n "$made" ]; then remove "$made"; fi
            give_up "a root folder of Debian $suite could not be made"
        fi
        is_whole || give_up "the new $root does not work"
    fi
    flock --shared 9
}

# Show a file or folder of this machine in the root folder, at the same path.
show() {
    local path=$1 options=${2:-ro} target
    target=$root$path
    if [ -d "$path" ]; then
        mkdir -p "$target"
    else
        mkdir -p "${target%/*}" && { [ -e "$target" ] || : >"$target"; }
    fi
    mount -o "rbind,$options" "$path" "$target" || give_up "cannot mount $path"
}

# The files pip is configured by, and the local paths they and the environment
# name: certificates, folders of wheels. The pages of a local index link to files
# beside it, so there it is the folder around.
pip_paths() {
    local file files=(/etc/pip.conf /etc/xdg/pip/pip.conf "$HOME/.pip/pip.conf"
        "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "${PIP_CONFIG_FILE:-}")
    local name names=(PIP_CERT PIP_CLIENT_CERT PIP_CONSTRAINT PIP_FIND_LINKS
        PIP_INDEX_URL PIP_EXTRA_INDEX_URL SSL_CERT_FILE SSL_CERT_DIR
        REQUESTS_CA_BUNDLE CURL_CA_BUNDLE)
    {
        for file in "${files[@]}"; do
            if [ -f "$file" ]; then
                printf '%s\n' "$file"
                cat "$file"
            fi
        done
        for name in "${names[@]}"; do printf '%s\n' "${!name:-}"; done
    } | tr -s ' \t=,;"' '\n' | sed -n 's#^file://\(.*\)/[^/]\+/*$#\1#; \#^/[^/]\+#p' | sort -u
}

enter() {
    local path system_folder='^/(bin|etc|lib[^/]*|root|run|sbin|usr|var)$'
    provide_root
    # Parents first, and what is written to before what is only read.
    for path in /proc /dev /tmp "$here"; do show "$path" rw; done
    for path in /etc/hosts /etc/resolv.conf; do
        if [ -e "$path" ]; then show "$path"; fi
    done
    while read -r path; do
        if [ -e "$path" ] && ! [[ $path =~ $system_folder ]]; then show "$path"; fi
    done < <(pip_paths)
    mkdir -p "$root$HOME"
    # What describes this machine's own programs means nothing in there.
    for path in $(compgen -e | grep -E '^(LD_|PYTHONHOME|PYTHONPATH|PYENV_)'); do
        unset "$path"
    done
    unset VIRTUAL_ENV TMPDIR CC CFLAGS LDFLAGS PKG_CONFIG PKG_CONFIG_PATH
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export LC_ALL=C.UTF-8 HOTLOOP_SYSTEM=$suite
    # shellcheck disable=SC2016  # for the shell in there
    exec chroot "$root" sh -c 'cd "$1" && shift && exec "$@"' sh "$here" "$@"
}

if [ "${1:-}" = --in-namespace ]; then
    shift
    enter "$@"
fi
[ "$(uname -s)" = Linux ] || give_up "a Debian root folder needs Linux"
[ "$(id -u)" = 0 ] || give_up "a Debian root folder needs root (mounts, chroot)"
unshare --mount true 2>/dev/null ||
    give_up "this machine allows no mount namespace, which a root folder needs"
exec unshare --mount --propagation private "$0" --in-namespace "$@"
