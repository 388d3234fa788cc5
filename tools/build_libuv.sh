#!/usr/bin/env bash
# build_libuv.sh PREFIX [ARCHIVE] - build libuv's release into a folder of its own.
#
# For wheels: what the build containers have is older than hotloop needs. The archive
# is downloaded unless one is given, and its checksum must be the one below; another
# release needs LIBUV_VERSION and LIBUV_SHA256. Needs a C compiler, make, cmake and,
# for the download, curl. Afterwards
#
#     PKG_CONFIG_PATH=PREFIX/lib/pkgconfig
#
# has hotloop's build find it; PREFIX/share/doc/libuv has its licences.
set -eu

version=${LIBUV_VERSION:-1.53.0}
checksum=${LIBUV_SHA256:-cb0d6dd2128d5a95bd242c6cc982a24fe608fa93da57b6b4ec763b0018c53e64}
source=https://dist.libuv.org/dist/v$version/libuv-v$version.tar.gz

prefix=${1:?the folder to install into}
archive=${2:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

sha256() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1"
    else
        shasum -a 256 "$1" # macOS
    fi | cut -d ' ' -f 1
}

if [ -z "$archive" ]; then
    archive=$folder/libuv.tar.gz
    curl --fail --silent --show-error --location --retry 3 -o "$archive" "$source"
fi
found=$(sha256 "$archive")
if [ "$found" != "$checksum" ]; then
    printf 'hotloop: %s has the checksum %s,\nnot the expected %s\n' \
        "$archive" "$found" "$checksum" >&2
    exit 1
fi

mkdir "$folder/source"
tar -xzf "$archive" -C "$folder/source" --strip-components=1
# Hardened as hotloop is; the compilers of the containers have all of this.
hardening="-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong"
linking=
if [ "$(uname)" = Linux ]; then
    hardening="$hardening -fstack-clash-protection"
    linking=-Wl,-z,relro,-z,now,-z,noexecstack
fi
# Without its own path in it the library is the same wherever it was built.
cmake -S "$folder/source" -B "$folder/build" \
    -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_C_FLAGS="-ffile-prefix-map=$folder=. $hardening ${CFLAGS:-}" \
    -DCMAKE_SHARED_LINKER_FLAGS="$linking" \
    -DCMAKE_INSTALL_PREFIX="$prefix" \
    -DCMAKE_INSTALL_LIBDIR=lib \
    -DCMAKE_INSTALL_NAME_DIR="$prefix/lib" \
    -DLIBUV_BUILD_TESTS=OFF
cmake --build "$folder/build" --parallel
cmake --install "$folder/build"
printf 'libuv %s is in %s\n' "$version" "$prefix"
