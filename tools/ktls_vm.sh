#!/usr/bin/env bash
# ktls_vm.sh COMMAND [ARG...] - run a command on a kernel that encrypts TLS.
#
# For machines whose own kernel has no "tls" protocol. The kernel is Debian's
# user-mode Linux: a process like any other, which needs neither root nor a
# processor that virtualises. It has this machine's files, in which the command
# may write, but what it writes is gone afterwards; its own network, with the
# loopback interface alone; and one processor. The command runs in this checkout,
# with the environment it is called with. Exit status: the command's, or 69 where
# there is no such kernel, for the reason on standard error.
set -u

here=$(cd "$(dirname "$0")/.." && pwd -P)
no_kernel=69 # EX_UNAVAILABLE
memory=2048M

give_up() {
    printf 'hotloop: %s\n' "$*" >&2
    exit $no_kernel
}

# What runs as the first process, with the kernel's own root, and then with the
# one that can be written to.
first() {
    mount -t proc proc /proc && mount -t tmpfs tmpfs /mnt && mkdir /mnt/{up,work,root} &&
        insmod "$modules/kernel/fs/overlayfs/overlay.ko" &&
        mount -t overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work overlay \
            /mnt/root || return
    cd /mnt/root && mkdir -p ".$shared" lib/modules &&
        mount -t proc proc proc && mount -t sysfs sysfs sys &&
        mount -t devtmpfs dev dev && mkdir -p dev/pts dev/shm &&
        mount -t devpts devpts dev/pts && mount -t tmpfs tmpfs dev/shm &&
        mount -t hostfs -o "$shared" none ".$shared" &&
        mount --bind "${modules%/*}" lib/modules || return
    ip link set lo up
    # shellcheck disable=SC2016  # for the shell in there
    chroot . /bin/bash -c '
        modprobe tls || exit '$no_kernel'
        # Ciphers, by the names that one kernel or another has for their parts.
        modprobe -qa gcm ctr ghash-generic ccm chacha20poly1305 chacha_generic \
            poly1305_generic
        cd "$1" && . "$2/command"' bash "$here" "$shared"
}

if [ "${1:-}" = --first ]; then
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin
    shared=$2 modules=$3
    stty -onlcr
    first
    echo $? >"/mnt/root$shared/status"
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
fi

[ $# -gt 0 ] || give_up "usage: tools/ktls_vm.sh COMMAND [ARG...]"
"$here/tools/system_packages.sh" python3 uml || give_up "no user-mode Linux here"
kernel=$(command -v linux.uml)
modules=$(find "${kernel%/bin/*}/lib/uml/modules" -mindepth 1 -maxdepth 1 | tail -n 1)
shared=$(mktemp -d)
trap 'rm -rf "$shared"' EXIT
{
    export -p
    printf '%q ' "$@"
} >"$shared/command"
cat >"$shared/init" <<END
#!/bin/bash
exec $(printf '%q ' "$here/tools/ktls_vm.sh" --first "$shared" "$modules")
END
chmod +x "$shared/init"

"$kernel" mem=$memory rootfstype=hostfs ro "init=$shared/init" con=null con0=fd:0,fd:1 \
    quiet loglevel=1 </dev/null 2>"$shared/messages"
[ -s "$shared/status" ] || {
    tail -n 20 "$shared/messages" >&2
    give_up "the kernel did not get to the command"
}
exit "$(<"$shared/status")"
