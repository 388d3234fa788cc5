#!/usr/bin/env bash
# portable.sh PYTHON - compile the C core, syntax only, for what this system is not.
#
# With musl's headers and as free-threaded Python has it compiled; and as if there
# were neither Linux nor sendmmsg(). Wants gcc, musl-gcc and libuv's headers.
set -u
cd "$(dirname "$0")/.." || exit 1

python=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))') || exit 1
common=(-fsyntax-only -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Icsrc "-I$include")

# What musl's compiler may take from the system: libuv's headers, the kernel's.
machine=$(gcc -print-multiarch)
for name in uv.h uv linux asm-generic; do ln -s "/usr/include/$name" "$folder/$name"; done
ln -s "/usr/include/$machine/asm" "$folder/asm"
musl=(musl-gcc "${common[@]}" -DPy_GIL_DISABLED=1 -idirafter "$folder")
other=(gcc "${common[@]}" -U__linux__ -Ulinux -DHL_NO_MMSG)

status=0
# compile TITLE COMMAND...: every file by itself, two at a time.
compile() {
    local title=$1
    shift
    if find csrc -name '*.c' -print0 | xargs -0 -n 8 -P 2 "$@"; then
        echo "portable: $title: compiles"
    else
        echo "portable: $title: FAILED"
        status=1
    fi
}
compile "musl, free-threaded" "${musl[@]}"
compile "not Linux, no sendmmsg()" "${other[@]}"
exit $status
